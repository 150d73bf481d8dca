"""When `up --wait` returns, and with what: in virtual time."""

from collections.abc import Iterable, Mapping, Sequence

import anyio
import pytest
from fake import CRASH, NEVER, FakeRunner, Script
from stage import COMPLETED, entries, on_virtual_clock

from runtime.status import Exited
from supervisor.core.checks import Health, OnUnhealthy, Ready, Tcp
from supervisor.core.states import Stop
from supervisor.entry import Entry
from supervisor.stack.arrival import Arrival
from supervisor.stack.tree import Stack

Verdict = tuple[bool, float] | None  # whether all are up, and when that was clear
HOURS_S = 36_000.0
READY = Ready(Tcp(80), timeout_s=60.0)


def verdict(
    all_entries: Iterable[Entry],
    scripts: Mapping[str, Script | Sequence[Script]] | None = None,
    cues: Sequence[tuple[float, str]] = (),
) -> Verdict:
    """`cues`: when to stop which container; without a name, all."""

    async def play() -> Verdict:
        found: list[tuple[bool, float]] = []
        async with FakeRunner(scripts) as runner, anyio.create_task_group() as tasks:
            stack = Stack(all_entries, runner, lambda *_: None, starts_max=8, stay=True)
            arrival = Arrival(stack, lambda up: found.append((up, runner.now_s)))
            tasks.start_soon(stack.run)
            tasks.start_soon(arrival.run)
            began_s = anyio.current_time()
            for at_s, name in cues:
                await anyio.sleep_until(began_s + at_s)
                if name:
                    stack.service(name).post(Stop())
                else:
                    stack.stop()
            await anyio.sleep_until(began_s + HOURS_S)
            tasks.cancel_scope.cancel()
        assert len(found) <= 1
        return found[0] if found else None

    answer: Verdict = on_virtual_clock(play)
    return answer


def fails(after_s: float) -> Script:
    return Script(runs_s=after_s, status=Exited(1))


@pytest.mark.parametrize("late_s", [0.1, 0.9, 3.0])
@pytest.mark.parametrize("early_s", [0.0, 0.5, 5.0])
def test_a_one_shot_that_fails_is_a_failure_whoever_is_quicker(early_s: float, late_s: float) -> None:
    stack = [*entries("web", ready=READY), *entries("job", one_shot=True)]
    found = verdict(stack, {"web": Script(serves_s=early_s), "job": fails(late_s)})
    assert found == (False, late_s)


@pytest.mark.parametrize("serves_s", [0.0, 1.0, 5.0])
def test_a_one_shot_that_completes_is_waited_for(serves_s: float) -> None:
    stack = [*entries("web", ready=READY), *entries("job", one_shot=True)]
    found = verdict(stack, {"web": Script(serves_s=serves_s), "job": Script(runs_s=3.0)})
    assert found is not None
    assert found[0]
    assert found[1] >= max(3.0, serves_s)


def test_what_others_wait_for_to_complete_is_a_one_shot() -> None:
    stack = [*entries("job"), *entries("web", conditions={"job": COMPLETED}, ready=READY)]
    assert verdict(stack, {"job": Script(runs_s=3.0)}) == (True, 3.02)
    assert verdict(stack, {"job": fails(3.0)}) == (False, 3.0)


@pytest.mark.parametrize("ready", [None, READY])
def test_one_that_shows_nothing_has_to_go_on_for_a_while(ready: Ready | None) -> None:
    stack = [*entries("web", ready=ready), *entries("job")]
    assert verdict(stack) == (True, 1.0)
    assert verdict(stack, {"job": fails(0.9)}) == (False, 0.9)
    assert verdict(stack, {"job": Script(runs_s=0.5)}) == (True, 1.0 if ready is None else 0.5)


def test_one_that_comes_up_at_the_second_try_is_up_when_it_has_gone_on_for_a_while() -> None:
    stack = entries("web", restart="on-failure", initial_s=1.0)
    assert verdict(stack, {"web": [fails(0.5), Script()]}) == (True, 2.5)


def test_one_that_comes_and_goes_is_not_there_before_it_stays() -> None:
    stack = [*entries("db", ready=READY), *entries("web", restart="always", initial_s=0.5)]
    found = verdict(stack, {"db": Script(serves_s=9.0), "web": [Script(runs_s=8.5), Script()]})
    assert found is not None
    assert found[0]
    assert verdict(entries("web", restart="always", initial_s=0.5), {"web": CRASH}) is None


@pytest.mark.parametrize("on_unhealthy", [OnUnhealthy.IGNORE, OnUnhealthy.STOP])
def test_one_that_is_unhealthy_and_stays_so_is_a_failure(on_unhealthy: OnUnhealthy) -> None:
    health = Health(Tcp(80), retries=2, start_period_s=0, on_unhealthy=on_unhealthy)
    assert verdict(entries("web", health=health), {"web": Script(serves_s=NEVER)}) == (False, 2.0)
    assert verdict(entries("web", health=health)) == (True, 1.0)


def test_what_somebody_stops_is_not_waited_for() -> None:
    stack = [*entries("db", ready=READY), *entries("web", ready=READY)]
    found = verdict(stack, {"db": Script(serves_s=NEVER)}, [(5.0, "db")])
    assert found == (True, 5.0)


def test_of_a_stack_that_is_stopped_nothing_is_said() -> None:
    stack = [*entries("db", ready=READY), *entries("web")]
    assert verdict(stack, {"db": Script(serves_s=NEVER)}, [(0.5, "")]) is None
