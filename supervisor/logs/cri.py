r"""The lines of a log on disk, in the format of the Kubernetes container runtime interface. Pure.

    2026-11-24T03:00:00.123456789Z stdout F text\n

`P` in place of `F` marks a line that was cut for its length and goes on in the next one of its stream. The text is
whatever the container wrote, but for newlines. All lines of one read have the same time. Stamping is one bytes.replace
for a chunk, with no work per line.

What can't be read as such a line is damaged: a file may hold garbage, or zeros where the machine lost power before a
block was written. Reading goes on with the next sane line, which after zeros may begin within the same "line".
"""

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from supervisor.commands import LogLine
from supervisor.streams.lines import Piece, Stream

SECOND_NS = 1_000_000_000

_LINE = re.compile(
    rb"(?:\A|\0)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z (stdout|stderr) ([FP]) (.*)\Z",
    re.DOTALL,
)
_STREAMS = {each.encode(): each for each in Stream}


class Parsed(NamedTuple):
    """What a block held."""

    lines: list[LogLine]
    damaged: int  # places that could not be read


def stamped(at_ns: int, stream: Stream, piece: Piece) -> bytes:
    """The piece's lines as they stand on disk."""
    head = b"%b %b %b " % (written(at_ns), stream.encode(), b"P" if piece.cut else b"F")
    followed = memoryview(piece.lines.replace(b"\n", b"\n" + head))  # one head too many, at its end
    return b"".join((head, followed[: -len(head)]))


def written(at_ns: int) -> bytes:
    """A time, in RFC 3339 with nine digits: ordered as bytes are."""
    since_epoch_s, rest_ns = divmod(at_ns, SECOND_NS)
    return b"%b.%09dZ" % (_date(since_epoch_s), rest_ns)


@lru_cache(maxsize=1)
def _date(since_epoch_s: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_epoch_s)).encode()


def parsed(block: bytes) -> Parsed:
    """The lines of a block that ends with a newline."""
    found, damaged = [], 0
    for text in block[:-1].split(b"\n"):
        match = _LINE.search(text)
        line = _line(match) if match else None
        if line:
            found.append(line)
        damaged += line is None or bool(match and match.start(1))
    return Parsed(found, damaged)


def _line(match: re.Match[bytes]) -> LogLine | None:
    try:
        since_epoch_s = _seconds(match[1])
    except ValueError:  # the 45th of a month
        return None
    return LogLine(since_epoch_s * SECOND_NS + int(match[2]), _STREAMS[match[3]], match[5], match[4] == b"P")


@lru_cache(maxsize=1024)
def _seconds(date: bytes) -> int:
    return int(datetime.fromisoformat(date.decode()).replace(tzinfo=UTC).timestamp())
