"""A directory of log files, by its writer and a reader: rotation, compression, search, damage, repair."""

import gzip
import os
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.commands import LogLine
from supervisor.logs import cri, cursor, shelf
from supervisor.logs.cursor import Cursor, Raw, Stamped
from supervisor.logs.files import listed
from supervisor.logs.policy import LogPolicy
from supervisor.logs.shelf import Shelf, UnwrittenError
from supervisor.streams.lines import LINE_MAX_BYTES, Cutter, Piece, Stream

SECOND_NS = cri.SECOND_NS
SMALL = LogPolicy(max_size_bytes=1000, max_files=10_000)
HEAD_BYTES = len(cri.stamped(0, Stream.STDOUT, Piece(b"\n"))) - 1


def write(log: Shelf, *texts: bytes, at_ns: int = 0, stream: Stream = Stream.STDOUT) -> None:
    for text in texts:
        if log.clock(at_ns):
            log.rotate()
        log.append(log.stamped(at_ns, stream, Piece(text + b"\n")))


def pack_all(log: Shelf) -> None:
    for number in log.unpacked():
        assert number not in log.unpacked()
        for _ in log.pack(number):
            pass


def read(place: Cursor, last: int | None = None) -> list[LogLine]:
    if last is not None:
        place.seek_last(last)
    found = []
    while (lines := place.lines()) is not None:
        found += lines
    place.close()
    return found


def texts(directory: Path, last: int | None = None) -> list[bytes]:
    return [line.text for line in read(Cursor(directory, Stamped()), last)]


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"line %06d" % number for number in range(start, start + count)]


def test_files_are_for_root_only(tmp_path: Path) -> None:
    write(Shelf(tmp_path / "c", SMALL), b"secret")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("c", "c/0.log")] == [0o700, 0o600]


def test_files_keep_their_size_and_number(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=1000, max_files=3))
    write(log, *numbered(200))
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 1000
    found = texts(tmp_path)
    assert found == numbered(200)[-len(found) :]


def test_a_batch_is_cut_to_the_size_of_files(tmp_path: Path) -> None:
    log = Shelf(tmp_path, SMALL)
    log.append(log.stamped(0, Stream.STDOUT, Piece(b"".join(text + b"\n" for text in numbered(200)))))
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    assert texts(tmp_path) == numbered(200)


def test_a_single_file_starts_again_when_it_is_full(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=1000, max_files=1))
    write(log, *numbered(200))
    assert len(list(tmp_path.iterdir())) == 1
    assert texts(tmp_path)[-1] == numbered(200)[-1]


def test_a_line_larger_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    log = Shelf(tmp_path, SMALL)
    write(log, b"a", b"x" * 5000, b"b")
    assert [file.number for file in listed(tmp_path)] == [0, 1, 2]
    assert texts(tmp_path) == [b"a", b"x" * 5000, b"b"]


def test_the_next_writer_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    for start in range(0, 100, 10):
        write(Shelf(tmp_path, SMALL), *numbered(10, start))
    assert texts(tmp_path) == numbered(100)


def test_complete_files_are_compressed_and_read_as_before(tmp_path: Path) -> None:
    policy = LogPolicy(max_size_bytes=1000, max_files=100, compress=True)
    log = Shelf(tmp_path, policy)
    write(log, *numbered(100))
    pack_all(log)
    assert [file.packed for file in listed(tmp_path)] == [True] * (len(listed(tmp_path)) - 1) + [False]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert log.total_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert gzip.decompress((tmp_path / "0.log.gz").read_bytes()).count(b"\n") > 10
    assert texts(tmp_path) == numbered(100)
    for last in (0, 1, 17, 18, 19, 50, 1000):
        assert texts(tmp_path, last) == numbered(100)[max(0, 100 - last) :]
    again = Shelf(tmp_path, policy)
    write(again, *numbered(10, 100))
    assert texts(tmp_path) == numbered(110)


def test_what_a_crash_left_of_a_compression_is_cleared_and_done_again(tmp_path: Path) -> None:
    policy = LogPolicy(max_size_bytes=1000, max_files=100, compress=True)
    write(Shelf(tmp_path, policy), *numbered(50))
    (tmp_path / "0.log.gz").write_bytes(b"cut short")
    (tmp_path / "1.log.gz.part").write_bytes(b"cut short")
    assert texts(tmp_path) == numbered(50)
    log = Shelf(tmp_path, policy)
    assert not {"0.log.gz", "1.log.gz.part"} & {path.name for path in tmp_path.iterdir()}
    pack_all(log)
    assert texts(tmp_path) == numbered(50)


def test_a_file_that_went_before_it_was_compressed_leaves_nothing(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=1000, max_files=100, compress=True))
    write(log, *numbered(50))
    steps = log.pack(0)
    next(steps)
    log.drop_oldest()
    assert list(steps) == []
    assert [path for path in tmp_path.iterdir() if path.name.startswith("0.")] == []


def test_a_directory_that_was_removed_is_made_again_and_its_numbers_go_on(tmp_path: Path) -> None:
    log = Shelf(tmp_path / "c", SMALL)
    write(log, *numbered(50))
    before = log.number
    for path in (tmp_path / "c").iterdir():
        path.unlink()
    (tmp_path / "c").rmdir()
    write(log, b"after")
    assert [file.number for file in listed(tmp_path / "c")] == [before]
    assert texts(tmp_path / "c") == [b"after"]
    assert log.total_bytes == (tmp_path / f"c/{before}.log").stat().st_size


def test_a_file_that_an_operator_emptied_goes_on_for_writer_and_reader(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy())
    write(log, *numbered(50))
    place = Cursor(tmp_path, Stamped())
    assert len(place.lines() or ()) == 50
    os.truncate(tmp_path / "0.log", 0)
    write(log, b"after")
    assert [line.text for line in place.lines() or ()] == [b"after"]
    place.close()
    assert log.size_bytes == (tmp_path / "0.log").stat().st_size


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_set_back_begins_a_file_and_a_small_step_stands_still(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy())
    for second in (100, 99.5, 100, 50, 51):
        write(log, b"at %g" % second, at_ns=int(second * SECOND_NS))
    assert [(line.at_ns / SECOND_NS, line.text) for line in read(Cursor(tmp_path, Stamped()))] == [
        (100, b"at 100"),
        (100, b"at 99.5"),
        (100, b"at 100"),
        (50, b"at 50"),
        (51, b"at 51"),
    ]
    assert len(listed(tmp_path)) == 2


def test_the_clock_is_looked_at_over_a_restart_too(tmp_path: Path) -> None:
    write(Shelf(tmp_path, LogPolicy()), b"a", at_ns=100 * SECOND_NS)
    write(Shelf(tmp_path, LogPolicy()), b"b", at_ns=50 * SECOND_NS)
    assert len(listed(tmp_path)) == 2


# --- search ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty long lines each second, in files of some blocks, the older ones compressed."""
    directory = tmp_path_factory.mktemp("dated")
    log = Shelf(directory, LogPolicy(max_size_bytes=2 << 20, max_files=100, compress=True))
    for second in range(1000):
        piece = Piece((b"%d " % second + b"x" * 300 + b"\n") * 20)
        log.clock(second * SECOND_NS)
        log.append(log.stamped(second * SECOND_NS, Stream.STDOUT, piece))
    os.utime(directory / f"{log.number}.log", (1000, 1000))
    for number in log.unpacked()[:2]:
        for _ in log.pack(number):
            pass
    return directory


@settings(deadline=None, max_examples=30)
@given(st.integers(-1, 1001), st.integers(-1, 1001))
def test_lines_between_two_times_are_found(dated: Path, since: int, until: int) -> None:
    place = Cursor(dated, Stamped(), since_ns=since * SECOND_NS, until_ns=until * SECOND_NS)
    wanted = [second for second in range(1000) if since <= second <= until for _ in range(20)]
    assert [line.at_ns // SECOND_NS for line in read(place)] == wanted


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 25_000))
def test_the_last_of_them_are_found(dated: Path, since: int, until: int, last: int) -> None:
    place = Cursor(dated, Stamped(), since_ns=since * SECOND_NS, until_ns=until * SECOND_NS)
    wanted = [second for second in range(1000) if since <= second <= until for _ in range(20)]
    assert [line.at_ns // SECOND_NS for line in read(place, last)] == wanted[max(0, len(wanted) - last) :]


def test_the_last_lines_are_read_from_the_end(dated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = []
    pread = os.pread

    def counting(fd: int, count: int, offset: int) -> bytes:
        read_bytes.append(len(data := pread(fd, count, offset)))
        return data

    monkeypatch.setattr(os, "pread", counting)
    assert len(texts(dated, 10)) == 10
    assert sum(read_bytes) <= 3 * cursor.BLOCK_BYTES


@pytest.mark.parametrize("last", [None, 0, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_what_comes_after_one_has_asked_is_not_of_what_was_asked_for(
    tmp_path: Path, last: int | None, packed: bool
) -> None:
    log, place = Shelf(tmp_path / "c", SMALL), Cursor(tmp_path / "c", Stamped())
    write(log, *numbered(10))
    place.end_here()
    write(log, *numbered(90, 10))
    if packed:
        pack_all(log)
    assert [line.text for line in read(place, last)] == numbered(10)[10 - last if last is not None else 0 :]


def test_of_a_log_that_is_empty_when_one_asks_nothing_is_read(tmp_path: Path) -> None:
    place = Cursor(tmp_path / "c", Stamped())
    place.end_here()
    log = Shelf(tmp_path / "c", SMALL)
    write(log, b"late")
    assert read(place) == []


def test_a_line_that_was_cut_counts_once_and_comes_whole_over_a_rotation(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=LINE_MAX_BYTES, max_files=100))
    cutter = Cutter()
    for chunk in (b"first\n", b"x" * LINE_MAX_BYTES, b"y" * LINE_MAX_BYTES, b"end\n", b"last\n"):
        for piece in cutter.feed(chunk):
            log.append(log.stamped(0, Stream.STDOUT, piece))
    assert len(listed(tmp_path)) > 2
    found = read(Cursor(tmp_path, Stamped()), 2)
    assert [line.partial for line in found] == [True, True, False, False]
    assert b"".join(line.text for line in found[:3]) == b"x" * LINE_MAX_BYTES + b"y" * LINE_MAX_BYTES + b"end"


# --- round trips -----------------------------------------------------------------------------------------------------

CHUNK = st.binary(max_size=200) | st.sampled_from([b"\n", b"x" * 40_000, b"z" * LINE_MAX_BYTES, b"\0", b"a\nb\n"])
Written = list[tuple[Stream, bytes]]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(Stream), CHUNK), max_size=12),
    st.sampled_from([200, 1000, 100_000, 10 << 20]),
    st.booleans(),
    st.integers(0, 20),
)
def test_no_byte_is_lost_or_added_however_it_is_cut_and_rotated(
    chunks: Written, max_size_bytes: int, compress: bool, last: int
) -> None:
    with TemporaryDirectory() as made:
        log = Shelf(Path(made), LogPolicy(max_size_bytes=max_size_bytes, max_files=1 << 30, compress=compress))
        cutters = {stream: Cutter() for stream in Stream}
        for number, (stream, chunk) in enumerate(chunks):
            for piece in cutters[stream].feed(chunk):
                log.append(log.stamped(number, stream, piece))
            pack_all(log)
        for stream in Stream:
            for piece in cutters[stream].end():
                log.append(log.stamped(len(chunks), stream, piece))
        found = read(Cursor(Path(made), Stamped()))
        tail = read(Cursor(Path(made), Stamped()), last)
    for stream in Stream:
        written = b"".join(chunk for where, chunk in chunks if where is stream)
        assert joined(found, stream) == (written if written.endswith(b"\n") or not written else written + b"\n")
    assert tail == (found[-len(tail) :] if tail else [])
    assert sum(not line.partial for line in tail) == min(last, sum(not line.partial for line in found))


def joined(lines: list[LogLine], stream: Stream) -> bytes:
    return b"".join(line.text + (b"" if line.partial else b"\n") for line in lines if line.stream is stream)


def test_a_reader_beside_writer_rotation_and_compression_sees_each_line_once(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=5000, max_files=1 << 30, compress=True))
    done = threading.Event()

    def go() -> None:
        for number in range(0, 20_000, 20):
            log.append(log.stamped(0, Stream.STDOUT, Piece(b"".join(t + b"\n" for t in numbered(20, number)))))
            pack_all(log)
        done.set()

    writer = threading.Thread(target=go)
    writer.start()
    place, found = Cursor(tmp_path, Stamped()), list[bytes]()
    while True:
        ended = done.is_set()
        while (lines := place.lines()) is not None:
            found += [line.text for line in lines]
        if ended:
            break
    writer.join()
    place.close()
    assert found == numbered(20_000)
    assert place.damaged == 0


# --- damage ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=300)), max_size=5))
def test_damage_costs_only_the_lines_that_it_hits(damages: list[tuple[int, bytes]]) -> None:
    lines = [cri.stamped(0, Stream.STDOUT, Piece(text + b"\n")) for text in numbered(200)]
    with TemporaryDirectory() as made:
        content = list(lines)
        for at, garbage in damages:
            content.insert(at, garbage + b"\n")
        Path(made, "0.log").write_bytes(b"".join(content))
        assert [line.text for line in read(Cursor(Path(made), Stamped())) if line.text[:5] == b"line "] == numbered(200)


def test_a_hole_larger_than_a_block_is_skipped(tmp_path: Path) -> None:
    line = cri.stamped(0, Stream.STDOUT, Piece(b"text\n"))
    (tmp_path / "0.log").write_bytes(line + b"\0" * 3 * cursor.BLOCK_BYTES + line + b"garbage")
    (tmp_path / "1.log").write_bytes(line)
    place = Cursor(tmp_path, Stamped())
    assert [line.text for line in read(place)] == [b"text"] * 3
    assert place.damaged > 1


def test_of_a_damaged_compressed_file_the_good_part_is_read(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=1 << 20, max_files=9, compress=True))
    write(log, *(os.urandom(20).hex().encode() for _ in range(5000)))
    log.rotate()
    write(log, b"last")
    pack_all(log)
    packed = tmp_path / "0.log.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    place = Cursor(tmp_path, Stamped())
    found = read(place)
    assert 1000 < len(found) < 5000
    assert found[-1].text == b"last"
    assert place.damaged >= 1


# --- repair ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("torn", "kept", "done"),
    [
        (b"2026-11-24T03:00:00.123456789Z stdout F half a li", [b"half a li"], "completed"),
        (b"2026-11-24T03:00:00.123456789Z stdout F half" + b"\0" * 500, [b"half"], "completed"),
        (b"2026-11-24T03:00:00.1234567", [], "cut off"),
        (b"\0" * 5000, [], "cut off"),
        (b"\0" * 3 * shelf.TAIL_BYTES, [], "cut off"),
        (b"", [], None),
    ],
)
def test_a_torn_last_line_is_repaired_by_the_next_writer(
    tmp_path: Path, torn: bytes, kept: list[bytes], done: str | None
) -> None:
    write(Shelf(tmp_path, LogPolicy()), b"whole")
    with (tmp_path / "0.log").open("ab") as file:
        file.write(torn)
    log = Shelf(tmp_path, LogPolicy())
    assert (log.repaired.done if log.repaired else None) == done
    assert log.size_bytes == (tmp_path / "0.log").stat().st_size
    write(log, b"next")
    place = Cursor(tmp_path, Stamped())
    assert [line.text for line in read(place)] == [b"whole", *kept, b"next"]
    assert place.damaged == 0


def test_what_a_full_disk_takes_of_a_line_is_cut_off_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Shelf(tmp_path, LogPolicy())
    os_write, room = os.write, [2 * (HEAD_BYTES + 2) + 10]

    def write_to_small_disk(fd: int, data: memoryview) -> int:
        taken = os_write(fd, data[: room[0]])
        room[0] -= taken
        return taken

    monkeypatch.setattr(os, "write", write_to_small_disk)
    with pytest.raises(UnwrittenError) as caught:
        log.append(log.stamped(0, Stream.STDOUT, Piece(b"a\nb\nc\nd\n")))
    assert caught.value.lines == 2
    room[0] = 1 << 20
    write(log, b"e")
    assert texts(tmp_path) == [b"a", b"b", b"e"]


# --- raw -------------------------------------------------------------------------------------------------------------


def move_all(log: Shelf, source: int) -> None:
    """Until the pipe is empty."""
    with suppress(BlockingIOError):
        while True:
            assert log.move(source)


def test_raw_bytes_are_moved_as_they_are_and_read_as_lines(tmp_path: Path) -> None:
    log = Shelf(tmp_path, LogPolicy(max_size_bytes=1000, max_files=1000), stamped=False)
    source, sink = os.pipe()
    try:
        os.set_blocking(source, False)
        whole = b"".join(text + b"\n" for text in numbered(3000)) + b"without end"
        for at in range(0, len(whole), 10_000):
            os.write(sink, whole[at : at + 10_000])
            move_all(log, source)
        os.close(sink)
        assert log.move(source) == 0
    finally:
        os.close(source)
    assert b"".join((tmp_path / file.name).read_bytes() for file in listed(tmp_path)) == whole
    assert max(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    place = Cursor(tmp_path, Raw(Stream.STDERR))
    found = [line for _ in range(3000) for line in place.lines() or ()] + place.rest()
    assert [line.text for line in found] == [*numbered(3000), b"without end"]
    assert {line.stream for line in found} == {Stream.STDERR}
