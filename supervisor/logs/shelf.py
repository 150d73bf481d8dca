"""One directory of a log as its writer sees it. Everything here blocks: it belongs to the writer's thread.

A file is opened for each write and closed after it (about 5 µs): a stack of thousands of containers holds no
descriptor for those that are silent, and what an operator removed or cut meanwhile is noticed. A missing directory is
made again, and its numbers go on.

A file ends with a whole line, always: what a full disk lets us write of a line is cut off again. Only a crash leaves a
torn line; the next writer completes it, if at least its head is there, or cuts it off.

The times in one file never go back, so that readers can search it. When the clock is set back a new file is begun; a
step of less than CLOCK_STEP_NS is not worth one, and time stands still for so long.
"""

import errno
import os
import select
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.logs import cri
from supervisor.logs.files import PART, LogFile, listed, remove_remains
from supervisor.logs.policy import LogPolicy
from supervisor.streams.lines import LINE_MAX_BYTES, Piece, Stream

CLOCK_STEP_NS = cri.SECOND_NS
TAIL_BYTES = 4 * LINE_MAX_BYTES  # of a file that is looked at for its last line
PACK_STEP_BYTES = 256 * 1024  # a few milliseconds of compression
PACK_LEVEL = 1  # logs shrink to a tenth with it; a better one costs far more than it gives
MOVE_MAX_BYTES = 1024 * 1024  # the largest that a pipe gets (/proc/sys/fs/pipe-max-size)

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class UnwrittenError(Exception):
    """The disk did not take so many lines."""

    def __init__(self, lines: int, error: OSError) -> None:
        super().__init__(lines, error)
        self.lines = lines
        self.error = error


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done about a torn last line: it lost or got so many bytes."""

    done: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """A complete file."""

    file: LogFile
    size_bytes: int
    at_ns: int  # its last change


class Shelf:
    """A directory and the file that is written to: `number`, of `size_bytes` so far."""

    def __init__(self, directory: Path, policy: LogPolicy, *, stamped: bool = True) -> None:
        self.policy = policy
        self.repaired: Repair | None = None
        self.rotated: deque[Rotated] = deque()  # the oldest first
        self.number = 0
        self.size_bytes = 0
        self._directory = directory
        self._last_ns = 0
        self._given = -1  # to be compressed, the last
        self._load(stamped=stamped)

    @property
    def total_bytes(self) -> int:
        return self.size_bytes + sum(each.size_bytes for each in self.rotated)

    # Writing.

    def stamped(self, at_ns: int, stream: Stream, piece: Piece) -> bytes:
        """The piece as it will stand here."""
        return cri.stamped(max(at_ns, self._last_ns), stream, piece)

    def clock(self, at_ns: int) -> bool:
        """Take note of the time. True if it went back so far that a new file is needed before the next line."""
        back = self._last_ns - at_ns >= CLOCK_STEP_NS
        self._last_ns = at_ns if back else max(at_ns, self._last_ns)
        return back

    def append(self, data: bytes) -> None:
        """Write whole lines. UnwrittenError if some, or all, could not be."""
        at = 0
        try:
            while at < len(data):
                if end := self._fitting(data, at):
                    at += self._write(memoryview(data)[at:end])
                else:
                    self.rotate()
        except OSError as error:
            raise UnwrittenError(data.count(b"\n", at), error) from error

    def move(self, pipe: int) -> int:
        """splice(2) what is in the pipe to the file; returns how many bytes, 0 at end-of-file. BlockingIOError if there
        is nothing now.
        """
        if self.size_bytes >= self.policy.max_size_bytes:
            self.rotate()
        if not self.size_bytes and not _has_bytes(pipe):  # nothing to make a file for
            return 0
        target = self._open(0)  # splice(2) does not append
        try:
            room = min(MOVE_MAX_BYTES, max(1, self.policy.max_size_bytes - self.size_bytes))
            moved = os.splice(pipe, target, room, offset_dst=self.size_bytes, flags=os.SPLICE_F_NONBLOCK)
            self.size_bytes += moved
            return moved
        finally:
            os.close(target)

    def put(self, data: bytes) -> None:
        """Write bytes as they are. UnwrittenError if some could not be."""
        at = 0
        try:
            while at < len(data):
                if self.size_bytes >= self.policy.max_size_bytes:
                    self.rotate()
                target = self._open(os.O_APPEND)
                try:
                    room = max(1, self.policy.max_size_bytes - self.size_bytes)
                    written = os.write(target, memoryview(data)[at : at + room])
                finally:
                    os.close(target)
                at += written
                self.size_bytes += written
        except OSError as error:
            raise UnwrittenError(data.count(b"\n", at), error) from error

    def rotate(self) -> None:
        """Begin a new file with the next write."""
        if self.size_bytes:
            self.rotated.append(Rotated(LogFile(self.number, packed=False), self.size_bytes, self._last_ns))
            self.number += 1
            self.size_bytes = 0
        while len(self.rotated) >= self.policy.max_files:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Remove the oldest file that is complete. Where it can't be, it is forgotten until the next start."""
        with suppress(OSError):
            (self._directory / self.rotated[0].file.name).unlink()
        self.rotated.popleft()

    def _fitting(self, data: bytes, at: int) -> int:
        """The end of the lines that the file still takes; 0 if it takes none. A new one takes at least one."""
        limit = at + self.policy.max_size_bytes - self.size_bytes
        if limit >= len(data):
            return len(data)
        end = data.rfind(b"\n", at, max(at, limit)) + 1
        return end or (0 if self.size_bytes else data.index(b"\n", at) + 1)

    def _write(self, lines: memoryview) -> int:
        """Returns how much of it was written, in whole lines."""
        target = self._open(os.O_APPEND)
        try:
            written = os.write(target, lines)
            if written < len(lines):
                written = bytes(lines[:written]).rfind(b"\n") + 1
                os.ftruncate(target, self.size_bytes + written)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.size_bytes += written
            return written
        finally:
            os.close(target)

    def _open(self, flags: int) -> int:
        path = self._directory / f"{self.number}.log"
        try:
            target = os.open(path, _CREATE | flags, 0o600)
        except FileNotFoundError:
            self._make()
            target = os.open(path, _CREATE | flags, 0o600)
        self.size_bytes = os.fstat(target).st_size
        return target

    def _make(self) -> None:
        """Also after somebody removed it: what it held is gone, but the numbers go on."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.rotated.clear()

    # Compressing.

    def unpacked(self) -> list[int]:
        """The files that are to be compressed, and were not given here before."""
        if not self.policy.compress or not self.rotated:
            return []
        given, self._given = self._given, self.rotated[-1].file.number
        return [each.file.number for each in self.rotated if not each.file.packed and each.file.number > given]

    def pack(self, number: int) -> Iterator[None]:
        """Compress a file, in steps of a few milliseconds. If it or the room for it goes, so does what was made."""
        source, target = LogFile(number, packed=False), LogFile(number, packed=True)
        part = self._directory / (target.name + PART)
        with suppress(OSError):  # it stays as it is; the next start tries again
            yield from _pack(self._directory / source.name, part)
            for index, each in enumerate(self.rotated):
                if each.file == source:
                    os.utime(part, ns=(each.at_ns, each.at_ns))
                    packed = replace(each, file=target, size_bytes=part.stat().st_size)
                    part.rename(self._directory / target.name)
                    self.rotated[index] = packed
                    (self._directory / source.name).unlink()
        with suppress(OSError):
            part.unlink()

    # What an earlier writer left.

    def _load(self, *, stamped: bool) -> None:
        with suppress(FileNotFoundError):
            remove_remains(self._directory)
        for file in listed(self._directory):
            status = (self._directory / file.name).stat()
            self.rotated.append(Rotated(file, status.st_size, status.st_mtime_ns))
            self.number = file.number + 1
        if self.rotated and not self.rotated[-1].file.packed:
            newest = self.rotated.pop()
            self.number, self.size_bytes, self._last_ns = newest.file.number, newest.size_bytes, newest.at_ns
            if stamped:
                self._repair()

    def _repair(self) -> None:
        target = os.open(self._directory / f"{self.number}.log", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            while torn := (tail := self._tail(target)).rpartition(b"\n")[2]:
                self._mend(target, torn)
            lines = cri.parsed(tail).lines if tail else []
            self._last_ns = lines[-1].at_ns if lines else 0
        finally:
            os.close(target)

    def _tail(self, source: int) -> bytes:
        return os.pread(source, TAIL_BYTES, max(0, self.size_bytes - TAIL_BYTES))

    def _mend(self, target: int, torn: bytes) -> None:
        before_bytes = self.size_bytes
        kept = torn.rstrip(b"\0") + b"\n"
        if cri.parsed(kept).damaged:
            kept = b""
        self.size_bytes += len(kept) - len(torn)
        os.pwrite(target, kept, before_bytes - len(torn))
        os.ftruncate(target, self.size_bytes)
        self.repaired = Repair("completed" if kept else "cut off", abs(self.size_bytes - before_bytes))


def _has_bytes(pipe: int) -> bool:
    """False at end-of-file; BlockingIOError if there is nothing now."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    found = poll.poll(0)
    if not found:
        raise BlockingIOError
    return bool(found[0][1] & select.POLLIN)


def _pack(source: Path, part: Path) -> Iterator[None]:
    packer = zlib.compressobj(PACK_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: a gzip file
    with source.open("rb", buffering=0) as original, open(part, "xb", opener=_private) as packed:
        while chunk := original.read(PACK_STEP_BYTES):
            packed.write(packer.compress(chunk))
            yield
        packed.write(packer.flush())
        packed.flush()
        os.fsync(packed.fileno())  # before the original goes: it may be on the disk long since


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
