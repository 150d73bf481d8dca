"""The parts of a stack's networks that are in the kernel: bridges, and for each container a pair of interfaces to each
of its networks.

All links of a stack are in one group of links (ip-link(8)), a number that nobody else uses: by it they are removed at
once, also by a later supervisor that knows no more than the number. Every call here may take milliseconds.
"""

import errno
import fcntl
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Interface
from pathlib import Path

from runtime.network import messages, namespace
from runtime.network.conversation import ROUTE, Conversation
from runtime.network.messages import Interface

PREFIX = "psp"  # of all our interfaces on the host
LOOPBACK = 1  # its index, in every namespace
# Of bridges: who asks for a neighbour on behalf of others needs one (RFC 4861, 7.2.2), at once.
LINK_LOCAL = (IPv6Interface("fe80::1/64"),)
_FORWARDING = {4: Path("/proc/sys/net/ipv4/ip_forward"), 6: Path("/proc/sys/net/ipv6/conf/all/forwarding")}
_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("=16si20x")


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network on the host: its addresses there are its containers' gateways."""

    name: str
    mac: str
    addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class Plug:
    """A pair of interfaces: `host` in a bridge, `inner` in a container."""

    host: str
    bridge: str
    inner: str
    mac: str
    addresses: tuple[Interface, ...]
    hairpin: bool = False  # it may ask for its own published ports


class Links:
    """The links of one stack, made through one socket in our own network namespace."""

    def __init__(self, group: int, home: int) -> None:
        self._group = group
        self._home = home
        self._route = Conversation(ROUTE)
        self._bridges: dict[str, int] = {}

    def close(self) -> None:
        self._route.close()

    def lay(self, bridges: Iterable[Bridge]) -> None:
        """Make bridges."""
        for bridge in bridges:
            self._route.do([(f"make bridge {bridge.name}", messages.bridge(bridge.name, bridge.mac, self._group))])
            index = self._bridges[bridge.name] = socket.if_nametoindex(bridge.name)
            six = any(each.version == 6 for each in bridge.addresses)
            addresses = [
                _address(index, bridge.name, each) for each in (*bridge.addresses, *(LINK_LOCAL if six else ()))
            ]
            self._route.do([(f"bring {bridge.name} up", messages.quietly_up(bridge.name)), *addresses])

    def lift(self, bridge: str) -> None:
        """Remove a bridge. That it is gone already is no fault."""
        index = self._bridges.pop(bridge, None)
        if index is None:
            return
        try:
            self._route.do([(f"remove bridge {bridge}", messages.without_link(index))])
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def plug(self, inside: int, plugs: Sequence[Plug], gateways: Iterable[str]) -> None:
        """Connect the namespace `inside`: interfaces, addresses, and the ways out."""
        requests: list[tuple[str, bytes]] = []
        for plug in plugs:
            bridge = self._bridges[plug.bridge]
            pair = messages.veth(plug.host, bridge, self._group, plug.inner, plug.mac, inside)
            requests.append((f"make interface {plug.host}", pair))
            requests.append((f"bring {plug.host} up", messages.quietly_up(plug.host, hairpin=plug.hairpin)))
        self._route.do(requests)
        conversation = _in(inside, self._home)
        try:
            requests = [("bring the loopback interface up", messages.up(LOOPBACK))]
            for plug in plugs:
                index = _index(conversation, plug.inner)
                requests.append((f"bring {plug.inner} up", messages.up(index)))
                requests += [_address(index, plug.inner, each) for each in plug.addresses]
            requests += [(f"set the default route to {each}", messages.default_route(each)) for each in gateways]
            conversation.do(requests)
        finally:
            conversation.close()

    def unplug(self, plugs: Iterable[Plug]) -> None:
        """Take the pairs of a container away. What is gone already is no fault."""
        for plug in plugs:
            try:
                index = socket.if_nametoindex(plug.host)
                self._route.do([(f"remove interface {plug.host}", messages.without_link(index))])
            except OSError as error:
                if error.errno not in (errno.ENODEV, None):  # with its namespace, or by somebody else
                    raise

    def clear(self) -> None:
        """Remove all of them."""
        clear(self._group, self._route)


def clear(group: int, route: Conversation | None = None) -> int:
    """Remove what there is of a group, if it is ours: how many links that were."""
    conversation = route or Conversation(ROUTE)
    try:
        found = [(index, name) for index, name, its in links_of(conversation) if its == group]
        ours = [(index, name) for index, name in found if name.startswith(PREFIX)]
        if found and len(ours) == len(found):
            conversation.do([("remove the stack's interfaces", messages.without_group(group))])
        elif ours:
            conversation.do([(f"remove interface {name}", messages.without_link(index)) for index, name in ours])
        return len(ours)
    finally:
        if route is None:
            conversation.close()


def links_of(conversation: Conversation) -> list[tuple[int, str, int]]:
    """(index, name, group) of all links that we see."""
    return messages.links(conversation.dump(messages.all_links()))


def known_subnets() -> list[str]:
    """All that this host has a way to."""
    conversation = Conversation(ROUTE)
    try:
        routes = conversation.dump(messages.all_routes())
        return messages.taken(routes, conversation.dump(messages.all_addresses()))
    finally:
        conversation.close()


def forward(version: int) -> str | None:
    """Have this host pass packets on; returns what was set for it, None where it does so already. It stays set: others
    may come to need it, too.
    """
    path = _FORWARDING[version]
    if path.read_text(encoding="ascii").strip() != "0":
        return None
    path.write_text("1", encoding="ascii")
    return ".".join(path.parts[3:])


def _address(index: int, name: str, interface: Interface) -> tuple[str, bytes]:
    return f"give {name} the address {interface}", messages.address(index, interface)


def _in(inside: int, home: int) -> Conversation:
    with namespace.inside(inside, home):
        return Conversation(ROUTE)


def _index(conversation: Conversation, name: str) -> int:
    """Of an interface where the socket is (netdevice(7))."""
    answer = fcntl.ioctl(conversation.fileno(), _SIOCGIFINDEX, _IFREQ.pack(name.encode(), 0))
    index: int = _IFREQ.unpack(answer)[1]
    return index
