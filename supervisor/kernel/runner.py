"""Starts containers: what a plan is made of, a launcher's clone, and nothing left behind where that fails."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import anyio

from runtime import devices, spawn
from runtime.build import build_plan
from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import Limits
from runtime.config import ContainerConfig, Network
from runtime.errors import CgroupError, LaunchError
from runtime.lower import lower_plan
from runtime.plan import Plan
from runtime.streams import Streams
from runtime.volumes import Pinned, needs_pinning
from supervisor.aside import aside
from supervisor.core.policy import Policy
from supervisor.entry import StackNetwork
from supervisor.kernel.means import Means, insist
from supervisor.kernel.namespaces import Own
from supervisor.kernel.process import Process
from supervisor.kernel.run import KernelRun
from supervisor.kernel.senses import Senses
from supervisor.kernel.uppers import Uppers
from supervisor.network.ends import Connections, Laid
from supervisor.processes.helper import consult
from supervisor.processes.launchers import ReplyError
from supervisor.stack.runner import Heard
from supervisor.streams.output import Output

MakeStreams = Callable[[Plan], Streams]
Complain = Callable[[str, str], None]  # (container, what could not be cleaned)


class KernelRunner:
    """Starts containers through the launchers. `streams` makes a run's standard streams; pipes among them go to
    `output`.
    """

    def __init__(self, means: Means, streams: MakeStreams, output: Output | None, complain: Complain) -> None:
        self._means = means
        self._streams = streams
        self._output = output
        self._complain = complain
        self.uppers = Uppers(means, self._remove)

    async def attach(self, path: str) -> None:
        """Show a directory of the host to the launchers: an image that was not known when they began."""
        await self._means.pool.show(path)

    def connections(self, container: str) -> Connections:
        """Where it is in the stack's networks."""
        return self._means.networks.connections(container)

    def networks(self) -> tuple[Laid, ...]:
        """Those of the stack that there are."""
        return self._means.networks.laid()

    def change_networks(self, networks: Iterable[StackNetwork], configs: Iterable[ContainerConfig]) -> None:
        """A reload begins: see `Networks.change`."""
        self._means.networks.change(networks, configs)

    async def tidy_networks(self) -> None:
        """It is over."""
        await self._means.networks.tidy()

    def rename(self, container: str, config: ContainerConfig) -> None:
        """A container is called otherwise from now on."""
        self._means.networks.rename(container, config)
        self._means.namespaces.rename(container, config.id)

    async def hand_over(self, container: str, place: str) -> None:
        """See `Networks.hand_over`."""
        await self._means.networks.hand_over(container, place)

    def leave(self, container: str) -> None:
        """A container has left the stack for good: its network goes, and the ids that were its own."""
        self._means.networks.give_up(container)
        self._means.namespaces.forget(container)

    async def consult(self, module: str, question: object) -> Any:
        """Have another interpreter answer a question: see processes/helper.py."""
        return await consult(self._means.reaper, module, question)

    def unmet(self, limits: Limits) -> Mapping[str, str]:
        """By their keys, the limits that are left out, as best effort has it, and why."""
        return self._means.branch.unmet(limits)

    async def start(self, config: ContainerConfig, policy: Policy, heard: Heard) -> KernelRun:
        """See `Runner.start`."""
        if not (config.keep or config.lasting):
            return await self._start(config, policy, heard)
        async with self.uppers.started(config):
            return await self._start(config, policy, heard)

    async def _start(self, config: ContainerConfig, policy: Policy, heard: Heard) -> KernelRun:
        own = pinned = None
        try:
            if config.network is Network.CONTAINER and config.shares is not None:
                await self._make_shared(config.shares)
            config, own, joined = await self._placed(config)
            pinned = await _pinned(config)
            devices.check(config.id, config.devices, held=self._means.branch.holds_devices)
            cgroup = self._means.branch.cgroup(config.place, config.limits)
            found, ids = None if pinned is None else pinned.found, None if own is None else own.ids
            plan = build_plan(config, cgroup, found, ids)
            start = partial(self._try, config, plan, pinned, own, policy, heard)
            return await insist(partial(start, joined=() if joined is None else (joined,)))
        except BaseException as error:
            if own is not None:
                self._means.namespaces.give(config.id, own)
            if isinstance(error, CgroupError):
                raise LaunchError(str(error), container=config.id) from error
            raise
        finally:
            if pinned is not None:
                pinned.close()

    async def _placed(self, config: ContainerConfig) -> tuple[ContainerConfig, Own | None, int | None]:
        """The rest of its configuration, its user namespace, and the network's if that is one to join beside it."""
        if config.userns is None:
            whole, joined = await self._means.networks.prepare(config)
            return whole, None, joined
        async with self._means.namespaces.turn(config.id):
            alone = config.network in (Network.NONE, Network.BRIDGE)
            own = await self._means.namespaces.take(config.id, config.userns, network=alone)
            try:
                whole, joined = await self._means.networks.prepare(config, own.network)
            except BaseException:
                self._means.namespaces.give(config.id, own)
                raise
        return whole, own, joined

    async def _make_shared(self, container: str) -> None:
        """Somebody is about to join the network of a container with ids of its own, which may not have run yet: what it
        will run in is made now.
        """
        if self._means.networks.unmade(container) is None:
            return
        async with self._means.namespaces.turn(container):
            config = self._means.networks.unmade(container)
            if config is None or config.userns is None:
                return
            own = await self._means.namespaces.take(container, config.userns, network=True)
            try:
                await self._means.networks.prepare(config, own.network)
            finally:
                self._means.namespaces.give(container, own)

    async def _try(
        self,
        config: ContainerConfig,
        plan: Plan,
        pinned: Pinned | None,
        own: Own | None,
        policy: Policy,
        heard: Heard,
        *,
        joined: tuple[int, ...],
    ) -> KernelRun:
        made, senses = None, Senses()
        spaces = () if own is None else own.descriptors()
        mounts: list[int] = []
        try:
            if pinned is not None:
                mounts = pinned.copies(None if own is None else own.user)
            made = self._streams(plan)
            spawn.spare_some(made.owned)
            places = () if plan.cgroup is None else plan.cgroup.descriptors
            descriptors = (
                *senses.open(config, made, policy, heard, self._output, self._means.listener, self._means.tell),
                *joined,
                *spaces,
                *mounts,
                *places,
            )
            process = await Process.of(*await self._means.pool.start(plan, lower_plan(plan).image, descriptors))
        except BaseException as error:
            senses.close()
            if made is not None:
                made.close()
            with anyio.CancelScope(shield=True):
                await self._remove(plan.id, _temporary(plan), plan.cgroup)
            if isinstance(error, ReplyError):
                raise spawn.launch_error(plan, error.reply.call, error.reply.error) from error
            if isinstance(error, OSError):
                what = "make its pipes" if made is not None or not mounts else "copy its mounts"
                raise LaunchError(f"{what}: {spawn.advise(error)}", container=plan.id) from error
            raise
        finally:
            for each in mounts:
                os.close(each)
        made.close_theirs()
        # The run does not hold the plan: for thousands of idle containers that would be most of their memory.
        remove = partial(self._remove, plan.id, _temporary(plan))
        senses.begin()
        self._means.networks.started(config.place)
        return KernelRun(process, config, plan.cgroup, own, self._means, senses, remove)

    async def _remove(self, container: str, directory: str | None, cgroup: Cgroup | None = None) -> None:
        """Remove what a run that has ended has on disk, and its cgroup. What can't be is complained of, and left to the
        next sweep.
        """
        try:
            await insist(partial(self._means.pool.remove, directory, cgroup))
        except (OSError, LaunchError) as error:
            self._complain(container, f"left behind: {error}")


async def _pinned(config: ContainerConfig) -> Pinned | None:
    """Its sources, opened in a thread: a disk or a server that is slow holds up nobody else. None: it has none."""
    if not needs_pinning(config):
        return None
    try:
        return await aside(Pinned, config)
    except OSError as error:
        raise LaunchError(f"open its volumes: {spawn.advise(error)}", container=config.id) from error


def _temporary(plan: Plan) -> str | None:
    """The directory that goes with the run."""
    return None if plan.keep else plan.directory
