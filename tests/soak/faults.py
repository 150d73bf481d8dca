"""What is done to the stack from outside: each fault is begun at once, and ends by itself some time later."""

import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.soak.watch import Watch

End = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """`begin` does it; what it returns undoes it after `lasts_s` (the least and the most)."""

    name: str
    weight: int
    lasts_s: tuple[float, float]
    begin: Callable[[Watch, random.Random], End | None]


def _signal(pid: int, number: int) -> None:
    """A pid that was told a moment ago: it may be gone, and then nobody is signalled by mistake (pidfd_open(2))."""
    with suppress(ProcessLookupError, OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _is_ours(pid):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _is_ours(pid: int) -> bool:
    """Is it (still) a container of this stack, by its overlay?"""
    try:
        return "/stacks/soak/" in Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def kill(watch: Watch, dice: random.Random) -> None:
    """A container is killed."""
    if pids := watch.live_pids():
        _signal(dice.choice(pids), signal.SIGKILL)


def kill_many(watch: Watch, dice: random.Random) -> None:
    """A third of all is killed at the same time."""
    pids = watch.live_pids()
    for pid in dice.sample(pids, len(pids) // 3):
        _signal(pid, signal.SIGKILL)


def hang(watch: Watch, dice: random.Random) -> End | None:
    """A container stops doing anything."""
    pids = watch.live_pids()
    if not pids:
        return None
    pid = dice.choice(pids)
    _signal(pid, signal.SIGSTOP)
    return lambda: _signal(pid, signal.SIGCONT)


def kill_launcher(watch: Watch, dice: random.Random) -> None:
    """A launcher is killed."""
    launchers = [pid for pid in _children(watch.pid) if b"pysup launcher" in _command_line(pid)]
    if launchers:
        with suppress(ProcessLookupError):
            os.kill(dice.choice(launchers), signal.SIGKILL)  # a child of our child, alive a moment ago


def stop_supervisor(watch: Watch, _dice: random.Random) -> End:
    """The supervisor itself stops for a while."""
    os.kill(watch.pid, signal.SIGSTOP)
    return lambda: os.kill(watch.pid, signal.SIGCONT)


def take_descriptors(watch: Watch, _dice: random.Random) -> End:
    """There are hardly any descriptors left."""
    before = resource.prlimit(watch.pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{watch.pid}/fd")), default=64)
    resource.prlimit(watch.pid, resource.RLIMIT_NOFILE, (min(highest + 4, before[1]), before[1]))
    return lambda: resource.prlimit(watch.pid, resource.RLIMIT_NOFILE, before) and None


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


FAULTS = (
    Fault("kill", 40, (0, 0), kill),
    Fault("kill many", 2, (0, 0), kill_many),
    Fault("hang", 20, (0.5, 4), hang),
    Fault("kill a launcher", 3, (0, 0), kill_launcher),
    Fault("stop the supervisor", 3, (0.2, 3), stop_supervisor),
    Fault("take descriptors", 3, (0.5, 2), take_descriptors),
)
STALL = Fault("stall the reader", 3, (0.5, 4), lambda _watch, _dice: None)  # the loop itself stops reading
