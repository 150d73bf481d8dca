"""When things happened to containers by the wall clock, what they are called, and who is told of events.

The machine has no use for any of it; operators have. Keyed by the ids of entries, which outlive a name.
"""

import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

import anyio

from supervisor.commands import Happening
from supervisor.reload.amendment import Amendment
from supervisor.stack.tree import Emit

HAPPENINGS_KEPT = 1024  # per subscriber; one who does not keep up loses the oldest


@dataclass(slots=True)
class Record:
    """What the wall clock says of a container, and what the API was told."""

    name: str  # as it is shown: that of its entry, unless it was renamed
    created_at: float
    key: str
    managed: bool = True
    started_at: float | None = None
    finished_at: float | None = None
    oom: bool = False
    auto_remove: bool = False
    stdin: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    amendment: Amendment | None = None  # of what its file says


class Subscriber:
    """One who is told of events: a bounded queue."""

    def __init__(self) -> None:
        self.queue: deque[Happening] = deque()
        self.lost = 0
        self.over = False  # nothing more will happen
        self.woken = anyio.Event()

    def put(self, happening: Happening) -> None:
        if len(self.queue) == HAPPENINGS_KEPT:
            self.queue.popleft()
            self.lost += 1
        self.queue.append(happening)
        self.woken.set()

    def end(self) -> None:
        self.over = True
        self.woken.set()

    async def get(self) -> Happening | None:
        """None: it was the last."""
        while not self.queue:
            if self.over:
                return None
            self.woken = anyio.Event()
            await self.woken.wait()
        if self.lost:
            lost, self.lost = self.lost, 0
            return Happening(self.queue[0].at, "lost", None, {"count": lost})
        return self.queue.popleft()


class Chronicle:
    """Everything that is told passes here: it notes the times, and hands it on to subscribers."""

    def __init__(self, emit: Emit, clock: Callable[[], float] = time.time) -> None:
        self._emit = emit
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self.records: dict[str, Record] = {}  # by the ids of entries
        self.renamed: dict[str, str] = {}  # to these

    def __call__(self, event: str, container: str | None, fields: Mapping[str, object]) -> None:
        """An `Emit`."""
        record = None if container is None else self.records.get(container)
        shown = container if record is None else record.name
        self._emit(event, shown, fields)
        at = self._clock()
        if record is not None:
            if event == "started":
                record.started_at, record.finished_at, record.oom = at, None, False
            elif event == "out_of_memory":
                record.oom = True
            elif event == "exited":
                record.finished_at, record.oom = at, bool(fields.get("oom"))
        for subscriber in self._subscribers:
            subscriber.put(Happening(at, event, shown, fields))

    def record(self, name: str, stack: str, *, managed: bool = True, **more: object) -> Record:
        """A container that is there from now on."""
        at = self._clock()
        key = hashlib.sha256(f"{stack}/{name}/{at!r}".encode()).hexdigest()
        self.records[name] = record = Record(name, at, key, managed, **more)  # type: ignore[arg-type]  # Record's fields
        return record

    def move(self, name: str, to: str) -> None:
        """A container of the spec has another id."""
        self.records[to] = self.records.pop(name)
        self.records[to].name = to

    def exchange(self, one: str, other: str) -> None:
        """Two containers have exchanged their ids: each keeps its key, and what is known of it."""
        self.records[one], self.records[other] = new, old = self.records[other], self.records[one]
        new.name, old.name = one, other
        new.amendment, old.amendment = old.amendment, new.amendment  # of what the file says of that id

    def end(self) -> None:
        """Those who listen now have heard all that there is."""
        for subscriber in self._subscribers:
            subscriber.end()

    async def listen(self) -> AsyncIterator[Happening]:
        """From now on, to the end."""
        subscriber = Subscriber()
        self._subscribers.append(subscriber)
        try:
            while (happening := await subscriber.get()) is not None:
                yield happening
        finally:
            self._subscribers.remove(subscriber)
