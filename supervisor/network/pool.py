"""Which subnets a stack's networks have, and which address each container: chosen once, and kept.

    STATE/networks.json     {home of a stack: {network: {"subnets": […], "hosts": {container: number}}}}
    STATE/networks.lock     held while that is read and written

A container's address is its number in the subnet, the same in IPv4 and IPv6 unless it is fixed. What a stack had it
gets again, also after it has ended, until others need the room. A subnet is nobody's if no stack has it and this host
has no way to any part of it.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runtime.config import Attachment
from supervisor.entry import StackNetwork
from supervisor.errors import StackError

POOL = IPv4Network("10.192.0.0/10")
PREFIX = 20  # of a network, unless it needs more room
PREFIX_6 = 64
ENDED_MAX = 64  # stacks that have ended whose subnets are remembered
GATEWAY, FIRST = 1, 2  # numbers in a subnet
RECORDS = "networks.json"

Subnet = IPv4Network | IPv6Network
Records = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Book:
    """A network's subnets, IPv4 first, and who has which number."""

    name: str
    subnets: tuple[Subnet, ...]
    hosts: dict[str, int] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)  # numbers that were asked for
    _taken: set[int] = field(default_factory=set)
    _present: set[str] = field(default_factory=set)  # all others are remembered, until somebody needs the room
    _next: int = FIRST

    def gateways(self) -> tuple[str, ...]:
        """With the length of the prefix."""
        return tuple(f"{subnet[GATEWAY]}/{subnet.prefixlen}" for subnet in self.subnets)

    def addresses(self, container: str, attachment: Attachment) -> tuple[str, ...]:
        """Of a container, with the length of the prefix. StackError if there is no room."""
        wanted = {4: attachment.ipv4, 6: attachment.ipv6}
        number = None if all(wanted[subnet.version] for subnet in self.subnets) else self._number(container)
        return tuple(f"{wanted[subnet.version] or subnet[number or 0]}/{subnet.prefixlen}" for subnet in self.subnets)

    def reserve(self, attachments: Iterable[Attachment]) -> None:
        """Numbers of addresses that are asked for are not given to others."""
        for attachment in attachments:
            for address in filter(None, (attachment.ipv4, attachment.ipv6)):
                one = ip_address(address)
                self.fixed |= {int(one) - int(net.network_address) for net in self.subnets if one in net}
        self.hosts = {name: number for name, number in self.hosts.items() if number not in self.fixed}
        self._taken = {*self.fixed, *self.hosts.values()}

    def expect(self, containers: Iterable[str]) -> None:
        """They are to keep their numbers."""
        self._present.update(containers)

    def forget(self, container: str) -> None:
        """Its number may be another's."""
        self._present.discard(container)
        if (number := self.hosts.pop(container, None)) is not None:
            self._taken.discard(number)
            self._next = min(self._next, number)

    def move(self, container: str, to: str) -> None:
        """Its number is that of somebody called otherwise."""
        if (number := self.hosts.pop(container, None)) is not None:
            self.forget(to)
            self.hosts[to] = number
            self._present = self._present - {container} | {to}

    def _number(self, container: str) -> int:
        self._present.add(container)
        if (known := self.hosts.get(container)) is not None:
            return known
        while self._is_full():
            if (gone := next((name for name in self.hosts if name not in self._present), None)) is None:
                raise StackError(f"network {self.name} has no address left for {container}; give it a larger subnet")
            self.forget(gone)
        self.hosts[container] = self._next
        self._taken.add(self._next)
        return self._next

    def _is_full(self) -> bool:
        while self._next in self._taken:
            self._next += 1
        return self._next > self.subnets[0].num_addresses - 2


def lease(
    state: Path,
    home: Path,
    networks: Sequence[StackNetwork],
    room: int,
    known: Iterable[str],
    there: Mapping[str, Book] = MappingProxyType({}),
) -> dict[str, Book]:
    """The subnets of a stack's networks, for so many containers; `known` are those that the host has a way to, `there`
    the networks that it has already.
    """
    with _locked(state):
        records = _read(state)
        before = records.pop(str(home), {})
        ours: dict[str, Book] = {}
        taken = [*map(ip_network, known), *(subnet for book in there.values() for subnet in book.subnets)]
        ended = [name for name in records if not Path(name).exists()]
        for name in ended[: max(0, len(ended) - ENDED_MAX)]:
            del records[name]
        others = {name: list(_subnets_of(record)) for name, record in records.items()}
        for network in networks:
            record = before.get(network.name, {})
            subnets = _chosen(network, record, room, taken, others, f"{home}\0{network.name}")
            taken += subnets
            ours[network.name] = Book(network.name, tuple(subnets), dict(record.get("hosts", {})))
        for name in ended:  # who has ended gives way
            if any(subnet.overlaps(mine) for subnet in others[name] for mine in taken if _alike(subnet, mine)):
                records.pop(name, None)
        _write(state, records | {str(home): _record({**there, **ours})})
        return ours


def save(state: Path, home: Path, books: Mapping[str, Book]) -> None:
    """Note who has which number now."""
    with _locked(state):
        _write(state, _read(state) | {str(home): _record(books)})


def mac(tag: str, address: str) -> str:
    """A hardware address for this one, locally administered."""
    digest = hashlib.blake2b(f"{tag}{address}".encode(), digest_size=5).hexdigest()
    return ":".join(["02", *(digest[at : at + 2] for at in range(0, 10, 2))])


# --- choosing --------------------------------------------------------------------------------------------------------


def _chosen(
    network: StackNetwork,
    record: Mapping[str, Any],
    room: int,
    taken: list[Subnet],
    others: Mapping[str, list[Subnet]],
    seed: str,
) -> list[Subnet]:
    wanted = {ip_network(each).version: ip_network(each) for each in network.subnets}
    before = {ip_network(each).version: ip_network(each) for each in record.get("subnets", ())}
    chosen: list[Subnet] = []
    for version in (4, 6) if network.ipv6 else (4,):
        if version in wanted:
            chosen.append(_checked(network.name, wanted[version], taken, others))
            continue
        old = before.get(version)
        living = [subnet for name, subnets in others.items() if Path(name).exists() for subnet in subnets]
        if old is not None and old.num_addresses > room + 3 and _is_free(old, [*taken, *living]):
            chosen.append(old)
            continue
        every = [subnet for subnets in others.values() for subnet in subnets]
        candidates = _candidates(version, room, seed)
        found = next((each for each in candidates if _is_free(each, [*taken, *every])), None)
        found = found or next(
            (each for each in _candidates(version, room, seed) if _is_free(each, [*taken, *living])), None
        )
        if found is None:
            raise StackError(f"no subnet is left in {POOL} for network {network.name}; give it one: subnet: …")
        chosen.append(found)
    return chosen


def _candidates(version: int, room: int, seed: str) -> Iterator[Subnet]:
    if version == 4:
        yield from POOL.subnets(new_prefix=min(PREFIX, 32 - (room + FIRST).bit_length()))
        return
    for attempt in range(8):  # RFC 4193, 3.2.2: a number that nobody else is likely to have
        digest = hashlib.blake2b(f"{seed}\0{attempt}".encode(), digest_size=7).digest()
        yield IPv6Network((b"\xfd" + digest + bytes(8), PREFIX_6))


def _checked(name: str, subnet: Subnet, taken: list[Subnet], others: Mapping[str, list[Subnet]]) -> Subnet:
    """A subnet of the spec's, which nobody else may have."""
    if not _is_free(subnet, taken):
        other = next(each for each in taken if _alike(each, subnet) and each.overlaps(subnet))
        raise StackError(f"subnet {subnet} of network {name} overlaps {other}, which this host has a way to already")
    for home, subnets in others.items():
        if Path(home).exists() and not _is_free(subnet, subnets):
            raise StackError(f"subnet {subnet} of network {name} is in use by the stack in {home}; give it another")
    return subnet


def _is_free(subnet: Subnet, taken: Iterable[Subnet]) -> bool:
    return not any(_alike(subnet, other) and subnet.overlaps(other) for other in taken)


def _alike(one: Subnet, other: Subnet) -> bool:
    return one.version == other.version


def _subnets_of(record: Mapping[str, Any]) -> Iterator[Subnet]:
    for network in record.values():
        yield from map(ip_network, network["subnets"])


# --- on disk ---------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    lock = os.open(state / "networks.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _read(state: Path) -> Records:
    """What is damaged is as good as none: addresses are chosen anew."""
    try:
        records = json.loads((state / RECORDS).read_bytes())
        for record in records.values():
            list(_subnets_of(record))
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return {}
    found: Records = records
    return found


def _write(state: Path, records: Records) -> None:
    part = state / f"{RECORDS}.new"
    part.write_text(json.dumps(records), encoding="ascii")
    part.rename(state / RECORDS)


def _record(books: Mapping[str, Book]) -> dict[str, Any]:
    return {
        name: {"subnets": [str(subnet) for subnet in book.subnets], "hosts": book.hosts} for name, book in books.items()
    }


def bare(address: str) -> str:
    """Without the length of the prefix."""
    return str(ip_interface(address).ip)
