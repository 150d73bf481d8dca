"""When to restart, and after how long: pure functions of a container's policy."""

from dataclasses import dataclass, field
from enum import StrEnum

from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import Health, Ready


class RestartPolicy(StrEnum):
    """As in Compose. `unless-stopped` differs from `always` only in what a later supervisor does with a stopped
    container.
    """

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


Restarts = tuple[RestartPolicy, int | None]  # and how many, of on-failure; None: no limit


class Condition(StrEnum):
    """What a dependency must have come to before its dependent starts."""

    STARTED = "started"  # it runs, or has run to a successful end
    READY = "ready"  # its ready check has passed
    HEALTHY = "healthy"  # its last health check has passed
    COMPLETED = "completed"  # it has run to a successful end


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a container needs of another at each of its own starts."""

    condition: Condition = Condition.STARTED
    restart: bool = False  # when the other is restarted, so is this one
    required: bool = True  # else it starts without, when the other has failed or `timeout_s` is over
    timeout_s: float | None = None  # the longest to wait; None: as long as it takes


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between restarts: `initial_s`, then `factor` times longer each, never over `max_s`.

    A run of at least `reset_after_s` makes the next wait the first again. `jitter` is the share left to chance.
    """

    initial_s: float = 0.1
    max_s: float = 30.0
    factor: float = 2.0
    jitter: float = 0.1
    reset_after_s: float = 10.0


@dataclass(frozen=True, slots=True)
class RestartOn:
    """The ends after which a restart makes sense; all others are final."""

    exit_codes: frozenset[int] = frozenset()
    signals: frozenset[int] = frozenset()
    oom: bool = False  # killed by the kernel for want of memory


@dataclass(frozen=True, slots=True)
class Policy:
    """What the machine knows of its container."""

    restart: RestartPolicy = RestartPolicy.NO
    max_retries: int | None = None  # consecutive, of on-failure; None: no limit
    max_restarts: int | None = None  # within any `window_s`, whatever the policy; None: no limit
    window_s: float = 60.0
    restart_on: RestartOn | None = None  # None: whatever the end
    success_codes: frozenset[int] = frozenset({0})
    backoff: Backoff = field(default_factory=Backoff)
    timeout_s: float | None = None  # the longest a run may take
    one_shot: bool = False  # it says that it ends by itself
    stop_signal: int = 15
    stop_grace_s: float = 10.0
    stop_cmd: tuple[str, ...] = ()  # run inside before the stop signal is sent, within the grace period
    ready: Ready | None = None
    health: Health | None = None
    waits_s: tuple[float, ...] = ()  # after which a wait for dependencies is looked at again, ascending


def restarts(policy: Policy, *, failed: bool, retries: int) -> bool:
    """Is another run due, after `retries` consecutive ones?"""
    match policy.restart:
        case RestartPolicy.NO:
            return False
        case RestartPolicy.ON_FAILURE:
            return failed and (policy.max_retries is None or retries < policy.max_retries)
        case RestartPolicy.ALWAYS | RestartPolicy.UNLESS_STOPPED:
            return True


def may_restart(restart_on: RestartOn | None, status: Status, *, oom: bool) -> bool:
    """Is this end one after which a restart makes sense?"""
    if restart_on is None:
        return True
    if isinstance(status, Signaled):
        return status.signal in restart_on.signals or (oom and restart_on.oom)
    return status.code in restart_on.exit_codes


def within_limits(policy: Policy, recent: int) -> bool:
    """Is another restart allowed, after `recent` ones within the window?"""
    return policy.max_restarts is None or recent < policy.max_restarts


def delay_s(backoff: Backoff, retry: int, chance: float) -> float:
    """The wait before consecutive retry number `retry` (1 is the first); `chance` is uniform in [0, 1)."""
    if not backoff.initial_s:
        return 0.0
    try:
        wait = min(backoff.max_s, backoff.initial_s * backoff.factor ** (retry - 1))
    except OverflowError:  # a crash loop of some hours is enough
        wait = backoff.max_s
    return min(backoff.max_s, wait * (1 + backoff.jitter * (2 * chance - 1)))


def is_stable(backoff: Backoff, ran_s: float) -> bool:
    """Did a run last long enough for its container to count as healthy again?"""
    return ran_s >= backoff.reset_after_s


def succeeded(policy: Policy, status: Status) -> bool:
    """Is its exit status one of the policy's success codes?"""
    return isinstance(status, Exited) and status.code in policy.success_codes
