"""What a compiled stack consists of. Plain data: it is made in one process and run in another."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.config import ContainerConfig
from supervisor.core.policy import Dependency, Policy
from supervisor.logs.policy import AS_USUAL, UNLIMITED, LogLimit, LogPolicy


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How a container's lines look as text. `prefix` None: its id; empty: none."""

    prefix: str | None = None
    timestamps: bool = False


class Order(StrEnum):
    """What comes first when a container is replaced."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class OnFailure(StrEnum):
    """What follows when a container that was changed does not come up."""

    ROLLBACK = "rollback"  # all goes back to what it was
    PAUSE = "pause"  # what is done stays, the rest is left as it was


@dataclass(frozen=True, slots=True)
class Update:
    """How the containers of an entry are replaced by a reload: `parallel` at a time; 0: all at once. Of one that has no
    check it is watched for `monitor_s` whether it stays up.
    """

    order: Order = Order.STOP_FIRST
    parallel: int = 1
    on_failure: OnFailure = OnFailure.PAUSE
    monitor_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One supervised container. `group` is its id in the spec, which replicas share."""

    id: str
    group: str
    config: ContainerConfig
    policy: Policy
    depends_on: Mapping[str, Dependency]
    output: OutputForm = OutputForm()
    image: str = ""  # its name
    logs: LogPolicy = AS_USUAL
    update: Update = Update()


def other_name(entry: Entry) -> str:
    """What it is called when it becomes the first of several, or the only one: `web` and `web.1` are one container."""
    return f"{entry.group}.1" if entry.id == entry.group else entry.group if entry.id == f"{entry.group}.1" else ""


DEFAULT_NETWORK = "default"  # of a stack: for containers that name none


@dataclass(frozen=True, slots=True)
class StackNetwork:
    """A network of a stack. `internal`: nothing leads out of it, or in. Of `subnets` one of each kind at most; what is
    missing is chosen.
    """

    name: str
    internal: bool = False
    ipv6: bool = False
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A stack, ready to run."""

    name: str
    entries: tuple[Entry, ...]
    logs: LogLimit = UNLIMITED
    networks: tuple[StackNetwork, ...] = ()  # those that a container is in


@dataclass(frozen=True, slots=True)
class Scale:
    """A number of replicas other than the file's. It holds as long as the file's own number is `instead_of`."""

    number: int
    instead_of: int | None = None  # None: not known yet


@dataclass(frozen=True, slots=True)
class Reading:
    """What a spec says now."""

    stack: Compiled
    replicas: Mapping[str, int] = field(default_factory=dict)  # as the files have them
    scales: Mapping[str, Scale] = field(default_factory=dict)  # of those that were given, the ones that hold
    files: tuple[str, ...] = ()  # that it was read from, or might have been
