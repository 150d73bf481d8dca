"""All logs of a stack as their writer sees them, and the limit that they share. Blocks: the writer's thread owns it.

`max_total_bytes` counts every file, those of containers that the stack no longer has included. What is over it goes:
the oldest complete file of all first; if there is none left, the longest of those that are written to. It is looked at
after each write, so a stack is over its limit by no more than one.

Compression goes on step by step between writes, and keeps pace with them: about as many bytes in a turn as were written
in it, so that what waits for it does not grow.
"""

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from supervisor.logs.policy import LogPolicy
from supervisor.logs.shelf import MOVE_MAX_BYTES, PACK_STEP_BYTES, Repair, Shelf, UnwrittenError
from supervisor.streams.lines import Piece, Stream

# Stamped and written at once. Small, as it is what is held beside the buffer, and as malloc(3) gives larger blocks back
# to the kernel at each free, which costs as much in page faults as all the rest.
WRITE_MAX_BYTES = 64 * 1024


class Lines(NamedTuple):
    """What is to be written to a log."""

    stream: Stream
    piece: Piece
    at_ns: int


class Store:
    """The logs below `directory`."""

    def __init__(self, directory: Path, max_total_bytes: int | None) -> None:
        self.repairs: list[tuple[str, Repair]] = []  # by directory, to be told
        self._directory = directory
        self._max_total_bytes = max_total_bytes
        self._total_bytes = 0
        self._shelves: dict[str, Shelf] = {}
        self._packing: deque[tuple[Shelf, Iterator[None]]] = deque()

    def load(self) -> None:
        """Take stock of what is there already. Without a limit there is no need to, before it is written to."""
        if self._max_total_bytes is None:
            return
        with suppress(OSError):  # told when it is written to
            for name in sorted(path.name for path in self._directory.iterdir()):
                for directory in _directories(name):
                    if directory not in self._shelves and (self._directory / directory).is_dir():
                        self._shelf(directory, LogPolicy())

    def limit(self, max_total_bytes: int | None) -> None:
        """Another limit from now on."""
        self._max_total_bytes = max_total_bytes
        self.load()
        self._limit()

    def append(self, name: str, policy: LogPolicy, batch: Iterable[Lines]) -> int:
        """Write to a log; returns how many bytes. UnwrittenError if some lines could not be."""
        try:
            shelf = self._shelf(name, policy)
        except OSError as error:
            raise UnwrittenError(sum(each.piece.lines.count(b"\n") for each in batch), error) from error
        written_bytes = lost_lines = 0
        failure: OSError | None = None
        with self._settled(shelf):
            for data in _stamped(shelf, batch):
                try:
                    shelf.append(data)
                    written_bytes += len(data)
                except UnwrittenError as unwritten:
                    lost_lines += unwritten.lines
                    failure = unwritten.error
        if failure:
            raise UnwrittenError(lost_lines, failure)
        return written_bytes

    def move(self, name: str, policy: LogPolicy, stream: Stream, pipe: int, at_ns: int) -> int:
        """What is in a pipe, as it is; returns how many bytes, 0 at its end. BlockingIOError if it is empty.

        UnwrittenError if the disk does not take it: then what was in the pipe is gone.
        """
        try:
            shelf = self._shelf(f"{name}/{stream}", policy)
            shelf.clock(at_ns)
            with self._settled(shelf):
                return shelf.move(pipe)
        except BlockingIOError:
            raise
        except OSError as error:
            if data := os.read(pipe, MOVE_MAX_BYTES):
                raise UnwrittenError(data.count(b"\n"), error) from error
            return 0

    def put(self, name: str, policy: LogPolicy, stream: Stream, data: bytes, at_ns: int) -> int:
        """Bytes as they are, to a raw log; returns how many. UnwrittenError if not all could be."""
        try:
            shelf = self._shelf(f"{name}/{stream}", policy)
            shelf.clock(at_ns)
            with self._settled(shelf):
                shelf.put(data)
        except OSError as error:
            raise UnwrittenError(data.count(b"\n"), error) from error
        return len(data)

    def remove(self, name: str) -> None:
        """A log and all its files."""
        self._forget(name)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def rename(self, name: str, to: str) -> None:
        """A log is another container's from now on; one that can't be renamed stays where it is."""
        self._forget(name)
        with suppress(OSError):
            (self._directory / name).rename(self._directory / to)

    def _forget(self, name: str) -> None:
        gone = [shelf for directory in _directories(name) if (shelf := self._shelves.pop(directory, None))]
        self._total_bytes -= sum(shelf.total_bytes for shelf in gone)
        self._packing = deque(each for each in self._packing if each[0] not in gone)

    def pack(self, pace_bytes: int) -> bool:
        """Go on with compression; False if there is none to do."""
        for _ in range(1 + pace_bytes // PACK_STEP_BYTES):
            if not self._packing:
                return False
            shelf, steps = self._packing[0]
            before_bytes = shelf.total_bytes
            if next(steps, steps) is steps:
                self._packing.popleft()
                self._total_bytes += shelf.total_bytes - before_bytes
        return bool(self._packing)

    def _shelf(self, directory: str, policy: LogPolicy) -> Shelf:
        shelf = self._shelves.get(directory)
        if shelf is None:
            shelf = Shelf(self._directory / directory, policy, stamped="/" not in directory)
            self._shelves[directory] = shelf
            self._total_bytes += shelf.total_bytes
            if shelf.repaired:
                self.repairs.append((directory, shelf.repaired))
        shelf.policy = policy
        return shelf

    @contextmanager
    def _settled(self, shelf: Shelf) -> Iterator[None]:
        """See to what follows from a write."""
        before_bytes = shelf.total_bytes
        try:
            yield
        finally:
            self._total_bytes += shelf.total_bytes - before_bytes
            self._packing += ((shelf, shelf.pack(number)) for number in shelf.unpacked())
            self._limit()

    def _limit(self) -> None:
        while self._max_total_bytes is not None and self._total_bytes > self._max_total_bytes:
            full = [shelf for shelf in self._shelves.values() if shelf.rotated]
            shelf = min(full, key=_age_ns) if full else max(self._shelves.values(), key=_length_bytes)
            before_bytes = shelf.total_bytes
            if not full:
                shelf.rotate()
            if shelf.rotated:
                shelf.drop_oldest()
            if shelf.total_bytes == before_bytes:
                return  # there is nothing to remove
            self._total_bytes += shelf.total_bytes - before_bytes


def _directories(name: str) -> tuple[str, ...]:
    """Where a container's logs are: of lines, and of raw streams."""
    return (name, *(f"{name}/{stream}" for stream in Stream))


def _age_ns(shelf: Shelf) -> int:
    return shelf.rotated[0].at_ns


def _length_bytes(shelf: Shelf) -> int:
    return shelf.size_bytes


def _stamped(shelf: Shelf, batch: Iterable[Lines]) -> Iterator[bytes]:
    """A batch in as few writes as its size allows."""
    ready: list[bytes] = []
    size_bytes = 0
    for stream, piece, at_ns in batch:
        back = shelf.clock(at_ns)
        if ready and (back or size_bytes >= WRITE_MAX_BYTES):
            yield b"".join(ready)
            ready, size_bytes = [], 0
        if back:
            shelf.rotate()
        ready.append(shelf.stamped(at_ns, stream, piece))
        size_bytes += len(ready[-1])
    if ready:
        yield b"".join(ready)
