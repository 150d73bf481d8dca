"""The stack's networks, as Docker's clients read them."""

from dataclasses import replace

import docker
import docker.errors
import pytest
from served import Stage

from runtime.config import Network
from supervisor.errors import CommandError
from supervisor.network.ends import Connections, End


@pytest.fixture
def inside(stage: Stage) -> Stage:
    """web.1 is in the network, the others are in the host's."""
    end = End("back", ("10.1.0.2/24", "fd00::2/64"), ("10.1.0.1/24", "fd00::1/64"), "02:00:00:00:00:01", ("web",))
    config = replace(stage.commands.known["web.1"].config, network=Network.BRIDGE)
    stage.do(stage.commands.put, "web.1", config=config, connections=Connections((end,)))
    return stage


def names(engine: docker.DockerClient, **filters: object) -> list[str]:
    return [each.name for each in engine.networks.list(filters=filters)]


def test_networks_are_listed(engine: docker.DockerClient, inside: Stage) -> None:
    assert names(engine) == ["back", "host", "none"]
    assert names(engine, driver="bridge") == names(engine, type="custom") == ["back"]
    assert names(engine, type="builtin") == ["host", "none"]
    assert names(engine, name="o", scope="local") == ["host", "none"]
    assert names(engine, label="com.docker.compose.project=demo") == ["back"]
    assert names(engine, dangling=True) == []
    (back, *_) = inside.client.get("/networks")
    assert back["Containers"] == {}  # as with Docker: only inspect tells


def test_a_network_without_anybody_dangles(engine: docker.DockerClient) -> None:
    assert names(engine, dangling=True) == ["back"]
    with pytest.raises(docker.errors.APIError, match="invalid filter 'dangling=perhaps'"):
        names(engine, dangling="perhaps")


def test_a_network_is_inspected(engine: docker.DockerClient, inside: Stage) -> None:
    back = engine.networks.get("back")
    assert [each.name for each in back.containers] == ["web.1"]
    assert back.attrs["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1"},
        {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
    ]
    (member,) = back.attrs["Containers"].values()
    assert (member["Name"], member["IPv4Address"], member["IPv6Address"]) == ("web.1", "10.1.0.2/24", "fd00::2/64")
    assert (back.attrs["Internal"], back.attrs["EnableIPv6"]) == (True, True)
    web = engine.containers.get("web.1").attrs["NetworkSettings"]["Networks"]["back"]
    assert web["NetworkID"] == back.id
    assert inside.client.get(f"/networks/{back.id[:9]}")["Name"] == "back"
    assert [each.name for each in engine.networks.get("host").containers] == ["web.2", "term"]
    with pytest.raises(CommandError, match="network nosuch not found"):
        inside.client.get("/networks/nosuch")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/networks/create"),
        ("POST", "/networks/back/connect"),
        ("POST", "/networks/back/disconnect"),
        ("DELETE", "/networks/back"),
    ],
)
def test_networks_are_changed_by_the_spec_alone(stage: Stage, method: str, path: str) -> None:
    with pytest.raises(CommandError, match=r"network.* is not offered by pysup: the stack's networks are those of its"):
        stage.client.request(method, path, {}, {})


def test_there_is_little_to_prune(engine: docker.DockerClient) -> None:
    assert engine.networks.prune()["NetworksDeleted"] == []
    assert engine.images.prune()["ImagesDeleted"] == engine.images.prune({"dangling": True})["ImagesDeleted"] == []
    assert engine.api.prune_builds()["CachesDeleted"] == []
    with pytest.raises(docker.errors.APIError, match="removing all unused images is not offered by pysup"):
        engine.images.prune({"dangling": False})
