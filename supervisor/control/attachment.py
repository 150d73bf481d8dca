"""One who has joined a container's streams: what it writes as it comes, and what is written to it.

What waits to be received is bounded: from HELD_BYTES on the container's pipes are not read, and it waits in its own
write(2), until the one who joined has caught up.
"""

import os
from collections import deque

import anyio

from supervisor.kernel import KernelRun
from supervisor.streams.lines import Stream

HELD_BYTES = 1 << 20


class Attachment:
    """See `Attached`. `leave` when done; `run` is told as soon as there is one."""

    def __init__(self, *, stdin: bool) -> None:
        self._stdin = stdin
        self._run: KernelRun | None = None
        self._queue: deque[tuple[Stream, bytes]] = deque()
        self._size = 0
        self._held = False
        self._over = False
        self._news = anyio.Event()

    @property
    def has_joined(self) -> bool:
        """Is there, or was there, a run?"""
        return self._run is not None

    def join(self, run: KernelRun) -> None:
        """This is the run."""
        self._run = run
        run.listen(self._hear)
        self._wake()

    def end(self) -> None:
        """The run has ended; what is in the queue can still be received."""
        self._over = True
        self._wake()

    def leave(self) -> None:
        """Nobody receives any more."""
        if self._run is not None:
            self._run.unlisten(self._hear)
            self._release()

    async def receive(self) -> tuple[Stream, bytes] | None:
        """See `Attached.receive`."""
        while not self._queue:
            if self._over:
                return None
            await self._news.wait()
        stream, chunk = self._queue.popleft()
        self._size -= len(chunk)
        if self._size < HELD_BYTES // 2:
            self._release()
        return stream, chunk

    async def send(self, data: bytes) -> None:
        """See `Attached.send`."""
        await self._begun()
        while data and self._stdin and not self._over and self._run is not None and self._run.stdin is not None:
            try:
                try:
                    data = data[os.write(self._run.stdin, data) :]
                except BlockingIOError:
                    await self._run.room()
            except OSError:  # it has closed its end, or there is no descriptor to wait on
                return

    async def send_eof(self) -> None:
        """See `Attached.send_eof`."""
        await self._begun()
        if self._run is not None and self._stdin and not self._run.terminal:
            self._run.close_stdin()

    async def _begun(self) -> None:
        """Who attaches before the start may have said all he has to say by then."""
        while self._run is None and not self._over:
            await self._news.wait()

    def _hear(self, stream: Stream, chunk: bytes) -> None:
        self._queue.append((stream, chunk))
        self._size += len(chunk)
        if self._size >= HELD_BYTES and not self._held and self._run is not None:
            self._held = True
            self._run.hold(back=True)
        self._wake()

    def _release(self) -> None:
        if self._held and self._run is not None:
            self._held = False
            self._run.hold(back=False)

    def _wake(self) -> None:
        """All who wait: one may receive while another sends."""
        news, self._news = self._news, anyio.Event()
        news.set()
