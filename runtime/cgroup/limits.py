"""What a container may use, and what that is on this host: values for files of its cgroup.

A limit that the host can't enforce is a CgroupError before anything starts: a limit that silently does not hold is
worse than none. With `best_effort` it is left out instead, and told.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from runtime.errors import CgroupError

CPUSET_PATTERN = r"\d{1,5}(?:-\d{1,5})?(?:,\d{1,5}(?:-\d{1,5})?)*"  # a list as cpuset(7) writes them
PERIOD_US = 100_000  # of the processor's time, in which a container may use so much of it: the kernel's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """Of one block device, per second; None is unlimited."""

    device: str  # its path, or MAJOR:MINOR
    rbps: int | None = None  # bytes read
    wbps: int | None = None
    riops: int | None = None  # reads
    wiops: int | None = None

    def __str__(self) -> str:
        rates = {"rbps": self.rbps, "wbps": self.wbps, "riops": self.riops, "wiops": self.wiops}
        return " ".join((self.device, *(f"{name} {rate}" for name, rate in rates.items() if rate is not None)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None and empty mean: whatever pysup itself may."""

    memory_bytes: int | None = None
    memory_high_bytes: int | None = None  # above this it is slowed down and reclaimed from, but not killed
    swap_bytes: int | None = None  # besides the memory
    cpus: float | None = None  # 1.5 is one and a half processors' time
    cpu_weight: int | None = None  # 1 to 10,000, against its siblings; others have 100
    cpuset: str | None = None  # "0-3,8", as cpuset(7) writes lists
    pids: int | None = None  # threads count
    io: tuple[IoLimit, ...] = ()
    oom_kill_group: bool = False  # out of memory kills all of the container, not the one process that fits best
    best_effort: bool = False  # what can't be enforced is left out

    def without(self, keys: Iterable[str]) -> "Limits":
        """The others."""
        return replace(self, **{_FIELDS[key]: getattr(NO_LIMITS, _FIELDS[key]) for key in keys})


_FIELDS = {
    "memory": "memory_bytes",
    "memory_high": "memory_high_bytes",
    "swap": "swap_bytes",
    "oom": "oom_kill_group",
    "cpus": "cpus",
    "cpu_weight": "cpu_weight",
    "cpuset": "cpuset",
    "pids": "pids",
    "io": "io",
}
NO_LIMITS = Limits()


class Setting(NamedTuple):
    """One write to a file of a container's cgroup."""

    key: str  # of `limits`, for messages
    file: str
    value: str


def keys(limits: Limits) -> Iterator[tuple[str, str]]:
    """(key, the controller it needs) of each limit that was given."""
    for key, field in _FIELDS.items():
        if getattr(limits, field) != getattr(NO_LIMITS, field):
            yield key, controller_of(key)


def described(limits: Limits) -> Iterator[tuple[str, str]]:
    """For people: where each limit that was given is written in a spec, and its value."""
    for key, field in _FIELDS.items():
        value = getattr(limits, field)
        if key == "oom" or value == getattr(NO_LIMITS, field):
            continue
        yield path_of(key), ", ".join(map(str, value)) if key == "io" else f"{value:g}" if key == "cpus" else str(value)
    if limits.oom_kill_group:
        yield "oom", "kill-group"
    if limits.best_effort:
        yield "enforce", "best-effort"


def controller_of(key: str) -> str:
    """The controller that holds a limit."""
    return _CONTROLLERS.get(key, "memory")


_CONTROLLERS = {"cpus": "cpu", "cpu_weight": "cpu", "cpuset": "cpuset", "pids": "pids", "io": "io"}


def path_of(key: str) -> str:
    """Where it is written in a spec."""
    return key if key == "oom" else f"limits.{key}"


def processors(listed: str) -> frozenset[int]:
    """Of a list as cpuset(7) writes them: `0-3,8`."""
    spans = (part.partition("-") for part in listed.split(",") if part.strip())
    return frozenset(number for low, _, high in spans for number in range(int(low), int(high or low) + 1))


def quota_us(cpus: float) -> int:
    """Of each period. The kernel takes no less than a millisecond (kernel/sched/core.c: min_cfs_quota_period)."""
    return max(1000, round(cpus * PERIOD_US))


def device_number(device: str) -> str:
    """MAJOR:MINOR of a block device. CgroupError if it is none, or a part of one: the kernel limits whole disks."""
    major, _, minor = device.partition(":")
    if not (major.isdecimal() and minor.isdecimal()):
        try:
            status = os.stat(device)
        except OSError as error:
            raise CgroupError(f"device {device}: {error.strerror}") from error
        if not stat.S_ISBLK(status.st_mode):
            raise CgroupError(f"{device} is no block device: give the disk's, such as /dev/sda")
        major, minor = str(os.major(status.st_rdev)), str(os.minor(status.st_rdev))
    if os.path.exists(f"/sys/dev/block/{major}:{minor}/partition"):
        raise CgroupError(f"{device} is a partition: give the device of the whole disk")
    return f"{major}:{minor}"
