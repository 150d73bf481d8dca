"""The processes that a supervisor or a launcher has begun: who they are, that they end, and that they sleep."""

import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from command import Live
from waiting import PATIENCE_S, until

from runtime import pidfd

QUIET_S = 0.2


def children(pid: int) -> list[int]:
    """Of its main thread, which begins them: proc_tid_children(5)."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def in_front(pid: int, name: str) -> bool:
    """Is a process of this name, below that one, in the foreground of its terminal? proc_pid_stat(5)"""
    with suppress(FileNotFoundError, ProcessLookupError):  # one has ended meanwhile
        for child in children(pid):
            fields = Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            group, foreground = fields[2], fields[5]
            comm = Path(f"/proc/{child}/comm").read_text(encoding="ascii").strip()
            if (comm == name and group == foreground) or in_front(child, name):
                return True
    return False


def end(pids: Iterable[int]) -> None:
    """Wait until each of them has ended."""
    for pid in pids:
        descriptor = pidfd.opened(pid)
        if descriptor is not None:
            try:
                assert select.select([descriptor], [], [], PATIENCE_S)[0], f"{pid} lives on"
            finally:
                os.close(descriptor)


def killed(live: Live) -> None:
    """SIGKILL a supervisor, and see its launchers and containers die."""
    family = children(live.process.pid)
    live.signal(signal.SIGKILL)
    live.process.wait(PATIENCE_S)
    end(family)


def switches(pids: Iterable[int]) -> int:
    """How often their threads went to sleep so far."""
    lines = []
    for status in (each for pid in pids for each in Path(f"/proc/{pid}/task").glob("*/status")):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread has ended
            lines += status.read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def wakes(pids: list[int], during_s: float) -> int:
    """How often they wake up within a time in which nothing happens, once what came before is over."""
    settled = -1

    def at_rest() -> bool:
        nonlocal settled
        before, settled = settled, switches(pids)
        select.select([], [], [], QUIET_S)
        return before == settled

    until(at_rest)
    select.select([], [], [], during_s)  # time passing is the subject: there is no event to wait for
    return switches(pids) - settled
