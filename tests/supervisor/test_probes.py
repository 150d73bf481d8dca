"""Checks of containers that run, on the real kernel: what passes, what is said, and that nothing of them is left."""

import errno
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from descriptors import held, opened_since
from family import children
from real import APP, Containers, Told, containers, until
from waiting import PATIENCE_S

from runtime import spawn
from runtime.config import Network
from runtime.enter import Door
from runtime.errors import LaunchError
from runtime.security import capability_mask
from runtime.spawn import Launcher
from supervisor.core.checks import Exec, File, Http, Log, Notice, Notify, Probe, Tcp, Verdict
from supervisor.kernel import ENDED, KernelRun, probes
from supervisor.processes import launchers
from supervisor.processes.uproot import _children, _stat
from supervisor.streams.output import _Channel

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

PASSED = Verdict(passed=True)
TIMEOUT_S = 20.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
async def made(state: Path, image: Path) -> AsyncIterator[Containers]:
    async with containers(state, image) as entered:
        yield entered


def failed(detail: str) -> Verdict:
    return Verdict(passed=False, detail=detail)


def sh(script: str) -> Exec:
    return Exec(("sh", "-c", script))


def inside(run: KernelRun) -> dict[int, str]:
    """The state of each process of a container."""
    pids = [run.pid]
    for pid in pids:
        pids += _children(pid)
    return {pid: chr(_stat(pid)[0]) for pid in pids}


async def settled(run: KernelRun, count: int = 1) -> None:
    """So many processes are in it, and none is a zombie: process 1 may take its turn to reap."""

    def quiet() -> bool:
        found = inside(run)
        return len(found) == count and "Z" not in found.values()

    await until(quiet)


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        ("true", PASSED),
        ("echo fine; echo also >&2", Verdict(passed=True, detail="fine\nalso")),
        ("exit 3", failed("exit status 3")),
        ("echo sorry; false", failed("exit status 1: sorry")),
        ("kill -TERM $$", failed("killed by signal 15")),
        (r"printf '\xff\n'; false", failed(r"exit status 1: \xff")),
    ],
)
async def test_a_command_passes_by_its_exit_status(made: Containers, script: str, verdict: Verdict) -> None:
    run = await made.start()
    assert await run.check(sh(script), TIMEOUT_S) == verdict


async def test_a_command_that_is_not_there_fails(made: Containers) -> None:
    run = await made.start()
    verdict = await run.check(Exec(("nosuch",)), TIMEOUT_S)
    assert verdict == failed(
        "execute nosuch: not found in the image: check cmd and PATH, or the interpreter that its first line names"
    )


async def test_it_is_the_same_where_it_enters_apart(made: Containers) -> None:
    run = await made.start(capabilities=PTRACE)
    assert await run.check(sh("echo fine"), TIMEOUT_S) == Verdict(passed=True, detail="fine")
    assert await run.check(sh("kill -TERM $$"), TIMEOUT_S) == failed("killed by signal 15")
    assert (await run.check(Exec(("nosuch",)), TIMEOUT_S)).detail.startswith("execute nosuch: not found in the image")
    await settled(run)
    await until(lambda: set(children(os.getpid())) == {run.pid, *made.runner._means.pool.pids})  # nobody else is left


async def test_a_command_has_the_containers_user_and_directory(made: Containers) -> None:
    run = await made.start(user=APP, workdir="/srv")
    assert (await run.check(sh("id -u; id -g; pwd"), TIMEOUT_S)).detail.split() == ["1000", "1000", "/srv"]


async def test_the_end_of_a_flood_is_kept(made: Containers) -> None:
    run = await made.start()
    verdict = await run.check(sh("seq 200000; echo the end; exit 4"), TIMEOUT_S)
    assert verdict.detail.startswith("exit status 4: ")
    assert verdict.detail.endswith("199999\n200000\nthe end")
    assert len(verdict.detail) < probes.OUTPUT_MAX_BYTES + 100


PTRACE = capability_mask(["CAP_SYS_PTRACE"], (), privileged=False)  # what enters such a container does so apart


@pytest.mark.parametrize(
    "changes", [{}, {"init": True}, {"capabilities": PTRACE}, {"capabilities": PTRACE, "user": APP}]
)
async def test_at_its_timeout_a_command_ends_as_a_whole(made: Containers, changes: dict[str, Any]) -> None:
    script = "trap '' TERM; echo begun; (sleep 1000 & setsid sleep 1000 & exec sleep 1000) & sleep 1000; touch /tmp/on"
    run = await made.start("sh", "-c", "sleep 1000 & wait", **changes)
    init = "init" in changes
    await settled(run, 3 if init else 2)
    assert await run.check(sh(script), 0.3) == failed("killed after 0.3 s: begun")
    await settled(run, 3 if init else 2)
    assert not (await run.check(File("/tmp/on"), TIMEOUT_S)).passed


async def test_100_commands_that_time_out_leave_no_process_and_no_zombie(made: Containers) -> None:
    run = await made.start(init=True)
    for _ in range(100):
        assert not (await run.check(sh("sleep 1000 & sleep 1000"), 0.02)).passed
    await settled(run, 2)


async def test_where_process_1_reaps_nothing_only_the_first_leaves_zombies(made: Containers) -> None:
    run = await made.start("sleep", "1000")
    tree = sh("(sleep 1000 & sleep 1000) & sleep 1000; true")
    with anyio.fail_after(PATIENCE_S):
        while (left := len(inside(run))) == 1:  # or its time was up before it had begun anything
            assert not (await run.check(tree, 0.5)).passed
    for _ in range(8):
        assert not (await run.check(tree, 0.3)).passed
        await until(lambda: list(inside(run).values()).count("S") <= 1)
    await until(lambda: len(inside(run)) == left)
    assert await run.check(sh("echo fine; exit 0"), TIMEOUT_S) == Verdict(passed=True, detail="fine")
    assert await run.check(sh("exit 7"), TIMEOUT_S) == failed("exit status 7")
    assert await run.check(Exec(("nosuch",)), TIMEOUT_S) != PASSED
    assert (await run.check(sh("sleep 1000 & echo fine"), TIMEOUT_S)).passed


async def test_whose_time_is_up_while_it_enters_leaves_no_zombie_either(made: Containers) -> None:
    run = await made.start("sleep", "1000")
    assert not (await run.check(sh("sleep 1000 & sleep 1000"), 0.5)).passed
    left = len(inside(run))
    assert left > 1
    for turn in range(200):
        assert not (await run.check(Exec(("sleep", "1000")), 0.001 * (turn % 10))).passed
    await until(lambda: len(inside(run)) <= left)


async def test_what_a_command_leaves_in_the_background_ends_with_it(made: Containers) -> None:
    run = await made.start(init=True)
    assert await run.check(sh("sleep 1000 & (sleep 1001 & sleep 1002) & echo fine"), TIMEOUT_S) == Verdict(
        passed=True, detail="fine"
    )
    await settled(run, 2)


async def test_a_command_that_forks_without_end_is_ended(made: Containers) -> None:
    run = await made.start(init=True, user=APP, rlimits=((6, 200, 200),))
    await run.check(sh("while :; do sleep 1000 & done"), 0.5)
    await settled(run, 2)


async def test_a_cancelled_check_leaves_nothing(made: Containers) -> None:
    run = await made.start(init=True)
    before = held()
    for delay_s in (0, 0.001, 0.002, 0.004, 0.05):
        with anyio.move_on_after(delay_s) as patience:
            await run.check(sh("sleep 1000 & sleep 1000"), TIMEOUT_S)
        assert patience.cancelled_caught
    await settled(run, 2)
    assert opened_since(before) == {}


async def test_many_checks_of_one_container_at_a_time(made: Containers) -> None:
    run = await made.start(init=True)
    verdicts: list[Verdict] = []

    async def one(number: int) -> None:
        verdicts.append(await run.check(sh(f"echo {number}"), TIMEOUT_S))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(one, number)
    assert sorted(int(verdict.detail) for verdict in verdicts) == [*range(50)]
    await settled(run, 2)


# --- a run that ends -------------------------------------------------------------------------------------------------

EVERY: list[Probe] = [Exec(("sleep", "1000")), Tcp(9), Http("localhost", 9, "/"), File("/"), Log("x"), Notify()]


@pytest.mark.parametrize("probe", EVERY, ids=lambda probe: type(probe).__name__)
async def test_nothing_passes_of_a_run_that_has_ended(made: Containers, probe: Probe) -> None:
    run = await made.start("true", network=Network.NONE)
    await made.end(run)
    assert await run.check(probe, TIMEOUT_S) == ENDED


async def test_a_check_ends_with_its_run(made: Containers) -> None:
    run = await made.start(network=Network.NONE)
    verdicts: list[Verdict] = []

    async def one(probe: Probe) -> None:
        verdicts.append(await run.check(probe, 1000))

    with anyio.fail_after(PATIENCE_S), mute(run) as port:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, Exec(("sleep", "1000")))
            tasks.start_soon(one, Http("127.0.0.1", port, "/"))
            await until(lambda: _has_command(run))
            await made.end(run)
    assert verdicts == [ENDED, ENDED]


def _has_command(run: KernelRun) -> bool:
    """Commands are our children, not process 1's."""
    namespace = os.readlink(f"/proc/{run.pid}/ns/pid")
    return any(pid != run.pid and _namespace(pid) == namespace for pid in _children(os.getpid()))


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


# --- sockets ---------------------------------------------------------------------------------------------------------


@contextmanager
def serving(run: KernelRun, talk: Callable[[socket.socket], None], address: str = "127.0.0.1") -> Iterator[int]:
    """A server in a container's network, whose connections go to `talk`; yields its port."""
    door = Door()
    pidfd = os.pidfd_open(run.pid)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with door.socket(pidfd, Network.NONE, family) as listening:
        listening.bind((address, 0))
        listening.listen()
        listening.setblocking(True)
        stop, stopped = os.pipe()

        def serve() -> None:
            while listening.fileno() in select.select([listening.fileno(), stop], [], [])[0]:
                connection, _ = listening.accept()
                with connection:
                    talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            os.close(stopped)
            thread.join()
            os.close(stop)
            os.close(pidfd)
            door.close()


@contextmanager
def mute(run: KernelRun) -> Iterator[int]:
    """A server that takes connections and says nothing."""
    held: list[socket.socket] = []
    try:
        with serving(run, lambda connection: held.append(connection.dup())) as port:
            yield port
    finally:
        for connection in held:
            connection.close()


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        connection.recv(65536)
        connection.sendall(answer)

    return talk


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_port_of_the_containers_network_accepts(made: Containers, address: str) -> None:
    run = await made.start(network=Network.NONE)
    with serving(run, lambda _: None, address) as port:
        assert await run.check(Tcp(port), TIMEOUT_S) == PASSED
    assert await run.check(Tcp(port), TIMEOUT_S) == failed("connection refused")


async def test_a_port_of_the_host_is_not_the_containers(made: Containers) -> None:
    alone, shared = await made.start(network=Network.NONE), await made.start(network=Network.HOST)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert await alone.check(Tcp(port), TIMEOUT_S) == failed("connection refused")
        assert await shared.check(Tcp(port), TIMEOUT_S) == PASSED


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (OK, Verdict(passed=True, detail="status 200 OK")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, Verdict(passed=True, detail="status 200 OK")),
        (
            b"HTTP/1.0 302 Moved\r\nLocation: http://example.com/\r\n\r\n",
            Verdict(passed=True, detail="status 302 Found"),
        ),
        (b"HTTP/1.1 204 \r\n\r\n", Verdict(passed=True, detail="status 204 No Content")),
        (b"HTTP/1.1 503 \x1b[31mGo away\r\n\r\n", failed("status 503 Service Unavailable")),
        (b"HTTP/1.1 599 Odd\r\n\r\n", failed("status 599")),
        (b"", failed("closed without an answer")),
        (b"SSH-2.0-OpenSSH\r\n\r\n", failed("not an answer in HTTP/1")),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, failed("not an answer in HTTP/1")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, failed("not an answer in HTTP/1")),
    ],
)
async def test_an_http_answer_passes_by_its_status(made: Containers, answer: bytes, verdict: Verdict) -> None:
    run = await made.start(network=Network.NONE)

    def talk(connection: socket.socket) -> None:
        try:
            saying(answer)(connection)
        except ConnectionError:
            return

    with serving(run, talk) as port:
        assert await run.check(Http("localhost", port, "/health?deep=1"), TIMEOUT_S) == verdict


async def test_an_http_request_says_what_it_wants(made: Containers) -> None:
    run = await made.start(network=Network.NONE)
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(OK)

    with serving(run, talk, "::1") as port:
        assert (await run.check(Http("[::1]", port, "/a?b=c", ((200, 200),)), TIMEOUT_S)).passed
        assert not (await run.check(Http("::1", port, "/", ((201, 299), (500, 500))), TIMEOUT_S)).passed
    head = asked[0].split(b"\r\n")
    assert head[0] == b"GET /a?b=c HTTP/1.1"
    assert {f"Host: [::1]:{port}".encode(), b"Connection: close"} <= set(head)
    assert f"Host: [::1]:{port}".encode() in asked[1]


@pytest.mark.parametrize("kind", ["Tcp", "Http"])
async def test_who_does_not_answer_in_time_has_not_passed(made: Containers, kind: str) -> None:
    run = await made.start(network=Network.NONE)
    with mute(run) as port:
        if kind == "Http":
            assert await run.check(Http("localhost", port, "/"), 0.1) == failed("no answer within 0.1 s")
        else:
            assert await run.check(Tcp(port), 5) == PASSED


async def test_sockets_start_no_process_and_leave_no_descriptor(made: Containers) -> None:
    run = await made.start(network=Network.NONE)
    with serving(run, saying(OK)) as port:
        await run.check(Http("localhost", port, "/"), TIMEOUT_S)
        before, namespace = held(), os.readlink("/proc/thread-self/ns/net")
        for _ in range(20):
            assert (await run.check(Http("localhost", port, "/"), TIMEOUT_S)).passed
            assert not (await run.check(Tcp(1), TIMEOUT_S)).passed
        assert os.readlink("/proc/thread-self/ns/net") == namespace
        await until(lambda: not opened_since(before))  # the server's own ends stay open for a moment more
    assert _children(run.pid) == []


# --- files -----------------------------------------------------------------------------------------------------------


async def test_a_file_of_the_container_exists(made: Containers) -> None:
    run = await made.start(
        "sh", "-c", "mkdir /run; touch /run/up; ln -s / /run/root; ln -s /nowhere /run/gone; echo made; sleep 1000"
    )
    await until(lambda: b"made" in b"".join(made.written))
    assert await run.check(File("/run/up"), TIMEOUT_S) == PASSED
    assert await run.check(File("/run/gone"), TIMEOUT_S) == failed("/run/gone: no such file or directory")
    assert await run.check(File("/run/root/bin/busybox"), TIMEOUT_S) == PASSED
    assert await run.check(File("/run/none"), TIMEOUT_S) == failed("/run/none: no such file or directory")


async def test_no_path_leads_out_of_the_container(made: Containers, tmp_path: Path) -> None:
    run = await made.start()
    (tmp_path / "secret").touch()
    for path in (str(tmp_path / "secret"), f"/../../..{tmp_path}/secret", f"/proc/1/root/{tmp_path}/secret"):
        assert not (await run.check(File(path), TIMEOUT_S)).passed


# --- output ----------------------------------------------------------------------------------------------------------


async def test_the_first_line_that_matches_is_heard_once(made: Containers) -> None:
    told = Told()
    script = "echo starting; echo 'now ready' >&2; echo 'now ready'; sleep 1000"
    await made.start("sh", "-c", script, ready=Log("^now (ready|up)$"), told=told)
    await told.until(Notice(ready=True))
    await until(lambda: b"".join(made.written).count(b"now ready\n") == 2)
    assert told.notices == [Notice(ready=True)]


async def test_a_last_line_without_a_newline_is_heard_before_the_end(made: Containers) -> None:
    told = Told()
    run = await made.start("sh", "-c", "printf 'no\\nready'", ready=Log("^ready$"), told=told)
    await made.finish(run)
    assert told.notices == [Notice(ready=True)]


async def test_a_pattern_does_not_match_over_lines(made: Containers) -> None:
    told = Told()
    run = await made.start("sh", "-c", "echo one; echo two", ready=Log(r"one\stwo"), told=told)
    await made.finish(run)
    assert told.notices == []


async def test_as_a_health_check_some_line_must_have_matched_since_the_last(made: Containers) -> None:
    probe = Log("^alive")
    run = await made.start("sh", "-c", "echo alive; sleep 1000", health=probe)
    await until(lambda: made.written != [])
    assert await run.check(probe, TIMEOUT_S) == PASSED
    assert await run.check(probe, TIMEOUT_S) == failed("no line matched")


async def test_the_last_lines_are_kept(made: Containers) -> None:
    run = await made.start("sh", "-c", "seq 5000; printf 'caf\\303\\251 \\377\\n' >&2; printf last; exit 1")
    await made.finish(run)
    tail = run.tail()
    assert len(tail) == 10
    assert {"5000", "café \\xff", "last"} <= set(tail)


async def test_an_endless_line_leaves_a_short_tail(made: Containers) -> None:
    run = await made.start("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x")
    await made.finish(run)
    assert 0 < sum(map(len, run.tail())) <= 2048


async def test_a_silent_run_has_no_tail(made: Containers) -> None:
    run = await made.start("true")
    await made.finish(run)
    assert run.tail() == ()


# --- the kernel's own troubles ---------------------------------------------------------------------------------------


async def test_why_a_run_does_not_end_is_told(made: Containers) -> None:
    run = await made.start()
    await until(lambda: run.hang().startswith("state S"))
    await made.end(run)
    assert run.hang() == "state unknown"


async def test_a_launcher_that_hangs_is_replaced_and_others_go_on(
    made: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await made.start()
    (stuck,) = made.runner._means.pool.pids
    os.kill(stuck, signal.SIGSTOP)
    monkeypatch.setattr(launchers, "ANSWER_S", 2.0)  # the check that is called off gives it up after that, too
    with anyio.fail_after(PATIENCE_S):
        assert not (await first.check(Exec(("true",)), 0.05)).passed  # its time is over before anybody is given up
        with pytest.raises(LaunchError, match=r"has not answered for 2 s"):
            await made.start("true")
        monkeypatch.undo()
        run = await made.start("true")
        await made.end(run)
        assert await first.check(Exec(("true",)), TIMEOUT_S) == PASSED
    assert stuck not in made.runner._means.pool.pids


@contextmanager
def few_descriptors() -> Iterator[list[int]]:
    """None is left to open, nor spare; each that is closed gives room for one."""
    spare, spawn.DESCRIPTORS_SPARE = spawn.DESCRIPTORS_SPARE, 0
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    held: list[int] = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield held
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        spawn.DESCRIPTORS_SPARE = spare


async def test_without_descriptors_starts_and_checks_fail_in_order(made: Containers) -> None:
    run = await made.start(init=True, network=Network.NONE)
    started = passed = 0
    with few_descriptors() as held:
        for _ in range(16):
            with suppress(LaunchError):
                await made.end(await made.start(notify=True))
                started += 1
            for probe in (sh("true & true"), Tcp(9), File("/bin")):
                passed += (await run.check(probe, TIMEOUT_S)).passed
            os.close(held.pop())
    assert 0 < started < 16
    assert 0 < passed < 32
    await settled(run, 2)


async def test_without_descriptors_a_frozen_run_is_killed_as_soon_as_there_are_some(made: Containers) -> None:
    run = await made.start("sh", "-c", "sleep 1000 & echo up; wait")
    if run._cgroup is None:
        pytest.skip("no cgroups here")
    run.freeze()
    with few_descriptors():
        run.signal(signal.SIGKILL)
    await made.finish(run)


async def test_output_that_can_not_be_watched_is_no_start(made: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held()
    output = made.runner._output
    assert output is not None
    add, calls = output.add, count()

    def full(channel: _Channel) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "no room")
        add(channel)

    monkeypatch.setattr(output, "add", full)
    with pytest.raises(LaunchError, match="make its pipes"):
        await made.start()
    assert opened_since(before) == {}
    assert output._channels == {}


async def test_a_check_costs_about_a_start_less_the_mounts(made: Containers) -> None:
    run = await made.start()
    times = []
    for _ in range(50):
        began = time.perf_counter()
        assert (await run.check(Exec(("true",)), TIMEOUT_S)).passed
        times.append(time.perf_counter() - began)
    assert sorted(times)[5] < 0.05  # the others may have waited for a processor


async def test_a_launcher_that_dies_while_there_are_no_descriptors_is_replaced_once_there_are(
    made: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def spawn(state: str) -> Launcher:
        nonlocal tries
        tries += 1
        return launcher_spawn(state)

    launcher_spawn = Launcher.spawn
    monkeypatch.setattr(Launcher, "spawn", spawn)
    run = await made.start()
    (victim,) = made.runner._means.pool.pids
    os.kill(victim, signal.SIGKILL)
    with few_descriptors() as held:
        os.close(held.pop())  # enough to look for strays, not for a socket pair
        await until(lambda: tries > 1)
        assert made.runner._means.pool.pids == [victim]
    await made.end(await made.start())
    assert victim not in made.runner._means.pool.pids
    await made.end(run)


async def test_descriptors_that_stay_away_are_the_end_in_one_line(
    made: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "SCARCE_S", 0.1)
    with few_descriptors(), pytest.raises(LaunchError, match=r"no launcher could be started for 0\.1 s: too many open"):
        await launchers._when_not_scarce(lambda: Launcher.spawn(str(made.state)))
