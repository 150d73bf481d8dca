"""A place in a log, as a reader sees its directory. Everything here blocks: it is called in worker threads.

The place is a file's number and an offset in it. A file is read up to its last newline. At its end, a later file says
that this one is complete: so the cursor looks for a later one first, then reads once more, and only then goes on to it.
The file stays open while it is read, so that its removal or compression takes nothing away. One that is compressed is
unpacked into a file without a name beside it, so that all else can take any file at any place.

Damage is skipped and counted. The times in one file never go back (supervisor.logs.shelf), so `since` is searched for
by halves, and `last` from the end by blocks.
"""

import math
import os
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from supervisor.commands import LogLine
from supervisor.logs import cri
from supervisor.logs.cri import Parsed
from supervisor.logs.files import LogFile, listed
from supervisor.streams.lines import Stream

BLOCK_BYTES = 256 * 1024  # more than the longest line


class Form(Protocol):
    """How lines look. `file_ns` is when their file was last changed."""

    timed: bool

    def parsed(self, block: bytes, file_ns: int) -> Parsed: ...


class Stamped:
    """supervisor.logs.cri"""

    timed = True

    def parsed(self, block: bytes, file_ns: int) -> Parsed:  # noqa: ARG002 -- Form's signature
        return cri.parsed(block)


class Raw:
    """Lines of one stream as they came: their time is their file's."""

    timed = False

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def parsed(self, block: bytes, file_ns: int) -> Parsed:
        return Parsed([LogLine(file_ns, self._stream, text) for text in block[:-1].split(b"\n")], 0)


class Cursor:
    """Stands before the oldest line that is not before `since_ns`."""

    def __init__(self, directory: Path, form: Form, *, since_ns: float = -math.inf, until_ns: float = math.inf) -> None:
        self.damaged = 0
        self._directory = directory
        self._form = form
        self._since_ns = since_ns
        self._until_ns = until_ns
        self._number = -1
        self._file: IO[bytes] | None = None
        self._offset = 0
        self._begun = b""  # raw: of a line that goes on in the next file
        self._end = (math.inf, math.inf)  # the last file to be read, and how much of it

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def end_here(self) -> None:
        """Read no more than there is now: however fast more comes, it is not of what was asked for."""
        files = listed(self._directory)
        if not files:
            self._end = (-1, 0)
            return
        with suppress(FileNotFoundError):  # it was compressed just now: there is another after it
            size = math.inf if files[-1].packed else (self._directory / files[-1].name).stat().st_size
            self._end = (files[-1].number, size)

    def seek_last(self, count: int) -> None:
        """Go on to the last `count` lines."""
        for file in reversed(self._listed()):
            if self._open(file):
                lacking = self._back(count)
                if lacking is None:
                    return
                count = lacking

    def lines(self) -> list[LogLine] | None:
        """Some more lines, if only none of a block that has none to give; None at the present end."""
        while not (block := self._block()):
            later = next((file for file in self._listed() if file.number > self._number), None)
            if block := self._block():  # what came before the later file did
                break
            if later is None:
                return None
            self._leave()
            self._open(later)
        return self._wanted(block)

    def rest(self) -> list[LogLine]:
        """Of a raw log that will get no more: a last line without a newline."""
        self._leave()
        begun, self._begun = self._begun, b""
        return self._wanted(begun + b"\n") if begun else []

    # Going through a file.

    def _listed(self) -> list[LogFile]:
        return [file for file in listed(self._directory) if file.number <= self._end[0]]

    def _open(self, file: LogFile) -> bool:
        """Stand before what is wanted of it. False if it is gone."""
        found = self._opened(file)
        self._number, self._offset = file.number, 0
        if found:
            self.close()
            self._file = found
            self._offset = self._first_wanted()
        return found is not None

    def _opened(self, file: LogFile) -> IO[bytes] | None:
        for packed in (file.packed, True):  # it may have been compressed since it was listed
            with suppress(FileNotFoundError):
                source = (self._directory / LogFile(file.number, packed).name).open("rb", buffering=0)
                return self._unpacked(source) if packed else source
        return None

    def _unpacked(self, source: IO[bytes]) -> IO[bytes]:
        times = os.fstat(source.fileno())
        target = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 (whoever reads it closes it)
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)  # 16: a gzip file
        with source:
            try:
                while chunk := source.read(BLOCK_BYTES):
                    _write_all(target, unpacker.decompress(chunk))
            except zlib.error:
                pass  # what came before is good
        self.damaged += not unpacker.eof
        os.utime(target.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
        return target

    def _block(self) -> bytes:
        """What follows, up to a newline; empty if there is no such."""
        while self._file:
            block = self._read(self._offset, BLOCK_BYTES)
            if not block and self._size_bytes() < self._offset:  # somebody has emptied it
                self._offset = 0
                continue
            if end := block.rfind(b"\n") + 1:
                self._offset += end
                begun, self._begun = self._begun, b""
                return begun + block[:end]
            if len(block) < BLOCK_BYTES:
                break
            self._offset += len(block)
            if not self._form.timed:
                return block + b"\n"  # a line without end is given in parts
            self.damaged += 1
        return b""

    def _leave(self) -> None:
        """What stands after the last newline goes on in the next file, or is damaged."""
        if self._file and (torn := self._read(self._offset, BLOCK_BYTES)):
            if self._form.timed:
                self.damaged += 1
            else:
                self._begun += torn
        self.close()

    def _wanted(self, block: bytes) -> list[LogLine]:
        lines, damaged = self._form.parsed(block, self._changed_ns())
        self.damaged += damaged
        if lines and lines[-1].at_ns > self._until_ns and self._form.timed:
            self._offset = self._size_bytes()  # nothing that follows in it is wanted
        return [line for line in lines if self._since_ns <= line.at_ns <= self._until_ns]

    def _size_bytes(self) -> int:
        if not self._file:
            return 0
        size = os.fstat(self._file.fileno()).st_size
        return int(min(size, self._end[1])) if self._number == self._end[0] else size

    def _changed_ns(self) -> int:
        return os.fstat(self._file.fileno()).st_mtime_ns if self._file else 0

    # Searching.

    def _first_wanted(self) -> int:
        """Where to begin: all before is older than `since`, and not much that follows is."""
        if self._since_ns == -math.inf:
            return 0
        if self._changed_ns() < self._since_ns:
            return self._size_bytes()
        return self._before(self._since_ns) if self._form.timed else 0

    def _before(self, at_ns: float) -> int:
        """The start of a line, at most a few blocks before the first that is not before `at_ns`."""
        low, high = 0, self._size_bytes()
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            offset, found = self._line_after(middle)
            if found is not None and found.at_ns < at_ns and offset > low:
                low = offset
            else:
                high = middle
        return low

    def _line_after(self, offset: int) -> tuple[int, LogLine | None]:
        """The first sane line that begins after there, within a block."""
        block = self._read(offset, BLOCK_BYTES)
        at = block.find(b"\n") + 1
        while at and (end := block.find(b"\n", at)) >= 0:
            if found := self._form.parsed(block[at : end + 1], 0).lines:
                return offset + at, found[0]
            at = end + 1
        return offset, None

    def _back(self, count: int) -> int | None:
        """Stand before the last `count` lines of the file; returns how many are missing, if the file has no line before
        them: the first may then have begun in the file before.
        """
        start, at, rest = self._offset, self._size_bytes(), b""
        while at > start:
            size = min(BLOCK_BYTES, at - start)
            at -= size
            block = self._read(at, size) + rest
            first = block.find(b"\n") + 1 if at > start else 0
            end = len(block)
            while end > first:
                begin = max(first, block.rfind(b"\n", first, end - 1) + 1)
                if self._counts(block[begin:end]):
                    if not count:
                        self._offset = at + end
                        return None
                    count -= 1
                end = begin
            rest = block[:first] if first else (block if at > start else b"")
        return count

    def _counts(self, text: bytes) -> bool:
        """A line that was cut counts once, with its end."""
        if not text.endswith(b"\n"):
            return False
        return any(
            not line.partial and self._since_ns <= line.at_ns <= self._until_ns
            for line in self._form.parsed(text, self._changed_ns()).lines
        )

    def _read(self, offset: int, size: int) -> bytes:
        if self._number == self._end[0]:
            size = int(max(0, min(size, self._end[1] - offset)))
        return os.pread(self._file.fileno(), size, offset) if self._file else b""


def _write_all(target: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]
