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
run lets it go on first.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import HEARD, READY_FIRST_S, READY_MOST_S, READY_TRY_S, Health, Notify, OnUnhealthy
from supervisor.core.policy import Policy, delay_s, is_stable, may_restart, restarts, within_limits
from supervisor.core.states import (
    EVENTS,
    Actions,
    Adapt,
    Ask,
    Check,
    Checked,
    DependenciesMet,
    DependencyFailed,
    Ended,
    Ending,
    Event,
    Freeze,
    HealthStatus,
    Heard,
    Kill,
    Launch,
    Pause,
    Phase,
    Quiesce,
    Quiesced,
    Report,
    Restart,
    Signal,
    Started,
    StartFailed,
    State,
    Stop,
    Thaw,
    Unpause,
)

SIGKILL = 9
STUCK_S = 10.0  # from SIGKILL; after that nobody waits for the run any more

Step = tuple[State, Actions]
Handle = Callable[[State, Event, float, float], Step]


class IllegalEventError(RuntimeError):
    """An event that can't happen in this phase: a bug in whoever drives the machine."""


@dataclass(frozen=True, slots=True)
class Handler:
    """What is done about an event, and the phases that this may lead to; none: the phase stays what it was."""

    handle: Handle
    targets: tuple[Phase, ...]

    @property
    def name(self) -> str:
        return self.handle.__name__


def to(*targets: Phase) -> Callable[[Handle], Handler]:
    """A handler that leads to one of `targets`."""
    return lambda handle: Handler(handle, targets)


def step(state: State, event: Event, now: float, chance: float = 0.5) -> Step:
    """The next state, and what to do. `chance`, uniform in [0, 1), decides the jitter of a backoff."""
    handler = TABLE.get((state.phase, type(event)))
    if handler is None:
        raise IllegalEventError(f"{type(event).__name__} can't happen while {state.phase}")
    return handler.handle(state, event, now, chance)


# --- where nothing runs -----------------------------------------------------------------------------------------------


@to()
def ignored(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """A late or repeated word."""
    return state, ()


@to(Phase.WAITING)
def await_dependencies(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Wanted up: wait until dependencies are met."""
    return _wait(State(state.policy, wanted_up=True, restarts=state.restarts), now)


@to(Phase.WAITING)
def try_again(state: State, _event: Event, now: float, _chance: float) -> Step:
    """The backoff is over: what it depends on must be there, as at the first start."""
    return _wait(state, now)


@to(Phase.STARTING)
def launch(state: State, event: Event, _now: float, _chance: float) -> Step:
    """Start a run."""
    assert isinstance(event, DependenciesMet)
    skipped = tuple(Report("dependency_skipped", {"reason": reason}) for reason in event.skipped)
    return replace(state, phase=Phase.STARTING, deadline=None), (*skipped, Report("starting"), Launch())


@to(Phase.FAILED)
def refuse(state: State, event: Event, _now: float, _chance: float) -> Step:
    """A dependency can never be met."""
    assert isinstance(event, DependencyFailed)
    failure = f"not started: {event.chain}"
    failed = replace(state, phase=Phase.FAILED, deadline=None, failure=failure, chain=event.chain)
    return failed, (Report("dependency_failed", {"chain": event.chain}),)


@to()
def ask_again(state: State, _event: Event, now: float, _chance: float) -> Step:
    """A wait for dependencies may have been long enough."""
    return replace(state, deadline=_next_wait(state, now)), (Ask(),)


@to(Phase.EXITED)
def stay_down(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """Wanted down where nothing runs."""
    return _stopped(state)


@to()
def wait_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it waits for dependencies: waits may be shorter now, or longer."""
    waiting = _by_policy(state, event)
    return replace(waiting, deadline=_next_wait(waiting, now)), ()


@to()
def back_off_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it waits to be tried again: no longer than that allows."""
    assert state.deadline is not None
    after = _by_policy(state, event)
    return replace(after, deadline=min(state.deadline, now + after.policy.backoff.max_s)), ()


@to()
def change_policy(state: State, event: Event, _now: float, _chance: float) -> Step:
    """Another policy, where nothing of it is under way."""
    return _by_policy(state, event), ()


# --- while a launch is under way --------------------------------------------------------------------------------------


@to()
def remember_stop(state: State, event: Event, _now: float, _chance: float) -> Step:
    """Wanted down while a launch is under way: acted on when it is answered."""
    return replace(state, wanted_up=False, forced=state.forced or isinstance(event, Kill)), ()


@to()
def remember_restart(state: State, event: Event, _now: float, _chance: float) -> Step:
    """To be started anew while a launch is under way: acted on when it is answered."""
    assert isinstance(event, Restart)
    return replace(state, ending=Ending.AGAIN, reason=event.reason), ()


@to()
def take_back_stop(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """Wanted up after all."""
    return replace(state, wanted_up=True, forced=False), ()


@to(Phase.ACTIVATING, Phase.RUNNING, Phase.STOPPING, Phase.KILLING)
def run_or_stop(state: State, event: Event, now: float, _chance: float) -> Step:
    """The command was executed; if it is not wanted by now, stop it."""
    assert isinstance(event, Started)
    policy = state.policy
    limit_at = None if policy.timeout_s is None else now + policy.timeout_s
    running = replace(state, pid=event.pid, started_at=now, limit_at=limit_at, told=None)
    told = Report("started", {"pid": event.pid})
    if not state.wanted_up:
        unwanted = replace(running, ending=Ending.DOWN)
        after, actions = _kill(unwanted, now) if state.forced else _end(unwanted, Ending.DOWN, "", now)
    elif state.ending is Ending.AGAIN:
        after, actions = _end(running, Ending.AGAIN, state.reason, now)
    else:
        after, actions = _activate(running, now)
    return after, (told, *actions)


@to(Phase.WAITING, Phase.BACKOFF, Phase.EXITED, Phase.FAILED)
def start_failed(state: State, event: Event, now: float, chance: float) -> Step:
    """No run came of the launch."""
    assert isinstance(event, StartFailed)
    report = () if event.error == state.told else (Report("start_failed", _start_error(event)),)
    if not state.wanted_up:
        after, actions = _stopped(state)
        return after, (*report, *actions)
    failed = replace(state, status=Exited(event.exit_status), told=event.error, ending=Ending.DOWN)
    if restarts(state.policy, failed=True, retries=state.retries):
        after, actions = _again(failed, event.error, now, chance)
    else:
        after, actions = _give_up(failed, event.error)
    return after, (*report, *actions)


@to(Phase.WAITING, Phase.EXITED)
def wait_again(state: State, _event: Event, now: float, _chance: float) -> Step:
    """A dependency went while it waited for its turn, or a stop called its turn off."""
    if not state.wanted_up:
        return _stopped(state)
    return replace(state, phase=Phase.WAITING, deadline=_next_wait(state, now), ending=Ending.DOWN), ()


# --- while it runs ----------------------------------------------------------------------------------------------------


@to(Phase.RUNNING)
def judge_readiness(state: State, event: Event, now: float, _chance: float) -> Step:
    """A try of the ready check has ended: it serves, or is looked at again, after twice the pause each time."""
    assert isinstance(event, Checked)
    if event.passed:
        return _serve(replace(state, finding=event.detail), now)
    pause_s = min(state.pause_s * 2, READY_MOST_S)
    return replace(state, check_at=now + state.pause_s, pause_s=pause_s, finding=event.detail), ()


@to(Phase.RUNNING)
def listen_for_readiness(state: State, event: Event, now: float, _chance: float) -> Step:
    """What it says before it is ready: that it is, that it needs more time, or how it is doing."""
    assert isinstance(event, Heard)
    assert state.policy.ready is not None
    notice = event.notice
    after, actions = _note(state, event)
    if notice.ready and isinstance(state.policy.ready.probe, HEARD):
        after, more = _serve(after, now)
        return after, (*actions, *more)
    return _extend(after, notice.extend_s, now), actions


@to(Phase.STOPPING)
def unready_or_check(state: State, _event: Event, now: float, _chance: float) -> Step:
    """It took too long to be ready, or to run; or it is time for another try."""
    ready = state.policy.ready
    assert ready is not None
    if _is_due(state.deadline, now):
        reason = f"not ready within {now - _began(state):.3g} s" + (f" ({state.finding})" if state.finding else "")
        after, actions = _end(state, Ending.JUDGED, reason, now)
        return after, (Report("not_ready", {"timeout_s": ready.timeout_s, "finding": state.finding}), *actions)
    if _is_due(state.limit_at, now):
        return _time_out(state, now)
    return replace(state, check_at=None), (Check(ready.probe, min(READY_TRY_S, ready.timeout_s)),)


@to(Phase.STOPPING)
def judge_health(state: State, event: Event, now: float, _chance: float) -> Step:
    """A health check has ended."""
    assert isinstance(event, Checked)
    health = state.policy.health
    if health is None:  # it was, when the check began
        return state, ()
    seen = replace(state, finding=event.detail)
    if event.passed:
        return _healthy(replace(seen, check_at=now + health.interval_s))
    fresh = state.health is HealthStatus.STARTING
    pause_s = health.start_interval_s if fresh else health.interval_s
    assert state.ready_at is not None
    if fresh and now - state.ready_at < health.start_period_s:
        return replace(seen, check_at=now + pause_s), ()
    failing = replace(seen, failing=state.failing + 1, check_at=now + pause_s)
    if failing.failing < health.retries or state.health is HealthStatus.UNHEALTHY:
        return failing, ()
    return _unhealthy(failing, event.detail or "its health check failed", now)


@to(Phase.STOPPING)
def listen_for_life(state: State, event: Event, now: float, _chance: float) -> Step:
    """What it says while it serves."""
    assert isinstance(event, Heard)
    notice = event.notice
    after, actions = _note(state, event)
    after = _extend(after, notice.extend_s, now)
    if notice.alive is None or state.watchdog_at is None:
        return after, actions
    if notice.alive:
        after, more = _healthy(replace(after, watchdog_at=_watchdog_at(state, now)))
    else:
        after, more = _unhealthy(after, "it reported a failure (WATCHDOG=trigger)", now)
    return after, (*actions, *more)


@to(Phase.STOPPING)
def time_out_or_check(state: State, _event: Event, now: float, _chance: float) -> Step:
    """It ran too long, was silent too long, or it is time for a health check."""
    if _is_due(state.limit_at, now):
        return _time_out(state, now)
    health = _health(state)
    if _is_due(state.watchdog_at, now):
        silent = replace(state, watchdog_at=_watchdog_at(state, now))
        return _unhealthy(silent, f"silent for {health.watchdog_s:g} s (no WATCHDOG=1)", now)
    return replace(state, check_at=None), (Check(health.probe, health.timeout_s),)


@to(Phase.RUNNING, Phase.STOPPING)
def activate_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it is not ready: if its ready check is another, that one is tried from now on. One that
    has to be heard of is listened for from the start of a run: so it starts anew.
    """
    before, after = state.policy.ready, _limited(_by_policy(state, event))
    ready = after.policy.ready
    if ready == before:
        return after, ()
    if ready is None:
        return _serve(after, now)
    if isinstance(ready.probe, HEARD) and (before is None or ready.probe != before.probe):
        return _end(after, Ending.AGAIN, "its ready check has changed", now)
    after, actions = _activate(after, now)
    return replace(after, deadline=_began(state) + ready.timeout_s), actions


@to()
def pause(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Freeze it, and its times with it."""
    if state.paused_at is not None:
        return state, ()
    return replace(state, paused_at=now), (Freeze(), Report("paused"))


@to()
def unpause(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Let it go on, with what it had left of its times; it is looked at again after a whole interval."""
    if state.paused_at is None:
        return state, ()
    return _look_afresh(_going_on(state, now), now), (Thaw(), Report("unpaused"))


@to()
def run_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it serves: another health check begins anew, the same one keeps what it has found."""
    before, after = state.policy.health, _limited(_by_policy(state, event))
    health = after.policy.health
    if health == before:
        return after, ()
    if health is None:
        return replace(after, health=None, failing=0, check_at=None, watchdog_at=None), ()
    if before is None or health.probe != before.probe:
        return _look_after(replace(after, failing=0, watchdog_at=None), now), ()
    if isinstance(health.probe, Notify):
        return replace(after, watchdog_at=_watchdog_at(after, now)), ()
    check_at = None if state.check_at is None else min(state.check_at, now + health.interval_s)
    return replace(after, check_at=check_at), ()


@to(Phase.STOPPING)
def stop(state: State, event: Event, now: float, _chance: float) -> Step:
    """Ask it to stop, give it its grace period."""
    assert isinstance(event, Stop)
    return _end(replace(state, wanted_up=False), Ending.DOWN, "", now, event.grace_s)


@to(Phase.STOPPING)
def restart(state: State, event: Event, now: float, _chance: float) -> Step:
    """Stop it, to start it anew."""
    assert isinstance(event, Restart)
    return _end(state, Ending.AGAIN, event.reason, now, event.grace_s)


@to(Phase.KILLING)
def kill(state: State, _event: Event, now: float, _chance: float) -> Step:
    """SIGKILL, as asked for."""
    return _kill(replace(state, wanted_up=False, ending=Ending.DOWN), now)


@to(Phase.WAITING, Phase.BACKOFF, Phase.EXITED, Phase.FAILED)
def ended(state: State, event: Event, now: float, chance: float) -> Step:
    """The run ended by itself."""
    assert isinstance(event, Ended)
    rested = _rested(state, event, now)
    after, actions = _again_or_end(rested, describe(event.status), now, chance, oom=event.oom)
    return after, (_exited(event, _ran_s(state, now)), *actions)


# --- while it is being ended ------------------------------------------------------------------------------------------


@to()
def send_stop_signal(state: State, event: Event, _now: float, _chance: float) -> Step:
    """The stop command is over."""
    assert isinstance(event, Quiesced)
    error = (Report("stop_command_failed", {"error": event.error}),) if event.error else ()
    return replace(state, signalled=True), (*error, Signal(state.policy.stop_signal))


@to()
def listen_while_stopping(state: State, event: Event, now: float, _chance: float) -> Step:
    """How it is doing, and that it needs more time."""
    assert isinstance(event, Heard)
    after, actions = _note(state, event)
    return _extend(after, event.notice.extend_s, now), actions


@to()
def stay_stopped(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """It is being ended anyway: now it is to stay down."""
    return replace(state, wanted_up=False, ending=Ending.DOWN), ()


@to()
def start_again(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """Wanted up: as soon as the run has ended."""
    ending = Ending.AGAIN if state.ending is Ending.DOWN else state.ending
    return replace(state, wanted_up=True, forced=False, ending=ending, reason=state.reason or "wanted up"), ()


@to(Phase.KILLING)
def kill_after_grace(state: State, _event: Event, now: float, _chance: float) -> Step:
    """SIGKILL, as the grace period is over."""
    return _kill(state, now, grace_s=state.grace_s)


@to(Phase.STUCK)
def give_up_waiting(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """SIGKILL has no effect: the kernel holds it. What depends on its end goes on without."""
    failure = "killed, but the kernel does not let go of it"
    return replace(state, phase=Phase.STUCK, deadline=None, failure=failure), (Report("stuck", {"after_s": STUCK_S}),)


@to(Phase.EXITED, Phase.WAITING, Phase.BACKOFF, Phase.FAILED)
def run_over(state: State, event: Event, now: float, chance: float) -> Step:
    """The run has ended, as we wanted: what follows was decided when that began."""
    assert isinstance(event, Ended)
    rested = replace(_rested(state, event, now), ending=Ending.DOWN, forced=False, failure=None)
    told = _exited(event, _ran_s(state, now))
    match state.ending:
        case Ending.DOWN:
            after, actions = _stopped(rested)
        case Ending.AGAIN:
            after, actions = _wait(replace(rested, restarts=state.restarts + 1), now)
            actions = (Report("restarting", {"reason": state.reason}), *actions)
        case Ending.JUDGED:
            after, actions = _again_or_end(rested, state.reason, now, chance, judged=True, oom=event.oom)
        case Ending.RETRIED:
            after, actions = _again(rested, state.reason, now, chance)
        case Ending.GIVEN_UP:
            after, actions = _give_up(rested, state.reason)
    return after, (told, *actions)


# --- parts: waiting, starting, serving --------------------------------------------------------------------------------


def _wait(state: State, now: float) -> Step:
    waiting = replace(state, phase=Phase.WAITING, since=now)
    return replace(waiting, deadline=_next_wait(waiting, now)), ()


def _next_wait(state: State, now: float) -> float | None:
    return next((at for wait_s in state.policy.waits_s if (at := state.since + wait_s) > now), None)


def _activate(state: State, now: float) -> Step:
    ready = state.policy.ready
    if ready is None:
        return _serve(state, now)
    heard = isinstance(ready.probe, HEARD)
    activating = replace(
        state,
        phase=Phase.ACTIVATING,
        deadline=now + ready.timeout_s,
        check_at=None if heard else now + READY_FIRST_S,
        pause_s=READY_FIRST_S,
        finding="",
    )
    return activating, ()


def _serve(state: State, now: float) -> Step:
    """It is ready, or no ready check says otherwise: from here on its health counts."""
    serving = replace(state, phase=Phase.RUNNING, deadline=None, check_at=None, ready_at=now, failing=0)
    told = () if state.policy.ready is None else (Report("ready", {"after_s": round(now - _began(state), 3)}),)
    return _look_after(serving, now), told


def _look_after(state: State, now: float) -> State:
    """From now on its health is looked at, if it has a check for that."""
    health = state.policy.health
    if health is None:
        return state
    starting = replace(state, health=HealthStatus.STARTING)
    if isinstance(health.probe, Notify):
        return replace(starting, watchdog_at=_watchdog_at(state, now))
    return replace(starting, check_at=now + health.start_interval_s)


def _going_on(state: State, now: float) -> State:
    """Not paused any more, if it was: its clock has stood still meanwhile."""
    if state.paused_at is None:
        return state
    paused_s = now - state.paused_at
    return replace(
        state,
        paused_at=None,
        started_at=_later(state.started_at, paused_s),
        ready_at=_later(state.ready_at, paused_s),
        deadline=_later(state.deadline, paused_s),
        limit_at=_later(state.limit_at, paused_s),
    )


def _later(at: float | None, by_s: float) -> float | None:
    return None if at is None else at + by_s


def _look_afresh(state: State, now: float) -> State:
    """Whatever was under way, or nearly due, begins anew."""
    if state.phase is Phase.ACTIVATING:
        assert state.policy.ready is not None
        heard = isinstance(state.policy.ready.probe, HEARD)
        return replace(state, check_at=None if heard else now + READY_FIRST_S, pause_s=READY_FIRST_S)
    health = state.policy.health
    if health is None:
        return state
    if isinstance(health.probe, Notify):
        return replace(state, watchdog_at=_watchdog_at(state, now))
    fresh = state.health is HealthStatus.STARTING
    return replace(state, check_at=now + (health.start_interval_s if fresh else health.interval_s))


def _by_policy(state: State, event: Event) -> State:
    assert isinstance(event, Adapt)
    health = None if event.policy.health is None else state.health
    return replace(state, policy=event.policy, health=health)


def _limited(state: State) -> State:
    """With the time that its policy gives a run."""
    timeout_s = state.policy.timeout_s
    return replace(state, limit_at=None if timeout_s is None else _began(state) + timeout_s)


def _health(state: State) -> Health:
    assert state.policy.health is not None  # else nothing of it is ever due
    return state.policy.health


def _watchdog_at(state: State, now: float) -> float:
    watchdog_s = _health(state).watchdog_s
    assert watchdog_s is not None  # the spec demands it with Notify
    return now + watchdog_s


def _healthy(state: State) -> Step:
    news = () if state.health is HealthStatus.HEALTHY else (Report("healthy"),)
    return replace(state, health=HealthStatus.HEALTHY, failing=0), news


def _unhealthy(state: State, finding: str, now: float) -> Step:
    news = () if state.health is HealthStatus.UNHEALTHY else (Report("unhealthy", {"finding": finding}),)
    sick = replace(state, health=HealthStatus.UNHEALTHY, finding=finding)
    match _health(state).on_unhealthy:
        case OnUnhealthy.IGNORE:
            return sick, news
        case OnUnhealthy.RESTART:
            after, actions = _end(sick, Ending.RETRIED, f"unhealthy: {finding}", now)
        case OnUnhealthy.STOP:
            after, actions = _end(sick, Ending.GIVEN_UP, f"unhealthy: {finding}", now)
    return after, (*news, *actions)


def _note(state: State, event: Heard) -> Step:
    said = event.notice.status
    if said is None or said == state.said:
        return state, ()
    return replace(state, said=said), (Report("status", {"status": said}),)


def _extend(state: State, extend_s: float | None, now: float) -> State:
    """EXTEND_TIMEOUT_USEC=: what runs out later anyway stays as it is (sd_notify(3))."""
    if extend_s is None:
        return state
    least = now + extend_s
    deadline = None if state.deadline is None else max(state.deadline, least)
    return replace(state, deadline=deadline, limit_at=None if state.limit_at is None else max(state.limit_at, least))


def _is_due(at: float | None, now: float) -> bool:
    return at is not None and at <= now


def _time_out(state: State, now: float) -> Step:
    timeout_s = state.policy.timeout_s
    after, actions = _end(state, Ending.JUDGED, f"not done within {now - _began(state):.3g} s", now)
    return after, (Report("timed_out", {"timeout_s": timeout_s}), *actions)


# --- parts: ending ----------------------------------------------------------------------------------------------------


def _end(state: State, ending: Ending, reason: str, now: float, grace_s: float | None = None) -> Step:
    """The stop command, if there is one; then the stop signal; and a grace period for both."""
    policy = state.policy
    grace_s = policy.stop_grace_s if grace_s is None else grace_s
    stopping = replace(
        _unwatched(_going_on(state, now)),
        phase=Phase.STOPPING,
        ending=ending,
        reason=reason,
        deadline=now + grace_s,
        grace_s=grace_s,
        signalled=not policy.stop_cmd,
    )
    told = Report("stopping", {"signal": policy.stop_signal})
    if policy.stop_cmd:
        return stopping, (told, Quiesce(policy.stop_cmd, grace_s))
    return stopping, (told, Signal(policy.stop_signal))


def _kill(state: State, now: float, grace_s: float | None = None) -> Step:
    after = replace(_unwatched(_going_on(state, now)), phase=Phase.KILLING, forced=True, deadline=now + STUCK_S)
    fields: dict[str, object] = {} if grace_s is None else {"grace_s": grace_s}
    return after, (Report("killing", fields), Signal(SIGKILL))


def _unwatched(state: State) -> State:
    return replace(state, limit_at=None, check_at=None, watchdog_at=None)


def _stopped(state: State) -> Step:
    after = replace(state, phase=Phase.EXITED, wanted_up=False, forced=False, deadline=None, ending=Ending.DOWN)
    return after, (Report("stopped"),)


def _rested(state: State, event: Ended, now: float) -> State:
    """After a run: what belonged to it is gone; a long one clears the count of retries."""
    stable = is_stable(state.policy.backoff, _ran_s(state, now))
    return replace(
        _unwatched(state),
        pid=None,
        started_at=None,
        ready_at=None,
        paused_at=None,
        deadline=None,
        health=None,
        failing=0,
        said=None,
        status=event.status,
        retries=0 if stable else state.retries,
    )


def _again_or_end(
    state: State, reason: str, now: float, chance: float, *, judged: bool = False, oom: bool = False
) -> Step:
    """After a run that nobody asked to end: as the restart policy says. `judged`: it failed, whatever its status."""
    policy, status = state.policy, state.status
    assert status is not None
    failed = judged or not succeeded(policy, status)
    if restarts(policy, failed=failed, retries=state.retries) and may_restart(policy.restart_on, status, oom=oom):
        return _again(state, reason, now, chance)
    return _give_up(state, reason) if failed else (replace(state, phase=Phase.EXITED), ())


def _again(state: State, reason: str, now: float, chance: float) -> Step:
    policy = state.policy
    recent = tuple(at for at in state.recent if at > now - policy.window_s)
    if not within_limits(policy, len(recent)):
        return _give_up(state, f"{reason}; restarted {len(recent)} times within {policy.window_s:g} s")
    retry = state.retries + 1
    delay = delay_s(policy.backoff, retry, chance)
    kept = (*recent, now) if policy.max_restarts is not None else ()
    counted = replace(state, retries=retry, restarts=state.restarts + 1, recent=kept)
    told = Report("restarting", {"delay_s": delay, "retry": retry})
    if not delay:
        after, actions = _wait(counted, now)
        return after, (told, *actions)
    return replace(counted, phase=Phase.BACKOFF, deadline=now + delay), (told,)


def _give_up(state: State, reason: str) -> Step:
    fields: dict[str, object] = {"reason": reason}
    if state.retries:
        fields["retries"] = state.retries
    return replace(state, phase=Phase.FAILED, failure=reason), (Report("gave_up", fields),)


def _began(state: State) -> float:
    assert state.started_at is not None  # of a run that is
    return state.started_at


def _ran_s(state: State, now: float) -> float:
    return (now if state.paused_at is None else state.paused_at) - _began(state)


def _start_error(event: StartFailed) -> dict[str, object]:
    return {"error": event.error, "exit_status": event.exit_status}


def _exited(event: Ended, ran_s: float) -> Report:
    fields: dict[str, object] = {"exit_status": event.status.exit_status, "ran_s": round(ran_s, 3)}
    if isinstance(event.status, Signaled):
        fields["signal"] = event.status.signal
    if event.oom:
        fields["oom"] = True
    return Report("exited", fields)


def succeeded(policy: Policy, status: Status) -> bool:
    """Is its exit status one of the policy's success codes?"""
    return isinstance(status, Exited) and status.code in policy.success_codes


def describe(status: Status) -> str:
    """An end in words."""
    if isinstance(status, Signaled):
        return f"killed by signal {status.signal}" + (", core dumped" if status.core_dumped else "")
    return f"exited with status {status.code}"


# --- the table --------------------------------------------------------------------------------------------------------

# Answers that may come when nobody asks any more, and wishes that make sense where a run goes its way.
_LATE = (DependenciesMet, DependencyFailed, Checked, Heard, Quiesced, Pause, Unpause)


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
