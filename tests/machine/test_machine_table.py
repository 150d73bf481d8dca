"""The table is total: for every phase and event it has a handler, or the event can't happen there and is refused.

And it says the truth about where handlers lead: random lives make every move that is declared, and no other.
"""

import random
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from states_page import MEANINGS, page

from runtime.status import Exited, Signaled
from supervisor.core.checks import Health, Log, Notice, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.machine import TABLE, IllegalEventError, step, table
from supervisor.core.policy import Backoff, Policy, RestartPolicy
from supervisor.core.states import (
    EVENTS,
    FINAL,
    LIVE,
    Adapt,
    Checked,
    Deferred,
    DependenciesMet,
    DependencyFailed,
    Due,
    Ended,
    Event,
    Frozen,
    Heard,
    Kill,
    Pause,
    Phase,
    Quiesced,
    Restart,
    Start,
    Started,
    StartFailed,
    State,
    Stop,
    Unpause,
)
from supervisor.core.transitions import ignored

ANYWHERE = frozenset(Phase)
# Users and dependencies may speak up at any time, and an answer may come too late. A launch is answered, a run ends and
# a deadline comes where one is.
CAN_HAPPEN: dict[type[Event], frozenset[Phase]] = {
    **dict.fromkeys((Start, Restart, Stop, Kill, Pause, Unpause, Frozen, Adapt), ANYWHERE),
    **dict.fromkeys((DependenciesMet, DependencyFailed, Checked, Heard, Quiesced), ANYWHERE),
    **dict.fromkeys((Deferred, Started, StartFailed), frozenset({Phase.STARTING})),
    Ended: LIVE,
    Due: frozenset(
        {Phase.WAITING, Phase.ACTIVATING, Phase.RUNNING, Phase.STOPPING, Phase.KILLING, Phase.BACKOFF},
    ),
}
EXAMPLES: dict[type[Event], tuple[Event, ...]] = {
    Start: (Start(),),
    Restart: (Restart("db was restarted"),),
    Stop: (Stop(), Stop(grace_s=1.0)),
    Kill: (Kill(),),
    Pause: (Pause(),),
    Unpause: (Unpause(),),
    Frozen: (Frozen(),),
    DependenciesMet: (DependenciesMet(), DependenciesMet(("cache failed",))),
    DependencyFailed: (DependencyFailed("db failed"),),
    Deferred: (Deferred(),),
    Started: (Started(42),),
    StartFailed: (StartFailed("no space"), StartFailed("not found", 127)),
    Checked: (Checked(passed=True), Checked(passed=False, detail="refused")),
    Heard: (
        *(Heard(Notice(ready=True)), Heard(Notice(alive=True)), Heard(Notice(alive=False))),
        *(Heard(Notice(status="busy")), Heard(Notice(extend_s=5.0))),
    ),
    Quiesced: (Quiesced(), Quiesced("exit status 1")),
    Ended: (Ended(Exited(0)), Ended(Exited(1)), Ended(Signaled(9), oom=True)),
    Adapt: (
        *(Adapt(Policy()), Adapt(Policy(timeout_s=1.0, ready=Ready(Tcp(81)), health=Health(Tcp(81))))),
        *(Adapt(Policy(ready=Ready(Log("up")), waits_s=(3.0,))), Adapt(Policy(health=Health(Tcp(80), retries=2)))),
    ),
    Due: (Due(),),
}
PAIRS = list(product(Phase, EVENTS))
LEGAL = [pair for pair in PAIRS if pair in TABLE]
ILLEGAL = [pair for pair in PAIRS if pair not in TABLE]
PAGE = Path(__file__).resolve().parents[2] / "docs/states.md"


@pytest.mark.parametrize(("phase", "event"), PAIRS)
def test_an_event_is_in_the_table_exactly_where_it_can_happen(phase: Phase, event: type[Event]) -> None:
    assert ((phase, event) in TABLE) is (phase in CAN_HAPPEN[event])


def test_the_table_holds_nothing_else() -> None:
    assert set(TABLE) <= set(PAIRS)


@pytest.mark.parametrize(("phase", "event"), ILLEGAL)
def test_what_cannot_happen_is_refused_and_names_event_and_phase(phase: Phase, event: type[Event]) -> None:
    state = State(Policy(), phase)
    with pytest.raises(IllegalEventError, match=f"{event.__name__} can't happen while {phase}"):
        step(state, EXAMPLES[event][0], 10.0)
    assert state == State(Policy(), phase)


@pytest.mark.parametrize(("phase", "event"), [pair for pair in LEGAL if TABLE[pair] is ignored])
def test_what_is_ignored_changes_nothing(phase: Phase, event: type[Event]) -> None:
    state = State(Policy(), phase)
    assert all(step(state, each, 10.0) == (state, ()) for each in EXAMPLES[event])


@pytest.mark.parametrize("phase", [Phase.EXITED, Phase.FAILED])
def test_a_final_phase_without_a_run_is_left_by_start_alone(phase: Phase) -> None:
    assert [event for event in EVENTS if (handler := TABLE.get((phase, event))) and handler.targets] == [Start]


# --- random lives -----------------------------------------------------------------------------------------------------

LIVES, EVENTS_OF_A_LIFE = 4000, 40
QUIET = 0.7  # how often no user has a word
PATIENCE = (0.1, 0.6)  # how often nothing happens until something is due, in some lives and in others
Move = tuple[Phase, type[Event], Phase]


def any_policy(some: random.Random) -> Policy:
    return Policy(
        some.choice(list(RestartPolicy)),
        max_restarts=some.choice((None, 2)),
        backoff=Backoff(initial_s=some.choice((0.0, 1.0))),
        timeout_s=some.choice((None, 3.0)),
        stop_cmd=some.choice(((), ("quit",))),
        ready=some.choice((None, Ready(Tcp(80), timeout_s=2.0), Ready(Notify(), timeout_s=2.0))),
        health=some.choice(
            (
                None,
                Health(Tcp(80), retries=1, start_period_s=0, on_unhealthy=some.choice(list(OnUnhealthy))),
                Health(Notify(), watchdog_s=2.0, on_unhealthy=some.choice(list(OnUnhealthy))),
            )
        ),
        waits_s=some.choice(((), (1.0, 2.0))),
    )


def is_sensible(state: State, event: Event) -> bool:
    """May it happen in this state, not only in its phase? An answer needs its question, and `Due` a time."""
    if isinstance(event, Due):
        return state.due_at is not None
    if isinstance(event, Checked) and state.phase in {Phase.ACTIVATING, Phase.RUNNING}:
        check = state.policy.ready if state.phase is Phase.ACTIVATING else state.policy.health
        return check is not None and state.check_at is None and not isinstance(check.probe, Notify)
    return True


def any_event(some: random.Random, state: State, patience: float) -> Event:
    """Something that may happen now; users are rarely heard."""
    legal = [each for event in EVENTS if (state.phase, event) in TABLE for each in EXAMPLES[event]]
    sensible = [each for each in legal if is_sensible(state, each)]
    if Due() in sensible and some.random() < patience:
        return Due()
    by_themselves = [
        each for each in sensible if not isinstance(each, Stop | Kill | Restart | Adapt | Pause | Unpause | Frozen)
    ]
    return some.choice(by_themselves if by_themselves and some.random() < QUIET else sensible)


@cache
def all_moves() -> frozenset[Move]:
    """What machines do in random lives. On the way: what holds in every state."""
    found = set[Move]()
    for life in range(LIVES):
        some, now = random.Random(life), 0.0
        state, patience = State(any_policy(some)), some.choice(PATIENCE)
        for _ in range(EVENTS_OF_A_LIFE):
            event = any_event(some, state, patience)
            now = max(now, state.due_at or now) if isinstance(event, Due) else now + some.choice((0.0, 0.1))
            before, (state, _) = state, step(state, event, now, some.random())
            found.add((before.phase, type(event), state.phase))
            is_sound(state)
    return frozenset(found)


def is_sound(state: State) -> None:
    live = state.phase in LIVE
    assert (state.pid is not None) is (state.started_at is not None) is live
    assert state.phase not in {Phase.STOPPING, Phase.KILLING, Phase.BACKOFF} or state.deadline is not None
    assert state.phase not in FINAL or state.due_at is None
    assert (state.failure is not None) is (state.phase in {Phase.FAILED, Phase.STUCK})
    assert state.health is None or state.policy.health is not None
    if state.phase in {Phase.ACTIVATING, Phase.RUNNING, Phase.WAITING, Phase.BACKOFF}:
        assert state.wanted_up
    if state.phase in {Phase.STOPPING, Phase.KILLING, Phase.STUCK}:
        assert (state.limit_at, state.check_at, state.watchdog_at) == (None, None, None)
    assert state.paused_at is None or (
        state.phase in {Phase.ACTIVATING, Phase.RUNNING} and state.due_at == state.look_at
    )
    assert state.look_at is None or state.paused_at is not None


def test_random_lives_make_declared_moves_only() -> None:
    undeclared = {
        (before, event.__name__, after)
        for before, event, after in all_moves()
        if after is not before and after not in TABLE[before, event].targets
    }
    assert undeclared == set()


def test_every_declared_move_is_made_in_some_life() -> None:
    declared = {(phase, event, target) for (phase, event), handler in TABLE.items() for target in handler.targets}
    assert {(str(before), event.__name__, str(after)) for before, event, after in declared - all_moves()} == set()


@pytest.mark.parametrize("phase", sorted(ANYWHERE - FINAL))
@pytest.mark.parametrize("event", [Stop(), Kill()])
def test_stop_and_kill_leave_nothing_wanted_up(phase: Phase, event: Event) -> None:
    state = replace(State(Policy(), phase, wanted_up=True), started_at=0.0)
    after, _ = step(state, event, 10.0)
    assert not after.wanted_up


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "event"), LEGAL)
def test_the_printed_table_names_the_handler_that_is_used(phase: Phase, event: type[Event]) -> None:
    (row,) = [line for line in table().splitlines() if line.startswith(f"| {event.__name__} |")]
    assert [cell.strip() for cell in row.split("|")][2 + list(Phase).index(phase)] == TABLE[phase, event].name


def test_the_page_of_states_is_as_the_table_has_it() -> None:
    assert list(MEANINGS) == list(Phase)
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.support.states_page > docs/states.md"
