"""`kernel`: the reaper, launchers, cgroups and networks that a runner needs, opened in order and closed in reverse."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import anyio

from runtime import devices
from runtime.cgroup.limits import NO_LIMITS
from runtime.config import ContainerConfig
from runtime.enter import Door
from supervisor.kernel.means import Means, Tell, insist
from supervisor.kernel.memory import MemoryWatch
from supervisor.kernel.namespaces import Hold, Namespaces
from supervisor.kernel.notify import Listener
from supervisor.kernel.runner import Complain, KernelRunner, MakeStreams
from supervisor.network.stack import Connect, none
from supervisor.processes.launchers import LauncherPool
from supervisor.processes.reaper import Reaper
from supervisor.state import cgroups
from supervisor.state.ids import Blocks
from supervisor.streams.output import Output


def _untold(_event: str, _container: str, _fields: Mapping[str, object]) -> None:
    """Nobody is there to be told."""


@asynccontextmanager
async def kernel(
    state: Path,
    paths: Sequence[str],
    make: MakeStreams,
    output: Output | None,
    complain: Complain,
    size: int | None = None,
    connect: Connect = none,
    configs: Iterable[ContainerConfig] = (),
    tell: Tell = _untold,
) -> AsyncIterator[KernelRunner]:
    """A runner on the real kernel with its reaper, launchers, cgroups and networks, while the context lasts.

    `configs` are known to be run: CgroupError if the limits of one, or what it may do to a device, can't be enforced.
    """
    wanted = {each.limits: each.id for each in configs if each.limits != NO_LIMITS}
    reaper = Reaper()
    pool = LauncherPool(state, reaper, size)
    for path in paths:
        pool.attach(path)
    with (
        cgroups.branch(state, wanted) as branch,
        closing(Door()) as door,
        closing(Listener(state)) as listener,
        closing(MemoryWatch()) as memory,
        closing(Namespaces(_holder(pool), Blocks(state))) as namespaces,
    ):
        for each in configs:
            devices.check(each.id, each.devices, held=branch.holds_devices)
        async with anyio.create_task_group() as tasks:
            await tasks.start(reaper.run)
            tasks.start_soon(listener.run)
            await tasks.start(memory.run)
            async with connect() as networks, anyio.create_task_group() as launchers:
                await launchers.start(pool.run)
                means = Means(pool, branch, door, listener, namespaces, networks, reaper, memory, tasks, tell)
                runner = KernelRunner(means, make, output, complain)
                yield runner
                await runner.uppers.settle()
                await namespaces.settle()
                launchers.cancel_scope.cancel()
            tasks.cancel_scope.cancel()


def _holder(pool: LauncherPool) -> Hold:
    """A launcher that dies over it is no end: the next one is asked."""
    return lambda pipe, flags: insist(partial(pool.hold, pipe, flags))
