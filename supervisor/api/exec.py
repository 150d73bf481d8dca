"""Commands in a container: `docker exec`. One is asked for, then started, by whom it is then attached to or by nobody.

A caller who is gone takes his command with him: nothing runs on unseen, unless it was detached. One that can't be
started has ended with 126, or with 127 if it is not there, and its output says why: so it is with Docker, too, and so
all its clients know what to do.
"""

from functools import partial
from http import HTTPStatus
from typing import Any

import anyio

from runtime.errors import PysupError
from supervisor.api.call import Api, Call, now
from supervisor.api.containers import sides, window
from supervisor.api.errors import bad, conflict
from supervisor.api.executions import Asked
from supervisor.api.fields import Fields
from supervisor.api.frames import frame
from supervisor.api.http import MULTIPLEXED, RAW, Answer, Answering, Handover, Line, shown
from supervisor.api.keys import Watch, sequence
from supervisor.api.relay import Outcome, Relay, discard
from supervisor.api.shapes import is_running
from supervisor.commands import Executed, Execution, Happening
from supervisor.streams.lines import Stream

NOT_STARTED = 126  # as Docker has it, unless it is more exactly known


async def create(call: Call) -> Answering:
    """What is to run: `docker exec` asks so first."""
    view = call.container()
    if not is_running(view):
        raise conflict(f"container {view.id} is not running")
    if view.paused:
        raise conflict(f"container {view.id} is paused, unpause the container before exec")
    fields = Fields(await call.request.data())
    argv = fields.texts("Cmd")
    if not argv:
        raise bad("no exec command specified")
    execution = Execution(
        argv,
        tuple(_pair(each) for each in fields.texts("Env")),
        fields.text("User") or None,
        fields.text("WorkingDir") or None,
        fields.truth("Tty"),
        fields.truth("Privileged"),
    )
    asked = Asked(
        view.id,
        view.key,
        execution,
        stdin=fields.truth("AttachStdin"),
        stdout=fields.truth("AttachStdout"),
        stderr=fields.truth("AttachStderr"),
        detach_keys=fields.text("DetachKeys"),
    )
    sequence(asked.detach_keys)
    call.api.executions.add(asked)
    _tell(call.api, asked, "exec_create")
    return shown({"Id": asked.key}, HTTPStatus.CREATED)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise bad(f"Env: {text[:100]!r} is not NAME=value")
    return name, value


async def start(call: Call) -> Answering:
    """Run it: attached to the caller, or not (`Detach`)."""
    asked = call.api.executions.find(call.parts["id"])
    fields = Fields(await call.request.data())
    if asked.begun:
        raise conflict(f"exec {asked.key} has already run")
    size = fields.numbers("ConsoleSize")
    if len(size) == 2 and all(size):
        size = sides(*size)
    asked.begun = True
    if fields.truth("Detach"):
        executed = await _begin(call.api, asked, size, stdin=False)
        call.api.tasks.start_soon(_let_run, asked, executed)
        return Answer()
    framed = call.version >= (1, 42) and not asked.execution.terminal
    return Handover(partial(_talk, call.api, asked, size), MULTIPLEXED if framed else RAW)


async def _talk(api: Api, asked: Asked, size: tuple[int, ...], line: Line) -> None:
    try:
        executed = await _begin(api, asked, size, stdin=asked.stdin)
    except PysupError as error:
        await line.begin()
        await line.wire.send(_complaint(asked, f"pysup: {error}"))
        return
    outcome = Outcome.LEFT
    try:
        await line.begin()
        watch = Watch(sequence(asked.detach_keys)) if asked.execution.terminal else None
        wanted = {Stream.STDOUT: asked.stdout, Stream.STDERR: asked.stderr}
        relay = Relay(line.wire, executed, asked.over, watch)
        outcome = await relay.run(frozenset(stream for stream, is_wanted in wanted.items() if is_wanted))
    finally:
        if outcome is Outcome.DETACHED:
            api.tasks.start_soon(_let_run, asked, executed)
        else:
            with anyio.CancelScope(shield=True):
                await executed.aclose()


def _complaint(asked: Asked, text: str) -> bytes:
    return f"{text}\r\n".encode() if asked.execution.terminal else frame(Stream.STDERR, f"{text}\n".encode())


async def _begin(api: Api, asked: Asked, size: tuple[int, ...], *, stdin: bool) -> Executed:
    """Run it, and have its end noted. PysupError."""
    try:
        executed = await api.commands.execute(asked.container, asked.execution, stdin=stdin)
    except BaseException as error:
        asked.ended(_status_of(error))
        raise
    asked.began(executed)
    if asked.execution.terminal and len(size) == 2 and all(size):
        executed.resize(*size)
    _tell(api, asked, "exec_start")
    api.tasks.start_soon(_note_end, api, asked, executed)
    return executed


def _status_of(error: BaseException) -> int:
    if isinstance(error, PysupError) and error.exit_status != PysupError.exit_status:
        return error.exit_status
    return NOT_STARTED


async def _note_end(api: Api, asked: Asked, executed: Executed) -> None:
    asked.ended(await executed.ended())
    _tell(api, asked, "exec_die", exit_status=asked.exit_status)


async def _let_run(asked: Asked, executed: Executed) -> None:
    """Without a caller."""
    try:
        await discard(executed, asked.over)
    finally:
        with anyio.CancelScope(shield=True):
            await executed.aclose()


def _tell(api: Api, asked: Asked, event: str, **more: object) -> None:
    fields = {"exec_id": asked.key, "command": " ".join(asked.execution.argv), **more}
    api.ring.put(Happening(now(), event, asked.container, fields))


async def resize(call: Call) -> Answering:
    """The size of its terminal."""
    asked = call.api.executions.find(call.parts["id"])
    rows, columns = window(call)
    if asked.running is None:
        raise conflict(f"exec {asked.key} is not running")
    if asked.execution.terminal:
        asked.running.resize(rows, columns)
    return Answer()


async def inspect(call: Call) -> Answering:
    """What became of it."""
    asked = call.api.executions.find(call.parts["id"])
    execution = asked.execution
    shape: dict[str, Any] = {
        "ID": asked.key,
        "Running": asked.running is not None,
        "ExitCode": asked.exit_status,
        "ProcessConfig": {
            "tty": execution.terminal,
            "entrypoint": execution.argv[0],
            "arguments": list(execution.argv[1:]),
            "privileged": execution.privileged,
            "user": execution.user or "",
        },
        "OpenStdin": asked.stdin,
        "OpenStdout": asked.stdout,
        "OpenStderr": asked.stderr,
        "CanRemove": False,
        "ContainerID": asked.container_key,
        "DetachKeys": asked.detach_keys,
        "Pid": asked.pid,
    }
    return shown(shape)
