"""A writer of logs for tests, and what it tells."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio

from supervisor.logs.writer import Level, LogWriter

Writing = Callable[..., AbstractAsyncContextManager[LogWriter]]


class Told:
    """What a writer tells, as Events.emit would get it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []

    def __call__(self, event: str, *, container: str, level: Level, **fields: object) -> None:
        assert level == "warning"
        self.events.append((event, container, fields))


@asynccontextmanager
async def written(directory: Path, told: Told, max_total_bytes: int | None = None) -> AsyncIterator[LogWriter]:
    """A writer that is listened to, as the reader of the pipes does it."""
    async with (
        LogWriter(directory, told, max_total_bytes=max_total_bytes) as writer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_listen, writer)
        yield writer
        tasks.cancel_scope.cancel()


async def _listen(writer: LogWriter) -> None:
    while True:
        await anyio.wait_readable(writer.fileno())
        writer.acknowledge()
