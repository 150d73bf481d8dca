"""What an operator may ask of a running stack, and what is answered: the seam between the control socket and the rest.

The API (api/) speaks HTTP and Docker's JSON to one side and this to the other; it knows no service, no machine and no
kernel. Whatever is asked goes through the machine as an event, so nothing changes state behind its back.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from runtime.cgroup.figures import Pressure
from runtime.cgroup.limits import Limits
from runtime.config import ContainerConfig
from runtime.idmap import Ids
from supervisor.core.policy import Policy, Restarts
from supervisor.core.states import HealthStatus, Phase
from supervisor.logs.policy import AS_USUAL, LogPolicy
from supervisor.network.ends import NOT_CONNECTED, Connections, Laid
from supervisor.streams.lines import Stream

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """A container as it is now. Times are seconds since the epoch."""

    id: str  # as in the spec: web, web.2
    key: str  # 64 hexadecimal digits, as Docker's ids are; the same for as long as the stack knows the container
    group: str
    image: str  # as the user named it
    config: ContainerConfig
    policy: Policy
    phase: Phase
    paused: bool
    wanted_up: bool
    health: HealthStatus | None
    failing: int  # health checks in a row
    finding: str  # of the last check
    said: str | None  # STATUS= of sd_notify(3)
    pid: int | None
    exit_status: int | None  # of the last run
    oom: bool
    failure: str | None
    restarts: int
    created_at: float
    started_at: float | None  # of the present run, or the last
    finished_at: float | None  # of the last run
    managed: bool  # it is in the spec; else it was made through the API
    logs: LogPolicy = AS_USUAL
    lines_dropped: int = 0  # of its log, since the stack was started
    auto_remove: bool = False
    tty: bool = False
    open_stdin: bool = False  # who attaches may write to its standard input
    labels: Mapping[str, str] = field(default_factory=dict)
    ids: Ids | None = None  # of its own, while it runs
    connections: Connections = NOT_CONNECTED


@dataclass(frozen=True, slots=True)
class Happening:
    """An event, as told to whoever listens: its name, the container if it has one, and its fields."""

    at: float  # seconds since the epoch
    event: str
    container: str | None
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a container's output; `partial`: it goes on in the next one of the stream."""

    at_ns: int  # since the epoch
    stream: Stream
    text: bytes
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """What a container uses. Bytes, nanoseconds, counts; None where the host does not tell."""

    memory_bytes: int | None = None
    memory_max_bytes: int | None = None
    cpu_ns: int | None = None
    pids: int | None = None
    pids_max: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_inactive_file_bytes: int | None = None  # what costs nothing to take back
    swap_bytes: int | None = None
    oom_kills: int | None = None
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    cpu_throttled_ns: int | None = None
    cpu_throttled_periods: int | None = None
    reads: int | None = None
    writes: int | None = None
    pressure: Mapping[str, Pressure] = field(default_factory=dict)  # of cpu, memory, io; with cgroup v2


@dataclass(frozen=True, slots=True)
class Execution:
    """A command to run in a container."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    workdir: str | None = None
    terminal: bool = False
    privileged: bool = False


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What a reload has changed, or would change: for people, and for programs. `failure`: what went wrong then."""

    text: str
    changed: bool
    changes: Mapping[str, object]
    failure: str | None = None

    def failed(self, why: str) -> "Reloaded":
        """The same, but for that."""
        return replace(self, failure=why)


class Executed(Protocol):
    """A command that runs in a container, with its streams. With a terminal both are its master."""

    pid: int
    stdin: int | None  # ours to write to, and to close; None: it has none
    stdout: int
    stderr: int | None

    def signal(self, number: int) -> None: ...
    def resize(self, rows: int, columns: int) -> None: ...
    async def ended(self) -> int:
        """Its exit status, once it was reaped."""
        ...

    async def aclose(self) -> None:
        """Kill it if it still runs, and close its streams."""
        ...


class Attached(Protocol):
    """One who has joined a container's streams."""

    async def receive(self) -> tuple[Stream, bytes] | None:
        """What it wrote; None: its run has ended. It waits with writing for one who is slow to ask."""
        ...

    async def send(self, data: bytes) -> None:
        """To its standard input or its terminal; when that is closed, nowhere."""
        ...

    async def send_eof(self) -> None:
        """Close its standard input; of a terminal, do nothing."""
        ...


class Files(Protocol):
    """Where a container's files can be got at, for a while."""

    @property
    def ids(self) -> Ids | None:
        """Of its own."""
        ...

    def within(self, work: Callable[[int], T]) -> T:
        """Do `work`, which gets a descriptor of the root directory; by a thread, it may take long. OSError,
        LaunchError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a scrape."""

    content_type: str
    body: bytes


class Commands(Protocol):
    """A running stack, as an operator sees it. CommandError where something can't be done."""

    name: str

    def views(self) -> Sequence[View]:
        """All containers, in the spec's order; those made through the API after them."""
        ...

    def find(self, reference: str) -> View:
        """By id, key, or a prefix of either that is unique. NoSuchContainerError, AmbiguousError."""
        ...

    async def start(self, id_: str) -> None: ...
    async def stop(self, id_: str, grace_s: float | None = None) -> None:
        """Returns when it is down. It stays down until it is started."""
        ...

    async def restart(self, id_: str, grace_s: float | None = None) -> None: ...
    def kill(self, id_: str, number: int) -> None:
        """Send a signal; SIGKILL is also taken as that it is to stay down."""
        ...

    async def pause(self, id_: str) -> None: ...
    async def unpause(self, id_: str) -> None: ...
    async def wait(self, id_: str, condition: str = "not-running") -> int:
        """Until it does not run (`not-running`), has ended once more (`next-exit`), or is removed: its exit status."""
        ...

    async def create(
        self,
        id_: str,
        image: str,
        config: Mapping[str, object],
        labels: Mapping[str, str],
        *,
        auto_remove: bool,
        tty: bool,
        stdin: bool,
    ) -> View:
        """A container of `config`, the keys of a spec's container, that the spec does not know. It is not started.

        `stdin`: its standard input stays open for those who attach; else it is empty. ImageError if there is no such.
        """
        ...

    async def remove(self, id_: str, *, force: bool = False, volumes: bool = False) -> None:
        """With it, its nameless `volumes`. ConflictError if it runs, unless by `force`, or if the spec has it."""
        ...

    async def rename(self, id_: str, to: str) -> None: ...
    async def update(self, id_: str, limits: Limits | None, restarts: Restarts | None) -> None:
        """Other limits, and another restart policy, from now on; None: as they are. See reload/amendment.py."""
        ...

    def happenings(self) -> AsyncIterator[Happening]:
        """From now on, to the stack's end. One who does not keep up loses the oldest; an event `lost` counts them."""
        ...

    def reading(self, id_: str) -> AbstractContextManager[None]:
        """Somebody reads its log, or is about to: it stays for him, although the container is removed."""
        ...

    def logs(
        self,
        id_: str,
        *,
        follow: bool = False,
        since: float | None = None,
        until: float | None = None,
        last: int | None = None,
    ) -> AsyncGenerator[LogLine, None]: ...

    def attach(self, id_: str, *, stdin: bool) -> AbstractAsyncContextManager[Attached]:
        """Join its streams, from now to the end of its run; if there is none, of the next one."""
        ...

    def resize(self, id_: str, rows: int, columns: int) -> None:
        """Of its terminal. ConflictError if it has none."""
        ...

    async def execute(self, id_: str, execution: Execution, *, stdin: bool) -> Executed: ...
    async def figures(self, id_: str) -> Figures: ...
    async def processes(self, id_: str) -> Sequence[tuple[int, Mapping[str, str]]]:
        """Its processes: the pid on the host, and what `ps -o` would show, by the names it has: processes/ps.py."""
        ...

    def files(
        self, id_: str, *, write: bool = False, volumes: bool = True, or_image: bool = False
    ) -> AbstractAsyncContextManager["Files"]:
        """Its files, whether it runs or not; without its volumes only where it does not run. It does not start while
        somebody may write to them. ConflictError if there are none any more, unless those of its image do.
        """
        ...

    def upper(self, id_: str) -> int | None:
        """A descriptor of the directory that holds what it has written; None if it has no such now."""
        ...

    def networks(self) -> Sequence[Laid]:
        """Those of the stack that there are."""
        ...

    def volumes(self) -> Path:
        """Where the stack's volumes are, or would be."""
        ...

    async def scrape(self) -> Page:
        """The metrics of the stack."""
        ...

    async def reload(self, *, dry: bool = False) -> Reloaded:
        """Read the spec again, and change what differs; `dry`: only say what that is. SpecError if it is at fault."""
        ...

    async def scale(self, numbers: Mapping[str, int]) -> Reloaded:
        """Run so many replicas, by the ids of the spec, from now on."""
        ...

    async def stop_all(self) -> None:
        """The whole stack is wanted down; returns at once."""
        ...
