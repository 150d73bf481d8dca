"""The command line's side of the control socket: HTTP/1.1 on a unix socket, blocking, with nothing to load.

A command asks once or twice, so a loop and a library would cost more than all else it does. The server is our own, of
the same version as a rule; what else may answer is read strictly, and to a limit. After `hijack` the socket is the
caller's, to be read and written by whatever means he likes.
"""

import json
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader

from supervisor.errors import CommandError, GoneError, NoSuchContainerError, StackError

TYPE_CHECKING = False  # typing takes a quarter of the time in which `pysup ps` is to answer
if TYPE_CHECKING:
    from typing import Any, Self

LINE_MAX_BYTES = 64 << 10
HEAD_MAX_BYTES = 64 << 10
CHUNK_BYTES = 64 << 10
FRAME_MAX_BYTES = 64 << 20
CONNECT_S = 5  # for the kernel to take the connection: the server may be busy
_TIMEVAL = struct.Struct("ll")
_UCRED = struct.Struct("3i")  # pid, uid, gid
_NO_BODY = frozenset({204, 304})

Query = Mapping[str, object]


class BrokenOffError(CommandError):
    """An answer did not come, or not to its end."""

    def __init__(self, what: str = "the control socket broke off") -> None:
        super().__init__(f"{what}: the stack's supervisor may have ended")


class Reply:
    """An answer whose head has come. Its body is read once."""

    def __init__(self, status: int, headers: Mapping[str, str], connection: socket.socket, *, bodyless: bool) -> None:
        self.status = status
        self.headers = headers  # names in lower case
        self._socket = connection
        self._file: BufferedReader = connection.makefile("rb")
        self._bodyless = bodyless

    def pieces(self) -> Iterator[bytes]:
        """Its body as it comes. CommandError if it breaks off."""
        if self._bodyless:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from _chunks(self._file)
        elif "content-length" in self.headers:
            yield from _exactly(self._file, _number(self.headers["content-length"], 10))
        else:
            while piece := self._file.read1(CHUNK_BYTES):
                yield piece

    def lines(self) -> Iterator[bytes]:
        """Its body by lines, without their ends."""
        held = b""
        for piece in self.pieces():
            *whole, held = (held + piece).split(b"\n")
            yield from whole
        if held:
            yield held

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Its body by Docker's frames: 1 for standard output or 2 for standard error, and what was written."""
        return frames(self.pieces())

    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces())

    def data(self) -> "Any":
        """All of it, from JSON; None if there is none."""
        body = self.body()
        return json.loads(body) if body else None

    def taken(self) -> socket.socket:
        """The connection, of which nothing was read but the head: the caller's from now on."""
        self._file.close()
        return self._socket

    def close(self) -> None:
        """Whether or not all was read."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """A stack's control socket. One connection for each request."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get(self, path: str, **query: object) -> "Any":
        """Data."""
        with self.request("GET", path, query) as reply:
            return reply.data()

    def post(self, path: str, body: object = None, **query: object) -> "Any":
        """Data, or None. What was so already (304) is no error."""
        with self.request("POST", path, query, body) as reply:
            return reply.data()

    def delete(self, path: str, **query: object) -> "Any":
        """Data, or None."""
        with self.request("DELETE", path, query) as reply:
            return reply.data()

    def request(
        self, method: str, path: str, query: Query, body: object = None, *, pieces: Iterable[bytes] | None = None
    ) -> Reply:
        """An answer; the caller closes it. `body` goes as JSON, `pieces` as they are. CommandError; StackError, of
        which GoneError also where the stack ends before it has answered.
        """
        headers = {"Connection": "close"}
        payload = b"" if body is None else json.dumps(body).encode()
        if pieces is None:
            headers |= {"Content-Length": str(len(payload)), "Content-Type": "application/json"}
        else:
            headers |= {"Transfer-Encoding": "chunked", "Content-Type": "application/x-tar"}
        reply = self._send(method, path, query, headers, payload, pieces)
        return _checked(reply)

    def hijack(self, path: str, body: object = None, **query: object) -> socket.socket:
        """The connection itself, both ways: of attach, and of an exec's start."""
        payload = b"" if body is None else json.dumps(body).encode()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Length": str(len(payload))}
        if body is not None:
            headers["Content-Type"] = "application/json"
        reply = _checked(self._send("POST", path, query, headers, payload, None), switched=101)
        return reply.taken()

    def feed(self, path: str, **query: object) -> "Feed":
        """An answer to be read as it comes, beside others."""
        return Feed(self.request("GET", path, query))

    def answers(self) -> bool:
        """Does anybody listen? One who may not ask is told so by his first request."""
        try:
            _connect(self._path).close()
        except GoneError:
            return False
        except StackError:
            return True
        return True

    def server_pid(self) -> int:
        """Of the process that listens: SO_PEERCRED, socket(7). StackError."""
        with _connect(self._path) as connection:
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid: int = _UCRED.unpack(peer)[0]
        return pid

    def _send(
        self,
        method: str,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        payload: bytes,
        pieces: Iterable[bytes] | None,
    ) -> Reply:
        connection = _connect(self._path)
        try:
            return self._asked(connection, _head(method, path, query, headers) + payload, pieces, method)
        except BrokenOffError as error:
            connection.close()
            if self.answers():
                raise
            raise GoneError(str(error)) from error  # who let us in does not listen any more
        except BaseException:
            connection.close()
            raise

    def _asked(self, connection: socket.socket, question: bytes, pieces: Iterable[bytes] | None, method: str) -> Reply:
        try:
            try:
                connection.sendall(question)
                for piece in pieces or ():
                    if piece:
                        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                if pieces is not None:
                    connection.sendall(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has answered before it had all: it says why
            return _reply(connection, method)
        except OSError as error:
            raise BrokenOffError(f"{self._path}: {error.strerror}") from error


class Feed:
    """A chunked answer for one who waits for several at once: `read` when it is readable, until it `is_over`."""

    def __init__(self, reply: Reply) -> None:
        self.headers = reply.headers
        self.is_over = False
        self._connection = reply.taken()
        self._held = b""
        self._left = 0  # of the present chunk

    def fileno(self) -> int:
        return self._connection.fileno()

    def read(self) -> bytes:
        """What has come of the body, perhaps nothing. CommandError if it breaks off."""
        if not (data := self._connection.recv(CHUNK_BYTES)):
            raise BrokenOffError
        self._held += data
        return b"".join(self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        while self._held and not self.is_over:
            if self._left:
                piece, self._held = self._held[: self._left], self._held[self._left :]
                self._left -= len(piece)
                yield piece
                continue
            size, ended, rest = self._held.removeprefix(b"\r\n").partition(b"\r\n")
            if not ended:
                return
            self._held, self._left = rest, _number(size.partition(b";")[0].decode("latin-1"), 16)
            self.is_over = not self._left

    def close(self) -> None:
        self._connection.close()


def name_in_path(name: str) -> str:
    """A name that a user gave, as a part of a path."""
    from urllib.parse import quote  # noqa: PLC0415 (see above)

    return quote(name, safe="")


def frames(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """A stream by Docker's frames. CommandError if it is none."""
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= 8:
            size = int.from_bytes(held[4:8], "big")
            if held[0] > 2 or size > FRAME_MAX_BYTES:
                raise CommandError("the control socket sent something that is no frame")
            if len(held) < 8 + size:
                break
            yield held[0], bytes(held[8 : 8 + size])
            del held[: 8 + size]


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Not settimeout(): a connect(2) that may not block is refused at once when many others come at the same time.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(CONNECT_S, 0))
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            raise GoneError(f"{path}: no supervisor listens there: the stack does not run") from error
        if isinstance(error, PermissionError):
            raise StackError(f"{path}: permission denied: use sudo, or `pysup up --socket-group`") from error
        reason = error.strerror or "it does not answer"
        raise StackError(f"{path}: the control socket can't be reached: {reason}") from error
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, 0))
    return connection


def _head(method: str, path: str, query: Query, headers: Mapping[str, str]) -> bytes:
    asked = {name: _shown(value) for name, value in query.items() if value is not None}
    target = f"{path}?{_encoded(asked)}" if asked else path
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\nHost: pysup\r\n{lines}\r\n".encode("ascii")


def _encoded(query: Mapping[str, str]) -> str:
    from urllib.parse import urlencode  # noqa: PLC0415 (see above)

    return urlencode(query)


def _shown(value: object) -> str:
    """In a query: truths as 1 and 0, filters as JSON."""
    if isinstance(value, bool):
        return str(int(value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _reply(connection: socket.socket, method: str) -> Reply:
    first, *lines = _read_head(connection).decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise CommandError("the control socket answered something that is no HTTP")
    status = _number(rest[:3], 10)
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Reply(status, headers, connection, bodyless=method == "HEAD" or status in _NO_BODY)


def _read_head(connection: socket.socket) -> bytes:
    """To its empty line, and not a byte more: what follows may be another's to read."""
    head = b""
    while len(head) < HEAD_MAX_BYTES:
        seen = connection.recv(CHUNK_BYTES, socket.MSG_PEEK)
        if not seen:
            raise BrokenOffError
        end = (head + seen).find(b"\r\n\r\n") + 4
        taken = connection.recv(end - len(head) if end >= 4 else len(seen))
        head += taken
        if end >= 4:
            return head
    raise CommandError("the control socket answered with too long a head")


def _checked(reply: Reply, *, switched: int = 200) -> Reply:
    """The answer, if it is what was asked for: else an error that says what the server said."""
    if reply.status < 400 and switched in {200, reply.status}:
        return reply
    with reply:
        message = _message(reply)
    raise NoSuchContainerError(message) if reply.status == 404 else CommandError(message)


def _message(reply: Reply) -> str:
    try:
        message = reply.data()["message"]
    except (ValueError, TypeError, KeyError):
        return f"the control socket answered {reply.status}"
    return str(message)


def _line(file: BufferedReader) -> bytes:
    line = file.readline(LINE_MAX_BYTES)
    if not line.endswith(b"\n"):
        raise BrokenOffError
    return line.rstrip(b"\r\n")


def _chunks(file: BufferedReader) -> Iterator[bytes]:
    while size := _number(_line(file).partition(b";")[0].decode("latin-1"), 16):
        yield from _exactly(file, size)
        _line(file)
    while _line(file):  # trailers
        pass


def _exactly(file: BufferedReader, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read1(min(size, CHUNK_BYTES))
        if not piece:
            raise BrokenOffError
        size -= len(piece)
        yield piece


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise CommandError(f"the control socket answered something that is no HTTP: {text[:40]!r}") from error
