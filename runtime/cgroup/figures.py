"""What a container uses, as its cgroup's files tell: one open file at a time, nothing kept open.

A figure that the host does not keep, or keeps in a hierarchy that the container is not in, is None.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.cgroup.files import read


@dataclass(frozen=True, slots=True)
class Pressure:
    """How long its processes waited for a resource: Documentation/accounting/psi.rst."""

    some_us: int
    full_us: int
    some_percent: float  # of the last ten seconds
    full_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """At one moment; times and counts are since the container's start."""

    memory_bytes: int | None = None  # with the page cache
    memory_inactive_file_bytes: int | None = None  # the part of it that costs nothing to take back
    memory_peak_bytes: int | None = None
    memory_max_bytes: int | None = None
    swap_bytes: int | None = None
    oom_kills: int | None = None
    cpu_ns: int | None = None
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    cpu_throttled_ns: int | None = None
    cpu_throttled_periods: int | None = None
    pids: int | None = None
    pids_max: int | None = None
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    io_reads: int | None = None
    io_writes: int | None = None
    pressure: Mapping[str, Pressure]  # by resource: cpu, memory, io


def pressure(path: str) -> Pressure | None:
    """Of `some avg10=0.12 avg60=… avg300=… total=22277733` and the same for `full`."""
    found = {}
    for line in read(path).decode("ascii").splitlines():
        kind, *fields = line.split()
        values = dict(field.split("=") for field in fields)
        found[kind] = int(values["total"]), float(values["avg10"])
    if "some" not in found:
        return None
    (some_us, some), (full_us, full) = found["some"], found.get("full", (0, 0.0))
    return Pressure(some_us, full_us, some, full)
