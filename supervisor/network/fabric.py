"""The networks of a stack, as they are made and taken away while it runs: bridges, the service of names at their
gateways, the packet filter, the ports of the host.

All that speaks to the kernel (wiring.py) happens in a thread, one call at a time. What clean-up needs is on disk before
there is anything to clean up: HOME/network has the number of the group that all our links are in. The packet filter's
table and the namespaces need none: the kernel removes them with our descriptors.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.abc

from runtime.config import ContainerConfig
from supervisor.aside import aside
from supervisor.entry import StackNetwork
from supervisor.network import pool
from supervisor.network.inside import host_search
from supervisor.network.names import Names
from supervisor.network.wiring import Wiring

if TYPE_CHECKING:
    from supervisor.network.publish import Claim, Publisher
    from supervisor.network.resolver import Resolver

ASKED_MAX = 256  # questions of all networks that other name servers are asked at a time

Emit = Callable[[str, str | None, Mapping[str, object]], None]
Servers = Callable[[str], Sequence[str]]  # the name servers that who has this address asks for
T = TypeVar("T")


class _Serving:
    """The service of names at a gateway."""

    def __init__(self, resolver: "Resolver") -> None:
        self.resolver = resolver
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    async def run(self) -> None:
        try:
            with self._scope:
                await self.resolver.run()
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Its sockets are not closed while somebody waits for them: whoever opens something next has their numbers, and
        would wait in vain.
        """
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended.wait()
        self.resolver.close()


class Fabric:
    """See above. `search`: the domains that the host looks names up in."""

    def __init__(
        self,
        home: Path,
        wiring: Wiring,
        search: tuple[str, ...],
        tasks: anyio.abc.TaskGroup,
        names: Names,
        servers: Servers,
        emit: Emit,
    ) -> None:
        self.wiring = wiring
        self.search = search
        self.is_unfiltered = False  # is there a network that the packet filter does not know?
        self._home = home
        self._tasks = tasks
        self._names = names
        self._servers = servers
        self._emit = emit
        self._serving: dict[str, _Serving] = {}  # by network
        self._publisher: Publisher | None = None
        self._asked = anyio.CapacityLimiter(ASKED_MAX)
        self._thread = anyio.CapacityLimiter(1)

    async def lay(self, networks: Sequence[StackNetwork], configs: Sequence[ContainerConfig]) -> None:
        """Make networks that are to hold these containers, and serve names in them. The packet filter does not know
        them yet. OSError, StackError; none of them is there then.
        """
        wiring, state, room = self.wiring, self._home.parent.parent, max(len(configs), 1)
        known = await self.in_thread(wiring.known_subnets)
        leased = await self.in_thread(lambda: pool.lease(state, self._home, networks, room, known, wiring.books))
        attachments = [each for config in configs for each in config.attachments]
        for name, book in leased.items():
            book.reserve(each for each in attachments if each.network == name)
            book.expect(config.place for config in configs if any(each.network == name for each in config.attachments))
        await self.in_thread(lambda: wiring.lay(networks, leased))
        try:
            for path in await self.in_thread(lambda: wiring.forward(networks)):
                self._emit("forwarding_enabled", None, {"what": path})
            for name, book in leased.items():
                self._serve_names(name, pool.bare(book.gateways()[0]))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._unlay(leased)
            raise
        self._names.internal = wiring.internal()
        self.is_unfiltered = True

    def _serve_names(self, network: str, gateway: str) -> None:
        from supervisor.network.resolver import Resolver  # noqa: PLC0415 (it loads a parser of DNS)

        serving = _Serving(Resolver(network, gateway, self._names, self._servers, self._asked))
        self._serving[network] = serving
        self._tasks.start_soon(serving.run)

    async def sweep(self, used: Container[str], wanted: Mapping[str, StackNetwork]) -> bool:
        """Take away the networks that nobody is in and nobody wants, or not as they are. Were there any?"""
        gone = [name for name, has in self.wiring.networks.items() if name not in used and wanted.get(name) != has]
        if gone:
            await self._unlay(gone)
            self._names.internal = self.wiring.internal()
        return bool(gone)

    async def _unlay(self, networks: Iterable[str]) -> None:
        gone = list(networks)
        for serving in [self._serving.pop(name) for name in gone if name in self._serving]:
            await serving.end()
        await self.in_thread(lambda: self.wiring.unlay(gone))

    async def note(self) -> None:
        """Have who has which address on disk."""
        await self.in_thread(lambda: pool.save(self._home.parent.parent, self._home, self.wiring.books))

    async def filter(self, claims: "Iterable[Claim]") -> None:
        """Have the packet filter know the networks that there are, and these ports."""
        redirects = [redirect for claim in claims for redirect in claim.redirects()]
        await self.in_thread(lambda: self.wiring.filter(redirects))
        self.is_unfiltered = False

    def publish(self, claims: "Iterable[Claim]") -> None:
        """Serve ports of the host, until `withdraw`."""
        for claim in claims:
            self._publishing().serve(claim)

    async def withdraw(self, claims: "Iterable[Claim]") -> None:
        """They are nobody's any more."""
        for claim in claims:
            await self._publishing().drop(claim)

    def _publishing(self) -> "Publisher":
        from supervisor.network.publish import Publisher  # noqa: PLC0415 (loaded with the first port that is published)

        self._publisher = self._publisher or Publisher(self._tasks)
        return self._publisher

    async def close(self) -> None:
        """Take all of it away."""
        for serving in self._serving.values():
            serving.resolver.close()
        with anyio.CancelScope(shield=True):
            await self.in_thread(self.wiring.close)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what asks the kernel, after all that was asked before."""
        return await aside(work, limiter=self._thread)


async def opened(
    home: Path, table: str, tasks: anyio.abc.TaskGroup, names: Names, servers: Servers, emit: Emit
) -> Fabric:
    """Without a network yet. OSError."""
    wiring, search = await aside(lambda: (Wiring(home, table), host_search()))
    return Fabric(home, wiring, search, tasks, names, servers, emit)
