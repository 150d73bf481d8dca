"""/pysup/…: what Docker has no word for. A verb more is a handler here, and a line in routes.py."""

from contextlib import aclosing
from dataclasses import fields
from enum import Enum
from typing import Any

import anyio.lowlevel

from supervisor.api.call import Call, now
from supervisor.api.containers import signal_number
from supervisor.api.errors import bad, conflict
from supervisor.api.fields import Fields
from supervisor.api.http import NOTHING, Answering, Reply, Stream, encoded, shown
from supervisor.api.shapes import exit_code_of, human, is_running, state_of, status_of
from supervisor.commands import Reloaded, View
from supervisor.core.states import Phase


async def stack(call: Call) -> Answering:
    """The stack's name, and of each container all that is known."""
    containers = []
    for view in call.commands.views():
        containers.append(plain(view))
        await anyio.lowlevel.checkpoint()  # with thousands it takes a while: others have their turns
    return shown({"name": call.commands.name, "containers": containers})


def plain(value: object) -> Any:
    """As JSON has it: every field under its own name, enums by value, sets and tuples as lists. What a dataclass keeps
    to itself (secrets, a filter's code) stays there.
    """
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
    return {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.repr}  # type: ignore[arg-type]  # a dataclass


async def listing(call: Call) -> Answering:
    """Of each container what `pysup ps` shows, in the spec's order; no more, as there may be thousands."""
    at = now()
    return shown([_listed(call.commands.name, view, at) for view in call.commands.views()])


def _listed(stack: str, view: View, at: float) -> dict[str, Any]:
    return {
        "stack": stack,
        "id": view.id,
        "key": view.key,
        "group": view.group,
        "image": view.image,
        "command": " ".join(view.config.argv),
        "state": state_of(view),
        "status": _status(view, at),
        "phase": view.phase.value,
        "running": is_running(view),
        "health": view.health,
        "exit_code": exit_code_of(view),
        "failure": view.failure,
        "restarts": view.restarts,
        "pid": view.pid,
        "userns": None if view.ids is None else str(view.ids),
        "created_at": view.created_at,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
        "age": f"{human(at - view.created_at)} ago",
        "managed": view.managed,
        "log_driver": view.logs.driver,
        "log_lines_dropped": view.lines_dropped,
    }


def _status(view: View, at: float) -> str:
    """As Docker has it, and more where Docker has no word for it."""
    if view.phase is Phase.WAITING:
        return "Waiting for dependencies"
    if view.phase is Phase.FAILED and view.started_at is None:
        return "Failed to start"
    return status_of(view, at)


async def down(call: Call) -> Answering:
    """The whole stack is to stop. Who wants to see it stop listens to events, or waits for the socket's end."""
    await call.commands.stop_all()
    return NOTHING


async def reload(call: Call) -> Answering:
    """Read the spec again, and change what differs; with `dry_run` only say what that is."""
    asked = Fields(await call.request.data())
    return _reloaded(await call.commands.reload(dry=asked.truth("dry_run")))


async def scale(call: Call) -> Answering:
    """`scales`: how many replicas there are to be, by the ids of the spec."""
    asked = Fields(await call.request.data()).below("scales")
    numbers = {name: asked.number(name) for name in asked.values}
    if not numbers:
        raise bad("invalid JSON: scales: an object of numbers is expected")
    return _reloaded(await call.commands.scale(numbers))


def _reloaded(answer: Reloaded) -> Answering:
    return shown(plain(answer))


async def signal_execution(call: Call) -> Answering:
    """A signal to a command that was executed in a container: Docker's clients have no way to send one."""
    asked = call.api.executions.find(call.parts["id"])
    number = signal_number(call.query.text("signal"))
    if asked.running is None:
        raise conflict(f"exec {asked.key} is not running")
    asked.running.signal(number)
    return NOTHING


async def events(call: Call) -> Answering:
    """Everything that happens, a JSON object per line: `at`, `event`, `container`, `fields`."""
    query, since = call.query, call.query.moment("since", now())
    follow = query.truth("follow", default=True)
    place = call.api.ring.place(past=since is not None)

    async def write(reply: Reply) -> None:
        await reply.begin()
        async with aclosing(call.api.ring.read(place, follow=follow)) as entries:
            async for entry in entries:
                if entry.happening.at >= (since or 0):
                    await reply.send(encoded(plain(entry.happening)))

    return Stream(write)
