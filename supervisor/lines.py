"""Lines as bytes: how a container's output is cut into lines, and what a line looks like to the user. Pure.

A `Cutter` turns the chunks read from one pipe into pieces of whole lines. A line that grows past LINE_MAX_BYTES is
cut, and the next piece says that it continues it, so what waits for a newline is bounded and nothing is invented.

Two forms write a piece, a whole chunk at a time (a bytes.replace, no work per line):

* `TextLines`: `web.1 | text`, aligned and coloured by container. The rest of a line that was cut has `+` for `|`.
  The container's bytes pass through unchanged, carriage returns and escape sequences included, as they would on a
  terminal of its own; with colour on, a line with an escape sequence is followed by a reset.
* `JsonLines`: one object per line. A line that is not UTF-8 has the key `line_base64` in place of `line`; the rest
  of a line that was cut has `"continues":true`.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol
from zlib import crc32

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
    """Whole lines, each with its newline; the first may be the rest of a line that was cut."""

    lines: bytes
    continues: bool = False


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
            yield self._piece(self._held + chunk[:room] + b"\n")
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

    def _piece(self, lines: bytes) -> Piece:
        continues, self._continues = self._continues, False
        return Piece(lines, continues)


def _first_line_bytes(chunk: bytes) -> int:
    newline = chunk.find(b"\n")
    return len(chunk) if newline < 0 else newline


@dataclass(frozen=True, slots=True)
class Layout:
    """What all lines on one screen share: the width of the name column, and whether there is colour."""

    width: int
    colour: bool

    def prefix(self, name: str, separator: str = "|") -> str:
        label = f"{name:<{self.width}} {separator} "
        return f"{colour_of(name)}{label}{RESET}" if self.colour else label


def layout_for(containers: Iterable[str], *, colour: bool) -> Layout:
    fitting = (len(name) for name in (OURS, *containers) if len(name) <= ALIGN_MAX)
    return Layout(width=max(fitting), colour=colour)


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
    """`web.1 | text`. The streams look the same, as in docker compose."""

    layout: Layout

    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes:  # noqa: ARG002 -- LineForm's signature
        prefix = self.layout.prefix(container).encode()
        first = self.layout.prefix(container, "+").encode() if piece.continues else prefix
        end = f"{RESET}\n".encode() if self.layout.colour and _ESCAPE in piece.lines else b"\n"
        return b"".join((first, piece.lines[:-1].replace(b"\n", end + prefix), end))


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


def json_line(fields: Mapping[str, object]) -> bytes:
    """One object and a newline. A path's undecodable byte, a lone surrogate in Python, becomes a JSON escape."""
    return _JSON.encode(fields).encode(errors="backslashreplace") + b"\n"


def rfc3339(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
