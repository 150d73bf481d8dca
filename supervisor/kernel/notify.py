"""Hears what containers say by sd_notify(3): readiness, a status line, that they are alive.

Each run that may speak has a datagram socket of its own, bound where nobody else can reach it; a mount of it goes along
with the start and is all that the container gets. So who sends is known without credentials. The name it was bound to
is taken away when the start is over, not before: what has no name can't be mounted (fs/dcache.c: d_set_mounted). All
sockets are in one epoll set with one task (see streams/output.py): a silent container costs a descriptor.

A datagram has lines of NAME=VALUE, of which the first LINES_MAX count. Known are READY=1, STATUS=, WATCHDOG=1,
WATCHDOG=trigger and EXTEND_TIMEOUT_USEC=; all else is passed over. There is no room for descriptors when a datagram is
taken, so the kernel closes those that came with it: which answers BARRIER=1 (sd_notify_barrier(3)), and drops
FDSTORE=1.

One socket gives at most MESSAGES_PER_TURN before others have their turn; who says more waits in its own sendmsg(2).
"""

import os
import select
import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import anyio

from runtime import linux
from supervisor.core.checks import Notice

MESSAGE_MAX_BYTES = 64 << 10  # a longer one is passed over
LINES_MAX = 64  # of a message: thousands of them would keep the loop from everybody else
MESSAGES_PER_TURN = 16
SOCKETS_PER_TURN = 64
LAST_MESSAGES_MAX = 1024  # of a run that has ended; the kernel queues net.unix.max_dgram_qlen of them
STATUS_MAX = 256  # characters
USEC_DIGITS_MAX = 18
PREFIX = ".notify-"

Heard = Callable[[Notice], None]
NOTHING = Notice()


def parse(message: bytes) -> Notice:
    """What a datagram says; NOTHING if that is nothing we know. Of two lines with one name the last counts."""
    notice = NOTHING
    for line in message.split(b"\n", LINES_MAX)[:LINES_MAX]:
        name, _, value = line.partition(b"=")
        notice = _told(notice, name, value)
    return notice


def _told(notice: Notice, name: bytes, value: bytes) -> Notice:
    match name, value:
        case b"READY", b"1":
            return replace(notice, ready=True)
        case b"WATCHDOG", b"1" | b"trigger":
            return replace(notice, alive=value == b"1")
        case b"STATUS", _:
            return replace(notice, status=value[: 4 * STATUS_MAX].decode(errors="backslashreplace")[:STATUS_MAX])
        case b"EXTEND_TIMEOUT_USEC", _ if value.isdigit() and len(value) <= USEC_DIGITS_MAX:
            return replace(notice, extend_s=int(value) / 1e6)
    return notice


class Listener:
    """The ear of all containers. `run` is its one task; `close` gives every descriptor back."""

    def __init__(self, state: Path) -> None:
        self._directory = state
        self._names = count(1)
        for left in state.glob(f"{PREFIX}*"):  # by one that was killed: nobody else may use this directory now
            left.unlink()
        self._epoll = select.epoll()
        self._mouths: dict[int, Mouth] = {}
        self._buffer = bytearray(MESSAGE_MAX_BYTES)

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            await anyio.wait_readable(self._epoll.fileno())
            for fd, _events in self._epoll.poll(0, SOCKETS_PER_TURN):
                if mouth := self._mouths.get(fd):
                    mouth.listen(MESSAGES_PER_TURN)

    def close(self) -> None:
        """Hear no more. Again is harmless."""
        for mouth in list(self._mouths.values()):
            mouth.close()
        self._epoll.close()

    def open(self, heard: Heard) -> "Mouth":
        """A socket for a run. OSError if it can't be made. What is said is heard from `Mouth.begin` on."""
        name = self._directory / f"{PREFIX}{next(self._names)}"
        try:
            return Mouth(self, heard, name, *_speaking_tube(name))
        except BaseException:
            name.unlink(missing_ok=True)
            raise

    # For the sockets.

    def add(self, mouth: "Mouth") -> None:
        self._epoll.register(mouth.fileno(), 0)
        self._mouths[mouth.fileno()] = mouth

    def attend(self, mouth: "Mouth") -> None:
        self._epoll.modify(mouth.fileno(), select.EPOLLIN)

    def remove(self, mouth: "Mouth") -> None:
        if self._mouths.pop(mouth.fileno(), None):
            self._epoll.unregister(mouth.fileno())

    def receive(self, ear: socket.socket) -> bytes | None:
        """The next message; empty if it was too long. None: there is none."""
        try:
            size, _, flags, _ = ear.recvmsg_into([self._buffer])
        except BlockingIOError:
            return None
        return b"" if flags & socket.MSG_TRUNC else bytes(memoryview(self._buffer)[:size])


class Mouth:
    """Where one run speaks. `mount` goes along with its start, and is closed when it has gone."""

    __slots__ = ("_ear", "_heard", "_listener", "_name", "mount")

    def __init__(self, listener: Listener, heard: Heard, name: Path, ear: socket.socket, mount: int) -> None:
        self._listener = listener
        self._name: Path | None = name
        self._heard = heard
        self._ear = ear
        self.mount = mount
        try:
            listener.add(self)
        except OSError:
            os.close(mount)
            ear.close()
            raise

    def fileno(self) -> int:
        return self._ear.fileno()

    def begin(self) -> None:
        """The container has it: listen, to what has been said already too."""
        self._hand_over()
        self._listener.attend(self)

    def listen(self, messages_max: int) -> None:
        """Pass on what has been said."""
        for _ in range(messages_max):
            message = self._listener.receive(self._ear)
            if message is None:
                return
            if (notice := parse(message)) != NOTHING:
                self._heard(notice)

    def finish(self) -> None:
        """Pass on its last words, and close."""
        self.listen(LAST_MESSAGES_MAX)
        self.close()

    def close(self) -> None:
        """Hear no more. Again is harmless."""
        self._hand_over()
        if self._ear.fileno() >= 0:
            self._listener.remove(self)
            self._ear.close()

    def _hand_over(self) -> None:
        if self._name is not None:
            os.close(self.mount)
            self._name.unlink(missing_ok=True)
            self._name = None


def _speaking_tube(name: Path) -> tuple[socket.socket, int]:
    """A socket bound to a name, and a detached mount of it."""
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        return ear, _bind(ear, name)
    except BaseException:
        ear.close()
        raise


def _bind(ear: socket.socket, name: Path) -> int:
    # By descriptor: a state directory's path may be longer than what fits into an address (unix(7)).
    directory = os.open(name.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ear.bind(f"/proc/self/fd/{directory}/{name.name}")
    finally:
        os.close(directory)
    name.chmod(0o666)  # any user of the container may speak
    mount = linux.open_tree(linux.AT_FDCWD, str(name), linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
    try:
        linux.make_private(mount, linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV | linux.MOUNT_ATTR_NOEXEC)
    except BaseException:
        os.close(mount)
        raise
    return mount
