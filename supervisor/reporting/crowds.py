"""Many containers that say the same at once: people read the first few, and then one line for all others.

Two thousand replicas whose image lacks a program would say so two thousand times, and what matters would be gone from
the terminal. Events are alike where their kind and their fields are the same, but for those that are each one's own (a
pid, how long it took) and for the container's name in a text; the replicas of one entry are a crowd of their own. A
container that speaks for itself, however often, is none. Of what failed to start and is not tried again, the reason is
said once.

This is for people alone: `pysup events`, the control socket, the journal, metrics and JSON have each event as it was.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio

from supervisor.reporting.events import LEVELS, QUOTED, Level, Speaker

ALONE_MAX: Mapping[Level, int] = {"debug": 20, "info": 20, "warning": 3, "error": 3}  # lines, before there is a crowd
GATHERED_S = 1.0  # the longest that an event waits for others; a crowd that was silent for as long is over
NAMES_SHOWN = 3
CROWDS_MAX = 256  # known at a time
OWN = frozenset({"pid", "after_s", "ran_s", "delay_s", "retry", "retries", QUOTED})

Key = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(slots=True)
class Crowd:
    """Those who say one thing."""

    level: Level
    last_at: float = 0.0
    known: set[str] = field(default_factory=set)  # as many as it takes to be a crowd
    held: dict[str, None] = field(default_factory=dict)  # who has said it, and was not shown yet
    fields: Mapping[str, object] = field(default_factory=dict)  # of the first of these, but for its own


class Crowds:
    """Says events as `Events` does, or holds them back for a while. `run` must run for that while to end."""

    def __init__(self, events: Speaker, level: Level, clock: Callable[[], float] = time.monotonic) -> None:
        self._events = events
        self._least = LEVELS[level]
        self._clock = clock
        self._crowds: dict[Key, Crowd] = {}
        self._errors: dict[str, object] = {}  # why a container could not start, as it was said last
        self._gathering = anyio.Event()

    def emit(self, event: str, *, container: str | None = None, level: Level = "info", **fields: object) -> None:
        """Of the stack itself: after all that was said before."""
        if LEVELS[level] < self._least:
            return
        if container is None:
            self.flush()
            self._events.emit(event, container=None, level=level, **fields)
        elif not self._was_said(event, container, fields) and not self._gathers(event, container, level, fields):
            self._events.emit(event, container=container, level=level, **fields)

    def _was_said(self, event: str, container: str, fields: Mapping[str, object]) -> bool:
        if event == "start_failed":
            self._errors[container] = fields.get("error")
            return False
        error = self._errors.pop(container, None) if event in {"gave_up", "started"} else None
        return event == "gave_up" and error is not None and fields == {"reason": error}

    def _gathers(self, event: str, container: str, level: Level, fields: Mapping[str, object]) -> bool:
        """Is there a crowd that it goes with?"""
        replicas_of = container.rpartition(".")[0]
        now, key = self._clock(), (event, replicas_of, _essence(container, fields))
        crowd = self._crowds.get(key)
        if crowd is None or (now - crowd.last_at > GATHERED_S and not crowd.held):
            if len(self._crowds) >= CROWDS_MAX:
                self.flush()
                self._crowds.clear()
            self._crowds[key] = crowd = Crowd(level)
        crowd.last_at = now
        if len(crowd.known) <= ALONE_MAX[level]:
            crowd.known.add(container)
        if len(crowd.known) <= ALONE_MAX[level]:
            return False
        if not crowd.held:
            crowd.fields = {name: value for name, value in fields.items() if name not in OWN}
        crowd.held[container] = None
        self._gathering.set()
        return True

    def flush(self) -> None:
        """Say what was held back."""
        for (event, *_), crowd in self._crowds.items():
            if crowd.held:
                names, crowd.held = list(crowd.held), {}
                self._events.emit(event, container=_in_short(names), level=crowd.level, **crowd.fields)

    async def run(self) -> None:
        """Say it when it has waited for long enough."""
        while True:
            await self._gathering.wait()
            await anyio.sleep(GATHERED_S)
            self._gathering = anyio.Event()
            self.flush()


def _essence(container: str, fields: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value).replace(container, "*")) for name, value in fields.items() if name not in OWN)


def _in_short(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
