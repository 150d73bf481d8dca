"""What a handler gets: the request, its place in the API, and the stack that it is about."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.abc
from anyio import to_thread

from supervisor.api import limits
from supervisor.api.errors import bad
from supervisor.api.executions import Executions
from supervisor.api.http import Request
from supervisor.api.queries import Query
from supervisor.api.ring import Ring
from supervisor.api.shelf import Images
from supervisor.commands import Commands, View

T = TypeVar("T")
Complain = Callable[[str], None]


def now() -> float:
    """Seconds since the epoch, by the clock that people read: nothing else is decided by it."""
    return time.time()


@dataclass(frozen=True, slots=True)
class Api:
    """What all calls to a stack's socket share."""

    commands: Commands
    images: Images
    tasks: anyio.abc.TaskGroup  # of what goes on when a call is over
    complain: Complain  # a fault of ours, for the log
    ring: Ring
    leaving: anyio.Event  # the stack has ended: what has no end of its own ends now
    executions: Executions = field(default_factory=Executions)
    quick: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(limits.QUICK_WORKERS))
    archives: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(limits.ARCHIVE_WORKERS))

    async def aside(self, work: Callable[..., T], *arguments: object) -> T:
        """Have a thread do what reads a disk."""
        return await to_thread.run_sync(work, *arguments, limiter=self.quick)


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one handler."""

    api: Api
    request: Request
    version: tuple[int, int]
    parts: Mapping[str, str]  # of the path

    @property
    def commands(self) -> Commands:
        return self.api.commands

    @property
    def query(self) -> Query:
        return Query(self.request.query)

    def container(self) -> View:
        """The one that the path names. NoSuchContainerError."""
        reference = self.parts["id"].removeprefix("/")
        if not reference:
            raise bad("a container's name or id is needed")
        return self.commands.find(reference)
