"""The table is total: for every phase and event it has a handler, or the event can't happen there and is refused."""

from itertools import product

import pytest

from runtime.status import Exited
from supervisor.states import (
    ALIVE,
    EVENTS,
    FINAL,
    TABLE,
    DependenciesMet,
    DependencyFailed,
    Due,
    Ended,
    Event,
    IllegalEventError,
    Kill,
    Phase,
    Start,
    Started,
    StartFailed,
    State,
    Stop,
    ignored,
    step,
    table,
)
from supervisor.policy import Policy, RestartPolicy

ANYWHERE = frozenset(Phase)
# Users and dependencies may speak up at any time. A launch is answered, a run ends and a deadline comes where one is.
CAN_HAPPEN: dict[type[Event], frozenset[Phase]] = {
    Start: ANYWHERE,
    Stop: ANYWHERE,
    Kill: ANYWHERE,
    DependenciesMet: ANYWHERE,
    DependencyFailed: ANYWHERE,
    Started: frozenset({Phase.STARTING}),
    StartFailed: frozenset({Phase.STARTING}),
    Ended: frozenset({Phase.RUNNING, Phase.STOPPING, Phase.KILLING}),
    Due: frozenset({Phase.STOPPING, Phase.BACKOFF}),
}
EXAMPLES: dict[type[Event], Event] = {
    Start: Start(),
    Stop: Stop(),
    Kill: Kill(),
    DependenciesMet: DependenciesMet(),
    DependencyFailed: DependencyFailed("db failed"),
    Started: Started(42),
    StartFailed: StartFailed("no space"),
    Ended: Ended(Exited(1)),
    Due: Due(),
}
HAVE_DEADLINE = frozenset({Phase.STOPPING, Phase.BACKOFF})
PAIRS = list(product(Phase, EVENTS))
LEGAL = [pair for pair in PAIRS if pair in TABLE]
ILLEGAL = [pair for pair in PAIRS if pair not in TABLE]


def state_in(phase: Phase, restart: RestartPolicy = RestartPolicy.NO) -> State:
    """A state as the machine would have it in this phase."""
    return State(
        Policy(restart),
        phase,
        wanted_up=phase not in {Phase.CREATED, Phase.STOPPING, Phase.KILLING},
        started_at=0.0 if phase in ALIVE - {Phase.STARTING} else None,
        deadline=9.0 if phase in HAVE_DEADLINE else None,
    )


@pytest.mark.parametrize(("phase", "event"), PAIRS)
def test_an_event_is_in_the_table_exactly_where_it_can_happen(phase: Phase, event: type[Event]) -> None:
    assert ((phase, event) in TABLE) is (phase in CAN_HAPPEN[event])


def test_the_table_holds_nothing_else() -> None:
    assert set(TABLE) <= set(PAIRS)


@pytest.mark.parametrize(("phase", "event"), LEGAL)
@pytest.mark.parametrize("restart", list(RestartPolicy))
def test_what_can_happen_leads_to_a_sound_state(phase: Phase, event: type[Event], restart: RestartPolicy) -> None:
    after, _ = step(state_in(phase, restart), EXAMPLES[event], 10.0)
    assert (after.deadline is not None) is (after.phase in HAVE_DEADLINE)


@pytest.mark.parametrize(("phase", "event"), ILLEGAL)
def test_what_cannot_happen_is_refused_and_names_event_and_phase(phase: Phase, event: type[Event]) -> None:
    state = state_in(phase)
    with pytest.raises(IllegalEventError, match=f"{event.__name__} can't happen while {phase}"):
        step(state, EXAMPLES[event], 10.0)
    assert state == state_in(phase)


@pytest.mark.parametrize(("phase", "event"), [pair for pair in LEGAL if TABLE[pair] is ignored])
def test_what_is_ignored_changes_nothing(phase: Phase, event: type[Event]) -> None:
    state = state_in(phase)
    assert step(state, EXAMPLES[event], 10.0) == (state, ())


@pytest.mark.parametrize("phase", sorted(FINAL))
def test_a_final_phase_is_left_by_start_alone(phase: Phase) -> None:
    leaving = [event for event in EVENTS if TABLE.get((phase, event), ignored) is not ignored]
    assert leaving == [Start]


@pytest.mark.parametrize("phase", sorted(ANYWHERE - FINAL))
@pytest.mark.parametrize("event", [Stop(), Kill()])
def test_stop_and_kill_leave_nothing_wanted_up(phase: Phase, event: Event) -> None:
    after, _ = step(state_in(phase), event, 10.0)
    assert not after.wanted_up


def test_the_table_is_printed_whole() -> None:
    heads, rule, *rows = [line.strip("| ").split(" | ") for line in table().splitlines()]
    assert heads == ["phase", *(event.__name__ for event in EVENTS)]
    assert len(rule) == len(heads)
    assert [row[0] for row in rows] == list(Phase)


@pytest.mark.parametrize(("phase", "event"), LEGAL)
def test_the_printed_table_names_the_handler_that_is_used(phase: Phase, event: type[Event]) -> None:
    (row,) = [line for line in table().splitlines() if line.startswith(f"| {phase} |")]
    assert [cell.strip() for cell in row.split("|")][2 + EVENTS.index(event)] == TABLE[phase, event].__name__
