"""Commands in containers that callers have asked for: what was asked, and what became of it. Bounded."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus

import anyio

from supervisor.api import limits
from supervisor.api.errors import RefusedError, missing
from supervisor.commands import Executed, Execution


@dataclass(slots=True)
class Asked:
    """One of them."""

    container: str  # its id
    container_key: str
    execution: Execution
    stdin: bool
    stdout: bool
    stderr: bool
    detach_keys: str
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    begun: bool = False
    running: Executed | None = None
    pid: int = 0
    exit_status: int | None = None
    over: anyio.Event = field(default_factory=anyio.Event)

    def began(self, executed: Executed) -> None:
        self.running = executed
        self.pid = executed.pid

    def ended(self, exit_status: int) -> None:
        """Also if it could not be started."""
        self.running = None
        self.exit_status = exit_status
        self.over.set()


class Executions:
    """All that are known."""

    def __init__(self) -> None:
        self._known: dict[str, Asked] = {}

    def add(self, asked: Asked) -> None:
        """One more. RefusedError if too many run."""
        if len(self._known) >= limits.EXECUTIONS_MAX:
            self._forget()
        self._known[asked.key] = asked

    def _forget(self) -> None:
        """The oldest that has ended, else the oldest that never began."""
        ended = (asked for asked in self._known.values() if asked.over.is_set())
        idle = (asked for asked in self._known.values() if not asked.begun)
        oldest = next(ended, None) or next(idle, None)
        if oldest is None:
            message = f"{limits.EXECUTIONS_MAX} commands run already: wait until one has ended"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message)
        del self._known[oldest.key]

    def find(self, key: str) -> Asked:
        """RefusedError if it is not known."""
        if (asked := self._known.get(key)) is None:
            raise missing(f"No such exec instance: {key[:100]}")
        return asked

    def of(self, container_key: str) -> Iterator[str]:
        """Those of a container that run."""
        return (asked.key for asked in self._known.values() if asked.container_key == container_key and asked.running)
