"""The transitions of the machine: one function for each thing that happens to a container in a phase.

Each gets the state, the event, the time and a chance, and answers with the next state and what to do; `to` names the
phases that it may lead to, its own aside. Which of them answers which event, machine.py says.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from runtime.status import Exited, describe
from supervisor.core import moves
from supervisor.core.checks import HEARD, READY_MOST_S, READY_TRY_S, Notify
from supervisor.core.moves import Step
from supervisor.core.policy import restarts
from supervisor.core.states import (
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
    Phase,
    Quiesced,
    Report,
    Restart,
    Signal,
    Started,
    StartFailed,
    State,
    Stop,
    Thaw,
)

Handle = Callable[[State, Event, float, float], Step]


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


# --- where nothing runs -----------------------------------------------------------------------------------------------


@to()
def ignored(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """A late or repeated word."""
    return state, ()


@to(Phase.WAITING)
def await_dependencies(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Wanted up: wait until dependencies are met."""
    return moves.wait(State(state.policy, wanted_up=True, restarts=state.restarts), now)


@to(Phase.WAITING)
def try_again(state: State, _event: Event, now: float, _chance: float) -> Step:
    """The backoff is over: what it depends on must be there, as at the first start."""
    return moves.wait(state, now)


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
    return replace(state, deadline=moves.next_wait(state, state.since, now)), (Ask(),)


@to(Phase.EXITED)
def stay_down(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """Wanted down where nothing runs."""
    return moves.stopped(state)


@to()
def wait_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it waits for dependencies: waits may be shorter now, or longer."""
    waiting = moves.by_policy(state, event)
    return replace(waiting, deadline=moves.next_wait(waiting, waiting.since, now)), ()


@to()
def back_off_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it waits to be tried again: no longer than that allows."""
    assert state.deadline is not None
    after = moves.by_policy(state, event)
    return replace(after, deadline=min(state.deadline, now + after.policy.backoff.max_s)), ()


@to()
def change_policy(state: State, event: Event, _now: float, _chance: float) -> Step:
    """Another policy, where nothing of it is under way."""
    return moves.by_policy(state, event), ()


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
        after, actions = moves.kill(unwanted, now) if state.forced else moves.end(unwanted, Ending.DOWN, "", now)
    elif state.ending is Ending.AGAIN:
        after, actions = moves.end(running, Ending.AGAIN, state.reason, now)
    else:
        after, actions = moves.activate(running, now)
    return after, (told, *actions)


@to(Phase.WAITING, Phase.BACKOFF, Phase.EXITED, Phase.FAILED)
def start_failed(state: State, event: Event, now: float, chance: float) -> Step:
    """No run came of the launch."""
    assert isinstance(event, StartFailed)
    report = () if event.error == state.told else (Report("start_failed", moves.start_error(event)),)
    if not state.wanted_up:
        after, actions = moves.stopped(state)
        return after, (*report, *actions)
    failed = replace(state, status=Exited(event.exit_status), told=event.error, ending=Ending.DOWN)
    if restarts(state.policy, failed=True, retries=state.retries):
        after, actions = moves.again(failed, event.error, now, chance)
    else:
        after, actions = moves.give_up(failed, event.error)
    return after, (*report, *actions)


@to(Phase.WAITING, Phase.EXITED)
def wait_again(state: State, _event: Event, now: float, _chance: float) -> Step:
    """A dependency went while it waited for its turn, or a stop called its turn off."""
    if not state.wanted_up:
        return moves.stopped(state)
    return replace(
        state, phase=Phase.WAITING, deadline=moves.next_wait(state, state.since, now), ending=Ending.DOWN
    ), ()


# --- while it runs ----------------------------------------------------------------------------------------------------


@to(Phase.RUNNING)
def judge_readiness(state: State, event: Event, now: float, _chance: float) -> Step:
    """A try of the ready check has ended: it serves, or is looked at again, after twice the pause each time."""
    assert isinstance(event, Checked)
    if event.passed:
        return moves.serve(replace(state, finding=event.detail), now)
    pause_s = min(state.pause_s * 2, READY_MOST_S)
    return replace(state, check_at=now + state.pause_s, pause_s=pause_s, finding=event.detail), ()


@to(Phase.RUNNING)
def listen_for_readiness(state: State, event: Event, now: float, _chance: float) -> Step:
    """What it says before it is ready: that it is, that it needs more time, or how it is doing."""
    assert isinstance(event, Heard)
    assert state.policy.ready is not None
    notice = event.notice
    after, actions = moves.noted(state, event)
    if notice.ready and isinstance(state.policy.ready.probe, HEARD):
        after, more = moves.serve(after, now)
        return after, (*actions, *more)
    return moves.extend(after, notice.extend_s, now), actions


@to(Phase.STOPPING)
def unready_or_check(state: State, _event: Event, now: float, _chance: float) -> Step:
    """It took too long to be ready, or to run; or it is time for another try."""
    if state.look_at is not None:
        return _go_on(state, now)
    if moves.is_due(state.deadline, now):
        reason = f"not ready within {now - moves.began(state):.3g} s" + (f" ({state.finding})" if state.finding else "")
        after, actions = moves.end(state, Ending.JUDGED, reason, now)
        had_s = moves.had_s(state, state.deadline)
        return after, (Report("not_ready", {"timeout_s": had_s, "finding": state.finding}), *actions)
    if moves.is_due(state.limit_at, now):
        return moves.time_out(state, now)
    ready = state.policy.ready
    assert ready is not None
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
        return moves.healthy(replace(seen, check_at=now + health.interval_s))
    pause_s = moves.look_pause_s(state)
    assert state.ready_at is not None
    if state.health is HealthStatus.STARTING and now - state.ready_at < health.start_period_s:
        return replace(seen, check_at=now + pause_s), ()
    failing = replace(seen, failing=state.failing + 1, check_at=now + pause_s)
    if failing.failing < health.retries or state.health is HealthStatus.UNHEALTHY:
        return failing, ()
    return moves.unhealthy(failing, event.detail or "its health check failed", now)


@to(Phase.STOPPING)
def listen_for_life(state: State, event: Event, now: float, _chance: float) -> Step:
    """What it says while it serves."""
    assert isinstance(event, Heard)
    notice = event.notice
    after, actions = moves.noted(state, event)
    after = moves.extend(after, notice.extend_s, now)
    if notice.alive is None or state.watchdog_at is None:
        return after, actions
    if notice.alive:
        after, more = moves.healthy(replace(after, watchdog_at=moves.watchdog_at(state, now)))
    else:
        after, more = moves.unhealthy(after, "it reported a failure (WATCHDOG=trigger)", now)
    return after, (*actions, *more)


@to(Phase.STOPPING)
def time_out_or_check(state: State, _event: Event, now: float, _chance: float) -> Step:
    """It ran too long, was silent too long, or it is time for a health check."""
    if state.look_at is not None:
        return _go_on(state, now)
    if moves.is_due(state.limit_at, now):
        return moves.time_out(state, now)
    health = moves.health_of(state)
    if moves.is_due(state.watchdog_at, now):
        silent = replace(state, watchdog_at=moves.watchdog_at(state, now))
        return moves.unhealthy(silent, f"silent for {health.watchdog_s:g} s (no WATCHDOG=1)", now)
    return replace(state, check_at=None), (Check(health.probe, health.timeout_s),)


@to(Phase.RUNNING, Phase.STOPPING)
def activate_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it is not ready: if its ready check is another, that one is tried from now on. One that
    has to be heard of is listened for from the start of a run: so it starts anew.
    """
    before, after = state.policy.ready, moves.limited(moves.by_policy(state, event))
    ready = after.policy.ready
    if ready == before:
        return after, ()
    if ready is None:
        return moves.serve(after, now)
    if isinstance(ready.probe, HEARD) and (before is None or ready.probe != before.probe):
        return moves.end(after, Ending.AGAIN, "its ready check has changed", now)
    after, actions = moves.activate(after, now)
    return replace(after, deadline=moves.began(state) + ready.timeout_s), actions


@to()
def pause(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Freeze it, and its times with it."""
    if state.paused_at is not None and state.look_at is None:
        return state, ()
    paused_at = now if state.paused_at is None else state.paused_at
    return replace(state, paused_at=paused_at, look_at=None), (Freeze(), Report("paused"))


@to()
def unpause(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Let it go on, with what it had left of its times; it is looked at again after a whole interval."""
    if state.paused_at is None:
        return state, ()
    after, actions = _go_on(state, now)
    return after, (Thaw(), *actions)


def _go_on(state: State, now: float) -> Step:
    return moves.look_afresh(moves.going_on(state, now), now), (Report("unpaused"),)


@to()
def stand_still(state: State, _event: Event, now: float, _chance: float) -> Step:
    """Others have frozen it: no time passes for it until a look at it finds that it goes on."""
    if state.paused_at is None:
        return moves.stand_still(state, now), (Report("frozen"),)
    return state if state.look_at is None else replace(state, look_at=now + moves.FROZEN_LOOK_S), ()


@to()
def run_by_policy(state: State, event: Event, now: float, _chance: float) -> Step:
    """Another policy, while it serves: another health check begins anew, the same one keeps what it has found."""
    before, after = state.policy.health, moves.limited(moves.by_policy(state, event))
    health = after.policy.health
    if health == before:
        return after, ()
    if health is None:
        return replace(after, health=None, failing=0, check_at=None, watchdog_at=None), ()
    if before is None or health.probe != before.probe:
        return moves.look_after(replace(after, failing=0, watchdog_at=None), now), ()
    if isinstance(health.probe, Notify):
        return replace(after, watchdog_at=moves.watchdog_at(after, now)), ()
    check_at = None if state.check_at is None else min(state.check_at, now + health.interval_s)
    return replace(after, check_at=check_at), ()


@to(Phase.STOPPING)
def stop(state: State, event: Event, now: float, _chance: float) -> Step:
    """Ask it to stop, give it its grace period."""
    assert isinstance(event, Stop)
    return moves.end(replace(state, wanted_up=False), Ending.DOWN, "", now, event.grace_s)


@to(Phase.STOPPING)
def restart(state: State, event: Event, now: float, _chance: float) -> Step:
    """Stop it, to start it anew."""
    assert isinstance(event, Restart)
    return moves.end(state, Ending.AGAIN, event.reason, now, event.grace_s)


@to(Phase.KILLING)
def kill(state: State, _event: Event, now: float, _chance: float) -> Step:
    """SIGKILL, as asked for."""
    return moves.kill(replace(state, wanted_up=False, ending=Ending.DOWN), now)


@to(Phase.WAITING, Phase.BACKOFF, Phase.EXITED, Phase.FAILED)
def ended(state: State, event: Event, now: float, chance: float) -> Step:
    """The run ended by itself."""
    assert isinstance(event, Ended)
    rested = moves.rested(state, event, now)
    after, actions = moves.again_or_end(rested, describe(event.status), now, chance, oom=event.oom)
    return after, (moves.exit_report(event, moves.ran_s(state, now)), *actions)


# --- while it is being ended ------------------------------------------------------------------------------------------


@to()
def send_stop_signal(state: State, event: Event, _now: float, _chance: float) -> Step:
    """The stop command is over."""
    assert isinstance(event, Quiesced)
    error = (Report("stop_command_failed", {"error": event.error}),) if event.error else ()
    return state, (*error, Signal(state.policy.stop_signal))


@to()
def listen_while_stopping(state: State, event: Event, now: float, _chance: float) -> Step:
    """How it is doing, and that it needs more time."""
    assert isinstance(event, Heard)
    after, actions = moves.noted(state, event)
    return moves.extend(after, event.notice.extend_s, now), actions


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
    return moves.kill(state, now, grace_s=state.grace_s)


@to(Phase.STUCK)
def give_up_waiting(state: State, _event: Event, _now: float, _chance: float) -> Step:
    """SIGKILL has no effect: the kernel holds it. What depends on its end goes on without."""
    failure = "killed, but the kernel does not let go of it"
    return replace(state, phase=Phase.STUCK, deadline=None, failure=failure), (
        Report("stuck", {"after_s": moves.STUCK_S}),
    )


@to(Phase.EXITED, Phase.WAITING, Phase.BACKOFF, Phase.FAILED)
def run_over(state: State, event: Event, now: float, chance: float) -> Step:
    """The run has ended, as we wanted: what follows was decided when that began."""
    assert isinstance(event, Ended)
    rested = replace(moves.rested(state, event, now), ending=Ending.DOWN, forced=False, failure=None)
    told = moves.exit_report(event, moves.ran_s(state, now))
    match state.ending:
        case Ending.DOWN:
            after, actions = moves.stopped(rested)
        case Ending.AGAIN:
            after, actions = moves.wait(replace(rested, restarts=state.restarts + 1), now)
            actions = (Report("restarting", {"reason": state.reason}), *actions)
        case Ending.JUDGED:
            after, actions = moves.again_or_end(rested, state.reason, now, chance, judged=True, oom=event.oom)
        case Ending.RETRIED:
            after, actions = moves.again(rested, state.reason, now, chance)
        case Ending.GIVEN_UP:
            after, actions = moves.give_up(rested, state.reason)
    return after, (told, *actions)
