"""A container's networks and ports in Docker's JSON, and the other way round. Pure.

Docker's network `bridge`, where it puts who does not say, is the stack's `default` here.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.config import Network
from supervisor.api.errors import bad, not_offered
from supervisor.api.fields import Fields
from supervisor.commands import View
from supervisor.entry import DEFAULT_NETWORK
from supervisor.network.ends import End

Shape = dict[str, Any]

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (told, not bound to)
_TOLD = "EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway MacAddress".split()
_SETTINGS: Shape = {
    "Bridge": "",
    "SandboxID": "",
    "SandboxKey": "",
    "HairpinMode": False,
    "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None,
    "SecondaryIPv6Addresses": None,
}
_UNSAID = {"", "default"}


def mode(view: View) -> str:
    """HostConfig.NetworkMode: host, none, container:ID, or the first network's name."""
    config = view.config
    if config.network is Network.CONTAINER:
        return f"container:{config.shares}"
    if config.network is Network.BRIDGE:
        return config.attachments[0].network if config.attachments else str(Network.NONE)
    return str(config.network)


def endpoints(stack: str, view: View) -> Shape:
    """NetworkSettings.Networks."""
    ends = view.connections.ends
    if not ends:
        name = str(Network.NONE if view.config.network is Network.BRIDGE else view.config.network)
        return {name: _endpoint(None, key_of(stack, name))}
    return {end.network: _endpoint(end, key_of(stack, end.network)) for end in ends}


def _endpoint(end: End | None, key: str) -> Shape:
    four, six = ("", 0, ""), ("", 0, "")
    for address, gateway in () if end is None else zip(end.addresses, end.gateways, strict=True):
        bare, _, length = address.partition("/")
        found = bare, int(length), plain(gateway)
        four, six = (four, found) if ":" in bare else (found, six)
    return {
        **dict(zip(("IPAddress", "IPPrefixLen", "Gateway"), four, strict=True)),
        **dict(zip(("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"), six, strict=True)),
        "MacAddress": "" if end is None else end.mac,
        "NetworkID": key,
        "EndpointID": "",
        "IPAMConfig": None,
        "Links": None,
        "DriverOpts": None,
        "Aliases": None if end is None else list(end.aliases) or None,
    }


def key_of(stack: str, network: str) -> str:
    """A network's id."""
    return hashlib.sha256(f"{stack}/networks/{network}".encode()).hexdigest()


def plain(address: str) -> str:
    """Without the length of its prefix."""
    return address.partition("/")[0]


def settings(stack: str, view: View) -> Shape:
    """NetworkSettings of `docker inspect`. What Docker tells of its network `bridge` there, is of the stack's own."""
    ends = endpoints(stack, view)
    usual = ends.get(DEFAULT_NETWORK, _endpoint(None, ""))
    return {**_SETTINGS, **{name: usual[name] for name in _TOLD}, "Ports": _ports(view), "Networks": ends}


def _ports(view: View) -> Shape:
    shown: dict[str, list[Shape]] = {}
    for port in view.connections.ports:
        for address in (port.address,) if port.address else EVERYWHERE:
            there = {"HostIp": address, "HostPort": str(port.host)}
            shown.setdefault(f"{port.container}/{port.protocol}", []).append(there)
    return dict(shown)


def bindings(view: View) -> Shape:
    """HostConfig.PortBindings: what was asked for."""
    shown: dict[str, list[Shape]] = {}
    for port in view.config.ports:
        there = {"HostIp": port.address, "HostPort": "" if port.host is None else str(port.host)}
        shown.setdefault(f"{port.container}/{port.protocol}", []).append(there)
    return dict(shown)


def listed(view: View) -> list[Shape]:
    """Ports of `docker ps`."""
    return [
        {"IP": address, "PrivatePort": port.container, "PublicPort": port.host, "Type": port.protocol}
        for port in view.connections.ports
        for address in ((port.address,) if port.address else EVERYWHERE)
    ]


def ports(text: str) -> tuple[int, int, str]:
    """Of a filter: `80`, `80/udp`, `80-90/tcp`. RefusedError."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", text, re.ASCII)
    if found is None:
        raise bad(f"invalid port: {text[:100]!r}: 80, 80/udp or 80-90/tcp is expected")
    return int(found[1]), int(found[2] or found[1]), found[3] or "tcp"


# --- what is asked for when one is created ---------------------------------------------------------------------------


def keys(fields: Fields, host: Fields) -> Iterable[tuple[str, object]]:
    """Of a spec's container. RefusedError for what can't be."""
    wanted = "none" if fields.truth("NetworkDisabled") else host.text("NetworkMode")
    own = fields.below("NetworkingConfig").below("EndpointsConfig").values
    names = [name for name in own if name not in {"host", "none", *_UNSAID}]
    ports = list(_published(host.values.get("PortBindings")))
    if wanted in {"host", "none"} or wanted.startswith("container:"):
        yield "network", wanted
    elif wanted not in {"bridge", *_UNSAID} and not names:
        names = [wanted]
    elif wanted == "bridge" and not names:
        yield "network", str(Network.BRIDGE)
    if names:
        yield "networks", {named(name): _attachment(own.get(name)) for name in names}
    if ports:
        yield "ports", ports


def named(name: str) -> str:
    """As the stack names it."""
    return DEFAULT_NETWORK if name == "bridge" else name


def _attachment(value: object) -> dict[str, object]:
    settings = Fields(value if isinstance(value, Mapping) else {})
    ipam = settings.below("IPAMConfig")
    asked = {
        "aliases": list(settings.texts("Aliases")),
        "ipv4_address": ipam.text("IPv4Address"),
        "ipv6_address": ipam.text("IPv6Address"),
    }
    return {key: value for key, value in asked.items() if value}


def _published(value: object) -> Iterable[dict[str, object]]:
    for name, places in value.items() if isinstance(value, Mapping) else ():
        target, _, protocol = str(name).partition("/")
        if protocol not in ("", "tcp", "udp"):
            raise not_offered(f"the protocol {protocol[:20]!r}", "there is tcp and udp")
        for place in places if isinstance(places, list) and places else [{}]:
            if not isinstance(place, Mapping):
                raise bad(f"invalid port binding of {str(name)[:100]}")
            there = Fields(place)
            port: dict[str, object] = {"target": target, "protocol": protocol or "tcp"}
            if published := there.text("HostPort"):
                port["published"] = published
            if address := there.text("HostIp"):
                port["host_ip"] = address
            yield port
