"""`docker logs`: what a container wrote, in frames or bare, with or without the time before each line."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus

import anyio

from supervisor.api.call import Call, now
from supervisor.api.errors import RefusedError, bad
from supervisor.api.frames import bare, frame
from supervisor.api.gather import Gathered
from supervisor.api.http import MULTIPLEXED, RAW, Answering, Reply, Stream
from supervisor.commands import LogLine
from supervisor.logs.cri import written
from supervisor.streams.lines import Stream as Output

# In Docker's words first: its clients look for them.
NOT_READABLE = "configured logging driver does not support reading: that of {id} is {driver}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lines, and how they look."""

    streams: frozenset[Output]
    tty: bool
    timestamps: bool = False


async def logs(call: Call) -> Answering:
    """As they are, and with `follow` as they come."""
    view, query, at = call.container(), call.query, now()
    wanted = {Output.STDOUT: query.truth("stdout"), Output.STDERR: query.truth("stderr")}
    streams = frozenset(stream for stream, is_wanted in wanted.items() if is_wanted)
    if not streams:
        raise bad("Bad parameters: you must choose at least one stream")
    if not view.logs.driver.is_readable:
        raise RefusedError(HTTPStatus.NOT_IMPLEMENTED, NOT_READABLE.format(driver=view.logs.driver, id=view.id))
    choice = Choice(streams, view.tty, query.truth("timestamps"))
    since, until = query.moment("since", at), query.moment("until", at)
    lines = call.commands.logs(
        view.id, follow=query.truth("follow"), since=since, until=until, last=_last(query.text("tail", "all"))
    )

    async def write(reply: Reply) -> None:
        with call.commands.reading(view.id):
            await reply.begin()
            gathered = Gathered(reply)
            async with anyio.create_task_group() as tasks, aclosing(framed(lines, choice)) as pieces:
                tasks.start_soon(gathered.run)
                async for piece in pieces:
                    await gathered.put(piece)
                gathered.close()

    return Stream(write, RAW if view.tty or call.version < (1, 42) else MULTIPLEXED)


def _last(tail: str) -> int | None:
    """What is no number means all, as with Docker."""
    return int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 10 else None


async def framed(lines: AsyncGenerator[LogLine, None], choice: Choice) -> AsyncGenerator[bytes, None]:
    """Each line as it is sent. The rest of a line that was cut has no time of its own."""
    wrap = bare if choice.tty else frame
    inside = dict.fromkeys(Output, False)
    async with aclosing(lines):
        async for line in lines:
            if line.stream in choice.streams:
                head = written(line.at_ns) + b" " if choice.timestamps and not inside[line.stream] else b""
                yield wrap(line.stream, head + line.text + (b"" if line.partial else b"\n"))
                inside[line.stream] = line.partial
