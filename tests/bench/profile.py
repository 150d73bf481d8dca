"""Where a launch's time goes: each step of the program by the clock, and what launcher and child add to it."""

import os
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from runtime import launcher, linux, lower, program
from tests.bench import launches, native
from tests.bench.subject import Lowered, Place, lowered


def show(console: Console, work: Path, runs: int) -> None:
    """Both storages."""
    for storage in ("disk", "memory"):
        place = Place(work / "images/bench", work / "state", storage)
        console.print(_table(f"{storage}: microseconds of each step, in C", _steps(place, runs)))
        console.print(_table(f"{storage}: one launch through a launcher", _phases(place, runs)))


def _table(title: str, rows: dict[str, float]) -> Table:
    table = Table(title=title)
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in rows.items():
        table.add_row(name, f"{value:.1f}")
    return table


def _steps(place: Place, runs: int) -> dict[str, float]:
    wanted = lowered(place, 0).plan
    rows: Counter[str] = Counter()
    for step, spent in zip(lower.lower_plan(wanted).steps, native.profile(place, runs), strict=True):
        rows[wanted.steps[step].describe()] += spent  # type: ignore[assignment]  # a Counter of microseconds
    return {**rows, "sum": sum(rows.values())}


def _phases(place: Place, runs: int) -> dict[str, float]:
    made = [lowered(place, number) for number in range(runs)]
    with launches.launchers(place, 1) as through:
        pid = through.launchers[0].pid
        faults, cpu = _faults(pid), launches.launcher_cpu_s(pid)
        medians = [median(column) for column in zip(*(_phase(through, one) for one in made), strict=True)]
        faults, cpu = _faults(pid) - faults, launches.launcher_cpu_s(pid) - cpu
    names = ("request, µs", "to the reply at execve, µs", "to the reap, µs", "removal, µs", "child's page faults")
    return {
        **dict(zip(names, medians, strict=True)),
        "launcher's page faults": faults / runs,
        "launcher's processor time, µs": cpu / runs * 1e6,
        "link, µs": _link_us(made[0]),
        "plan and lower, µs": _lower_us(place),
    }


def _phase(through: launches.Launchers, made: Lowered) -> tuple[float, ...]:
    only = through.launchers[0]
    times = [time.perf_counter()]
    through.start(0, made, only)
    times.append(time.perf_counter())
    reply = through.only_reply(only)
    launches.check(made, reply)
    times.append(time.perf_counter())
    _, status, usage = os.wait4(reply.pid, 0)
    times.append(time.perf_counter())
    launches.reaped(reply.pid, status)
    through.remove(made, only)
    times.append(time.perf_counter())
    return *((after - before) * 1e6 for before, after in pairwise(times)), float(usage.ru_minflt)


def _faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def _link_us(made: Lowered, times: int = 200) -> float:
    image, descriptors = memoryview(made.image), list(range(launcher.DESCRIPTORS_MAX))
    begun = time.perf_counter()
    for _ in range(times):
        program.link(image, linux.address_of, descriptors)
    return (time.perf_counter() - begun) / times * 1e6


def _lower_us(place: Place, times: int = 200) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        lowered(place, 0)
    return (time.perf_counter() - begun) / times * 1e6
