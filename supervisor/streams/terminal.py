"""The user's terminal joined to a container's: raw mode, bytes both ways, the window's size; and put back whatever
happens.

In raw mode Ctrl-C, Ctrl-Z and the like are bytes: the container's own line discipline turns them into signals for the
job in its foreground (termios(3), pty(7)).
"""

import fcntl
import os
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio

from supervisor.streams.console import Console

CHUNK_BYTES = 16 << 10

Settings = list[int | list[bytes | int]]  # what tcgetattr gives


def is_terminal() -> bool:
    """Are standard input and output both terminals?"""
    return os.isatty(0) and os.isatty(1)


@contextmanager
def raw_mode(descriptor: int = 0) -> Iterator[Settings]:
    """The terminal in raw mode; yields the settings it had, which come back at the end."""
    saved = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield saved
    finally:
        with suppress(termios.error):  # its window was closed: there is nothing to put back
            # Not TCSADRAIN: a terminal that was paused would never let go.
            termios.tcsetattr(descriptor, termios.TCSANOW, saved)


def copy_size(source: int, master: int) -> None:
    """Give the container's terminal the size of ours; the kernel tells the job in its foreground (SIGWINCH)."""
    with suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


async def follow_size(master: int) -> None:
    """Pass every change of size on, until cancelled."""
    with anyio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            copy_size(0, master)


async def suspend_on_request(saved: Settings) -> None:
    """Ctrl-Z reaches the container; a SIGTSTP sent to pysup itself stops pysup, with the terminal put back
    meanwhile.
    """
    raw = termios.tcgetattr(0)
    with anyio.open_signal_receiver(signal.SIGTSTP) as requests:
        async for _ in requests:
            termios.tcsetattr(0, termios.TCSANOW, saved)
            os.kill(os.getpid(), signal.SIGSTOP)
            termios.tcsetattr(0, termios.TCSANOW, raw)


async def relay_input(master: int) -> None:
    """Standard input to the container, until either ends."""
    while True:
        await anyio.wait_readable(0)
        try:
            data = os.read(0, CHUNK_BYTES)
        except OSError:  # hung up
            return
        if not data or not await _write_all(master, data):
            return


async def _write_all(master: int, data: bytes) -> bool:
    while data:
        try:
            data = data[os.write(master, data) :]
        except BlockingIOError:
            await anyio.wait_writable(master)
        except OSError:  # EIO: nobody has the other side open
            return False
    return True


async def relay_output(master: int, console: Console) -> None:
    """What the container writes to the console, until its side is closed."""
    while True:
        await console.room()
        try:
            console.write(os.read(master, CHUNK_BYTES))
        except BlockingIOError:
            await anyio.wait_readable(master)
        except OSError:  # EIO: the last process with the other side open has ended
            return
