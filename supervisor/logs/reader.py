"""What is asked for of a log, from its files: all that is there, and what comes.

Files are read in worker threads, a block at a time, so a slow disk holds up nobody else. Who follows is woken by the
writer's word, and never looks without one. The word that was given while it read is not lost, for what it knows is
reset before each reading.
"""

import math
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread

from supervisor.commands import LogLine
from supervisor.errors import CommandError
from supervisor.logs.cri import SECOND_NS
from supervisor.logs.cursor import Cursor, Raw, Stamped
from supervisor.streams.lines import Stream


class LogError(CommandError):
    """A log can't be read."""


class Followed:
    """What someone who follows a log is told by its writer."""

    def __init__(self) -> None:
        self._ended = False
        self._news = anyio.Event()

    def news(self) -> None:
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def reset(self) -> bool:
        """Wait for later news only. Has the log ended?"""
        self._news = anyio.Event()
        return self._ended

    async def wait(self) -> None:
        await self._news.wait()


@dataclass(frozen=True, slots=True)
class Part:
    """What of a log is asked for. Times are seconds since the epoch, and both are included."""

    since: float | None = None
    until: float | None = None
    last: int | None = None


def shelved(directory: Path, part: Part) -> Generator[LogLine, None, None]:
    """What is there of a log that nobody writes to. Blocks. LogError."""
    cursors = _cursors(directory, _nanoseconds(part.since, -math.inf), _nanoseconds(part.until, math.inf))
    try:
        with _readable(directory):
            for cursor in cursors:
                if part.last is not None:
                    cursor.seek_last(part.last)
                while (found := cursor.lines()) is not None:
                    yield from found
                yield from cursor.rest()
    finally:
        for cursor in cursors:
            cursor.close()


async def lines(
    directory: Path,
    followed: Followed | None = None,
    *,
    since: float | None = None,
    until: float | None = None,
    last: int | None = None,
) -> AsyncGenerator[LogLine, None]:
    """Oldest first. `since` and `until` are seconds since the epoch, and both are included. LogError."""
    cursors = _cursors(directory, _nanoseconds(since, -math.inf), _nanoseconds(until, math.inf))
    try:
        with _readable(directory):
            if followed is None:
                for cursor in cursors:
                    await to_thread.run_sync(cursor.end_here)
            if last is not None:
                for cursor in cursors:
                    await to_thread.run_sync(cursor.seek_last, last)
            while True:
                ended = followed is None or followed.reset() or (until is not None and time.time() > until)
                for cursor in cursors:
                    while (found := await to_thread.run_sync(cursor.lines)) is not None:
                        for line in found:
                            yield line
                if followed is None or ended:
                    break
                with anyio.move_on_after(math.inf if until is None else max(0.0, until - time.time())):
                    await followed.wait()
            for cursor in cursors:
                for line in await to_thread.run_sync(cursor.rest):
                    yield line
    finally:
        for cursor in cursors:
            cursor.close()


def _cursors(directory: Path, since_ns: float, until_ns: float) -> list[Cursor]:
    """One for the lines, one for each stream that is raw: a log may have been both, one after the other."""
    stamped = Cursor(directory, Stamped(), since_ns=since_ns, until_ns=until_ns)
    raw = [Cursor(directory / stream, Raw(stream), since_ns=since_ns, until_ns=until_ns) for stream in Stream]
    return [*raw, stamped]


def _nanoseconds(at: float | None, default: float) -> float:
    return default if at is None else round(at * SECOND_NS)


@contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogError(
            f"the log of {directory.name} can't be read: {error.filename or directory}: {error.strerror}"
        ) from error
