"""The one writer: order, limits, and readers that pause, leave or fill their disk."""

import errno
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from supervisor.streams import console as console_module
from supervisor.streams.console import BUFFER_MAX_BYTES, WRITE_MAX_BYTES, Console, ConsoleGoneError

pytestmark = pytest.mark.anyio

PipeMaker = Callable[[], tuple[int, int]]


class Heard:
    """What a console tells."""

    def __init__(self, console: Console) -> None:
        self.gone: list[ConsoleGoneError] = []
        self.lost_lines: list[int] = []
        console.listen(on_gone=self.gone.append, on_lost=self.lost_lines.append)


async def hear(console: Console) -> None:
    with anyio.fail_after(10):
        await anyio.wait_readable(console.fileno())
    console.acknowledge()


def read_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    chunks = []
    while chunk := read_some(fd):
        chunks.append(chunk)
    return b"".join(chunks)


def read_some(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


async def test_lines_come_out_whole_and_in_order(tmp_path: Path) -> None:
    lines = [b"line %d\n" % n for n in range(100_000)]
    with (tmp_path / "out").open("wb") as file:
        async with Console(file.fileno()) as console:
            for line in lines:
                console.write(line)
    assert (tmp_path / "out").read_bytes() == b"".join(lines)


async def test_the_descriptor_stays_blocking(pipe: PipeMaker) -> None:
    out_read, out_write = pipe()
    async with Console(out_write) as console:
        console.write(b"a\n")
    assert os.get_blocking(out_write)
    assert read_all(out_read) == b"a\n"


async def test_a_descriptor_somebody_made_non_blocking_loses_nothing(full_pipe: tuple[int, int]) -> None:
    os.set_blocking(full_pipe[1], False)
    async with Console(full_pipe[1]) as console:
        console.write(b"a\n")
        filling = read_all(full_pipe[0])
    assert (filling + read_all(full_pipe[0])).lstrip(b".") == b"a\n"


async def test_one_write_ends_with_a_whole_line() -> None:
    line = b"x" * 99 + b"\n"
    batch = line * (2 * WRITE_MAX_BYTES // len(line))
    end = console_module._end_of_lines(batch, 0)
    assert WRITE_MAX_BYTES - len(line) < end <= WRITE_MAX_BYTES
    assert end % len(line) == 0
    assert console_module._end_of_lines(b"x" * WRITE_MAX_BYTES * 2, 0) == WRITE_MAX_BYTES


async def test_there_is_no_room_while_the_reader_pauses_and_again_when_it_reads(full_pipe: tuple[int, int]) -> None:
    async with Console(full_pipe[1]) as console:
        console.write(b"x" * (BUFFER_MAX_BYTES - 1) + b"\n")
        with anyio.move_on_after(0) as paused:
            await console.room()
        assert paused.cancelled_caught
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read_in_loop, full_pipe[0])
                await console.room()
                await console.aclose()
                tasks.cancel_scope.cancel()


async def read_in_loop(fd: int) -> None:
    while True:
        await anyio.wait_readable(fd)
        os.read(fd, 1 << 16)


async def test_a_paused_reader_does_not_hold_up_the_end_and_what_is_lost_is_said(
    full_pipe: tuple[int, int], pipe: PipeMaker
) -> None:
    err_read, err_write = pipe()
    console = Console(full_pipe[1], stderr=err_write)
    console.write(b"a\nb\n")
    console.write(b"c\n")
    assert await console.aclose(limit_s=0) == 3
    assert read_all(err_read) == b"pysup: standard output is paused: up to 3 lines were not written\n"


async def test_a_cancelled_supervisor_still_writes_what_it_has(full_pipe: tuple[int, int]) -> None:
    lines = b"x" * 99 + b"\n"
    console = Console(full_pipe[1])
    console.write(lines * 10_000)
    reader = threading.Thread(target=read_until_written, args=(console, full_pipe[0], 10_000 * len(lines)))
    lost_lines = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        reader.start()
        lost_lines = await console.aclose(limit_s=10)
    reader.join(timeout=10)
    assert not reader.is_alive()
    assert lost_lines == 0


def read_until_written(console: Console, fd: int, count: int) -> None:
    """Not before the end waits for it."""
    while not console._awaited:
        os.sched_yield()
    while count > 0:
        count -= len(os.read(fd, 1 << 16).lstrip(b"."))


async def test_a_paused_standard_error_does_not_hold_up_the_end(full_pipe: tuple[int, int]) -> None:
    console = Console(full_pipe[1], stderr=full_pipe[1])
    console.write(b"a\n")
    assert await console.aclose(limit_s=0) == 1


async def test_closing_again_is_harmless(pipe: PipeMaker) -> None:
    console = Console(pipe()[1])
    assert await console.aclose() == 0
    console.write(b"late\n")
    assert console._leave() == 0


async def test_a_reader_that_went_away_is_told_once_and_the_rest_is_dropped(pipe: PipeMaker) -> None:
    (out_read, out_write), (err_read, err_write) = pipe(), pipe()
    os.close(out_read)
    async with Console(out_write, stderr=err_write) as console:
        heard = Heard(console)
        console.write(b"a\n")
        await hear(console)
        console.write(b"b\n")
        console.acknowledge()
        assert await console.aclose() == 2
    assert [str(error) for error in heard.gone] == ["standard output: Broken pipe: nobody reads it any more"]
    assert heard.lost_lines == []
    assert read_all(err_read) == b""


async def test_a_full_disk_is_said_once_and_lines_come_again_when_there_is_room(pipe: PipeMaker) -> None:
    (out_read, out_write), (err_read, err_write) = pipe(), pipe()
    target = os.open("/dev/full", os.O_WRONLY)
    try:
        async with Console(target, stderr=err_write) as console:
            heard = Heard(console)
            for _ in range(2):
                console.write(b"a\n")
                await wait_until_written(console)
            os.dup2(out_write, target)
            console.write(b"b\n")
            await hear(console)
    finally:
        os.close(target)
    assert read_all(err_read) == (
        b"pysup: standard output: No space left on device: lines are dropped until there is room\n"
    )
    assert heard.gone == []
    assert heard.lost_lines == [2]
    assert read_all(out_read) == b"b\n"


async def wait_until_written(console: Console) -> None:
    with anyio.fail_after(10):
        await console._until(lambda: console._size == 0)


async def test_a_line_torn_by_a_full_disk_is_ended_before_the_next(
    pipe: PipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out_read, out_write), (_err_read, err_write) = pipe(), pipe()
    write = os.write
    room = [3, 0]  # bytes that still fit, for each write; then there is space again

    def write_to_small_disk(fd: int, data: bytes) -> int:
        if fd != out_write or not room:
            return write(fd, data)
        if not (fits := room.pop(0)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[:fits])

    monkeypatch.setattr(os, "write", write_to_small_disk)
    async with Console(out_write, stderr=err_write) as console:
        console.write(b"torn line\n")
        await wait_until_written(console)
        console.write(b"whole\n")
        assert await console.aclose() == 1
    assert read_all(out_read) == b"tor\nwhole\n"


async def test_what_says_nothing_does_not_end_it(pipe: PipeMaker) -> None:
    reader, writer = pipe()
    async with Console(writer) as console:
        console.write(b"")  # a line that is not to be shown
        written = threading.Event()
        console.afterwards(written.set)
        assert written.wait(10)
        console.write(b"line\n")
    assert read_all(reader) == b"line\n"


async def test_beyond_the_overdraft_lines_are_dropped_whole_counted_and_told(
    full_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_module, "OVERDRAFT_MAX_BYTES", 10)
    async with Console(full_pipe[1]) as console:
        heard = Heard(console)
        console.write(b"12345678\n")
        console.write(b"dropped\ntoo\n")
        assert heard.lost_lines == []
        filling = read_all(full_pipe[0])
        await hear(console)
        assert heard.lost_lines == [2]
        assert (filling + read_all(full_pipe[0])).lstrip(b".") == b"12345678\n"


def test_a_paused_reader_does_not_hold_up_the_interpreters_exit(
    full_pipe: tuple[int, int], anyio_backend_name: str
) -> None:
    program = """
        import anyio, sys
        from supervisor.streams.console import Console

        async def main():
            console = Console(1)
            console.write(b"never read\\n")
            sys.exit(await console.aclose(limit_s=0.2))  # the thread is in its write by then

        anyio.run(main, backend=sys.argv[1])
        """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), anyio_backend_name],
        stdout=full_pipe[1],
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        b"pysup: standard output is paused: up to 1 lines were not written\n",
    )
