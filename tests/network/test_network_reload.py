"""A reload that changes networks, while traffic goes through those that stay."""

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from command import Pysup
from lan import HOST, Lan, Place
from netstack import Stack, addresses, stack_of

pytestmark = pytest.mark.kernel

DEFAULTS = {"image": "busybox", "cmd": ["sleep", "1000"], "init": True, "update": {"monitor_s": 0.1}}


# However slowly it fails.
BROKEN = {"cmd": ["false"], "update": {"on_failure": "rollback", "monitor_s": 30}}


@pytest.fixture
def pysup(image: Path, tmp_path: Path) -> Pysup:
    return Pysup(image.parent, tmp_path)


def spec(containers: list[dict[str, Any]], **networks: object) -> dict[str, object]:
    return {"name": "again", "defaults": DEFAULTS, "containers": containers, "networks": networks}


def reload(stack: Stack, pysup: Pysup, wanted: dict[str, object], *, until: str = "reloaded") -> str:
    """What was told of it."""
    before = begin(stack, pysup, wanted)
    return ends(stack, before, until)


def begin(stack: Stack, pysup: Pysup, wanted: dict[str, object]) -> int:
    before = len(stack.live.text)
    (pysup.directory / "stack.yaml").write_text(json.dumps(wanted))
    stack.live.signal(signal.SIGHUP)
    return before


def ends(stack: Stack, before: int, until: str = "reloaded") -> str:
    live = stack.live
    while until not in live.text[before:]:
        live.reads(live.text.count("\n") + 1)
    stack.close()
    return live.text[before:]


def told_by_docker(pysup: Pysup, container: str) -> dict[str, str]:
    """Its address in each of its networks."""
    with closing(docker.DockerClient(f"unix://{pysup.state}/run/again/pysup.sock")) as client:
        networks = client.containers.get(container).attrs["NetworkSettings"]["Networks"]
    return {name: each["IPAddress"] for name, each in networks.items()}


def networks_told(pysup: Pysup) -> set[str]:
    with closing(docker.DockerClient(f"unix://{pysup.state}/run/again/pysup.sock")) as client:
        return {each.name for each in client.networks.list()} - {"host", "none"}


def bridges(hosts: Lan) -> int:
    return sum(bool(re.fullmatch(r"psp[0-9a-f]{6}b[0-9a-f]+", name)) for name in hosts.links())


def reaches(stack: Stack, one: str, other: str) -> None:
    (address,) = stack.addresses(other)[:1]
    with stack.place(other).serves(address, 7000) as server:
        stack.place(one).reaches(address, 7000, server)
    assert address in stack.place(one).finds(stack.gateway(one), other)


def test_a_network_comes_and_goes(hosts: Lan, pysup: Pysup) -> None:
    first: list[dict[str, Any]] = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    with stack_of(hosts, pysup, spec(first, default={})) as stack:
        stays = stack.pid("c")
        moved = [*({"id": each, "networks": ["back"]} for each in "ab"), first[2]]
        told = reload(stack, pysup, spec(moved, default={}, back={"internal": True}))
        assert "+ network back: new (internal: true)" in told
        assert bridges(hosts) == 2
        reaches(stack, "a", "b")
        assert stack.place("a").is_cut_off(stack.addresses("c")[0], 7000)
        assert told_by_docker(pysup, "a") == {"back": stack.addresses("a")[0]}
        assert networks_told(pysup) == {"back", "default"}
        told = reload(stack, pysup, spec(first, default={}))
        assert "- network back: removed" in told
        assert networks_told(pysup) == {"default"}
        assert bridges(hosts) == 1
        reaches(stack, "a", "c")
        assert stack.pid("c") == stays
    assert hosts.links() == []


def test_a_network_that_is_another_is_made_anew(hosts: Lan, pysup: Pysup) -> None:
    containers: list[dict[str, Any]] = [
        {"id": "a", "networks": ["x"]},
        {"id": "b", "networks": ["x"], "depends_on": ["a"]},
        {"id": "c"},
    ]
    with stack_of(hosts, pysup, spec(containers, x={"subnet": "10.77.0.0/24"}, default={})) as stack:
        stays = stack.pid("c")
        told = reload(stack, pysup, spec(containers, x={"subnet": "10.77.0.0/16", "ipv6": True}, default={}))
        assert "~ network x: made anew (ipv6: none -> true, subnet: 10.77.0.0/24 -> 10.77.0.0/16)" in told
        assert bridges(hosts) == 2
        assert len(stack.addresses("a")) == 2
        reaches(stack, "b", "a")
        assert stack.pid("c") == stays
    assert hosts.links() == []


def test_a_stack_without_networks_gets_one_and_gives_it_up(hosts: Lan, pysup: Pysup) -> None:
    plain: list[dict[str, Any]] = [{"id": "a", "network": "host"}, {"id": "b", "network": "none"}]
    with stack_of(hosts, pysup, spec(plain)) as stack:
        assert hosts.links() == []
        wanted: list[dict[str, Any]] = [{"id": "a"}, {"id": "b", "ports": ["8080:80"]}]
        assert "8080:80/tcp" in reload(stack, pysup, spec(wanted, default={}))
        reaches(stack, "a", "b")
        with stack.place("b").serves("0.0.0.0", 80) as server:
            hosts.host.reaches("127.0.0.1", 8080, server)
        reload(stack, pysup, spec(plain))
        assert bridges(hosts) == 0
        assert stack.place("a").identity == hosts.host.identity
    assert hosts.links() == []


def test_a_replica_that_stays_goes_on_running_as_others_come_and_go(hosts: Lan, pysup: Pysup) -> None:
    def web(replicas: int) -> dict[str, object]:
        containers = {"id": "web", "replicas": replicas, "ports": ["8080-8090:80"], "restart": "always"}
        return spec([containers, {"id": "a"}])

    with stack_of(hosts, pysup, web(2)) as stack:
        stays, gone = stack.pid("web.1"), stack.pid("web.2")
        (address,) = stack.addresses("web.1")

        def found(name: str) -> list[str]:
            return stack.place("a").finds(stack.gateway("a"), name)

        assert "> web: renamed, goes on running (name: web.1 -> web" in reload(stack, pysup, web(1))
        with Place.of(stays, hosts.host.home) as place, place.serves("0.0.0.0", 80) as server:
            assert found("web") == [address]
            assert found("web.1") == []
            assert told_by_docker(pysup, "web") == {"default": address}
            hosts.outside.reaches(HOST, 8080, server)
        assert not Path(f"/proc/{gone}").exists()
        assert "> web.1: renamed" in reload(stack, pysup, web(3))
        assert found("web") == sorted([address, *stack.addresses("web.2"), *stack.addresses("web.3")])
        assert found("web.1") == [address]
        os.kill(stays, signal.SIGKILL)
        stack.live.sees("web.1: started", after="web.1: killed by SIGKILL")
        stack.close()
        assert stack.addresses("web.1") == [address]
        assert found("web.1") == [address]
    assert hosts.links() == []


def test_a_reload_that_fails_leaves_networks_as_they_were(hosts: Lan, pysup: Pysup) -> None:
    back = {"on_failure": "rollback", "monitor_s": 0.1}
    first: list[dict[str, Any]] = [{"id": "a", "update": back}, {"id": "b", "networks": ["x"], "update": back}]
    with stack_of(hosts, pysup, spec(first, x={}, default={})) as stack:
        before = stack.addresses("a"), stack.addresses("b")
        wanted = [{**first[0], "networks": ["x", "y"]}, {**first[1], **BROKEN, "depends_on": ["a"]}]
        told = reload(stack, pysup, spec(wanted, x={"ipv6": True}, y={}), until="all is what it was")
        assert "~ network x: made anew" in told
        assert "+ network y: new" in told
        assert "- network default: removed" in told
        assert bridges(hosts) == 2
        assert len(before[1]) == len(stack.addresses("b"))
        assert before[0] == stack.addresses("a")
        assert stack.place("a").is_cut_off(stack.addresses("b")[0], 7000)
        assert stack.place("a").finds(stack.gateway("a"), "a") == before[0]
        faults: list[dict[str, object]] = [{"x": {"subnet": "10.7.0.0/40"}}, {"z": {}}]
        for faulty in faults:
            told = reload(stack, pysup, spec([{"id": "a", "networks": ["x"]}, {"id": "b"}], **faulty))
            assert "not reloaded: " in told
        assert bridges(hosts) == 2
        assert stack.addresses("a") == before[0]
        # A subnet that the host has a way to already: what wants it does not come up, and all goes back.
        taken = {"x": {"subnet": "192.0.2.0/25"}}
        told = reload(stack, pysup, spec([first[0], {**first[1]}], **taken, default={}), until="all is what it was")
        assert "overlaps 192.0.2.0/24" in told
        assert bridges(hosts) == 2
        assert stack.place("b").finds(stack.gateway("b"), "b") == stack.addresses("b")
    assert hosts.links() == []


def test_a_network_that_can_not_be_made_leaves_nothing(hosts: Lan, pysup: Pysup) -> None:
    """Somebody on the host serves names at every address."""
    plain: list[dict[str, Any]] = [{"id": "a", "network": "host", "update": {"on_failure": "rollback"}}]
    networked = spec([{"id": "a", "update": {"monitor_s": 0.1}}], default={})
    with stack_of(hosts, pysup, spec(plain)) as stack:
        with hosts.host.serves("0.0.0.0", 53, udp=True):
            told = reload(stack, pysup, spec([{**plain[0], "network": "bridge"}], default={}), until="all is what")
            assert "address already in use" in told
            assert bridges(hosts) == 0
        assert stack.place("a").identity == hosts.host.identity
        reload(stack, pysup, networked)
        assert stack.place("a").finds(stack.gateway("a"), "a") == stack.addresses("a")
    assert hosts.links() == []


def test_a_file_that_is_watched_has_other_networks(hosts: Lan, pysup: Pysup) -> None:
    with stack_of(hosts, pysup, spec([{"id": "a"}], default={}), "--watch") as stack:
        stack.live.sees("watching")
        before = len(stack.live.text)
        wanted = spec([{"id": "a"}, {"id": "b", "networks": ["x"]}], default={}, x={})
        (pysup.directory / "stack.yaml").write_text(json.dumps(wanted))
        assert "+ network x: new" in ends(stack, before)
        assert stack.place("b").finds(stack.gateway("b"), "b") == stack.addresses("b")
    assert hosts.links() == []


# --- start-first ------------------------------------------------------------------------------------------------------

START_FIRST = {
    "id": "web",
    "ports": ["8080:80", "5300:53/udp"],
    "aliases": ["www"],
    "restart": "always",
    "update": {"order": "start-first", "on_failure": "rollback", "monitor_s": 0.1},
}


@contextmanager
def served(place: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """What `web` does: TCP and UDP."""
    with place.serves("0.0.0.0", 80) as stream, place.serves("0.0.0.0", 53, udp=True) as datagrams:
        yield stream, datagrams


def led_to(hosts: Lan, stack: Stack, address: str, stream: socket.socket, datagrams: socket.socket) -> None:
    """Whoever wants `web` finds this one."""
    for place, at in ((hosts.host, "127.0.0.1"), (hosts.outside, HOST), (stack.place("a"), HOST)):
        place.reaches(at, 8080, stream)
        place.reaches(at, 5300, datagrams, udp=True)
    for name in ("web", "www"):
        assert stack.place("a").finds(stack.gateway("a"), name) == [address]


@pytest.mark.parametrize("userns", ["host", "auto"])
def test_start_first_leads_to_the_old_one_until_the_new_one_is_ready(hosts: Lan, pysup: Pysup, userns: str) -> None:
    web = {**START_FIRST, "userns": userns}
    with stack_of(hosts, pysup, spec([web, {"id": "a"}])) as stack, ExitStack() as later:
        old = later.enter_context(Place.of(stack.pid("web"), hosts.host.home))
        (first,) = addresses(old)
        client = later.enter_context(hosts.outside.makes(HOST, socket.SOCK_DGRAM))
        local = later.enter_context(hosts.host.makes("127.0.0.1", socket.SOCK_DGRAM))
        senders = ((client, HOST), (local, "127.0.0.1"))

        def sent(to: socket.socket) -> None:
            for sender, address in senders:
                sender.sendto(b"x", (address, 5300))
                assert to.recv(10) == b"x"

        with served(old) as before:
            led_to(hosts, stack, first, *before)
            sent(before[1])
            mark = begin(stack, pysup, spec([{**web, "env": {"V": 2}, "ready": {"tcp": 80}}, {"id": "a"}]))
            stack.live.sees("web+1: started")
            new = later.enter_context(Place.of(stack.pid("web+1"), hosts.host.home))
            (second,) = addresses(new)
            assert second != first
            led_to(hosts, stack, first, *before)
            with served(new) as after:  # so it is ready
                after[0].accept()[0].close()  # the check
                assert "1 replaced" in ends(stack, mark)
                led_to(hosts, stack, second, *after)
                sent(after[1])  # from the same ports as before
        os.kill(stack.pid("web+1"), signal.SIGKILL)
        stack.live.sees("web: started", after="web: killed by SIGKILL")
        assert stack.addresses("web") == [second]
        assert len(json.loads(hosts.host.run("ip", "-j", "link", "show", "type", "veth"))) == 3  # and the wire
    assert hosts.links() == []


def test_start_first_that_fails_leaves_the_old_one_as_it_was(hosts: Lan, pysup: Pysup) -> None:
    with stack_of(hosts, pysup, spec([START_FIRST, {"id": "a"}])) as stack:
        (first,), pid = stack.addresses("web"), stack.pid("web")
        with served(stack.place("web")) as server:
            told = reload(
                stack,
                pysup,
                spec(
                    [
                        {
                            **START_FIRST,
                            **BROKEN,
                            "update": {"order": "start-first", "on_failure": "rollback", "monitor_s": 30},
                        },
                        {"id": "a"},
                    ]
                ),
                until="all is what it was",
            )
            assert "web+1: exited with status 1" in told
            assert stack.pid("web") == pid
            led_to(hosts, stack, first, *server)
        reload(stack, pysup, spec([{**START_FIRST, "ports": ["8080:81"]}, {"id": "a"}]))
        with Place.of(stack.pid("web+3"), hosts.host.home) as place, place.serves("0.0.0.0", 81) as listener:
            hosts.outside.reaches(HOST, 8080, listener)
            assert hosts.host.is_cut_off(first, 80)
    assert hosts.links() == []


def test_a_disk_that_takes_no_note_of_a_network_that_goes_ends_nothing(hosts: Lan, pysup: Pysup) -> None:
    one, two = {"id": "a", "networks": ["one"]}, {"id": "b", "networks": ["two"]}
    with stack_of(hosts, pysup, spec([one, two], one={}, two={})) as stack:
        in_the_way = pysup.state / "networks.json.new"
        in_the_way.mkdir()
        told = reload(stack, pysup, spec([one], one={}))
        assert "of the networks:" in told
        in_the_way.rmdir()
        reload(stack, pysup, spec([one, two], one={}, two={}))
        reaches(stack, "a", "a")
        assert bridges(hosts) == 2
    assert hosts.links() == []


def test_a_port_is_served_although_the_first_start_with_it_failed(hosts: Lan, pysup: Pysup) -> None:
    one = {"id": "a", "networks": ["one"], "restart": "always", "backoff": {"initial_s": 0.1, "max_s": 0.1}}
    with stack_of(hosts, pysup, spec([one], one={})) as stack:
        in_the_way = pysup.state / "networks.json.new"
        in_the_way.mkdir()
        begin(stack, pysup, spec([{**one, "ports": ["8080:80"]}], one={}))
        stack.live.sees("could not start")
        in_the_way.rmdir()
        stack.live.sees("a: started", after="could not start")
        stack.close()
        with stack.place("a").serves("0.0.0.0", 80) as server:
            hosts.outside.reaches(HOST, 8080, server)
            hosts.host.reaches("127.0.0.1", 8080, server)
    assert hosts.links() == []
