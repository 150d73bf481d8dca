"""What a container may use, and what that is on this host: values for files of its cgroup.

A limit that the host can't enforce is a CgroupError before anything starts: a limit that silently does not hold is
worse than none.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from runtime.errors import CgroupError

PERIOD_US = 100_000  # of the processor's time, in which a container may use so much of it: the kernel's own default


@dataclass(frozen=True, slots=True, kw_only=True)
class IoLimit:
    """Of one block device, per second; None is unlimited."""

    device: str  # its path, or MAJOR:MINOR
    rbps: int | None = None  # bytes read
    wbps: int | None = None
    riops: int | None = None  # reads
    wiops: int | None = None


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


NO_LIMITS = Limits()


class Setting(NamedTuple):
    """One write to a file of a container's cgroup."""

    key: str  # of `limits`, for messages
    file: str
    value: str


def keys(limits: Limits) -> Iterator[tuple[str, str]]:
    """(key, the controller it needs) of each limit that was given."""
    given = {
        ("memory", "memory"): limits.memory_bytes,
        ("memory_high", "memory"): limits.memory_high_bytes,
        ("swap", "memory"): limits.swap_bytes,
        ("oom", "memory"): limits.oom_kill_group or None,
        ("cpus", "cpu"): limits.cpus,
        ("cpu_weight", "cpu"): limits.cpu_weight,
        ("cpuset", "cpuset"): limits.cpuset,
        ("pids", "pids"): limits.pids,
        ("io", "io"): limits.io or None,
    }
    return (key for key, value in given.items() if value is not None)


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
            raise CgroupError(f"limits.io: device {device}: {error.strerror}") from error
        if not stat.S_ISBLK(status.st_mode):
            raise CgroupError(f"limits.io: {device} is no block device: give the disk's, such as /dev/sda")
        major, minor = str(os.major(status.st_rdev)), str(os.minor(status.st_rdev))
    if os.path.exists(f"/sys/dev/block/{major}:{minor}/partition"):
        raise CgroupError(f"limits.io: {device} is a partition: give the device of the whole disk")
    return f"{major}:{minor}"
