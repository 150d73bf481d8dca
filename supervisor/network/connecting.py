"""A container is connected to its networks: addresses, names and ports are given to it, and its namespace is joined to
their bridges; and disconnected.
"""

import os
from collections.abc import Iterable
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from runtime.config import Attachment, Network
from supervisor.errors import StackError
from supervisor.network import pool
from supervisor.network.ends import End
from supervisor.network.fabric import Fabric
from supervisor.network.names import Member, Names
from supervisor.network.space import Space, held, is_second, names_in
from supervisor.network.wiring import Wiring

if TYPE_CHECKING:
    from runtime.network.links import Plug


def settle(wiring: Wiring, names: Names, space: Space, first: Space | None) -> str | None:
    """Give a container its addresses, names and ports; returns what is at fault. `first`: what the run has that is
    known by its name.
    """
    config = space.config
    if config.network is not Network.BRIDGE:
        return None
    try:
        space.ends = tuple(_end(wiring, names, config.place, each) for each in config.attachments)
        hairpin = bool(config.ports)
        space.plugs = tuple(_plug(wiring, index, end, hairpin=hairpin) for index, end in enumerate(space.ends))
        names.enter(
            Member(config.place, end.network, names_in(config, end), tuple(map(pool.bare, end.addresses)))
            for end in space.ends
        )
        if is_second(config):
            names.set_aside(config.place)
        _claim(wiring, space, first)
    except StackError as error:
        return str(error)
    return None


def _end(wiring: Wiring, names: Names, place: str, attachment: Attachment) -> End:
    book = wiring.books[attachment.network]
    addresses = book.addresses(place, attachment)
    for address in map(pool.bare, addresses):
        if (other := names.at(address)) not in {None, place}:
            raise StackError(f"address {address} in network {book.name} is that of {other}")
    mac = pool.mac(wiring.tag, addresses[0])
    return End(attachment.network, addresses, book.gateways(), mac, attachment.aliases)


def _plug(wiring: Wiring, index: int, end: End, *, hairpin: bool) -> "Plug":
    from runtime.network.links import Plug  # noqa: PLC0415 (loaded with the first stack that has networks)

    addresses = tuple(map(ip_interface, end.addresses))
    return Plug(wiring.interface("v"), wiring.bridges[end.network], f"eth{index}", end.mac, addresses, hairpin)


def _claim(wiring: Wiring, space: Space, first: Space | None) -> None:
    if not space.config.ports:
        return
    from supervisor.network.publish import claim  # noqa: PLC0415 (loaded with the first port that is published)

    to = reached_at(wiring, space)
    taken = () if first is None or first is space else held(space.config.ports, first.claims)
    for port in space.config.ports:
        if port not in taken:
            space.claims.append(claim(space.config.id, port, to))


def reached_at(wiring: Wiring, space: Space) -> tuple[str, ...]:
    """From the host, and from outside: where its way out is, one address of each kind, IPv4 first."""
    return _firsts(address for end in _ways_out(wiring, space) for address in end.addresses)


def _gateways(wiring: Wiring, space: Space) -> tuple[str, ...]:
    """One of each kind: those of the first network that leads anywhere."""
    return _firsts(gateway for end in _ways_out(wiring, space) for gateway in end.gateways)


def _ways_out(wiring: Wiring, space: Space) -> list[End]:
    return [end for end in space.ends if not wiring.networks[end.network].internal]


def _firsts(interfaces: Iterable[str]) -> tuple[str, ...]:
    """The first address of each kind."""
    found: dict[int, str] = {}
    for interface in map(ip_interface, interfaces):
        found.setdefault(interface.version, str(interface.ip))
    return tuple(found.values())


async def connected(fabric: Fabric, space: Space) -> int:
    """Its namespace, which is made if it is not there."""
    async with space.lock:
        if space.descriptor is None:
            wiring, gateways = fabric.wiring, _gateways(fabric.wiring, space)
            space.descriptor = await fabric.in_thread(lambda: wiring.connect(space.plugs, gateways))
        return space.descriptor


async def adopt(fabric: Fabric, space: Space, own: int) -> None:
    """Connect a namespace that somebody else has made, unless it is the one that is connected."""
    async with space.lock:
        if space.descriptor is not None:
            if os.path.samestat(os.fstat(space.descriptor), os.fstat(own)):
                return
            await disconnect(fabric, space)
        wiring, gateways = fabric.wiring, _gateways(fabric.wiring, space)
        await fabric.in_thread(lambda: wiring.adopt(own, space.plugs, gateways))
        space.descriptor = os.dup(own)


async def disconnect(fabric: Fabric, space: Space) -> None:
    """It may be made again."""
    if space.descriptor is not None:
        wiring, descriptor = fabric.wiring, space.descriptor
        space.descriptor = None
        try:
            await fabric.in_thread(lambda: wiring.links.unplug(space.plugs))
        finally:
            os.close(descriptor)
