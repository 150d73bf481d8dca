"""A conversation with what runs in a container, over a connection that was taken over: input one way, output the other.

One loop, nothing blocks but the writing of output: so a command that repeats what it is sent (`cat`) holds nobody up.
Signals come through a pipe of their own (signal.set_wakeup_fd), so none is missed between two looks.
"""

import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from functools import partial
from termios import TIOCGWINSZ

from runtime.errors import PysupError
from supervisor.client import CHUNK_BYTES
from supervisor.errors import CommandError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PASSED_ON = (*ENDING, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

Act = Callable[[int], None]
Resize = Callable[[int, int], None]  # rows, columns


def window() -> tuple[int, int]:
    """Rows and columns of our terminal."""
    rows, columns, _, _ = struct.unpack("4H", ioctl(0, TIOCGWINSZ, bytes(8)))
    return rows, columns


class Session:
    """One conversation. `run` returns the signal that ended it here, or None: the other side did."""

    def __init__(self, connection: socket.socket, *, terminal: bool, stdin: bool) -> None:
        self._connection = connection
        self._terminal = terminal
        self._held = b""  # the beginning of a frame
        self._typed = b""  # not sent yet
        self._reads = stdin
        self._asked = 0
        connection.setblocking(False)

    def run(self, signals: Iterable[int], pass_on: Act, resize: Resize | None) -> int | None:
        """`signals`: those that are passed on, and of which the second that asks for an end ends it here."""
        with _heard((*signals, *((signal.SIGWINCH,) if resize else ()))) as heard:
            if not self._reads and not self._terminal:
                self._end_input()
            while True:
                ready = self._wait(heard)
                if heard in ready and (left_on := self._heed(heard, pass_on, resize)) is not None:
                    return left_on
                if 0 in ready and self._reads:
                    self._read()
                if self._connection.fileno() in ready and not self._transfer(ready[self._connection.fileno()]):
                    return None

    def _heed(self, heard: int, pass_on: Act, resize: Resize | None) -> int | None:
        """Do what signals ask for; returns that on which it is to end."""
        for number in os.read(heard, CHUNK_BYTES):
            if number == signal.SIGWINCH and resize is not None:
                _unless_over(lambda: resize(*window()))
            elif self._leaves_on(number):
                return number
            else:
                _unless_over(partial(pass_on, number))
        return None

    def _wait(self, heard: int) -> dict[int, int]:
        poll = select.poll()
        poll.register(heard, select.POLLIN)
        poll.register(self._connection, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if self._reads and not self._typed:
            poll.register(0, select.POLLIN)
        return dict(poll.poll())

    def _leaves_on(self, number: int) -> bool:
        if number not in ENDING:
            return False
        self._asked += 1
        return self._terminal or self._asked > 1

    def _read(self) -> None:
        try:
            self._typed = os.read(0, CHUNK_BYTES)
        except OSError:  # the terminal hung up
            self._typed = b""
        if not self._typed:
            self._reads = False
            self._end_input()

    def _end_input(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def _transfer(self, ready: int) -> bool:
        """Is it still going on?"""
        if ready & select.POLLOUT and self._typed:
            try:
                self._typed = self._typed[self._connection.send(self._typed) :]
            except BlockingIOError:
                pass
            except OSError:  # it takes no more; what it says is still to be read
                self._typed, self._reads = b"", False
        try:
            data = self._connection.recv(CHUNK_BYTES)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        if self._terminal:
            _write(1, data)
            return
        self._held += data
        while len(self._held) >= 8 and len(self._held) >= (end := 8 + int.from_bytes(self._held[4:8], "big")):
            if self._held[0] not in {1, 2}:
                raise CommandError("the control socket sent something that is no frame")
            _write(self._held[0], self._held[8:end])
            self._held = self._held[end:]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # others share our terminal, and have made it so
            select.select([], [descriptor], [])


def _unless_over(act: Callable[[], None]) -> None:
    """It may have ended just now, which the connection tells."""
    with suppress(PysupError):
        act()


@contextmanager
def _heard(numbers: Iterable[int]) -> Iterator[int]:
    """A descriptor from which the numbers of signals are read, as long as they come here."""
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, _noted) for number in numbers}
    previous = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)


def _noted(_number: int, _frame: object) -> None:
    """The pipe has it."""
