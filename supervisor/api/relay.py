"""Bytes between a caller's connection and a command's pipes or terminal, both ways at once, none held for long.

The end of the caller's input is the end of the command's; the end of the command is the end of all, after its last
words. Output that something in the background holds open is not waited for, but all that is there is sent, however slow
the caller is. A caller who leaves ends it at once.
"""

import errno
import math
import os
from enum import Enum, auto

import anyio
import anyio.lowlevel

from supervisor.api import limits
from supervisor.api.frames import bare, frame
from supervisor.api.keys import Watch
from supervisor.api.wire import GoneError, Wire
from supervisor.commands import Executed
from supervisor.streams.lines import Stream


class Outcome(Enum):
    """Why it is over."""

    ENDED = auto()  # the command has
    DETACHED = auto()  # the caller pressed the keys
    LEFT = auto()  # the caller is gone


class Relay:
    """One command and one caller. `over` is set when the command has ended."""

    def __init__(self, wire: Wire, executed: Executed, over: anyio.Event, watch: Watch | None) -> None:
        self._wire = wire
        self._executed = executed
        self._over = over
        self._watch = watch  # with a terminal
        self._writing = anyio.Lock()  # a frame at a time
        self._waits: set[anyio.CancelScope] = set()
        self._outcome = Outcome.ENDED
        self._scope = anyio.CancelScope()

    async def run(self, streams: frozenset[Stream]) -> Outcome:
        """`streams`: those that the caller wants to see; the others are read too, and left out."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._input)
                await self._outputs(streams)
                tasks.cancel_scope.cancel()
        return self._outcome

    def _leave(self, why: Outcome) -> None:
        self._outcome = why
        self._scope.cancel()

    async def _outputs(self, streams: frozenset[Stream]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._output, Stream.STDOUT, self._executed.stdout, Stream.STDOUT in streams)
            if self._executed.stderr is not None:
                tasks.start_soon(self._output, Stream.STDERR, self._executed.stderr, Stream.STDERR in streams)
            await self._over.wait()
            for scope in self._waits:
                scope.deadline = anyio.current_time() + limits.LAST_WORD_S

    async def _output(self, stream: Stream, descriptor: int, wanted: bool) -> None:
        wrap = frame if self._watch is None else bare
        while data := await self._read(descriptor):
            if not wanted:
                await anyio.lowlevel.checkpoint()  # who writes as fast as we read would leave nobody else a turn
                continue
            try:
                async with self._writing:
                    await self._wire.send(wrap(stream, data))
            except GoneError:
                self._leave(Outcome.LEFT)

    async def _read(self, descriptor: int) -> bytes:
        """Empty at the end; or after the command's end, when nothing has come for a while."""
        while True:
            try:
                return os.read(descriptor, limits.CHUNK_BYTES)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.EIO:  # a terminal's end: nobody has its other side open
                    raise
                return b""
            limit = anyio.current_time() + limits.LAST_WORD_S if self._over.is_set() else math.inf
            with anyio.CancelScope(deadline=limit) as scope:
                self._waits.add(scope)
                try:
                    await anyio.wait_readable(descriptor)
                finally:
                    self._waits.discard(scope)
            if scope.cancelled_caught:
                return b""

    async def _input(self) -> None:
        try:
            while data := await self._wire.receive():
                typed, pressed = (data, False) if self._watch is None else self._watch.feed(data)
                await self._write(typed)
                if pressed:
                    self._leave(Outcome.DETACHED)
                    return
        except GoneError:
            self._leave(Outcome.LEFT)
            return
        if self._wire.is_gone():
            self._leave(Outcome.LEFT)
        elif self._watch is None:
            self._close_input()

    async def _write(self, data: bytes) -> None:
        """When the command does not take it any more, it is dropped."""
        while data and self._executed.stdin is not None:
            try:
                data = data[os.write(self._executed.stdin, data) :]
            except BlockingIOError:
                await anyio.wait_writable(self._executed.stdin)
            except OSError:
                if self._watch is None:
                    self._close_input()
                return

    def _close_input(self) -> None:
        if self._executed.stdin is not None:
            os.close(self._executed.stdin)
            self._executed.stdin = None


async def discard(executed: Executed, over: anyio.Event) -> None:
    """Read what nobody wants to see, so that the command is not held up, until it has ended."""

    async def read(descriptor: int) -> None:
        while True:
            try:
                if not os.read(descriptor, limits.CHUNK_BYTES):
                    return
                await anyio.lowlevel.checkpoint()
            except BlockingIOError:
                await anyio.wait_readable(descriptor)
            except OSError:
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, executed.stdout)
        if executed.stderr is not None:
            tasks.start_soon(read, executed.stderr)
        await over.wait()
        tasks.cancel_scope.cancel()
