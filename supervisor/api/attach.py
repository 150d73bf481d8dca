"""`docker attach`: a caller joins the streams of a container, for as long as he likes or its run lasts.

One may attach before the start: `docker run` does. What he types goes to its standard input, where that is kept open;
the keys that detach are looked for with a terminal only, as Docker does.
"""

from functools import partial

import anyio

from supervisor.api.call import Api, Call
from supervisor.api.errors import bad
from supervisor.api.frames import bare, frame
from supervisor.api.http import MULTIPLEXED, RAW, Answering, Handover, Line
from supervisor.api.keys import Watch, sequence
from supervisor.api.logs import Choice, framed
from supervisor.api.wire import GoneError, Wire
from supervisor.commands import Attached, View
from supervisor.streams.lines import Stream


async def attach(call: Call) -> Answering:
    """Hand the connection over."""
    view, query = call.container(), call.query
    wanted = {Stream.STDOUT: query.truth("stdout"), Stream.STDERR: query.truth("stderr")}
    streams = frozenset(stream for stream, is_wanted in wanted.items() if is_wanted)
    stdin = query.truth("stdin")
    if not streams and not stdin:
        raise bad("Bad parameters: you must choose at least one stream")
    watch = Watch(sequence(query.text("detachKeys"))) if view.tty else None
    join = _Join(call.api, view, streams, watch, stdin=stdin and view.open_stdin)
    talk = partial(join.talk, past=query.truth("logs"), present=query.truth("stream"))
    return Handover(talk, RAW if view.tty or call.version < (1, 42) else MULTIPLEXED)


class _Join:
    """One caller at one container."""

    def __init__(self, api: Api, view: View, streams: frozenset[Stream], watch: Watch | None, *, stdin: bool) -> None:
        self._api = api
        self._view = view
        self._streams = streams
        self._watch = watch
        self._stdin = stdin
        self._wrap = bare if view.tty else frame
        self._scope = anyio.CancelScope()

    async def talk(self, line: Line, *, past: bool, present: bool) -> None:
        async with self._api.commands.attach(self._view.id, stdin=self._stdin) as attached:
            await line.begin()
            with self._scope:
                if past:
                    await self._show_past(line.wire)
                if present:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._input, line.wire, attached)
                        await self._output(line.wire, attached)
                        tasks.cancel_scope.cancel()

    async def _show_past(self, wire: Wire) -> None:
        async for piece in framed(self._api.commands.logs(self._view.id), Choice(self._streams, tty=self._view.tty)):
            await wire.send(piece)

    async def _output(self, wire: Wire, attached: Attached) -> None:
        try:
            while (written := await attached.receive()) is not None:
                stream, data = written
                if stream in self._streams:
                    await wire.send(self._wrap(stream, data))
        except GoneError:
            self._scope.cancel()

    async def _input(self, wire: Wire, attached: Attached) -> None:
        try:
            while data := await wire.receive():
                typed, pressed = (data, False) if self._watch is None else self._watch.feed(data)
                if self._stdin and typed:
                    await attached.send(typed)
                if pressed:
                    self._scope.cancel()
        except GoneError:
            self._scope.cancel()
            return
        if wire.is_gone():
            self._scope.cancel()
        elif self._stdin:
            await attached.send_eof()
