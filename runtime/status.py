"""How a process ended, as waitid(2) said it. No judgement: whether that is success is for others to say."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exited:
    """It called exit(2)."""

    code: int

    @property
    def exit_status(self) -> int:
        """What a shell would show."""
        return self.code


@dataclass(frozen=True, slots=True)
class Signaled:
    """A signal ended it."""

    signal: int
    core_dumped: bool = False

    @property
    def exit_status(self) -> int:
        """What a shell would show: 128 + n."""
        return 128 + self.signal


Status = Exited | Signaled


def from_waitid(si_code: int, si_status: int) -> Status:
    """From `si_code` (CLD_*) and `si_status` of waitid(2)."""
    if si_code == os.CLD_EXITED:
        return Exited(si_status)
    return Signaled(si_status, core_dumped=si_code == os.CLD_DUMPED)


def describe(status: Status) -> str:
    """An end in words."""
    if isinstance(status, Signaled):
        return f"killed by signal {status.signal}" + (", core dumped" if status.core_dumped else "")
    return f"exited with status {status.code}"
