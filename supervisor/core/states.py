"""What the machine knows, hears and asks for: phases, the state of a container, events and actions. Plain data.

How one leads to the other is in machine.py; the whole of it, as a table and a picture, in docs/states.md.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from runtime.status import Status
from supervisor.core.checks import Notice, Probe
from supervisor.core.policy import Policy


class Phase(StrEnum):
    """What is."""

    CREATED = "created"
    WAITING = "waiting"  # for its dependencies
    STARTING = "starting"  # a launch is under way
    ACTIVATING = "activating"  # it runs, its ready check has not passed yet
    RUNNING = "running"  # it serves, as far as is known
    STOPPING = "stopping"  # it was asked to stop, the grace period runs
    KILLING = "killing"
    STUCK = "stuck"  # killed, but the kernel does not let go of it; nobody waits for it any more
    BACKOFF = "backoff"
    EXITED = "exited"  # completed, or stopped as wanted
    FAILED = "failed"


FINAL = frozenset({Phase.EXITED, Phase.FAILED, Phase.STUCK})  # nothing more will happen that others should wait for
LIVE = frozenset({Phase.ACTIVATING, Phase.RUNNING, Phase.STOPPING, Phase.KILLING, Phase.STUCK})  # there is a run
ALIVE = LIVE | {Phase.STARTING}  # there is a run, or may be


class HealthStatus(StrEnum):
    """As Docker has them."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Ending(StrEnum):
    """What follows the end of a run that was ended by us."""

    DOWN = "down"  # it is wanted down
    AGAIN = "again"  # it starts anew, and nothing is held against it
    JUDGED = "judged"  # it has failed: the restart policy decides
    RETRIED = "retried"  # it has failed, and is restarted whatever the policy
    GIVEN_UP = "given up"  # it has failed for good


@dataclass(frozen=True, slots=True)
class State:
    """Everything the machine knows of its container. Times are the loop's clock, in seconds."""

    policy: Policy
    phase: Phase = Phase.CREATED
    wanted_up: bool = False
    forced: bool = False  # no grace period
    ending: Ending = Ending.DOWN  # while a run is being ended
    reason: str = ""  # why it is, in words
    grace_s: float = 0.0  # of the stop under way
    retries: int = 0  # consecutive, since the last stable run
    restarts: int = 0  # in all
    recent: tuple[float, ...] = ()  # when it was restarted: what counts against `max_restarts`
    since: float = 0.0  # when it began to wait for dependencies
    pid: int | None = None
    started_at: float | None = None
    ready_at: float | None = None
    paused_at: float | None = None  # its processes are frozen since then, and no time passes for it
    look_at: float | None = None  # by others: when it is to be looked whether they still are
    deadline: float | None = None  # of the phase
    limit_at: float | None = None  # of the run (`timeout_s`)
    check_at: float | None = None  # the next try of a check; None while there is one under way
    watchdog_at: float | None = None  # when it must have spoken again
    pause_s: float = 0.0  # to the next try of a ready check
    failing: int = 0  # checks in a row
    health: HealthStatus | None = None
    finding: str = ""  # of the last check
    said: str | None = None  # STATUS= of sd_notify(3)
    status: Status | None = None  # of the last run
    failure: str | None = None  # why FAILED, in words
    chain: str | None = None  # if a dependency was the reason: who failed, nearest first, and why
    told: str | None = None  # the start error last reported: said once, however often it is tried again

    @property
    def due_at(self) -> float | None:
        """When `Due` is to be delivered."""
        if self.paused_at is not None:
            return self.look_at
        times = [at for at in (self.deadline, self.limit_at, self.check_at, self.watchdog_at) if at is not None]
        return min(times) if times else None

    @property
    def completed(self) -> bool:
        """Has it ended by itself, with success?"""
        return self.phase is Phase.EXITED and self.wanted_up

    @property
    def is_up(self) -> bool:
        """Does it serve, by all that can be known, or has it done its work?"""
        return self.completed or (self.phase is Phase.RUNNING and self.health in {None, HealthStatus.HEALTHY})


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """It is wanted up."""


@dataclass(frozen=True, slots=True)
class DependenciesMet:
    """It may start; `skipped` says which optional dependencies it has to do without, and why."""

    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DependencyFailed:
    """It never may: `chain` names who failed, nearest first, and why."""

    chain: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """When its turn to start had come, its dependencies were met no more."""


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
class Checked:
    """The check that was asked for has been tried."""

    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """The run has said something."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Quiesced:
    """The stop command has ended; `error` says what was wrong with it, if anything."""

    error: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The run was reaped, and nothing of it is left."""

    status: Status
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """It is wanted to start anew, for a reason that is not its own fault; `grace_s` in place of the policy's."""

    reason: str
    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """It is wanted down, with its grace period; `grace_s` in place of the policy's."""

    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """It is wanted down at once."""


@dataclass(frozen=True, slots=True)
class Pause:
    """All its processes are to stop where they are."""


@dataclass(frozen=True, slots=True)
class Unpause:
    """They are to go on."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """Others have stopped all its processes, by its cgroup or one above it. In place of `Due`, or of `Checked`, as
    long as they are.
    """


@dataclass(frozen=True, slots=True)
class Adapt:
    """It is supervised by another policy from now on; a run that there is goes on."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Due:
    """`due_at` has come."""


Event = (
    Start
    | DependenciesMet
    | DependencyFailed
    | Deferred
    | Started
    | StartFailed
    | Checked
    | Heard
    | Quiesced
    | Ended
    | Restart
    | Stop
    | Kill
    | Pause
    | Unpause
    | Frozen
    | Adapt
    | Due
)
EVENTS: tuple[type[Event], ...] = (
    Start,
    DependenciesMet,
    DependencyFailed,
    Deferred,
    Started,
    StartFailed,
    Checked,
    Heard,
    Quiesced,
    Ended,
    Restart,
    Stop,
    Kill,
    Pause,
    Unpause,
    Frozen,
    Adapt,
    Due,
)

# --- actions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a run; answer with Started, StartFailed or Deferred."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the run's first process, and have it go on, should it be frozen: it is to end."""

    number: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop the run where it is; a check that is under way is called off before. If that fails: Unpause."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Have the run go on."""


@dataclass(frozen=True, slots=True)
class Check:
    """Try a probe; answer with Checked. A run that is being ended is not checked any more: no answer then."""

    probe: Probe
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Quiesce:
    """Run the stop command; answer with Quiesced."""

    argv: tuple[str, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Look again whether dependencies are met; answer with DependenciesMet, DependencyFailed, or not at all."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the user. `kind` is the event's name, `fields` belong to it; units are last in their names."""

    kind: str
    fields: dict[str, object] = field(default_factory=dict)


Action = Launch | Signal | Freeze | Thaw | Check | Quiesce | Ask | Report
Actions = tuple[Action, ...]
