"""A stack's networks in the kernel: links, addresses, and the packet filter's table. What needs pyroute2 is loaded when
the first stack with networks asks for it.
"""

import hashlib
import os
import secrets
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.network import namespace
from supervisor.entry import StackNetwork
from supervisor.network import note, pool
from supervisor.network.ends import Laid

if TYPE_CHECKING:
    from runtime.network.links import Plug

_GROUPS = 1 << 30
_DIGITS = string.digits + string.ascii_lowercase


class Wiring:
    """See above. All but `interface`, `internal` and `laid` is for a thread."""

    def __init__(self, home: Path, table: str) -> None:
        from runtime.network.conversation import ROUTE, Conversation  # noqa: PLC0415 (loaded with the first stack that has networks)
        from runtime.network.links import Links, links_of  # noqa: PLC0415 (loaded with the first stack that has networks)
        from runtime.network.rules import Filter  # noqa: PLC0415 (loaded with the first stack that has networks)

        status = home.stat()
        identity = f"{home}\0{status.st_dev}\0{status.st_ino}"
        self.tag = hashlib.blake2b(identity.encode(), digest_size=3).hexdigest()
        self.books: dict[str, pool.Book] = {}
        self.bridges: dict[str, str] = {}
        self.networks: dict[str, StackNetwork] = {}  # that there are
        self._numbers = Counter[str]()
        self._home = home
        with closing(Conversation(ROUTE)) as conversation:
            used = {group for _, _, group in links_of(conversation)}
        group = next(each for each in iter(lambda: note.GROUP_MIN + secrets.randbelow(_GROUPS), 0) if each not in used)
        note.write(home, group)
        self._own = namespace.opened()
        self.links: Links = Links(group, self._own)
        self._filter: Filter = Filter(table)

    def interface(self, kind: str) -> str:
        """A new name on the host, of at most 15 characters, for a bridge (b) or a veth (v)."""
        from runtime.network.links import PREFIX  # noqa: PLC0415 (see above)

        self._numbers[kind] += 1
        return f"{PREFIX}{self.tag}{kind}{_shortly(self._numbers[kind])}"

    @staticmethod
    def known_subnets() -> list[str]:
        from runtime.network.links import known_subnets  # noqa: PLC0415 (see above)

        return known_subnets()

    def internal(self) -> frozenset[str]:
        return frozenset(name for name, network in self.networks.items() if network.internal)

    def laid(self) -> tuple[Laid, ...]:
        """Those that there are, as others see them."""
        networks, books, bridges = self.networks.copy(), self.books.copy(), self.bridges.copy()  # a thread may be at it
        known = ((one, books[name], bridges[name]) for name, one in networks.items() if name in books.keys() & bridges)
        return tuple(
            Laid(one.name, bridge, tuple(map(str, book.subnets)), book.gateways(), one.internal, one.ipv6)
            for one, book, bridge in known
        )

    def lay(self, networks: Sequence[StackNetwork], books: Mapping[str, pool.Book]) -> None:
        """Make these, which have those subnets. OSError; none of them is there then."""
        try:
            for network in networks:
                self._lay(network, books[network.name])
        except BaseException:
            self.unlay(network.name for network in networks)
            raise

    def _lay(self, network: StackNetwork, book: pool.Book) -> None:
        from runtime.network.links import Bridge  # noqa: PLC0415 (see above)

        name = self.interface("b")
        self.books[network.name], self.bridges[network.name] = book, name
        self.networks[network.name] = network
        gateways = book.gateways()
        self.links.lay([Bridge(name, pool.mac(self.tag, gateways[0]), tuple(map(ip_interface, gateways)))])

    def unlay(self, networks: Iterable[str]) -> None:
        """Take them away, as far as they are there: nobody is in them."""
        for name in networks:
            if name in self.networks:
                del self.books[name], self.networks[name]
                self.links.lift(self.bridges.pop(name))

    def forget(self, place: str, networks: Iterable[str]) -> None:
        """It gives its addresses back, in those of them that are still there: several may leave one at once."""
        for name in networks:
            if (book := self.books.get(name)) is not None:
                book.forget(place)

    def move(self, place: str, to: str, networks: Iterable[str]) -> None:
        """What was at one place is at another."""
        for name in networks:
            self.books[name].move(place, to)

    @staticmethod
    def forward(networks: Iterable[StackNetwork]) -> list[str]:
        """Have the host pass on what leaves and enters; returns what had to be set for it."""
        from runtime.network.links import forward  # noqa: PLC0415 (see above)

        outer = [network for network in networks if not network.internal]
        versions = [4] * bool(outer) + [6] * any(network.ipv6 for network in outer)
        return [path for version in versions if (path := forward(version)) is not None]

    def connect(self, plugs: "Sequence[Plug]", gateways: Iterable[str]) -> int:
        """A new namespace, connected. OSError; nothing is left then."""
        made = namespace.make(self._own)
        try:
            self.links.plug(made, plugs, gateways)
        except BaseException:
            os.close(made)
            raise
        return made

    def adopt(self, namespace: int, plugs: "Sequence[Plug]", gateways: Iterable[str]) -> None:
        """Connect one that there is. OSError; it is as it was then, and can be tried again."""
        try:
            self.links.plug(namespace, plugs, gateways)
        except BaseException:
            self.links.unplug(plugs)
            raise

    def filter(self, redirects: Iterable[object]) -> None:
        from runtime.network.rules import Segment  # noqa: PLC0415 (see above)

        segments = [
            Segment(self.bridges[name], tuple(map(str, book.subnets)), self.networks[name].internal)
            for name, book in self.books.items()
        ]
        self._filter.set(segments, redirects)  # type: ignore[arg-type]  # Redirects, whose module is not loaded yet

    @staticmethod
    def forget_flows(addresses: Iterable[str]) -> None:
        """Who sends datagrams to published ports that have led there is led anew."""
        from runtime.network import tracking  # noqa: PLC0415 (see above)

        for address in addresses:
            tracking.forget(address)

    def close(self) -> None:
        """All of it goes. What can't be removed stays noted, for the next start."""
        self._filter.close()
        with suppress(OSError):
            self.links.clear()
            note.remove(self._home)
        self.links.close()
        os.close(self._own)


def _shortly(number: int) -> str:
    """To the base of 36: five digits do for 60 million containers, one after the other."""
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
