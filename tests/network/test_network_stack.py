"""A stack with networks, as its containers, the host and somebody outside see it: real traffic, in namespaces."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import dnslib
import pytest
from command import IMAGE, Pysup
from lan import HOST, HOST_6, OUTSIDE, OUTSIDE_6, Lan, Place
from netstack import Stack, stack_of

pytestmark = pytest.mark.kernel

SPEC: dict[str, object] = {
    "defaults": {"image": IMAGE, "cmd": ["sleep", "1000"], "init": True},
    "networks": {"back": {"internal": True}, "six": {"ipv6": True}},
    "containers": [
        {"id": "a", "aliases": ["Alpha"], "dns": [OUTSIDE_6]},
        {"id": "b", "networks": {"default": {"aliases": ["beta"]}}, "extra_hosts": ["up=host-gateway"]},
        {
            "id": "web",
            "replicas": 2,
            "networks": ["six", "default"],
            "ports": ["8080-8081:80", "5300-5301:53/udp"],
        },
        {"id": "local", "ports": ["127.0.0.1:9000:90", "[::1]:9001:90"]},
        {"id": "hidden", "networks": ["back"]},
        {"id": "both", "networks": ["back", "default"]},
        {"id": "shared", "network": "container:a", "extra_hosts": ["up=host-gateway"]},
        {"id": "alone", "network": "none"},
        {"id": "guest", "network": "container:alone"},
        {"id": "of-host", "network": "host"},
        {
            "id": "mapped",
            "userns": "auto",
            "ports": ["8090:80"],
            "ready": {"tcp": 80},
            "cmd": ["nc", "-ll", "-p", "80", "-e", "cat"],  # a port that only root may bind
        },
    ],
}
PLACES = ["localhost", "localhost 6", "host", "host 6", "outside", "outside 6", "a", "web.1", "web.2"]


@pytest.fixture(scope="module")
def stack(hosts: Lan, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_of(hosts, Pysup(image.parent, tmp_path_factory.mktemp("stack")), SPEC) as made:
        yield made
    assert hosts.links() == []
    assert "pysup" not in hosts.host.run("nft", "list", "tables")


def at(stack: Stack, where: str) -> tuple[Place, str]:
    """Who tries to reach the host, and by which of its addresses."""
    known = {
        "localhost": (stack.lan.host, "127.0.0.1"),
        "localhost 6": (stack.lan.host, "::1"),
        "host": (stack.lan.host, HOST),
        "host 6": (stack.lan.host, HOST_6),
        "outside": (stack.lan.outside, HOST),
        "outside 6": (stack.lan.outside, HOST_6),
    }
    return known.get(where) or (stack.place(where), HOST)


# --- between containers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("udp", [False, True])
def test_containers_of_a_network_reach_one_another(stack: Stack, *, udp: bool) -> None:
    for address in [*stack.addresses("b"), *stack.addresses("web.1", "eth1")]:
        container = "b" if address in stack.addresses("b") else "web.1"
        with stack.place(container).serves(address, 7000, udp=udp) as server:
            assert stack.place("a").reaches(address, 7000, server, udp=udp) == stack.addresses("a")[0]


def test_and_by_ipv6_where_the_network_has_it(stack: Stack) -> None:
    (_, six), (_, other) = stack.addresses("web.1"), stack.addresses("web.2")
    with stack.place("web.2").serves(other, 7000) as server:
        assert stack.place("web.1").reaches(other, 7000, server) == six


def test_but_not_those_of_others(stack: Stack) -> None:
    (web, _), (hidden,) = stack.addresses("web.1"), stack.addresses("hidden")
    assert stack.place("b").is_cut_off(web, 7000)
    assert stack.place("b").is_cut_off(hidden, 7000)
    assert stack.place("hidden").is_cut_off(stack.addresses("b")[0], 7000)
    assert not stack.place("hidden").is_cut_off(stack.addresses("both")[0], 7000)


def test_a_container_may_share_anothers(stack: Stack) -> None:
    assert stack.place("shared").identity == stack.place("a").identity
    assert stack.place("guest").identity == stack.place("alone").identity
    assert stack.place("of-host").identity == stack.lan.host.identity
    assert len({stack.place(each).identity for each in ("a", "b", "alone", "of-host")}) == 4
    assert [each["ifname"] for each in json.loads(stack.place("alone").run("ip", "-j", "link"))] == ["lo"]


def test_one_with_user_ids_of_its_own_is_root_in_its_network(stack: Stack) -> None:
    assert Path(f"/proc/{stack.pid('mapped')}/uid_map").read_text(encoding="ascii").split()[1] != "0"
    for place, address, port in (
        (stack.place("a"), stack.addresses("mapped")[0], 80),
        (stack.lan.outside, HOST, 8090),
        (stack.lan.host, "::1", 8090),
    ):
        with place.makes(address, socket.SOCK_STREAM) as client:
            client.connect((address, port))
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    ("name", "found"),
    [("b", ["b"]), ("B", ["b"]), ("beta", ["b"]), ("alpha", ["a"]), ("web.1", ["web.1"]), ("web", ["web.1", "web.2"])],
)
def test_names_are_ids_aliases_and_what_replicas_share(stack: Stack, name: str, found: list[str], *, tcp: bool) -> None:
    expected = [stack.addresses(each, "eth1" if each.startswith("web") else "eth0")[0] for each in found]
    assert stack.place("a").finds(stack.gateway("a"), name, tcp=tcp) == sorted(expected)


def test_ipv6_addresses_and_names_of_addresses(stack: Stack) -> None:
    web, gateway = stack.place("web.1"), stack.gateway("web.1")
    six = stack.addresses("web.2")[1]
    assert web.finds(gateway, "web.2", "AAAA") == [six]
    assert web.finds(gateway, "b", "AAAA") == []  # it is there, but has none
    assert web.asks(gateway, "b", "AAAA").header.rcode == 0
    four = ".".join(reversed(stack.addresses("b")[0].split(".")))
    assert web.finds(gateway, f"{four}.in-addr.arpa", "PTR") == ["b."]


@pytest.mark.parametrize(("container", "at"), [("a", OUTSIDE_6), ("b", OUTSIDE)])
def test_other_names_are_asked_of_the_containers_servers_or_the_hosts(stack: Stack, container: str, at: str) -> None:
    place = stack.place(container)
    with stack.lan.outside.serves(at, 53, udp=True) as server, place.makes("", socket.SOCK_DGRAM) as client:
        client.connect((stack.gateway(container), 53))
        client.send(dnslib.DNSRecord.question("example.org").pack())
        data, peer = server.recvfrom(512)
        assert peer[0] in (HOST, HOST_6)
        asked = dnslib.DNSRecord.parse(data)
        reply = asked.reply()
        reply.add_answer(*dnslib.RR.fromZone("example.org 60 A 203.0.113.7"))
        server.sendto(reply.pack(), peer)
        answer = dnslib.DNSRecord.parse(client.recv(512))
    assert str(asked.q.qname) == "example.org."
    assert [str(record.rdata) for record in answer.rr] == ["203.0.113.7"]


QUESTION = b"\1\2\1\0\0\1\0\0\0\0\0\0%b\0\1\0\1"


@pytest.mark.parametrize("container", ["b", "hidden"])
@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\0" * 12, bytes(range(256)), QUESTION % b"\xc0\x0c", QUESTION % (b"\x41" + b"a" * 65 + b"\0")],
    ids=["nothing", "letter", "header", "bytes", "circle", "long label"],
)
def test_garbage_does_the_name_service_no_harm(stack: Stack, container: str, data: bytes) -> None:
    with stack.place(container).makes("", socket.SOCK_DGRAM) as client:
        client.sendto(data, (stack.gateway(container), 53))
    assert stack.place(container).finds(stack.gateway(container), container) == stack.addresses(container)


# --- ports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("udp", [False, True])
def test_a_published_port_is_reached(stack: Stack, where: str, *, udp: bool) -> None:
    place, address = at(stack, where)
    for replica, port in (("web.1", 5300 if udp else 8080), ("web.2", 5301 if udp else 8081)):
        inner, kinds = (53 if udp else 80), ["0.0.0.0", "::"]
        through_kernel_by_6 = address == HOST_6
        with stack.place(replica).serves(kinds[through_kernel_by_6], inner, udp=udp) as server:
            seen = place.reaches(address, port, server, udp=udp)
        if where.startswith("outside"):
            assert seen in (OUTSIDE, OUTSIDE_6)  # the kernel leads on, and does not stand between


def test_one_of_localhost_is_not_reached_from_elsewhere(stack: Stack) -> None:
    with stack.place("local").serves("0.0.0.0", 90) as server:
        stack.lan.host.reaches("127.0.0.1", 9000, server)
        stack.lan.host.reaches("::1", 9001, server)
    for place in (stack.lan.outside, stack.place("a")):
        with pytest.raises(ConnectionRefusedError), place.makes(HOST, socket.SOCK_STREAM) as client:
            client.connect((HOST, 9000))


def test_nobody_listens_then_the_connection_ends(stack: Stack) -> None:
    with stack.lan.host.makes("127.0.0.1", socket.SOCK_STREAM) as client:
        client.connect(("127.0.0.1", 9000))
        assert client.recv(1) == b""


def test_much_goes_through_both_ways_and_each_end_of_file(stack: Stack) -> None:
    data = os.urandom(1 << 20)
    with (
        stack.place("local").serves("0.0.0.0", 90) as server,
        stack.lan.host.makes("127.0.0.1", socket.SOCK_STREAM) as client,
    ):
        client.connect(("127.0.0.1", 9000))
        accepted, _ = server.accept()
        with accepted, accepted.makefile("rb") as stream:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert stream.read() == data
            accepted.sendall(data)
            accepted.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as back:
                assert back.read() == data


# --- out, and not out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outside", "host"), [(OUTSIDE, HOST), (OUTSIDE_6, HOST_6)])
@pytest.mark.parametrize("udp", [False, True])
def test_what_leaves_comes_from_the_host(stack: Stack, outside: str, host: str, *, udp: bool) -> None:
    with stack.lan.outside.serves(outside, 7000, udp=udp) as server:
        assert stack.place("web.1").reaches(outside, 7000, server, udp=udp) == host


def test_of_an_internal_network_nothing_leaves(stack: Stack) -> None:
    hidden = stack.place("hidden")
    assert hidden.is_cut_off(OUTSIDE, 7000)
    hidden.run("ip", "route", "add", "default", "via", stack.gateway("hidden"))  # it may have CAP_NET_ADMIN
    with stack.lan.outside.serves(OUTSIDE, 7000), stack.lan.host.serves("0.0.0.0", 7001):
        assert hidden.is_cut_off(OUTSIDE, 7000)
        assert hidden.is_cut_off(HOST, 7001)
        assert hidden.is_cut_off(stack.gateway("hidden"), 7001)
        assert hidden.is_cut_off(HOST, 8080)
    assert hidden.asks(stack.gateway("hidden"), "example.org").header.rcode == 5  # REFUSED
    assert hidden.finds(stack.gateway("hidden"), "both") == stack.addresses("both")


def test_nothing_comes_in_that_was_not_published(stack: Stack) -> None:
    outside = stack.lan.outside
    for container in ("b", "hidden"):
        (address,) = stack.addresses(container)
        outside.run("ip", "route", "add", f"{address}/32", "via", HOST)
        try:
            assert outside.is_cut_off(address, 7000)
        finally:
            outside.run("ip", "route", "del", f"{address}/32")


def test_files_of_a_container_say_where_it_is(stack: Stack) -> None:
    root = Path(f"/proc/{stack.pid('b')}/root/etc")
    assert f"{stack.addresses('b')[0]}\tb\n" in (root / "hosts").read_text(encoding="ascii")
    assert (root / "resolv.conf").read_text(encoding="ascii").startswith(f"nameserver {stack.gateway('b')}\n")


@pytest.mark.parametrize(("container", "whose"), [("b", "b"), ("shared", "a")])
def test_the_host_is_known_by_the_word_for_it(stack: Stack, container: str, whose: str) -> None:
    hosts = Path(f"/proc/{stack.pid(container)}/root/etc/hosts").read_text(encoding="ascii")
    assert f"{stack.gateway(whose)}\tup\n" in hosts
