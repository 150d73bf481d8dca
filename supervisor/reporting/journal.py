"""Events to the systemd journal, in its native protocol: with their fields, which `journalctl` can filter by.

    journalctl PYSUP_STACK=shop PYSUP_CONTAINER=web.1
    journalctl PYSUP_EVENT=gave_up -o json

Where our standard output or error already goes to the journal (JOURNAL_STREAM), an event goes there with its fields in
place of as a line of text; what containers write stays lines. Whatever the journal does not take, because it is busy
or gone, is written as a line after all: nothing is lost, and nothing waits.

https://systemd.io/JOURNAL_NATIVE_PROTOCOL: a datagram of NAME=VALUE lines. A value with a newline in it is told by its
length. What is too long for a datagram goes as a sealed memfd.
"""

import errno
import os
import socket
from array import array
from collections.abc import Iterator, Mapping
from fcntl import F_ADD_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, fcntl
from pathlib import Path

from supervisor.reporting.events import Level, Speaker, sentence

SOCKET = Path("/run/systemd/journal/socket")
PRIORITIES: Mapping[Level, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # syslog(3)
NAME_MAX = 64
_SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL  # what the journal insists on: nobody may change it
_TOO_LONG = (errno.EMSGSIZE, errno.ENOBUFS)


def is_journal(env: Mapping[str, str], descriptors: tuple[int, ...] = (1, 2)) -> bool:
    """Is one of our streams the journal's? systemd.exec(5), JOURNAL_STREAM."""
    return any(env.get("JOURNAL_STREAM") == _identity(descriptor) for descriptor in descriptors)


def _identity(descriptor: int) -> str | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return f"{status.st_dev}:{status.st_ino}"


class Journal:
    """Takes events as `Events` does, which it falls back on; of the same least level."""

    def __init__(self, stack: str, otherwise: Speaker, *, level: Level = "info", path: Path = SOCKET) -> None:
        self._stack = stack
        self._otherwise = otherwise
        self._least = PRIORITIES[level]
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def close(self) -> None:
        self._socket.close()

    def emit(self, event: str, *, container: str | None = None, level: Level = "info", **fields: object) -> None:
        """See `Events.emit`."""
        if PRIORITIES[level] > self._least:
            return
        try:
            self._send(message(self._stack, event, container, level, fields))
        except OSError:
            self._otherwise.emit(event, container=container, level=level, **fields)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            self._send_apart(data)

    def _send_apart(self, data: bytes) -> None:
        descriptor = os.memfd_create("pysup-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            fcntl(descriptor, F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(descriptor)


def message(stack: str, event: str, container: str | None, level: Level, fields: Mapping[str, object]) -> bytes:
    """An event as a message: what people read, what programs filter by, and the event's own fields."""
    words = {
        "MESSAGE": _in_words(event, container, fields),
        "PRIORITY": str(PRIORITIES[level]),
        "SYSLOG_IDENTIFIER": "pysup",
        "PYSUP_STACK": stack,
        "PYSUP_EVENT": event,
        **({} if container is None else {"PYSUP_CONTAINER": container}),
    }
    more = {name: _shown(value) for key, value in fields.items() if value is not None and (name := _name(key))}
    return b"".join(_lines({**more, **words}))


def _in_words(event: str, container: str | None, fields: Mapping[str, object]) -> str:
    text = sentence({"event": event, **fields})
    return text if container is None else f"{container}: {text}"


def _name(key: str) -> str | None:
    """systemd.journal-fields(7): up to 64 of A-Z, 0-9 and _."""
    name = f"PYSUP_{key.upper()}"
    return name if len(name) <= NAME_MAX and name.isascii() and name.replace("_", "").isalnum() else None


def _shown(value: object) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, tuple | list):
        return "\n".join(map(str, value))
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {each}" for key, each in value.items())
    return str(value)


def _lines(words: Mapping[str, str]) -> Iterator[bytes]:
    for name, value in words.items():
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            yield b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
        else:
            yield b"%s=%s\n" % (name.encode(), data)
