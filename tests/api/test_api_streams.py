"""What flows: logs, attach, exec, stats."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from fake_commands import Echo, view
from served import Stage
from waiting import until

from supervisor.api import limits
from supervisor.api.keys import Watch, sequence
from supervisor.client import frames
from supervisor.commands import Execution
from supervisor.errors import CommandError
from supervisor.logs.policy import Driver, LogPolicy
from supervisor.network.ends import Connections, End
from supervisor.streams.lines import Stream

SECOND_NS = 1_000_000_000
MUCH = 3 << 20


# --- logs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(stage: Stage) -> Stage:
    write = stage.commands.write
    stage.do(write, "web.1", Stream.STDOUT, b"one", at_ns=1 * SECOND_NS + 5)
    stage.do(write, "web.1", Stream.STDERR, b"two", at_ns=2 * SECOND_NS)
    stage.do(write, "web.1", Stream.STDOUT, b"thr", at_ns=3 * SECOND_NS, partial=True)
    stage.do(write, "web.1", Stream.STDOUT, b"ee", at_ns=4 * SECOND_NS)
    return stage


@pytest.mark.usefixtures("written")
def test_logs_of_both_streams(engine: docker.DockerClient) -> None:
    assert engine.containers.get("web.1").logs() == b"one\ntwo\nthree\n"


def test_logs_of_one_stream(engine: docker.DockerClient, written: Stage) -> None:
    assert engine.containers.get("web.1").logs(stdout=False) == b"two\n"
    assert engine.containers.get("web.1").logs(stderr=False) == b"one\nthree\n"
    with pytest.raises(CommandError, match="you must choose at least one stream"):
        written.client.get("/containers/web.1/logs")


@pytest.mark.usefixtures("written")
def test_logs_with_times_stamp_a_line_once(engine: docker.DockerClient) -> None:
    assert engine.containers.get("web.1").logs(timestamps=True) == (
        b"1970-01-01T00:00:01.000000005Z one\n"
        b"1970-01-01T00:00:02.000000000Z two\n"
        b"1970-01-01T00:00:03.000000000Z three\n"
    )


def test_logs_of_some_lines(engine: docker.DockerClient, written: Stage) -> None:
    container = engine.containers.get("web.1")
    container.logs(tail=2, since=1, until=1.5)
    asked: list[object] = [("logs", "web.1", False, 1.0, 1.5, 2)]
    assert written.commands.asked[-1:] == asked
    with written.client.request(
        "GET", "/containers/web.1/logs", {"stdout": 1, "since": "1970-01-01T00:00:02Z"}
    ) as reply:
        assert list(reply.frames()) == [(1, b"thr"), (1, b"ee\n")]
    assert written.commands.asked[-1] == ("logs", "web.1", False, 2.0, None, None)


def test_logs_that_are_not_kept_are_refused_in_dockers_words(engine: docker.DockerClient, stage: Stage) -> None:
    stage.commands.known["mute"] = view("mute", logs=LogPolicy(Driver.NONE))
    with pytest.raises(docker.errors.APIError, match="configured logging driver does not support reading") as refused:
        engine.containers.get("mute").logs()
    assert refused.value.status_code == 501


def test_logs_of_a_terminal_have_no_frames(engine: docker.DockerClient, stage: Stage) -> None:
    stage.do(stage.commands.write, "term", Stream.STDOUT, b"$ ls\r")
    assert engine.containers.get("term").logs() == b"$ ls\r\n"


def test_logs_are_followed_to_the_end(engine: docker.DockerClient, written: Stage) -> None:
    found = []
    for line in engine.containers.get("web.1").logs(stream=True, follow=True, tail=1):
        found.append(line)
        if len(found) == 1:
            written.do(written.commands.write, "web.1", Stream.STDERR, b"more")
        elif len(found) == 2:
            written.do(written.commands.end, "web.1", 0)
    assert found == [b"ee\n", b"more\n"]


def test_who_stops_following_is_forgotten(stage: Stage) -> None:
    reply = stage.client.request("GET", "/containers/web.1/logs", {"stdout": 1, "follow": 1})
    tasks = stage.do(_served, stage)
    reply.close()
    until(lambda: stage.do(_served, stage) < tasks)


def _served(_stage: Stage) -> int:
    import gc

    from supervisor.api.wire import Wire

    return sum(isinstance(each, Wire) and each._socket.fileno() >= 0 for each in gc.get_objects())


def test_a_reader_who_pauses_holds_the_writer_up_and_nobody_else(stage: Stage) -> None:
    line = b"x" * 60_000
    for _ in range(200):
        stage.commands.lines.setdefault("web.1", []).append(_line(line))
    with stage.client.request("GET", "/containers/web.1/logs", {"stdout": 1}) as reply:
        for _ in range(20):
            assert stage.client.get("/containers/json")
        got = sum(len(data) for _, data in reply.frames())
    assert got == 200 * (len(line) + 1)


def _line(text: bytes) -> Any:
    from supervisor.commands import LogLine

    return LogLine(0, Stream.STDOUT, text)


# --- attach ----------------------------------------------------------------------------------------------------------


def attached(stage: Stage, name: str, **query: object) -> socket.socket:
    found = stage.client.hijack(f"/containers/{name}/attach", **query)
    found.settimeout(20)
    return found


@pytest.fixture
def _speaks(stage: Stage) -> None:
    echo = stage.do(Echo)
    stage.commands.echoes["web.1"] = echo
    stage.do(echo.say, Stream.STDOUT, b"out")


@pytest.mark.usefixtures("_speaks")
def test_attach_by_docker_py(engine: docker.DockerClient, stage: Stage) -> None:
    pieces = engine.containers.get("web.1").attach(stream=True, demux=True)
    assert next(pieces) == (b"out", None)
    stage.do(stage.commands.end, "web.1", 0)
    assert list(pieces) == []
    pieces.close()


@pytest.mark.usefixtures("_speaks")
def test_attach_frames_both_streams(stage: Stage) -> None:
    with attached(stage, "web.1", stream=1, stdout=1, stderr=1) as line:
        assert line.recv(100) == b"\x01\0\0\0\0\0\0\x03out"
        stage.do(stage.commands.echoes["web.1"].say, Stream.STDERR, b"err")
        assert line.recv(100) == b"\x02\0\0\0\0\0\0\x03err"
        stage.do(stage.commands.end, "web.1", 0)
        assert line.recv(100) == b""


def test_attach_shows_the_past_first(written: Stage) -> None:
    written.do(written.commands.end, "web.1", 0)
    with attached(written, "web.1", logs=1, stdout=1, stderr=1) as line:
        data = b"".join(iter(lambda: line.recv(1000), b""))
    assert b"".join(text for _, text in frames([data])) == b"one\ntwo\nthree\n"


def test_attach_types_into_a_terminal(stage: Stage) -> None:
    with attached(stage, "term", stream=1, stdin=1, stdout=1) as line:
        line.sendall(b"ls\n")
        assert line.recv(100) == b"ls\n"
        assert stage.commands.echoes["term"].heard == b"ls\n"
        line.shutdown(socket.SHUT_WR)  # the end of input is not the end of output
        assert line.recv(100) == b""


def test_attach_is_left_by_its_keys(stage: Stage) -> None:
    with attached(stage, "term", stream=1, stdin=1, stdout=1, detachKeys="ctrl-a,q") as line:
        line.sendall(b"ls\x01")
        line.sendall(b"q")
        assert b"".join(iter(lambda: line.recv(100), b"")) == b"ls"
    until(lambda: ("detached", "term") in stage.commands.asked)
    assert not stage.commands.echoes["term"].over


def test_attach_without_an_upgrade_is_a_plain_answer(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(stage.socket))
        line.sendall(b"POST /containers/term/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\nahead")
        data = b""
        while not data.endswith(b"ahead"):
            data += line.recv(1000)
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: application/vnd.docker.raw-stream\r\n" in data


def test_exec_without_an_upgrade_is_a_plain_answer(stage: Stage) -> None:
    key = stage.client.post("/containers/web.1/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True})["Id"]
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(stage.socket))
        line.sendall(f"POST /exec/{key}/start HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        data = b""
        while piece := line.recv(1000):
            data += piece
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b"\x01\0\0\0\0\0\0\x03hi\n")


@pytest.mark.parametrize(("version", "kind"), [("1.41", "raw"), ("1.42", "multiplexed")])
def test_attach_names_its_frames_since_1_42(stage: Stage, version: str, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(stage.socket))
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
        path = f"/v{version}/containers/web.1/attach?stream=1&stdout=1"
        line.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode())
        data = line.recv(1000)
    assert data.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert f"application/vnd.docker.{kind}-stream".encode() in data


def test_attach_to_nothing(stage: Stage) -> None:
    with pytest.raises(CommandError, match="you must choose at least one stream"):
        stage.client.hijack("/containers/web.1/attach", stream=1)
    with pytest.raises(CommandError, match="No such container: nobody"):
        stage.client.hijack("/containers/nobody/attach", stream=1, stdout=1)
    with pytest.raises(CommandError, match="detachKeys: unknown character"):
        stage.client.hijack("/containers/term/attach", stream=1, stdout=1, detachKeys="ctrl-ü")


def test_attach_of_one_who_vanishes_ends(stage: Stage) -> None:
    attached(stage, "web.1", stream=1, stdout=1).close()
    until(lambda: ("detached", "web.1") in stage.commands.asked)


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys"), [("", b"\x10\x11"), ("ctrl-a", b"\x01"), ("a,ctrl-[", b"a\x1b"), ("ctrl-@,ctrl-_", b"\0\x1f")]
)
def test_keys_are_dockers(text: str, keys: bytes) -> None:
    assert sequence(text) == keys


def test_keys_are_found_however_they_are_cut() -> None:
    watch = Watch(b"\x10\x11")
    assert watch.feed(b"a\x10") == (b"a", False)
    assert watch.feed(b"\x10") == (b"\x10", False)
    assert watch.feed(b"b") == (b"\x10b", False)
    assert watch.feed(b"\x10") == (b"", False)
    assert watch.feed(b"\x11c") == (b"", True)


# --- exec ------------------------------------------------------------------------------------------------------------


def test_exec_returns_output_and_status(engine: docker.DockerClient) -> None:
    found = engine.containers.get("web.1").exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
    assert (found.exit_code, found.output) == (3, (b"out\n", b"err\n"))


def test_exec_asks_for_what_was_said(engine: docker.DockerClient, stage: Stage) -> None:
    container = engine.containers.get("web.1")
    found = container.exec_run("env", environment={"A": "b c"}, user="1", workdir="/tmp", privileged=True, stdin=False)
    assert b"A=b c\n" in found.output
    _, _, execution, stdin = stage.commands.asked[-1]
    assert isinstance(execution, Execution)
    assert (execution.user, execution.workdir, execution.privileged, stdin) == ("1", "/tmp", True, False)


def test_exec_shows_only_what_is_asked_for(engine: docker.DockerClient) -> None:
    container = engine.containers.get("web.1")
    assert container.exec_run(["sh", "-c", "echo out; echo err >&2"], stdout=False).output == b"err\n"


def test_exec_in_a_terminal(engine: docker.DockerClient) -> None:
    found = engine.containers.get("web.1").exec_run(["sh", "-c", "tty >/dev/null && echo yes"], tty=True)
    assert (found.exit_code, found.output) == (0, b"yes\r\n")


def started(stage: Stage, *argv: str, **body: object) -> tuple[str, socket.socket]:
    wanted = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Cmd": argv, **body}
    key = stage.client.post("/containers/web.1/exec", wanted)["Id"]
    line = stage.client.hijack(f"/exec/{key}/start", {"Tty": body.get("Tty", False)})
    line.settimeout(20)
    return key, line


def everything(line: socket.socket) -> bytes:
    return b"".join(iter(lambda: line.recv(1 << 16), b""))


def test_exec_reads_input_to_its_end(stage: Stage) -> None:
    key, line = started(stage, "cat")
    data = os.urandom(MUCH)

    def write() -> None:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    found = everything(line)
    writer.join()
    line.close()
    assert b"".join(text for _, text in frames([found])) == data
    assert stage.client.get(f"/exec/{key}/json")["ExitCode"] == 0


def test_exec_sends_all_to_a_slow_reader(stage: Stage) -> None:
    _, line = started(stage, "head", "-c", str(MUCH), "/dev/zero")
    until(lambda: stage.commands.executed[0].popen is not None)
    for _ in range(20):
        assert stage.client.get("/containers/json")  # others are served meanwhile
    assert sum(len(text) for _, text in frames([everything(line)])) == MUCH
    line.close()


def test_exec_does_not_wait_for_what_stays_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAST_WORD_S", 0.1)
    key, line = started(stage, "sh", "-c", "sleep 1000 & echo done")
    assert frames_of(line) == [(1, b"done\n")]
    line.close()
    assert stage.client.get(f"/exec/{key}/json")["Running"] is False


def frames_of(line: socket.socket) -> list[tuple[int, bytes]]:
    return list(frames([everything(line)]))


def test_exec_of_one_who_vanishes_is_ended(stage: Stage) -> None:
    key, line = started(stage, "sleep", "1000")
    line.close()
    until(lambda: stage.client.get(f"/exec/{key}/json")["ExitCode"] == 137)


def test_exec_whose_input_ends_goes_on(stage: Stage) -> None:
    _, line = started(stage, "sh", "-c", "cat; echo after")
    line.shutdown(socket.SHUT_WR)
    assert frames_of(line) == [(1, b"after\n")]
    line.close()


def test_exec_is_left_by_its_keys_and_runs_on(stage: Stage) -> None:
    key, line = started(stage, "cat", Tty=True)
    line.sendall(b"\x10\x11")
    assert everything(line) == b""
    line.close()
    assert stage.client.get(f"/exec/{key}/json")["Running"] is True
    os.kill(stage.commands.executed[0].pid, signal.SIGKILL)
    until(lambda: stage.client.get(f"/exec/{key}/json")["ExitCode"] == 137)
    until(lambda: stage.commands.executed[0].closed)


def test_exec_detached_runs_unseen(engine: docker.DockerClient, stage: Stage) -> None:
    engine.containers.get("web.1").exec_run(["sh", "-c", "head -c 1000000 /dev/zero; touch done"], detach=True)
    until((stage.root / "done").exists)
    until(lambda: stage.commands.executed[0].closed)


def test_exec_resizes_its_terminal(stage: Stage) -> None:
    body = {"AttachStdout": True, "AttachStdin": True, "Tty": True, "Cmd": ["sh", "-c", "stty size; read x; stty size"]}
    key = stage.client.post("/containers/web.1/exec", body)["Id"]
    line = stage.client.hijack(f"/exec/{key}/start", {"Tty": True, "ConsoleSize": [10, 20]})
    line.settimeout(20)
    found = b""
    while b"\n" not in found:
        found += line.recv(100)
    stage.client.post(f"/exec/{key}/resize", h=30, w=40)
    line.sendall(b"\n")
    found += everything(line)
    line.close()
    assert found.split()[-2:] == [b"30", b"40"]
    assert stage.client.get(f"/exec/{key}/json")["ExitCode"] == 0


def test_exec_that_can_not_start(engine: docker.DockerClient, stage: Stage) -> None:
    done = engine.containers.get("web.1").exec_run("/no/such")
    assert (done.exit_code, done.output) == (126, b"pysup: web.1: /no/such: No such file or directory\n")
    key = stage.client.post("/containers/web.1/exec", {"Cmd": ["/no/such"]})["Id"]
    with pytest.raises(CommandError):
        stage.client.post(f"/exec/{key}/start", {"Detach": True})
    assert stage.client.get(f"/exec/{key}/json")["ExitCode"] == 126


def test_exec_inspect(stage: Stage) -> None:
    key, line = started(stage, "cat", User="1")
    shown = stage.client.get(f"/exec/{key}/json")
    assert (shown["Running"], shown["ExitCode"], shown["OpenStdin"]) == (True, None, True)
    assert shown["ProcessConfig"]["entrypoint"] == "cat"
    assert shown["Pid"] == stage.commands.executed[0].pid
    assert stage.client.get("/containers/web.1/json")["ExecIDs"] == [key]
    line.close()
    until(lambda: stage.client.get("/containers/web.1/json")["ExecIDs"] is None)


def test_a_signal_goes_to_an_exec(stage: Stage) -> None:
    key, line = started(stage, "sleep", "1000")
    stage.client.post(f"/pysup/exec/{key}/kill", signal="TERM")
    assert everything(line) == b""
    line.close()
    assert stage.client.get(f"/exec/{key}/json")["ExitCode"] == 143
    with pytest.raises(CommandError, match="is not running"):
        stage.client.post(f"/pysup/exec/{key}/kill", signal="TERM")


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("web.1", {}, "no exec command specified"),
        ("web.1", {"Cmd": ["a"], "Env": ["x"]}, "Env: 'x' is not NAME=value"),
        ("job", {"Cmd": ["a"]}, "is not running"),
        ("nobody", {"Cmd": ["a"]}, "No such container: nobody"),
    ],
)
def test_exec_refuses_what_makes_no_sense(stage: Stage, name: str, body: object, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        stage.client.post(f"/containers/{name}/exec", body)


def test_exec_of_a_size_that_makes_no_sense_is_not_begun(stage: Stage) -> None:
    key = stage.client.post("/containers/web.1/exec", {"Cmd": ["true"], "Tty": True, "AttachStdout": True})["Id"]
    with pytest.raises(CommandError, match="a window of 70000 rows and 80 columns makes no sense"):
        stage.client.hijack(f"/exec/{key}/start", {"Tty": True, "ConsoleSize": [70000, 80]})
    assert stage.commands.executed == []
    line = stage.client.hijack(f"/exec/{key}/start", {"Tty": True, "ConsoleSize": [70, 80]})
    everything(line)
    line.close()
    assert stage.client.get(f"/exec/{key}/json")["ExitCode"] == 0


@pytest.mark.parametrize(
    "wrong", [{"Cmd": ["\ud800"]}, {"Cmd": ["a"], "User": "\udfff"}, {"Cmd": ["a"], "Env": ["A=\ud8ff"]}]
)
def test_exec_refuses_half_a_letter(stage: Stage, wrong: object) -> None:
    with pytest.raises(CommandError, match="invalid JSON: "):
        stage.client.post("/containers/web.1/exec", wrong)


def test_exec_is_started_once(stage: Stage) -> None:
    key, line = started(stage, "cat")
    with pytest.raises(CommandError, match="has already run"):
        stage.client.hijack(f"/exec/{key}/start", {})
    line.close()
    with pytest.raises(CommandError, match="No such exec instance: x"):
        stage.client.post("/exec/x/start", {})


def test_exec_in_one_that_is_paused(stage: Stage) -> None:
    stage.do(stage.commands.put, "web.1", paused=True)
    with pytest.raises(CommandError, match=r"container web\.1 is paused"):
        stage.client.post("/containers/web.1/exec", {"Cmd": ["a"]})


def test_executions_are_forgotten_oldest_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXECUTIONS_MAX", 2)
    keys = [stage.client.post("/containers/web.1/exec", {"Cmd": ["true"]})["Id"] for _ in range(3)]
    with pytest.raises(CommandError):
        stage.client.get(f"/exec/{keys[0]}/json")
    lines = [stage.client.hijack(f"/exec/{key}/start", {}) for key in keys[1:]]
    for line in lines:
        everything(line)
        line.close()
    stage.client.post("/containers/web.1/exec", {"Cmd": ["true"]})


# --- stats -----------------------------------------------------------------------------------------------------------


def test_stats_once(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATS_EVERY_S", 0.05)
    shown = engine.containers.get("web.1").stats(stream=False)
    assert shown["memory_stats"]["usage"] == 10 << 20
    assert shown["memory_stats"]["limit"] == 64 << 20
    assert shown["pids_stats"] == {"current": 3}
    assert shown["cpu_stats"]["cpu_usage"]["total_usage"] > shown["precpu_stats"]["cpu_usage"]["total_usage"] > 0
    one = engine.containers.get("web.1").stats(stream=False, one_shot=True)
    assert one["precpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_stats_count_what_goes_over_the_network(stage: Stage) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(b"hello", ("127.0.0.1", 9))
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    others = {line.partition(":")[0].strip() for line in lines} - {"lo"}
    ends = (End("back", ("10.1.0.2/24",), ("10.1.0.1/24",), "02:00:00:00:00:01", ()),)
    stage.do(stage.commands.put, "web.1", pid=os.getpid(), connections=Connections(ends))
    found = stage.client.get("/containers/web.1/stats", stream=0, **{"one-shot": 1})["networks"]
    assert found.keys() == others
    assert all(each.keys() >= {"rx_bytes", "tx_bytes", "rx_dropped", "tx_packets"} for each in found.values())
    assert stage.client.get("/containers/web.2/stats", stream=0, **{"one-shot": 1})["networks"] == {}


def test_stats_of_all_at_one_go(stage: Stage) -> None:
    found = stage.client.get("/pysup/stats")
    assert [each["name"] for each in found] == ["/web.1", "/web.2", "/term"]
    assert {each["memory_stats"]["usage"] for each in found} == {10 << 20}


def test_stats_again_and_again(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATS_EVERY_S", 0.05)
    samples = engine.containers.get("web.1").stats(decode=True)
    first, second = next(samples), next(samples)
    assert second["preread"] == first["read"]
    samples.close()


def test_stats_of_what_does_not_run(engine: docker.DockerClient) -> None:
    shown = engine.containers.get("job").stats(stream=False)
    assert (shown["memory_stats"], shown["name"]) == ({}, "/job")
