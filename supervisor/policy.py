"""When to restart, and after how long: pure functions of a container's policy."""

from dataclasses import dataclass, field
from enum import StrEnum


class RestartPolicy(StrEnum):
    """As in Compose. `unless-stopped` differs from `always` only in what a later supervisor does with a stopped
    container.
    """

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class Condition(StrEnum):
    """What a dependency must have come to before its dependent starts."""

    STARTED = "started"
    COMPLETED = "completed"


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
class Policy:
    """What the machine knows of its container."""

    restart: RestartPolicy = RestartPolicy.NO
    max_retries: int | None = None  # of on-failure; None: no limit
    backoff: Backoff = field(default_factory=Backoff)
    stop_signal: int = 15
    stop_grace_s: float = 10.0


def restarts(policy: Policy, *, failed: bool, retries: int) -> bool:
    """Is another run due, after `retries` consecutive ones?"""
    match policy.restart:
        case RestartPolicy.NO:
            return False
        case RestartPolicy.ON_FAILURE:
            return failed and (policy.max_retries is None or retries < policy.max_retries)
        case RestartPolicy.ALWAYS | RestartPolicy.UNLESS_STOPPED:
            return True


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
