"""What a container has of networks, and whether that is what it is to have. Nothing of the kernel."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from runtime.config import ContainerConfig, Port
from supervisor.network.ends import End

if TYPE_CHECKING:
    from runtime.network.links import Plug
    from supervisor.network.publish import Claim


@dataclass(slots=True)
class Space:
    """All of one container, or of one run of it. `descriptor` None: its namespace is not made yet."""

    config: ContainerConfig
    ends: tuple[End, ...] = ()
    plugs: "tuple[Plug, ...]" = ()
    claims: "list[Claim]" = field(default_factory=list)
    descriptor: int | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    def is_for(self, config: ContainerConfig) -> bool:
        """Is it where that is to be?"""
        return self.config.whereabouts == config.whereabouts

    def fits(self, config: ContainerConfig) -> bool:
        """Is it as that is to have it? A reload may have changed that, or it was put there before its networks were."""
        outdated = bool(self.config.attachments) and not self.ends
        return self.is_for(config) and not outdated


def is_second(config: ContainerConfig) -> bool:
    """Is it to run beside one that is known by its name?"""
    return config.place != config.id


def networks_of(config: ContainerConfig) -> tuple[str, ...]:
    """Those that it is to be in."""
    return tuple(each.network for each in config.attachments)


def names_in(config: ContainerConfig, end: End) -> tuple[str, ...]:
    """How it is called there, its own name first."""
    return tuple(dict.fromkeys((config.id.lower(), *end.aliases)))


def held(ports: Iterable[Port], claims: "Iterable[Claim]") -> tuple[Port, ...]:
    """Those of which the port of the host is claimed."""
    known = {of_host(claim.port) for claim in claims}
    return tuple(port for port in ports if of_host(port) in known)


def of_host(port: Port) -> object:
    """What of the host it takes: of any port, the one that was found for it."""
    return port.address, port.protocol, port.host, None if port.host else port.container
