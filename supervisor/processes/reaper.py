"""SIGCHLD to exit statuses: each child reaped exactly once, and its status handed to who claimed the pid.

SIGCHLD is a hint, not a message: signals of one kind coalesce, so 1,000 deaths may be one signal. Each wake therefore
drains waitid(2) until it has nothing more. A container that ends before the launcher's reply has told its pid is kept
until claimed. Nothing else in this process may wait for a child.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import anyio.abc

from runtime import linux
from runtime.status import Status, from_waitid

SIGINFO_BYTES = 128  # struct signalfd_siginfo


class Exit:
    """The end of one process: look at `status`, `wait()` for it, or be called."""

    __slots__ = ("_callback", "_happened", "status")

    def __init__(self, status: Status | None = None) -> None:
        self.status = status
        self._callback: Callable[[], None] | None = None
        self._happened: anyio.Event | None = None  # made when somebody waits

    def settle(self, status: Status) -> None:
        """It was reaped."""
        self.status = status
        if self._happened is not None:
            self._happened.set()
        callback, self._callback = self._callback, None  # what it belongs to may hold this: no cycle is left behind
        if callback is not None:
            callback()

    def call(self, callback: Callable[[], None]) -> None:
        """Call this once it was reaped; at once if it has been."""
        if self.status is not None:
            callback()
        else:
            self._callback = callback

    async def wait(self) -> Status:
        """Return the status once the process was reaped."""
        while self.status is None:
            if self._happened is None:
                self._happened = anyio.Event()
            await self._happened.wait()
        return self.status


class Reaper:
    """Owner of all exit statuses of this process's children."""

    def __init__(self) -> None:
        self._claimed: dict[int, Exit] = {}
        self._unclaimed: dict[int, Status] = {}

    def claim(self, pid: int) -> Exit:
        """Whoever started `pid` gets its status; once per pid."""
        if pid in self._unclaimed:
            return Exit(self._unclaimed.pop(pid))
        if pid in self._claimed:
            raise RuntimeError(f"pid {pid} is claimed already")
        self._claimed[pid] = Exit()
        return self._claimed[pid]

    def knows(self, pid: int) -> bool:
        """Is this child somebody's?"""
        return pid in self._claimed

    def forget_unclaimed(self) -> None:
        """Nobody will ask for those that ended unclaimed; kept, their statuses would one day be taken for those of
        others with their pids.
        """
        self._unclaimed.clear()

    def drain(self) -> None:
        """Reap every child that has ended."""
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if result is None:
                return
            status = from_waitid(result.si_code, result.si_status)
            claimed = self._claimed.pop(result.si_pid, None)
            if claimed is None:
                self._unclaimed[result.si_pid] = status
            else:
                claimed.settle(status)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Reap until cancelled."""
        with _sigchld() as hints:
            task_status.started()
            while True:
                self.drain()
                await anyio.wait_readable(hints)
                with suppress(BlockingIOError):
                    os.read(hints, SIGINFO_BYTES)


@contextmanager
def _sigchld() -> Iterator[int]:
    """SIGCHLD as a descriptor, whose many pending signals are one.

    A handler would run for each of them, and the loops' handlers write a byte each into a pipe: 1,000 containers that
    die together fill it, and then a Ctrl-C finds no room. Threads that are there already must block it themselves.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    descriptor = linux.signalfd(signal.SIGCHLD)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
