"""The figures that have an aim, each by the name under which docs/specification.md lists it."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console

from supervisor.processes.launchers import LAUNCHERS as LAUNCHERS_MAX
from tests.bench import launches, native, stack
from tests.bench.contenders import CRUN, FLOOR, FORK, LAUNCHERS, UP
from tests.bench.measure import Result
from tests.bench.report import Figure, Rounds
from tests.bench.stack import Missing
from tests.bench.subject import Place, lowered

LAUNCH_MAX = 1.5  # x the floor
CRUN_MIN = {"disk": 2.5, "memory": 4.0}  # x crun's containers/s
MEMORY_MAX_KIB = 50
RESTART_MAX_MS = 10
FLAT_MAX = 1.2  # cost among the most containers, over cost among the fewest
WAKEUPS_MAX = 0
VERSION_MAX = 3  # x the bare interpreter

IDLE_S = 5.0
CROWD = 1000  # idle containers, for memory
RESTARTS = 20
STARTS = 100
VERSIONS = 15


def of_rounds(rounds: Rounds) -> list[Figure]:
    """The ratios of what was compared."""
    made = []
    for (storage, in_flight), results in rounds.items():
        where = f"{storage}, {in_flight} in flight"
        for name in (LAUNCHERS, UP):
            if ours := results.get(name):
                limit = LAUNCH_MAX if name == LAUNCHERS else None
                made.append(Figure(f"{name} / floor, {where}", _cost(ours, results, in_flight), limit=limit))
            if ours and in_flight > 1 and (crun := results.get(CRUN)):
                ratio = ours.rate / crun.rate
                made.append(Figure(f"{name} / crun, {where}", ratio, limit=CRUN_MIN[storage], at_least=True))
    return made


def _cost(ours: Result, results: dict[str, Result], in_flight: int) -> float:
    """How much longer ours takes than the better floor: from request to reap when alone, else by the rate."""
    floors = [results[name] for name in (FLOOR, FORK)]
    if in_flight == 1:
        return ours.exit_ms / min(floor.exit_ms for floor in floors)
    return max(floor.rate for floor in floors) / ours.rate


def of_stacks(console: Console, work: Path, sizes: tuple[int, ...]) -> list[Figure]:
    """What needs a running supervisor, and what other containers' presence costs."""
    place = Place(work / "images/bench", work / "state", "memory")
    made: list[Figure] = []

    def add(name: str, measure: Callable[[], float], unit: str, limit: float | None = None, note: str = "") -> None:
        console.log(name)
        try:
            made.append(Figure(name, measure(), unit, limit, note=note))
        except Missing as reason:
            made.append(Figure(name, None, unit, limit, note=str(reason)))

    version, bare = stack.version_ms(VERSIONS)
    ratio_note = f"{version:.1f} ms; the interpreter {bare:.1f}"
    made.append(Figure("pysup --version / bare interpreter", version / bare, "x", VERSION_MAX, note=ratio_note))
    add("restart, SIGKILL to execve", lambda: median(stack.restarts_ms(place, RESTARTS)), "ms", RESTART_MAX_MS)
    whole = "PSS of supervisor and launchers, all of it, over the containers"
    add(f"memory per idle container at {CROWD}", lambda: _memory(place, CROWD), "KiB", MEMORY_MAX_KIB, whole)
    add("memory added by each of them", lambda: _added(place, CROWD), "KiB")
    add("wake-ups of an idle stack", lambda: _wakeups(place), "/s", WAKEUPS_MAX)
    add(f"pysup up: cost at {sizes[-1]} / at {sizes[0]}", lambda: _up_flatness(place, sizes), "x", FLAT_MAX)
    for name, figure in zip((LAUNCHERS, FLOOR), _among(place, sizes), strict=True):
        limit = FLAT_MAX if name == LAUNCHERS else None
        made.append(Figure(f"{name}: cost among {sizes[-1]} idle / among {sizes[0]}", figure, limit=limit))
    return made


def _memory(place: Place, replicas: int) -> float:
    return _held_kib(place, replicas) / replicas


def _added(place: Place, replicas: int) -> float:
    return (_held_kib(place, replicas) - _held_kib(place, 1)) / (replicas - 1)


def _held_kib(place: Place, replicas: int) -> int:
    with stack.running(place, replicas) as up:
        return up.memory_kib()


def _wakeups(place: Place) -> float:
    with stack.running(place, 10) as up:
        time.sleep(1)  # what starting leaves to be done
        before = up.wakeups()
        time.sleep(IDLE_S)
        return (up.wakeups() - before) / IDLE_S


def _up_flatness(place: Place, sizes: tuple[int, ...]) -> float:
    costs = [stack.one_shots(place, size) for size in (sizes[0], sizes[-1])]
    few, many = (cost.wall_s / cost.runs for cost in costs)
    return many / few


def _among(place: Place, sizes: tuple[int, ...]) -> tuple[float, float]:
    """How much longer a run takes among many idle containers than among few: our launchers', and the floor's."""
    medians = []
    with launches.launchers(place, LAUNCHERS_MAX) as through, launches.Idle(through, place) as idle:
        for size in (sizes[0], sizes[-1]):
            idle.grow(size)
            ours = median(through.one(lowered(place, number))[1] for number in range(STARTS))
            medians.append((ours, median(native.floor("vfork", place, STARTS, 1, 1).exit_us)))
    (ours_few, floor_few), (ours_many, floor_many) = medians
    return ours_many / ours_few, floor_many / floor_few
