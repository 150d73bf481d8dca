"""A netlink socket: requests go out many at a time, and what the kernel says of each comes back.

netlink(7): the kernel does what it is asked in the course of send(2), and has answered when that returns. So nothing
here waits for anybody else; but what the kernel does may take milliseconds (all of rtnetlink has one lock): not for a
thread that has others to serve. A socket speaks to the network namespace in which it was made.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

ROUTE, NETFILTER = 0, 12  # NETLINK_ROUTE, NETLINK_NETFILTER
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence number, port
NETFILTER_HEADER = struct.Struct("=IHHIIBBH")  # the same, and struct nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, kind
_TYPE = 0x3FFF  # NLA_TYPE_MASK
_SEQUENCE = 8  # its offset
_ERROR, _DONE = 2, 3  # NLMSG_*
_SOL_NETLINK, _CAP_ACK = 270, 10
_SEND_MAX = 16 << 10  # bytes of one call; of a batch of nftables all must be in one
_BUFFER_BYTES = 4 << 20  # for batches, and for what is said of each message of one
_ROOM = 2  # times a batch: what is said of each message of it takes up less than that
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_CHUNK = 64 << 10


class Conversation:
    """One socket. Its methods raise OSError, whose `filename` is what could not be done."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._number = 0
        with suppress(OSError):
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._room = 0
        self._make_room(_BUFFER_BYTES)
        self._socket.bind((0, 0))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def do(self, requests: Sequence[tuple[str, bytes]]) -> None:
        """Ask for several things (what, message), in this order. Those after one that fails may have been done."""
        waiting: list[bytes] = []
        names: dict[int, str] = {}
        for what, message in requests:
            waiting.append(self._numbered(message))
            names[self._number] = what
            if sum(map(len, waiting)) > _SEND_MAX:
                self._exchange(waiting, names)
                waiting = []
        if waiting:
            self._exchange(waiting, names)

    def transact(self, what: str, batch: Sequence[bytes]) -> None:
        """Have a batch of nftables done, as a whole or not at all."""
        self._make_room(_ROOM * sum(map(len, batch)))
        self._exchange([self._numbered(message) for message in batch], {}, what)

    def dump(self, message: bytes) -> list[bytes]:
        """All that there is of a kind."""
        self._socket.send(self._numbered(message))
        found: list[bytes] = []
        while True:
            for kind, answer in _messages(self._socket.recv(_CHUNK)):
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    _check(answer, {}, "list what the network has")
                found.append(answer)

    def _make_room(self, size: int) -> None:
        """Whatever net.core.wmem_max and rmem_max are: with theirs, 200 published ports were too many (socket(7))."""
        if size <= self._room:
            return
        for forced, option in ((_SO_SNDBUFFORCE, socket.SO_SNDBUF), (_SO_RCVBUFFORCE, socket.SO_RCVBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, forced, size)
            except PermissionError:  # in a user namespace
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)
        self._room = size

    def _numbered(self, message: bytes) -> bytes:
        self._number += 1
        return message[:_SEQUENCE] + struct.pack("=I", self._number) + message[_SEQUENCE + 4 :]

    def _exchange(self, messages: Iterable[bytes], names: dict[int, str], what: str = "") -> None:
        self._socket.send(b"".join(messages))
        failed: OSError | None = None
        while (answers := self._received()) is not None:
            for kind, answer in _messages(answers):
                try:
                    if kind == _ERROR:
                        _check(answer, names, what)
                except OSError as error:
                    failed = failed or error
        if failed:
            raise failed

    def _received(self) -> bytes | None:
        try:
            return self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None


def attribute(kind: int, value: bytes) -> bytes:
    """Struct nlattr, and what it holds."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Those that are next to each other in a message, or in another."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += max(length + 3 & ~3, _ATTRIBUTE.size)


def of_netfilter(kind: int, flags: int, family: int, body: bytes = b"") -> bytes:
    """A message of a netfilter subsystem: struct nfgenmsg, and attributes."""
    return NETFILTER_HEADER.pack(NETFILTER_HEADER.size + len(body), kind, flags, 0, 0, family, 0, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, the whole message)."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at : at + length]
        at += (length + 3) & ~3


def _check(answer: bytes, names: dict[int, str], what: str) -> None:
    code, _, _, _, number, _ = struct.unpack_from("=iIHHII", answer, _HEADER.size)
    if code:
        raise OSError(-code, os.strerror(-code), names.get(number, what))
