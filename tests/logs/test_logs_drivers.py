"""What becomes of each driver's output, from a run's pipes to log and console: real pipes, files and threads."""

import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from descriptors import held, opened_since
from logbook import Told
from waiting import PATIENCE_S

from supervisor.control.desk import Keeping, Shown
from supervisor.logs.policy import Driver, LogPolicy, Overflow
from supervisor.logs.writer import LogWriter
from supervisor.streams.console import BUFFER_MAX_BYTES, Console
from supervisor.streams.lines import Stream, TextLines, layout_for
from supervisor.streams.output import Capture, Output

pytestmark = pytest.mark.anyio

LINES = 50_000


@dataclass
class Bench:
    """An output whose lines are kept, and shown on a pipe or a file."""

    writer: LogWriter
    output: Output
    lost: list[int]
    ends: list[int]

    def run(self, container: str, policy: LogPolicy) -> tuple[Capture, int, int]:
        """A run: its capture, and what it writes to."""
        (out, to_out), (error, to_error) = os.pipe(), os.pipe()
        self.writer.open(container, policy)
        self.ends += [to_out, to_error]
        return self.output.attach(container, out, error), to_out, to_error

    def close(self, *ends: int) -> None:
        for end in ends:
            os.close(end)
            self.ends.remove(end)

    async def texts(self, container: str) -> list[bytes]:
        with anyio.fail_after(PATIENCE_S):
            return [line.text async for line in self.writer.logs(container)]


@asynccontextmanager
async def bench(directory: Path, told: Told, console_fd: int) -> AsyncIterator[Bench]:
    lost: list[int] = []
    async with Console(console_fd) as console, LogWriter(directory, told) as writer:
        form = Shown(TextLines(layout_for(["a"], colour=False), lambda: 0.0), writer)
        with Output(console, form, on_gone=_unexpected, on_lost=lost.append, keeper=Keeping(writer)) as output:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run)
                made = Bench(writer, output, lost, [])
                yield made
                made.close(*made.ends.copy())
                tasks.cancel_scope.cancel()


def _unexpected(what: object) -> None:
    raise AssertionError(what)


def _write_lines(descriptor: int, count: int) -> None:
    for start in range(0, count, 100):
        os.write(descriptor, b"".join(b"line %06d\n" % number for number in range(start, start + 100)))
    os.close(descriptor)


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    return tmp_path / "screen"


@asynccontextmanager
async def shown_on(screen: Path, directory: Path, told: Told) -> AsyncIterator[Bench]:
    descriptor = os.open(screen, os.O_WRONLY | os.O_CREAT)
    try:
        async with bench(directory, told, descriptor) as made:
            yield made
    finally:
        os.close(descriptor)


async def test_lines_are_kept_and_shown(tmp_path: Path, told: Told, screen: Path) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        capture, out, error = made.run("a", LogPolicy())
        os.write(out, b"one\n")
        os.write(error, b"two")
        made.close(out, error)
        assert await capture.drain()
        assert await made.texts("a") == [b"one", b"two"]
    assert screen.read_text().splitlines() == ["a     | one", "a     ! two"]


async def test_raw_bytes_are_moved_over_files_and_not_shown(tmp_path: Path, told: Told, screen: Path) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        capture, out, error = made.run("a", LogPolicy(Driver.RAW, max_size_bytes=110_000, max_files=100))
        os.write(error, b"\x00no line")
        made.ends.remove(out)
        thread = threading.Thread(target=_write_lines, args=(out, LINES))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        made.close(error)
        assert await capture.drain(PATIENCE_S)
        assert await made.texts("a") == [*(b"line %06d" % number for number in range(LINES)), b"\x00no line"]
        assert made.writer.written_bytes == 12 * LINES + 8
    assert len(list((tmp_path / "logs/a/stdout").iterdir())) == 6
    assert screen.read_bytes() == b""


async def test_raw_bytes_are_moved_to_the_end_when_all_is_torn_down(tmp_path: Path, told: Told, screen: Path) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        _, out, _ = made.run("a", LogPolicy(Driver.RAW))
        os.write(out, b"last words\n")
    assert (tmp_path / "logs/a/stdout/0.log").read_bytes() == b"last words\n"


async def test_pipes_of_raw_logs_are_given_back(tmp_path: Path, told: Told, screen: Path) -> None:
    before = held()
    async with shown_on(screen, tmp_path / "logs", told) as made:
        inside = held()
        for held_open in (False, True):
            capture, out, error = made.run("a", LogPolicy(Driver.RAW))
            os.write(out, b"x\n")
            if not held_open:
                made.close(out, error)
            assert await capture.drain(0.1 if held_open else PATIENCE_S) is not held_open
            assert capture.at_end()
            if held_open:
                made.close(out, error)
            await made.texts("a")
        with anyio.fail_after(PATIENCE_S):
            while opened_since(inside):
                await anyio.lowlevel.checkpoint()
    assert opened_since(before) == {}


async def test_who_joins_a_raw_container_sees_its_bytes_and_the_log_has_them_too(
    tmp_path: Path, told: Told, screen: Path
) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        heard: list[tuple[Stream, bytes]] = []
        capture, out, error = made.run("a", LogPolicy(Driver.RAW))
        os.write(out, b"before\n")
        with anyio.fail_after(PATIENCE_S):
            while made.writer.written_bytes < 7 or capture._channels[0]._moves:  # one under way hides what it takes
                await anyio.lowlevel.checkpoint()
        capture.listeners = (lambda stream, chunk: heard.append((stream, chunk)),)
        os.write(out, b"wh")
        with anyio.fail_after(PATIENCE_S):
            while not heard:
                await anyio.lowlevel.checkpoint()
        capture.listeners = ()
        os.write(out, b"ile\nafter\n")
        made.close(out, error)
        assert await capture.drain(PATIENCE_S)
        assert heard == [(Stream.STDOUT, b"wh")]
        assert await made.texts("a") == [b"before", b"while", b"after"]


async def test_a_log_that_becomes_raw_loses_nothing(tmp_path: Path, told: Told, screen: Path) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        capture, out, error = made.run("a", LogPolicy())
        os.write(out, b"a line\nhalf a")
        assert await _written(made, 1) == [b"a line"]
        made.writer.open("a", LogPolicy(Driver.RAW))
        os.write(out, b" line\n")
        made.close(out, error)
        assert await capture.drain(PATIENCE_S)
        assert sorted(await made.texts("a")) == [b"a line", b"half a line"]


async def _written(made: Bench, count: int) -> list[bytes]:
    with anyio.fail_after(PATIENCE_S):
        while len(found := await made.texts("a")) < count:
            await anyio.lowlevel.checkpoint()
    return found


async def test_objects_go_to_standard_output_alone(tmp_path: Path, told: Told, screen: Path) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        capture, out, error = made.run("a", LogPolicy(Driver.STDOUT_JSON))
        os.write(out, b"one\ntwo\n")
        made.close(out, error)
        assert await capture.drain()
    found = [json.loads(line) for line in screen.read_text().splitlines()]
    assert [(each["container"], each["stream"], each["line"]) for each in found] == [
        ("a", "stdout", "one"),
        ("a", "stdout", "two"),
    ]
    assert not (tmp_path / "logs").exists()


async def test_what_keeps_nothing_is_shown_all_the_same(tmp_path: Path, told: Told, screen: Path) -> None:
    async with shown_on(screen, tmp_path / "logs", told) as made:
        capture, out, error = made.run("a", LogPolicy(Driver.NONE))
        os.write(out, b"one\n")
        made.close(out, error)
        assert await capture.drain()
    assert screen.read_text() == "a     | one\n"
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("policy", [LogPolicy(overflow=Overflow.DROP), LogPolicy(Driver.RAW)], ids=["drop", "raw"])
async def test_a_paused_terminal_holds_up_only_who_would_rather_wait(
    tmp_path: Path, told: Told, policy: LogPolicy
) -> None:
    """The pipe that stands for the terminal is full, and nobody reads it."""
    terminal, console_fd = os.pipe()
    reader = threading.Thread(target=_read_all, args=(terminal,))
    try:
        async with bench(tmp_path / "logs", told, console_fd) as made:
            made.output._console.write(b"x\n" * (BUFFER_MAX_BYTES // 2 + 1))
            capture, out, error = made.run("a", policy)
            waiting, to_waiting, _ = made.run("b", LogPolicy())
            os.write(to_waiting, b"waits\n")
            made.ends.remove(out)
            thread = threading.Thread(target=_write_lines, args=(out, LINES))
            thread.start()
            with anyio.fail_after(PATIENCE_S):
                await anyio.to_thread.run_sync(thread.join)
            made.close(error)
            assert await capture.drain(PATIENCE_S)
            assert len(await made.texts("a")) == LINES
            assert made.writer.lost_lines == {}
            assert await made.texts("b") == []
            assert not waiting.at_end()
            reader.start()
            with anyio.fail_after(PATIENCE_S):  # by itself, it would wait for a moment only
                while made.output._console._size:
                    await anyio.lowlevel.checkpoint()
        assert await made.output._console.aclose() == (0 if policy.driver is Driver.RAW else LINES)
    finally:
        os.close(console_fd)
        if reader.ident is not None:
            reader.join()
        os.close(terminal)


def _read_all(descriptor: int) -> None:
    while os.read(descriptor, 1 << 16):
        pass
