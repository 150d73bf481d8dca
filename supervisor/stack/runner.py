"""How the supervisor starts, looks at and ends runs, as it sees it: the seam to the kernel, and where tests put a fake.

`KernelRunner` (kernel/runner.py) is the real one; the same contract cases run against it and against the fake.
"""

from collections.abc import Callable
from typing import Protocol

from runtime.config import ContainerConfig
from runtime.status import Status
from supervisor.core.checks import Notice, Probe, Verdict
from supervisor.core.policy import Policy

Heard = Callable[[Notice], None]


class Run(Protocol):
    """One incarnation of a container, from execve to the last trace of it."""

    pid: int
    oom: bool  # whether it lost a process for want of memory; known once it has ended

    def signal(self, number: int) -> None:
        """Send a signal to its first process. No error if that has ended."""
        ...

    def freeze(self) -> None:
        """Have all its processes stop where they are. OSError, CgroupError where it has no cgroup."""
        ...

    def thaw(self) -> None:
        """Have it go on, whoever froze it: what is to end by itself must run. Never waits, raises nothing."""
        ...

    def is_frozen(self) -> bool:
        """Do none of its processes run, as its cgroup or one above it is frozen? False where that is not known."""
        ...

    def apply(self, config: ContainerConfig) -> None:
        """Have what can be changed of a run (reload/difference.py) be as in `config`. Never waits, raises nothing."""
        ...

    def rename(self, container: str) -> None:
        """From now on its lines are that container's."""
        ...

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call this, once, when its first process was reaped; at once if it has been."""
        ...

    async def ended(self) -> Status:
        """Wait until it was reaped, its last line read, and its mounts and directories are gone."""
        ...

    async def check(self, probe: Probe, timeout_s: float) -> Verdict:
        """Try a probe, once. What takes longer than `timeout_s` has not passed; nothing of a try outlives this call.

        May be cancelled. Of a run that has ended nothing passes. `Exec` is also how a command is run inside.
        """
        ...

    def tail(self) -> tuple[str, ...]:
        """The last lines it wrote, oldest first; few and short."""
        ...

    def hang(self) -> str:
        """Why a run that was killed does not end, as far as the kernel tells: `state D in nfs_wait_bit_killable`."""
        ...


class Runner(Protocol):
    """Starts runs."""

    async def start(self, config: ContainerConfig, policy: Policy, heard: Heard) -> Run:
        """Return once the container's command was executed. LaunchError if it was not: nothing of it is left then.

        `heard` is called from then on with what the run says, by sd_notify(3) or, where a check of `policy` is a `Log`,
        by its output; what is said before this returns is not lost.
        """
        ...
