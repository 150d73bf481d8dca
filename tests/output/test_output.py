"""Reading many containers: fairness, backpressure, last words, and descriptors given back. Real pipes, both loops."""

import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from supervisor.console import BUFFER_MAX_BYTES, Console, ConsoleGoneError
from supervisor.events import Events, TextEvents
from supervisor.lines import LINE_MAX_BYTES, LineForm, Piece, Stream, TextLines, layout_for
from supervisor.output import CHUNK_BYTES, Capture, Output

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

    def __init__(self, output: Output, pipe: PipeMaker, container: str = "web.1") -> None:
        (stdout, self.stdout), (stderr, self.stderr) = pipe(), pipe()
        self.ours = (stdout, stderr)
        self.capture = output.attach(container, stdout, stderr)

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


async def test_the_exit_is_reported_after_the_last_line(pipe: PipeMaker) -> None:
    out_read, out_write = pipe()
    async with Console(out_write) as console:
        events = Events(console.write, TextEvents(LAYOUT))
        with Output(console, TextLines(LAYOUT), on_gone=lambda _error: None, on_lost=lambda _lines: None) as output:
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

    async with reading(TextLines(LAYOUT), out_write, on_gone) as output:
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
        async with reading(TextLines(layout_for(names, colour=False)), file.fileno()) as output:
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
