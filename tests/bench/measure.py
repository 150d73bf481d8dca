"""What one round of one contender gave, and the machine's own counters."""

import os
import resource
import statistics
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: so many runs, wall clock and processor seconds for all of them, and each one's latencies."""

    runs: int
    wall_s: float
    cpu_s: float  # of the contender and everything it reaped
    busy_s: float  # of the whole machine, kernel threads and neighbours included
    exit_us: tuple[float, ...]  # from request to reap
    exec_us: tuple[float, ...] = ()  # from request to execve; known with one in flight


@dataclass(frozen=True, slots=True)
class Result:
    """All rounds of one contender: medians over rounds of what is a total, over runs of what is a latency."""

    rate: float
    cpu_ms: float
    busy_ms: float
    exit_ms: float
    exec_ms: float | None


def result(samples: list[Sample]) -> Result:
    """The medians of a contender's rounds."""
    exits = [microseconds for sample in samples for microseconds in sample.exit_us]
    execs = [microseconds for sample in samples for microseconds in sample.exec_us]
    return Result(
        rate=statistics.median(sample.runs / sample.wall_s for sample in samples),
        cpu_ms=statistics.median(sample.cpu_s / sample.runs * 1e3 for sample in samples),
        busy_ms=statistics.median(sample.busy_s / sample.runs * 1e3 for sample in samples),
        exit_ms=statistics.median(exits) / 1e3,
        exec_ms=statistics.median(execs) / 1e3 if execs else None,
    )


def own_cpu_s() -> float:
    """Processor time of this process and of all it has reaped."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def machine_busy_s() -> float:
    """Time that any processor was not idle: all of proc_stat(5)'s first line but idle, iowait and guests'."""
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    user, nice, system, _idle, _iowait, *rest = map(int, first.split()[1:9])
    return (user + nice + system + sum(rest)) / _TICKS
