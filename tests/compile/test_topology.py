"""Where each container of a stack is, and at which ports of the host: what only shows when they are seen together."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.config import Attachment, Network, Port
from supervisor.compile.topology import faults, has_networks, networks, placement, ports
from supervisor.entry import StackNetwork
from supervisor.spec import Spec, SpecError, load

Read = Callable[[str], Spec]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str) -> Spec:
        file = tmp_path / "stack.yaml"
        file.write_text(f"defaults: {{image: base, cmd: run}}\n{text}")
        return load(file, variables={})

    return read


def where(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Network's kind and names, by container."""
    networked = has_networks(spec)
    found = {each.id: placement(each, networked=networked) for each in spec.containers}
    return {id_: (one.network, *(each.network for each in one.attachments)) for id_, one in found.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("containers: [{id: a}, {id: b}]", {"a": ("host",), "b": ("host",)}),
        ("containers: [{id: a, network: bridge}, {id: b}]", {"a": ("bridge", "default"), "b": ("host",)}),
        ("containers: [{id: a, ports: [80]}, {id: b}]", {"a": ("bridge", "default"), "b": ("bridge", "default")}),
        (
            "networks: {x: }\ncontainers: [{id: a, networks: [x]}, {id: b}]",
            {"a": ("bridge", "x"), "b": ("bridge", "default")},
        ),
        ("networks: {x: }\ncontainers: [{id: a, network: host}]", {"a": ("host",)}),
        (
            "containers: [{id: a, network: none}, {id: b, network: 'container:a'}]",
            {"a": ("none",), "b": ("container",)},
        ),
    ],
)
def test_who_does_not_say_is_in_the_default_network_if_the_stack_has_networks(
    read: Read, text: str, expected: dict[str, tuple[str, ...]]
) -> None:
    assert where(read(text)) == expected


def test_only_networks_that_somebody_is_in_are_made(read: Read) -> None:
    spec = read("networks: {x: {internal: true}, y: }\ncontainers: [{id: a, networks: [x]}, {id: b}]")
    assert networks(spec) == (StackNetwork("x", internal=True), StackNetwork("default"))


def test_replicas_are_known_by_the_id_that_they_share(read: Read) -> None:
    [web] = read(
        "containers: [{id: Web, replicas: 2, aliases: [WWW], networks: {default: {aliases: [in]}}}]"
    ).containers
    assert placement(web, networked=True).attachments == (Attachment("default", ("web", "www", "in")),)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("80", [Port(80)]),
        ("8080:80", [Port(80, "tcp", 8080)]),
        ("127.0.0.1:53:5353/udp", [Port(5353, "udp", 53, "127.0.0.1")]),
        ("'[::1]:8080:80'", [Port(80, "tcp", 8080, "::1")]),
        ("127.0.0.1::80", [Port(80, "tcp", None, "127.0.0.1")]),
        ("0.0.0.0:1:2", [Port(2, "tcp", 1)]),
        ("9000-9001:80-81", [Port(80, "tcp", 9000), Port(81, "tcp", 9001)]),
        ("9000-9009:80", [Port(80, "tcp", 9001)]),
        ("{target: 80, published: '8080', host_ip: 127.0.0.1, protocol: udp}", [Port(80, "udp", 8080, "127.0.0.1")]),
        ("{target: 80, mode: host}", [Port(80)]),
    ],
)
def test_ports_are_written_as_in_compose(read: Read, written: str, expected: list[Port]) -> None:
    [container] = read(f"containers: [{{id: a, ports: [{written}]}}]").containers
    assert list(ports(container.ports, 2)) == expected


TEN = "networks: {x: {subnet: 10.0.0.0/24}}\n"
FAULTS = [
    ("containers: [{id: a, networks: [x]}]", "2:33: containers[0].networks[0]: x is no network of the stack"),
    ("containers: [{id: a, networks: {x: }}]", "containers[0].networks.x: x is no network of the stack"),
    ("containers: [{id: a, network: host, ports: [80]}]", "containers[0].ports: has no meaning with network: host"),
    ("containers: [{id: a, network: none, networks: [default]}]", "containers[0].networks: has no meaning with"),
    ("containers: [{id: a, network: 'container:b'}]", "containers[0].network: shares with b, which is no container"),
    (
        "containers: [{id: a, network: 'container:b'}, {id: b, replicas: 2}]",
        "containers[0].network: shares with b, of which there are several; name one, such as b.1",
    ),
    (
        "containers: [{id: a, network: 'container:b'}, {id: b, network: 'container:c'}, {id: c}]",
        "containers[0].network: shares with b, which has another's itself",
    ),
    (
        "containers: [{id: a, ports: ['80:80']}, {id: b, ports: ['127.0.0.1:80:1']}]",
        "containers[1].ports[0]: port 80/tcp is published by a already",
    ),
    ("containers: [{id: a, replicas: 2, ports: ['80:80']}]", "80:80 is too few ports for 2 replicas; give a range"),
    ("containers: [{id: a, replicas: 2, ports: ['1-2:3-4']}]", "1-2:3-4 is for one container, and there are 2"),
    (
        "networks: {x: {internal: true}}\ncontainers: [{id: a, networks: [x], ports: [80]}]",
        "containers[0].ports: lead into networks that are all internal",
    ),
    (
        "networks: {x: }\ncontainers: [{id: a, networks: {x: {ipv4_address: 10.0.0.2}}}]",
        "containers[0].networks.x.ipv4_address: 10.0.0.2 is no address for a container in a subnet of x",
    ),
    (
        "networks: {x: {subnet: 10.0.0.0/24}}\ncontainers: [{id: a, networks: {x: {ipv4_address: 10.0.0.1}}}]",
        "10.0.0.1 is no address for a container",
    ),
    (
        TEN + "containers: [{id: a, replicas: 2, networks: {x: {ipv4_address: 10.0.0.2}}}]",
        "is one address for 2 replicas",
    ),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_what_can_not_be_is_told_with_its_place(read: Read, text: str, expected: str) -> None:
    found = [str(fault) for fault in faults(read(text))]
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("ports_of_a", "ports_of_b"),
    [("'80:80'", "80:80/udp"), ("127.0.0.1:80:80", "127.0.0.2:80:80"), ("80", "80")],
)
def test_ports_of_different_protocols_or_addresses_do_not_collide(read: Read, ports_of_a: str, ports_of_b: str) -> None:
    assert not list(faults(read(f"containers: [{{id: a, ports: [{ports_of_a}]}}, {{id: b, ports: [{ports_of_b}]}}]")))


WRITTEN = [
    ("containers: [{id: a, ports: [x]}]", 'ports[0]: is "x", expected [ADDRESS:][PORT:]PORT'),
    ("containers: [{id: a, ports: ['0:80']}]", "expected ports from 1 to 65535"),
    ("containers: [{id: a, ports: ['80-81:1-3']}]", "maps ranges of different lengths"),
    ("containers: [{id: a, ports: ['1.2.3:80:80']}]", 'is "1.2.3", expected an address of the host'),
    ("containers: [{id: a, ports: [{published: 80}]}]", "ports[0]: is without its target"),
    ("containers: [{id: a, ports: [{target: 80, protocol: sctp}]}]", "expected tcp or udp"),
    ("containers: [{id: a, aliases: ['a b']}]", 'aliases[0]: is "a b", expected a name'),
    ("containers: [{id: a, networks: [x, x]}]", 'networks[1]: gives "x" a second time'),
    ("containers: [{id: a, networks: {x: {ipv4_address: fd00::1}}}]", "expected an IPv4 address"),
    ("networks: [x]\ncontainers: [{id: a}]", "networks: is a list, expected a mapping"),
    ("networks: {x: {enable_ipv6: true}}\ncontainers: [{id: a}]", "networks.x.enable_ipv6: unknown key"),
    ("networks: {x: {subnet: 10.0.0.1/24}}\ncontainers: [{id: a}]", "without host bits"),
    ("networks: {x: {subnet: [10.0.0.0/24, 10.1.0.0/24]}}\ncontainers: [{id: a}]", "has two of one kind"),
    ("networks: {x: {subnet: fd00::/64, ipv6: false}}\ncontainers: [{id: a}]", "beside ipv6: false"),
]


@pytest.mark.parametrize(("text", "expected"), WRITTEN)
def test_what_is_written_wrong_is_told(read: Read, text: str, expected: str) -> None:
    with pytest.raises(SpecError, match=re.escape(expected)):
        read(text)


def test_an_included_file_brings_its_networks(read: Read, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(
        "defaults: {image: base, cmd: run}\nnetworks: {y: {ipv6: true}}\ncontainers: [{id: b, networks: [y]}]"
    )
    spec = read("include: [other.yaml]\nnetworks: {x: }\ncontainers: [{id: a, networks: [x, y]}]")
    assert set(spec.networks) == {"x", "y"}
    assert not list(faults(spec))
    assert where(spec)["b"] == (Network.BRIDGE, "y")
    with pytest.raises(SpecError, match=r"networks.y: is given again, expected each once; first at"):
        read("include: [other.yaml]\nnetworks: {y: }\ncontainers: [{id: a}]")
