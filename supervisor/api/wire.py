"""Bytes on a unix socket: who may connect, and one connection's reads and writes.

A plain non-blocking socket and the loop's `wait_readable` and `wait_writable`, no transport between: so nothing is
buffered here, and a peer that does not read holds up the one who writes to it, and nobody else. One task at a time
reads, and one writes.
"""

import os
import select
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio

from supervisor.api import limits
from supervisor.errors import StackError

PATH_MAX_BYTES = 107  # of sun_path, with its final zero: unix(7)


class GoneError(Exception):
    """The peer has closed the connection."""


class SlowError(Exception):
    """The peer took longer than it may."""


@contextmanager
def listening(path: Path, group: int | None = None) -> Iterator[socket.socket]:
    """A listening socket at `path`, of which nothing is left at the end. Its owner alone may connect, or `group` too.

    One that is there already is taken for a dead supervisor's: who calls this holds the stack's lock. StackError.
    """
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise StackError(
            f"{path}: too long for the path of a socket, at most {PATH_MAX_BYTES} bytes: give a shorter one"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        try:
            _remove_socket(path)
            # The inode gets the mode of the socket (net/unix/af_unix.c, unix_bind_bsd): there is no moment in which
            # others could connect, as there is with chmod(2) after bind(2).
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(path))
            if group is not None:
                os.chown(path, -1, group)
                path.chmod(0o660)
            listener.listen(limits.BACKLOG)
        except OSError as error:
            raise StackError(f"{path}: the control socket can't be made: {error.strerror}") from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_socket(path: Path) -> None:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()


class Wire:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._ahead = b""  # was read, and given back
        self._ended = False
        sock.setblocking(False)

    async def receive(self) -> bytes:
        """What has come; empty: the peer sends no more. GoneError."""
        if self._ahead:
            data, self._ahead = self._ahead, b""
            return data
        while not self._ended:
            try:
                data = self._socket.recv(limits.CHUNK_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                continue
            except OSError as error:
                raise GoneError from error
            self._ended = not data
            return data
        return b""

    def unread(self, data: bytes) -> None:
        """Give back what was read too much: it is received again."""
        self._ahead = data + self._ahead

    async def send(self, data: bytes) -> None:
        """Returns when all of it is with the kernel: not before the peer has read what was sent long ago. GoneError."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)
            except OSError as error:
                raise GoneError from error

    async def send_apart(self, data: bytes) -> None:
        """The same, and no read of the peer's gives him this together with what is sent after it. GoneError.

        Python's HTTP clients read ahead, and docker-py loses what came along with a head. A read of a unix socket ends
        with a message that has a descriptor (net/unix/af_unix.c, unix_stream_read_generic): so this one has, of
        /dev/null. The kernel drops it, as the peer does not ask for it.
        """
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while data:
                try:
                    data = data[socket.send_fds(self._socket, [data], [null]) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)
                except OSError as error:
                    raise GoneError from error
        finally:
            os.close(null)

    async def gone(self) -> None:
        """Returns when the peer is gone, or sends no more: as Docker's server, which takes the one for the other."""
        while self._ahead or not self._ended:
            held = self._ahead
            if len(held) > limits.HEAD_MAX_BYTES:  # it sends on without having been answered: that may wait
                await anyio.sleep_forever()
            self._ahead = b""
            try:
                data = await self.receive()
            except GoneError:
                return
            finally:
                self._ahead = held
            if not data:
                return
            self._ahead += data

    def is_gone(self) -> bool:
        """Has the peer closed both directions?"""
        poll = select.poll()
        poll.register(self._socket, 0)
        return bool(poll.poll(0))

    async def linger(self) -> None:
        """After the last answer, before the close: a peer that still writes would get an error before he reads it."""
        with suppress(OSError, GoneError), anyio.move_on_after(limits.LINGER_S):
            self.end()
            left = limits.LINGER_MAX_BYTES
            while left > 0 and (data := await self.receive()):
                left -= len(data)

    def end(self) -> None:
        """Send no more."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Nothing may wait on it any more."""
        self._socket.close()
