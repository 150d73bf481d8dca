"""The control socket at work: one task per connection, a bounded number of them, and none that another could disturb.

Whatever a caller sends, and however he goes, ends with his connection. A fault of ours in a call is answered with 500,
told to `complain`, and ends that call alone: containers are no part of it.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path

import anyio
import anyio.abc
import h11

from runtime.errors import PysupError
from supervisor import __version__
from supervisor.api import limits
from supervisor.api.call import Api, Call
from supervisor.api.errors import RefusedError
from supervisor.api.http import Answering, Request, converse, refused, turn_away
from supervisor.api.ring import Ring
from supervisor.api.routes import ROUTES
from supervisor.api.routing import API_VERSION
from supervisor.api.shapes import labels_of
from supervisor.api.shelf import Images
from supervisor.api.vigil import lost
from supervisor.api.wire import GoneError, SlowError, Wire, listening
from supervisor.commands import Commands
from supervisor.errors import StackError

HEADERS = {
    "Server": f"pysup/{__version__} (linux)",
    "Api-Version": API_VERSION,
    "Docker-Experimental": "false",
    "Ostype": "linux",
}
ACCEPT_AGAIN_S = 0.1  # after accept(2) found no descriptor left

Complain = Callable[[str], None]


async def serve(
    path: Path,
    commands: Commands,
    images: Images,
    complain: Complain,
    *,
    group: int | None = None,
    leave: anyio.Event | None = None,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Offer a stack at the socket `path`, to its owner and to `group`, until it is to `leave`. StackError.

    Started when one can connect, and every event from then on is remembered. Who is told something when it leaves is
    told the rest of it, in good order: a stream has its end, and what waits for something is told that it won't come.
    """
    leaving = leave or anyio.Event()
    with listening(path, group) as listener:
        ring = Ring(commands, labels_of)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ring.run)
            api = Api(commands, images, tasks, complain, ring, leaving)
            task_status.started()
            await _Server(api, path, group).run(listener)
            tasks.cancel_scope.cancel()


class _Server:
    def __init__(self, api: Api, path: Path, group: int | None) -> None:
        self._api = api
        self._path = path
        self._group = group
        self._open = 0
        self._answering = 0
        self._rested = anyio.Event()  # made anew when somebody is to be answered

    async def run(self, listener: socket.socket) -> None:
        async with anyio.create_task_group() as connections:
            connections.start_soon(self._listen, listener, connections)
            await self._api.leaving.wait()
            with anyio.move_on_after(limits.FAREWELL_S):
                while self._answering:
                    await self._rested.wait()
            connections.cancel_scope.cancel()

    async def _listen(self, listener: socket.socket, connections: anyio.abc.TaskGroup) -> None:
        """There, and if somebody takes that away, at another in its place."""
        with ExitStack() as made:
            while True:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._accept, listener, connections)
                    await lost(self._path)
                    tasks.cancel_scope.cancel()
                try:
                    self._path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
                    listener = made.enter_context(listening(self._path, self._group))
                except (OSError, StackError) as error:
                    self._api.complain(f"control socket: it was taken away, and can't be made again: {error}")
                    return

    async def _accept(self, listener: socket.socket, connections: anyio.abc.TaskGroup) -> None:
        while not self._api.leaving.is_set():
            await anyio.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError:  # EMFILE, ENFILE: some will close; ECONNABORTED: he thought better of it
                await anyio.sleep(ACCEPT_AGAIN_S)
                continue
            self._open += 1
            connections.start_soon(self._connection, Wire(sock))

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Somebody is being answered."""
        if not self._answering:
            self._rested = anyio.Event()
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._rested.set()

    async def _connection(self, wire: Wire) -> None:
        try:
            if self._open <= limits.CONNECTIONS_MAX:
                await converse(wire, self._respond, HEADERS, self._busy)
            else:
                await turn_away(wire, _too_many(), HEADERS)
        except* GoneError:
            pass
        except* Exception as group:  # noqa: BLE001 (see above: a connection alone)
            self._api.complain(f"control socket: {_told(group)}")
        finally:
            self._open -= 1
            wire.close()

    async def _respond(self, request: Request) -> Answering:
        found = ROUTES.match(request)
        try:
            return await found.handler(Call(self._api, request, found.version, found.parts))
        except (PysupError, GoneError, SlowError, h11.RemoteProtocolError):  # not ours
            raise
        except OSError as error:  # a full disk, a directory that may not be written to
            message = f"{error.filename or request.path}: {error.strerror or error}"
            return refused(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, message))
        except Exception as error:  # noqa: BLE001 (see above: a call alone)
            self._api.complain(f"control socket: {request.method} {request.path}: {_told(error)}")
            return refused(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error: {_told(error)}"))


def _too_many() -> RefusedError:
    return RefusedError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"there are {limits.CONNECTIONS_MAX} connections already: close some, such as logs or events that are followed",
    )


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
