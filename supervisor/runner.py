"""How the supervisor starts and ends runs, as it sees it: the seam to the kernel, and where tests put a fake.

`KernelRunner` (kernel.py) is the real one; the same contract cases run against it and against the fake.
"""

from collections.abc import Callable
from typing import Protocol

from runtime.config import ContainerConfig
from runtime.status import Status


class Run(Protocol):
    """One incarnation of a container, from execve to the last trace of it."""

    pid: int

    def signal(self, number: int) -> None:
        """Send a signal to its first process. No error if that has ended."""
        ...

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call this, once, when its first process was reaped; at once if it has been."""
        ...

    async def ended(self) -> Status:
        """Wait until it was reaped, its last line read, and its mounts and directories are gone."""
        ...


class Runner(Protocol):
    """Starts runs."""

    async def start(self, config: ContainerConfig) -> Run:
        """Return once the container's command was executed. LaunchError if it was not: nothing of it is left then."""
        ...
