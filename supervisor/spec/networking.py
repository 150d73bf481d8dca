"""Text to networks: where a container is, what of it is reached at the host's ports, and what networks a stack has."""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from runtime.config import Attachment, Network
from supervisor.entry import StackNetwork
from supervisor.spec import limits
from supervisor.spec.faults import Wrong, shown, together, unexpected
from supervisor.spec.kinds import boolean, each, keyed, listed, mapped, matching, pairs, some_text, whole
from supervisor.spec.probes import PORT_MAX
from supervisor.spec.terms import Publication
from supervisor.spec.tree import Plain
from supervisor.spec.values import ID_PATTERN, NAME_PATTERN

SHARES = "container:"  # before the id of the container whose network it is
MODE_PATTERN = f"host|none|bridge|{SHARES}{ID_PATTERN}"
ALIAS_PATTERN = r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9_])?"
PROTOCOLS = ("tcp", "udp")
_RANGE = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
PORT_PATTERN = rf"(?:(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?({_RANGE})?:)?({_RANGE})(?:/(tcp|udp))?"

_MODE = re.compile(MODE_PATTERN)
_ALIAS = re.compile(ALIAS_PATTERN)
_NETWORK = re.compile(NAME_PATTERN)
_PORT = re.compile(PORT_PATTERN)
_SPAN = re.compile(_RANGE)
_ATTACHMENT_EXPECTED = "{aliases: [...], ipv4_address: …, ipv6_address: …}"
_PORT_EXPECTED = "[ADDRESS:][PORT:]PORT[/udp], each PORT a number or a range, or {target, published, host_ip, protocol}"
_IPV6_MOST = 112  # of a prefix: as many addresses as a container's number needs


# --- of a container ---------------------------------------------------------------------------------------


def mode(value: object) -> str | None:
    """A word, or `container:ID`; None: whatever is usual."""
    if value is None:
        return None
    words = [*(kind.value for kind in Network if kind is not Network.CONTAINER), f"{SHARES}ID"]
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise unexpected(value, f"{', '.join(words[:-1])} or {words[-1]}", words)
    return str(value)


def attachments(value: object) -> tuple[Attachment, ...]:
    """A list of networks' names, or a mapping of them to what the container is there."""
    if isinstance(value, Mapping):
        return tuple(each(pairs(value), _attachment))
    if value is None:
        return ()
    found = each(listed(value, f"a list of networks, or a mapping of them to {_ATTACHMENT_EXPECTED}"), _named)
    names = [attachment.network for attachment in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise together([Wrong(f"gives {shown(name)} a second time", "each once").within(index)])
    return tuple(found)


def _named(value: object) -> Attachment:
    return value if isinstance(value, Attachment) else Attachment(_network_name(value))


def _network_name(value: object) -> str:
    return matching(value, _NETWORK, "the name of a network: up to 63 of a-z 0-9 _ . -")


def _attachment(pair: tuple[str, object]) -> Attachment:
    name, value = pair
    given = keyed({} if value is None else mapped(value, _ATTACHMENT_EXPECTED), _OF_ATTACHMENT)
    return Attachment(
        _network_name(name), given.get("aliases", ()), given.get("ipv4_address"), given.get("ipv6_address")
    )


def aliases(value: object) -> tuple[str, ...]:
    """Names, each once, in the case that DNS does not distinguish."""
    return tuple(dict.fromkeys(each(listed(value, "a list of names"), _alias)))


def _alias(value: object) -> str:
    return matching(value, _ALIAS, "a name: letters, digits, -, _ and ., at most 63 of them").lower()


def _ipv4(value: object) -> str | None:
    return None if value is None else str(_address(value, IPv4Address, "an IPv4 address"))


def _ipv6(value: object) -> str | None:
    return None if value is None else str(_address(value, IPv6Address, "an IPv6 address"))


def _address(value: object, kind: type[IPv4Address] | type[IPv6Address], expected: str) -> IPv4Address | IPv6Address:
    try:
        return kind(some_text(value, expected))
    except ValueError:
        raise unexpected(value, expected) from None


_OF_ATTACHMENT: dict[str, Callable[[object], object]] = {
    "aliases": aliases,
    "ipv4_address": _ipv4,
    "ipv6_address": _ipv6,
}


# --- published ports --------------------------------------------------------------------------------------


def ports(value: object) -> tuple[Publication, ...]:
    """Compose's short form, or its long one."""
    return tuple(each(listed(value, f"a list of {_PORT_EXPECTED}"), _port))


def _port(value: object) -> Publication:
    if isinstance(value, Publication):
        return value
    if isinstance(value, Mapping):
        return _long_port(value)
    found = _PORT.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if found is None:
        raise unexpected(value, _PORT_EXPECTED)
    host, published, target, protocol = found.groups()
    return _publication(
        _span(target, value), _span(published, value) if published else None, _canonical(host), protocol or PROTOCOLS[0]
    )


def _long_port(value: Mapping[str, object]) -> Publication:
    given = keyed(value, _OF_PORT)
    if "target" not in given:
        raise Wrong("is without its target", "the container's port")
    return _publication(
        given["target"], given.get("published"), given.get("host_ip", ""), given.get("protocol", PROTOCOLS[0])
    )


def _publication(
    target: tuple[int, int], published: tuple[int, int] | None, address: str, protocol: str
) -> Publication:
    """Ranges are of the same length; one port may be any of a range of the host's, as many as there are replicas."""
    length = target[1] - target[0]
    if published and length and published[1] - published[0] != length:
        raise Wrong("maps ranges of different lengths", "as many ports of the host as of the container")
    return Publication(target, published, address, protocol)


def _span(text: str, value: object) -> tuple[int, int]:
    low, _, high = text.partition("-")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= PORT_MAX or last - first >= limits.PORTS_MAX:
        expected = f"ports from 1 to {PORT_MAX}, the first of a range first, at most {limits.PORTS_MAX} in it"
        raise unexpected(value, expected)
    return first, last


def _some_span(value: object) -> tuple[int, int] | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or isinstance(value, bool) or not _SPAN.fullmatch(str(value)):
        raise unexpected(value, "a port, or a range such as 8000-8010")
    return _span(str(value), value)


def _target(value: object) -> tuple[int, int]:
    port = whole(Plain(value) if isinstance(value, str) else value, 1, PORT_MAX)
    return port, port


def _canonical(value: object) -> str:
    if value in (None, ""):
        return ""
    try:
        address = str(ip_address(some_text(value, "an address of the host").strip("[]")))
    except ValueError:
        raise unexpected(value, "an address of the host") from None
    return "" if address in ("0.0.0.0", "::") else address  # noqa: S104 (compared, not bound to)


def _protocol(value: object) -> str:
    if value not in PROTOCOLS:
        raise unexpected(value, " or ".join(PROTOCOLS), PROTOCOLS)
    return str(value)


def _mode_of_port(value: object) -> str:
    """Compose's, for swarms: here there is but one host."""
    if value not in ("host", "ingress"):
        raise unexpected(value, "host or ingress")
    return str(value)


_OF_PORT: dict[str, Callable[[object], object]] = {
    "target": _target,
    "published": _some_span,
    "host_ip": _canonical,
    "protocol": _protocol,
    "mode": _mode_of_port,
}


# --- of a stack -------------------------------------------------------------------------------------------

_NETWORK_EXPECTED = "{internal: …, ipv6: …, subnet: …}"


def networks(value: object) -> dict[str, StackNetwork]:
    """A mapping of names to what each network is."""
    return {network.name: network for network in each(pairs(mapped(value, "a mapping of names")), _stack_network)}


def _stack_network(pair: tuple[str, object]) -> StackNetwork:
    name, value = pair
    if isinstance(value, StackNetwork):
        return value
    _network_name(name)
    given = keyed({} if value is None else mapped(value, _NETWORK_EXPECTED), _OF_NETWORK)
    subnets: tuple[str, ...] = given.get("subnet", ())
    versions = [ip_network(subnet).version for subnet in subnets]
    if len(set(versions)) != len(versions):
        raise together([Wrong("has two of one kind", "one IPv4 subnet, one IPv6 subnet, or both").within("subnet")])
    ipv6 = given.get("ipv6", 6 in versions)
    if 6 in versions and not ipv6:
        raise together([Wrong("has an IPv6 one beside ipv6: false", "ipv6: true").within("subnet")])
    return StackNetwork(name, given.get("internal", False), ipv6, subnets)


def _subnets(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    return (_subnet(value),) if isinstance(value, str) else tuple(each(listed(value, "a subnet, or two"), _subnet))


def _subnet(value: object) -> str:
    expected = "a subnet such as 10.5.0.0/24 or fd00:5::/64"
    try:
        subnet = ip_network(some_text(value, expected))
    except ValueError as error:
        hint = "" if "host bits" not in str(error) else ", without host bits"
        raise unexpected(value, expected + hint) from None
    most = _IPV6_MOST if isinstance(subnet, IPv6Network) else limits.SUBNET_PREFIX_MAX
    if not limits.SUBNET_PREFIX_MIN <= subnet.prefixlen <= most:
        raise unexpected(value, f"{expected}, with a prefix of {limits.SUBNET_PREFIX_MIN} to {most} bits")
    return str(subnet)


_OF_NETWORK: dict[str, Callable[[object], object]] = {
    "internal": boolean,
    "ipv6": boolean,
    "subnet": _subnets,
}
