"""Which names stand for which addresses, as somebody in a network sees it. Nothing of DNS's messages, and no I/O."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Member:
    """A container in a network: how it is called there, its own name first, and its addresses."""

    container: str  # what it is known by to who enters it
    network: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(slots=True)
class Names:
    """All members of a stack's networks."""

    internal: frozenset[str] = frozenset()  # networks
    _members: dict[str, tuple[Member, ...]] = field(default_factory=dict)  # by container
    _named: dict[tuple[str, str], dict[str, Member]] = field(default_factory=dict)  # (network, name), container
    _at: dict[str, Member] = field(default_factory=dict)  # by address
    _running: set[str] = field(default_factory=set)
    _aside: set[str] = field(default_factory=set)  # second runs of others, which nobody is to find yet, or any more

    def enter(self, members: Iterable[Member]) -> None:
        """A container is known from now on."""
        for member in members:
            self._members[member.container] = (*self._members.get(member.container, ()), member)
            for name in member.names:
                self._named.setdefault((member.network, name), {})[member.container] = member
            for address in member.addresses:
                self._at[address] = member

    def leave(self, container: str) -> None:
        """It is not any more."""
        self.stopped(container)
        self._aside.discard(container)
        for member in self._members.pop(container, ()):
            for name in member.names:
                named = self._named[member.network, name]
                named.pop(container, None)
                if not named:
                    del self._named[member.network, name]
            for address in member.addresses:
                self._at.pop(address, None)

    def call(self, container: str, names: Callable[[Member], tuple[str, ...]]) -> None:
        """It has other names from now on."""
        running, members = container in self._running, self._members.get(container, ())
        self.leave(container)
        self.enter(replace(member, names=names(member)) for member in members)
        if running:
            self._running.add(container)

    def move(self, container: str, to: str) -> None:
        """Who enters it calls it otherwise from now on. It does not run."""
        members = self._members.get(container, ())
        self.leave(container)
        self.enter(replace(member, container=to) for member in members)

    def set_aside(self, container: str) -> None:
        """Its names don't lead to it for now."""
        self._aside.add(container)

    def bring_forward(self, container: str) -> None:
        """They do."""
        self._aside.discard(container)

    def started(self, container: str) -> None:
        self._running.add(container)

    def runs(self, container: str) -> bool:
        return container in self._running

    def stopped(self, container: str) -> None:
        self._running.discard(container)

    def networks_of(self, client: str, network: str) -> tuple[str, ...]:
        """Those of who asks, by address; of somebody unknown, the one in which it asks."""
        member = self._at.get(client)
        if member is None:
            return (network,)
        return tuple(one.network for one in self._members[member.container])

    def find(self, name: str, networks: Iterable[str]) -> list[str] | None:
        """The addresses of all that are called so in these networks: of those that run, or, if none does, of all: it is
        better to be refused by somebody who comes back than to hear that there is no such name. None: there is not.
        """
        found: dict[str, Member] = {}
        for network in networks:
            for container, member in self._named.get((network, name.lower().rstrip(".")), {}).items():
                if container not in self._aside:
                    found.setdefault(container, member)
        if not found:
            return None
        running = [member for container, member in found.items() if container in self._running]
        return [address for member in running or found.values() for address in member.addresses]

    def at(self, address: str) -> str | None:
        """Who has this address."""
        member = self._at.get(address)
        return member.container if member else None

    def name_at(self, pointer: str) -> str | None:
        """Who has the address that a name below in-addr.arpa or ip6.arpa stands for."""
        member = self._at.get(_reversed(pointer) or "")
        return member.names[0] if member else None

    def may_ask_others(self, networks: Iterable[str]) -> bool:
        """Is there a way out for who is in these networks?"""
        return any(network not in self.internal for network in networks)

    def members(self) -> Mapping[str, tuple[Member, ...]]:
        return self._members

    def __iter__(self) -> Iterator[Member]:
        return (member for members in self._members.values() for member in members)


def _reversed(pointer: str) -> str | None:
    """RFC 1035, 3.5, and RFC 3596, 2.5."""
    labels = pointer.lower().rstrip(".").split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"]:
            return str(ip_address(".".join(reversed(labels[:-2]))))
        if labels[-2:] == ["ip6", "arpa"]:
            digits = "".join(reversed(labels[:-2]))
            return str(ip_address(":".join(digits[at : at + 4] for at in range(0, 32, 4))))
    except ValueError:
        return None
    return None
