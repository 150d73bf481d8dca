"""The networks of one stack, from before its first container starts until all of it is gone.

A container's network namespace is made before its first run, and kept, as a descriptor, until it leaves the stack: a
restart costs nothing, its address stays, and others can share it whether it runs or not. It is joined by the child.

What a container has is kept by where its run is (`ContainerConfig.place`), mostly its id. A second run of it, as
start-first has it, is at a place of its own, with addresses of its own; nobody finds it by the container's names, and
the container's ports lead to the first one, until that is to go (`hand_over`). The next run is where the id says, and
takes over what there is.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from runtime.config import ContainerConfig, Network
from runtime.errors import LaunchError
from runtime.network import KEPT
from supervisor.entry import DEFAULT_NETWORK, StackNetwork
from supervisor.errors import StackError
from supervisor.network import pool
from supervisor.network.connecting import adopt, connected, disconnect, reached_at, settle
from supervisor.network.ends import NOT_CONNECTED, Connections, Laid, Published
from supervisor.network.fabric import Emit, Fabric, opened
from supervisor.network.inside import completed, hosts
from supervisor.network.names import Names
from supervisor.network.space import Space, held, is_second, names_in, networks_of, of_host

if TYPE_CHECKING:
    from supervisor.network.publish import Claim

FAULTS_SHOWN_MAX = 10

Connect = Callable[[], AbstractAsyncContextManager["Networks"]]


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
        self._spaces: dict[str, Space] = {}  # by ContainerConfig.place
        self._places: dict[str, str] = {}  # by container: that of the run which is known by its name
        self._names = Names()
        self._opened: Fabric | None = None  # not before there is something to be in
        self._beginning = anyio.Lock()

    # --- what a stack does -------------------------------------------------------------------------------------------

    async def begin(self, configs: Iterable[ContainerConfig]) -> None:
        """Make the networks, and take the ports of all. StackError if that can't be; nothing is left then."""
        everybody = list(configs)
        self._everybody = {each.id: each for each in everybody}
        if not self._networks and all(config.network not in KEPT for config in everybody):
            return
        wanted = {name: self._wanted(name) for config in everybody for name in networks_of(config)} | self._networks
        fabric = await self._open()
        await fabric.lay(list(wanted.values()), everybody)
        faults = [fault for config in everybody if (fault := self._settle(self._spaces[config.place]))]
        if faults:
            more = f"; and {len(faults) - FAULTS_SHOWN_MAX} more" if len(faults) > FAULTS_SHOWN_MAX else ""
            raise StackError("; ".join(faults[:FAULTS_SHOWN_MAX]) + more)
        await fabric.note()
        await self._filter()
        fabric.publish(self._claims())

    def change(self, networks: Iterable[StackNetwork], configs: Iterable[ContainerConfig]) -> None:
        """A reload: it has these from now on. One that is new, or another, is made when somebody is about to be in it;
        one that is not wanted any more goes with the last that is in it.
        """
        self._networks = {each.name: each for each in networks}
        self._everybody = {each.id: each for each in configs}

    async def tidy(self) -> None:
        """A reload is over: who does not run is where it was no more, if it will be elsewhere."""
        if self._opened is None:
            return
        async with self._beginning:
            for place, space in list(self._spaces.items()):
                wanted = self._everybody.get(space.config.id)
                if wanted is not None and not space.is_for(wanted) and not self._names.runs(place):
                    await self._attempt(self._drop(place, for_good=False))
            await self._attempt(self._sweep())

    def _wanted(self, name: str) -> StackNetwork:
        """What a network is to be. One that names no networks may still have containers made through the API."""
        if name in self._networks:
            return self._networks[name]
        if name == DEFAULT_NETWORK:
            return StackNetwork(DEFAULT_NETWORK)
        raise StackError(f"the stack has no network {name}; add it to networks, and pysup reload")

    async def _open(self) -> Fabric:
        for config in self._everybody.values():
            if config.place not in self._spaces:
                self._put(Space(config))
        self._opened = await opened(self._home, self._table, self._tasks, self._names, self._servers, self._emit)
        return self._opened

    async def _sweep(self) -> None:
        """Take away the networks that nobody is in and nobody wants."""
        used = {end.network for space in self._spaces.values() for end in space.ends}
        if await self._fabric.sweep(used, self._networks):
            await self._filter()
            await self._fabric.note()

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
            if space is None or space.is_for(config):
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
        whole = completed(config, space, self._fabric.search)
        if own is None:
            return whole, await connected(self._fabric, space)
        await adopt(self._fabric, space, own)
        return whole, None

    async def _space(self, config: ContainerConfig) -> Space:
        """Of a container that may be new, or have changed."""
        space = self._at(config)
        if space is not None and self._opened is not None and space.fits(config):
            return space
        async with self._beginning:
            if self._opened is None:
                if config.network not in KEPT:
                    self._put(Space(config))
                    return self._spaces[config.place]
                await self._open()
                space = None
            else:
                space = self._spaces.get(config.place)
            if space is None or not space.fits(config):
                await self._renew(config)
            return self._spaces[config.place]

    def _at(self, config: ContainerConfig) -> Space | None:
        """What there is for a run that is about to start. What its container has had at another place is for it."""
        here, before = self._spaces.get(config.place), self._places.get(config.id, config.place)
        space = None if here is not None or is_second(config) or before == config.place else self._spaces.get(before)
        if space is None or self._names.runs(before):
            return here
        del self._spaces[before]
        self._names.move(before, config.place)
        if space.ends:
            self._fabric.wiring.move(before, config.place, (end.network for end in space.ends))
        space.config = replace(space.config, directory=config.directory)
        self._put(space)
        return space

    async def _renew(self, config: ContainerConfig) -> None:
        fabric = self._fabric
        before = await self._drop(config.place, for_good=False)
        left = () if before is None else (end.network for end in before.ends)
        fabric.wiring.forget(config.place, (each for each in left if each not in networks_of(config)))
        await self._sweep()
        new = [self._wanted(name) for name in networks_of(config) if name not in fabric.wiring.networks]
        if new:
            await fabric.lay(new, list(self._everybody.values()))
        self._put(space := Space(config))
        try:
            await self._move_in(space)
        except BaseException:  # else the next start would take it for done
            with anyio.CancelScope(shield=True):
                await self._attempt(self._drop(config.place, for_good=True))
            raise
        fabric.publish(space.claims)

    async def _move_in(self, space: Space) -> None:
        if (fault := self._settle(space)) is not None:
            raise StackError(fault)
        await self._fabric.note()
        if space.claims or self._fabric.is_unfiltered:
            await self._filter()

    async def _shared(self, config: ContainerConfig, own: Space) -> tuple[ContainerConfig, int | None]:
        other = self._of(config.shares or "")
        wanted = self._everybody.get(config.shares or "")
        if wanted is not None and (other is None or not other.fits(wanted)):
            other = await self._space(wanted)
        if other is None:
            raise StackError(f"shares the network of {config.shares}, which is not there")
        if other.config.network not in KEPT:
            own.config = config
            known = replace(config, network=other.config.network, resolv_conf=other.config.resolv_conf)
            return replace(known, hosts=hosts(config, "127.0.0.1")), None
        if other.config.userns is not None and other.descriptor is None:  # it runs, and is about to be elsewhere
            raise StackError(f"shares the network of {other.config.id}, which is not made yet")
        whole = completed(other.config, other, self._fabric.search)
        known_as = hosts(config, pool.bare(other.ends[0].gateways[0])) if other.ends else config.hosts
        shared = replace(config, resolv_conf=whole.resolv_conf, address=whole.address, hosts=known_as)
        return shared, await connected(self._fabric, other)

    def unmade(self, container: str) -> ContainerConfig | None:
        """A container with ids of its own whose namespace is not there, to be joined, before it runs itself."""
        space, wanted = self._of(container), self._everybody.get(container)
        config = wanted or (None if space is None else space.config)
        if config is None or config.userns is None or config.network not in KEPT or self._names.runs(config.place):
            return None
        return config if space is None or space.descriptor is None or not space.is_for(config) else None

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
        called = {end.network: names_in(config, end) for end in space.ends}
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
                await self._attempt(self._hand_ports_over(old, new))

    async def _hand_ports_over(self, old: Space, new: Space) -> None:
        """Connections that are made from now on go to the new one."""
        wanted = {of_host(port): port for port in held(new.config.ports, old.claims)}
        wiring = self._fabric.wiring
        moving = [claim for claim in old.claims if of_host(claim.port) in wanted]
        for claim in moving:
            claim.port, claim.to = wanted[of_host(claim.port)], reached_at(wiring, new)
        old.claims = [claim for claim in old.claims if claim not in moving]
        new.claims += moving
        if moving:
            await self._filter()
        if any(claim.port.protocol == "udp" for claim in moving):
            with suppress(OSError):  # without nf_conntrack_netlink: who goes on sending is lost for a while
                await self._fabric.in_thread(lambda: wiring.forget_flows(reached_at(wiring, old)))

    def give_up(self, container: str) -> None:
        """It has left the stack: its namespace, address and ports go. So do those of a second run, if that is not the
        first by now.
        """
        gone = [place for place, space in self._spaces.items() if space.config.id == container]
        second = self._spaces.get(container)
        if second is not None and is_second(second.config) and self._of(second.config.id) is not second:
            gone.append(container)
        self._leave(gone)

    def _leave(self, places: Iterable[str]) -> None:
        """They are not there any more at once: who comes to their place in the meantime is another."""
        spaces = [self._spaces.pop(place) for place in places]
        for space in spaces:
            self._names.leave(space.config.place)
            if self._places.get(space.config.id) == space.config.place:
                del self._places[space.config.id]
        if spaces and self._opened is not None:
            self._tasks.start_soon(self._clear, spaces)

    async def _clear(self, spaces: Iterable[Space]) -> None:
        async with self._beginning:
            for space in spaces:
                await self._attempt(self._dismantle(space, for_good=space.config.place not in self._spaces))
            await self._attempt(self._sweep())

    async def _attempt(self, work: Awaitable[object]) -> None:
        """What can't be taken away, or noted, is told: no reason to end what runs. The end of the stack takes it."""
        try:
            await work
        except OSError as error:
            self._emit("left_behind", None, {"error": f"of the networks: {_said(error)}"})

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
        return () if self._opened is None else self._opened.wiring.laid()

    def _of(self, container: str) -> Space | None:
        """What it has, where it runs now."""
        return self._spaces.get(self._places.get(container, container))

    def _put(self, space: Space) -> None:
        self._spaces[space.config.place] = space
        if not is_second(space.config):
            self._places[space.config.id] = space.config.place

    async def close(self) -> None:
        """Remove all of it."""
        if (fabric := self._opened) is None:
            return
        self._opened = None
        for claim in self._claims():
            claim.socket.close()
        for space in self._spaces.values():
            if space.descriptor is not None:
                os.close(space.descriptor)
                space.descriptor = None
        await fabric.close()

    def _settle(self, space: Space) -> str | None:
        return settle(self._fabric.wiring, self._names, space, self._of(space.config.id))

    async def _drop(self, place: str, *, for_good: bool) -> Space | None:
        """What it was, if it was there."""
        space = self._spaces.pop(place, None)
        if space is not None:
            self._names.leave(place)
            await self._dismantle(space, for_good=for_good)
        return space

    async def _dismantle(self, space: Space, *, for_good: bool) -> None:
        fabric = self._fabric
        await fabric.withdraw(space.claims)
        await disconnect(fabric, space)
        if space.claims:
            await self._filter()
        if for_good:
            fabric.wiring.forget(space.config.place, (end.network for end in space.ends))

    async def _filter(self) -> None:
        await self._fabric.filter(self._claims())

    def _claims(self) -> "list[Claim]":
        return [claim for space in self._spaces.values() for claim in space.claims]

    @property
    def _fabric(self) -> Fabric:
        assert self._opened is not None
        return self._opened


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


def _said(error: OSError | StackError) -> str:
    if isinstance(error, StackError):
        return str(error)
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason
