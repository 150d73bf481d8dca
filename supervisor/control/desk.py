"""What stands between a running stack and those who look after it: logs, events, the control socket, systemd, metrics.

Everything that is told goes through one chain, each link of which hands it on: metrics count it, systemd hears what
matters to it, the chronicle notes the times and serves listeners, and at the end people read it.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.abc

from supervisor.control.board import Board
from supervisor.control.chronicle import Chronicle
from supervisor.core.states import State
from supervisor.entry import Compiled, Entry
from supervisor.errors import StackError
from supervisor.logs.policy import Driver
from supervisor.logs.writer import LogWriter
from supervisor.reporting import systemd
from supervisor.reporting.events import Level, Speaker
from supervisor.reporting.metrics import Metrics, Sources
from supervisor.stack.tree import Emit, Stack
from supervisor.streams.lines import JsonLines, LineForm, Piece, Stream

SOCKET = "pysup.sock"


class Told:
    """The chain. `emit` is its beginning; `stack` is known a little later."""

    def __init__(self, name: str, last: Emit) -> None:
        self.stack: Stack | None = None
        self._address = systemd.Address.of(os.environ, os.getpid())
        self._mouth = None if self._address is None else systemd.Mouth(self._address.path)
        self.logs: LogWriter | None = None
        self.chronicle = Chronicle(last)
        self._notifier = None if self._mouth is None else self._notify(self._mouth)
        self.metrics = Metrics(name, self._notifier or self.chronicle, self._sources())
        self.emit: Emit = self.metrics

    def _notify(self, mouth: systemd.Mouth) -> systemd.Notifier:
        status = lambda: systemd.counts(state.phase for _, state in self._states())  # noqa: E731 (asked for each time)
        return systemd.Notifier(self.chronicle, mouth.send, status, lambda: systemd.stop_s(self._entries()))

    def _sources(self) -> Sources:
        return Sources(
            self._states,
            lambda: 0 if self.logs is None else self.logs.written_bytes,
            lambda: 0 if self.logs is None else self.logs.lost_lines.total(),
        )

    def _states(self) -> Iterable[tuple[str, State]]:
        return ((each.entry.id, each.state) for each in (() if self.stack is None else self.stack.services))

    def _entries(self) -> list[Entry]:
        return [] if self.stack is None else [each.entry for each in self.stack.services]

    def begin(self, tasks: anyio.abc.TaskGroup) -> None:
        """Keep systemd informed, if it wants to be."""
        if self._notifier is not None and self._address is not None:
            tasks.start_soon(self._notifier.run)
            if self._address.watchdog_s is not None:
                tasks.start_soon(self._notifier.watch, self._address.watchdog_s)

    def close(self) -> None:
        """Nothing more is told."""
        if self._mouth is not None:
            self._mouth.close()


class Keeping:
    """The logs on disk, as the reader of all output needs them."""

    def __init__(self, logs: LogWriter) -> None:
        self._logs = logs
        self.fileno = logs.fileno
        self.acknowledge = logs.acknowledge
        self.has_room = logs.has_room
        self.drops = logs.drops
        self.moves = logs.moves

    def write(self, container: str, stream: Stream, piece: Piece) -> None:
        """With the time at which it was read."""
        self._logs.write(container, stream, piece, time.time_ns())

    def move(self, container: str, stream: Stream, pipe: int, moved: Callable[[bool], None]) -> None:
        """What is in a pipe, as it is."""
        self._logs.move(container, stream, pipe, moved, time.time_ns())

    def put(self, container: str, stream: Stream, data: bytes) -> None:
        """Bytes as they are."""
        self._logs.put(container, stream, data, time.time_ns())


class Shown:
    """The form of all lines: of a container whose log is on standard output as objects, of others as it is usual."""

    def __init__(self, usual: LineForm, logs: LogWriter) -> None:
        self._usual = usual
        self._objects = JsonLines(time.time)
        self._logs = logs

    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes:
        """A `LineForm`."""
        is_object = self._logs.policy(container).driver is Driver.STDOUT_JSON
        return (self._objects if is_object else self._usual)(container, stream, piece)


@contextmanager
def speaking(stack: str, events: Speaker, level: Level, *, structured: bool) -> Iterator[Speaker]:
    """Where our output goes to systemd's journal, events go there with their fields; else they are written."""
    if not structured or "JOURNAL_STREAM" not in os.environ:
        yield events
        return
    from supervisor.reporting.journal import Journal, is_journal  # noqa: PLC0415 (for services alone)

    if not is_journal(os.environ):
        yield events
        return
    with closing(Journal(stack, events, level=level)) as journal:
        yield journal


@asynccontextmanager
async def keeping(directory: Path, emit: Emit, stack: Compiled) -> AsyncIterator[LogWriter]:
    """The logs of a stack."""

    def tell(event: str, *, container: str, level: Level, **fields: object) -> None:  # noqa: ARG001 (up.py knows it)
        emit(event, container, fields)

    async with LogWriter(directory, tell, max_total_bytes=stack.logs.max_total_bytes) as logs:
        for entry in stack.entries:
            logs.open(entry.id, entry.logs)
        yield logs


@asynccontextmanager
async def serving(
    socket: Path, board: Board, images: tuple[Path, ...], complain: Callable[[str], None], group: int | None = None
) -> AsyncIterator[None]:
    """The control socket, for as long as the context lasts; `group` may use it too."""
    from supervisor.api.server import serve  # noqa: PLC0415 (h11 and all of the API: not for a stack without a socket)
    from supervisor.api.shelf import Folders  # noqa: PLC0415 (the same)

    try:
        try:
            socket.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"{error.filename}: the directory of the control socket can't be made: {error.strerror}; "
                "give another with --run DIR"
            ) from error
        async with anyio.create_task_group() as tasks:
            leave = anyio.Event()
            await tasks.start(partial(serve, socket, board, Folders(images), complain, group=group, leave=leave))
            yield
            board.close()
            leave.set()
    finally:
        for directory in (socket.parent, socket.parent.parent):
            with suppress(OSError):  # another stack's socket is there
                directory.rmdir()
