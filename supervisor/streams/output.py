"""Reads what all containers write, and hands it on in whole lines.

Each run has two pipes, one per stream. All of them are in one epoll set, and one task waits for that set (an epoll
descriptor is itself readable when one of its members is): an idle container costs a few hundred bytes and no task.

Nobody is blocked and nobody starves. A ready pipe gives at most CHUNK_BYTES per turn, and epoll hands out ready
descriptors in rotation, so a container that floods gets no more turns than its siblings. When the console is behind,
nothing is read: the pipes fill, and whoever writes too much waits in its own write(2). Only runs whose lines are
watched are read on, for a while: a paused pager is no reason to take a container for not ready or ill. All that is held
per pipe is the beginning of a line (`lines.LINE_MAX_BYTES` at most); everything else is on its way in the console's
buffer.

Order. The lines of one pipe stay in order, always. Of a run's two pipes the kernel tells which one became readable
first, and that one is read first, at the end of a run as well: so what a program writes to one stream and then to the
other comes out in that order, provided that we read in between, or that it changes streams but once. What it does not
tell is how the lines of both lie between one another when we find several in each, as after a burst: then the stream
that began comes first, with all that it has (CHUNK_BYTES at most), and then the other. A write that falls between the
few instructions of a read and the next look counts as later than it was. And whoever buffers a stream, as most
programs do where it is no terminal (stdio(3)), has changed the order before we can see it.

For this the list of ready descriptors must be exact. Level-triggered, and edge-triggered too, a descriptor may keep
the place in it of a line that was read long ago (fs/eventpoll.c, ep_send_events and ep_poll_callback). So each is
armed for one event (EPOLLONESHOT), and again after each read: if there is more, it goes to the end of the list.

A container whose log is raw (`Keeper.moves`) is not read at all: whoever keeps the log moves its bytes from pipe to
file, and says when it is done. Only while somebody has joined its streams are they read here, and given to the log as
they are.

When a run has been reaped, everything it wrote is already in its pipes, for its whole pid namespace died with it
(pid_namespaces(7)). So `drain` takes it at once, paused console or not, and what is reported afterwards comes after
its last line. Only where something outside the container holds the pipe does it wait, for at most DRAIN_MAX_S.
"""

import errno
import math
import os
import select
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from functools import partial
from typing import Protocol, Self

import anyio
import anyio.lowlevel

from supervisor.streams.console import Console, ConsoleGoneError
from supervisor.streams.lines import LINE_MAX_BYTES, Cutter, LineForm, Piece, Stream
from supervisor.streams.watch import Watch

CHUNK_BYTES = LINE_MAX_BYTES  # a pipe's usual capacity; the cutter wants no more than a line's length at a time
READS_PER_TURN = 64  # then the loop's other tasks have their turn
LAST_READS_MAX = 16  # of a dead run's pipe: 1 MiB, the largest a pipe gets (/proc/sys/fs/pipe-max-size)
DRAIN_MAX_S = 1.0
MOVED_PIPE_BYTES = 1024 * 1024  # of a pipe whose bytes are moved: what one system call may take
TAIL_MAX_BYTES = 2048  # kept of each run that has written something
TAIL_LINES_MAX = 10

_ARMED = select.EPOLLIN | select.EPOLLONESHOT


class Keeper(Protocol):
    """Who keeps all lines, too (logs/writer.py). `fileno()` is readable when `acknowledge()` has something to do."""

    def fileno(self) -> int: ...
    def acknowledge(self) -> None: ...
    def has_room(self, container: str) -> bool:
        """May its pipes be read? If not, `fileno()` is readable when there is room again."""
        ...

    def write(self, container: str, stream: Stream, piece: Piece) -> None:
        """Never waits."""
        ...

    def drops(self, container: str) -> bool:
        """Would it rather lose lines than wait?"""
        ...

    def moves(self, container: str) -> bool:
        """Are its bytes to be moved, and not read?"""
        ...

    def move(self, container: str, stream: Stream, pipe: int, moved: Callable[[bool], None]) -> None:
        """Move what is in the pipe, which nobody touches until `moved` is called, by `acknowledge`: with False at its
        end.
        """
        ...

    def put(self, container: str, stream: Stream, data: bytes) -> None:
        """Bytes to be kept as they are, of one whose bytes are moved."""
        ...


Hearer = Callable[[Stream, bytes], None]


class Output:
    """The reader of all containers. `run` is its one task; `close` (or leaving `with`) gives every descriptor back."""

    def __init__(
        self,
        console: Console,
        form: LineForm,
        *,
        on_gone: Callable[[ConsoleGoneError], None],
        on_lost: Callable[[int], None],
        keeper: "Keeper | None" = None,
    ) -> None:
        self._keeper = keeper
        self._console = console
        self._form = form
        self._channels: dict[int, _Channel] = {}
        self._ready: deque[_Channel] = deque()  # what the kernel's list had, in its order
        self._turns = 0  # handed out
        self._epoll = select.epoll()
        self._epoll.register(console.fileno(), select.EPOLLIN)
        if keeper is not None:
            self._epoll.register(keeper.fileno(), select.EPOLLIN)
        console.listen(on_gone=on_gone, on_lost=on_lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if any(map(self._has_room, self._ready)):
                await anyio.lowlevel.checkpoint()
            else:
                await anyio.wait_readable(self._epoll.fileno())
            self._gather()
            self._read_some()

    def attach(
        self,
        container: str,
        stdout: int,
        stderr: int | None,
        watches: tuple[Watch, ...] = (),
        *,
        held: bool = False,
    ) -> "Capture":
        """Read a run's two pipes from now on, or its terminal. The descriptors are ours: nobody else may close them.
        OSError where the kernel can't watch them; then both are closed.

        `held`: not before `begin()`, but in the order in which they became ready from now on.
        """
        return Capture(self, container, stdout, stderr, watches, held=held)

    def close(self) -> None:
        """Take what the remaining runs have written, and close everything. Again is harmless."""
        if not self._epoll.closed:
            for channel in self.in_order(list(self._channels.values())):
                channel.finish()
            self._epoll.close()

    def _gather(self) -> int:
        """Take descriptors over from the kernel's list; returns how many."""
        found = self._epoll.poll(0, READS_PER_TURN)
        for fd, _events in found:
            if fd == self._console.fileno():
                self._console.acknowledge()
            elif self._keeper is not None and fd == self._keeper.fileno():
                self._keeper.acknowledge()
            elif channel := self._channels.get(fd):  # else it was closed by what was acknowledged just now
                self._turns += 1
                channel.turn = self._turns
                if not channel.held:
                    self._ready.append(channel)
        return len(found)

    def _read_some(self) -> None:
        for _ in range(min(len(self._ready), READS_PER_TURN)):
            channel = self._ready.popleft()
            if self._has_room(channel):
                channel.read()
            else:
                self._ready.append(channel)

    def _has_room(self, channel: "_Channel") -> bool:
        """Is there room for what it would write?"""
        if not self._console.has_room() and not self._needs_no_console(channel.container):
            return channel.watched and self._console.has_overdraft()
        return self._keeper is None or self._keeper.has_room(channel.container)

    def _needs_no_console(self, container: str) -> bool:
        keeper = self._keeper
        return keeper is not None and (keeper.drops(container) or keeper.moves(container))

    # For captures and channels.

    def in_order(self, channels: Iterable["_Channel"]) -> list["_Channel"]:
        """By when they became ready; those that are not come last."""
        while self._gather() == READS_PER_TURN:
            pass
        self._go_on()
        return sorted(channels, key=lambda channel: channel.turn or math.inf)

    def admit(self, channels: Iterable["_Channel"]) -> None:
        """These were held, and may have their turns."""
        self._ready += (channel for channel in self.in_order(channels) if channel.turn)
        self._go_on()

    def _go_on(self) -> None:
        """What others gathered does not wake `run` any more: its epoll set is not readable for that."""
        if self._ready:
            self._console.nudge()

    def add(self, channel: "_Channel") -> None:
        os.set_blocking(channel.fd, False)
        if self.keeper_of_raw(channel.container):
            with suppress(OSError):  # a terminal, or there is a limit: it is slower then
                fcntl(channel.fd, F_SETPIPE_SZ, MOVED_PIPE_BYTES)
        self._epoll.register(channel.fd, _ARMED)
        self._channels[channel.fd] = channel

    def rearm(self, channel: "_Channel") -> None:
        self._epoll.modify(channel.fd, _ARMED)

    def remove(self, channel: "_Channel") -> None:
        self._epoll.unregister(channel.fd)
        del self._channels[channel.fd]

    def keeper_of_raw(self, container: str) -> "Keeper | None":
        """Who moves its bytes; None: they are lines."""
        return self._keeper if self._keeper is not None and self._keeper.moves(container) else None

    def write(self, container: str, stream: Stream, piece: Piece) -> None:
        if shown := self._form(container, stream, piece):
            if self._keeper is not None and self._keeper.drops(container) and not self._console.has_room():
                self._console.lose(shown)
            else:
                self._console.write(shown)
        if self._keeper is not None:
            self._keeper.write(container, stream, piece)


class Capture:
    """The output of one run."""

    __slots__ = ("_channels", "_ended", "_tail", "container", "held", "listeners", "output", "watches")

    def __init__(
        self,
        output: Output,
        container: str,
        stdout: int,
        stderr: int | None,
        watches: tuple[Watch, ...] = (),
        *,
        held: bool = False,
    ) -> None:
        self.output = output
        self.container = container
        self.held = held
        self.watches = watches  # those that still want to see lines
        self.listeners: tuple[Hearer, ...] = ()  # who gets the bytes as they come
        self._tail = b""
        self._ended: anyio.Event | None = None  # made when someone waits: most runs never need it
        self._channels = self._open(stdout, stderr)

    def _open(self, stdout: int, stderr: int | None) -> tuple["_Channel", ...]:
        pipes = [(Stream.STDOUT, stdout)] + ([] if stderr is None else [(Stream.STDERR, stderr)])
        made: list[_Channel] = []
        try:
            for stream, fd in pipes:
                made.append(_Channel(self, stream, fd))
        except OSError:
            for channel in made:
                self.output.remove(channel)
            for _, fd in pipes:
                os.close(fd)
            raise
        return tuple(made)

    def begin(self) -> None:
        """Read what was held until now."""
        self.held = False
        self.output.admit(self._channels)

    async def drain(self, limit_s: float = DRAIN_MAX_S) -> bool:
        """After the run was reaped: pass on its last lines and close its pipes, whatever happens.

        False if end-of-file had not come after `limit_s`: something outside the container holds a pipe open.
        """
        try:
            for channel in self.output.in_order(self._channels):
                channel.read_ahead()
            if not self.at_end():
                self._ended = anyio.Event()
                with anyio.move_on_after(limit_s):
                    await self._ended.wait()
            return self.at_end()
        finally:
            self.close()

    def close(self) -> None:
        """Pass on what is there, and close both pipes. Again is harmless."""
        if not self.at_end():
            for channel in self.output.in_order(self._channels):
                channel.finish()

    def at_end(self) -> bool:
        return all(channel.fd < 0 for channel in self._channels)

    def tail(self) -> tuple[str, ...]:
        """The last lines, of both streams, oldest first; the first may be the end of a long one."""
        lines = self._tail.decode(errors="backslashreplace").splitlines()
        return tuple(lines[-TAIL_LINES_MAX:])

    def hear(self, stream: Stream, chunk: bytes) -> None:
        """Pass bytes on, to who listens to this run."""
        for listener in self.listeners:
            listener(stream, chunk)

    def write(self, stream: Stream, piece: Piece) -> None:
        """Pass lines on, to the console and to who watches for some."""
        self.output.write(self.container, stream, piece)
        self._tail = _ended_with(self._tail, piece.lines)
        for watch in self.watches:
            if watch.see(piece.lines):
                self.watches = tuple(other for other in self.watches if other is not watch)

    def channel_ended(self) -> None:
        if self._ended and self.at_end():
            self._ended.set()


class _Channel:
    """One pipe: open while `fd` is not -1."""

    __slots__ = ("_capture", "_cutter", "_moves", "_stream", "fd", "turn")

    def __init__(self, capture: Capture, stream: Stream, fd: int) -> None:
        self._capture = capture
        self._stream = stream
        self._cutter = Cutter()
        self._moves = 0  # asked for, and not done yet
        self.fd = fd
        self.turn = 0  # when it became ready, among all channels; 0: it is not, as far as we know
        capture.output.add(self)

    @property
    def held(self) -> bool:
        return self._capture.held

    @property
    def container(self) -> str:
        return self._capture.container

    @property
    def watched(self) -> bool:
        return bool(self._capture.watches)

    def read(self) -> bool:
        """Take one chunk; False if there was none, or it is taken for us."""
        if self.fd < 0 or self._moves:  # closed while it waited for its turn
            return False
        keeper = self._capture.output.keeper_of_raw(self.container)
        if keeper is not None and not self._capture.listeners:
            self._move(keeper)
            return False
        chunk = _read_chunk(self.fd)
        if chunk == b"":
            self._end()
            return False
        self.turn = 0
        self._capture.output.rearm(self)
        if chunk is None:
            return False
        self._capture.hear(self._stream, chunk)
        if keeper is not None:
            keeper.put(self.container, self._stream, chunk)
            return True
        for piece in self._cutter.feed(chunk):
            self._write(piece)
        return True

    def _move(self, keeper: Keeper) -> None:
        if held := self._cutter.taken():  # of a line, from when lines were kept
            keeper.put(self.container, self._stream, held)
        self._moves += 1
        keeper.move(self.container, self._stream, self.fd, partial(self._moved, self.fd))

    def _moved(self, fd: int, more: bool) -> None:
        self._moves -= 1
        if self.fd < 0:
            if not self._moves:
                os.close(fd)
        elif more:
            self.turn = 0
            self._capture.output.rearm(self)
        else:
            self._end()

    def read_ahead(self) -> None:
        """Take what is in the pipe now, without a turn of the loop."""
        for _ in range(LAST_READS_MAX):
            if not self.read():
                return

    def finish(self) -> None:
        self.read_ahead()
        if self.fd < 0:
            return
        if keeper := self._capture.output.keeper_of_raw(self.container):
            self._move(keeper)  # the last: once it is done, the pipe is closed
            self._leave()
        else:
            self._end()

    def _end(self) -> None:
        for piece in self._cutter.end():
            self._write(piece)
        fd = self.fd
        self._leave()
        os.close(fd)

    def _leave(self) -> None:
        self._capture.output.remove(self)
        self.fd = -1
        self._capture.channel_ended()

    def _write(self, piece: Piece) -> None:
        self._capture.write(self._stream, piece)


def _ended_with(tail: bytes, lines: bytes) -> bytes:
    """The end of both, not cut within a line if that can be helped."""
    if len(lines) < TAIL_MAX_BYTES:
        lines = tail + lines
    if len(lines) <= TAIL_MAX_BYTES:
        return lines
    first = lines.find(b"\n", -TAIL_MAX_BYTES - 1, -1) + 1
    return lines[first or -TAIL_MAX_BYTES :]


def _read_chunk(fd: int) -> bytes | None:
    """None if there is nothing now; empty at end-of-file, which a pty tells by EIO."""
    try:
        return os.read(fd, CHUNK_BYTES)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""
