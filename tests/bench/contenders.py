"""Who is compared: the floor, pysup's launchers, `pysup up`, and the peers; each a function that makes one round."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from supervisor.processes import launchers as pool
from tests.bench import launches, native, peers, stack
from tests.bench.measure import Sample
from tests.bench.subject import Place, lowered

FLOOR, FORK, UP, CRUN = "floor", "floor, fork", "pysup up", "crun"
LAUNCHERS, LOWERING = "launchers", "launchers, lowering"
CORES = len(os.sched_getaffinity(0))
WORKERS = 2 * CORES  # of the C programs: they do best so, as each waits while its child has not yet executed

Contender = Callable[[Place, int, int], Sample]  # place, runs, in flight


def contenders(work: Path, merged: Path) -> dict[str, Contender]:
    """All of them by name; peers that are not installed are left out."""
    found: dict[str, Contender] = {
        FLOOR: partial(_floor, "vfork"),
        FORK: partial(_floor, "fork"),
        LAUNCHERS: _launchers,
        LOWERING: _lowering,
        UP: stack.one_shots,
    }
    for name, command in peers.commands(work, merged).items():
        found[name] = partial(_peer, command, merged)
    return found


def _floor(mode: str, place: Place, runs: int, in_flight: int) -> Sample:
    return native.floor(mode, place, runs, in_flight, WORKERS)


def _launchers(place: Place, runs: int, in_flight: int) -> Sample:
    made = [lowered(place, number) for number in range(runs)]
    with launches.launchers(place, pool.LAUNCHERS) as through:
        return launches.sample(through, runs, in_flight, made.__getitem__)


def _lowering(place: Place, runs: int, in_flight: int) -> Sample:
    with launches.launchers(place, pool.LAUNCHERS) as through:
        return launches.sample(through, runs, in_flight, partial(lowered, place))


def _peer(command: list[str], merged: Path, place: Place, runs: int, in_flight: int) -> Sample:
    return native.peer(command, place, merged, runs, in_flight, WORKERS)
