"""What a compiled stack consists of. Plain data: it is made in one process and run in another."""

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.config import ContainerConfig
from supervisor.logs.policy import AS_USUAL, UNLIMITED, LogLimit, LogPolicy
from supervisor.policy import Dependency, Policy


@dataclass(frozen=True, slots=True)
class OutputForm:
    """How a container's lines look as text. `prefix` None: its id; empty: none."""

    prefix: str | None = None
    timestamps: bool = False


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
