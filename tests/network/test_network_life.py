"""Networks over time: restarts, ends, crashes, and what belongs to others."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from command import Pysup
from family import killed
from lan import HOST, Lan, Place
from netstack import prefix, stack_of
from waiting import until

pytestmark = pytest.mark.kernel

DEFAULTS = {"image": "busybox", "cmd": ["sleep", "1000"], "init": True}
FOREIGN = """
table inet others {
	chain forward {
		type filter hook forward priority filter; policy accept;
		tcp dport 9 counter packets 0 bytes 0 drop
	}
}
"""


def spec(*containers: dict[str, Any], **more: object) -> dict[str, object]:
    return {"defaults": DEFAULTS, "containers": containers, **more}


@pytest.fixture
def others(hosts: Lan, tmp_path: Path) -> Iterator[str]:
    """What another program has configured on the host; it is the same afterwards."""
    rules = tmp_path / "rules"
    rules.write_text(FOREIGN)
    hosts.host.run("nft", "-f", str(rules))
    hosts.host.run("ip", "link", "add", "br-others", "type", "bridge")
    yield FOREIGN
    assert hosts.host.run("nft", "list", "ruleset").strip() == FOREIGN.strip()
    assert hosts.links() == ["br-others"]
    hosts.host.run("ip", "link", "del", "br-others")
    hosts.host.run("nft", "delete", "table", "inet", "others")


def test_a_restart_keeps_namespace_and_address(hosts: Lan, pysup: Pysup) -> None:
    cmd = {"cmd": ["sh", "-c", "sleep 1000"], "restart": "always", "backoff": {"initial_s": 0}}
    with stack_of(hosts, pysup, spec({"id": "a", "network": "bridge", **cmd})) as stack:
        first, addresses, pid = stack.place("a").identity, stack.addresses("a"), stack.pid("a")
        os.kill(pid, signal.SIGKILL)
        stack.live.sees("started (pid", after="killed by SIGKILL")
        assert stack.pid("a") != pid
        with Place.of(stack.pid("a"), hosts.host.home) as again:
            assert again.identity == first
        assert stack.addresses("a") == addresses


def test_a_container_has_the_same_address_at_the_next_start_of_its_stack(hosts: Lan, pysup: Pysup) -> None:
    (pysup.directory / "home").mkdir()
    found = []
    each: list[dict[str, Any]]
    for each in ([{"id": "a"}, {"id": "b"}], [{"id": "c"}, {"id": "b"}]):
        with stack_of(hosts, pysup, spec(*each, networks={"x": {}})) as stack:
            found.append((stack.addresses("b"), stack.addresses(each[0]["id"])))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_a_fixed_address_is_given_to_nobody_else(hosts: Lan, pysup: Pysup) -> None:
    networks = {"x": {"subnet": ["10.77.0.0/29", "fd77::/64"]}}
    fixed = {"x": {"ipv4_address": "10.77.0.2", "ipv6_address": "fd77::5"}}
    containers: list[dict[str, Any]] = [{"id": "a", "networks": ["x"]}, {"id": "b", "networks": fixed}]
    with stack_of(hosts, pysup, spec(*containers, networks=networks)) as stack:
        assert stack.addresses("b") == ["10.77.0.2", "fd77::5"]
        assert stack.addresses("a") == ["10.77.0.3", "fd77::3"]


def test_two_stacks_have_different_subnets(hosts: Lan, image: Path, tmp_path: Path) -> None:
    one, other = (Pysup(image.parent, tmp_path / name) for name in ("one", "other"))
    for each in (one, other):
        each.directory.mkdir()
    with stack_of(hosts, one, {"name": "one", **spec({"id": "a"}, networks={"x": {}})}) as first:  # noqa: SIM117 (two hosts in turn)
        with stack_of(hosts, other, {"name": "other", **spec({"id": "a"}, networks={"x": {}})}) as second:
            assert first.addresses("a") != second.addresses("a")
            assert first.place("a").is_cut_off(second.addresses("a")[0], 7000)


def test_a_port_that_somebody_has_is_an_error_before_anything_starts(hosts: Lan, pysup: Pysup) -> None:
    path = pysup.directory / "stack.yaml"
    containers: list[dict[str, Any]] = [{"id": "first"}, {"id": "web", "ports": ["127.0.0.1:8080:80", "53:53/udp"]}]
    path.write_text(json.dumps({"name": "taken", **spec(*containers)}))
    with hosts.host.serves("0.0.0.0", 8080), pysup.live("up", str(path), prefix=prefix(hosts, pysup)) as live:
        assert live.ends() == 125
    name = Path("/proc/self/comm").read_text(encoding="ascii").strip()
    who = f"process {os.getpid()} ({name}) has it"
    assert f"pysup: web: can't publish port 8080/tcp of 127.0.0.1: {who}" in live.text
    assert "started" not in live.text
    assert hosts.links() == []
    assert not pysup.left()


def test_a_port_that_is_free_may_be_left_to_chance(hosts: Lan, pysup: Pysup) -> None:
    with stack_of(hosts, pysup, spec({"id": "a", "ports": [80]})) as stack:
        rules = hosts.host.run("nft", "list", "ruleset")
        (port,) = set(re.findall(r"tcp dport (\d+) .* dnat", rules))
        with stack.place("a").serves("0.0.0.0", 80) as server:
            hosts.outside.reaches(HOST, int(port), server)


def test_a_subnet_that_the_host_has_a_way_to_is_refused(hosts: Lan, pysup: Pysup) -> None:
    path = pysup.directory / "stack.yaml"
    path.write_text(json.dumps({"name": "x", **spec({"id": "a"}, networks={"default": {"subnet": "192.0.0.0/16"}})}))
    with pysup.live("up", str(path), prefix=prefix(hosts, pysup)) as live:
        assert live.ends() == 125
    said = "pysup: subnet 192.0.0.0/16 of network default overlaps 192.0.2.0/24, which this host has a way to already"
    assert said in live.text
    assert hosts.links() == []


@pytest.mark.usefixtures("others")
def test_after_a_crash_the_next_start_removes_what_is_left_and_nothing_else(hosts: Lan, pysup: Pysup) -> None:
    path = pysup.directory / "stack.yaml"
    containers: list[dict[str, Any]] = [{"id": "a", "ports": ["8080:80"]}, {"id": "b"}]
    path.write_text(json.dumps({"name": "crash", **spec(*containers, networks={"back": {"internal": True}})}))
    with pysup.live("up", str(path), prefix=prefix(hosts, pysup)) as live:
        live.sees(" up\n")
        killed(live)
    assert "pysup-crash" not in hosts.host.run("nft", "list", "tables")  # it went with its owner
    left = [name for name in hosts.links() if name != "br-others"]
    assert left
    with pysup.live("up", str(path), prefix=prefix(hosts, pysup)) as live:
        live.sees(" up\n")
        assert "swept" in live.text
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert not pysup.left()


@pytest.mark.usefixtures("others")
def test_checks_by_tcp_are_made_in_the_containers_network(hosts: Lan, pysup: Pysup) -> None:
    serving = {"cmd": ["nc", "-ll", "-p", "80", "-e", "cat"], "ready": {"tcp": 80}}
    with (
        stack_of(hosts, pysup, spec({"id": "a", "network": "bridge", **serving})) as stack,
        hosts.host.makes("", socket.SOCK_STREAM) as client,
    ):
        client.connect((stack.addresses("a")[0], 80))
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"


def test_a_datagram_for_which_there_is_no_descriptor_is_lost_and_ends_nothing(hosts: Lan, pysup: Pysup) -> None:
    with stack_of(hosts, pysup, spec({"id": "a", "ports": ["127.0.0.1:5300:53/udp"]})) as stack:
        supervisor = stack.live.process.pid
        before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (4, before[1]))
        with hosts.host.makes("", socket.SOCK_DGRAM) as client:
            client.sendto(b"lost", ("127.0.0.1", 5300))
        until(lambda: _is_taken(hosts.host, 5300))
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
        with stack.place("a").serves("0.0.0.0", 53, udp=True) as server:
            hosts.host.reaches("127.0.0.1", 5300, server, udp=True)


def _is_taken(place: Place, port: int) -> bool:
    """Has nobody to wait for it any more what was sent there? proc_net(5): queues are the fifth word."""
    lines = (line.split() for line in place.run("cat", "/proc/thread-self/net/udp").splitlines()[1:])
    return all(words[4] == "00000000:00000000" for words in lines if words[1].endswith(f":{port:04X}"))


def test_a_container_made_by_docker_publishes_ports_and_gives_them_up(hosts: Lan, pysup: Pysup) -> None:
    with stack_of(hosts, pysup, {"name": "dock", **spec({"id": "a"}, networks={"default": {}})}):
        client = docker.DockerClient(f"unix://{pysup.state}/run/dock/pysup.sock")
        with contextlib.closing(client):
            ports = {"80/tcp": ("127.0.0.1", 8080)}
            made = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="b", ports=ports)
            made.reload()
            assert made.ports == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
            address = made.attrs["NetworkSettings"]["Networks"]["default"]["IPAddress"]
            with Place.of(made.attrs["State"]["Pid"], hosts.host.home) as place, place.serves(address, 80) as server:
                hosts.host.reaches("127.0.0.1", 8080, server)
            made.remove(force=True)
            until(lambda: not _listens(hosts.host, 8080))  # what is given up is given up after the answer
            until(lambda: len(hosts.links()) == 2)  # the bridge, and one end of what leads to `a`


def _listens(place: Place, port: int) -> bool:
    with place.makes("", socket.SOCK_STREAM) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
