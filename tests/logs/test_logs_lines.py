"""How lines look on disk, and what of a damaged file can still be read. Pure."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.commands import LogLine
from supervisor.logs import cri
from supervisor.streams.lines import Piece, Stream

AT_NS = int(datetime(2026, 11, 24, 3, tzinfo=UTC).timestamp()) * cri.SECOND_NS + 123_456_789
LINE = b"2026-11-24T03:00:00.123456789Z stdout F text\n"
WANTED = LogLine(AT_NS, Stream.STDOUT, b"text")


def test_lines_have_time_and_stream() -> None:
    piece = Piece(b"text\n\nmore\n")
    assert cri.stamped(AT_NS, Stream.STDERR, piece) == (
        b"2026-11-24T03:00:00.123456789Z stderr F text\n"
        b"2026-11-24T03:00:00.123456789Z stderr F \n"
        b"2026-11-24T03:00:00.123456789Z stderr F more\n"
    )


def test_a_line_that_was_cut_says_that_it_goes_on() -> None:
    assert cri.stamped(AT_NS, Stream.STDOUT, Piece(b"text\n", cut=True)) == LINE.replace(b" F ", b" P ")
    assert cri.parsed(LINE.replace(b" F ", b" P ")).lines == [LogLine(AT_NS, Stream.STDOUT, b"text", partial=True)]


@given(
    st.lists(st.binary().map(lambda text: text.replace(b"\n", b""))).filter(bool),
    st.integers(0, 250_000_000_000 * cri.SECOND_NS // 1000),
    st.sampled_from(Stream),
)
def test_what_was_written_is_read(texts: list[bytes], at_ns: int, stream: Stream) -> None:
    stamped = cri.stamped(at_ns, stream, Piece(b"".join(text + b"\n" for text in texts)))
    assert cri.parsed(stamped) == ([LogLine(at_ns, stream, text) for text in texts], 0)


@pytest.mark.parametrize(
    "damage",
    [
        b"garbage\n",
        b"\n",
        b"\0" * 4096,
        b"\0" * 100 + b"\n",
        b"2026-11-24T03:00:00.1234" + b"\0" * 100,
        b"2026-11-24T03:00:00.123456789Z stdout X text\n",
        b"2026-11-45T03:00:00.123456789Z stdout F no such day\n",
        b"\xff\xfe" * 1000 + b"\n",
    ],
)
def test_damage_is_counted_and_costs_no_line_that_follows(damage: bytes) -> None:
    assert cri.parsed(LINE + damage + LINE) == ([WANTED, WANTED], 1)


@given(st.binary())
def test_garbage_never_breaks_the_reader(garbage: bytes) -> None:
    assert cri.parsed(garbage + b"\n" + LINE).lines[-1] == WANTED
