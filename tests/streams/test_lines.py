"""How output is cut into lines, and what a line looks like. Pure."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.entry import OutputForm
from supervisor.streams.lines import (
    ALIGN_MAX,
    LINE_MAX_BYTES,
    Ansi,
    Cutter,
    JsonLines,
    Layout,
    Piece,
    Stream,
    TextLines,
    colour_of,
    json_line,
    layout_for,
    wants_colour,
)


def clock() -> float:
    return 1_700_000_000.25


PLAIN = TextLines(Layout(width=5, colour=False), clock)
COLOURED = TextLines(Layout(width=5, colour=True), clock)
JSON = JsonLines(clock)


def cut(*chunks: bytes) -> list[Piece]:
    cutter = Cutter()
    return [piece for chunk in chunks for piece in cutter.feed(chunk)] + list(cutter.end())


def test_a_chunk_of_whole_lines_stays_one_piece() -> None:
    assert cut(b"a\nb\n\n") == [Piece(b"a\nb\n\n")]


def test_a_line_read_in_parts_comes_out_whole() -> None:
    assert cut(b"a\nhal", b"f ", b"line\nc\n") == [Piece(b"a\n"), Piece(b"half line\nc\n")]


def test_a_last_line_without_newline_is_kept_and_gets_one() -> None:
    assert cut(b"a\nlast") == [Piece(b"a\n"), Piece(b"last\n")]


def test_a_line_of_just_the_limit_is_not_cut() -> None:
    longest = b"x" * LINE_MAX_BYTES
    assert cut(longest, b"\n") == [Piece(longest + b"\n")]


def test_a_line_over_the_limit_is_cut_and_its_rest_says_so() -> None:
    longest = b"x" * LINE_MAX_BYTES
    pieces = [Piece(longest + b"\n", cut=True), Piece(b"y\n", continues=True), Piece(b"next\n")]
    assert cut(longest, b"y\n", b"next\n") == pieces


def test_a_line_without_end_never_holds_more_than_the_limit() -> None:
    cutter = Cutter()
    pieces = [piece for _ in range(20) for piece in cutter.feed(b"x" * 60_000)]
    pieces += cutter.end()
    assert [len(piece.lines) - 1 for piece in pieces[:-1]] == [LINE_MAX_BYTES] * (len(pieces) - 1)
    assert [piece.continues for piece in pieces] == [False] + [True] * (len(pieces) - 1)
    assert sum(len(piece.lines) - 1 for piece in pieces) == 20 * 60_000


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"x" * 40_000, b"z" * LINE_MAX_BYTES])))
def test_no_byte_is_lost_or_added_however_it_is_read(chunks: list[bytes]) -> None:
    rejoined = b""
    for piece in cut(*chunks):
        assert piece.lines.endswith(b"\n")
        rejoined = (rejoined[:-1] if piece.continues else rejoined) + piece.lines
    written = b"".join(chunks)
    assert rejoined == (written if written.endswith(b"\n") or not written else written + b"\n")


def test_text_is_aligned_to_the_longest_id() -> None:
    layout = layout_for(["db", "web.10"], colour=False)
    assert [layout.prefix(name) for name in ("db", "web.10", "pysup")] == ["db     | ", "web.10 | ", "pysup  | "]


def test_an_overlong_id_is_shown_whole_but_does_not_push_the_others_away() -> None:
    longest = "x" * (ALIGN_MAX + 1)
    layout = layout_for(["db", longest], colour=False)
    assert layout.prefix("db") == "db    | "
    assert layout.prefix(longest) == f"{longest} | "


def test_text_prefixes_each_line_and_keeps_every_byte() -> None:
    assert PLAIN("web.1", Stream.STDOUT, Piece(b"a\n\n\xff\r50%\r\x1b[1mb\n")) == (
        b"web.1 | a\nweb.1 | \nweb.1 | \xff\r50%\r\x1b[1mb\n"
    )


def test_the_streams_differ_as_text_without_colour() -> None:
    assert PLAIN("db", Stream.STDOUT, Piece(b"a\nb\n")) == b"db    | a\ndb    | b\n"
    assert PLAIN("db", Stream.STDERR, Piece(b"a\nb\n")) == b"db    ! a\ndb    ! b\n"


@pytest.mark.parametrize(("stream", "mark"), [(Stream.STDOUT, b"|"), (Stream.STDERR, b"!")])
def test_the_rest_of_a_cut_line_is_marked_in_its_prefix(stream: Stream, mark: bytes) -> None:
    written = PLAIN("web.1", stream, Piece(b"rest\nnext\n", continues=True))
    assert written == b"web.1 + rest\nweb.1 " + mark + b" next\n"


STAMP = b"2023-11-14T22:13:20.250Z"


def text(name: str, form: OutputForm | None = None, *, timestamps: bool = False, prefixes: bool = True) -> bytes:
    """Two lines of `web.1`, beside a container `db`, on a screen with these options."""
    forms = {"web.1": form} if form is not None else {}
    layout = layout_for(["db", "web.1"], forms, colour=False, timestamps=timestamps, prefixes=prefixes)
    return TextLines(layout, clock)(name, Stream.STDERR, Piece(b"a\nb\n"))


def test_timestamps_are_of_the_read_in_milliseconds_and_utc() -> None:
    assert text("web.1", timestamps=True) == b"web.1 ! %b a\nweb.1 ! %b b\n" % (STAMP, STAMP)


def test_one_container_may_have_timestamps() -> None:
    form = OutputForm(timestamps=True)
    assert text("web.1", form) == b"web.1 ! %b a\nweb.1 ! %b b\n" % (STAMP, STAMP)
    assert text("db", form) == b"db    ! a\ndb    ! b\n"


def test_another_prefix_is_aligned_with_the_others() -> None:
    form = OutputForm(prefix="frontend")
    assert text("web.1", form) == b"frontend ! a\nfrontend ! b\n"
    assert text("db", form) == b"db       ! a\ndb       ! b\n"


def test_without_prefix_lines_are_bare() -> None:
    form = OutputForm(prefix="")
    assert text("web.1", form) == b"a\nb\n"
    assert text("db", form) == b"db    ! a\ndb    ! b\n"
    assert text("web.1", form, timestamps=True) == b"%b a\n%b b\n" % (STAMP, STAMP)


def test_no_prefixes_at_all_leaves_those_of_events() -> None:
    assert text("db", prefixes=False) == b"a\nb\n"
    assert text("web.1", OutputForm(prefix="x"), prefixes=False) == b"a\nb\n"
    assert layout_for(["web.1"], colour=False, prefixes=False).prefix("pysup") == "pysup | "


def test_another_prefix_has_the_colour_of_its_container() -> None:
    layout = layout_for(["web.1"], {"web.1": OutputForm(prefix="front")}, colour=True)
    written = TextLines(layout, clock)("web.1", Stream.STDOUT, Piece(b"a\n"))
    assert written == f"{colour_of('web.1')}front | \x1b[0ma\n".encode()


def test_containers_with_nothing_special_take_no_room_in_a_layout() -> None:
    assert layout_for(["a", "b"], {"a": OutputForm(), "b": OutputForm()}, colour=False).outputs == {}


def test_coloured_text() -> None:
    assert COLOURED("web.1", Stream.STDOUT, Piece(b"a\nb\n")) == (
        b"\x1b[96mweb.1 | \x1b[0ma\n\x1b[96mweb.1 | \x1b[0mb\n"
    )


def test_colour_left_on_by_a_container_ends_with_its_line() -> None:
    assert COLOURED("web.1", Stream.STDOUT, Piece(b"\x1b[31mred\nmore\n")) == (
        b"\x1b[96mweb.1 | \x1b[0m\x1b[31mred\x1b[0m\n\x1b[96mweb.1 | \x1b[0mmore\x1b[0m\n"
    )


def test_each_id_has_its_colour_and_neighbours_differ_as_a_rule() -> None:
    colours = [colour_of(f"web.{n}") for n in range(100)]
    assert colours == [colour_of(f"web.{n}") for n in range(100)]
    assert len(set(colours)) > 5


@pytest.mark.parametrize(
    ("ansi", "environ", "terminal", "expected"),
    [
        (Ansi.AUTO, {"TERM": "xterm"}, True, True),
        (Ansi.AUTO, {"TERM": "xterm"}, False, False),
        (Ansi.AUTO, {"TERM": "dumb"}, True, False),
        (Ansi.AUTO, {"TERM": ""}, True, False),
        (Ansi.AUTO, {}, True, False),
        (Ansi.AUTO, {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (Ansi.AUTO, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (Ansi.ALWAYS, {"TERM": "dumb", "NO_COLOR": "1"}, False, True),
        (Ansi.NEVER, {"TERM": "xterm"}, True, False),
    ],
)
def test_colour_is_decided_by_option_then_environment_then_terminal(
    ansi: Ansi, environ: dict[str, str], terminal: bool, expected: bool
) -> None:
    assert wants_colour(ansi, environ, terminal=terminal) is expected


def test_json_lines() -> None:
    piece = Piece('say "hi"\t\x1b[0m ü\n\xff\n'.encode("latin-1").replace(b"\xfc", "ü".encode()))
    head = b'{"timestamp":"2023-11-14T22:13:20.250000Z","level":"info","event":"output","container":"web.1","stream":'
    assert JSON("web.1", Stream.STDERR, piece) == (
        head + b'"stderr","line":"say \\"hi\\"\\t\\u001b[0m ' + "ü".encode() + b'"}\n' + head + b'"stderr",'
        b'"line_base64":"/w=="}\n'
    )


def test_json_marks_the_rest_of_a_cut_line() -> None:
    first, second = map(json.loads, JSON("db", Stream.STDOUT, Piece(b"rest\nnext\n", continues=True)).splitlines())
    assert first["continues"] is True
    assert "continues" not in second


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line), min_size=1))
def test_json_keeps_every_byte(lines: list[bytes]) -> None:
    written = JSON("db", Stream.STDOUT, Piece(b"".join(line + b"\n" for line in lines)))
    parsed = [json.loads(line) for line in written.split(b"\n")[:-1]]
    kept = [base64.b64decode(it["line_base64"]) if "line_base64" in it else it["line"].encode() for it in parsed]
    assert kept == lines


def test_a_path_that_is_not_utf_8_is_still_json() -> None:
    assert json_line({"path": b"/\xff".decode(errors="surrogateescape")}) == b'{"path":"/\\udcff"}\n'


@pytest.mark.parametrize("obeyed", ["\x7f", "\x9b2J", "\u2028", "\x1b[2J"])
def test_no_event_in_json_is_obeyed_by_a_terminal(obeyed: str) -> None:
    line = json_line({"finding": f"ü{obeyed}"})
    assert line.decode()[:-1].isprintable()
    assert json.loads(line) == {"finding": f"ü{obeyed}"}


def test_one_that_comes_later_widens_the_column_for_all() -> None:
    layout = layout_for(["a"], colour=False)
    layout.admit("a-longer-one", OutputForm())
    layout.admit("b", OutputForm("renamed", timestamps=True))
    layout.admit("x" * (ALIGN_MAX + 1), OutputForm())
    assert layout.prefix("a") == "a            | "
    assert (layout.label("b"), layout.has_timestamps("b")) == ("renamed", True)
    layout.admit("b", OutputForm())
    assert (layout.label("b"), layout.has_timestamps("b")) == ("b", False)
