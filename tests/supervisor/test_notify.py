"""What containers say by sd_notify(3): parsed, heard in time, by nobody else's mouth, and at no cost to others."""

import array
import os
import select
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from descriptors import held, opened_since
from hypothesis import given
from hypothesis import strategies as st
from real import APP, FOREVER, Containers, Told, containers, until
from waiting import PATIENCE_S

from runtime.errors import LaunchError
from runtime.plan import NOTIFY_PATH
from supervisor.core.checks import Exec, Notice, Notify
from supervisor.kernel import KernelRun, notify
from supervisor.kernel.notify import MESSAGE_MAX_BYTES, NOTHING, Listener, parse

READY = Notice(ready=True)
ALIVE = Notice(alive=True)


# --- parsing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "notice"),
    [
        (b"READY=1", READY),
        (b"READY=1\n", READY),
        (b"READY=1\nSTATUS=up\nWATCHDOG=1\nMAINPID=7\nX_OTHER=a=b", Notice(ready=True, status="up", alive=True)),
        (b"WATCHDOG=trigger", Notice(alive=False)),
        (b"WATCHDOG=1\nWATCHDOG=trigger", Notice(alive=False)),
        (b"EXTEND_TIMEOUT_USEC=1500000", Notice(extend_s=1.5)),
        (b"STATUS=", Notice(status="")),
        (b"STATUS=a=b", Notice(status="a=b")),
        (b"STATUS=caf\xc3\xa9 \xff", Notice(status="café \\xff")),
        *(
            (message, NOTHING)
            for message in (
                *(b"", b"\n\n", b"READY", b"READY=0", b"READY=yes", b"ready=1", b" READY=1", b"WATCHDOG=0"),
                *(b"EXTEND_TIMEOUT_USEC=", b"EXTEND_TIMEOUT_USEC=-1", b"EXTEND_TIMEOUT_USEC=1e9"),
                *(b"EXTEND_TIMEOUT_USEC=" + b"9" * 5000, b"BARRIER=1", b"FDSTORE=1", b"STOPPING=1", b"\0\xff\n=\n=1"),
            )
        ),
    ],
)
def test_what_is_known_is_taken_and_all_else_passed_over(message: bytes, notice: Notice) -> None:
    assert parse(message) == notice


def test_of_many_lines_the_first_count_so_that_nobody_keeps_the_loop() -> None:
    assert parse(b"X=\n" * (notify.LINES_MAX - 1) + b"READY=1") == READY
    assert parse(b"X=\n" * notify.LINES_MAX + b"READY=1") == NOTHING


def test_a_long_status_is_cut() -> None:
    status = parse(b"STATUS=" + "é".encode() * 10_000).status
    assert status == "é" * notify.STATUS_MAX


@given(st.binary(max_size=300))
def test_no_message_is_too_odd(message: bytes) -> None:
    parse(message)


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Deeper than what fits into a socket's address."""
    path = tmp_path / ("s" * 100) / "state"
    path.mkdir(parents=True)
    return path


@pytest.fixture
async def made(state: Path, image: Path) -> AsyncIterator[Containers]:
    async with containers(state, image) as entered:
        yield entered


class Voice:
    """Speaks as a process of the container would: through the socket that it sees."""

    def __init__(self, run: KernelRun) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.connect(f"/proc/{run.pid}/root{NOTIFY_PATH}")

    def say(self, message: bytes) -> None:
        self._socket.send(message)

    def try_to_say(self, message: bytes) -> bool:
        try:
            return self._socket.send(message, socket.MSG_DONTWAIT) > 0
        except BlockingIOError:
            return False

    def give(self, message: bytes, descriptor: int) -> None:
        rights = array.array("i", [descriptor])
        self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def close(self) -> None:
        self._socket.close()


@contextmanager
def voice(run: KernelRun) -> Iterator[Voice]:
    made = Voice(run)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.anyio
@pytest.mark.kernel
@pytest.mark.parametrize("memory_bytes", [1 << 20, None])
async def test_what_a_container_says_is_heard_in_order(made: Containers, memory_bytes: int | None) -> None:
    told = Told()
    run = await made.start(notify=True, told=told, memory_bytes=memory_bytes)
    with voice(run) as speaker:
        speaker.say(b"STATUS=loading")
        speaker.say(b"READY=1\nSTATUS=up")
        speaker.say(b"NONSENSE")
        speaker.say(b"WATCHDOG=1")
    await told.until(ALIVE)
    assert told.notices == [Notice(status="loading"), Notice(ready=True, status="up"), ALIVE]


@pytest.mark.anyio
@pytest.mark.kernel
async def test_any_user_of_the_container_may_speak(made: Containers) -> None:
    run = await made.start(notify=True, user=APP)
    check = Exec(("sh", "-c", f"test -S {NOTIFY_PATH} && test -w {NOTIFY_PATH}"))
    assert (await run.check(check, PATIENCE_S)).passed


@pytest.mark.anyio
@pytest.mark.kernel
async def test_a_container_that_may_not_speak_has_no_socket(made: Containers) -> None:
    run = await made.start()
    assert not (await run.check(Exec(("test", "-e", NOTIFY_PATH)), PATIENCE_S)).passed
    assert (await run.check(Notify(), PATIENCE_S)).detail == "is heard of, not tried"


@pytest.mark.anyio
@pytest.mark.kernel
async def test_each_container_has_a_mouth_of_its_own_and_leaves_no_name(made: Containers, state: Path) -> None:
    ears = [Told(), Told()]
    runs = [await made.start(notify=True, told=told) for told in ears]
    for number, run in enumerate(runs):
        with voice(run) as speaker:
            speaker.say(b"STATUS=%d" % number)
    for number, told in enumerate(ears):
        await told.until(Notice(status=str(number)))
        assert len(told.notices) == 1
    assert [path for path in state.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)] == []


@pytest.mark.anyio
@pytest.mark.kernel
async def test_last_words_are_heard_before_the_end_is_told(made: Containers) -> None:
    told = Told()
    run = await made.start(notify=True, told=told)
    with voice(run) as speaker:
        for number in range(5):
            speaker.say(b"STATUS=%d" % number)
        run.signal(9)
        os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 -- no turn of the loop until it is dead
    await made.finish(run)
    assert [notice.status for notice in told.notices] == ["0", "1", "2", "3", "4"]


@pytest.mark.anyio
@pytest.mark.kernel
async def test_descriptors_that_are_sent_are_closed_which_answers_a_barrier(made: Containers) -> None:
    told = Told()
    run = await made.start(notify=True, told=told)
    before = held()
    reading, writing = os.pipe()
    with voice(run) as speaker:
        speaker.give(b"READY=1\nFDSTORE=1", writing)
        speaker.give(b"BARRIER=1", writing)
        os.close(writing)
        await told.until(READY)
        with anyio.fail_after(PATIENCE_S):
            await anyio.wait_readable(reading)
        assert os.read(reading, 1) == b""
    os.close(reading)
    assert opened_since(before) == {}


@pytest.mark.anyio
@pytest.mark.kernel
async def test_a_message_that_is_too_long_is_passed_over(made: Containers) -> None:
    told = Told()
    run = await made.start(notify=True, told=told)
    with voice(run) as speaker:
        speaker.say(b"READY=1\n" + b"x" * MESSAGE_MAX_BYTES)
        speaker.say(b"WATCHDOG=1\n" + b"x" * (MESSAGE_MAX_BYTES - 11))
        speaker.say(b"")
    await told.until(ALIVE)
    assert told.notices == [ALIVE]


@pytest.mark.anyio
@pytest.mark.kernel
async def test_a_flood_keeps_nobody_from_being_heard(made: Containers) -> None:
    flooded, told = Told(), Told()
    loud = await made.start(notify=True, told=flooded)
    quiet = await made.start(notify=True, told=told)
    with voice(loud) as flood, voice(quiet) as speaker:

        def one_turn() -> bool:
            while flood.try_to_say(b"WATCHDOG=1"):
                pass
            return READY in told.notices

        one_turn()
        speaker.say(b"READY=1")
        await until(one_turn)
    assert flooded.notices


@pytest.mark.anyio
@pytest.mark.kernel
async def test_a_start_that_fails_leaves_no_mouth(made: Containers) -> None:
    before = held()
    with pytest.raises(LaunchError, match="execute nosuch"):
        await made.start("nosuch", notify=True)
    assert opened_since(before) == {}
    assert made.runner._means.listener._mouths == {}


@pytest.mark.anyio
@pytest.mark.kernel
async def test_the_mount_is_the_containers_alone(made: Containers) -> None:
    run = await made.start(*FOREVER, notify=True)
    (line,) = [line for line in Path(f"/proc/{run.pid}/mountinfo").read_text().splitlines() if NOTIFY_PATH in line]
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
    assert "shared:" not in line
    assert "master:" not in line


@pytest.mark.anyio
async def test_silence_wakes_nobody(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("not root")
    listener = Listener(tmp_path)
    mouth = listener.open(Told())
    mouth.begin()
    assert select.select([listener._epoll], [], [], 0)[0] == []
    mouth.finish()
    listener.close()
    listener.close()
