"""Which containers there are, what they are, and up and down with them: by docker-py."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import docker
import docker.errors
import pytest
from fake_commands import view
from served import Stage

from runtime.config import Attachment, Network, Port
from runtime.mounts import READ_ONLY, Bind, MemoryFile, Tmpfs
from runtime.security import capability_mask
from supervisor.api import creation, shapes
from supervisor.api.shapes import human, state_of, status_of
from supervisor.commands import View
from supervisor.core.checks import Exec, Health
from supervisor.core.policy import Policy
from supervisor.core.states import HealthStatus, Phase
from supervisor.errors import CommandError
from supervisor.network.ends import Connections, End, Published


def names(found: list[Any]) -> list[str]:
    return sorted(each.name for each in found)


def actions(stage: Stage) -> list[tuple[object, ...]]:
    """What was asked of the stack."""
    return stage.commands.asked


def refused(call: Callable[[], object]) -> tuple[int, str]:
    """How a call is refused: status and message."""
    with pytest.raises(docker.errors.APIError) as told:
        call()
    assert told.value.status_code is not None
    return told.value.status_code, str(told.value.explanation)


# --- which there are -------------------------------------------------------------------------------------------------


def test_list_shows_what_runs(engine: docker.DockerClient) -> None:
    assert names(engine.containers.list()) == ["term", "web.1", "web.2"]


def test_list_all_and_the_newest(engine: docker.DockerClient, stage: Stage) -> None:
    assert len(engine.containers.list(all=True)) == 5
    stage.do(stage.commands.put, "job", created_at=time.time())
    assert names(engine.containers.list(limit=1)) == ["job"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": "web"}, ["web.1", "web.2"]),
        ({"name": "^/web.1$"}, ["web.1"]),
        ({"status": "exited"}, ["job"]),
        ({"status": ["exited", "created"]}, ["job", "late"]),
        ({"exited": 3}, ["job"]),
        ({"exited": 4}, []),
        ({"label": "com.docker.compose.service=web"}, ["web.1", "web.2"]),
        ({"label": ["com.docker.compose.service=web", "com.docker.compose.container-number=2"]}, ["web.2"]),
        ({"label": "nothing"}, []),
        ({"ancestor": "base", "name": "term"}, ["term"]),
        ({"ancestor": "other"}, []),
        ({"health": "none", "name": "term"}, ["term"]),
        ({"health": "healthy"}, []),
        ({"network": "host", "name": "term"}, ["term"]),
        ({"volume": "any"}, []),
        ({"is-task": "true"}, []),
    ],
)
def test_list_filters(engine: docker.DockerClient, filters: dict[str, Any], found: list[str]) -> None:
    assert names(engine.containers.list(filters=filters)) == found


def test_list_filters_by_id_and_age(engine: docker.DockerClient, stage: Stage) -> None:
    key = stage.commands.known["web.2"].key
    assert names(engine.containers.list(filters={"id": key[:12]})) == ["web.2"]
    stage.do(stage.commands.put, "web.1", created_at=1000.0)
    assert names(engine.containers.list(filters={"before": "web.2", "name": "web"})) == ["web.1"]
    assert names(engine.containers.list(filters={"since": "web.1", "name": "web"})) == ["web.2"]


def test_list_filters_by_ports_volumes_and_networks(engine: docker.DockerClient, stage: Stage) -> None:
    view = stage.commands.known["web.1"]
    bind = Bind(source="/state/volumes/data", target="/lib/data", volume="data")
    ports = Published(80, "tcp", "127.0.0.1", 8080), Published(53, "udp", "", 53)
    changes = {"config": replace(view.config, mounts=(bind,)), "connections": Connections(ports=ports)}
    stage.do(stage.commands.put, "web.1", **changes)

    def found(name: str, value: str) -> bool:
        names_ = names(engine.containers.list(all=True, filters={name: value}))
        assert names_ in ([], ["web.1"])
        return bool(names_)

    assert all(found("publish", each) for each in ("8080", "8080/tcp", "8000-8100", "53/udp"))
    assert all(found("expose", each) for each in ("80", "53/udp"))
    assert not any(found("publish", each) for each in ("80", "8080/udp", "53"))
    assert all(found("volume", each) for each in ("data", "/lib/data", "/state/volumes/data"))
    assert not found("volume", "dat")
    assert len(engine.containers.list(all=True, filters={"isolation": "default", "network": "host"})) == 5
    for filters in ({"publish": "x"}, {"expose": "1/odd"}, {"health": "odd"}):
        assert refused(partial(engine.containers.list, filters=filters))[0] == 400


def test_list_takes_the_filters_of_old_clients(stage: Stage) -> None:
    found = stage.client.get("/containers/json", filters={"name": {"web.1": True, "web.2": False}})
    assert [each["Names"] for each in found] == [["/web.1"]]


@pytest.mark.parametrize(
    "filters", ['{"foo": ["a"]}', '{"status": ["odd"]}', '{"exited": ["x"]}', "[", '{"id": 1}', "1"]
)
def test_list_refuses_filters_that_make_no_sense(stage: Stage, filters: str) -> None:
    with pytest.raises(CommandError, match="invalid filter"):
        stage.client.get("/containers/json", filters=filters)


def test_list_with_sizes(stage: Stage) -> None:
    upper = stage.root.parent / "uppers/web.1"
    upper.mkdir(parents=True)
    (upper / "file").write_bytes(b"x" * 10)
    found = stage.client.get("/containers/json", size=True, filters={"name": ["web.1"]})
    assert (found[0]["SizeRw"], found[0]["SizeRootFs"]) == (10, 1010)
    assert stage.client.get("/containers/web.1/json", size=True)["SizeRw"] == 10


def test_inspect_tells_all(engine: docker.DockerClient, stage: Stage) -> None:
    health = Health(Exec(("true",)))
    changes = {"health": HealthStatus.UNHEALTHY, "failing": 2, "finding": "no answer", "policy": Policy(health=health)}
    stage.do(stage.commands.put, "web.1", **changes)
    shown = engine.containers.get("web.1")
    assert shown.id == stage.commands.known["web.1"].key
    state = shown.attrs["State"]
    assert (state["Status"], state["Running"], state["Pid"], state["ExitCode"]) == ("running", True, 4242, 0)
    assert state["Health"]["Status"] == "unhealthy"
    assert state["Health"]["Log"][0]["Output"] == "no answer"
    assert shown.attrs["Config"]["Healthcheck"]["Test"] == ["CMD", "true"]
    assert shown.attrs["Config"]["Env"] == ["A=1"]
    assert shown.attrs["Config"]["Labels"]["com.docker.compose.project"] == "demo"
    assert (shown.attrs["Path"], shown.attrs["Args"]) == ("sleep", ["1000"])
    assert (shown.attrs["Config"]["StopSignal"], shown.attrs["NetworkSettings"]["IPAddress"]) == ("SIGTERM", "")
    assert "/proc/kcore" in shown.attrs["HostConfig"]["MaskedPaths"]


def test_inspect_names_capabilities_beside_the_usual_ones(engine: docker.DockerClient, stage: Stage) -> None:
    mask = capability_mask(["CAP_NET_ADMIN"], ["CAP_CHOWN"], privileged=False)
    config = replace(stage.commands.known["web.1"].config, capabilities=mask)
    stage.do(stage.commands.put, "web.1", config=config)
    host = engine.containers.get("web.1").attrs["HostConfig"]
    assert (host["CapAdd"], host["CapDrop"]) == (["CAP_NET_ADMIN"], ["CAP_CHOWN"])


def test_inspect_by_any_reference(engine: docker.DockerClient, stage: Stage) -> None:
    key = stage.commands.known["job"].key
    for reference in ("job", "/job", "jo", key, key[:12]):
        assert engine.containers.get(reference).name == "job"


def test_inspect_of_what_is_not_there(engine: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.NotFound, match="No such container: nobody"):
        engine.containers.get("nobody")


@pytest.mark.parametrize(
    ("changes", "state", "status"),
    [
        ({}, "running", "Up About a minute"),
        ({"health": HealthStatus.HEALTHY}, "running", "Up About a minute (healthy)"),
        ({"health": HealthStatus.STARTING}, "running", "Up About a minute (health: starting)"),
        ({"paused": True}, "paused", "Up About a minute (Paused)"),
        ({"phase": Phase.STOPPING}, "running", "Up About a minute"),
        (
            {"phase": Phase.BACKOFF, "exit_status": 1, "finished_at": 990.0},
            "restarting",
            "Restarting (1) 10 seconds ago",
        ),
        ({"phase": Phase.EXITED, "exit_status": 137, "finished_at": 1.0}, "exited", "Exited (137) 16 minutes ago"),
        (
            {"phase": Phase.FAILED, "started_at": None, "failure": "no image"},
            "exited",
            "Exited (0) Less than a second ago",
        ),
        ({"phase": Phase.WAITING, "started_at": None}, "created", "Created"),
        ({"phase": Phase.EXITED, "started_at": None}, "created", "Created"),
        ({"phase": Phase.STUCK}, "dead", "Dead"),
    ],
)
def test_states_are_dockers(changes: dict[str, Any], state: str, status: str) -> None:
    shown = view("web", **{"started_at": 910.0, **changes})
    assert (state_of(shown), status_of(shown, 1000.0)) == (state, status)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_state(phase: Phase) -> None:
    assert state_of(view("web", phase=phase)) in {"created", "running", "restarting", "exited", "dead"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (3 * 86400, "3 days"),
        (15 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_are_dockers(seconds: float, words: str) -> None:
    assert human(seconds) == words


def test_top(engine: docker.DockerClient) -> None:
    shown = engine.containers.get("web.1").top()
    assert shown["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert shown["Processes"] == [["root", "4242", "1", "-", "10:00", "-", "00:00:01", "sleep 1000"]]


@pytest.mark.parametrize(
    ("options", "titles", "row"),
    [
        ("-o pid,comm", ["PID", "COMMAND"], ["4242", "sleep"]),
        ("-eo pid,cmd=WHAT", ["PID", "WHAT"], ["4242", "sleep 1000"]),
        ("-opid -o args", ["PID", "COMMAND"], ["4242", "sleep 1000"]),
        ("--format pid", ["PID"], ["4242"]),
        ("-e", ["PID", "TTY", "TIME", "CMD"], ["4242", "-", "00:00:01", "sleep"]),
        ("o user,ppid", ["USER", "PPID"], ["root", "1"]),
    ],
)
def test_top_with_options(engine: docker.DockerClient, options: str, titles: list[str], row: list[str]) -> None:
    shown = engine.containers.get("web.1").top(ps_args=options)
    assert shown == {"Titles": titles, "Processes": [row]}


@pytest.mark.parametrize(
    ("options", "titles"),
    [
        ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("-aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        ("ax", "PID TTY STAT TIME COMMAND"),
        ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
        ("-e -f", "UID PID PPID C STIME TTY TIME CMD"),
        ("-eF", "UID PID PPID C SZ RSS PSR STIME TTY TIME CMD"),
        ("-el", "F S UID PID PPID C PRI NI ADDR SZ WCHAN TTY TIME CMD"),
        ("-elf", "F S UID PID PPID C PRI NI ADDR SZ WCHAN STIME TTY TIME CMD"),
        ("axl", "F UID PID PPID PRI NI VSZ RSS WCHAN STAT TTY TIME COMMAND"),
        ("axj", "PPID PID PGID SID TTY TPGID STAT UID TIME COMMAND"),
    ],
)
def test_top_has_the_columns_of_ps(engine: docker.DockerClient, options: str, titles: str) -> None:
    assert engine.containers.get("web.1").top(ps_args=options)["Titles"] == titles.split()


@pytest.mark.parametrize("options", ["-o", "-o nosuch", "-p 1", "--sort=pid", "-L", "aux -f", "web"])
def test_top_with_options_that_are_not_known(engine: docker.DockerClient, options: str) -> None:
    status, message = refused(lambda: engine.containers.get("web.1").top(ps_args=options))
    assert status == 400
    assert message.startswith("ps_args: ")


def test_top_of_what_does_not_run(engine: docker.DockerClient) -> None:
    assert refused(engine.containers.get("job").top) == (409, "container job is not running")


def test_changes(engine: docker.DockerClient, stage: Stage) -> None:
    import stat

    upper = stage.root.parent / "uppers/web.1"
    (upper / "bin").mkdir(parents=True)
    (upper / "bin/new").write_bytes(b"")
    (upper / "bin/sh").write_bytes(b"")
    if os.geteuid() == 0:
        os.mknod(upper / "gone", stat.S_IFCHR, 0)
    found = {each["Path"]: each["Kind"] for each in engine.containers.get("web.1").diff()}
    gone = {"/gone": 2} if os.geteuid() == 0 else {}
    assert found == {"/bin": 0, "/bin/new": 1, "/bin/sh": 0, **gone}
    assert engine.containers.get("web.2").diff() == []


def test_mounts_are_told_and_are_no_changes(engine: docker.DockerClient, stage: Stage) -> None:
    mounts = (
        Bind(source="/srv", target="/data", attributes=READ_ONLY),
        Bind(source="/state/db", target="/lib/db", volume="db"),
        Tmpfs(target="/tmp", size_bytes=1 << 20),
        MemoryFile(target="/run/secrets/key", contents=b"hush"),
    )
    view = stage.commands.known["web.1"]
    object.__setattr__(view, "config", replace(view.config, mounts=mounts, read_only=True))
    told = engine.containers.get("web.1").attrs
    assert [(each["Type"], each["Destination"], each["RW"]) for each in told["Mounts"]] == [
        ("bind", "/data", False),
        ("volume", "/lib/db", True),
        ("tmpfs", "/tmp", True),
    ]
    assert told["HostConfig"]["Binds"] == ["/srv:/data:ro", "db:/lib/db"]
    assert told["HostConfig"]["ReadonlyRootfs"]
    assert "hush" not in json.dumps(told)
    upper = stage.root.parent / "uppers/web.1"
    for made in ("data", "lib/db", "run/secrets"):
        (upper / made).mkdir(parents=True)
    for made in ("run/secrets/key", "lib/other"):
        (upper / made).touch()
    assert {each["Path"] for each in engine.containers.get("web.1").diff()} == {"/lib", "/lib/other"}


def test_volumes_come_and_go(engine: docker.DockerClient, stage: Stage) -> None:
    assert engine.volumes.list() == []
    engine.volumes.create("db")
    made = engine.volumes.create("db")
    assert os.path.isdir(made.attrs["Mountpoint"])
    assert [each.name for each in engine.volumes.list()] == ["db"]
    (stage.root.parent / "volumes/db/deep").mkdir()
    view = stage.commands.known["web.1"]
    config = replace(view.config, mounts=(Bind(source="/state/db", target="/lib/db", volume="db"),))
    object.__setattr__(view, "config", config)
    assert refused(made.remove) == (409, "remove db: volume is in use - [web.1]")
    object.__setattr__(view, "config", replace(config, mounts=()))
    engine.volumes.get("db").remove()
    assert not os.path.exists(made.attrs["Mountpoint"])
    assert refused(lambda: engine.volumes.get("db")) == (404, "get db: no such volume")
    assert refused(lambda: engine.volumes.create("../x"))[0] == 400
    assert refused(lambda: engine.volumes.create("x", driver="nfs"))[0] == 501
    assert refused(lambda: engine.volumes.create("x", labels={"a": "b"}))[0] == 501
    assert stage.client.delete("/volumes/nosuch", force=True) is None


def test_volumes_are_pruned(engine: docker.DockerClient, stage: Stage) -> None:
    place = stage.root.parent / "volumes"
    for name in ("db", "spare", "@web.1-0"):
        (place / name).mkdir(parents=True)
    (place / "spare/file").write_bytes(b"12345")
    view = stage.commands.known["web.1"]
    bind = Bind(source="/state/db", target="/lib/db", volume="db")
    object.__setattr__(view, "config", replace(view.config, mounts=(bind,)))
    assert [each.name for each in engine.volumes.list(filters={"dangling": True})] == ["@web.1-0", "spare"]
    assert [each.name for each in engine.volumes.list(filters={"name": "d", "driver": "local"})] == ["db"]
    assert engine.volumes.list(filters={"label": "a"}) == []
    assert refused(lambda: engine.volumes.list(filters={"dangling": "perhaps"}))[0] == 400
    used = {each["Name"]: each["UsageData"] for each in engine.df()["Volumes"]}
    assert (used["db"]["RefCount"], used["spare"]) == (1, {"Size": 5, "RefCount": 0})
    assert engine.volumes.prune({"label": "a"})["VolumesDeleted"] == []
    assert engine.volumes.prune()["VolumesDeleted"] == ["@web.1-0"]  # those without a name
    assert engine.volumes.prune({"all": True}) == {"VolumesDeleted": ["spare"], "SpaceReclaimed": 5}
    assert [each.name for each in engine.volumes.list()] == ["db"]


# --- up and down -----------------------------------------------------------------------------------------------------


def test_start_and_again(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.get("job").start()
    assert actions(stage)[-1] == ("start", "job")
    with stage.client.request("POST", "/containers/job/start", {}) as reply:
        assert reply.status == 304


def test_stop_and_again(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.get("web.1").stop(timeout=3)
    assert actions(stage)[-1] == ("stop", "web.1", 3.0)
    with stage.client.request("POST", "/containers/web.1/stop", {}) as reply:
        assert reply.status == 304
    assert engine.containers.get("web.1").attrs["State"]["ExitCode"] == 143


def test_restart(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.get("web.1").restart(timeout=0)
    assert ("restart", "web.1", 0.0) in actions(stage)
    assert engine.containers.get("web.1").attrs["RestartCount"] == 1


@pytest.mark.parametrize(("word", "number"), [("HUP", 1), ("SIGHUP", 1), ("sigusr1", 10), ("15", 15), ("RTMIN+1", 35)])
def test_kill(engine: docker.DockerClient, stage: Stage, word: str, number: int) -> None:
    engine.containers.get("web.1").kill(signal=word)
    assert actions(stage)[-1] == ("kill", "web.1", number)


@pytest.mark.parametrize("word", ["NOPE", "0", "99", "-1", "RTMIN+99"])
def test_kill_with_no_signal(engine: docker.DockerClient, word: str) -> None:
    assert refused(lambda: engine.containers.get("web.1").kill(signal=word)) == (400, f"invalid signal: {word}")


def test_kill_of_what_does_not_run(engine: docker.DockerClient) -> None:
    status, message = refused(engine.containers.get("job").kill)
    assert status == 409
    assert "is not running" in message


def test_pause_and_unpause(engine: docker.DockerClient) -> None:
    container = engine.containers.get("web.1")
    container.pause()
    container.reload()
    assert container.status == "paused"
    assert refused(container.pause) == (409, "container web.1 is already paused")
    assert refused(container.start) == (409, "container web.1 is paused: unpause it")
    container.unpause()
    assert refused(container.unpause) == (409, "container web.1 is not paused")


def test_wait_for_one_that_has_ended(engine: docker.DockerClient) -> None:
    assert engine.containers.get("job").wait() == {"StatusCode": 3}


@pytest.mark.parametrize("condition", ["not-running", "next-exit"])
def test_wait_begins_before_its_head_comes(stage: Stage, condition: str) -> None:
    with stage.client.request("POST", "/containers/web.1/wait", {"condition": condition}) as reply:
        assert ("wait", "web.1", condition) in actions(stage)
        stage.do(stage.commands.end, "web.1", 7)
        assert reply.data() == {"StatusCode": 7}


def test_wait_until_removed(stage: Stage) -> None:
    stage.do(stage.commands.put, "web.1", managed=False)
    with stage.client.request("POST", "/containers/web.1/wait", {"condition": "removed"}) as reply:
        stage.client.delete("/containers/web.1", force=True)
        assert reply.data() == {"StatusCode": 137}


def test_wait_for_something_odd(engine: docker.DockerClient) -> None:
    assert refused(lambda: engine.containers.get("web.1").wait(condition="odd")) == (400, "invalid condition: 'odd'")


def test_many_wait_at_once(stage: Stage) -> None:
    results: list[Any] = []
    waits = [
        threading.Thread(target=lambda: results.append(stage.client.post("/containers/web.1/wait"))) for _ in range(20)
    ]
    for wait in waits:
        wait.start()
    while sum(asked[0] == "wait" for asked in actions(stage)) < 20:
        stage.do(time.time)
    stage.do(stage.commands.end, "web.1", 1)
    for wait in waits:
        wait.join()
    assert results == [{"StatusCode": 1}] * 20


def test_resize(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.get("term").resize(height=24, width=80)
    assert actions(stage)[-1] == ("resize", "term", 24, 80)
    assert refused(lambda: engine.containers.get("term").resize(height=-1, width=80))[0] == 400


# --- coming and going ------------------------------------------------------------------------------------------------


def test_create_asks_for_what_was_said(engine: docker.DockerClient, stage: Stage) -> None:
    made = engine.containers.create(
        "base",
        ["-c", "true"],
        name="mine",
        entrypoint=["sh"],
        environment={"A": "1"},
        user="1:2",
        working_dir="/tmp",
        hostname="box",
        labels={"l": "v"},
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
        network_mode="none",
        init=True,
        privileged=True,
        cap_add=["NET_ADMIN"],
        cap_drop=["KILL"],
        userns_mode="host",
        security_opt=["no-new-privileges", "seccomp=unconfined"],
        ulimits=[docker.types.Ulimit(name="nofile", soft=10, hard=20)],
        log_config=docker.types.LogConfig(
            type="json-file", config={"max-size": "1m", "max-file": "3", "compress": "true", "mode": "non-blocking"}
        ),
        stop_signal="SIGINT",
        auto_remove=True,
        tty=True,
        stdin_open=True,
    )
    assert made.name == "mine"
    config = {
        "cmd": ["sh", "-c", "true"],
        "env": {"A": "1"},
        "user": "1:2",
        "workdir": "/tmp",
        "hostname": "box",
        "stop_signal": "SIGINT",
        "restart": "on-failure:3",
        "network": "none",
        "privileged": True,
        "init": True,
        "cap_add": ["NET_ADMIN"],
        "cap_drop": ["KILL"],
        "userns": "host",
        "seccomp": "unconfined",
        "logs": {"driver": "file", "max_size": "1m", "max_files": 3, "compress": True, "overflow": "drop"},
        "ulimits": {"nofile": {"soft": 10, "hard": 20}},
    }
    assert actions(stage)[-1] == ("create", "mine", "base", config, {"l": "v"}, True, True, True)


def test_create_asks_for_files_and_names(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.create(
        "base",
        "true",
        volumes={"/srv": {"bind": "/data", "mode": "ro"}, "db": {"bind": "/db", "mode": "rw"}},
        mounts=[
            docker.types.Mount("/m", "/srv", type="bind", read_only=True, propagation="rslave"),
            docker.types.Mount("/v", "vol", type="volume", no_copy=True),
            docker.types.Mount("/t", None, type="tmpfs", tmpfs_size=1 << 20, tmpfs_mode=0o1700),
        ],
        tmpfs={"/tmp": "size=64m"},
        read_only=True,
        shm_size="128m",
        sysctls={"net.core.somaxconn": "1024"},
        extra_hosts={"a": "1.2.3.4"},
        dns=["1.1.1.1"],
        dns_search=["x"],
        dns_opt=["rotate"],
        devices=["/dev/fuse:/dev/fuse:rwm"],
    )
    _, _, _, config, *_ = actions(stage)[-1]
    assert config == {
        "cmd": ["true"],
        "volumes": [
            "/srv:/data:ro",
            "db:/db:rw",
            {
                "type": "bind",
                "target": "/m",
                "read_only": True,
                "source": "/srv",
                "bind": {"propagation": "rslave", "create_host_path": False, "recursive": True},
            },
            {
                "type": "volume",
                "target": "/v",
                "read_only": False,
                "source": "vol",
                "volume": {"nocopy": True, "subpath": ""},
            },
            {"type": "tmpfs", "target": "/t", "read_only": False, "tmpfs": {"size": 1 << 20, "mode": 0o1700}},
        ],
        "tmpfs": ["/tmp:size=64m"],
        "read_only": True,
        "shm_size": 128 << 20,
        "sysctls": {"net.core.somaxconn": "1024"},
        "extra_hosts": ["a:1.2.3.4"],
        "dns": ["1.1.1.1"],
        "dns_search": ["x"],
        "dns_opt": ["rotate"],
        "devices": ["/dev/fuse:/dev/fuse:rwm"],
    }


def test_create_asks_for_nothing_else(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.create("base", "true")
    _, name, _, config, labels, *rest = actions(stage)[-1]
    assert str(name).startswith("base-")
    assert (config, labels, rest) == ({"cmd": ["true"]}, {}, [False, False, False])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"Cmd": ["a"]}, 400, "no image was given"),
        ({"Image": "base"}, 400, "no command specified"),
        ({"Image": "other", "Cmd": ["a"]}, 404, "No such image: other"),
        ({"Image": "base", "Cmd": ["a"], "HostConfig": {"Binds": ["./a:/x"]}}, 400, "a path must be absolute"),
        ({"Image": "base", "Cmd": ["a"], "HostConfig": {"Mounts": [{"Type": "npipe"}]}}, 501, "type 'npipe'"),
        ({"Image": "base", "Cmd": ["a"], "HostConfig": {"VolumesFrom": ["x"]}}, 501, "HostConfig.VolumesFrom is not"),
        (
            {"Image": "base", "Cmd": ["a"], "HostConfig": {"MemoryReservation": 1}},
            501,
            "HostConfig.MemoryReservation is not offered",
        ),
        (
            {"Image": "base", "Cmd": ["a"], "HostConfig": {"LogConfig": {"Type": "syslog"}}},
            501,
            "the log driver 'syslog' is not offered by pysup: there is json-file, local, none",
        ),
        (
            {"Image": "base", "Cmd": ["a"], "HostConfig": {"LogConfig": {"Config": {"tag": "x"}}}},
            501,
            "the log option 'tag' is not offered",
        ),
        (
            {"Image": "base", "Cmd": ["a"], "HostConfig": {"PortBindings": {"1/sctp": []}}},
            501,
            "the protocol 'sctp' is",
        ),
        ({"Image": "base", "Cmd": ["a"], "HostConfig": {"RestartPolicy": {"Name": "x"}}}, 400, "unknown policy 'x'"),
        (
            {"Image": "base", "Cmd": ["a"], "HostConfig": {"PortBindings": {"1": ["a"]}}},
            400,
            "invalid port binding of 1",
        ),
        (
            {"Image": "base", "Cmd": ["a"], "HostConfig": {"SecurityOpt": ["apparmor=x"]}},
            501,
            "security option 'apparmor=x'",
        ),
        ({"Image": "base", "Cmd": ["a"], "HostConfig": {"SecurityOpt": ["seccomp=/p"]}}, 400, "seccomp=/p: unconfined"),
        ({"Image": "base", "Cmd": [1]}, 400, "Cmd: a list of strings is expected"),
        ({"Image": "base", "Cmd": ["a\0b"]}, 400, "Cmd: a list of strings is expected"),
        ({"Image": 1, "Cmd": ["a"]}, 400, "Image: a string is expected"),
        ({"Image": "base", "Cmd": ["a"], "Tty": "yes"}, 400, "Tty: true or false is expected"),
        ({"Image": "base", "Cmd": ["a"], "HostConfig": []}, 400, "HostConfig: an object is expected"),
        ({"Image": "base", "Cmd": ["a"], "Env": ["=x"]}, 400, "invalid environment variable"),
    ],
)
def test_create_refuses_what_it_can_not_do(stage: Stage, body: Any, status: int, message: str) -> None:
    with pytest.raises(CommandError) as told:
        stage.client.post("/containers/create", body)
    assert message in str(told.value)
    with stage.client._send("POST", "/containers/create", {}, _length(body), json.dumps(body).encode(), None) as reply:
        assert reply.status == status


def _length(body: object) -> dict[str, str]:
    return {"Content-Length": str(len(json.dumps(body)))}


def test_create_with_a_name_that_is_taken_or_wrong(engine: docker.DockerClient) -> None:
    assert refused(lambda: engine.containers.create("base", "a", name="web.1"))[0] == 409
    assert refused(lambda: engine.containers.create("base", "a", name="-x"))[0] == 400


def test_rename(engine: docker.DockerClient) -> None:
    engine.containers.get("job").rename("task")
    assert engine.containers.get("task").status == "exited"
    assert refused(lambda: engine.containers.get("task").rename("web.1"))[0] == 409
    assert refused(lambda: engine.containers.get("task").rename("task"))[0] == 400


def test_remove(engine: docker.DockerClient, stage: Stage) -> None:
    made = engine.containers.create("base", "true", name="mine")
    made.start()
    status, message = refused(made.remove)
    assert status == 409
    assert "container is running" in message
    made.remove(force=True)
    assert "mine" not in stage.commands.known
    for name in ("job", "web.1"):  # whether it runs or not
        assert refused(engine.containers.get(name).remove) == (409, f"{name} is in the stack's file: remove it there")


def test_prune_takes_what_the_spec_does_not_have(engine: docker.DockerClient, stage: Stage) -> None:
    made = engine.containers.create("base", "true", name="mine", labels={"a": "b"})
    engine.containers.create("base", "true", name="runs").start()
    assert engine.containers.prune(filters={"label": "c"})["ContainersDeleted"] == []
    assert engine.containers.prune(filters={"until": "10m"})["ContainersDeleted"] == []
    assert engine.containers.prune()["ContainersDeleted"] == [made.id]
    assert set(stage.commands.known) == {"web.1", "web.2", "job", "late", "term", "runs"}


CONNECTED = Connections(
    (
        End("default", ("10.192.0.2/20", "fd00::2/64"), ("10.192.0.1/20", "fd00::1/64"), "02:00:00:00:00:01", ("api",)),
        End("back", ("10.192.16.2/20",), ("10.192.16.1/20",), "02:00:00:00:00:02", ()),
    ),
    (Published(80, "tcp", "", 8080), Published(53, "udp", "127.0.0.1", 5353)),
)


def connected() -> View:
    asked = (Port(80, "tcp", 8080), Port(53, "udp", None, "127.0.0.1"))
    shown = view("web", connections=CONNECTED)
    where = (Attachment("default"), Attachment("back"))
    return replace(shown, config=replace(shown.config, network=Network.BRIDGE, attachments=where, ports=asked))


def test_networks_and_ports_are_shown_as_docker_does() -> None:
    shown = shapes.inspection("s", connected())
    settings = shown["NetworkSettings"]
    default, back = settings["Networks"]["default"], settings["Networks"]["back"]
    assert (default["IPAddress"], default["IPPrefixLen"], default["Gateway"]) == ("10.192.0.2", 20, "10.192.0.1")
    assert (default["GlobalIPv6Address"], default["IPv6Gateway"], default["Aliases"]) == ("fd00::2", "fd00::1", ["api"])
    assert (back["IPAddress"], back["GlobalIPv6Address"], back["Aliases"]) == ("10.192.16.2", "", None)
    assert settings["Ports"] == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
    }
    assert shown["HostConfig"]["NetworkMode"] == "default"
    assert shown["HostConfig"]["PortBindings"]["53/udp"] == [{"HostIp": "127.0.0.1", "HostPort": ""}]
    assert shapes.summary("s", connected(), 0.0)["Ports"][2] == {
        "IP": "127.0.0.1",
        "PrivatePort": 53,
        "PublicPort": 5353,
        "Type": "udp",
    }


@pytest.mark.parametrize(
    ("host", "more", "expected"),
    [
        ({"NetworkMode": "default"}, {}, {}),
        ({"NetworkMode": "bridge"}, {}, {"network": "bridge"}),
        ({"NetworkMode": "container:web"}, {}, {"network": "container:web"}),
        ({"NetworkMode": "back"}, {}, {"networks": {"back": {}}}),
        (
            {"NetworkMode": "back"},
            {"NetworkingConfig": {"EndpointsConfig": {"back": {"Aliases": ["b"]}}}},
            {"networks": {"back": {"aliases": ["b"]}}},
        ),
        (
            {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "53/udp": [{}]}},
            {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
            {
                "ports": [
                    {"target": "80", "protocol": "tcp", "published": "8080", "host_ip": "127.0.0.1"},
                    {"target": "53", "protocol": "udp"},
                ]
            },
        ),
    ],
)
def test_networks_and_ports_are_asked_for_as_of_docker(
    host: dict[str, object], more: dict[str, object], expected: dict[str, object]
) -> None:
    wanted = creation.translated({"Image": "base", "Cmd": ["a"], "HostConfig": host, **more}).config
    assert {key: wanted[key] for key in ("network", "networks", "ports") if key in wanted} == expected
