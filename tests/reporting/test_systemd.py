"""What systemd and its journal are told, over real sockets; how long a stop may take; and the unit."""

import os
import shutil
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path

import anyio
import pytest
from command import Pysup
from stage import entries, on_virtual_clock
from waiting import PATIENCE_S

from supervisor.cli.systemd import _command, _word
from supervisor.core.moves import STUCK_S
from supervisor.core.states import Phase
from supervisor.reporting.events import Events, json_events
from supervisor.reporting.journal import Journal, is_journal, message
from supervisor.reporting.systemd import RELOADED, STATUS_EVERY_S, Address, Mouth, Notifier, counts, stop_s

Words = dict[str, str]


class Systemd:
    """Its end of the notification socket, and the stack that speaks to it."""

    def __init__(self) -> None:
        self.heard: list[Words] = []
        self.emitted: list[tuple[str, str | None]] = []
        self.status = "1 running"
        self.error: OSError | None = None
        self.notifier = Notifier(self._emit, self._receive, lambda: self.status, lambda: 12.5)

    def _emit(self, event: str, container: str | None, _fields: Mapping[str, object]) -> None:
        self.emitted.append((event, container))

    def _receive(self, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.heard.append(words_of(data))


def words_of(data: bytes) -> Words:
    return dict(line.split("=", 1) for line in data.decode().splitlines())


@pytest.fixture
def systemd() -> Systemd:
    return Systemd()


# --- sd_notify --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["stack_up", "gave_up", "dependency_failed"])
def test_ready_is_said_once_when_all_is_up_or_clearly_will_not_be(systemd: Systemd, event: str) -> None:
    systemd.notifier("started", "web", {"pid": 1})
    systemd.notifier(event, None, {})
    systemd.notifier(event, None, {})
    assert systemd.heard == [{"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "1 running"}]
    assert systemd.emitted == [("started", "web"), (event, None), (event, None)]


def test_stopping_asks_for_the_time_that_it_may_take(systemd: Systemd) -> None:
    systemd.notifier("interrupted", None, {"signal": "SIGTERM"})
    systemd.notifier("stack_stopped", None, {})
    assert systemd.heard == [{"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "12500000", "STATUS": "1 running"}]


def test_a_stack_that_is_being_stopped_does_not_become_ready(systemd: Systemd) -> None:
    systemd.notifier.stopping()
    systemd.notifier("stack_up", None, {})
    assert len(systemd.heard) == 1


@pytest.mark.parametrize("end", sorted(RELOADED))
def test_a_reload_has_a_beginning_with_its_time_and_an_end(systemd: Systemd, end: str) -> None:
    for event in ("stack_up", "reloading", end):
        systemd.notifier(event, None, {})
    _, begun, over = systemd.heard
    assert begun.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert int(begun["MONOTONIC_USEC"]) > 0
    assert over == {"READY": "1", "STATUS": "1 running"}


def test_a_reload_before_all_is_up_does_not_say_that_it_is(systemd: Systemd) -> None:
    for event in ("reloading", "reloaded"):
        systemd.notifier(event, None, {})
    assert systemd.heard == []


def test_what_could_not_be_said_is_said_later_and_complained_of_once(systemd: Systemd) -> None:
    systemd.error = BlockingIOError(11, "Resource temporarily unavailable")
    systemd.notifier("stack_up", None, {})
    systemd.notifier.reloading()
    assert [event for event, _ in systemd.emitted] == ["stack_up", "systemd_deaf"]
    systemd.error = None
    systemd.notifier.reloaded()
    (words,) = systemd.heard
    assert words == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "1 running"}


def test_the_status_is_kept_true_but_not_told_more_often_than_once_in_a_while(systemd: Systemd) -> None:
    async def scenario() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(systemd.notifier.run)
            for number in range(100):
                systemd.status = f"{number} running"
                systemd.notifier("started", "web", {})
                await anyio.sleep(STATUS_EVERY_S / 25)
            await anyio.sleep(100 * STATUS_EVERY_S)
            tasks.cancel_scope.cancel()

    on_virtual_clock(scenario)
    told = [words["STATUS"] for words in systemd.heard]
    assert len(told) <= 6
    assert told[-1] == "99 running"


def test_the_watchdog_is_fed_twice_as_often_as_asked_for(systemd: Systemd) -> None:
    async def scenario() -> None:
        with anyio.move_on_after(99):
            await systemd.notifier.watch(20)

    on_virtual_clock(scenario)
    assert systemd.heard == [{"WATCHDOG": "1"}] * 10


# --- where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/run/notify"}, Address("/run/notify")),
        ({"NOTIFY_SOCKET": "@abstract"}, Address("@abstract")),
        ({"NOTIFY_SOCKET": "vsock:2:1234"}, None),
        ({"NOTIFY_SOCKET": "@"}, None),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"}, Address("/n", 30)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, Address("/n", 30)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, Address("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, Address("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, Address("/n")),
    ],
)
def test_the_environment_says_where_systemd_listens(env: Mapping[str, str], expected: Address | None) -> None:
    assert Address.of(env, 7) == expected


@contextmanager
def ear(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(10)
        yield listening


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_come_to_path_and_abstract_sockets(tmp_path: Path, *, abstract: bool) -> None:
    name = f"pysup-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with ear(f"\0{name}" if abstract else name) as listening:
        mouth = Mouth(f"@{name}" if abstract else name)
        mouth.send(b"READY=1\n")
        mouth.close()
        assert listening.recv(100) == b"READY=1\n"


def test_a_full_socket_is_no_reason_to_wait(tmp_path: Path) -> None:
    with ear(str(tmp_path / "notify")):
        mouth = Mouth(str(tmp_path / "notify"))
        with pytest.raises(BlockingIOError):
            deque(map(mouth.send, repeat(b"STATUS=x\n", 100_000)), maxlen=0)
        mouth.close()


# --- figures ----------------------------------------------------------------------------------------------------------


def test_counts_are_words() -> None:
    assert counts([]) == "no containers"
    phases = [Phase.RUNNING] * 12 + [Phase.FAILED, Phase.WAITING, Phase.ACTIVATING, Phase.EXITED]
    assert counts(phases) == "12 running, 2 starting, 1 done, 1 failed"
    assert sum(int(word) for word in counts(Phase).split() if word.isdigit()) == len(Phase)


def test_a_stop_takes_as_long_as_its_longest_chain() -> None:
    db = entries("db", stop_grace_s=30)
    web = entries("web", "db", replicas=50, stop_grace_s=5)
    proxy = entries("proxy", "web", "absent", stop_grace_s=1)
    batch = entries("batch", stop_grace_s=40)
    assert stop_s([*proxy, *web, *db, *batch]) == 30 + 5 + 1 + 3 * STUCK_S
    assert stop_s([*web, *batch]) == 40 + STUCK_S
    assert stop_s([]) == 0


# --- the unit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/plain/path-1.yaml", "/plain/path-1.yaml"),
        ("50%", "50%%"),
        ("two words", '"two words"'),
        ("$HOME", '"$$HOME"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        (";", '";"'),
        ("", '""'),
    ],
)
def test_words_reach_the_program_as_they_are(word: str, written: str) -> None:
    assert _command(["/bin/pysup", word]) == f"/bin/pysup {written}"


def test_a_programs_path_knows_no_variables() -> None:
    assert _word("/opt/$x/pysup") == '"/opt/$x/pysup"'


@pytest.fixture
def unit(pysup: Pysup) -> str:
    stack = pysup.stack(
        {"id": "db", "cmd": ["true"], "stop_grace_s": 20},
        {"id": "web", "cmd": ["true"], "depends_on": ["db"], "stop_grace_s": 5},
    )
    ended = pysup("systemd", "--images", str(pysup.images), "--state", str(pysup.state), stack)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def test_the_unit_says_what_systemd_must_know(unit: str, pysup: Pysup) -> None:
    lines = unit.splitlines()
    assert "Type=notify" in lines
    assert "KillMode=mixed" in lines
    assert "Delegate=yes" in lines
    assert f"TimeoutStopSec={20 + 5 + 2 * STUCK_S + 15:.0f}" in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert start.startswith("ExecStart=/")
    assert start.endswith(f" up --images {pysup.images} --state {pysup.state} -f {pysup.directory}/stack.yaml")


def test_systemd_takes_the_unit(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    path = tmp_path / "pysup-stack.service"
    path.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if path.name in line]) == (0, [])


def test_a_unit_is_written_into_a_directory_under_its_own_name_and_not_over_another(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": ["true"]})
    arguments = ("systemd", "--images", str(pysup.images), stack, "-o", str(pysup.directory))
    assert pysup(*arguments).status == 0
    assert (pysup.directory / "pysup-stack.service").read_text().startswith("# pysup-stack.service\n")
    assert pysup(*arguments).complaint.endswith("pysup-stack.service is there already: --force replaces it")
    assert pysup(*arguments, "--force").status == 0


def test_there_is_no_unit_for_a_stack_that_can_not_be_run(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": ["true"], "image": "absent"})
    ended = pysup("systemd", "--images", str(pysup.images), stack)
    assert (ended.status, ended.out) == (125, "")
    assert "absent" in ended.err


# --- the journal ------------------------------------------------------------------------------------------------------


def fields_of(data: bytes) -> Words:
    """A message of the native protocol, taken apart."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            data = rest
        else:
            size = int.from_bytes(rest[:8], "little")
            name, value, data = line, rest[8 : 8 + size], rest[9 + size :]
        found[name.decode()] = value.decode()
    return found


def test_an_event_has_words_for_people_and_fields_for_programs() -> None:
    fields = fields_of(message("shop", "exited", "web.1", "info", {"exit_status": 3, "ran_s": 1.5, "oom": None}))
    assert fields == {
        "MESSAGE": "web.1: exited with status 3",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "pysup",
        "PYSUP_STACK": "shop",
        "PYSUP_CONTAINER": "web.1",
        "PYSUP_EVENT": "exited",
        "PYSUP_EXIT_STATUS": "3",
        "PYSUP_RAN_S": "1.5",
    }


def test_values_of_several_lines_arrive_whole() -> None:
    lines = ("first", "PRIORITY=0", "last")
    fields = fields_of(message("shop", "gave_up", "web", "error", {"reason": "x", "last_lines": lines}))
    assert fields["PYSUP_LAST_LINES"] == "first\nPRIORITY=0\nlast"
    assert fields["PRIORITY"] == "3"


def test_a_fields_name_that_the_journal_would_refuse_is_left_out() -> None:
    fields = {"a" * 60: "x", "b=c": "x", "naïve": "x", "stack": "another"}
    names = fields_of(message("shop", "odd", None, "info", fields)).keys()
    assert names == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "PYSUP_STACK", "PYSUP_EVENT"}
    assert fields_of(message("shop", "odd", None, "info", fields))["PYSUP_STACK"] == "shop"


@pytest.fixture
def written() -> list[bytes]:
    return []


@contextmanager
def journal(path: Path, written: list[bytes]) -> Iterator[Journal]:
    made = Journal("shop", Events(written.append, json_events), path=path)
    yield made
    made.close()


def test_events_go_to_the_journal_and_not_to_the_console(tmp_path: Path, written: list[bytes]) -> None:
    path = tmp_path / "socket"
    with ear(str(path)) as listening, journal(path, written) as events:
        events.emit("starting", container="web", level="debug")
        events.emit("started", container="web", pid=7)
        assert fields_of(listening.recv(1 << 16))["MESSAGE"] == "web: started (pid 7)"
    assert written == []


def test_a_message_too_long_for_a_datagram_goes_as_a_sealed_file(tmp_path: Path, written: list[bytes]) -> None:
    path = tmp_path / "socket"
    with ear(str(path)) as listening, journal(path, written) as events:
        events.emit("gave_up", container="web", level="error", reason="r" * (4 << 20))
        data, (descriptor,), _, _ = socket.recv_fds(listening, 100, 1)
        with open(descriptor, "rb") as file:
            file.seek(0)
            assert len(fields_of(file.read())["PYSUP_REASON"]) == 4 << 20
            with pytest.raises(PermissionError):
                os.ftruncate(file.fileno(), 1 << 30)
        assert data == b""
    assert written == []


def test_what_the_journal_does_not_take_is_written_as_ever(tmp_path: Path, written: list[bytes]) -> None:
    with journal(tmp_path / "nobody", written) as events:
        events.emit("started", container="web", pid=7)
    (line,) = written
    assert b'"event":"started"' in line


def test_our_stream_is_the_journals_only_if_it_is_that_very_one(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(env, (other.fileno(), stream.fileno()))
        assert not is_journal(env, (other.fileno(),))
        assert not is_journal({}, (stream.fileno(),))
        assert not is_journal({"JOURNAL_STREAM": "junk"}, (stream.fileno(),))


# --- a stack as a service ---------------------------------------------------------------------------------------------

# /run of its own, with the journal's socket and systemd's in it; and the console's pipe for a stream of the journal.
_AS_SERVICE = """
mount -t tmpfs none /run; mkdir -p /run/systemd/journal; mount --bind "$1" /run/systemd/journal; shift
export JOURNAL_STREAM=$(stat -Lc %d:%i "/proc/$$/fd/1") NOTIFY_SOCKET=/run/systemd/journal/notify WATCHDOG_USEC=200000
exec "$@"
"""


@pytest.mark.kernel
def test_a_stack_as_a_service_tells_systemd_and_the_journal(pysup: Pysup) -> None:
    place = pysup.directory / "j"
    place.mkdir()
    stack = pysup.stack({"id": "web", "cmd": ["sh", "-c", "echo hello; exec sleep 1000"], "stop_signal": "SIGKILL"})
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _AS_SERVICE, "sh", str(place))
    with ear(str(place / "socket")) as journal, ear(str(place / "notify")) as notified:
        journal.settimeout(PATIENCE_S)
        notified.settimeout(PATIENCE_S)
        with pysup.live("up", stack, prefix=prefix) as live:
            live.sees("hello")
            words: dict[str, str] = {}
            while words.get("READY") != "1":
                words |= words_of(notified.recv(1 << 16))
            assert int(words["MAINPID"]) > 1
            assert words["STATUS"] == "1 running"
            while "WATCHDOG" not in words:
                words |= words_of(notified.recv(1 << 16))
            live.signal(signal.SIGTERM)
            while "STOPPING" not in words:
                words |= words_of(notified.recv(1 << 16))
            assert int(words["EXTEND_TIMEOUT_USEC"]) >= 10_000_000
            assert live.ends() == 0
        journal.setblocking(False)
        events = {}
        with suppress(BlockingIOError):
            while True:
                message_ = words_of(journal.recv(1 << 16))
                events[message_["PYSUP_EVENT"]] = message_
    assert live.text == "web   | hello\n"
    assert events["started"]["PYSUP_CONTAINER"] == "web"
    assert events["started"]["PYSUP_STACK"] == "stack"
    assert events["stack_stopped"]["MESSAGE"] == "stopped"
