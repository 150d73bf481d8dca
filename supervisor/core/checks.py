"""How it is found out that a container serves: what can be looked at, how often, and what follows. Plain data.

A probe is one way to look. `Log` and `Notify` are heard of: the container speaks when it is ready. All others are
tried: from outside the container but in its network (`Tcp`, `Http`), in its root (`File`), or by a command of its own
(`Exec`).
"""

from dataclasses import dataclass
from enum import StrEnum

READY_FIRST_S = 0.02  # from the start, and from one try to the next; then twice as long each time
READY_MOST_S = 1.0
READY_TRY_S = 10.0  # the longest one try may take


@dataclass(frozen=True, slots=True)
class Log:
    """A line of its output, of either stream, matches a regular expression (Python's `re`, searched, on bytes).

    As a health check: some line did since the last check.
    """

    pattern: str


@dataclass(frozen=True, slots=True)
class Tcp:
    """A connection to this port of 127.0.0.1 or ::1, in the container's network namespace, is accepted."""

    port: int


@dataclass(frozen=True, slots=True)
class Http:
    """GET is answered, in the container's network namespace, with a status in one of the ranges (both ends count)."""

    host: str  # as written in the URL: a name is looked up in no DNS, only localhost and addresses are known
    port: int
    target: str  # path and query
    statuses: tuple[tuple[int, int], ...] = ((200, 399),)


@dataclass(frozen=True, slots=True)
class Exec:
    """A command in the container exits with status 0."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A path of the container exists."""

    path: str


@dataclass(frozen=True, slots=True)
class Notify:
    """It says so by sd_notify(3)."""


Probe = Log | Tcp | Http | Exec | File | Notify
HEARD = (Log, Notify)  # of a ready check: waited for, not tried


@dataclass(frozen=True, slots=True)
class Ready:
    """When a run serves. One that does not within `timeout_s` has failed."""

    probe: Probe
    timeout_s: float = 60.0


class OnUnhealthy(StrEnum):
    RESTART = "restart"
    STOP = "stop"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a run still serves. `retries` checks in a row must fail before it counts as unhealthy.

    Until the first check passes, checks come every `start_interval_s`, and failures in the first `start_period_s` do
    not count. With `Notify` it is the container that speaks, at least every `watchdog_s`.
    """

    probe: Probe
    interval_s: float = 30.0
    timeout_s: float = 10.0
    retries: int = 3
    start_period_s: float = 30.0
    start_interval_s: float = 1.0
    on_unhealthy: OnUnhealthy = OnUnhealthy.RESTART
    watchdog_s: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a try found. `detail` is one line or the last output of a command, for people."""

    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """What a container has said by sd_notify(3), as much of it as we know; or, of `Log`, that a line has matched."""

    ready: bool = False
    alive: bool | None = None  # WATCHDOG=1; False: WATCHDOG=trigger, it asks to be taken for unhealthy
    status: str | None = None
    extend_s: float | None = None  # EXTEND_TIMEOUT_USEC
