"""Reading many containers: fairness, backpressure, last words, and descriptors given back. Real pipes, both loops."""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from supervisor.reporting.events import Events, TextEvents
from supervisor.streams import console as console_module
from supervisor.streams.console import BUFFER_MAX_BYTES, Console, ConsoleGoneError
from supervisor.streams.lines import LINE_MAX_BYTES, LineForm, Piece, Stream, TextLines, layout_for
from supervisor.streams.output import CHUNK_BYTES, Capture, Output
from supervisor.streams.watch import Watch

pytestmark = pytest.mark.anyio

PipeMaker = Callable[[], tuple[int, int]]
LAYOUT = layout_for(["web.1"], colour=False)
BIG_PIPE_BYTES = 1024 * 1024


class Recorder:
    """Stands where the form stands: notes each piece as it is read."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, Stream, bytes]] = []
        self._arrived: dict[str, anyio.Event] = {}

    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes:
        self.pieces.append((container, stream, piece.lines))
        self._arrived.setdefault(container, anyio.Event()).set()
        return piece.lines

    async def heard_from(self, container: str) -> None:
        with anyio.fail_after(10):
            await self._arrived.setdefault(container, anyio.Event()).wait()

    @property
    def streams(self) -> list[Stream]:
        return [stream for _, stream, _ in self.pieces]

    def text(self, container: str = "web.1") -> bytes:
        return b"".join(lines for name, _, lines in self.pieces if name == container)


@asynccontextmanager
async def reading(
    form: LineForm, fd: int | None = None, on_gone: Callable[[ConsoleGoneError], None] = lambda _error: None
) -> AsyncIterator[Output]:
    """An Output whose task runs; what it writes goes to `fd` (default: nowhere)."""
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        async with Console(null if fd is None else fd) as console:
            with Output(console, form, on_gone=on_gone, on_lost=lambda _lines: None) as output:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(output.run)
                    yield output
                    tasks.cancel_scope.cancel()
    finally:
        os.close(null)


class Run:
    """A container's two pipes, seen from inside."""

    def __init__(self, output: Output, pipe: PipeMaker, container: str = "web.1", *, held: bool = False) -> None:
        (stdout, self.stdout), (stderr, self.stderr) = pipe(), pipe()
        self.ours = (stdout, stderr)
        self.capture = output.attach(container, stdout, stderr, held=held)

    def says(self, stream: Stream, what: bytes) -> None:
        os.write(self.stdout if stream is Stream.STDOUT else self.stderr, what.removesuffix(b"\n") + b"\n")

    def exit(self) -> None:
        os.close(self.stdout)
        os.close(self.stderr)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_lines_are_passed_on_while_the_container_runs(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        os.write(run.stderr, b"ready\n")
        await recorder.heard_from("web.1")
    assert recorder.pieces == [("web.1", Stream.STDERR, b"ready\n")]


async def test_everything_written_before_the_exit_is_passed_on_before_drain_returns(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        os.write(run.stdout, b"a\nb\xff\nno newline")
        os.write(run.stderr, b"e")
        run.exit()
        assert await run.capture.drain()
        assert recorder.pieces == [
            ("web.1", Stream.STDOUT, b"a\nb\xff\n"),
            ("web.1", Stream.STDOUT, b"no newline\n"),
            ("web.1", Stream.STDERR, b"e\n"),
        ]


# --- order ------------------------------------------------------------------------------------------------------------

OUT_FIRST, ERR_FIRST = (Stream.STDOUT, Stream.STDERR), (Stream.STDERR, Stream.STDOUT)
ORDERS = pytest.mark.parametrize("order", [OUT_FIRST, ERR_FIRST], ids=["out first", "err first"])
Order = tuple[Stream, Stream]


async def all_read(recorder: Recorder, pieces: int) -> None:
    with anyio.fail_after(10):
        while len(recorder.pieces) < pieces:
            await anyio.lowlevel.checkpoint()


@ORDERS
async def test_the_stream_that_was_written_first_is_read_first(pipe: PipeMaker, order: Order) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        for stream in order:
            run.says(stream, b"x")
        await all_read(recorder, 2)
    assert recorder.streams == [*order]


@ORDERS
async def test_the_stream_that_was_written_first_comes_first_at_the_end_too(pipe: PipeMaker, order: Order) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        for stream in order:
            run.says(stream, b"x")
        run.exit()
        assert await run.capture.drain()
    assert recorder.streams == [*order]


@ORDERS
async def test_closing_passes_on_in_order_as_well(pipe: PipeMaker, order: Order) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        for stream in order:
            run.says(stream, b"x")
    assert recorder.streams == [*order]


@ORDERS
async def test_a_run_that_is_held_is_read_from_its_beginning_on_and_in_order(pipe: PipeMaker, order: Order) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        held, other = Run(output, pipe, held=True), Run(output, pipe, "other")
        for stream in order:
            held.says(stream, b"x")
        other.says(Stream.STDOUT, b"y")
        await recorder.heard_from("other")
        assert len(recorder.pieces) == 1
        held.capture.begin()
        await all_read(recorder, 3)
        held.says(Stream.STDOUT, b"on")
        await all_read(recorder, 4)
    assert recorder.streams[1:3] == [*order]


async def test_a_held_run_that_never_began_is_closed_all_the_same(pipe: PipeMaker) -> None:
    async with reading(Recorder()) as output:
        run = Run(output, pipe, held=True)
        run.capture.close()
        assert not any(map(is_open, run.ours))


async def test_alternating_lines_stay_in_order_while_we_read_in_between(pipe: PipeMaker) -> None:
    recorder = Recorder()
    said = [(OUT_FIRST[n % 2], b"%d\n" % n) for n in range(100)]
    async with reading(recorder) as output:
        run = Run(output, pipe)
        for n, (stream, line) in enumerate(said):
            run.says(stream, line)
            await all_read(recorder, n + 1)
    assert [(stream, line) for _, stream, line in recorder.pieces] == said


@ORDERS
async def test_a_line_read_long_ago_gives_its_stream_no_place_before_the_other(pipe: PipeMaker, order: Order) -> None:
    """As it would in a level-triggered list of ready descriptors; and in an edge-triggered one, after the second."""
    recorder = Recorder()
    first, second = order
    async with Console(pipe()[1]) as console:
        with Output(console, recorder, on_gone=lambda _error: None, on_lost=lambda _lines: None) as output:
            run = Run(output, pipe)
            run.says(first, b"read")
            output._gather()
            run.says(first, b"read with it")
            output._read_some()
            run.says(second, b"before")
            run.says(first, b"after")
            output._gather()
            output._read_some()
    assert [(stream, line) for _, stream, line in recorder.pieces] == [
        (first, b"read\nread with it\n"),
        (second, b"before\n"),
        (first, b"after\n"),
    ]


async def test_the_end_of_a_run_takes_no_turn_from_those_that_wait_for_theirs(pipe: PipeMaker) -> None:
    """What it took over from the kernel's list on its way is read though nothing is ready in that list any more."""
    recorder = Recorder()
    async with reading(recorder) as output:
        ending, *others = (Run(output, pipe, f"web.{n}") for n in range(100))
        await anyio.wait_all_tasks_blocked()
        for run in others:
            run.says(Stream.STDOUT, b"x")
        ending.exit()
        assert await ending.capture.drain()
        assert recorder.pieces == []
        await all_read(recorder, len(others))
    assert [name for name, _, _ in recorder.pieces] == [run.capture.container for run in others]


async def test_packets_of_a_pipe_are_all_read(pipe: PipeMaker) -> None:
    """A container may make its pipe give a packet per read: pipe(2), O_DIRECT."""
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        fcntl.fcntl(run.stdout, fcntl.F_SETFL, os.O_DIRECT)
        for _ in range(10):
            run.says(Stream.STDOUT, b"x\n")
        await all_read(recorder, 10)


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_the_exit_is_reported_after_the_last_line(pipe: PipeMaker) -> None:
    out_read, out_write = pipe()
    async with Console(out_write) as console:
        events = Events(console.write, TextEvents(LAYOUT))
        with Output(
            console, TextLines(LAYOUT, time.time), on_gone=lambda _error: None, on_lost=lambda _lines: None
        ) as output:
            run = Run(output, pipe)
            events.emit("started", container="web.1", pid=7)
            os.write(run.stdout, b"last words")
            run.exit()
            await run.capture.drain()
            events.emit("exited", container="web.1", exit_status=0)
    assert os.read(out_read, 4096) == (
        b"pysup | web.1: started (pid 7)\nweb.1 | last words\npysup | web.1: exited with status 0\n"
    )


async def test_an_overlong_line_is_cut_but_complete(pipe: PipeMaker) -> None:
    recorder = Recorder()
    line = os.urandom(3 * LINE_MAX_BYTES).replace(b"\n", b"!")
    async with reading(recorder) as output:
        run = Run(output, pipe)
        await anyio.to_thread.run_sync(write_and_close, run.stdout, line)
        os.close(run.stderr)
        await run.capture.drain()
    assert b"".join(lines[:-1] for _, _, lines in recorder.pieces) == line
    assert CHUNK_BYTES <= LINE_MAX_BYTES, "the cutter cuts once per chunk"


def write_and_close(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(fd, data) :]
    os.close(fd)


async def test_a_flood_takes_one_chunk_per_turn_and_its_sibling_has_the_next(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        flood, quiet = Run(output, pipe, "flood"), Run(output, pipe, "quiet")
        fcntl.fcntl(flood.stdout, fcntl.F_SETPIPE_SZ, BIG_PIPE_BYTES)
        os.write(flood.stdout, b"x\n" * (BIG_PIPE_BYTES // 2))
        os.write(quiet.stdout, b"hello\n")
        await recorder.heard_from("quiet")
    before = recorder.pieces[: recorder.pieces.index(("quiet", Stream.STDOUT, b"hello\n"))]
    assert sum(len(lines) for _, _, lines in before) <= CHUNK_BYTES


async def test_a_flood_without_end_does_not_keep_a_sibling_from_being_heard(pipe: PipeMaker) -> None:
    recorder = Recorder()
    enough = threading.Event()
    async with reading(recorder) as output:
        flood, quiet = Run(output, pipe, "flood"), Run(output, pipe, "quiet")
        thread = threading.Thread(target=write_until, args=(flood.stdout, enough))
        thread.start()
        try:
            await recorder.heard_from("flood")
            os.write(quiet.stdout, b"hello\n")
            await recorder.heard_from("quiet")
        finally:
            enough.set()
            with anyio.fail_after(10):
                await anyio.to_thread.run_sync(thread.join)


def write_until(fd: int, enough: threading.Event) -> None:
    with contextlib.suppress(BrokenPipeError):
        while not enough.is_set():
            os.write(fd, b"x" * 79 + b"\n")


async def test_a_paused_console_slows_the_writer_and_holds_a_bounded_amount(
    pipe: PipeMaker, full_pipe: tuple[int, int]
) -> None:
    recorder = Recorder()
    async with reading(recorder, full_pipe[1]) as output:
        run = Run(output, pipe)
        taken = await write_until_held_up(run.stdout, limit=8 * BUFFER_MAX_BYTES)
        assert BUFFER_MAX_BYTES <= taken <= BUFFER_MAX_BYTES + 3 * CHUNK_BYTES
        os.close(full_pipe[0])  # also lets the console's end come at once


async def write_until_held_up(fd: int, limit: int) -> int:
    """Write until nobody has taken anything for many turns of the loop; return how much went in."""
    os.set_blocking(fd, False)
    taken = turns = 0
    while taken < limit and turns < 500:
        try:
            taken += os.write(fd, b"x" * 4095 + b"\n")
            turns = 0
        except BlockingIOError:
            turns += 1
            await anyio.lowlevel.checkpoint()
    return taken


async def test_a_paused_console_does_not_hold_up_the_report_of_an_exit(
    pipe: PipeMaker, full_pipe: tuple[int, int]
) -> None:
    recorder = Recorder()
    async with reading(recorder, full_pipe[1]) as output:
        run = Run(output, pipe)
        await write_until_held_up(run.stdout, limit=8 * BUFFER_MAX_BYTES)
        os.write(run.stderr, b"killed")
        run.exit()
        assert await run.capture.drain()
        assert recorder.pieces[-1] == ("web.1", Stream.STDERR, b"killed\n")
        os.close(full_pipe[0])


async def wait_until(done: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not done():
            await anyio.lowlevel.checkpoint()


def read_all(fd: int, written: list[bytes]) -> None:
    while chunk := os.read(fd, 1 << 20):
        written.append(chunk)


async def test_50_floods_into_a_paused_console_lose_no_line_and_hold_a_bounded_amount(
    pipe: PipeMaker, full_pipe: tuple[int, int]
) -> None:
    names = [f"web.{n}" for n in range(50)]
    texts = {name: b"".join(b"%s line %d\n" % (name.encode(), n) for n in range(20_000)) for name in names}
    written: list[bytes] = []
    resumed = threading.Thread(target=read_all, args=(full_pipe[0], written))
    async with Console(full_pipe[1]) as console:
        form = TextLines(layout_for(names, colour=False), time.time)
        with Output(console, form, on_gone=lambda _error: None, on_lost=lambda _lines: None) as output:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run)
                runs = {name: Run(output, pipe, name) for name in names}
                writers = [
                    threading.Thread(target=write_and_close, args=(runs[name].stdout, text))
                    for name, text in texts.items()
                ]
                for writer in writers:
                    writer.start()
                await wait_until(lambda: console._size >= BUFFER_MAX_BYTES)
                await anyio.wait_all_tasks_blocked()
                assert console._size < BUFFER_MAX_BYTES + 4 * CHUNK_BYTES
                assert all(writer.is_alive() for writer in writers)
                resumed.start()
                for name, run in runs.items():
                    os.close(run.stderr)
                    assert await run.capture.drain(limit_s=60), name
                tasks.cancel_scope.cancel()
        assert await console.aclose(limit_s=60) == 0
    os.close(full_pipe[1])
    resumed.join(timeout=10)
    assert_same_lines(b"".join(written).lstrip(b"."), texts)


async def test_a_watched_run_is_heard_though_the_console_is_paused(pipe: PipeMaker, full_pipe: tuple[int, int]) -> None:
    recorder = Recorder()
    found = anyio.Event()
    async with reading(recorder, full_pipe[1]) as output:
        flood, other, watched = (Run(output, pipe, name) for name in ("flood", "other", "watched"))
        watched.capture.watches = (Watch("ready", found.set), Watch("never"))
        await write_until_held_up(flood.stdout, limit=8 * BUFFER_MAX_BYTES)
        other.says(Stream.STDOUT, b"not read")
        watched.says(Stream.STDERR, b"ready")
        with anyio.fail_after(10):
            await found.wait()
        watched.says(Stream.STDOUT, b"and again")
        await wait_until(lambda: recorder.text("watched") == b"ready\nand again\n")
        assert recorder.text("other") == b""
        os.close(full_pipe[0])


async def test_a_watched_flood_into_a_paused_console_is_held_up_too(
    pipe: PipeMaker, full_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "OVERDRAFT_MAX_BYTES", 8 * BUFFER_MAX_BYTES)
    async with reading(Recorder(), full_pipe[1]) as output:
        run = Run(output, pipe)
        run.capture.watches = (Watch("never"),)
        taken = await write_until_held_up(run.stdout, limit=16 * BUFFER_MAX_BYTES)
        assert 4 * BUFFER_MAX_BYTES <= taken <= 4 * BUFFER_MAX_BYTES + 3 * CHUNK_BYTES
        os.close(full_pipe[0])


async def test_when_the_reader_goes_away_the_supervisor_is_told_once_and_containers_are_not_blocked(
    pipe: PipeMaker,
) -> None:
    out_read, out_write = pipe()
    os.close(out_read)
    told: list[ConsoleGoneError] = []
    gone = anyio.Event()

    def on_gone(error: ConsoleGoneError) -> None:
        told.append(error)
        gone.set()

    async with reading(TextLines(LAYOUT, time.time), out_write, on_gone) as output:
        run = Run(output, pipe)
        with anyio.fail_after(10):
            os.write(run.stdout, b"a\n")
            await gone.wait()
            await anyio.to_thread.run_sync(write_and_close, run.stdout, b"x\n" * BUFFER_MAX_BYTES)
        os.close(run.stderr)
        assert await run.capture.drain()
    assert len(told) == 1


async def test_descriptors_are_closed_at_end_of_file(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        run.exit()
        assert all(map(is_open, run.ours))
        await run.capture.drain()
        assert not any(map(is_open, run.ours))


async def test_a_container_that_closes_one_stream_is_still_read_on_the_other(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        os.write(run.stdout, b"bye")
        os.close(run.stdout)
        await recorder.heard_from("web.1")
        assert [is_open(fd) for fd in run.ours] == [False, True]
        os.write(run.stderr, b"still here")
        os.close(run.stderr)
        await run.capture.drain()
    assert recorder.text() == b"bye\nstill here\n"


async def test_a_descriptor_is_closed_once_only(pipe: PipeMaker) -> None:
    async with reading(Recorder()) as output:
        run = Run(output, pipe)
        run.exit()
        await run.capture.drain()
        reused = os.open("/dev/null", os.O_RDONLY)
        assert reused in run.ours
        await run.capture.drain()
        run.capture.close()
        assert is_open(reused)
        os.close(reused)


async def test_a_pipe_held_open_from_outside_holds_the_report_up_for_a_bounded_time(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        os.write(run.stdout, b"half a line")
        assert not await run.capture.drain(limit_s=0)
        assert not any(map(is_open, run.ours))
    assert recorder.text() == b"half a line\n"


async def test_drain_waits_for_the_holder_while_there_is_time(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output, anyio.create_task_group() as tasks:
        run = Run(output, pipe)

        async def drain() -> None:
            assert await run.capture.drain(limit_s=10)
            assert recorder.text() == b"late\n"

        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        os.write(run.stdout, b"late\n")
        run.exit()


async def test_a_cancelled_drain_still_passes_on_what_is_there_and_closes(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        with anyio.CancelScope() as scope:
            scope.cancel()
            os.write(run.stdout, b"last")
            await run.capture.drain()
        assert not any(map(is_open, run.ours))
    assert recorder.text() == b"last\n"


async def test_closing_the_output_passes_on_and_closes_what_is_left(pipe: PipeMaker) -> None:
    recorder = Recorder()
    async with reading(recorder) as output:
        run = Run(output, pipe)
        os.write(run.stdout, b"last")
    assert recorder.text() == b"last\n"
    assert not any(map(is_open, run.ours))


async def test_an_idle_container_costs_no_task(pipe: PipeMaker) -> None:
    async with reading(Recorder()) as output:
        before = len(anyio.get_running_tasks())
        captures: list[Capture] = [Run(output, pipe, f"web.{n}").capture for n in range(50)]
        await anyio.wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) == before
        assert len(captures) == 50


CONTAINERS, LINES = 200, 10_000


async def test_200_containers_lose_and_tear_no_line(pipe: PipeMaker, tmp_path: Path) -> None:
    names = [f"web.{n}" for n in range(CONTAINERS)]
    texts = {name: b"".join(b"%s line %d\n" % (name.encode(), n) for n in range(LINES)) for name in names}
    with (tmp_path / "out").open("wb") as file, anyio.fail_after(60):
        async with reading(TextLines(layout_for(names, colour=False), time.time), file.fileno()) as output:
            runs = {name: Run(output, pipe, name) for name in names}
            await anyio.to_thread.run_sync(write_in_turns, {runs[name].stdout: text for name, text in texts.items()})
            for run in runs.values():
                run.exit()
                assert await run.capture.drain()
    assert_same_lines((tmp_path / "out").read_bytes(), texts)


def write_in_turns(texts: dict[int, bytes]) -> None:
    """What many processes do at once: odd amounts, so that lines are split between reads."""
    waiting = {fd: memoryview(text) for fd, text in texts.items()}
    while waiting:
        for fd, text in list(waiting.items()):
            waiting[fd] = text[os.write(fd, text[:40_009]) :]
            if not waiting[fd]:
                del waiting[fd]


def assert_same_lines(written: bytes, texts: dict[str, bytes]) -> None:
    found: dict[str, list[bytes]] = {name: [] for name in texts}
    for line in written.split(b"\n")[:-1]:
        name, _, rest = line.partition(b"|")
        found[name.decode().rstrip()].append(rest[1:])
    for container, text in texts.items():
        assert b"\n".join(found[container]) + b"\n" == text, container


class Mover:
    """A keeper that has moved all there is by the time that it is asked."""

    def __init__(self) -> None:
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._moved: list[Callable[[bool], None]] = []

    def fileno(self) -> int:
        return self.wake

    def acknowledge(self) -> None:
        os.eventfd_read(self.wake)
        for moved in self._moved:
            moved(False)
        self._moved.clear()

    def moves(self, _container: str) -> bool:
        return True

    drops = has_room = moves

    def write(self, *what: object) -> None:
        raise AssertionError(what)

    put = write

    def move(self, _container: str, _stream: Stream, _pipe: int, moved: Callable[[bool], None]) -> None:
        self._moved.append(moved)
        os.eventfd_write(self.wake, 1)


async def test_a_pipe_that_ends_as_its_last_bytes_are_acknowledged_is_not_read_again(pipe: PipeMaker) -> None:
    """epoll_wait(2) tells of both at once; the one closes the other, which was not looked at yet."""
    mover, (_, screen) = Mover(), pipe()
    try:
        async with Console(screen) as console:
            with Output(console, Recorder(), on_gone=print, on_lost=print, keeper=mover) as output:
                run = Run(output, pipe)
                run.capture._channels[0].read_ahead()  # as drain does, whether the kernel has told of it or not
                os.close(run.stdout)
                assert output._gather() == 2
                assert run.capture._channels[0].fd == -1
                os.close(run.stderr)
                run.capture._channels[1].read_ahead()
                mover.acknowledge()
    finally:
        os.close(mover.wake)
