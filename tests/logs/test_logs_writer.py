"""The writer of a stack's logs and those who follow them: nothing lost, nothing twice, and nobody made to wait."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, aclosing
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from descriptors import held, opened_since
from logbook import Told, Writing
from waiting import PATIENCE_S, until

from supervisor.commands import LogLine
from supervisor.logs.policy import Driver, LogPolicy, Overflow
from supervisor.logs.reader import LogError
from supervisor.logs.store import Lines, Store
from supervisor.logs.writer import BUFFER_MAX_BYTES, LogWriter
from supervisor.streams.lines import Piece, Stream

pytestmark = pytest.mark.anyio

CHECKOUT = Path(__file__).resolve().parents[2]


def put(writer: LogWriter, container: str, *texts: bytes, at_ns: int = 0) -> None:
    writer.write(container, Stream.STDOUT, Piece(b"".join(text + b"\n" for text in texts)), at_ns)


async def read(lines: AsyncIterator[LogLine]) -> list[bytes]:
    with anyio.fail_after(PATIENCE_S):
        return [line.text async for line in lines]


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"line %06d" % number for number in range(start, start + count)]


async def test_what_was_written_is_read_at_once(writing: Writing) -> None:
    async with writing() as writer:
        writer.open("a", LogPolicy())
        put(writer, "a", *numbered(10))
        writer.write("a", Stream.STDERR, Piece(b"half\n", cut=True), 7)
        with anyio.fail_after(PATIENCE_S):
            found = [line async for line in writer.logs("a")]
    assert [line.text for line in found[:-1]] == numbered(10)
    assert found[-1] == LogLine(7, Stream.STDERR, b"half", partial=True)


async def test_a_log_that_is_not_there_is_empty(writing: Writing) -> None:
    async with writing() as writer:
        assert await read(writer.logs("a")) == []


async def test_a_container_without_a_log_leaves_nothing(writing: Writing, tmp_path: Path) -> None:
    async with writing() as writer:
        for driver in (Driver.NONE, Driver.STDOUT_JSON):
            writer.open("a", LogPolicy(driver))
            put(writer, "a", b"gone")
            assert await read(writer.logs("a")) == []
    assert not (tmp_path / "logs").exists()
    assert writer.lost_lines == {}


async def test_a_log_that_cannot_be_read_is_one_clear_line(writing: Writing, tmp_path: Path) -> None:
    (tmp_path / "logs/a/0.log").mkdir(parents=True)
    async with writing() as writer:
        with pytest.raises(LogError, match=r"^the log of a can't be read: .*/a/0.log: Is a directory$"):
            await read(writer.logs("a"))


async def test_who_follows_sees_each_line_once_over_rotations_until_the_end(writing: Writing) -> None:
    async with writing() as writer, anyio.create_task_group() as tasks:
        writer.open("a", LogPolicy(max_size_bytes=5000, max_files=1 << 20, compress=True))
        put(writer, "a", *numbered(100))
        seen: list[list[bytes]] = [[], [], []]

        async def follow(number: int, **asked: int) -> None:
            seen[number] = await read(writer.logs("a", follow=True, **asked))

        tasks.start_soon(follow, 0)
        for start in range(100, 10_000, 50):
            put(writer, "a", *numbered(50, start))
            if start == 5000:
                tasks.start_soon(follow, 1)
            await anyio.lowlevel.checkpoint()
        writer.end("a")
    assert seen[0] == numbered(10_000)
    assert seen[1] == numbered(10_000)
    assert writer._followed == {}


async def test_who_follows_sees_lines_as_they_come(writing: Writing) -> None:
    async with writing() as writer:
        writer.open("a", LogPolicy())
        put(writer, "a", *numbered(3))
        with anyio.fail_after(PATIENCE_S):
            async with aclosing(writer.logs("a", follow=True, last=1)) as lines:
                assert (await anext(lines)).text == numbered(3)[2]
                for text in (b"next", b"and next"):
                    put(writer, "a", text)
                    assert (await anext(lines)).text == text
        assert writer._followed == {}


async def test_who_follows_an_empty_log_sees_its_first_line(writing: Writing) -> None:
    async with writing() as writer, anyio.create_task_group() as tasks:
        writer.open("a", LogPolicy())
        found: list[bytes] = []

        async def follow() -> None:
            found.extend(await read(writer.logs("a", follow=True)))

        tasks.start_soon(follow)
        while not writer._followed:
            await anyio.lowlevel.checkpoint()
        put(writer, "a", b"first")
        writer.end("a")
    assert found == [b"first"]


async def test_following_a_log_that_has_ended_or_never_was_ends(writing: Writing) -> None:
    async with writing() as writer:
        writer.open("a", LogPolicy())
        put(writer, "a", b"text")
        writer.end("a")
        await read(writer.logs("a"))
        assert await read(writer.logs("a", follow=True)) == [b"text"]
        assert await read(writer.logs("b", follow=True)) == []


async def test_following_ends_at_until(writing: Writing) -> None:
    async with writing() as writer:
        writer.open("a", LogPolicy())
        put(writer, "a", b"old")
        assert await read(writer.logs("a", follow=True, until=time.time() + 0.05)) == [b"old"]


async def test_a_removed_log_is_gone_and_its_followers_are_done(writing: Writing, tmp_path: Path) -> None:
    async with writing() as writer, anyio.create_task_group() as tasks:
        for container in "ab":
            writer.open(container, LogPolicy())
            put(writer, container, b"text")
        tasks.start_soon(read, writer.logs("a", follow=True))
        while not writer._followed:
            await anyio.lowlevel.checkpoint()
        writer.remove("a")
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["b"]


async def test_who_was_about_to_read_a_log_has_all_of_it_though_it_is_removed(writing: Writing, tmp_path: Path) -> None:
    async with writing() as writer:
        writer.open("a", LogPolicy())
        put(writer, "a", b"text")
        with writer.reading("a"):
            with writer.reading("a"):
                writer.remove("a")
                assert await read(writer.logs("a", follow=True)) == [b"text"]
            assert await read(writer.logs("a")) == [b"text"]
        assert await read(writer.logs("a")) == []
        assert not (tmp_path / "logs/a").exists()


async def test_a_removed_log_goes_at_once_where_another_container_gets_its_name(writing: Writing) -> None:
    async with writing() as writer:
        for container in "abc":
            writer.open(container, LogPolicy())
            put(writer, container, b"text of " + container.encode())
        with writer.reading("a"), writer.reading("b"):
            writer.remove("a")
            writer.open("a", LogPolicy())
            put(writer, "a", b"new")
            assert await read(writer.logs("a")) == [b"new"]
            writer.remove("b")
            await read(writer.logs("b"))
            writer.rename("c", "b")
            assert await read(writer.logs("c")) == []
            assert await read(writer.logs("b")) == [b"text of c"]
        assert await read(writer.logs("a")) == [b"new"]
        assert await read(writer.logs("b")) == [b"text of c"]


async def test_a_removed_log_is_gone_at_the_end_whoever_reads_it(writing: Writing, tmp_path: Path) -> None:
    with ExitStack() as readings:
        async with writing() as writer:
            writer.open("a", LogPolicy())
            put(writer, "a", b"text")
            readings.enter_context(writer.reading("a"))
            writer.remove("a")
            assert await read(writer.logs("a")) == [b"text"]
        assert not (tmp_path / "logs/a").exists()


async def test_of_removed_logs_nothing_is_remembered(writing: Writing) -> None:
    async with writing() as writer:
        for container in ("a", "b", "c"):
            writer.open(container, LogPolicy())
            put(writer, container, b"text")
            writer.end(container)
        while len(writer._ended) < 3:
            await anyio.lowlevel.checkpoint()
        writer.rename("b", "d")
        for container in ("a", "c", "d"):
            writer.remove(container)
    assert (writer._ended, writer._policies, writer._followed, writer._left) == (set(), {}, {}, set())


async def test_an_idle_log_holds_no_descriptor(writing: Writing) -> None:
    async with writing() as writer:
        await read(writer.logs("0"))  # the loop has all that it needs
        before = held()
        for number in range(200):
            writer.open(str(number), LogPolicy())
            put(writer, str(number), b"text")
        assert await read(writer.logs("199")) == [b"text"]
        assert opened_since(before) == {}


async def test_a_stack_keeps_to_its_limit_and_the_oldest_goes_first(writing: Writing, tmp_path: Path) -> None:
    limit = 100_000
    async with writing(limit) as writer:
        for container in "abc":
            writer.open(container, LogPolicy(max_size_bytes=10_000, max_files=1000))
        for second in range(100):
            put(writer, "a" if second < 50 else "b", *numbered(50, second), at_ns=second * 10**9)
            await read(writer.logs("a", last=0))
        put(writer, "c", b"quiet", at_ns=100 * 10**9)
        assert await read(writer.logs("c")) == [b"quiet"]
        assert len(await read(writer.logs("a"))) < len(await read(writer.logs("b")))
    sizes = [path.stat().st_size for path in (tmp_path / "logs").rglob("*.log")]
    assert limit - 10_000 <= sum(sizes) <= limit
    assert writer._store._total_bytes == sum(sizes)
    async with writing(20_000) as writer:  # now less: the next start sees to it
        writer.open("c", LogPolicy())
        put(writer, "c", b"louder", at_ns=101 * 10**9)
        assert await read(writer.logs("c")) == [b"quiet", b"louder"]
    assert sum(path.stat().st_size for path in (tmp_path / "logs").rglob("*.log")) <= 20_000


async def test_without_complete_files_the_longest_log_goes(writing: Writing) -> None:
    async with writing(50_000) as writer:
        for container in ("long", "short"):
            writer.open(container, LogPolicy())
        put(writer, "short", b"kept")
        for start in range(0, 3000, 100):
            put(writer, "long", *numbered(100, start))
            await read(writer.logs("long", last=0))
        assert await read(writer.logs("short")) == [b"kept"]
        put(writer, "long", b"last")
        assert 0 < len(await read(writer.logs("long"))) < 1000


async def test_another_limit_holds_at_once_also_for_what_was_there_before(writing: Writing, tmp_path: Path) -> None:
    async with writing() as writer:
        writer.open("old", LogPolicy(max_size_bytes=10_000, max_files=100))
        for start in range(0, 5000, 100):
            put(writer, "old", *numbered(100, start))
    async with writing() as writer:
        writer.open("a", LogPolicy(max_size_bytes=10_000, max_files=100))
        for limit in (100_000, 50_000, None):
            writer.limit(limit)
            put(writer, "a", *numbered(100), at_ns=time.time_ns())
            assert await read(writer.logs("a")) == numbered(100) * (1 if limit == 100_000 else 2 if limit else 3)
            total = sum(path.stat().st_size for path in (tmp_path / "logs").rglob("*.log"))
            assert limit is None or limit - 20_000 <= total <= limit


# --- limits of the buffer --------------------------------------------------------------------------------------------


async def flood(writer: LogWriter, container: str, total_bytes: int) -> int:
    lines, chunk = 0, Piece((b"x" * 99 + b"\n") * 600)
    for _ in range(total_bytes // len(chunk.lines)):
        writer.write(container, Stream.STDOUT, chunk, 0)
        lines += 600
    return lines


class StoppedDisk:
    """Nothing is written until it goes on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._going = threading.Event()
        append = Store.append

        def waiting(store: Store, name: str, policy: LogPolicy, batch: Iterable[Lines]) -> int:
            self._going.wait(PATIENCE_S)
            return append(store, name, policy, batch)

        patch.setattr(Store, "append", waiting)

    def go_on(self) -> None:
        self._going.set()


async def test_a_slow_disk_holds_back_those_who_block_and_drops_the_lines_of_those_who_do_not(
    writing: Writing, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StoppedDisk(monkeypatch)
    async with writing() as writer:
        writer.open("waits", LogPolicy())
        writer.open("drops", LogPolicy(overflow=Overflow.DROP))
        await flood(writer, "waits", BUFFER_MAX_BYTES + 100_000)
        assert not writer.has_room("waits")
        assert writer.has_room("drops")
        assert await flood(writer, "drops", 600_000) == writer.lost_lines["drops"] > 0
        stop.go_on()
        with anyio.fail_after(PATIENCE_S):
            while not writer.has_room("waits"):
                await anyio.lowlevel.checkpoint()
            while not told.events:
                await anyio.lowlevel.checkpoint()
        assert told.events == [("log_lost", "drops", {"lines": writer.lost_lines["drops"]})]
        assert writer.lost_lines["waits"] == 0


async def test_an_end_on_a_stopped_disk_does_not_wait_long_and_says_what_was_not_written(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StoppedDisk(monkeypatch)
    writer = LogWriter(tmp_path, told)
    writer.open("a", LogPolicy())
    put(writer, "a", *numbered(10))
    with anyio.fail_after(PATIENCE_S):
        await writer.aclose(limit_s=0)
    stop.go_on()
    assert told.events == [("log_lost", "a", {"lines": 10})]
    put(writer, "a", b"late")
    assert writer.lost_lines["a"] == 11


async def test_a_mistake_in_the_thread_is_raised_by_the_loop(tmp_path: Path, told: Told) -> None:
    writer = LogWriter(tmp_path, told)
    writer.open("a", LogPolicy())
    writer._store.append = None  # type: ignore[method-assign,assignment]  # a mistake of ours: calling it fails
    put(writer, "a", b"text")
    with anyio.fail_after(PATIENCE_S):
        await anyio.wait_readable(writer.fileno())
    with pytest.raises(RuntimeError, match="the thread that writes logs has failed"):
        writer.acknowledge()
    await writer.aclose(limit_s=0)


async def test_a_log_that_is_in_the_way_costs_its_lines_and_nothing_else(
    writing: Writing, told: Told, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a").write_text("no directory")
    async with writing() as writer:
        for container in "ab":
            writer.open(container, LogPolicy())
            put(writer, container, b"text")
        assert await read(writer.logs("b")) == [b"text"]
    assert told.events[0] == ("log_failed", "a", {"error": "Not a directory"})
    assert writer.lost_lines == {"a": 1}


async def test_a_log_made_anew_is_not_taken_for_the_one_that_was_removed(writing: Writing, tmp_path: Path) -> None:
    policy = LogPolicy(max_size_bytes=1000, max_files=1000, compress=True)
    async with writing() as writer:
        for _ in range(5):
            writer.open("a", policy)
            put(writer, "a", *numbered(2000))
            writer.remove("a")
        writer.open("a", policy)
        put(writer, "a", *numbered(10))
        assert await read(writer.logs("a")) == numbered(10)
    assert writer._store._total_bytes == sum(path.stat().st_size for path in (tmp_path / "logs/a").iterdir())


async def test_a_log_of_another_name_has_all_that_it_had(writing: Writing) -> None:
    policy = LogPolicy(max_size_bytes=1000, max_files=1000)
    async with writing() as writer, anyio.create_task_group() as tasks:
        writer.open("a", policy)
        put(writer, "a", *numbered(200))
        tasks.start_soon(read, writer.logs("a", follow=True))  # it is done then
        while not writer._followed:
            await anyio.lowlevel.checkpoint()
        writer.rename("a", "b")
        put(writer, "b", b"more")
        assert await read(writer.logs("b")) == [*numbered(200), b"more"]
        assert await read(writer.logs("a")) == []


# --- a full disk, and the end of a writer ----------------------------------------------------------------------------

FULL = """
    import os, sys, anyio
    from pathlib import Path
    from runtime import linux
    from supervisor.streams.lines import Piece, Stream
    from supervisor.logs import writer as module
    from supervisor.logs.policy import LogPolicy

    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("full", sys.argv[1], "tmpfs", 0, "size=256k")
    module.TELL_EVERY_S = 0
    events = []

    def tell(event, *, container, level, **fields):
        events.append((event, container, fields))

    async def main():
        directory = Path(sys.argv[1])
        async with module.LogWriter(directory / "logs", tell) as log, anyio.create_task_group() as tasks:
            async def listen():
                while True:
                    await anyio.wait_readable(log.fileno())
                    log.acknowledge()

            tasks.start_soon(listen)
            log.open("a", LogPolicy())
            (directory / "other").write_bytes(b"x" * 100_000)
            for number in range(40):
                log.write("a", Stream.STDOUT, Piece(b"%04d " % number + b"y" * 10_000 + b"\\n"), 0)
                async for _ in log.logs("a", last=0): pass
            (directory / "other").unlink()
            log.write("a", Stream.STDOUT, Piece(b"room again\\n"), 0)
            lines = [line async for line in log.logs("a")]
            tasks.cancel_scope.cancel()
        print(len(lines), lines[-1].text.decode(), [line.text[:4] for line in lines[:-1]] ==
              [b"%04d" % n for n in range(len(lines) - 1)], log.lost_lines["a"], events)

    anyio.run(main)
"""


def test_on_a_full_disk_lines_are_dropped_whole_counted_and_told_and_come_again_with_room(tmp_path: Path) -> None:
    ended = python(FULL, tmp_path)
    kept, *last, in_order, lost, events = ended.split(maxsplit=5)
    assert (last, in_order) == (["room", "again"], "True")
    assert int(kept) - 1 + int(lost) == 40
    assert int(lost) > 10
    failed = ("log_failed", "a", {"error": "No space left on device"})
    assert events.strip() == str([failed, ("log_lost", "a", {"lines": int(lost)})])
    assert list(tmp_path.iterdir()) == []


def python(program: str, *arguments: object) -> str:
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        env={"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    ).stdout


FLOOD = """
    import os, sys
    from pathlib import Path
    from supervisor.streams.lines import Piece, Stream
    from supervisor.logs.policy import LogPolicy
    from supervisor.logs.writer import LogWriter

    log = LogWriter(Path(sys.argv[1]), print)
    log.open("a", LogPolicy(max_size_bytes=1 << 20, max_files=1000, compress=True))
    number = 0
    while True:
        if log.has_room("a"):
            log.write("a", Stream.STDOUT, Piece(b"".join(b"line %09d\\n" % n for n in range(number, number + 500))), 0)
            number += 500
            if number == 500:
                print("begun", flush=True)
"""


async def test_a_writer_that_was_killed_leaves_a_log_that_goes_on(writing: Writing, tmp_path: Path) -> None:
    for _ in range(3):
        kill_while_it_writes(tmp_path / "logs")
        async with writing() as writer:
            writer.open("a", LogPolicy(max_size_bytes=1 << 20, max_files=1000, compress=True))
            put(writer, "a", b"next")
            found = await read(writer.logs("a"))
            assert found.pop() == b"next"
            torn = [text for text in found if len(text) != len(b"line 000000000")]
            assert torn == [] or torn == found[-1:]
            assert found[: len(found) - len(torn)] == [b"line %09d" % n for n in range(len(found) - len(torn))]
            writer.remove("a")


def kill_while_it_writes(directory: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FLOOD), str(directory)]
    environment = {"PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == b"begun\n"
            until((directory / "a/3.log").exists)
        finally:
            child.send_signal(signal.SIGKILL)


# --- raw -------------------------------------------------------------------------------------------------------------


async def test_raw_output_is_moved_from_its_pipe_and_read_as_lines(writing: Writing, tmp_path: Path) -> None:
    source, sink = os.pipe()
    try:
        async with writing() as writer:
            writer.open("a", LogPolicy(Driver.RAW, max_size_bytes=10_000, max_files=1 << 20))
            with anyio.fail_after(PATIENCE_S):
                for start in range(0, 10_000, 1000):
                    os.write(sink, b"".join(text + b"\n" for text in numbered(1000, start)))
                    assert await move(writer, source)
                os.close(sink)
                assert not await move(writer, source)
            assert await read(writer.logs("a")) == numbered(10_000)
            assert await read(writer.logs("a", last=7)) == numbered(10_000)[-7:]
            assert (tmp_path / "logs/a/stdout/0.log").read_bytes().startswith(b"line 000000\nline")
    finally:
        os.close(source)


async def move(writer: LogWriter, source: int) -> bool:
    """Until the pipe is empty, for now or for good; is it for now?"""
    moved, found = anyio.Event(), []

    def done(more: bool) -> None:
        found.append(more)
        moved.set()

    writer.move("a", Stream.STDOUT, source, done, 0)
    await moved.wait()
    return found[0]


async def test_raw_output_on_a_full_disk_is_dropped_and_counted(
    writing: Writing, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def splice_to_full_disk(*_arguments: object, **_named: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source, sink = os.pipe()
    try:
        os.set_blocking(source, False)
        async with writing() as writer:
            writer.open("a", LogPolicy(Driver.RAW))
            with monkeypatch.context() as patch:
                patch.setattr(os, "splice", splice_to_full_disk)
                os.write(sink, b"a\nb\n")
                assert await move(writer, source)
            os.write(sink, b"room again\n")
            assert await move(writer, source)
            assert await read(writer.logs("a")) == [b"room again"]
            with monkeypatch.context() as patch:
                patch.setattr(os, "splice", splice_to_full_disk)
                os.write(sink, b"c\n")
                assert await move(writer, source)
    finally:
        os.close(source)
        os.close(sink)
    failures = [event for event in told.events if event[0] == "log_failed"]
    assert failures == [("log_failed", "a", {"error": "No space left on device"})]  # the second came too soon
    assert sum(int(str(event[2]["lines"])) for event in told.events if event[0] == "log_lost") == 3
