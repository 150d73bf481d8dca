"""What several transitions have in common: how a container waits, serves, is ended, and is tried again or given up."""

from dataclasses import replace

from runtime.status import Signaled
from supervisor.core.checks import HEARD, READY_FIRST_S, Health, Notify, OnUnhealthy
from supervisor.core.policy import delay_s, is_stable, may_restart, restarts, succeeded, within_limits
from supervisor.core.states import (
    Actions,
    Adapt,
    Ended,
    Ending,
    Event,
    HealthStatus,
    Heard,
    Phase,
    Quiesce,
    Report,
    Signal,
    StartFailed,
    State,
)

SIGKILL = 9
FROZEN_LOOK_S = 1.0  # from one look at what others have frozen to the next
STUCK_S = 10.0  # from SIGKILL; after that nobody waits for the run any more

Step = tuple[State, Actions]


# --- waiting, starting, serving ---------------------------------------------------------------------------------------


def wait(state: State, now: float) -> Step:
    return replace(state, phase=Phase.WAITING, since=now, deadline=next_wait(state, now, now)), ()


def next_wait(state: State, since: float, now: float) -> float | None:
    return next((at for wait_s in state.policy.waits_s if (at := since + wait_s) > now), None)


def activate(state: State, now: float) -> Step:
    ready = state.policy.ready
    if ready is None:
        return serve(state, now)
    activating = replace(state, phase=Phase.ACTIVATING, deadline=now + ready.timeout_s, finding="")
    return _try_readiness(activating, now), ()


def _try_readiness(state: State, now: float) -> State:
    """From now on, if it is not one that is heard of."""
    assert state.policy.ready is not None
    heard = isinstance(state.policy.ready.probe, HEARD)
    return replace(state, check_at=None if heard else now + READY_FIRST_S, pause_s=READY_FIRST_S)


def serve(state: State, now: float) -> Step:
    """It is ready, or no ready check says otherwise: from here on its health counts."""
    serving = replace(state, phase=Phase.RUNNING, deadline=None, check_at=None, ready_at=now, failing=0)
    told = () if state.policy.ready is None else (Report("ready", {"after_s": round(now - began(state), 3)}),)
    return look_after(serving, now), told


def look_after(state: State, now: float) -> State:
    """From now on its health is looked at, if it has a check for that."""
    if state.policy.health is None:
        return state
    return _look_again(replace(state, health=HealthStatus.STARTING), now)


def _look_again(state: State, now: float) -> State:
    """At its health, after a whole pause; a watchdog's time begins anew."""
    if isinstance(health_of(state).probe, Notify):
        return replace(state, watchdog_at=watchdog_at(state, now))
    return replace(state, check_at=now + look_pause_s(state))


def look_pause_s(state: State) -> float:
    """From one look at its health to the next."""
    health = health_of(state)
    return health.start_interval_s if state.health is HealthStatus.STARTING else health.interval_s


def going_on(state: State, now: float) -> State:
    """Not paused any more, if it was: its clock has stood still meanwhile."""
    if state.paused_at is None:
        return state
    paused_s = now - state.paused_at
    return replace(
        state,
        paused_at=None,
        look_at=None,
        started_at=_later(state.started_at, paused_s),
        ready_at=_later(state.ready_at, paused_s),
        deadline=_later(state.deadline, paused_s),
        limit_at=_later(state.limit_at, paused_s),
    )


def _later(at: float | None, by_s: float) -> float | None:
    return None if at is None else at + by_s


def stand_still(state: State, now: float) -> State:
    """As if it were paused. What has run out since it was frozen, whenever that was, has not."""
    ready = state.policy.ready
    still = replace(state, paused_at=now, look_at=now + FROZEN_LOOK_S)
    if ready is not None and is_due(state.deadline, now):
        still = replace(still, deadline=now + ready.timeout_s)
    if is_due(state.limit_at, now):
        still = replace(still, limit_at=now + FROZEN_LOOK_S)
    return still


def look_afresh(state: State, now: float) -> State:
    """Whatever was under way, or nearly due, begins anew."""
    if state.phase is Phase.ACTIVATING:
        return _try_readiness(state, now)
    return state if state.policy.health is None else _look_again(state, now)


def by_policy(state: State, event: Event) -> State:
    assert isinstance(event, Adapt)
    health = None if event.policy.health is None else state.health
    return replace(state, policy=event.policy, health=health)


def limited(state: State) -> State:
    """With the time that its policy gives a run."""
    timeout_s = state.policy.timeout_s
    return replace(state, limit_at=None if timeout_s is None else began(state) + timeout_s)


def health_of(state: State) -> Health:
    assert state.policy.health is not None  # else nothing of it is ever due
    return state.policy.health


def watchdog_at(state: State, now: float) -> float:
    watchdog_s = health_of(state).watchdog_s
    assert watchdog_s is not None  # the spec demands it with Notify
    return now + watchdog_s


def healthy(state: State) -> Step:
    news = () if state.health is HealthStatus.HEALTHY else (Report("healthy"),)
    return replace(state, health=HealthStatus.HEALTHY, failing=0), news


def unhealthy(state: State, finding: str, now: float) -> Step:
    news = () if state.health is HealthStatus.UNHEALTHY else (Report("unhealthy", {"finding": finding}),)
    sick = replace(state, health=HealthStatus.UNHEALTHY, finding=finding)
    match health_of(state).on_unhealthy:
        case OnUnhealthy.IGNORE:
            return sick, news
        case OnUnhealthy.RESTART:
            after, actions = end(sick, Ending.RETRIED, f"unhealthy: {finding}", now)
        case OnUnhealthy.STOP:
            after, actions = end(sick, Ending.GIVEN_UP, f"unhealthy: {finding}", now)
    return after, (*news, *actions)


def noted(state: State, event: Heard) -> Step:
    said = event.notice.status
    if said is None or said == state.said:
        return state, ()
    return replace(state, said=said), (Report("status", {"status": said}),)


def extend(state: State, extend_s: float | None, now: float) -> State:
    """EXTEND_TIMEOUT_USEC=: what runs out later anyway stays as it is (sd_notify(3))."""
    if extend_s is None:
        return state
    least = now + extend_s
    deadline = None if state.deadline is None else max(state.deadline, least)
    return replace(state, deadline=deadline, limit_at=None if state.limit_at is None else max(state.limit_at, least))


def is_due(at: float | None, now: float) -> bool:
    return at is not None and at <= now


def time_out(state: State, now: float) -> Step:
    after, actions = end(state, Ending.JUDGED, f"not done within {now - began(state):.3g} s", now)
    return after, (Report("timed_out", {"timeout_s": had_s(state, state.limit_at)}), *actions)


def had_s(state: State, until: float | None) -> float:
    """How long a run was given until then, with what it asked for itself (EXTEND_TIMEOUT_USEC=)."""
    assert until is not None
    return round(until - began(state), 3)


# --- ending -----------------------------------------------------------------------------------------------------------


def end(state: State, ending: Ending, reason: str, now: float, grace_s: float | None = None) -> Step:
    """The stop command, if there is one; then the stop signal; and a grace period for both."""
    policy = state.policy
    grace_s = policy.stop_grace_s if grace_s is None else grace_s
    stopping = replace(
        _unwatched(going_on(state, now)),
        phase=Phase.STOPPING,
        ending=ending,
        reason=reason,
        deadline=now + grace_s,
        grace_s=grace_s,
    )
    told = Report("stopping", {"signal": policy.stop_signal})
    if policy.stop_cmd:
        return stopping, (told, Quiesce(policy.stop_cmd, grace_s))
    return stopping, (told, Signal(policy.stop_signal))


def kill(state: State, now: float, grace_s: float | None = None) -> Step:
    after = replace(_unwatched(going_on(state, now)), phase=Phase.KILLING, forced=True, deadline=now + STUCK_S)
    fields: dict[str, object] = {} if grace_s is None else {"grace_s": grace_s}
    return after, (Report("killing", fields), Signal(SIGKILL))


def _unwatched(state: State) -> State:
    return replace(state, limit_at=None, check_at=None, watchdog_at=None)


def stopped(state: State) -> Step:
    after = replace(state, phase=Phase.EXITED, wanted_up=False, forced=False, deadline=None, ending=Ending.DOWN)
    return after, (Report("stopped"),)


def rested(state: State, event: Ended, now: float) -> State:
    """After a run: what belonged to it is gone; a long one clears the count of retries."""
    stable = is_stable(state.policy.backoff, ran_s(state, now))
    return replace(
        state,
        limit_at=None,
        check_at=None,
        watchdog_at=None,
        pid=None,
        started_at=None,
        ready_at=None,
        paused_at=None,
        look_at=None,
        deadline=None,
        health=None,
        failing=0,
        said=None,
        status=event.status,
        retries=0 if stable else state.retries,
    )


def again_or_end(
    state: State, reason: str, now: float, chance: float, *, judged: bool = False, oom: bool = False
) -> Step:
    """After a run that nobody asked to end: as the restart policy says. `judged`: it failed, whatever its status."""
    policy, status = state.policy, state.status
    assert status is not None
    failed = judged or not succeeded(policy, status)
    if restarts(policy, failed=failed, retries=state.retries) and may_restart(policy.restart_on, status, oom=oom):
        return again(state, reason, now, chance)
    return give_up(state, reason) if failed else (replace(state, phase=Phase.EXITED), ())


def again(state: State, reason: str, now: float, chance: float) -> Step:
    policy = state.policy
    recent = tuple(at for at in state.recent if at > now - policy.window_s)
    if not within_limits(policy, len(recent)):
        return give_up(state, f"{reason}; restarted {len(recent)} times within {policy.window_s:g} s")
    retry = state.retries + 1
    delay = delay_s(policy.backoff, retry, chance)
    kept = (*recent, now) if policy.max_restarts is not None else ()
    counted = replace(state, retries=retry, restarts=state.restarts + 1, recent=kept)
    told = Report("restarting", {"delay_s": delay, "retry": retry})
    if not delay:
        after, actions = wait(counted, now)
        return after, (told, *actions)
    return replace(counted, phase=Phase.BACKOFF, deadline=now + delay), (told,)


def give_up(state: State, reason: str) -> Step:
    fields: dict[str, object] = {"reason": reason}
    if state.retries:
        fields["retries"] = state.retries
    return replace(state, phase=Phase.FAILED, failure=reason), (Report("gave_up", fields),)


def began(state: State) -> float:
    assert state.started_at is not None  # of a run that is
    return state.started_at


def ran_s(state: State, now: float) -> float:
    return (now if state.paused_at is None else state.paused_at) - began(state)


def start_error(event: StartFailed) -> dict[str, object]:
    return {"error": event.error, "exit_status": event.exit_status}


def exit_report(event: Ended, ran_s: float) -> Report:
    fields: dict[str, object] = {"exit_status": event.status.exit_status, "ran_s": round(ran_s, 3)}
    if isinstance(event.status, Signaled):
        fields["signal"] = event.status.signal
    if event.oom:
        fields["oom"] = True
    return Report("exited", fields)
