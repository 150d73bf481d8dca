"""Thousands of stacks in virtual time, one per seed: `python -m simulation FIRST COUNT [STRIDE]` plays them.

The seed decides everything: the stack, how its runs go, what is asked of it when, and the order of tasks that could go
on at the same time. One that fails is made smaller as long as it fails in the same way, and printed as a test; the exit
status is 1 then. What else is printed: a line for each move of the machine that was seen.
"""

import gc
import sys
from collections import Counter
from collections.abc import Iterable

from ledger import BrokenPromiseError
from scenario import Scenario, code, draw, hold, shrink

from supervisor.core.machine import TABLE, step
from supervisor.core.states import Actions, Event, Phase, State
from supervisor.stack import service

COLLECT_EVERY = 200  # scenarios: collecting garbage all the time would take a fifth of it

STEPS_MAX = 10_000  # at one moment

Move = tuple[Phase, str, Phase]  # from, event, to


def moves() -> set[Move]:
    """All that the machine says it can do."""
    return {(phase, event.__name__, target) for (phase, event), handler in TABLE.items() for target in handler.targets}


class Watch:
    """Counts the moves that machines make, and sees that they are declared and come to an end."""

    def __init__(self) -> None:
        self.seen = Counter[Move]()
        self.now = 0.0
        self.steps = 0  # since time has moved on

    def __call__(self, state: State, event: Event, now: float, chance: float) -> tuple[State, Actions]:
        self.now, self.steps = now, self.steps + 1 if now == self.now else 0
        if self.steps > STEPS_MAX:
            raise BrokenPromiseError("time_goes_on", None, now)
        after, actions = step(state, event, now, chance)
        name = type(event).__name__
        self.seen[state.phase, name, after.phase] += 1
        if after.phase is not state.phase and after.phase not in TABLE[state.phase, type(event)].targets:
            raise BrokenPromiseError("every_move_is_declared", None, now, f"{state.phase} {name} {after.phase}")
        return after, actions


def failure(scenario: Scenario) -> BaseException | None:
    """What is wrong with it, if anything."""
    try:
        hold(scenario)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        return first_of(error)
    return None


def first_of(error: BaseException) -> BaseException:
    return first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def kind(error: BaseException) -> str:
    """What two failures have in common that have the same cause."""
    return error.promise if isinstance(error, BrokenPromiseError) else type(error).__name__


def first_failure(seeds: Iterable[int]) -> tuple[int, BaseException] | None:
    """The first seed that fails, and how."""
    for number, seed in enumerate(seeds):
        if number % COLLECT_EVERY == 0:
            gc.collect()
        error = failure(draw(seed))
        if error is not None:
            return seed, error
    return None


def story(seed: int, error: BaseException) -> str:
    """A failure as a test that shows it."""

    def is_it(scenario: Scenario) -> bool:
        found = failure(scenario)
        return found is not None and kind(found) == kind(error)

    smallest = shrink(draw(seed), is_it)
    return f"""seed {seed}: {kind(error)}: {error}

# {failure(smallest)}
def test_seed_{seed}() -> None:
    scenario = {code(smallest, " " * 4)}
    hold(scenario)
"""


def main() -> int:
    first, count, stride = (*map(int, sys.argv[1:]), 1)[:3]
    gc.disable()
    watch = Watch()
    vars(service)["step"] = watch
    found = first_failure(range(first, first + count, stride))
    for before, event, after in watch.seen:
        print(f"{before} {event} {after}")
    if found is None:
        return 0
    print(story(*found), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
