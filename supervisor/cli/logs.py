"""`pysup logs`: what containers wrote, of all of them in the order of time, and on with `-f`.

Logs stay when their stack ends, by `down` or by a crash, and the next `up` goes on with them: of a stack that does not
run, and of containers that it has no more, they are read from its files (past.py).

Each container's log is a stream of its own from the control socket. They are merged by their times: the earliest line
is shown when every stream has one to compare it with. With `-f` that holds for what was written before; once nothing
more comes for a moment, lines are shown as they come.
"""

import heapq
import select
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli import options, stacks
from supervisor.client import Feed, name_in_path
from supervisor.errors import CommandError, StackError
from supervisor.streams.lines import Ansi, Layout, LineForm, Piece, Stream, TextLines, layout_for, wants_colour

if TYPE_CHECKING:
    from supervisor.cli.past import Past
    from supervisor.commands import LogLine

STREAMS_MAX = 256  # of one command, at the control socket that others want to use too
AHEAD_MAX = 1024  # lines of a stream that wait for another's
QUIET_MS = 50  # after which what was written before is taken to be told
UNREADABLE = ("none", "stdout-json")  # drivers that keep nothing
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


_EXAMPLES = """\b
Examples:
  pysup logs -f web                    all replicas of web, from now on
  pysup logs -n 100 -t --since 1h      the last hour's, of each 100 lines"""


@click.command(epilog=_EXAMPLES)
@options.on_run_by_long_name
@options.state
@options.ids
@click.option("-f", "--follow", is_flag=True, help="Go on with what they write from now on, until Ctrl-C.")
@click.option("-n", "--tail", metavar="N", default="all", help="Only the last N lines of each.")
@click.option("--since", metavar="TIME", help="Not what is older: 10m, or a time in RFC 3339.")
@click.option("--until", metavar="TIME", help="Not what is younger: 10m, or a time in RFC 3339.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("--no-log-prefix", "bare", is_flag=True, help="Show lines without their container's name.")
@click.option("--ansi", type=options.words(Ansi), default="auto", show_default=True, help="Colours.")
def logs(
    ids: tuple[str, ...],
    *,
    run_dir: Path | None,
    name: str | None,
    state: Path,
    follow: bool,
    tail: str,
    since: str | None,
    until: str | None,
    timestamps: bool,
    bare: bool,
    ansi: str,
) -> None:
    """Show what containers wrote: all, or those named.

    Logs outlive their stack: of one that does not run any more they are shown, too.
    """
    if tail != "all" and not tail.isdecimal():
        raise click.UsageError(f"-n {tail}: expected a number of lines, or all")
    wish = Wish(ids, tail, since, until, follow=follow)
    run = str(options.run_of(state, run_dir))
    chosen, batches = _found(run, state, name, wish)
    colour = wants_colour(Ansi(ansi), environ, terminal=sys.stdout.isatty())
    layout = layout_for(chosen, colour=colour, timestamps=timestamps, prefixes=not bare)
    for lines in batches:
        _write(lines, layout)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown, in the user's words."""

    ids: tuple[str, ...]
    tail: str
    since: str | None
    until: str | None
    follow: bool


Found = tuple[list[str], Iterator[list["Line"]]]  # containers, and their lines


def _found(run: str, state: Path, name: str | None, wish: Wish) -> Found:
    """In the stack that runs; else on disk."""
    try:
        stack = stacks.chosen(run, name)
    except StackError:
        gone = _gone(run, state, name)
        if gone is None:
            raise
        _say(f"stack {gone.name} does not run: this is what its containers wrote")
        return _of_past(gone, wish)
    try:
        return _of_present(stack, state, wish)
    except stacks.NotThereError:
        from supervisor.cli.past import past  # noqa: PLC0415 (slow to load)

        gone = past(state, stack.name)
        if gone is None or not wish.ids:
            raise
        with suppress(stacks.NotThereError):
            return _of_past(gone, wish)
        raise


def _gone(run: str, state: Path, name: str | None) -> "Past | None":
    from supervisor.cli.past import only, past  # noqa: PLC0415 (slow to load)

    if name is not None:
        return past(state, name)
    return None if stacks.running(run) else only(state)


def _of_many(state: Path, name: str, chosen: list[str], wish: Wish) -> Found:
    """Too many for the control socket: what is on disk by now."""
    from supervisor.cli.past import past  # noqa: PLC0415 (slow to load)

    if wish.follow:
        raise CommandError(
            f"logs -f of {len(chosen)} containers at once, at most {STREAMS_MAX} are possible: name some"
        )
    if (there := past(state, name)) is None:
        return chosen, iter(())
    options.raise_limits()  # a file of each is open
    kept = {str(each["id"]) for each in there.containers()}
    return chosen, _read(there, [each for each in chosen if each in kept], wish)


def _of_present(stack: stacks.Stack, state: Path, wish: Wish) -> Found:
    there = stacks.selected(stack.containers(), wish.ids)
    if not wish.ids:
        there = [each for each in there if each.get("log_driver") not in UNREADABLE]
    for each in there:
        if dropped := each.get("log_lines_dropped"):
            _say(f"{each['id']}: {dropped} lines were dropped since the stack was started: its log could not keep up")
    chosen = [str(each["id"]) for each in there]
    if len(chosen) > STREAMS_MAX:
        return _of_many(state, stack.name, chosen, wish)
    query = {
        "stdout": 1,
        "stderr": 1,
        "timestamps": 1,
        "follow": wish.follow,
        "tail": wish.tail,
        "since": wish.since,
        "until": wish.until,
    }
    tales = [_Tale(name, _feed(stack, name, query)) for name in chosen]
    return chosen, merged(tales, follow=wish.follow)


def _of_past(gone: "Past", wish: Wish) -> Found:
    chosen = [str(each["id"]) for each in stacks.selected(gone.containers(), wish.ids)]
    return chosen, _read(gone, chosen, wish)


def _read(gone: "Past", chosen: list[str], wish: Wish) -> Iterator[list["Line"]]:
    from supervisor.api.call import now  # noqa: PLC0415 (slow to load)
    from supervisor.api.queries import moment  # noqa: PLC0415 (the same words as of a stack that runs)
    from supervisor.logs.reader import Part  # noqa: PLC0415 (as above)

    part = Part(
        None if wish.since is None else moment("since", wish.since, now()),
        None if wish.until is None else moment("until", wish.until, now()),
        None if wish.tail == "all" else int(wish.tail),
    )
    return _batches(_as_lines(gone.lines(chosen, part)))


def _as_lines(found: "Iterable[tuple[str, LogLine]]") -> Iterator["Line"]:
    from supervisor.logs.cri import written  # noqa: PLC0415 (as above)

    begun: dict[tuple[str, Stream], bytes] = {}
    for container, line in found:
        time_ = begun.pop((container, line.stream), None)
        continues = time_ is not None
        time_ = time_ or written(line.at_ns)
        if line.partial:
            begun[container, line.stream] = time_
        end = b"" if line.partial else b"\n"
        yield Line(time_, container, line.stream, line.text + end, continues, line.partial)


def _batches(lines: Iterator["Line"]) -> Iterator[list["Line"]]:
    while batch := list(islice(lines, AHEAD_MAX)):
        yield batch


def _say(text: str) -> None:
    click.echo(f"pysup: {text}", err=True)


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


class _Merge:
    """Lines of several tales in the order of their times. With `follow` that holds for what is past only."""

    def __init__(self, tales: Sequence[_Tale], *, follow: bool) -> None:
        self._tales = tales
        self._follow = follow
        self._is_past = True
        self._poll = select.poll()
        self._watched = {tale.feed.fileno(): tale for tale in tales}
        self._order = {id(tale): number for number, tale in enumerate(tales)}
        self._heads: list[tuple[bytes, int]] = []  # of those that have a line
        self._empty = set(self._watched)
        for number in self._watched:
            self._poll.register(number, select.POLLIN)

    def batches(self) -> Iterator[list[Line]]:
        """Until all tales are over."""
        while self._watched:
            ready = [number for number, _ in self._poll.poll(QUIET_MS if self._follow and self._is_past else None)]
            self._is_past = self._is_past and bool(ready)
            for number in ready:
                self._read(number)
            batch = []
            while self._heads and (not self._empty or self._is_live):
                batch.append(self._take())
            if batch:
                yield batch
        yield [self._take() for _ in range(sum(len(tale.lines) for tale in self._tales))]

    @property
    def _is_live(self) -> bool:
        """Lines come as they are written: nobody is waited for."""
        return self._follow and not self._is_past

    def _read(self, number: int) -> None:
        tale = self._watched[number]
        had_none = not tale.lines
        tale.read()
        if had_none and tale.lines:
            heapq.heappush(self._heads, (tale.lines[0].time, self._order[id(tale)]))
            self._empty.discard(number)
        if tale.feed.is_over:
            del self._watched[number]
            self._empty.discard(number)
            self._poll.unregister(number)
            tale.feed.close()
        elif len(tale.lines) > AHEAD_MAX and not self._is_live:
            self._poll.modify(number, 0)

    def _take(self) -> Line:
        """The oldest of all."""
        _, place = self._heads[0]
        tale = self._tales[place]
        line = tale.lines.popleft()
        if tale.lines:
            heapq.heapreplace(self._heads, (tale.lines[0].time, place))
        else:
            heapq.heappop(self._heads)
            if not tale.feed.is_over:
                self._empty.add(tale.feed.fileno())
                self._poll.modify(tale.feed.fileno(), select.POLLIN)
        return line


def merged(tales: Sequence[_Tale], *, follow: bool) -> Iterator[list[Line]]:
    """Batches of lines, until all tales are over."""
    return _Merge(tales, follow=follow).batches()


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
