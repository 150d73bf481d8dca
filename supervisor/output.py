"""Reads what all containers write, and hands it on in whole lines.

Each run has two pipes, one per stream. All of them are in one epoll set, and one task waits for that set (an epoll
descriptor is itself readable when one of its members is): an idle container costs a few hundred bytes and no task.

Nobody is blocked and nobody starves. A ready pipe gives at most CHUNK_BYTES per turn, and epoll hands out ready
descriptors in rotation, so a container that floods gets no more turns than its siblings. When the console is behind,
nothing is read: the pipes fill, and whoever writes too much waits in its own write(2). All that is held per pipe is
the beginning of a line (`lines.LINE_MAX_BYTES` at most); everything else is on its way in the console's buffer.

The lines of one pipe stay in order; those of a run's two pipes come in the order in which they were read.

When a run has been reaped, everything it wrote is already in its pipes, for its whole pid namespace died with it
(pid_namespaces(7)). So `drain` takes it at once, paused console or not, and what is reported afterwards comes after
its last line. Only where something outside the container holds the pipe does it wait, for at most DRAIN_MAX_S.
"""

import errno
import os
import select
from collections.abc import Callable
from typing import Self

import anyio

from supervisor.console import Console, ConsoleGoneError
from supervisor.lines import LINE_MAX_BYTES, Cutter, LineForm, Piece, Stream

CHUNK_BYTES = LINE_MAX_BYTES  # a pipe's usual capacity; the cutter wants no more than a line's length at a time
READS_PER_TURN = 64  # then the loop's other tasks have their turn
LAST_READS_MAX = 16  # of a dead run's pipe: 1 MiB, the largest a pipe gets (/proc/sys/fs/pipe-max-size)
DRAIN_MAX_S = 1.0


class Output:
    """The reader of all containers. `run` is its one task; `close` (or leaving `with`) gives every descriptor back."""

    def __init__(
        self,
        console: Console,
        form: LineForm,
        *,
        on_gone: Callable[[ConsoleGoneError], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self._console = console
        self._form = form
        self._channels: dict[int, _Channel] = {}
        self._epoll = select.epoll()
        self._epoll.register(console.fileno(), select.EPOLLIN)
        console.listen(on_gone=on_gone, on_lost=on_lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await anyio.wait_readable(self._epoll.fileno())
            for fd, _events in self._epoll.poll(0, READS_PER_TURN):
                await self._turn(fd)

    def attach(self, container: str, stdout: int, stderr: int) -> "Capture":
        """Read a run's two pipes from now on. The descriptors are ours from here: nobody else may close them."""
        return Capture(self, container, stdout, stderr)

    def close(self) -> None:
        """Take what the remaining runs have written, and close everything. Again is harmless."""
        for channel in list(self._channels.values()):
            channel.finish()
        self._epoll.close()

    async def _turn(self, fd: int) -> None:
        if fd == self._console.fileno():
            self._console.acknowledge()
            return
        await self._console.room()
        if channel := self._channels.get(fd):  # none: closed while there was no room
            channel.read()

    # For the channels.

    def add(self, channel: "_Channel") -> None:
        os.set_blocking(channel.fd, False)
        self._channels[channel.fd] = channel
        self._epoll.register(channel.fd, select.EPOLLIN)

    def remove(self, channel: "_Channel") -> None:
        self._epoll.unregister(channel.fd)
        del self._channels[channel.fd]

    def write(self, container: str, stream: Stream, piece: Piece) -> None:
        self._console.write(self._form(container, stream, piece))


class Capture:
    """The output of one run."""

    __slots__ = ("_channels", "_ended", "container", "output")

    def __init__(self, output: Output, container: str, stdout: int, stderr: int) -> None:
        self.output = output
        self.container = container
        self._ended: anyio.Event | None = None  # made when someone waits: most runs never need it
        self._channels = (_Channel(self, Stream.STDOUT, stdout), _Channel(self, Stream.STDERR, stderr))

    async def drain(self, limit_s: float = DRAIN_MAX_S) -> bool:
        """After the run was reaped: pass on its last lines and close its pipes, whatever happens.

        False if end-of-file had not come after `limit_s`: something outside the container holds a pipe open.
        """
        try:
            self._read_ahead()
            if not self.at_end():
                self._ended = anyio.Event()
                with anyio.move_on_after(limit_s):
                    await self._ended.wait()
            return self.at_end()
        finally:
            self.close()

    def close(self) -> None:
        """Pass on what is there, and close both pipes. Again is harmless."""
        for channel in self._channels:
            channel.finish()

    def at_end(self) -> bool:
        return all(channel.fd < 0 for channel in self._channels)

    def channel_ended(self) -> None:
        if self._ended and self.at_end():
            self._ended.set()

    def _read_ahead(self) -> None:
        for channel in self._channels:
            channel.read_ahead()


class _Channel:
    """One pipe: open while `fd` is not -1."""

    __slots__ = ("_capture", "_cutter", "_stream", "fd")

    def __init__(self, capture: Capture, stream: Stream, fd: int) -> None:
        self._capture = capture
        self._stream = stream
        self._cutter = Cutter()
        self.fd = fd
        capture.output.add(self)

    def read(self) -> bool:
        """Take one chunk; False if there was none."""
        try:
            chunk = _read_chunk(self.fd)
        except BlockingIOError:
            return False
        for piece in self._cutter.feed(chunk):
            self._write(piece)
        if not chunk:
            self._end()
        return bool(chunk)

    def read_ahead(self) -> None:
        """Take what is in the pipe now, without a turn of the loop."""
        for _ in range(LAST_READS_MAX):
            if self.fd < 0 or not self.read():
                return

    def finish(self) -> None:
        self.read_ahead()
        if self.fd >= 0:
            self._end()

    def _end(self) -> None:
        for piece in self._cutter.end():
            self._write(piece)
        self._capture.output.remove(self)
        os.close(self.fd)
        self.fd = -1
        self._capture.channel_ended()

    def _write(self, piece: Piece) -> None:
        self._capture.output.write(self._capture.container, self._stream, piece)


def _read_chunk(fd: int) -> bytes:
    """Empty at end-of-file, which a pty tells by EIO."""
    try:
        return os.read(fd, CHUNK_BYTES)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""
