"""What one container does next: a pure state machine, and its whole behaviour in one table.

Theory of operation. There is what is *wanted* (up or down) and what *is* (the phase). `step(state, event, now)` gives
the next state and the actions that lead there; it has no clock, no I/O and no randomness (`chance` is passed in), and
it never waits: a state that is to be left, or looked at, at a certain time says so (`due_at`), and whoever drives the
machine delivers `Due` then. Times are part of the state, so a timer that is late, or no longer meant, can't exist.

`TABLE` maps every pair of phase and event to the function that handles it, to `ignored` (a late or repeated word,
harmless), or to nothing: such an event can't happen there, and raises IllegalEventError with the state as it was. Each
function names the phases it may lead to.

What the table does not cover: when dependencies are met (stack/tree.py), how a run is started, looked at or ended (the
runner), and what users are shown (the reports say what happened, not how to put it). A launch can't be called back: a
Stop or Restart while STARTING is remembered, and acted on when the launch is answered.

A paused run is in the phase that it was in, with its clock stopped: nothing of it is due, and when it goes on, what it
had left of its times it still has. What looks at it or waits for its word begins a fresh interval then. Whatever ends a
run lets it go on first. One that others have frozen is the same, but nobody tells when they let it go on: so it is
looked at again (`look_at`), and `Due` is that it goes on, `Frozen` that it does not.
"""

from supervisor.core.moves import Step
from supervisor.core.states import (
    EVENTS,
    Checked,
    DependenciesMet,
    DependencyFailed,
    Event,
    Frozen,
    Heard,
    Pause,
    Phase,
    Quiesced,
    State,
    Unpause,
)
from supervisor.core.transitions import (
    Handler,
    activate_by_policy,
    ask_again,
    await_dependencies,
    back_off_by_policy,
    change_policy,
    ended,
    give_up_waiting,
    ignored,
    judge_health,
    judge_readiness,
    kill,
    kill_after_grace,
    launch,
    listen_for_life,
    listen_for_readiness,
    listen_while_stopping,
    pause,
    refuse,
    remember_restart,
    remember_stop,
    restart,
    run_by_policy,
    run_or_stop,
    run_over,
    send_stop_signal,
    stand_still,
    start_again,
    start_failed,
    stay_down,
    stay_stopped,
    stop,
    take_back_stop,
    time_out_or_check,
    try_again,
    unpause,
    unready_or_check,
    wait_again,
    wait_by_policy,
)


class IllegalEventError(RuntimeError):
    """An event that can't happen in this phase: a bug in whoever drives the machine."""


def step(state: State, event: Event, now: float, chance: float = 0.5) -> Step:
    """The next state, and what to do. `chance`, uniform in [0, 1), decides the jitter of a backoff."""
    handler = TABLE.get((state.phase, type(event)))
    if handler is None:
        raise IllegalEventError(f"{type(event).__name__} can't happen while {state.phase}")
    return handler.handle(state, event, now, chance)


# Answers that may come when nobody asks any more, and wishes that make sense where a run goes its way.
_LATE = (DependenciesMet, DependencyFailed, Checked, Heard, Quiesced, Pause, Unpause, Frozen)


def _row(phase: Phase, **handlers: Handler) -> dict[tuple[Phase, type[Event]], Handler]:
    named = {event.__name__: event for event in EVENTS}
    late = {(phase, event): ignored for event in _LATE}
    return late | {(phase, named[name]): handler for name, handler in handlers.items()}


TABLE: dict[tuple[Phase, type[Event]], Handler] = (
    _row(Phase.CREATED, Start=await_dependencies, Restart=ignored, Stop=stay_down, Kill=stay_down, Adapt=change_policy)
    | _row(
        Phase.WAITING,
        Start=ignored,
        DependenciesMet=launch,
        DependencyFailed=refuse,
        Restart=ignored,
        Stop=stay_down,
        Kill=stay_down,
        Due=ask_again,
        Adapt=wait_by_policy,
    )
    | _row(
        Phase.STARTING,
        Start=take_back_stop,
        Deferred=wait_again,
        Started=run_or_stop,
        StartFailed=start_failed,
        Restart=remember_restart,
        Stop=remember_stop,
        Kill=remember_stop,
        Adapt=change_policy,
    )
    | _row(
        Phase.ACTIVATING,
        Start=ignored,
        Checked=judge_readiness,
        Heard=listen_for_readiness,
        Ended=ended,
        Restart=restart,
        Stop=stop,
        Kill=kill,
        Pause=pause,
        Unpause=unpause,
        Frozen=stand_still,
        Due=unready_or_check,
        Adapt=activate_by_policy,
    )
    | _row(
        Phase.RUNNING,
        Start=ignored,
        Checked=judge_health,
        Heard=listen_for_life,
        Ended=ended,
        Restart=restart,
        Stop=stop,
        Kill=kill,
        Pause=pause,
        Unpause=unpause,
        Frozen=stand_still,
        Due=time_out_or_check,
        Adapt=run_by_policy,
    )
    | _row(
        Phase.STOPPING,
        Start=start_again,
        Heard=listen_while_stopping,
        Quiesced=send_stop_signal,
        Ended=run_over,
        Restart=ignored,
        Stop=stay_stopped,
        Kill=kill,
        Due=kill_after_grace,
        Adapt=change_policy,
    )
    | _row(
        Phase.KILLING,
        Start=start_again,
        Ended=run_over,
        Restart=ignored,
        Stop=stay_stopped,
        Kill=stay_stopped,
        Due=give_up_waiting,
        Adapt=change_policy,
    )
    | _row(
        Phase.STUCK,
        Start=start_again,
        Ended=run_over,
        Restart=ignored,
        Stop=stay_stopped,
        Kill=stay_stopped,
        Adapt=change_policy,
    )
    | _row(
        Phase.BACKOFF,
        Start=await_dependencies,
        Restart=ignored,
        Stop=stay_down,
        Kill=stay_down,
        Due=try_again,
        Adapt=back_off_by_policy,
    )
    | _row(Phase.EXITED, Start=await_dependencies, Restart=ignored, Stop=ignored, Kill=ignored, Adapt=change_policy)
    | _row(Phase.FAILED, Start=await_dependencies, Restart=ignored, Stop=ignored, Kill=ignored, Adapt=change_policy)
)


def table() -> str:
    """The table as Markdown: a row per event, a column per phase; empty where the event can't happen."""
    rows = [f"| event | {' | '.join(Phase)} |", "| --- " * (len(Phase) + 1) + "|"]
    for event in EVENTS:
        cells = [handler.name if (handler := TABLE.get((phase, event))) else "" for phase in Phase]
        rows.append(f"| {event.__name__} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
