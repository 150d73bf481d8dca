"""Where a container is, as others see it: plain data, light enough for every client."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class End:
    """A container in a network."""

    network: str
    addresses: tuple[str, ...]  # IPv4 first, with the length of the prefix
    gateways: tuple[str, ...]
    mac: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A port of a container, and that of the host which leads to it. `address` empty: all of the host's."""

    container: int
    protocol: str
    address: str
    host: int


@dataclass(frozen=True, slots=True)
class Laid:
    """A network that there is. Of each kind one subnet, IPv4 first; gateways with the length of the prefix."""

    name: str
    bridge: str  # the host's interface
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    internal: bool
    ipv6: bool


@dataclass(frozen=True, slots=True)
class Connections:
    """All of one container."""

    ends: tuple[End, ...] = ()
    ports: tuple[Published, ...] = ()


NOT_CONNECTED = Connections()
