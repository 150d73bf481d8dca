"""Runs on the real kernel: a plan, its streams, a launcher's clone, the reaper's status, and nothing left behind."""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio

from runtime import spawn
from runtime.build import build_plan
from runtime.config import ContainerConfig
from runtime.errors import LauncherLost, LaunchError
from runtime.lower import lower_plan
from runtime.plan import Plan
from runtime.status import Status
from runtime.streams import Streams
from supervisor.launchers import LauncherPool, ReplyError
from supervisor.output import Capture, Output
from supervisor.reaper import Exit

TRIES_MAX = 3  # a start whose launcher died is tried again by another
EXEC_S = 60.0  # the longest from clone to execve

MakeStreams = Callable[[Plan], Streams]
Remove = Callable[[], Awaitable[None]]
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
    """Starts containers through the launchers. `streams` makes a run's standard streams; pipes among them go to `output`."""

    def __init__(self, pool: LauncherPool, streams: MakeStreams, output: Output | None, complain: Complain) -> None:
        self._pool = pool
        self._streams = streams
        self._output = output
        self._complain = complain

    async def start(self, config: ContainerConfig) -> KernelRun:
        """See `Runner.start`."""
        plan = build_plan(config)
        for _ in range(TRIES_MAX - 1):
            with suppress(LauncherLost):
                return await self._try(plan)
        return await self._try(plan)

    async def _try(self, plan: Plan) -> KernelRun:
        failure, their_failure = _failure_pipe(plan)
        try:
            run = await self._clone(plan, their_failure)
            await self._reach_exec(run, plan, failure)
        finally:
            os.close(failure)
        return run

    async def _clone(self, plan: Plan, their_failure: int) -> KernelRun:
        streams = None
        try:
            streams = self._streams(plan)
            image = lower_plan(plan).image
            pid, ended = await self._pool.start(plan, image, (their_failure, *streams.theirs))
        except BaseException as error:
            if streams is not None:
                streams.close()
            with anyio.CancelScope(shield=True):
                await self._remove(plan)
            if isinstance(error, ReplyError):
                raise spawn.launch_error(plan, error.reply.call, -error.reply.result) from error
            if isinstance(error, OSError):
                raise _no_streams(plan, error) from error
            raise
        finally:
            os.close(their_failure)
        streams.close_theirs()
        return KernelRun(pid, ended, self._capture(plan, streams), partial(self._remove, plan))

    def _capture(self, plan: Plan, streams: Streams) -> Capture | None:
        if self._output is None or streams.stdout is None or streams.stderr is None:
            return None
        return self._output.attach(plan.id, streams.stdout, streams.stderr)

    async def _reach_exec(self, run: KernelRun, plan: Plan, failure: int) -> None:
        report: tuple[int, int] | None = None
        try:
            with anyio.fail_after(EXEC_S):
                report = await _report(failure)
        except BaseException as error:
            run.signal(signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await run.ended()
            if isinstance(error, TimeoutError):
                raise LaunchError(f"{plan.id}: no execve within {EXEC_S:g} s: is a file system stuck?") from error
            raise
        if report is not None:
            with anyio.CancelScope(shield=True):
                await run.ended()
            raise spawn.launch_error(plan, *report)

    async def _remove(self, plan: Plan) -> None:
        """Remove the directory of a run that has ended. What can't be removed is complained of, and left to the next sweep."""
        if plan.directory is None or plan.keep:
            return
        try:
            await self._pool.remove(plan.directory)
        except (OSError, LaunchError) as error:
            self._complain(plan.id, f"left behind: {error}")


def _failure_pipe(plan: Plan) -> tuple[int, int]:
    try:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _no_streams(plan, error) from error
    os.set_blocking(ours, False)
    return ours, theirs


def _no_streams(plan: Plan, error: OSError) -> LaunchError:
    return LaunchError(f"{plan.id}: make its pipes: {spawn.advise(error)}")


async def _report(failure: int) -> tuple[int, int] | None:
    """What the failure pipe says: None, execve happened; else the call that failed and its errno."""
    while True:
        with suppress(BlockingIOError):
            return spawn.read_failure(failure)
        await anyio.wait_readable(failure)
