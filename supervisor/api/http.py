"""HTTP/1.1 on a wire, by h11: requests come out, one of three kinds of answer goes in.

* `Answer`: its body is there. The caller must take it in good time.
* `Stream`: its body is written bit by bit, for as long as there is something to say or the caller stays; chunked.
* `Handover`: the connection is no HTTP any more, but the two directions of a terminal or of pipes, as Docker does it:
  101 to one who asked for an upgrade, else 200.

The head of a stream or a handover is sent when its writer says so (`begin`): until then, what goes wrong is an ordinary
answer. A caller who has sent more than was read gets his answer before the connection is closed.
"""

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import anyio
import h11

from runtime.errors import PysupError
from supervisor.api import limits
from supervisor.api.errors import RefusedError, bad, refusal
from supervisor.api.wire import GoneError, SlowError, Wire

JSON = "application/json"
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"  # frames.py
TAR = "application/x-tar"

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is there as a whole."""

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = JSON
    headers: Headers = field(default_factory=dict)


class Reply(Protocol):
    """What writes a stream."""

    async def begin(self) -> None:
        """Send the head; else the first `send` does."""
        ...

    async def send(self, data: bytes) -> None:
        """Returns when it is on its way: not before the caller has read what was sent long ago."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is written as it comes about. It is cancelled when the caller is gone."""

    write: Callable[[Reply], Awaitable[None]]
    content_type: str = JSON
    headers: Headers = field(default_factory=dict)


class Line(Protocol):
    """A connection that was handed over. After `begin`, the wire is its own."""

    wire: Wire

    async def begin(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Handover:
    """The connection is this one's from now on, and closed when it returns."""

    talk: Callable[[Line], Awaitable[None]]
    content_type: str = RAW


Answering = Answer | Stream | Handover


def shown(value: object, status: HTTPStatus = HTTPStatus.OK, headers: Headers | None = None) -> Answer:
    """Data as JSON."""
    return Answer(encoded(value), status, headers=headers or {})


def encoded(value: object) -> bytes:
    """As JSON, on a line. What is no text (a path's undecodable byte, in Python a lone surrogate) becomes an escape."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


NOTHING = Answer(status=HTTPStatus.NO_CONTENT)
UNCHANGED = Answer(status=HTTPStatus.NOT_MODIFIED)


def refused(error: RefusedError) -> Answer:
    """In Docker's form."""
    return shown({"message": str(error)}, error.status)


@dataclass(frozen=True, slots=True)
class Request:
    """Its body is still to be read, once: by `pieces` or `data`."""

    method: str
    path: str  # not decoded
    query: Mapping[str, tuple[str, ...]]
    headers: Headers  # names in lower case
    pieces: Callable[[], AsyncGenerator[bytes, None]]

    @property
    def upgrades(self) -> bool:
        return "upgrade" in self.headers.get("connection", "").lower() and "upgrade" in self.headers

    async def data(self) -> Mapping[str, object]:
        """Its body, an object in JSON; empty if there is none. RefusedError."""
        body = b""
        with anyio.move_on_after(limits.BODY_WHOLE_S) as scope:
            body = await self._body()
        if scope.cancelled_caught:
            raise SlowError
        try:
            found = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError) as error:
            raise bad(f"invalid JSON: {error}") from error
        if not isinstance(found, dict | None):
            raise bad("invalid JSON: an object is expected")
        return found or {}

    async def _body(self) -> bytes:
        body = bytearray()
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limits.BODY_MAX_BYTES:
                    raise RefusedError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of over {limits.BODY_MAX_BYTES} bytes"
                    )
        return bytes(body)


Respond = Callable[[Request], Awaitable[Answering]]


async def converse(
    wire: Wire, respond: Respond, headers: Headers, busy: Callable[[], AbstractContextManager[None]]
) -> None:
    """Answer one request after the other, until either side has had enough. `headers` go with every answer; while
    there is one to be given, we are `busy`.
    """
    exchange = _Exchange(wire, headers)
    try:
        while (request := await exchange.request()) is not None:
            with busy():
                await exchange.answer(request, respond)
            if not exchange.goes_on():
                break
    except h11.RemoteProtocolError as error:
        await exchange.refuse(RefusedError(HTTPStatus(error.error_status_hint), f"not a request in HTTP/1.1: {error}"))
    except SlowError:
        await exchange.refuse(RefusedError(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come"))
    if not exchange.over:
        await wire.linger()


async def turn_away(wire: Wire, error: RefusedError, headers: Headers) -> None:
    """Answer before anything was asked, and be done."""
    exchange = _Exchange(wire, headers)
    await exchange.refuse(error)
    wire.end()


class _Exchange:
    """The connection's HTTP."""

    def __init__(self, wire: Wire, headers: Headers) -> None:
        self.wire = wire
        self.over = False  # nobody is there to talk to
        self._headers = headers
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.HEAD_MAX_BYTES)

    async def request(self) -> Request | None:
        """The next one, when its head is there; None: there is none."""
        event = self._http.next_event()
        if event is h11.NEED_DATA and not self._http.trailing_data[0]:
            with anyio.move_on_after(limits.IDLE_S) as idle:
                await self._feed()
            if idle.cancelled_caught:
                return None
            event = self._http.next_event()
        with anyio.move_on_after(limits.HEAD_S) as scope:
            while event is h11.NEED_DATA:
                await self._feed()
                event = self._http.next_event()
        if scope.cancelled_caught:
            raise SlowError
        return self._parsed(event) if isinstance(event, h11.Request) else None

    def _parsed(self, event: h11.Request) -> Request:
        try:
            target = urlsplit(event.target.decode("ascii"))
            pairs = parse_qsl(target.query, keep_blank_values=True)
        except ValueError as error:
            raise h11.RemoteProtocolError(str(error)) from error
        query: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            query[name] = (*query.get(name, ()), value)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return Request(event.method.decode("ascii"), target.path, query, headers, self._pieces)

    async def _feed(self) -> None:
        self._http.receive_data(await self.wire.receive())

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """The body of the request that was read last."""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        while self._http.their_state is h11.SEND_BODY:  # else all of it was read: what comes now is no body
            event = self._http.next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            if event is not h11.NEED_DATA:
                continue
            with anyio.move_on_after(limits.BODY_S) as scope:
                await self._feed()
            if scope.cancelled_caught:
                raise SlowError

    async def answer(self, request: Request, respond: Respond) -> None:
        """Whatever the answer is, errors included."""
        try:
            match await respond(request):
                case Answer() as answer:
                    await self._answer(answer, request.method)
                case Stream() as stream:
                    await self._stream(stream, request.method)
                case Handover() as handover:
                    await self._hand_over(handover, request)
        except PysupError as error:
            await self._answer(refused(refusal(error)), request.method)

    def goes_on(self) -> bool:
        """May another request come? Not after one whose body was not read and has not come yet."""
        if self.over or self._http.our_state is not h11.DONE:
            return False
        while self._http.their_state is h11.SEND_BODY and self._http.next_event() is not h11.NEED_DATA:
            pass
        if self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def refuse(self, error: RefusedError) -> None:
        """The last thing that is said: the request can't be read to its end."""
        if not self.over and self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._answer(refused(error), "GET", {"Connection": "close"})

    async def _answer(self, answer: Answer, method: str, more: Headers | None = None) -> None:
        headers = {**answer.headers, **(more or {})}
        if answer.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            headers |= {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        await self._send(self._response(answer.status, headers))
        if method != "HEAD":
            for start in range(0, len(answer.body), limits.CHUNK_BYTES):
                await self._send(h11.Data(data=answer.body[start : start + limits.CHUNK_BYTES]))
        await self._send(h11.EndOfMessage())

    def _response(self, status: HTTPStatus, headers: Headers) -> h11.Response:
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        together = {**self._headers, "Date": date, **headers}
        return h11.Response(status_code=status, headers=list(together.items()), reason=status.phrase.encode())

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if not data:
            return
        with anyio.move_on_after(limits.SEND_S) as scope:
            await self.wire.send(data)
        if scope.cancelled_caught:
            self.over = True
            raise GoneError

    async def _stream(self, stream: Stream, method: str) -> None:
        reply = _Reply(self, stream)
        failed: list[PysupError] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._leave_when_gone, tasks.cancel_scope)
            try:
                if method != "HEAD":
                    await stream.write(reply)
                await reply.begin()
            except* PysupError as group:
                failed += _errors(group)
            tasks.cancel_scope.cancel()
        if failed and not reply.begun:
            raise failed[0]
        if not failed and not self.over:
            await self._send(h11.EndOfMessage())

    async def _leave_when_gone(self, scope: anyio.CancelScope) -> None:
        await self.wire.gone()
        self.over = True
        scope.cancel()

    async def begin_stream(self, stream: Stream) -> None:
        headers = {"Content-Type": stream.content_type, **stream.headers}
        await self.wire.send(self._http.send(self._response(HTTPStatus.OK, headers)) or b"")

    async def send_piece(self, data: bytes) -> None:
        await self.wire.send(self._http.send(h11.Data(data=data)) or b"")

    async def _hand_over(self, handover: Handover, request: Request) -> None:
        async with aclosing(request.pieces()) as pieces:
            async for _ in pieces:  # what is left of it
                pass
        line = _Line(self, handover, upgrades=request.upgrades)
        failed: list[PysupError] = []
        try:
            await handover.talk(line)
        except* PysupError as group:
            failed += _errors(group)
        if failed and not line.begun:
            raise failed[0]
        self.over = line.begun

    async def begin_line(self, handover: Handover, *, upgrades: bool) -> None:
        self.wire.unread(self._http.trailing_data[0])
        switch = "101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp" if upgrades else "200 OK"
        headers = {**self._headers, "Content-Type": handover.content_type}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.wire.send_apart(f"HTTP/1.1 {switch}\r\n{lines}\r\n".encode("ascii"))


class _Reply:
    """See `Reply`."""

    def __init__(self, exchange: _Exchange, stream: Stream) -> None:
        self._exchange = exchange
        self._stream = stream
        self.begun = False

    async def begin(self) -> None:
        if not self.begun:
            self.begun = True
            await self._exchange.begin_stream(self._stream)

    async def send(self, data: bytes) -> None:
        await self.begin()
        if data:  # an empty chunk would be the end
            await self._exchange.send_piece(data)


class _Line:
    """See `Line`."""

    def __init__(self, exchange: _Exchange, handover: Handover, *, upgrades: bool) -> None:
        self.wire = exchange.wire
        self._exchange = exchange
        self._handover = handover
        self._upgrades = upgrades
        self.begun = False

    async def begin(self) -> None:
        self.begun = True
        await self._exchange.begin_line(self._handover, upgrades=self._upgrades)


def _errors(group: BaseExceptionGroup[PysupError]) -> list[PysupError]:
    found: list[PysupError] = []
    for error in group.exceptions:
        found += _errors(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
