"""Process 1 of a container: its pid, a descriptor of it, and when it ends."""

import os
import signal
from dataclasses import dataclass

import anyio

from supervisor.processes.reaper import Exit


@dataclass(frozen=True, slots=True)
class Process:
    """Process 1 of a container, our child."""

    pid: int
    pidfd: int | None  # None: it had been reaped by then
    ended: Exit

    @classmethod
    async def of(cls, pid: int, ended: Exit) -> "Process":
        """With a pidfd. If we have no descriptor for that, it must not live: OSError."""
        try:
            # Until it is reaped the pid can't be another process's; if it has been, there is nothing to signal.
            return cls(pid, os.pidfd_open(pid) if ended.status is None else None, ended)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await ended.wait()
            raise
