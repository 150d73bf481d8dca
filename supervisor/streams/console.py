"""Where everything is written: whole lines, in the order given, to one descriptor, without blocking the loop.

The writes are plain blocking ones, in a thread. O_NONBLOCK is no way out: it belongs to the open file description,
which the user's shell shares (open(2)). A write to a paused terminal or pager may never return, so the thread is a
daemon of our own: anyio's workers are joined when the interpreter exits, which would hang it.

What waits has two limits. From BUFFER_MAX_BYTES on, `room()` holds those back who can wait: the readers, and so the
containers that write too much. What can't wait (events, the last words of a run that has ended) is taken up to
OVERDRAFT_MAX_BYTES; beyond that lines are dropped whole, counted, and said. Half of that is open to readers who look
for a word on which a decision hangs.

The thread sleeps until there is something to write. It wakes the loop, through an eventfd, only where someone waits
or should know. Lines that gather while it writes leave together in the next write.

An error of the descriptor is told once. A full disk may pass: lines are dropped until it does. After any other
(EPIPE, EIO) nobody reads any more: `on_gone` is called, so that the stack can be stopped, and all else is dropped.
"""

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Self

import anyio

from runtime.errors import PysupError
from supervisor.streams.writing import begin_thread

BUFFER_MAX_BYTES = 1024 * 1024
OVERDRAFT_MAX_BYTES = 32 * 1024 * 1024
WRITE_MAX_BYTES = 256 * 1024  # one write(2): what may be in flight, its fate unknown, when a paused terminal is left
CLOSE_MAX_S = 2.0

_PASSING = {errno.ENOSPC, errno.EDQUOT}


class ConsoleGoneError(PysupError):
    """Nobody reads our output any more: the pipe's reader went away, the terminal hung up."""


class Console:
    """The one writer. As an async context manager it flushes at its end, for at most CLOSE_MAX_S.

    At most one task at a time waits in `room()` or `aclose()`.
    """

    def __init__(self, fd: int, *, stderr: int = 2) -> None:
        self._fd = fd
        self._stderr = stderr
        self._on_gone: Callable[[ConsoleGoneError], None] = lambda _error: None
        self._on_lost: Callable[[int], None] = lambda _lines: None

        self._changed = threading.Condition()  # guards what follows; held for a few instructions only
        self._queue: list[bytes] = []
        self._afterwards: list[Callable[[], None]] = []  # to be called when the queue is written
        self._calls: list[Callable[[], None]] = []  # when what is in flight is
        self._batch, self._written = b"", 0  # in flight: what was last taken from the queue, and how far it got
        self._size = 0  # bytes not yet written, in the queue and in flight
        self._lost_lines = self._told_lost_lines = 0
        self._failing = False  # the disk is full: no use in telling, the telling would be lost too
        self._gone = False
        self._untold_gone: OSError | None = None
        self._awaited = False  # the loop wants to be woken when there is room
        self._closing = False
        self._abandoned = False  # the loop has left; the thread may not touch the eventfd again
        self._torn = False  # a failed write left a line without its end
        self._complained = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = begin_thread("pysup console", self._run)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def listen(self, *, on_gone: Callable[[ConsoleGoneError], None], on_lost: Callable[[int], None]) -> None:
        """Have the loop told: once, that nobody reads any more; and of lines dropped, when there is room to say so."""
        self._on_gone, self._on_lost = on_gone, on_lost

    def fileno(self) -> int:
        """Readable when `acknowledge()` has something to do."""
        return self._wake

    def acknowledge(self) -> None:
        """Tell the listeners what the thread found."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        with self._changed:
            gone, self._untold_gone = self._untold_gone, None
            lost_lines = 0 if self._failing or self._gone else self._lost_lines - self._told_lost_lines
            self._told_lost_lines += lost_lines
        if gone:
            self._on_gone(ConsoleGoneError(f"standard output: {gone.strerror}: nobody reads it any more"))
        elif lost_lines:
            self._on_lost(lost_lines)

    def write(self, lines: bytes) -> None:
        """Take whole lines. Never waits; where there is no room, or nobody to read, drops them and counts."""
        if not lines:  # an empty batch is how the thread ends
            return
        with self._changed:
            if self._gone or self._abandoned or self._size + len(lines) > OVERDRAFT_MAX_BYTES:
                self._lost_lines += lines.count(b"\n")
            else:
                self._queue.append(lines)
                self._size += len(lines)
                self._changed.notify()

    def lose(self, lines: bytes) -> None:
        """Count lines that were not worth waiting for."""
        with self._changed:
            self._lost_lines += lines.count(b"\n")

    def has_room(self) -> bool:
        """Do less than BUFFER_MAX_BYTES wait to be written? If not, `fileno()` is readable when there is room again."""
        if self._size < BUFFER_MAX_BYTES:
            return True
        with self._changed:
            self._awaited = self._awaited or self._size >= BUFFER_MAX_BYTES
            return self._size < BUFFER_MAX_BYTES

    def has_overdraft(self) -> bool:
        """Is there room at least for what should not wait?"""
        return self._size < OVERDRAFT_MAX_BYTES // 2

    async def room(self) -> None:
        """Return when there is room: as a rule at once."""
        while not self.has_room():
            await self._word()

    def nudge(self) -> None:
        """Make `fileno()` readable, for whoever sleeps on it."""
        os.eventfd_write(self._wake, 1)

    def afterwards(self, call: Callable[[], None]) -> None:
        """Have the thread call this, once, when all that was taken so far is written."""
        with self._changed:
            self._afterwards.append(call)
            self._changed.notify()

    async def aclose(self, limit_s: float = CLOSE_MAX_S) -> int:
        """Flush for at most `limit_s`, say what was not written, and return how many lines never were."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        with anyio.move_on_after(limit_s, shield=True):
            await self._until(lambda: self._size == 0)
        if unwritten_lines := self._leave():
            _say(self._stderr, f"standard output is paused: up to {unwritten_lines} lines were not written")
        return self._lost_lines

    async def _until(self, done: Callable[[], bool]) -> None:
        while True:
            with self._changed:
                if done():
                    return
                self._awaited = True
            await self._word()

    async def _word(self) -> None:
        await anyio.wait_readable(self._wake)
        self.acknowledge()

    def _leave(self) -> int:
        """Give up what is not written, and count it. A write that never returned may still have written some of it."""
        with self._changed:
            if self._abandoned:
                return 0
            self._abandoned = True
            os.close(self._wake)
            return self._drop_all()

    # The thread: what follows runs there, or under the lock.

    def _run(self) -> None:
        while self._take():
            while self._written < len(self._batch):
                try:
                    self._write_some()
                except BlockingIOError:  # somebody else made the terminal non-blocking
                    _wait_writable(self._fd)
                except OSError as error:
                    self._fail(error)
            for call in self._calls:
                call()

    def _take(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._afterwards or self._closing or self._abandoned)
            self._calls, self._afterwards = self._afterwards, []
            if self._torn and self._queue:
                self._queue.insert(0, b"\n")
                self._size += 1
                self._torn = False
            self._batch, self._written = b"".join(self._queue), 0
            self._queue.clear()
            return bool(self._batch or self._calls) or not (self._closing or self._abandoned)

    def _write_some(self) -> None:
        end = _end_of_lines(self._batch, self._written)
        count = os.write(self._fd, memoryview(self._batch)[self._written : end])
        with self._changed:
            if self._abandoned:
                return
            self._written += count
            self._size -= count
            self._failing = False
            if self._size <= BUFFER_MAX_BYTES // 2 and (self._awaited or self._lost_lines > self._told_lost_lines):
                self._wake_loop()

    def _fail(self, error: OSError) -> None:
        with self._changed:
            self._torn = self._written > 0 and self._batch[self._written - 1 : self._written] != b"\n"
            self._failing = error.errno in _PASSING
            if not self._failing:
                self._gone, self._untold_gone = True, error
            self._drop_all()
            if self._awaited or self._gone:
                self._wake_loop()
        if self._failing and not self._complained:
            self._complained = True
            _say(self._stderr, f"standard output: {error.strerror}: lines are dropped until there is room")

    def _drop_all(self) -> int:
        lines = self._batch.count(b"\n", self._written) + sum(lines.count(b"\n") for lines in self._queue)
        self._lost_lines += lines
        self._queue.clear()
        self._batch, self._written, self._size = b"", 0, 0
        return lines

    def _wake_loop(self) -> None:
        self._awaited = False
        if not self._abandoned:
            os.eventfd_write(self._wake, 1)


def _end_of_lines(batch: bytes, start: int) -> int:
    """Where one write ends: after a whole line if it can, since others may write to the same terminal."""
    limit = start + WRITE_MAX_BYTES
    if limit >= len(batch):
        return len(batch)
    return batch.rfind(b"\n", start, limit) + 1 or limit


def _wait_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def _say(stderr: int, text: str) -> None:
    """A line to standard error, which may be the very terminal that is paused: not if it would block."""
    poll = select.poll()
    poll.register(stderr, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(stderr, f"pysup: {text}\n".encode())
