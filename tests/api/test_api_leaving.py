"""A stack that ends: whoever is told something by its socket then is told the rest, in good order."""

import json
import shutil
import socket
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
from served import Stage
from waiting import until

from supervisor.api import limits
from supervisor.errors import StackError

LIMIT_S = 20


def until_gone(stage: Stage) -> None:
    until(lambda: not stage.socket.exists())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is cut off: a stream that has no end of its own is waited for until the test fails."""
    monkeypatch.setattr(limits, "FAREWELL_S", 2.0 * LIMIT_S)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("path", ["/events", "/pysup/events"])
def test_events_are_told_to_the_last(stage: Stage, path: str) -> None:
    with stage.client.request("GET", path, {"since": "1"}) as reply:
        for name in ("web.1", "web.2"):
            stage.do(stage.commands.end, name, 0)
        stage.end()
        told = [json.loads(line) for line in reply.lines()]  # an error if it broke off
    assert [each.get("event", each.get("status")) for each in told] in (["exited"] * 2, ["die"] * 2)
    until_gone(stage)


@pytest.mark.usefixtures("patient")
def test_stats_end(stage: Stage) -> None:
    with stage.client.request("GET", "/containers/web.1/stats", {}) as reply:
        lines = reply.lines()
        next(lines)
        stage.end()
        assert [json.loads(line)["name"] for line in lines] in ([], ["/web.1"])


@pytest.mark.usefixtures("patient")
def test_who_waits_is_told_that_it_will_not_come(stage: Stage) -> None:
    with stage.client.request("POST", "/containers/web.1/wait", {"condition": "removed"}) as reply:
        stage.end()
        assert reply.data() == {"StatusCode": -1, "Error": {"Message": "the stack demo has ended"}}


@pytest.mark.usefixtures("patient")
def test_an_attach_ends(engine: docker.DockerClient, stage: Stage) -> None:
    pieces = engine.containers.get("web.1").attach(stream=True)
    stage.end()
    assert list(pieces) == []


@pytest.mark.usefixtures("patient")
def test_one_who_asks_nothing_is_not_waited_for(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as idle:
        for line in (silent, idle):
            line.settimeout(LIMIT_S)
            line.connect(str(stage.socket))
        idle.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\nOK"):
            answer += idle.recv(1 << 16)
        stage.end()
        assert (silent.recv(1), idle.recv(1)) == (b"", b"")


def test_one_who_does_not_read_is_not_waited_for_long(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FAREWELL_S", 0.05)
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(stage.socket))
        line.sendall(b"GET /events?since=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2 * limits.HAPPENINGS_KEPT):
            stage.do(stage.commands.tell, "started", "web.1", pid=1)
        stage.end()
        until_gone(stage)


@pytest.mark.usefixtures("patient")
def test_many_are_seen_off(stage: Stage) -> None:
    def listen(ready: Callable[[], None]) -> int:
        with stage.client.request("GET", "/events", {}) as reply:
            ready()
            return len(list(reply.lines()))

    with ThreadPoolExecutor(100) as pool:
        count: list[None] = []
        listeners = [pool.submit(listen, lambda: count.append(None)) for _ in range(100)]
        while len(count) < len(listeners):
            time.sleep(0.005)
        stage.do(stage.commands.end, "web.1", 0)
        stage.end()
        assert {each.result(LIMIT_S) for each in listeners} == {1}
    until_gone(stage)
    with pytest.raises(StackError, match="no supervisor listens"):
        stage.client.get("/_ping")


@pytest.mark.parametrize("directory", [False, True])
def test_a_socket_that_was_taken_away_is_made_again(stage: Stage, directory: bool) -> None:
    followed = stage.client.request("GET", "/events", {})
    for _ in range(3):
        if directory:
            away = stage.socket.parent.rename(stage.socket.parent.with_name(f"{stage.socket.parent.name}-away"))
            shutil.rmtree(away)
        else:
            stage.socket.unlink()
        until(lambda: stage.socket.exists() and stage.client.answers())
        assert stat.S_IMODE(stage.socket.stat().st_mode) == 0o600
    followed.close()  # who was connected still is


def test_a_socket_that_cannot_be_made_again_is_told(stage: Stage) -> None:
    place = stage.socket.parent
    away = place.rename(place.with_name(f"{place.name}-away"))
    place.write_text("in the way")
    until(lambda: stage.complaints)
    place.unlink()
    away.rename(place)
    stage.socket.unlink()
    assert "can't be made again" in stage.complaints.pop()
