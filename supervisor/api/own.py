"""/pysup/…: what Docker has no word for. A verb more is a handler here, and a line in routes.py."""

import time
from contextlib import aclosing
from dataclasses import asdict, fields
from enum import Enum
from typing import Any

from supervisor.api.call import Call
from supervisor.api.http import NOTHING, Answering, Reply, Stream, encoded, shown
from supervisor.commands import View


async def stack(call: Call) -> Answering:
    """The stack's name, and of each container all that is known."""
    return shown({"name": call.commands.name, "containers": [_plain(view) for view in call.commands.views()]})


def _plain(view: View) -> dict[str, Any]:
    """Every field under its own name; of those that hold fields, as an object."""
    return {each.name: plain(getattr(view, each.name)) for each in fields(view)}


def plain(value: object) -> Any:
    """As JSON has it: enums by value, sets and tuples as lists."""
    match value:
        case Enum():
            return value.value
        case bytes():
            return value.decode(errors="replace")
        case dict():
            return {str(name): plain(each) for name, each in value.items()}
        case list() | tuple() | frozenset() | set():
            return [plain(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
    return plain(asdict(value))  # type: ignore[call-overload]  # all else are dataclasses


async def down(call: Call) -> Answering:
    """The whole stack is to stop. Who wants to see it stop listens to events, or waits for the socket's end."""
    await call.commands.stop_all()
    return NOTHING


async def events(call: Call) -> Answering:
    """Everything that happens, a JSON object per line: `at`, `event`, `container`, `fields`."""
    query, now = call.query, time.time()
    since = query.moment("since", now)
    follow = query.truth("follow", default=True)
    place = call.api.ring.place(past=since is not None)

    async def write(reply: Reply) -> None:
        await reply.begin()
        async with aclosing(call.api.ring.read(place, follow=follow)) as entries:
            async for entry in entries:
                if entry.happening.at >= (since or 0):
                    await reply.send(encoded(plain(asdict(entry.happening))))

    return Stream(write)
