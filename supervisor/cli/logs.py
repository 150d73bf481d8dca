"""`pysup logs`: what containers wrote, of all of them in the order of time, and on with `-f`.

Each container's log is a stream of its own from the control socket. They are merged by their times: the earliest line
is shown when every stream has one to compare it with. With `-f` that holds for what was written before; once nothing
more comes for a moment, lines are shown as they come.
"""

import heapq
import select
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import environ

import click

from supervisor.cli import options, stacks
from supervisor.client import Feed, name_in_path
from supervisor.errors import CommandError
from supervisor.lines import Ansi, Layout, LineForm, Piece, Stream, TextLines, layout_for, wants_colour

STREAMS_MAX = 256  # of one command, at the control socket that others want to use too
AHEAD_MAX = 1024  # lines of a stream that wait for another's
QUIET_MS = 50  # after which what was written before is taken to be told
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


@click.command()
@options.on_stack_by_long_name
@options.ids
@click.option("-f", "--follow", is_flag=True, help="Go on with what they write from now on, until Ctrl-C.")
@click.option("-n", "--tail", metavar="N", default="all", help="Only the last N lines of each.")
@click.option("--since", metavar="TIME", help="Not what is older: 10m, or a time in RFC 3339.")
@click.option("--until", metavar="TIME", help="Not what is younger: 10m, or a time in RFC 3339.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("--no-log-prefix", "bare", is_flag=True, help="Show lines without their container's name.")
@click.option("--ansi", type=options.words(Ansi), default="auto", show_default=True, help="Colours.")
def logs(
    stack: stacks.Stack,
    ids: tuple[str, ...],
    *,
    follow: bool,
    tail: str,
    since: str | None,
    until: str | None,
    timestamps: bool,
    bare: bool,
    ansi: str,
) -> None:
    """Show what containers wrote: all, or those named."""
    if tail != "all" and not tail.isdecimal():
        raise click.UsageError(f"-n {tail}: expected a number of lines, or all")
    chosen = [str(each["id"]) for each in stacks.selected(stack.containers(), ids)]
    if len(chosen) > STREAMS_MAX:
        raise CommandError(f"logs of {len(chosen)} containers at once, at most {STREAMS_MAX} are possible: name some")
    query = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": follow, "tail": tail, "since": since, "until": until}
    colour = wants_colour(Ansi(ansi), environ, terminal=sys.stdout.isatty())
    layout = layout_for(chosen, colour=colour, timestamps=timestamps, prefixes=not bare)
    tales = [_Tale(name, _feed(stack, name, query)) for name in chosen]
    for lines in merged(tales, follow=follow):
        _write(lines, layout)


def _feed(stack: stacks.Stack, name: str, query: Mapping[str, object]) -> Feed:
    return stack.client.feed(f"/containers/{name_in_path(name)}/logs", **query)


@dataclass(frozen=True, slots=True)
class Line:
    """One of a container's. The rest of one that was cut bears the time of its beginning."""

    time: bytes  # RFC 3339 with nine digits: ordered as bytes are
    container: str
    stream: Stream
    text: bytes
    continues: bool
    cut: bool


class _Tale:
    """One container's lines, as they come."""

    def __init__(self, container: str, feed: Feed) -> None:
        self.feed = feed
        self.lines: deque[Line] = deque()
        self._container = container
        self._framed = feed.headers.get("content-type", "").endswith("multiplexed-stream")
        self._held = b""
        self._begun: dict[Stream, bytes] = {}  # times of lines that were cut

    def read(self) -> None:
        self._held += self.feed.read()
        for stream, text in self._framed_pieces() if self._framed else self._bare_pieces():
            self._add(stream, text)
        if self.feed.is_over and self._held:  # a terminal's last line
            self._add(Stream.STDOUT, self._held)

    def _framed_pieces(self) -> Iterator[tuple[Stream, bytes]]:
        at = 0
        while len(self._held) >= at + 8:
            end = at + 8 + int.from_bytes(self._held[at + 4 : at + 8], "big")
            if self._held[at] not in _STREAMS:
                raise CommandError("the control socket sent something that is no frame")
            if len(self._held) < end:
                break
            yield _STREAMS[self._held[at]], self._held[at + 8 : end]
            at = end
        self._held = self._held[at:]

    def _bare_pieces(self) -> Iterator[tuple[Stream, bytes]]:
        """A terminal's: by lines."""
        *whole, self._held = self._held.split(b"\n")
        yield from ((Stream.STDOUT, line + b"\n") for line in whole)

    def _add(self, stream: Stream, text: bytes) -> None:
        time = self._begun.pop(stream, None)
        continues = time is not None
        if time is None:
            time, _, text = text.partition(b" ")
        cut = not text.endswith(b"\n")
        if cut:
            self._begun[stream] = time
        self.lines.append(Line(time, self._container, stream, text, continues, cut))


def merged(tales: Sequence[_Tale], *, follow: bool) -> Iterator[list[Line]]:
    """Batches of lines, until all tales are over."""
    is_past = True
    poll = select.poll()
    watched = {tale.feed.fileno(): tale for tale in tales}
    order = {id(tale): number for number, tale in enumerate(tales)}
    heads: list[tuple[bytes, int]] = []  # of those that have a line
    empty = set(watched)
    for tale in tales:
        poll.register(tale.feed.fileno(), select.POLLIN)

    def read(number: int) -> None:
        tale = watched[number]
        had_none = not tale.lines
        tale.read()
        if had_none and tale.lines:
            heapq.heappush(heads, (tale.lines[0].time, order[id(tale)]))
            empty.discard(number)
        if tale.feed.is_over:
            del watched[number]
            empty.discard(number)
            poll.unregister(number)
            tale.feed.close()
        elif len(tale.lines) > AHEAD_MAX and not (follow and not is_past):
            poll.modify(number, 0)

    def take() -> Line:
        _, place = heads[0]
        tale = tales[place]
        line = tale.lines.popleft()
        if tale.lines:
            heapq.heapreplace(heads, (tale.lines[0].time, place))
        else:
            heapq.heappop(heads)
            if not tale.feed.is_over:
                empty.add(tale.feed.fileno())
                poll.modify(tale.feed.fileno(), select.POLLIN)
        return line

    while watched:
        ready = [number for number, _ in poll.poll(QUIET_MS if follow and is_past else None)]
        is_past = is_past and bool(ready)
        for number in ready:
            read(number)
        batch = []
        while heads and (not empty or (follow and not is_past)):
            batch.append(take())
        if batch:
            yield batch
    yield [take() for _ in range(sum(len(tale.lines) for tale in tales))]


class _Clock:
    """What the form of a line asks for its time."""

    def __init__(self) -> None:
        self.time = b""

    def __call__(self) -> float:
        text = self.time.decode("ascii", "replace")
        return datetime.fromisoformat(f"{text[:26]}+00:00").timestamp()


def _write(lines: Sequence[Line], layout: Layout) -> None:
    clock = _Clock()
    form = TextLines(layout, clock)
    sys.stdout.buffer.write(b"".join(_shown(line, form, clock, whole=layout.prefixes) for line in lines))
    sys.stdout.buffer.flush()


def _shown(line: Line, form: LineForm, clock: _Clock, *, whole: bool) -> bytes:
    clock.time = line.time
    ended = line.text if line.text.endswith(b"\n") else line.text + b"\n"
    shown = form(line.container, line.stream, Piece(ended, line.continues, line.cut))
    return shown if whole or not line.cut else shown[:-1]  # without names, its rest follows at once
