"""Small pieces sent as big ones: what comes while there is no reason to wait leaves together, up to a chunk."""

import anyio

from supervisor.api import limits
from supervisor.api.http import Reply


class Gathered:
    """What was put in and not sent yet. One task puts, `run` is another that sends."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._waiting = bytearray()
        self._changed = anyio.Event()
        self._closed = False

    async def put(self, piece: bytes) -> None:
        """Returns at once, unless a chunk waits: then not before that was sent."""
        while len(self._waiting) >= limits.CHUNK_BYTES:
            await self._changed.wait()
        if not self._waiting:
            self._tell()
        self._waiting += piece

    def close(self) -> None:
        """There is no more: `run` returns when all is sent."""
        self._closed = True
        self._tell()

    async def run(self) -> None:
        """Send, until closed."""
        while self._waiting or not self._closed:
            if self._waiting:
                data = bytes(self._waiting)
                self._waiting.clear()
                self._tell()
                await self._reply.send(data)
            else:
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
