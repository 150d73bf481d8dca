"""What a caller can do to the control socket, on purpose or not: others are served all the while."""

import json
import os
import re
import select
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from descriptors import held, opened_since
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Stage
from waiting import until

from supervisor.api import limits
from supervisor.api.routes import OFFERED
from supervisor.api.wire import listening
from supervisor.client import Client
from supervisor.errors import CommandError, StackError

CALLERS = 200


def connected(stage: Stage) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    found.connect(str(stage.socket))
    found.settimeout(20)
    return found


def everything(line: socket.socket) -> bytes:
    """To the end, which may come as a reset."""
    data = b""
    try:
        while piece := line.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def said(stage: Stage, data: bytes) -> bytes:
    """What is answered to some bytes, after which the caller says no more."""
    with connected(stage) as line:
        try:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
        except OSError:  # it has been refused already
            pass
        return everything(line)


# --- who may connect -------------------------------------------------------------------------------------------------


def test_only_the_owner_may_connect(stage: Stage) -> None:
    assert stat.S_IMODE(stage.socket.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_a_group_may_connect_too(place: Path) -> None:
    path = place / "group.sock"
    with listening(path, 12):
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, 12)
    assert not path.exists()


def test_a_dead_supervisors_socket_is_replaced(place: Path) -> None:
    path = place / "old.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    with listening(path), socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))


def test_a_file_in_the_way_is_not_removed(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"precious")
    with pytest.raises(StackError, match="can't be made"), listening(path):
        pass
    assert path.read_bytes() == b"precious"


def test_a_path_that_is_too_long_is_named(place: Path) -> None:
    with pytest.raises(StackError, match="too long for the path of a socket"), listening(place / ("x" * 100)):
        pass


# --- what is no request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (limits.HEAD_MAX_BYTES + 10), 431),
        (b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n{\xff}}", 400),
        (b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n[]", 400),
        (b"POST /containers/create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{}", 400),
        (b"BREW /containers/json HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /containers/%ff%00/json HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)
def test_what_makes_no_sense_is_refused(stage: Stage, data: bytes, status: int) -> None:
    answer = said(stage, data)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b'{"message":"' in answer


def test_a_huge_body_is_refused_before_it_is_read(stage: Stage) -> None:
    with connected(stage) as line:
        line.sendall(b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        try:
            for _ in range(2 * limits.BODY_MAX_BYTES // 65536):
                line.sendall(b" " * 65536)
        except OSError:
            pass
        assert everything(line).startswith(b"HTTP/1.1 413 ")


def test_a_half_closed_request_is_answered(stage: Stage) -> None:
    answer = said(stage, b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"OK")


def test_requests_are_answered_in_their_order(stage: Stage) -> None:
    one = b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n"
    two = b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n"
    answers = said(stage, one + two + one)
    assert [part[:4] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200 ", b"404 ", b"200 "]


def test_a_caller_of_http_1_0_is_served(stage: Stage) -> None:
    assert said(stage, b"GET /_ping HTTP/1.0\r\n\r\n").endswith(b"OK")
    assert b"Transfer-Encoding" not in said(stage, b"GET /events?until=1 HTTP/1.0\r\n\r\n")


def test_a_caller_who_waits_for_100_is_told_to_go_on(stage: Stage) -> None:
    with connected(stage) as line:
        head = b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        line.sendall(head)
        assert line.recv(1000).startswith(b"HTTP/1.1 100 ")
        line.sendall(b"{}")
        assert line.recv(1000).startswith(b"HTTP/1.1 400 ")


FIELDS = (  # of bodies
    "Cmd Env Labels Memory MemorySwap NanoCpus CpuQuota CpuPeriod CpuShares CpusetCpus PidsLimit RestartPolicy Name "
    "MaximumRetryCount Binds Mounts Tmpfs Ulimits Sysctls ExtraHosts Dns Devices PortBindings NetworkMode LogConfig "
    "SecurityOpt UsernsMode ShmSize CapAdd Driver DriverOpts scales dry_run Tty User ConsoleSize Entrypoint Volumes "
    "BlkioDeviceReadBps NetworkingConfig EndpointsConfig ExposedPorts StopTimeout StopSignal".split()
)
FILTERS = (
    "ancestor before exited expose health id isolation label network publish since status volume name dangling "
    "driver scope type reference until all label!".split()
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
PARTS = st.sampled_from(
    ["containers", "web.1", "json", "exec", "start", "images", "%2e%2e", "v1.43", "events", "x", ""]
)
QUERIES = st.sampled_from(
    [
        "",
        "?all=1",
        "?filters={}",
        "?filters=%7B%22id%22%3A3%7D",
        "?tail=-1",
        "?t=x",
        "?path=%00",
        "?until=1",
        "?&&=",
        "?h=1",
    ]
)
HEADERS = st.sampled_from(
    ["", "Upgrade: tcp\r\nConnection: Upgrade\r\n", "Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n", "X\r\n"]
)


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    path = "/".join(draw(st.lists(PARTS, max_size=5)))
    head = f"{draw(METHODS)} /{path}{draw(QUERIES)} HTTP/1.1\r\nHost: a\r\n{draw(HEADERS)}\r\n".encode()
    return head + draw(st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"null", b'{"Cmd":[]}']))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), nearly_requests()))
def test_nothing_that_is_sent_is_a_fault_of_ours(stage: Stage, data: bytes) -> None:
    answer = said(stage, data)
    assert b"internal error" not in answer
    assert b"HTTP/1.1 500" not in answer
    assert stage.complaints == []


ENDLESS = {"events", "attach", "stats", "wait", "down", "start", "logs"}  # they are for as long as both sides like
CALLS = [route for route in OFFERED if route.template.rpartition("/")[2] not in ENDLESS]
WORDS = st.sampled_from(["", "0", "-1", "x", "true", "back", "base", "job", "web.1", "a/b", "\0", "ü\udcff", "9" * 30])
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda below: st.one_of(
        st.lists(below, max_size=3), st.dictionaries(st.one_of(WORDS, st.sampled_from(FIELDS)), below, max_size=3)
    ),
    max_leaves=8,
)
QUERY_NAMES = st.sampled_from(
    "all size limit filters since until tail t signal condition h w path name force v repo tag fromSrc type".split()
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_that_a_call_is_given_is_a_fault_of_ours(stage: Stage, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(CALLS))
    path = re.sub(r"\{[^}]*\}", lambda _: quote(data.draw(WORDS), errors="surrogateescape"), route.template)
    values = st.one_of(WORDS, st.dictionaries(st.sampled_from(FILTERS), JUNK, max_size=3).map(json.dumps))
    query = urlencode(data.draw(st.dictionaries(QUERY_NAMES, values, max_size=4)), errors="surrogateescape")
    known = st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=5)
    body = json.dumps(data.draw(st.one_of(known, known.map(lambda host: {"HostConfig": host, "Image": "base"}), JUNK)))
    head = f"{route.method} /v1.43{path}?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    answer = said(stage, head.encode("ascii"))
    assert b"internal error" not in answer
    assert b"HTTP/1.1 500" not in answer
    assert stage.complaints == []


# --- slow, many, gone ------------------------------------------------------------------------------------------------


def test_a_head_that_trickles_in_is_cut_off(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 0.2)
    with connected(stage) as line:
        line.sendall(b"GET /_ping HTTP/1.1\r\n")
        assert everything(line).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_stalls_is_cut_off(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.2)
    with connected(stage) as line:
        line.sendall(b"POST /containers/create HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{")
        assert everything(line).startswith(b"HTTP/1.1 408 ")


def test_an_archive_that_stalls_is_cut_off(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.2)
    with connected(stage) as line:
        line.sendall(b"PUT /containers/web.1/archive?path=/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
        line.sendall(b"\0" * 100)
        assert everything(line).startswith(b"HTTP/1.1 408 ")


def test_an_archive_that_breaks_off_is_no_archive(stage: Stage) -> None:
    with connected(stage) as line:
        line.sendall(b"PUT /containers/web.1/archive?path=/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
    assert stage.client.get("/containers/json")


def test_an_idle_connection_is_closed_without_a_word(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDLE_S", 0.1)
    with connected(stage) as line:
        assert everything(line) == b""


def test_a_caller_who_does_not_take_his_answer_is_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_S", 0.2)
    with connected(stage) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            while True:  # ask, and never listen: until he has had enough of us
                line.sendall(b"GET /info HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        except OSError:
            pass
    assert stage.client.get("/containers/json")


def test_200_callers_at_once_are_all_served(stage: Stage) -> None:
    lines = [connected(stage) for _ in range(CALLERS)]
    for line in lines:
        line.sendall(b"GET /containers/json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert all(everything(line).startswith(b"HTTP/1.1 200 OK") for line in lines)
    for line in lines:
        line.close()


def test_200_callers_who_say_nothing_or_half_hold_nobody_up(stage: Stage) -> None:
    lines = [connected(stage) for _ in range(CALLERS)]
    for line in lines[::2]:
        line.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n")
    start = time.monotonic()
    for _ in range(20):
        assert stage.client.get("/containers/json")
    assert time.monotonic() - start < limits.HEAD_S  # those who say half are not waited for
    for line in lines:
        line.close()


def test_200_listeners_who_do_not_read_hold_nobody_up(stage: Stage) -> None:
    lines = [connected(stage) for _ in range(CALLERS)]
    for line in lines:
        line.sendall(b"GET /pysup/events HTTP/1.1\r\nHost: a\r\n\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 200 OK")
    for number in range(300):
        stage.do(stage.commands.tell, "status", "web.1", number=number, padding="x" * 4000)
    assert stage.client.get("/containers/json")
    for line in lines:
        line.close()


def test_one_connection_too_many_is_told_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 2)
    lines = [connected(stage) for _ in range(2)]
    for line in lines:
        line.sendall(b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 200 ")
    with pytest.raises(CommandError, match="there are 2 connections already"):
        stage.client.get("/containers/json")
    for line in lines:
        line.close()
    end = time.monotonic() + 20
    while True:
        try:
            assert stage.client.get("/containers/json")
            break
        except CommandError:
            assert time.monotonic() < end


def test_callers_who_go_at_any_moment_leave_nothing(stage: Stage) -> None:
    calls = [
        b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /containers/web.1/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /containers/web.1/wait HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /containers/web.1/stats HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /containers/web.1/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /contain",
        b"",
    ]
    before = held()
    for call in calls * 5:
        with connected(stage) as line:
            line.sendall(call)
    until(lambda: len(opened_since(before)) <= 2)  # a loop may open some of its own
    stage.client.get("/containers/json")


# --- our own client --------------------------------------------------------------------------------------------------


@contextmanager
def answering(path: Path, *pieces: bytes) -> Iterator[str]:
    """A server that sends these to the first caller, one after another, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as line, suppress(OSError):
                line.recv(10000)
                for piece in pieces:
                    line.sendall(piece)
                    select.select([], [], [], 0.01)

        server = threading.Thread(target=serve)
        server.start()
        yield str(path)
        server.join()


def test_no_supervisor_is_an_error_that_says_so(place: Path) -> None:
    with pytest.raises(StackError, match="no supervisor listens there: the stack does not run"):
        Client(str(place / "nothing.sock")).get("/_ping")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "broke off"),
        (b"SSH-2.0\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (100 << 10), "too long a head"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nabc", "answered 500"),
    ],
)
def test_a_server_that_makes_no_sense_is_an_error(place: Path, answer: bytes, error: str) -> None:
    with answering(place / "odd.sock", answer) as path, pytest.raises(CommandError, match=error):
        Client(path).get("/x")


def test_a_head_in_pieces_is_read_to_its_end_only(place: Path) -> None:
    pieces = (b"HTTP/1.1 101 U\r", b"\nA: b\r\n\r", b"\nrest")
    with answering(place / "slow.sock", *pieces) as path, Client(path).hijack("/x") as line:
        assert line.recv(100) == b"rest"


def test_the_client_loads_little() -> None:
    import subprocess
    import sys

    code = "import sys; before = set(sys.modules); import supervisor.client; print(*set(sys.modules) - before)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"anyio", "h11", "email", "http.client", "ssl", "yaml", "pydantic"} & set(shown.split())
