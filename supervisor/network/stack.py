"""The networks of one stack, from before its first container starts until all of it is gone.

A container's network namespace is made before its first run, and kept, as a descriptor, until it leaves the stack: a
restart costs nothing, its address stays, and others can share it whether it runs or not. It is joined by the child.

What a container has is kept by where its run is (`ContainerConfig.place`), mostly its id. A second run of it, as
start-first has it, is at a place of its own, with addresses of its own; nobody finds it by the container's names, and
the container's ports lead to the first one, until that is to go (`hand_over`). The next run is where the id says, and
takes over what there is.

All that speaks to the kernel happens in a thread, one call at a time. What clean-up needs is on disk before there is
anything to clean up: HOME/network has the number of the group that all our links are in. The packet filter's table and
the namespaces need none: the kernel removes them with our descriptors.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.abc
from anyio import to_thread

from runtime.config import HOST_GATEWAY, Attachment, ContainerConfig, Network, Port
from runtime.errors import LaunchError
from runtime.network import KEPT
from supervisor.entry import DEFAULT_NETWORK, StackNetwork
from supervisor.errors import StackError
from supervisor.network import pool
from supervisor.network.ends import NOT_CONNECTED, Connections, End, Laid, Published
from supervisor.network.names import Member, Names
from supervisor.network.wiring import Wiring

if TYPE_CHECKING:
    from runtime.network.links import Plug
    from supervisor.network.publish import Claim

ASKED_MAX = 256  # questions of all networks that other name servers are asked at a time
FAULTS_SHOWN_MAX = 10

Emit = Callable[[str, str | None, Mapping[str, object]], None]
Connect = Callable[[], AbstractAsyncContextManager["Networks"]]
T = TypeVar("T")


@dataclass(slots=True)
class Space:
    """What a container has of networks. `descriptor` None: not made yet."""

    config: ContainerConfig
    ends: tuple[End, ...] = ()
    plugs: "tuple[Plug, ...]" = ()
    claims: "list[Claim]" = field(default_factory=list)
    descriptor: int | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Networks:
    """See above. Nothing is made, and nothing heavy loaded, for a stack that has none."""

    def __init__(
        self, home: Path, name: str, networks: Sequence[StackNetwork], tasks: anyio.abc.TaskGroup, emit: Emit
    ) -> None:
        self._home = home
        self._table = f"pysup-{name}"
        self._networks = {each.name: each for each in networks}
        self._tasks = tasks
        self._emit = emit
        self._everybody: dict[str, ContainerConfig] = {}  # of the spec
        self._asked = anyio.CapacityLimiter(ASKED_MAX)
        self._spaces: dict[str, Space] = {}  # by ContainerConfig.place
        self._places: dict[str, str] = {}  # by container: that of the run which is known by its name
        self._names = Names()
        self._kernel: Wiring | None = None
        self._numbers = 0
        self._search: tuple[str, ...] = ()  # domains that the host looks names up in
        self._beginning = anyio.Lock()
        self._thread = anyio.CapacityLimiter(1)

    # --- what a stack does -------------------------------------------------------------------------------------------

    async def begin(self, configs: Iterable[ContainerConfig]) -> None:
        """Make the networks, and take the ports of all. StackError if that can't be; nothing is left then."""
        everybody = list(configs)
        self._everybody = {each.id: each for each in everybody}
        if not self._networks and all(config.network not in KEPT for config in everybody):
            return
        wanted = {name: self._wanted(name) for config in everybody for name in _networks_of(config)} | self._networks
        kernel = await self._open()
        await self._lay(list(wanted.values()))
        faults = [fault for config in everybody if (fault := self._settle(self._spaces[config.place]))]
        if faults:
            more = f"; and {len(faults) - FAULTS_SHOWN_MAX} more" if len(faults) > FAULTS_SHOWN_MAX else ""
            raise StackError("; ".join(faults[:FAULTS_SHOWN_MAX]) + more)
        await self._note()
        await self._filter()
        for space in self._spaces.values():
            for claim in space.claims:
                kernel.publisher(self._tasks).serve(claim)

    def change(self, networks: Iterable[StackNetwork], configs: Iterable[ContainerConfig]) -> None:
        """A reload: it has these from now on. One that is new, or another, is made when somebody is about to be in it;
        one that is not wanted any more goes with the last that is in it.
        """
        self._networks = {each.name: each for each in networks}
        self._everybody = {each.id: each for each in configs}

    async def tidy(self) -> None:
        """A reload is over: who does not run is where it was no more, if it will be elsewhere."""
        if self._kernel is None:
            return
        async with self._beginning:
            for place, space in list(self._spaces.items()):
                wanted = self._everybody.get(space.config.id)
                if wanted is not None and not _is_for(space, wanted) and not self._names.runs(place):
                    await self._drop(place, for_good=False)
            await self._sweep()

    def _wanted(self, name: str) -> StackNetwork:
        """What a network is to be. One that names no networks may still have containers made through the API."""
        if name in self._networks:
            return self._networks[name]
        if name == DEFAULT_NETWORK:
            return StackNetwork(DEFAULT_NETWORK)
        raise StackError(f"the stack has no network {name}; add it to networks, and pysup reload")

    async def _open(self) -> Wiring:
        for config in self._everybody.values():
            if config.place not in self._spaces:
                self._put(Space(config))
        self._kernel = kernel = await self._in_thread(lambda: Wiring(self._home, self._table))
        self._search = await self._in_thread(_host_search)
        return kernel

    async def _lay(self, networks: Sequence[StackNetwork]) -> None:
        """Make networks, and serve names in them. The packet filter does not know them yet. OSError, StackError; none
        of them is there then.
        """
        kernel, state, room = self._of_kernel(), self._home.parent.parent, max(len(self._everybody), 1)
        known = await self._in_thread(kernel.known_subnets)
        leased = await self._in_thread(lambda: pool.lease(state, self._home, networks, room, known, kernel.books))
        attachments = [each for config in self._everybody.values() for each in config.attachments]
        for name, book in leased.items():
            book.reserve(each for each in attachments if each.network == name)
        await self._in_thread(lambda: kernel.lay(networks, leased))
        try:
            for path in await self._in_thread(lambda: kernel.forward(networks)):
                self._emit("forwarding_enabled", None, {"what": path})
            for name, book in leased.items():
                self._serve_names(kernel, name, pool.bare(book.gateways()[0]))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._unlay(leased)
            raise
        self._names.internal = kernel.internal()

    def _serve_names(self, kernel: Wiring, network: str, gateway: str) -> None:
        from supervisor.network.resolver import Resolver  # noqa: PLC0415 (it loads a parser of DNS)

        resolver, scope = Resolver(network, gateway, self._names, self._servers, self._asked), anyio.CancelScope()
        kernel.resolvers[network] = resolver, scope

        async def serve() -> None:
            with scope:
                await resolver.run()

        self._tasks.start_soon(serve)

    async def _sweep(self) -> None:
        """Take away the networks that nobody is in and nobody wants, or not as they are."""
        kernel = self._of_kernel()
        used = {end.network for space in self._spaces.values() for end in space.ends}
        gone = [name for name, has in kernel.networks.items() if name not in used and self._networks.get(name) != has]
        if not gone:
            return
        await self._unlay(gone)
        self._names.internal = kernel.internal()
        await self._filter()
        await self._note()

    async def _unlay(self, networks: Iterable[str]) -> None:
        kernel, gone = self._of_kernel(), list(networks)
        for resolver, scope in [kernel.resolvers.pop(name) for name in gone if name in kernel.resolvers]:
            scope.cancel()
            resolver.close()
        await self._in_thread(lambda: kernel.unlay(gone))

    async def _note(self) -> None:
        books = self._of_kernel().books
        await self._in_thread(lambda: pool.save(self._home.parent.parent, self._home, books))

    def _servers(self, client: str) -> Sequence[str]:
        """The name servers that a container asks for in its spec, by its address."""
        container = self._names.at(client)
        space = self._spaces.get(container) if container else None
        return () if space is None else space.config.dns.servers

    async def prepare(self, config: ContainerConfig, own: int | None = None) -> tuple[ContainerConfig, int | None]:
        """A container is about to start: the rest of its configuration, and the namespace that it joins. `own`: one
        that its user namespace owns, and that it joins anyway; that is the one to connect then.

        LaunchError if there can't be one. The descriptor stays ours.
        """
        if config.network not in KEPT:
            space = self._at(config)
            if space is None or _is_for(space, config):
                return config, None
        try:
            if config.network not in KEPT:
                await self._space(config)  # it leaves where it was
                return config, None
            return await self._prepared(config, own)
        except (OSError, StackError) as error:
            raise LaunchError(_said(error), container=config.id) from error

    async def _prepared(self, config: ContainerConfig, own: int | None) -> tuple[ContainerConfig, int | None]:
        space = await self._space(config)
        if config.network is Network.CONTAINER:
            return await self._shared(config, space)
        whole = self._complete(config, space)
        if own is None:
            return whole, await self._opened(space)
        await self._adopt(space, own)
        return whole, None

    async def _space(self, config: ContainerConfig) -> Space:
        """Of a container that may be new, or have changed."""
        space = self._at(config)
        if space is not None and self._kernel is not None and _fits(space, config):
            return space
        async with self._beginning:
            if self._kernel is None:
                if config.network not in KEPT:
                    self._put(Space(config))
                    return self._spaces[config.place]
                await self._open()
                space = None
            else:
                space = self._spaces.get(config.place)
            if space is None or not _fits(space, config):
                await self._renew(config)
            return self._spaces[config.place]

    def _at(self, config: ContainerConfig) -> Space | None:
        """What there is for a run that is about to start. What its container has had at another place is for it."""
        here, before = self._spaces.get(config.place), self._places.get(config.id, config.place)
        space = None if here is not None or _is_second(config) or before == config.place else self._spaces.get(before)
        if space is None or self._names.runs(before):
            return here
        del self._spaces[before]
        self._names.move(before, config.place)
        if space.ends:
            self._of_kernel().move(before, config.place, (end.network for end in space.ends))
        space.config = replace(space.config, directory=config.directory)
        self._put(space)
        return space

    async def _renew(self, config: ContainerConfig) -> None:
        kernel = self._of_kernel()
        before = await self._drop(config.place, for_good=False)
        left = () if before is None else (end.network for end in before.ends)
        kernel.forget(config.place, (each for each in left if each not in _networks_of(config)))
        await self._sweep()
        new = [self._wanted(name) for name in _networks_of(config) if name not in kernel.networks]
        if new:
            await self._lay(new)
        self._put(space := Space(config))
        if (fault := self._settle(space)) is not None:
            await self._drop(config.place, for_good=True)
            raise StackError(fault)
        await self._note()
        if space.claims or new:
            await self._filter()
        for claim in space.claims:
            kernel.publisher(self._tasks).serve(claim)

    async def _shared(self, config: ContainerConfig, own: Space) -> tuple[ContainerConfig, int | None]:
        other = self._of(config.shares or "")
        wanted = self._everybody.get(config.shares or "")
        if wanted is not None and (other is None or not _fits(other, wanted)):
            other = await self._space(wanted)
        if other is None:
            raise StackError(f"shares the network of {config.shares}, which is not there")
        if other.config.network not in KEPT:
            own.config = config
            known = replace(config, network=other.config.network, resolv_conf=other.config.resolv_conf)
            return replace(known, hosts=_hosts(config, "127.0.0.1")), None
        if other.config.userns is not None and other.descriptor is None:  # it runs, and is about to be elsewhere
            raise StackError(f"shares the network of {other.config.id}, which is not made yet")
        whole = self._complete(other.config, other)
        hosts = _hosts(config, pool.bare(other.ends[0].gateways[0])) if other.ends else config.hosts
        shared = replace(config, resolv_conf=whole.resolv_conf, address=whole.address, hosts=hosts)
        return shared, await self._opened(other)

    def unmade(self, container: str) -> ContainerConfig | None:
        """A container with ids of its own whose namespace is not there, to be joined, before it runs itself."""
        space, wanted = self._of(container), self._everybody.get(container)
        config = wanted or (None if space is None else space.config)
        if config is None or config.userns is None or config.network not in KEPT or self._names.runs(config.place):
            return None
        return config if space is None or space.descriptor is None or not _is_for(space, config) else None

    def started(self, place: str) -> None:
        """It runs: its names are told."""
        self._names.started(place)

    def stopped(self, place: str) -> None:
        """It does not, for now. If its container runs elsewhere now (`ContainerConfig.place`), this was for good."""
        self._names.stopped(place)
        space = self._spaces.get(place)
        if space is not None and self._of(space.config.id) is not space:
            self._leave([place])

    def rename(self, container: str, config: ContainerConfig) -> None:
        """It is called otherwise from now on; its run goes on."""
        space = self._of(container)
        if space is None:
            return
        del self._places[container]
        space.config = replace(config, directory=space.config.directory)
        self._places[config.id] = space.config.place
        aliases = {each.network: each.aliases for each in config.attachments}
        space.ends = tuple(replace(end, aliases=aliases[end.network]) for end in space.ends)
        called = {end.network: _names(config, end) for end in space.ends}
        self._names.call(space.config.place, lambda member: called[member.network])
        for claim in space.claims:
            claim.container = config.id

    async def hand_over(self, container: str, place: str) -> None:
        """A container's second run, which is there, is the one that is known by its name from now on. The first one
        keeps its addresses, and the connections that it has through the kernel, until it ends.
        """
        old, new = self._of(container), self._spaces.get(place)
        if new is None or old is new:
            return
        self._places[container] = place
        self._names.bring_forward(place)
        if old is not None:
            self._names.set_aside(old.config.place)
            async with self._beginning:
                await self._hand_ports_over(old, new)

    async def _hand_ports_over(self, old: Space, new: Space) -> None:
        """Connections that are made from now on go to the new one."""
        wanted = {_of_host(port): port for port in _held(new.config.ports, old.claims)}
        moving = [claim for claim in old.claims if _of_host(claim.port) in wanted]
        for claim in moving:
            claim.port, claim.to = wanted[_of_host(claim.port)], self._reached_at(new)
        old.claims = [claim for claim in old.claims if claim not in moving]
        new.claims += moving
        if moving:
            await self._filter()
        if any(claim.port.protocol == "udp" for claim in moving):
            with suppress(OSError):  # without nf_conntrack_netlink: who goes on sending is lost for a while
                await self._in_thread(lambda: Wiring.forget_flows(self._reached_at(old)))

    def give_up(self, container: str) -> None:
        """It has left the stack: its namespace, address and ports go. So do those of a second run, if that is not the
        first by now.
        """
        gone = [place for place, space in self._spaces.items() if space.config.id == container]
        second = self._spaces.get(container)
        if second is not None and _is_second(second.config) and self._of(second.config.id) is not second:
            gone.append(container)
        self._leave(gone)

    def _leave(self, places: Iterable[str]) -> None:
        """They are not there any more at once: who comes to their place in the meantime is another."""
        spaces = [self._spaces.pop(place) for place in places]
        for space in spaces:
            self._names.leave(space.config.place)
            if self._places.get(space.config.id) == space.config.place:
                del self._places[space.config.id]
        if spaces and self._kernel is not None:
            self._tasks.start_soon(self._clear, spaces)

    async def _clear(self, spaces: Iterable[Space]) -> None:
        async with self._beginning:
            for space in spaces:
                await self._dismantle(space, for_good=space.config.place not in self._spaces)
            await self._sweep()

    def connections(self, container: str) -> Connections:
        """Where it is, and at which ports of the host it is reached."""
        own = other = self._of(container)
        if own is None or other is None:
            return NOT_CONNECTED
        if own.config.network is Network.CONTAINER:
            other = self._of(own.config.shares or "")
        ports = (
            Published(each.port.container, each.port.protocol, each.port.address, each.host) for each in own.claims
        )
        return Connections(() if other is None else other.ends, tuple(ports))

    def laid(self) -> tuple[Laid, ...]:
        """The networks that there are."""
        return () if self._kernel is None else self._kernel.laid()

    def _of(self, container: str) -> Space | None:
        """What it has, where it runs now."""
        return self._spaces.get(self._places.get(container, container))

    def _put(self, space: Space) -> None:
        self._spaces[space.config.place] = space
        if not _is_second(space.config):
            self._places[space.config.id] = space.config.place

    async def close(self) -> None:
        """Remove all of it."""
        if (kernel := self._kernel) is None:
            return
        self._kernel = None
        for space in self._spaces.values():
            for claim in space.claims:
                claim.socket.close()
            if space.descriptor is not None:
                os.close(space.descriptor)
                space.descriptor = None
        for resolver, _ in kernel.resolvers.values():
            resolver.close()
        with anyio.CancelScope(shield=True):
            await self._in_thread(kernel.close)

    # --- one container -----------------------------------------------------------------------------------------------

    def _settle(self, space: Space) -> str | None:
        """Give a container its addresses, names and ports; returns what is at fault."""
        config, kernel = space.config, self._of_kernel()
        if config.network is not Network.BRIDGE:
            return None
        try:
            space.ends = tuple(self._end(kernel, config.place, each) for each in config.attachments)
            hairpin = bool(config.ports)
            space.plugs = tuple(self._plug(kernel, index, end, hairpin=hairpin) for index, end in enumerate(space.ends))
            self._names.enter(
                Member(config.place, end.network, _names(config, end), tuple(map(pool.bare, end.addresses)))
                for end in space.ends
            )
            if _is_second(config):
                self._names.set_aside(config.place)
            self._claim(space)
        except StackError as error:
            return str(error)
        return None

    def _claim(self, space: Space) -> None:
        if not space.config.ports:
            return
        from supervisor.network.publish import claim  # noqa: PLC0415 (see `Networks`)

        to, first = self._reached_at(space), self._of(space.config.id)
        held = () if first is None or first is space else _held(space.config.ports, first.claims)
        for port in space.config.ports:
            if port not in held:
                space.claims.append(claim(space.config.id, port, to))

    def _reached_at(self, space: Space) -> tuple[str, ...]:
        """From the host, and from outside: where its way out is, one address of each kind, IPv4 first."""
        found: dict[int, str] = {}
        for end in space.ends:
            if not self._of_kernel().networks[end.network].internal:
                for address in map(ip_interface, end.addresses):
                    found.setdefault(address.version, str(address.ip))
        return tuple(found.values())

    def _end(self, kernel: Wiring, container: str, attachment: Attachment) -> End:
        book = kernel.books[attachment.network]
        addresses = book.addresses(container, attachment)
        for address in map(pool.bare, addresses):
            if (other := self._names.at(address)) not in {None, container}:
                raise StackError(f"address {address} in network {book.name} is that of {other}")
        mac = pool.mac(kernel.tag, addresses[0])
        return End(attachment.network, addresses, book.gateways(), mac, attachment.aliases)

    def _plug(self, kernel: Wiring, index: int, end: End, *, hairpin: bool) -> "Plug":
        from runtime.network.links import Plug  # noqa: PLC0415 (see `Networks`)

        self._numbers += 1
        host = kernel.interface(f"v{self._numbers:x}")
        addresses = tuple(map(ip_interface, end.addresses))
        return Plug(host, kernel.bridges[end.network], f"eth{index}", end.mac, addresses, hairpin)

    async def _opened(self, space: Space) -> int:
        async with space.lock:
            if space.descriptor is None:
                kernel = self._of_kernel()
                gateways = self._ways_out(space)
                space.descriptor = await self._in_thread(lambda: kernel.connect(space.plugs, gateways))
            return space.descriptor

    async def _adopt(self, space: Space, own: int) -> None:
        """Connect a namespace that somebody else has made, unless it is the one that is connected."""
        async with space.lock:
            if space.descriptor is not None:
                if os.path.samestat(os.fstat(space.descriptor), os.fstat(own)):
                    return
                await self._disconnect(space)
            kernel, gateways = self._of_kernel(), self._ways_out(space)
            await self._in_thread(lambda: kernel.links.plug(own, space.plugs, gateways))
            space.descriptor = os.dup(own)

    async def _disconnect(self, space: Space) -> None:
        if space.descriptor is not None:
            kernel, descriptor = self._of_kernel(), space.descriptor
            space.descriptor = None
            try:
                await self._in_thread(lambda: kernel.links.unplug(space.plugs))
            finally:
                os.close(descriptor)

    def _ways_out(self, space: Space) -> tuple[str, ...]:
        """One gateway of each kind: those of the first network that leads anywhere."""
        ways: dict[int, str] = {}
        for end in space.ends:
            if not self._of_kernel().networks[end.network].internal:
                for gateway in map(ip_interface, end.gateways):
                    ways.setdefault(gateway.version, str(gateway.ip))
        return tuple(ways.values())

    def _complete(self, config: ContainerConfig, space: Space) -> ContainerConfig:
        """What of a configuration depends on where it is."""
        if not space.ends:
            return config
        first = space.ends[0]
        return replace(
            config,
            address=pool.bare(first.addresses[0]),
            resolv_conf=_resolv_conf(config, first, self._search),
            hosts=_hosts(config, pool.bare(first.gateways[0])),
        )

    async def _drop(self, place: str, *, for_good: bool) -> Space | None:
        """What it was, if it was there."""
        space = self._spaces.pop(place, None)
        if space is not None:
            self._names.leave(place)
            await self._dismantle(space, for_good=for_good)
        return space

    async def _dismantle(self, space: Space, *, for_good: bool) -> None:
        kernel = self._of_kernel()
        for claim in space.claims:
            await kernel.publisher(self._tasks).drop(claim)
        await self._disconnect(space)
        if space.claims:
            await self._filter()
        if for_good:
            kernel.forget(space.config.place, (end.network for end in space.ends))

    async def _filter(self) -> None:
        kernel = self._of_kernel()
        claims = [claim for space in self._spaces.values() for claim in space.claims]
        redirects = [redirect for claim in claims for redirect in claim.redirects()]
        await self._in_thread(lambda: kernel.filter(redirects))

    def _of_kernel(self) -> Wiring:
        assert self._kernel is not None
        return self._kernel

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._thread)


@asynccontextmanager
async def networks(
    home: Path, name: str, wanted: Sequence[StackNetwork], configs: Iterable[ContainerConfig], emit: Emit
) -> AsyncIterator[Networks]:
    """Those of a stack, as long as the context lasts."""
    made: Networks | None = None
    try:
        async with anyio.create_task_group() as tasks:
            made = Networks(home, name, wanted, tasks, emit)
            try:
                await made.begin(configs)
            except OSError as error:
                raise StackError(_said(error)) from error
            yield made
            tasks.cancel_scope.cancel()
    finally:  # when nobody waits any more for what is closed now
        if made is not None:
            await made.close()


@asynccontextmanager
async def none() -> AsyncIterator[Networks]:
    """Of a container that is in no stack."""
    async with networks(Path("/nowhere"), "", (), (), _silent) as made:
        yield made


def _silent(event: str, container: str | None, fields: Mapping[str, object]) -> None:
    """Nothing is made, so nothing is told."""


def _fits(space: Space, config: ContainerConfig) -> bool:
    """Is it as that is to have it? A reload may have changed that, or it was put there before its networks were."""
    outdated = bool(space.config.attachments) and not space.ends
    return _is_for(space, config) and not outdated


def _is_for(space: Space, config: ContainerConfig) -> bool:
    return space.config.whereabouts == config.whereabouts


def _is_second(config: ContainerConfig) -> bool:
    """Is it to run beside one that is known by its name?"""
    return config.place != config.id


def _held(ports: Iterable[Port], claims: "Iterable[Claim]") -> tuple[Port, ...]:
    """Those of which the port of the host is claimed."""
    known = {_of_host(claim.port) for claim in claims}
    return tuple(port for port in ports if _of_host(port) in known)


def _of_host(port: Port) -> object:
    """What of the host it takes: of any port, the one that was found for it."""
    return port.address, port.protocol, port.host, None if port.host else port.container


def _names(config: ContainerConfig, end: End) -> tuple[str, ...]:
    return tuple(dict.fromkeys((config.id.lower(), *end.aliases)))


def _networks_of(config: ContainerConfig) -> tuple[str, ...]:
    return tuple(each.network for each in config.attachments)


def _said(error: OSError | StackError) -> str:
    if isinstance(error, StackError):
        return str(error)
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _hosts(config: ContainerConfig, host: str) -> tuple[tuple[str, str], ...]:
    """With the host's address, where the word for it stands."""
    return tuple((name, host if address == HOST_GATEWAY else address) for name, address in config.hosts)


def _resolv_conf(config: ContainerConfig, end: End, host_search: tuple[str, ...]) -> bytes:
    """The gateway serves names; what else is searched for is as asked for, or as on the host."""
    lines = [f"nameserver {pool.bare(end.gateways[0])}"]
    search = config.dns.search or host_search
    lines += [f"search {' '.join(search)}"] if search else []
    lines.append(f"options {' '.join(config.dns.options or ('ndots:0',))}")
    return ("\n".join(lines) + "\n").encode()


def _host_search() -> tuple[str, ...]:
    with suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if words and words[0] in ("search", "domain"):
                return tuple(words[1:])
    return ()
