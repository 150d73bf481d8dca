"""The one writer of all logs of a stack: takes lines from the loop, and never makes it wait for the disk.

As the console does it (streams/console.py says why): a thread of our own that takes no signal and is a daemon, and a
buffer with two limits. From BUFFER_MAX_BYTES on `has_room` holds back those who can wait, and with `overflow: drop`
lines are dropped instead. What can't wait is taken up to OVERDRAFT_MAX_BYTES. Lines are dropped whole, and counted.

The thread takes all that has gathered at once, and writes container by container, so what comes from many at full
speed leaves in few large writes. It wakes the loop, through an eventfd, only where somebody waits, follows, or should
be told. What it tells:

* `log_failed`: a log can't be written, as the disk is full; lines are dropped until there is room. Once,
  and no more often than every TELL_EVERY_S where room comes and goes.
* `log_lost`: so many lines of a container were dropped. At once, but then no more often than every TELL_EVERY_S, and
  of a full disk not before it has room again.
* `log_repaired`: a crash had torn the last line.

Raw output is not read at all: the thread moves it from pipe to file (`move`).
"""

import contextlib
import math
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, Protocol, Self, cast

import anyio

from supervisor.commands import LogLine
from supervisor.logs import reader
from supervisor.logs.policy import Driver, LogPolicy, Overflow
from supervisor.logs.reader import Followed
from supervisor.logs.shelf import MOVE_MAX_BYTES, UnwrittenError
from supervisor.logs.store import Lines, Store
from supervisor.streams.lines import Piece, Stream
from supervisor.streams.writing import begin_thread

BUFFER_MAX_BYTES = 4 * 1024 * 1024
OVERDRAFT_MAX_BYTES = 32 * 1024 * 1024
CLOSE_MAX_S = 2.0
FLUSH_MAX_S = 2.0  # what a reader waits for lines that are not on disk yet
TELL_EVERY_S = 10.0
ENTRY_BYTES = 200  # what an entry of the buffer costs beside its lines


Level = Literal["debug", "info", "warning", "error"]


class Tell(Protocol):
    """As Events.emit."""

    def __call__(self, event: str, *, container: str, level: Level, **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Move:
    """What is in a pipe is to be moved to a raw log."""

    stream: Stream
    pipe: int
    at_ns: int
    moved: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Bytes:
    """To be added to a raw log."""

    stream: Stream
    data: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class Call:
    """To be called, by the loop, when what was taken before is written; `do` before that, by the thread."""

    call: Callable[[], None]
    do: Callable[[], None] | None = None


Entry = Lines | Move | Bytes | Call
_NO_LOG = LogPolicy(driver=Driver.NONE)
_ALL = ""  # no container has that name


class LogWriter:
    """Writes below `directory`. `async with` flushes at the end, for at most CLOSE_MAX_S.

    `fileno()` is readable when `acknowledge()` has something to do: who reads the pipes has it in the same epoll set.
    """

    def __init__(self, directory: Path, tell: Tell, *, max_total_bytes: int | None = None) -> None:
        self.directory = directory
        self.written_bytes = 0
        self.lost_lines: Counter[str] = Counter()  # by container, since the start
        self._tell = tell
        self._store = Store(self.directory, max_total_bytes)
        self._policies: dict[str, LogPolicy] = {}
        self._followed: dict[str, set[Followed]] = {}
        self._ended: set[str] = set()  # logs that get no more lines, unless they are opened again
        self._readers: Counter[str] = Counter()  # by container: see `reading`
        self._left: set[str] = set()  # removed, and there for those who read them

        self._changed = threading.Condition()  # guards what follows; held for a few instructions only
        self._queue: dict[str, list[Entry]] = {}
        self._size = 0  # bytes not yet written, in the queue and in flight
        self._in_flight: dict[str, list[Entry]] = {}
        self._untold: Counter[str] = Counter()  # lines lost, by container
        self._told_at_s = -math.inf
        self._complained_at_s = -math.inf
        self._failing = False
        self._calls: list[Callable[[], None]] = []  # the loop is to make
        self._awaited = self._closing = self._abandoned = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = begin_thread("pysup logs", self._run)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def fileno(self) -> int:
        return self._wake

    def acknowledge(self) -> None:
        """Do what the thread has left to the loop."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        with self._changed:
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    # Writing.

    def open(self, container: str, policy: LogPolicy) -> None:
        """A container has a log from now on, or again, or by another policy. Nothing is made before it has a line."""
        self._clear(container)
        self._policies[container] = policy
        self._ended.discard(container)

    def has_room(self, container: str) -> bool:
        """May its pipes be read? If not, `fileno()` is readable when there is room again."""
        if self._size < BUFFER_MAX_BYTES or self.drops(container) or not self._fills(container):
            return True
        with self._changed:
            self._awaited = self._awaited or self._size >= BUFFER_MAX_BYTES
            return self._size < BUFFER_MAX_BYTES

    def drops(self, container: str) -> bool:
        """Are its lines dropped where there is no room?"""
        return self.policy(container).overflow is Overflow.DROP

    def moves(self, container: str) -> bool:
        """Is its log raw?"""
        return self.policy(container).driver is Driver.RAW

    def _fills(self, container: str) -> bool:
        """Does what it writes come into our buffer?"""
        return self.policy(container).driver is Driver.FILE

    def write(self, container: str, stream: Stream, piece: Piece, at_ns: int) -> None:
        """Take what a Cutter gave. Never waits; where there is no room, drops it and counts."""
        policy = self.policy(container)
        if policy.driver is Driver.FILE:
            limit = BUFFER_MAX_BYTES if policy.overflow is Overflow.DROP else OVERDRAFT_MAX_BYTES
            self._take_in(container, Lines(stream, piece, at_ns), limit)

    def move(self, container: str, stream: Stream, pipe: int, moved: Callable[[bool], None], at_ns: int) -> None:
        """Move what is in a pipe to a raw log. Nobody may read or close the pipe until `moved` was called, from
        `acknowledge`: with True if there may be more, now or later, with False at its end.
        """
        self._take_in(container, Move(stream, pipe, at_ns, moved))

    def put(self, container: str, stream: Stream, data: bytes, at_ns: int) -> None:
        """Take bytes for a raw log. Never waits; where there is no room, drops them and counts their lines."""
        self._take_in(container, Bytes(stream, data, at_ns), OVERDRAFT_MAX_BYTES)

    def end(self, container: str) -> None:
        """No more lines will come: who follows its log reads the rest, and is done."""
        with self._changed:
            is_written = container not in self._queue and container not in self._in_flight
        if is_written:  # as most that end have been for a while: the thread need not be woken
            self._end(container)
        else:
            self._take_in(container, Call(lambda: self._end(container)))

    def remove(self, container: str) -> None:
        """Its log goes, with all that it holds, once those who read it have read it, or another container has its name.

        docker-py's `containers.run(remove=True)` reads what a container has said after it has removed it.
        """
        self._policies.pop(container, None)
        self._ended.discard(container)
        self._left.add(container)
        self._take_in(container, Call(lambda: self._end(container)))
        if container not in self._readers:
            self._clear(container)

    def _clear(self, container: str) -> None:
        """What was removed is there for nobody any more."""
        if container in self._left:
            self._left.remove(container)
            self._take_in(container, Call(_nothing, partial(self._store.remove, container)))

    def rename(self, container: str, to: str) -> None:
        """Its log is another container's, who has none. Who follows it reads to its end, and is done."""
        if container in self._policies:
            self._policies[to] = self._policies.pop(container)
        self._ended.discard(container)
        is_left = to in self._left
        self._left.discard(to)

        def do() -> None:
            if is_left:
                self._store.remove(to)
            self._store.rename(container, to)

        self._take_in(container, Call(lambda: self._end(container), do))

    def limit(self, max_total_bytes: int | None) -> None:
        """All logs together have another limit: what is over it goes, once what was taken before is written."""
        self._take_in(_ALL, Call(_nothing, partial(self._store.limit, max_total_bytes)))

    def policy(self, container: str) -> LogPolicy:
        """How its output is kept."""
        return self._policies.get(container, _NO_LOG)

    def _take_in(self, container: str, entry: Entry, limit: float = math.inf) -> None:
        size = _size(entry)
        with self._changed:
            if self._abandoned or self._size + size > limit:
                self._lose(container, _lines(entry))
            else:
                self._queue.setdefault(container, []).append(entry)
                self._size += size
                self._changed.notify()

    async def aclose(self, limit_s: float = CLOSE_MAX_S) -> None:
        """Flush for at most `limit_s`, and tell what was not written."""
        for container in sorted(self._left):
            self._clear(container)
        with self._changed:
            self._closing = True
            self._changed.notify()
        with anyio.move_on_after(limit_s, shield=True):
            while not self._flushed():
                await anyio.wait_readable(self._wake)
                self.acknowledge()
        if not self._abandoned:
            self._leave()

    def _flushed(self) -> bool:
        with self._changed:
            self._awaited = True
            return not self._queue and not self._in_flight

    def _leave(self) -> None:
        with self._changed:
            self._abandoned = True
            for queue in (self._in_flight, self._queue):
                for container, entries in queue.items():
                    self._lose(container, sum(map(_lines, entries)))
            self._queue = {}
            self._calls += self._losses()
            self._changed.notify()
        self.acknowledge()
        os.close(self._wake)

    # Reading.

    @contextlib.contextmanager
    def reading(self, container: str) -> Iterator[None]:
        """Somebody reads its log, or is about to: see `remove`."""
        self._readers[container] += 1
        try:
            yield
        finally:
            self._readers[container] -= 1
            if not self._readers[container]:
                del self._readers[container]
                self._clear(container)

    async def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        since: float | None = None,
        until: float | None = None,
        last: int | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """Its lines, oldest first: those on disk, and with `follow` those that come until its log ends. LogError.

        Whoever leaves it early closes it (contextlib.aclosing).
        """
        await self._flush(container)
        followed = self._follow(container) if follow else None
        lines = reader.lines(self.directory / container, followed, since=since, until=until, last=last)
        try:
            async for line in lines:
                yield line
        finally:
            await lines.aclose()
            if followed:
                self._unfollow(container, followed)

    async def _flush(self, container: str) -> None:
        """Wait, within reason, for what it has written to be on disk."""
        if container in self._queue or container in self._in_flight:
            written = anyio.Event()
            self._take_in(container, Call(written.set))
            with anyio.move_on_after(FLUSH_MAX_S):
                await written.wait()

    def _follow(self, container: str) -> Followed:
        followed = Followed()
        if container in self._ended or container not in self._policies:
            followed.end()
        self._followed.setdefault(container, set()).add(followed)
        return followed

    def _unfollow(self, container: str, followed: Followed) -> None:
        self._followed[container].remove(followed)
        if not self._followed[container]:
            del self._followed[container]

    def _end(self, container: str) -> None:
        if container in self._policies:
            self._ended.add(container)
        for followed in self._followed.get(container, ()):
            followed.end()

    def _news(self, container: str) -> None:
        for followed in self._followed.get(container, ()):
            followed.news()

    # The thread: what follows runs there, or under the lock.

    def _run(self) -> None:
        try:
            self._store.load()
            packing = False
            while self._take(wait=not packing):
                packing = self._store.pack(self._write_all())
        except Exception as bug:  # noqa: BLE001 -- the loop raises it
            self._fail(bug)

    def _fail(self, bug: Exception) -> None:
        """A mistake of ours: the loop raises it too, and all is torn down."""

        def fail() -> None:
            raise RuntimeError("the thread that writes logs has failed") from bug

        with self._changed:
            self._calls.append(fail)
            self._wake_loop()

    def _take(self, *, wait: bool) -> bool:
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._queue or self._closing or self._abandoned)
            self._in_flight, self._queue = self._queue, {}
            return bool(self._in_flight) or not (self._closing or self._abandoned)

    def _write_all(self) -> int:
        before_bytes = self.written_bytes
        errors: list[tuple[str, OSError]] = []
        for container, entries in list(self._in_flight.items()):
            outcome = self._write(container, entries)
            errors += [(container, outcome.error)] if outcome.error else []
            self._settle(container, entries, outcome)
        self._report(errors, self.written_bytes - before_bytes)
        return self.written_bytes - before_bytes

    def _write(self, container: str, entries: list[Entry]) -> "_Outcome":
        """Everything for one container, in order."""
        outcome = _Outcome()
        for kind, some in groupby(entries, type):
            if kind is Lines:
                self._append(container, cast("Iterable[Lines]", some), outcome)
            elif kind is Move:
                for each in cast("Iterable[Move]", some):
                    outcome.calls.append(partial(each.moved, self._move(container, each, outcome)))
            elif kind is Bytes:
                for data in cast("Iterable[Bytes]", some):
                    self._put(container, data, outcome)
            else:
                for call in cast("Iterable[Call]", some):
                    if call.do is not None:
                        call.do()
                    outcome.calls.append(call.call)
        return outcome

    def _append(self, container: str, batch: Iterable[Lines], outcome: "_Outcome") -> None:
        try:
            self.written_bytes += self._store.append(container, self._policies.get(container, LogPolicy()), batch)
        except UnwrittenError as unwritten:
            outcome.failed(unwritten)

    def _put(self, container: str, data: Bytes, outcome: "_Outcome") -> None:
        try:
            self.written_bytes += self._store.put(container, self.policy(container), data.stream, data.data, data.at_ns)
        except UnwrittenError as unwritten:
            outcome.failed(unwritten)

    def _move(self, container: str, move: Move, outcome: "_Outcome") -> bool:
        """As much as is there; False at the end of the pipe."""
        policy, left = self._policies.get(container, LogPolicy()), MOVE_MAX_BYTES
        try:
            while left > 0:
                moved = self._store.move(container, policy, move.stream, move.pipe, move.at_ns)
                self.written_bytes += moved
                left -= moved
                if not moved:
                    return False
        except BlockingIOError:
            pass
        except UnwrittenError as unwritten:
            outcome.failed(unwritten)
        return True

    def _settle(self, container: str, entries: list[Entry], outcome: "_Outcome") -> None:
        with self._changed:
            if self._abandoned:
                return
            del self._in_flight[container]
            self._size -= sum(map(_size, entries))
            self._lose(container, outcome.lost_lines)
            if container in self._followed:
                self._calls.append(partial(self._news, container))
            self._calls += outcome.calls
            self._wake_if_awaited()

    def _report(self, errors: list[tuple[str, OSError]], written_bytes: int) -> None:
        with self._changed:
            self._calls += self._repairs()
            if errors and not self._failing:
                self._failing = True
                self._complain(*errors[0])
            if not errors and (written_bytes or not self._failing):
                self._failing = False
                if self._untold and time.monotonic() >= self._told_at_s + TELL_EVERY_S:
                    self._told_at_s = time.monotonic()
                    self._calls += self._losses()
            if self._calls:
                self._wake_loop()
            self._wake_if_awaited()

    def _complain(self, container: str, error: OSError) -> None:
        """Not again and again: a disk that is all but full takes a short line, and then no long one."""
        if time.monotonic() >= self._complained_at_s + TELL_EVERY_S:
            self._complained_at_s = time.monotonic()
            self._calls.append(self._saying("log_failed", container, error=error.strerror))

    def _repairs(self) -> list[Callable[[], None]]:
        repairs, self._store.repairs = self._store.repairs, []
        return [
            self._saying("log_repaired", container, done=repair.done, size_bytes=repair.size_bytes)
            for container, repair in repairs
        ]

    def _losses(self) -> list[Callable[[], None]]:
        untold, self._untold = self._untold, Counter()
        return [self._saying("log_lost", container, lines=lines) for container, lines in untold.items()]

    def _saying(self, event: str, container: str, **fields: object) -> Callable[[], None]:
        return partial(self._tell, event, container=container, level="warning", **fields)

    def _lose(self, container: str, lines: int) -> None:
        if lines:
            self.lost_lines[container] += lines
            self._untold[container] += lines

    def _wake_if_awaited(self) -> None:
        if self._awaited and self._size <= BUFFER_MAX_BYTES // 2:
            self._awaited = False
            self._wake_loop()

    def _wake_loop(self) -> None:
        if not self._abandoned:
            os.eventfd_write(self._wake, 1)


@dataclass(slots=True)
class _Outcome:
    """What came of the entries of one container."""

    lost_lines: int = 0
    error: OSError | None = None
    calls: list[Callable[[], None]] = field(default_factory=list)

    def failed(self, unwritten: UnwrittenError) -> None:
        self.lost_lines += unwritten.lines
        self.error = unwritten.error


def _nothing() -> None:
    pass


def _lines(entry: Entry) -> int:
    return _data(entry).count(b"\n")


def _size(entry: Entry) -> int:
    return len(_data(entry)) + ENTRY_BYTES if isinstance(entry, Lines | Bytes) else 0


def _data(entry: Entry) -> bytes:
    if isinstance(entry, Lines):
        return entry.piece.lines
    return entry.data if isinstance(entry, Bytes) else b""
