"""Runs on the real kernel: a plan, its streams, a launcher's clone, the reaper's status, and nothing left behind."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio

from runtime import spawn
from runtime.build import build_plan
from runtime.config import ContainerConfig
from runtime.errors import LauncherLostError, LaunchError
from runtime.lower import lower_plan
from runtime.plan import Plan
from runtime.status import Status
from runtime.streams import Streams
from supervisor.launchers import LauncherPool, ReplyError
from supervisor.output import Capture, Output
from supervisor.reaper import Exit, Reaper

TRIES_MAX = 3  # what a launcher died over is tried again by another

MakeStreams = Callable[[Plan], Streams]
Remove = Callable[[], Awaitable[None]]
Result = TypeVar("Result")
Complain = Callable[[str, str], None]  # (container, what could not be cleaned)


class KernelRun:
    """A container that runs, or ran."""

    __slots__ = ("_capture", "_ended", "_pidfd", "_remove", "pid")

    def __init__(self, pid: int, ended: Exit, capture: Capture | None, remove: Remove) -> None:
        self.pid = pid
        self._ended = ended
        self._capture = capture
        self._remove = remove
        # Until it is reaped the pid can't be another process's; if it has been already, there is nothing to signal.
        self._pidfd = os.pidfd_open(pid) if ended.status is None else None

    def signal(self, number: int) -> None:
        """pidfd_send_signal(2); killing the first process kills all of the container (pid_namespaces(7))."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def on_exit(self, callback: Callable[[], None]) -> None:
        """See `Run.on_exit`."""
        self._ended.call(callback)

    async def ended(self) -> Status:
        """See `Run.ended`."""
        status = await self._ended.wait()
        self._release()
        if self._capture is not None:
            await self._capture.drain()
        await self._remove()
        return status

    def _release(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class KernelRunner:
    """Starts containers through the launchers. `streams` makes a run's standard streams; pipes among them go to
    `output`.
    """

    def __init__(self, pool: LauncherPool, streams: MakeStreams, output: Output | None, complain: Complain) -> None:
        self._pool = pool
        self._streams = streams
        self._output = output
        self._complain = complain

    async def start(self, config: ContainerConfig) -> KernelRun:
        """See `Runner.start`."""
        plan = build_plan(config)
        return await _insist(partial(self._try, plan))

    async def _try(self, plan: Plan) -> KernelRun:
        made = None
        try:
            made = self._streams(plan)
            pid, ended = await self._pool.start(plan, lower_plan(plan).image, made.theirs)
        except BaseException as error:
            if made is not None:
                made.close()
            with anyio.CancelScope(shield=True):
                await self._remove(plan.id, _temporary(plan))
            if isinstance(error, ReplyError):
                raise spawn.launch_error(plan, error.reply.call, error.reply.error) from error
            if isinstance(error, OSError):
                raise LaunchError(f"make its pipes: {spawn.advise(error)}", container=plan.id) from error
            raise
        made.close_theirs()
        # The run does not hold the plan: for thousands of idle containers that would be most of their memory.
        remove = partial(self._remove, plan.id, _temporary(plan))
        return KernelRun(pid, ended, self._capture(plan, made), remove)

    def _capture(self, plan: Plan, made: Streams) -> Capture | None:
        if self._output is None or made.stdout is None or made.stderr is None:
            return None
        return self._output.attach(plan.id, made.stdout, made.stderr)

    async def _remove(self, container: str, directory: str | None) -> None:
        """Remove what a run that has ended has on disk. What can't be is complained of, and left to the next sweep."""
        if directory is None:
            return
        try:
            await _insist(partial(self._pool.remove, directory))
        except (OSError, LaunchError) as error:
            self._complain(container, f"left behind: {error}")


async def _insist(attempt: Callable[[], Awaitable[Result]]) -> Result:
    for _ in range(TRIES_MAX - 1):
        with suppress(LauncherLostError):
            return await attempt()
    return await attempt()


def _temporary(plan: Plan) -> str | None:
    """The directory that goes with the run."""
    return None if plan.keep else plan.directory


@asynccontextmanager
async def kernel(
    state: Path,
    paths: Sequence[str],
    make: MakeStreams,
    output: Output | None,
    complain: Complain,
    size: int | None = None,
) -> AsyncIterator[KernelRunner]:
    """A runner on the real kernel with its reaper and launchers, for as long as the context lasts."""
    reaper = Reaper()
    pool = LauncherPool(state, reaper, size)
    for path in paths:
        pool.attach(path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(reaper.run)
        async with anyio.create_task_group() as launchers:
            await launchers.start(pool.run)
            yield KernelRunner(pool, make, output, complain)
            launchers.cancel_scope.cancel()
        tasks.cancel_scope.cancel()
