"""What one container does next: a pure state machine, and its whole behaviour in one table.

Theory of operation. There is what is *wanted* (up or down) and what *is* (the phase). `step(state, event, now)` gives
the next state and the actions that lead there; it has no clock, no I/O and no randomness (`chance` is passed in), and
it never waits: a state that is to be left at a certain time has a `deadline`, and whoever drives the machine delivers
`Due` then. Deadlines are part of the state, so a timer that is late, or no longer meant, can't exist.

`TABLE` maps every pair of phase and event to the function that handles it, to IGNORED (a late or repeated word,
harmless), or to nothing: such an event can't happen there, and raises IllegalEventError with the state as it was.

What the table does not cover: when dependencies are met (tree.py), how a run is started or ended (the runner), and what
users are shown (the reports say what happened, not how to put it). A launch can't be called back: a Stop while STARTING
is remembered, and acted on when the launch is answered.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from runtime.status import Exited, Signaled, Status
from supervisor.policy import Policy, delay_s, is_stable, restarts


class Phase(StrEnum):
    """What is. The last two are final."""

    CREATED = "created"
    WAITING = "waiting"  # for its dependencies
    STARTING = "starting"  # a launch is under way
    RUNNING = "running"
    STOPPING = "stopping"  # the stop signal was sent, the grace period runs
    KILLING = "killing"
    BACKOFF = "backoff"
    EXITED = "exited"  # completed, or stopped as wanted
    FAILED = "failed"


FINAL = frozenset({Phase.EXITED, Phase.FAILED})
ALIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.KILLING})  # there is, or may be, a run


@dataclass(frozen=True, slots=True)
class State:
    """Everything the machine knows of its container."""

    policy: Policy
    phase: Phase = Phase.CREATED
    wanted_up: bool = False
    forced: bool = False  # no grace period
    retries: int = 0  # consecutive, since the last stable run
    restarts: int = 0  # in all
    pid: int | None = None
    started_at: float | None = None
    deadline: float | None = None
    status: Status | None = None  # of the last run
    failure: str | None = None  # why FAILED, in words
    told: str | None = None  # the start error last reported: said once, however often it is tried again


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """It is wanted up."""


@dataclass(frozen=True, slots=True)
class DependenciesMet:
    """It may start."""


@dataclass(frozen=True, slots=True)
class DependencyFailed:
    """It never may: `chain` names who failed, nearest first, and why."""

    chain: str


@dataclass(frozen=True, slots=True)
class Started:
    """Its command was executed."""

    pid: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """It was not, and nothing of the run is left."""

    error: str
    exit_status: int = 125


@dataclass(frozen=True, slots=True)
class Ended:
    """The run was reaped, and nothing of it is left."""

    status: Status


@dataclass(frozen=True, slots=True)
class Stop:
    """It is wanted down, with its grace period."""


@dataclass(frozen=True, slots=True)
class Kill:
    """It is wanted down at once."""


@dataclass(frozen=True, slots=True)
class Due:
    """The deadline has come."""


Event = Start | DependenciesMet | DependencyFailed | Started | StartFailed | Ended | Stop | Kill | Due
EVENTS: tuple[type[Event], ...] = (
    Start,
    DependenciesMet,
    DependencyFailed,
    Started,
    StartFailed,
    Ended,
    Stop,
    Kill,
    Due,
)

# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a run; answer with Started or StartFailed."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the run's first process."""

    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the user. `kind` is the event's name, `fields` belong to it; units are last in their names."""

    kind: str
    fields: dict[str, object] = field(default_factory=dict)


Action = Launch | Signal | Report
Actions = tuple[Action, ...]
Handler = Callable[[State, Event, float, float], tuple[State, Actions]]

SIGKILL = 9


class IllegalEventError(RuntimeError):
    """An event that can't happen in this phase: a bug in whoever drives the machine."""


def step(state: State, event: Event, now: float, chance: float = 0.5) -> tuple[State, Actions]:
    """The next state, and what to do. `chance`, uniform in [0, 1), decides the jitter of a backoff."""
    handler = TABLE.get((state.phase, type(event)))
    if handler is None:
        raise IllegalEventError(f"{type(event).__name__} can't happen while {state.phase}")
    return handler(state, event, now, chance)


# --- handlers ---------------------------------------------------------------------------------------------------------


def ignored(state: State, _event: Event, _now: float, _chance: float) -> tuple[State, Actions]:
    """A late or repeated word."""
    return state, ()


def await_dependencies(state: State, _event: Event, _now: float, _chance: float) -> tuple[State, Actions]:
    """Wanted up: wait until dependencies are met."""
    fresh = State(state.policy, Phase.WAITING, wanted_up=True, restarts=state.restarts)
    return fresh, ()


def launch(state: State, _event: Event, _now: float, _chance: float) -> tuple[State, Actions]:
    """Start a run."""
    return replace(state, phase=Phase.STARTING, deadline=None), (Report("starting"), Launch())


def refuse(state: State, event: Event, _now: float, _chance: float) -> tuple[State, Actions]:
    """A dependency can never be met."""
    assert isinstance(event, DependencyFailed)
    failed = replace(state, phase=Phase.FAILED, failure=f"not started: {event.chain}")
    return failed, (Report("dependency_failed", {"chain": event.chain}),)


def stay_down(state: State, _event: Event, _now: float, _chance: float) -> tuple[State, Actions]:
    """Wanted down where nothing runs."""
    return _stopped(state)


def remember_stop(state: State, event: Event, _now: float, _chance: float) -> tuple[State, Actions]:
    """Wanted down while a launch is under way: acted on when it is answered."""
    return replace(state, wanted_up=False, forced=state.forced or isinstance(event, Kill)), ()


def run_or_stop(state: State, event: Event, now: float, _chance: float) -> tuple[State, Actions]:
    """The command was executed; if it is wanted down by now, stop it."""
    assert isinstance(event, Started)
    running = replace(state, phase=Phase.RUNNING, pid=event.pid, started_at=now, told=None)
    told = Report("started", {"pid": event.pid})
    if state.wanted_up:
        return running, (told,)
    after, actions = (_kill if state.forced else _stop)(running, now)
    return after, (told, *actions)


def stop(state: State, _event: Event, now: float, _chance: float) -> tuple[State, Actions]:
    """Send the stop signal, give it its grace period."""
    return _stop(state, now)


def kill(state: State, _event: Event, now: float, _chance: float) -> tuple[State, Actions]:
    """SIGKILL, as asked for."""
    return _kill(state, now)


def kill_after_grace(state: State, _event: Event, now: float, _chance: float) -> tuple[State, Actions]:
    """SIGKILL, as the grace period is over."""
    return _kill(state, now, grace_s=state.policy.stop_grace_s)


def start_failed(state: State, event: Event, now: float, chance: float) -> tuple[State, Actions]:
    """No run came of the launch."""
    assert isinstance(event, StartFailed)
    if not state.wanted_up:
        return _stopped(state)
    report = Report("start_failed", {"error": event.error, "exit_status": event.exit_status})
    failed = replace(state, status=Exited(event.exit_status), told=event.error)
    after, actions = _again_or_end(failed, event.error, now, chance)
    return after, actions if state.told == event.error else (report, *actions)


def ended(state: State, event: Event, now: float, chance: float) -> tuple[State, Actions]:
    """The run ended by itself."""
    assert isinstance(event, Ended)
    ran_s = _ran_s(state, now)
    retries = 0 if is_stable(state.policy.backoff, ran_s) else state.retries
    rested = replace(state, pid=None, started_at=None, status=event.status, retries=retries)
    after, actions = _again_or_end(rested, describe(event.status), now, chance)
    return after, (_exited(event.status, ran_s), *actions)


def stopped(state: State, event: Event, now: float, _chance: float) -> tuple[State, Actions]:
    """The run ended as wanted."""
    assert isinstance(event, Ended)
    after, actions = _stopped(replace(state, pid=None, status=event.status))
    return after, (_exited(event.status, _ran_s(state, now)), *actions)


# --- their parts ------------------------------------------------------------------------------------------------------


def _stop(state: State, now: float) -> tuple[State, Actions]:
    number = state.policy.stop_signal
    after = replace(state, phase=Phase.STOPPING, wanted_up=False, deadline=now + state.policy.stop_grace_s)
    return after, (Report("stopping", {"signal": number}), Signal(number))


def _kill(state: State, _now: float, grace_s: float | None = None) -> tuple[State, Actions]:
    after = replace(state, phase=Phase.KILLING, wanted_up=False, forced=True, deadline=None)
    fields: dict[str, object] = {} if grace_s is None else {"grace_s": grace_s}
    return after, (Report("killing", fields), Signal(SIGKILL))


def _stopped(state: State) -> tuple[State, Actions]:
    after = replace(state, phase=Phase.EXITED, wanted_up=False, deadline=None, started_at=None)
    return after, (Report("stopped"),)


def _again_or_end(state: State, reason: str, now: float, chance: float) -> tuple[State, Actions]:
    """After a run that nobody asked to end: as the restart policy says."""
    failed = not succeeded(state.status)
    if restarts(state.policy, failed=failed, retries=state.retries):
        return _again(state, now, chance)
    if not failed:
        return replace(state, phase=Phase.EXITED), ()
    after = replace(state, phase=Phase.FAILED, failure=reason)
    fields: dict[str, object] = {"reason": reason}
    if state.retries:
        fields["retries"] = state.retries
    return after, (Report("gave_up", fields),)


def _again(state: State, now: float, chance: float) -> tuple[State, Actions]:
    retry = state.retries + 1
    delay = delay_s(state.policy.backoff, retry, chance)
    counted = replace(state, retries=retry, restarts=state.restarts + 1)
    told = Report("restarting", {"delay_s": delay, "retry": retry})
    if not delay:
        return replace(counted, phase=Phase.STARTING), (told, Report("starting"), Launch())
    return replace(counted, phase=Phase.BACKOFF, deadline=now + delay), (told,)


def _ran_s(state: State, now: float) -> float:
    assert state.started_at is not None  # Ended comes after Started
    return now - state.started_at


def _exited(status: Status, ran_s: float) -> Report:
    fields: dict[str, object] = {"exit_status": status.exit_status, "ran_s": round(ran_s, 3)}
    if isinstance(status, Signaled):
        fields["signal"] = status.signal
    return Report("exited", fields)


def succeeded(status: Status | None) -> bool:
    """Exit status 0."""
    return isinstance(status, Exited) and status.code == 0


def describe(status: Status) -> str:
    """An end in words."""
    if isinstance(status, Signaled):
        return f"killed by signal {status.signal}" + (", core dumped" if status.core_dumped else "")
    return f"exited with status {status.code}"


# --- the table --------------------------------------------------------------------------------------------------------

TABLE: dict[tuple[Phase, type[Event]], Handler] = {
    (Phase.CREATED, Start): await_dependencies,
    (Phase.CREATED, DependenciesMet): ignored,
    (Phase.CREATED, DependencyFailed): ignored,
    (Phase.CREATED, Stop): stay_down,
    (Phase.CREATED, Kill): stay_down,
    (Phase.WAITING, Start): ignored,
    (Phase.WAITING, DependenciesMet): launch,
    (Phase.WAITING, DependencyFailed): refuse,
    (Phase.WAITING, Stop): stay_down,
    (Phase.WAITING, Kill): stay_down,
    (Phase.STARTING, Start): ignored,
    (Phase.STARTING, DependenciesMet): ignored,
    (Phase.STARTING, DependencyFailed): ignored,
    (Phase.STARTING, Started): run_or_stop,
    (Phase.STARTING, StartFailed): start_failed,
    (Phase.STARTING, Stop): remember_stop,
    (Phase.STARTING, Kill): remember_stop,
    (Phase.RUNNING, Start): ignored,
    (Phase.RUNNING, DependenciesMet): ignored,
    (Phase.RUNNING, DependencyFailed): ignored,
    (Phase.RUNNING, Ended): ended,
    (Phase.RUNNING, Stop): stop,
    (Phase.RUNNING, Kill): kill,
    (Phase.STOPPING, Start): ignored,
    (Phase.STOPPING, DependenciesMet): ignored,
    (Phase.STOPPING, DependencyFailed): ignored,
    (Phase.STOPPING, Ended): stopped,
    (Phase.STOPPING, Stop): ignored,
    (Phase.STOPPING, Kill): kill,
    (Phase.STOPPING, Due): kill_after_grace,
    (Phase.KILLING, Start): ignored,
    (Phase.KILLING, DependenciesMet): ignored,
    (Phase.KILLING, DependencyFailed): ignored,
    (Phase.KILLING, Ended): stopped,
    (Phase.KILLING, Stop): ignored,
    (Phase.KILLING, Kill): ignored,
    (Phase.BACKOFF, Start): ignored,
    (Phase.BACKOFF, DependenciesMet): ignored,
    (Phase.BACKOFF, DependencyFailed): ignored,
    (Phase.BACKOFF, Stop): stay_down,
    (Phase.BACKOFF, Kill): stay_down,
    (Phase.BACKOFF, Due): launch,
    (Phase.EXITED, Start): await_dependencies,
    (Phase.EXITED, DependenciesMet): ignored,
    (Phase.EXITED, DependencyFailed): ignored,
    (Phase.EXITED, Stop): ignored,
    (Phase.EXITED, Kill): ignored,
    (Phase.FAILED, Start): await_dependencies,
    (Phase.FAILED, DependenciesMet): ignored,
    (Phase.FAILED, DependencyFailed): ignored,
    (Phase.FAILED, Stop): ignored,
    (Phase.FAILED, Kill): ignored,
}


def table() -> str:
    """The table as Markdown: a row per phase, a column per event; empty where the event can't happen."""
    heads = [event.__name__ for event in EVENTS]
    rows = [f"| phase | {' | '.join(heads)} |", "| --- " * (len(heads) + 1) + "|"]
    for phase in Phase:
        cells = [handler.__name__ if (handler := TABLE.get((phase, event))) else "" for event in EVENTS]
        rows.append(f"| {phase} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
