"""Lines as bytes: how a container's output is cut into lines, and what a line looks like to the user. Pure.

A `Cutter` turns the chunks read from one pipe into pieces of whole lines. A line that grows past LINE_MAX_BYTES is
cut, and the next piece says that it continues it, so what waits for a newline is bounded and nothing is invented.

Two forms write a piece, a whole chunk at a time (a bytes.replace, no work per line):

* `TextLines`: `web.1 | text` is standard output, `web.1 ! text` standard error, and the rest of a line that was cut, of
  either, has `+`; aligned, and coloured by container. As `output: {prefix, timestamps}` of the spec has it, there is
  another name or none, which leaves bare lines, and the time before the text. The container's bytes pass through
  unchanged, carriage returns and escape sequences included, as they would on a terminal of its own; with colour on, a
  line with an escape sequence is followed by a reset.
* `JsonLines`: one object per line. A line that is not UTF-8 has the key `line_base64` in place of `line`; the rest
  of a line that was cut has `"continues":true`.

The time of a line is when its chunk was read. It is wall time, shown and used for nothing else.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

if TYPE_CHECKING:
    from supervisor.entry import OutputForm

LINE_MAX_BYTES = 64 * 1024  # Docker cuts at 16 KiB, journald at 48
ALIGN_MAX = 32  # a longer id is shown whole, but does not push all others to the right

OURS = "pysup"  # the name under which the supervisor itself speaks
RESET = "\x1b[0m"
_ESCAPE = b"\x1b"
# cyan, yellow, green, magenta, blue and their bright variants, as docker compose; red is left to errors
_COLOURS = tuple(f"\x1b[{code}m" for code in (36, 33, 32, 35, 34, 96, 93, 92, 95, 94))


class Stream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class Ansi(StrEnum):
    NEVER = "never"
    ALWAYS = "always"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines, each with its newline; the first may be the rest of a line that was cut. One that was cut just now,
    and goes on in the next piece, is alone.
    """

    lines: bytes
    continues: bool = False
    cut: bool = False


class LineForm(Protocol):
    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes: ...


class Cutter:
    """Cuts what one pipe gives into whole lines. A chunk is at most LINE_MAX_BYTES."""

    __slots__ = ("_continues", "_held")

    def __init__(self) -> None:
        self._held = b""
        self._continues = False

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        if self._held and len(self._held) + _first_line_bytes(chunk) > LINE_MAX_BYTES:
            room = LINE_MAX_BYTES - len(self._held)
            yield self._piece(self._held + chunk[:room] + b"\n", cut=True)
            self._held, self._continues, chunk = b"", True, chunk[room:]
        if end := chunk.rfind(b"\n") + 1:
            yield self._piece(self._held + chunk[:end])
            self._held = chunk[end:]
        else:
            self._held += chunk

    def end(self) -> Iterator[Piece]:
        """The last line, if it had no newline: it gets one here."""
        if self._held:
            yield self._piece(self._held + b"\n")
            self._held = b""

    def taken(self) -> bytes:
        """What is held of a line, which is the caller's from now on."""
        held, self._held = self._held, b""
        return held

    def _piece(self, lines: bytes, *, cut: bool = False) -> Piece:
        continues, self._continues = self._continues, False
        return Piece(lines, continues, cut)


def _first_line_bytes(chunk: bytes) -> int:
    newline = chunk.find(b"\n")
    return len(chunk) if newline < 0 else newline


@dataclass(slots=True)
class Layout:
    """What all lines on one screen share, and what is special to some containers. A reload changes it for all."""

    width: int  # of the name column
    colour: bool
    timestamps: bool = False  # on the lines of all containers
    prefixes: bool = True
    outputs: "dict[str, OutputForm]" = field(default_factory=dict)  # of those that have a form of their own

    def admit(self, container: str, form: "OutputForm") -> None:
        """One more, or one whose form is another. The column grows with it, and never gets narrower."""
        self.outputs.pop(container, None)
        if _is_special(form):
            self.outputs[container] = form
        label = self.label(container)
        if len(label) <= ALIGN_MAX:
            self.width = max(self.width, len(label))

    def prefix(self, name: str, separator: str = "|", *, colour: str | None = None) -> str:
        label = f"{name:<{self.width}} {separator} "
        return f"{colour or colour_of(name)}{label}{RESET}" if self.colour else label

    def label(self, container: str) -> str:
        """The name its lines bear; none if it is empty."""
        own = self.outputs.get(container)
        if not self.prefixes:
            return ""
        return container if own is None or own.prefix is None else own.prefix

    def has_timestamps(self, container: str) -> bool:
        own = self.outputs.get(container)
        return self.timestamps or (own is not None and own.timestamps)


def layout_for(
    containers: Iterable[str],
    outputs: "Mapping[str, OutputForm] | None" = None,
    *,
    colour: bool,
    timestamps: bool = False,
    prefixes: bool = True,
) -> Layout:
    """`outputs`: the form of each container; one that has nothing special may be left out."""
    special = {name: form for name, form in (outputs or {}).items() if _is_special(form)}
    layout = Layout(0, colour, timestamps, prefixes, special)
    labels = (OURS, *map(layout.label, containers))
    return replace(layout, width=max(len(label) for label in labels if len(label) <= ALIGN_MAX))


def _is_special(form: "OutputForm") -> bool:
    return form.timestamps or form.prefix is not None


def colour_of(container: str) -> str:
    """The same colour in each run for the same id (hash() differs from process to process)."""
    return _COLOURS[crc32(container.encode(errors="backslashreplace")) % len(_COLOURS)]


def wants_colour(ansi: Ansi, environ: Mapping[str, str], *, terminal: bool) -> bool:
    """The command line decides before the environment, as https://no-color.org asks; an empty NO_COLOR is none."""
    if ansi is not Ansi.AUTO:
        return ansi is Ansi.ALWAYS
    return terminal and not environ.get("NO_COLOR") and environ.get("TERM", "dumb") not in {"", "dumb"}


@dataclass(frozen=True, slots=True)
class TextLines:
    """`web.1 | text`."""

    layout: Layout
    now: Callable[[], float]

    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes:
        mark = "!" if stream is Stream.STDERR else "|"
        time = f"{_rfc3339_ms(self.now())} " if self.layout.has_timestamps(container) else ""
        prefix = self._prefix(container, mark, time)
        first = self._prefix(container, "+", time) if piece.continues else prefix
        end = f"{RESET}\n".encode() if self.layout.colour and _ESCAPE in piece.lines else b"\n"
        return b"".join((first, piece.lines[:-1].replace(b"\n", end + prefix), end))

    def _prefix(self, container: str, mark: str, time: str) -> bytes:
        label = self.layout.label(container)
        named = self.layout.prefix(label, mark, colour=colour_of(container)) if label else ""
        return f"{named}{time}".encode()


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One object per line, with the keys of an event; the time is that of the read."""

    now: Callable[[], float]

    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes:
        shared = {"timestamp": rfc3339(self.now()), "level": "info", "event": "output", "container": container}
        head = json_line({**shared, "stream": stream})[:-2] + b","
        body = (b"}\n" + head).join(map(_line_field, piece.lines[:-1].split(b"\n")))
        mark = b'"continues":true,' if piece.continues else b""
        return head + mark + body + b"}\n"


def _line_field(line: bytes) -> bytes:
    try:
        return b'"line":' + _JSON.encode(line.decode()).encode()
    except UnicodeDecodeError:
        return b'"line_base64":"' + b64encode(line) + b'"'


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_ASCII = json.JSONEncoder(separators=(",", ":"), default=str)


def json_line(fields: Mapping[str, object]) -> bytes:
    """One object and a newline. What a terminal would obey, or that has no UTF-8 (a path's undecodable byte, in Python
    a lone surrogate), becomes a JSON escape.
    """
    text = _JSON.encode(fields)
    return (text if text.isprintable() else _ASCII.encode(fields)).encode() + b"\n"


def rfc3339(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _rfc3339_ms(now: float) -> str:
    return f"{rfc3339(now)[:-4]}Z"
