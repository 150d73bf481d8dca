"""What the other end is: by docker-py and by hand."""

from dataclasses import replace

import docker
import docker.errors
import pytest
from served import Stage

from runtime.idmap import AUTO
from supervisor.api.routing import API_VERSION, OLDEST_API_VERSION
from supervisor.errors import CommandError


def test_ping_says_what_it_speaks(engine: docker.DockerClient, stage: Stage) -> None:
    assert engine.ping()
    for method in ("GET", "HEAD"):
        with stage.client.request(method, "/_ping", {}) as reply:
            assert reply.headers["api-version"] == API_VERSION
            assert reply.headers["docker-experimental"] == "false"
            assert reply.headers["ostype"] == "linux"
            assert reply.body() == (b"OK" if method == "GET" else b"")


def test_version_is_negotiated(engine: docker.DockerClient) -> None:
    shown = engine.version()
    assert shown["ApiVersion"] == API_VERSION
    assert shown["MinAPIVersion"] == OLDEST_API_VERSION
    assert engine.api._version == API_VERSION


@pytest.mark.parametrize("version", ["1.41", "1.43", "1.47"])
def test_each_version_is_spoken(stage: Stage, version: str) -> None:
    assert len(stage.client.get(f"/v{version}/containers/json")) == 3


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.40", "client version 1.40 is too old. Minimum supported API version is 1.41"),
        ("1.48", "client version 1.48 is too new. Maximum supported API version is 1.47"),
    ],
)
def test_other_versions_are_refused_in_dockers_words(stage: Stage, version: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        stage.client.get(f"/v{version}/containers/json")


def test_info_counts_containers(engine: docker.DockerClient) -> None:
    shown = engine.info()
    assert (shown["Containers"], shown["ContainersRunning"], shown["ContainersStopped"]) == (5, 3, 2)
    assert shown["Images"] == 1


def test_info_tells_of_the_host_what_holds(engine: docker.DockerClient, stage: Stage) -> None:
    shown = engine.info()
    assert shown["CgroupVersion"] in {"1", "2"}
    assert shown["SecurityOptions"] == ["name=seccomp,profile=builtin", "name=cgroupns"]
    assert shown["Plugins"]["Network"] == ["bridge", "host", "null"]
    holds = all(shown[name] for name in ("MemoryLimit", "CPUSet", "PidsLimit", "CPUShares"))
    assert bool(shown["Warnings"]) is not holds
    for view in stage.commands.known.values():
        object.__setattr__(view, "config", replace(view.config, userns=AUTO))
    assert "name=userns" in engine.info()["SecurityOptions"]


def test_disk_usage(engine: docker.DockerClient, stage: Stage) -> None:
    shown = engine.df()
    assert shown["LayersSize"] == 1000
    assert {each["Names"][0] for each in shown["Containers"]} == {"/web.1", "/web.2", "/job", "/late", "/term"}

    with pytest.raises(CommandError, match="unknown object type: nothing"):
        stage.client.get("/system/df", type="nothing")
    assert stage.client.get("/system/df", type="volume")["Containers"] == []


def test_metrics_are_for_prometheus(stage: Stage) -> None:
    with stage.client.request("GET", "/metrics", {}) as reply:
        assert reply.headers["content-type"] == "text/plain; version=0.0.4"
        assert reply.body() == b"up 1\n"


def test_what_is_not_offered_is_named(engine: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.APIError) as told:
        engine.networks.create("mine")
    assert told.value.status_code == 501
    assert "making a network is not offered by pysup: the stack's networks are those of its spec" in str(told.value)


def test_there_are_no_plugins(engine: docker.DockerClient) -> None:
    assert engine.plugins.list() == []


@pytest.mark.parametrize("kind", ["containers", "images", "networks", "volumes", "plugins"])
def test_inspect_of_nothing_says_so(engine: docker.DockerClient, kind: str) -> None:
    with pytest.raises(docker.errors.NotFound):
        getattr(engine, kind).get("nosuch")


def test_unknown_paths_are_no_pages(stage: Stage) -> None:
    with pytest.raises(CommandError, match="page not found"):
        stage.client.get("/nothing")


def test_a_fault_of_ours_ends_one_call_and_is_told(stage: Stage) -> None:
    stage.commands.fault = ZeroDivisionError("oops")
    with pytest.raises(CommandError, match="internal error: ZeroDivisionError: oops"):
        stage.client.get("/containers/json")
    assert stage.complaints == ["control socket: GET /containers/json: ZeroDivisionError: oops"]
    stage.complaints.clear()
    stage.commands.fault = None
    assert stage.client.get("/containers/json")
