"""The packet filter of a stack: one table, that is replaced as a whole whenever it changes.

    prerouting, output   connections to a published port of the host go to the container
    postrouting          what leaves a network seems to come from the host; so do, within one, connections by way of a
                         published port, or the answer would find a way of its own
    forward              into a network comes what was published, and what was asked for from inside; of an internal one
                         nothing leaves, or comes in
    input                of the host, who is in an internal network reaches the name service

Connections to 127.0.0.1 and ::1 are left alone: to lead those into a bridge the kernel would have to take packets from
there for 127.0.0.1, too (net.ipv4.conf.*.route_localnet, CVE-2020-8558). The supervisor passes them on itself.

The table is owned (NFT_TABLE_F_OWNER, Linux 5.12): it is the socket's that made it, goes with it, however our process
ends, and nobody else changes it by mistake. No other table is looked at.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from runtime.network import messages
from runtime.network.conversation import NETFILTER, Conversation
from runtime.network.messages import (
    ACCEPT,
    CT_STATE,
    CT_STATUS,
    DROP,
    META_IIFNAME,
    META_L4PROTO,
    META_NFPROTO,
    META_OIFNAME,
    NETWORK_HEADER,
    RTN_LOCAL,
    TRANSPORT_HEADER,
    Expression,
)

_PROTOCOLS = {"tcp": 6, "udp": 17}
_VERSIONS = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_SOURCE, _DESTINATION = {4: (12, 4), 6: (8, 16)}, {4: (16, 4), 6: (24, 16)}  # offset and length in the header
_LOOPBACK = {4: ("127.0.0.0/8",), 6: ("::1/128",)}
_ICMP = (1, 58)
_DNS = 53
_PREROUTING, _INPUT, _FORWARD, _OUTPUT, _POSTROUTING = range(5)  # enum nf_inet_hooks
_DSTNAT, _FILTER, _SRCNAT = -100, 0, 100  # priorities
_ESTABLISHED, _RELATED, _DNAT = 1 << 1, 1 << 2, 1 << 5  # NF_CT_STATE_BIT, IPS_DST_NAT
_IFNAMSIZ = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """A network, as its packets show it."""

    bridge: str
    subnets: tuple[str, ...]
    internal: bool


@dataclass(frozen=True, slots=True)
class Redirect:
    """A port of the host that leads to one of a container. `address` empty: at all of its addresses."""

    protocol: str
    host: int
    address: str
    to: str
    port: int


class Filter:
    """A stack's table."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._socket = Conversation(NETFILTER)

    def close(self) -> None:
        """It is gone."""
        self._socket.close()

    def set(self, segments: Iterable[Segment], redirects: Iterable[Redirect]) -> None:
        """Replace all that it has. OSError."""
        table = self._table
        fresh = [messages.table(table), messages.without_table(table), messages.table(table)]
        rules = _rules(table, list(segments), list(redirects))
        self._socket.transact(f"set the rules of table inet {table}", messages.batch([*fresh, *rules]))


def _rules(table: str, segments: list[Segment], redirects: list[Redirect]) -> Iterator[bytes]:
    chains = (
        ("prerouting", "nat", _PREROUTING, _DSTNAT, _entering(redirects)),
        ("output", "nat", _OUTPUT, _DSTNAT, _entering(redirects)),
        ("postrouting", "nat", _POSTROUTING, _SRCNAT, _leaving(segments)),
        ("forward", "filter", _FORWARD, _FILTER, _passing(segments)),
        ("input", "filter", _INPUT, _FILTER, _arriving(segments)),
    )
    for name, kind, hook, priority, rules in chains:
        yield messages.chain(table, name, kind, hook, priority)
        for rule in rules:
            yield messages.rule(table, name, rule)


Rule = list[Expression]


def _entering(redirects: list[Redirect]) -> Iterator[Rule]:
    for one in redirects:
        version = 6 if ":" in one.to else 4
        yield [
            *_is_version(version),
            *_is(META_L4PROTO, bytes([_PROTOCOLS[one.protocol]])),
            messages.payload(TRANSPORT_HEADER, 2, 2),
            messages.equals(one.host.to_bytes(2, "big")),
            *(_within(_DESTINATION, one.address) if one.address else _at_our_own(version)),
            *messages.destined(one.to, one.port),
        ]


def _at_our_own(version: int) -> Rule:
    """At any address of this host but those of the loopback interface."""
    return [
        messages.destination_type(),
        messages.equals(RTN_LOCAL.to_bytes(4, "little")),
        *(part for subnet in _LOOPBACK[version] for part in _within(_DESTINATION, subnet, inside=False)),
    ]


def _leaving(segments: list[Segment]) -> Iterator[Rule]:
    for segment in segments:
        for subnet in segment.subnets:
            version = _is_version(ip_network(subnet).version)
            from_it, to_it = _within(_SOURCE, subnet), _within(_DESTINATION, subnet)
            yield [*version, *from_it, *to_it, *_has(CT_STATUS, _DNAT), messages.masqueraded()]
            if not segment.internal:
                yield [*version, *from_it, *_is_not(META_OIFNAME, segment.bridge), messages.masqueraded()]


def _passing(segments: list[Segment]) -> Iterator[Rule]:
    for one in segments:
        out = [*_is(META_IIFNAME, _name(one.bridge)), *_is_not(META_OIFNAME, one.bridge)]
        into = [*_is(META_OIFNAME, _name(one.bridge)), *_is_not(META_IIFNAME, one.bridge)]
        if one.internal:
            yield [*out, messages.verdict(DROP)]
        else:
            yield [*into, *_has(CT_STATE, _ESTABLISHED | _RELATED), messages.verdict(ACCEPT)]
            yield [*into, *_has(CT_STATUS, _DNAT), messages.verdict(ACCEPT)]
        yield [*into, messages.verdict(DROP)]


def _arriving(segments: list[Segment]) -> Iterator[Rule]:
    for one in segments:
        if not one.internal:
            continue
        from_it = _is(META_IIFNAME, _name(one.bridge))
        yield [*from_it, *_has(CT_STATE, _ESTABLISHED | _RELATED), messages.verdict(ACCEPT)]
        for protocol in _PROTOCOLS.values():
            to_names = [messages.payload(TRANSPORT_HEADER, 2, 2), messages.equals(_DNS.to_bytes(2, "big"))]
            yield [*from_it, *_is(META_L4PROTO, bytes([protocol])), *to_names, messages.verdict(ACCEPT)]
        for protocol in _ICMP:
            yield [*from_it, *_is(META_L4PROTO, bytes([protocol])), messages.verdict(ACCEPT)]
        yield [*from_it, messages.verdict(DROP)]


# --- conditions ------------------------------------------------------------------------------------------------------


def _is(key: int, value: bytes) -> Rule:
    return [messages.meta(key), messages.equals(value)]


def _is_not(key: int, interface: str) -> Rule:
    return [messages.meta(key), messages.differs(_name(interface))]


def _is_version(version: int) -> Rule:
    return _is(META_NFPROTO, bytes([_VERSIONS[version]]))


def _has(key: int, bits: int) -> Rule:
    """Any of these bits of its connection is set."""
    return [messages.connection(key), messages.masked(bits.to_bytes(4, "little")), messages.differs(bytes(4))]


def _within(side: dict[int, tuple[int, int]], subnet: str, *, inside: bool = True) -> Rule:
    network = ip_network(subnet)
    offset, length = side[network.version]
    compare = messages.equals if inside else messages.differs
    masked = [messages.masked(network.netmask.packed)] if network.prefixlen < network.max_prefixlen else []
    return [messages.payload(NETWORK_HEADER, offset, length), *masked, compare(network.network_address.packed)]


def _name(interface: str) -> bytes:
    return interface.encode().ljust(_IFNAMSIZ, b"\0")
