"""The commands of an operator, against a served control socket and a stack that is not there."""

import io
import json
import os
import shutil
import signal
import stat
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from command import ENVIRONMENT, Ended, Live
from fake_commands import view
from screen import at_terminal, is_at_work
from served import Stage, populated
from waiting import PATIENCE_S, until

from runtime.idmap import Extent, Ids
from supervisor.api.server import serve
from supervisor.api.shelf import Folders
from supervisor.cli import stacks
from supervisor.core.states import HealthStatus, Phase
from supervisor.logs.policy import Driver, LogPolicy
from supervisor.streams.lines import Stream

START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def run() -> Iterator[Path]:
    """Where the sockets are; short, as a socket's path must be."""
    path = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@contextmanager
def served(run: Path, name: str) -> Iterator[Stage]:
    """A stack called `name`."""
    place = run / name
    place.mkdir()
    with start_blocking_portal("asyncio") as portal:
        commands = portal.call(populated, place)
        commands.name = name
        leave = portal.call(anyio.Event)
        stage = Stage(portal, commands, place / stacks.SOCKET, place / "root", place / "images", leave)
        arguments = (stage.socket, commands, Folders([stage.images]), stage.complaints.append)
        future, _ = portal.start_task(partial(serve, *arguments, leave=leave))
        try:
            yield stage
        finally:
            future.cancel()
    assert stage.complaints == []


@pytest.fixture
def stage(run: Path) -> Iterator[Stage]:
    with served(run, "demo") as stage:
        yield stage


def argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "supervisor", *words]


Pysup = Callable[..., Ended]


@pytest.fixture
def pysup(run: Path, tmp_path: Path) -> Pysup:
    """Run a command to its end."""

    def ended(*words: str, stdin: bytes = b"") -> Ended:
        done = subprocess.run(
            argv(*words),
            cwd=tmp_path,
            env={**ENVIRONMENT, "PYSUP_RUN": str(run)},
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    return ended


@pytest.fixture
def live(run: Path, tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Start a command, which has ended afterwards, whatever happens."""
    with ExitStack() as exits:

        def begun(*words: str) -> Live:
            process = subprocess.Popen(
                argv(*words),
                cwd=tmp_path,
                env={**ENVIRONMENT, "PYSUP_RUN": str(run)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            exits.enter_context(process)
            exits.callback(process.kill)
            return Live(process)

        yield begun


def asked(stage: Stage, verb: str) -> list[tuple[object, ...]]:
    return [each for each in stage.commands.asked if each[0] == verb]


# --- which stack, which containers -----------------------------------------------------------------------------------


def test_without_a_stack_it_is_said_that_none_runs_and_where_one_may(run: Path, pysup: Pysup) -> None:
    none = f"no stack runs with its socket in {run}; after `up --state DIR` give --state DIR here, too"
    assert pysup("stop") == Ended(125, "", f"pysup: which stack? {none}\n")
    assert pysup("down", "-s", "nope") == Ended(125, "", f"pysup: stack nope does not run; {none}\n")
    assert pysup("ps").out.split() == ["NAME", "IMAGE", "COMMAND", "CREATED", "STATUS"]


def test_of_several_stacks_one_is_to_be_named(run: Path, stage: Stage, pysup: Pysup) -> None:
    with served(run, "other") as other:
        assert pysup("stop", "job").complaint == "which stack? running: demo, other; name one with --stack"
        assert pysup("stop", "-s", "nope").complaint == "stack nope does not run; running: demo, other"
        assert pysup("stop", "-s", "other", "web.1").out == "web.1\n"
        assert (len(asked(other, "stop")), asked(stage, "stop")) == (1, [])
        lines = pysup("ps").out.splitlines()
        assert [line.split()[0] for line in lines] == ["STACK", *["demo"] * 3, *["other"] * 2]


@pytest.mark.usefixtures("stage")
def test_a_state_directory_leads_to_its_stacks(run: Path, pysup: Pysup, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/run").symlink_to(run)
    for words in (("ps", "-q"), ("stop",)):
        assert "term\n" in pysup(*words, "--state", str(tmp_path / "state")).out
        assert "term\n" not in pysup(*words, "--state", str(tmp_path)).out


@pytest.mark.parametrize("words", [("ps",), ("ps", "-s", "demo"), ("stop", "web.1"), ("down",)])
def test_who_may_not_ask_a_stack_is_told_so(run: Path, stage: Stage, words: tuple[str, ...]) -> None:
    (run / "demo").chmod(0o700)
    run.chmod(0o755)
    begin = (  # with all that is needed, as nobody may read it later
        "import difflib, os, sys; from supervisor.cli import down, life, main, ps\n"
        f"os.setgroups([]); os.setresuid(65534, 65534, 65534); sys.argv = {['pysup', *words]}\n"
        "main.run()"
    )
    environment = {**ENVIRONMENT, "PYSUP_RUN": str(run)}
    done = subprocess.run(
        [sys.executable, "-c", begin], env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (f"pysup: {run}/demo/pysup.sock: permission denied: use sudo, or `pysup up --socket-group`\n")
    assert asked(stage, "stop") == []


def test_a_stack_is_known_by_its_file(stage: Stage, pysup: Pysup, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('{"name": "demo", "containers": [{"id": "a", "image": "b", "cmd": "c"}]}')
    assert pysup("ps", "-q", "-f", "a.yaml").out.split() == ["web.1", "web.2", "term"]
    assert stage.commands.name == "demo"


def test_a_socket_where_nobody_listens_is_no_stack(run: Path, stage: Stage, pysup: Pysup) -> None:
    (run / "dead").mkdir()
    os.mknod(run / "dead" / stacks.SOCKET, 0o140600)
    assert pysup("stop", "web.1").out == "web.1\n"
    assert len(pysup("ps", "-q").out.split()) == 2
    assert pysup("ps", "-s", "dead").complaint == "stack dead does not run; running: demo"
    assert stage.complaints == []


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("words", [("ps",), ("ps", "-a"), ("events", "--no-follow"), ("logs",)])
def test_a_locale_without_the_characters_gets_others(run: Path, words: tuple[str, ...]) -> None:
    environment = {**ENVIRONMENT, "PYSUP_RUN": str(run), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(argv(*words), env=environment, capture_output=True, check=False, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("words", [("ps",), ("ps", "--json"), ("inspect",)])
def test_what_can_not_be_written_is_one_line(run: Path, words: tuple[str, ...]) -> None:
    environment = {**ENVIRONMENT, "PYSUP_RUN": str(run)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            argv(*words), env=environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=PATIENCE_S
        )
    assert done.returncode == 125
    assert done.stderr == b"pysup: no space left to write to: is the device full that standard output goes to?\n"


LISTED: list[dict[str, object]] = [{"id": name, "group": name.split(".")[0], "key": key} for name, key in
          [("web.1", "aa1"), ("web.2", "aa2"), ("webdb", "b"), ("db", "c")]]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), ["web.1", "web.2", "webdb", "db"]),
        (("web.2",), ["web.2"]),
        (("web",), ["web.1", "web.2"]),
        (("webd",), ["webdb"]),
        (("d", "db"), ["db"]),
        (("aa1",), ["web.1"]),
    ],
)
def test_containers_are_named_by_id_group_or_beginning(words: tuple[str, ...], found: list[str]) -> None:
    assert [each["id"] for each in stacks.selected(LISTED, words)] == found


def test_all_words_that_name_nothing_are_told() -> None:
    with pytest.raises(stacks.NotThereError) as told:
        stacks.selected(LISTED, ("nope", "we", ""))
    assert str(told.value).splitlines() == [
        "nope: no such container; there are web.1, web.2, webdb, db",
        "we is ambiguous: web.1, web.2, webdb",
        "'': no such container; there are web.1, web.2, webdb, db",
    ]


def test_a_word_that_is_nearly_a_containers_is_told_whose() -> None:
    for word, meant in (("wbe", "web"), ("web.3", "web.2"), ("WEBDB", "webdb")):
        with pytest.raises(stacks.NotThereError, match=rf"; did you mean {meant}\?$"):
            stacks.selected(LISTED, (word,))


def test_of_a_long_word_the_beginning_is_told() -> None:
    with pytest.raises(stacks.NotThereError, match=f"^{'y' * 60}…: no such container"):
        stacks.selected(LISTED, ("y" * 5000,))


# --- ps --------------------------------------------------------------------------------------------------------------


def test_ps_shows_statuses_as_docker_does(stage: Stage, pysup: Pysup) -> None:
    stage.do(stage.commands.put, "web.1", health=HealthStatus.HEALTHY, started_at=time.time() - 185)
    stage.do(stage.commands.put, "web.2", phase=Phase.BACKOFF, exit_status=1, finished_at=time.time() - 5, restarts=4)
    lines = {line.split()[0]: line for line in pysup("ps", "-a").out.splitlines()[1:]}
    assert lines["web.1"].endswith("Up 3 minutes (healthy)")
    assert "Restarting (1) " in lines["web.2"]
    assert lines["web.2"].endswith("restarts: 4")
    assert "Exited (3) " in lines["job"]
    assert lines["late"].endswith("Waiting for dependencies")


def test_ps_shows_ids_where_a_container_has_its_own(stage: Stage, pysup: Pysup) -> None:
    assert "USERNS" not in pysup("ps").out
    stage.do(stage.commands.put, "web.2", ids=Ids((Extent(0, 700_000, 2000),), (Extent(0, 800_000, 2000),)))
    head, first, second, *_ = pysup("ps").out.splitlines()
    assert (head.split()[4], "   host   " in first, "0:700000:2000 0:800000:2000" in second) == ("USERNS", True, True)
    assert pysup("ps", "--format", "{{.Userns}}").out.split("\n")[:2] == ["", "0:700000:2000 0:800000:2000"]


@pytest.mark.parametrize("quick", [True, False])  # past the parser, or by it: `-qa` is one word too many for the former
def test_ps_for_programs(stage: Stage, pysup: Pysup, *, quick: bool) -> None:
    everything = ("-a",) if quick else ("--stack=demo", "-a")
    assert stage.commands.name == "demo"
    assert pysup("ps", "-q", *everything).out.split() == ["web.1", "web.2", "job", "late", "term"]
    found = {each["id"]: each for each in json.loads(pysup("ps", "--json", *everything).out)}
    assert (found["job"]["state"], found["job"]["exit_code"], found["late"]["phase"]) == ("exited", 3, "waiting")
    shown = pysup("ps", "--format", "{{.Name}}/{{ .ExitCode }}", *everything).out
    assert shown.splitlines()[2] == "job/3"
    lines = pysup("ps", "--format", r"table {{.Name}}\t{{.State}}", *everything).out.splitlines()
    assert lines[:2] == ["NAME    STATE", "web.1   running"]
    assert "there is no field Nope" in pysup("ps", "--format", "{{.Nope}}", *everything).err


def test_ps_shows_no_escape_sequence(stage: Stage, pysup: Pysup) -> None:
    stage.do(stage.commands.known.update, {"odd": view("odd\x1b[2J")})
    assert "\x1b" not in pysup("ps").out


ROUNDS = 4


def best_s(*words: str, run: Path) -> float:
    def once() -> float:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, *words], env={**os.environ, "PYSUP_RUN": str(run)}, capture_output=True, check=True
        )
        return time.perf_counter() - begun

    once()
    return statistics.median(sorted(once() for _ in range(9))[:5])


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (1000, 10)])
def test_ps_is_quick(stage: Stage, run: Path, count: int, limit: int) -> None:
    for number in range(count):
        stage.do(stage.commands.known.update, {f"c.{number}": view(f"c.{number}")})

    def ratio() -> float:
        return best_s("-m", "supervisor", "ps", "-a", run=run) / best_s("-c", "pass", run=run)

    # Others may have the processors for a while; `make bench` measures.
    assert any(ratio() < limit * 1.5 for _ in range(ROUNDS))


def test_ps_loads_no_parser(stage: Stage, run: Path) -> None:
    code = "import sys; sys.argv = ['pysup', 'ps']; from supervisor.__main__ import main; main(); print(*sys.modules)"
    environment = {**ENVIRONMENT, "PYSUP_RUN": str(run)}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert {"click", "rich", "pydantic", "yaml", "anyio", "dataclasses"} & set(shown.stdout.split()) == set()
    assert stage.complaints == []


# --- up and down -----------------------------------------------------------------------------------------------------


def test_stop_and_start(stage: Stage, pysup: Pysup) -> None:
    assert pysup("stop", "-t", "3", "web").out.split() == ["web.2", "web.1"]
    assert {each[1:] for each in asked(stage, "stop")} == {("web.1", 3.0), ("web.2", 3.0)}
    assert pysup("start").out.split() == ["web.1", "web.2", "job", "late"]
    assert pysup("restart", "job").out == "job\n"


def test_kill_sends_what_is_said(stage: Stage, pysup: Pysup) -> None:
    assert pysup("kill", "-s", "USR1", "web.1").out == "web.1\n"
    assert asked(stage, "kill") == [("kill", "web.1", signal.SIGUSR1)]


def test_kill_without_a_signal_s_name_kills_nobody(stage: Stage, pysup: Pysup) -> None:
    assert pysup("kill", "-s", "", "web.1").complaint.startswith("invalid value for '-s' / '--signal': it is empty")
    assert asked(stage, "kill") == []


def test_scale_takes_one_number_for_each(stage: Stage, pysup: Pysup) -> None:
    assert pysup("scale", "web=2", "web=3").complaint == "web is given two numbers, 2 and 3"
    assert asked(stage, "scale") == []


def test_errors_of_all_are_told_and_what_could_be_done_is_done(stage: Stage, pysup: Pysup) -> None:
    ended = pysup("pause", "web.1", "job", "late")
    assert (ended.status, ended.out) == (1, "web.1\n")
    assert ended.err.splitlines() == ["pysup: container job is not running", "pysup: container late is not running"]
    assert pysup("unpause").out == "web.1\n"
    assert stage.complaints == []


def test_wait_prints_statuses_and_exits_with_the_first_failure(stage: Stage, pysup: Pysup) -> None:
    assert pysup("wait", "job") == Ended(3, "3\n")
    assert pysup("wait", "--json", "job") == Ended(3, '{"job": 3}\n')
    assert stage.complaints == []


# --- logs and events -------------------------------------------------------------------------------------------------


def write(stage: Stage, name: str, number: int, text: bytes, stream: Stream = Stream.STDOUT, **more: bool) -> None:
    def work() -> None:
        stage.commands.write(name, stream, text, at_ns=START_NS + number * 10**9, **more)

    stage.do(work)


def test_logs_are_merged_by_time(stage: Stage, pysup: Pysup) -> None:
    for number in range(6):
        write(
            stage, f"web.{number % 2 + 1}", number, b"line %d" % number, Stream.STDERR if number == 5 else Stream.STDOUT
        )
    assert pysup("logs", "web").out.splitlines() == [
        "web.1 | line 0", "web.2 | line 1", "web.1 | line 2", "web.2 | line 3", "web.1 | line 4", "web.2 ! line 5",
    ]  # fmt: skip
    assert pysup("logs", "-n", "1", "web.1").out == "web.1 | line 4\n"
    assert pysup("logs", "-t", "--no-log-prefix", "-n", "1", "web.2").out == "2023-11-14T22:13:25.000Z line 5\n"
    assert pysup("logs", "--since", "2023-11-14T22:13:24Z").out.count("\n") == 2
    assert pysup("logs", "-n", "many").status == 125


def test_a_line_that_was_cut_is_marked_or_whole(stage: Stage, pysup: Pysup) -> None:
    write(stage, "web.1", 0, b"begin", partial=True)
    write(stage, "web.1", 1, b"end")
    assert pysup("logs").out == "web.1 | begin\nweb.1 + end\n"
    assert pysup("logs", "--no-log-prefix").out == "beginend\n"


def test_logs_say_what_was_dropped_and_leave_out_what_keeps_none(stage: Stage, pysup: Pysup) -> None:
    stage.commands.known["web.1"] = replace(stage.commands.known["web.1"], lines_dropped=7)
    stage.commands.known["web.2"] = replace(stage.commands.known["web.2"], logs=LogPolicy(Driver.NONE))
    stage.do(stage.commands.write, "web.1", Stream.STDOUT, b"line")
    ended = pysup("logs")
    assert ended.out == "web.1 | line\n"
    assert ended.err == "pysup: web.1: 7 lines were dropped since the stack was started: its log could not keep up\n"
    assert "does not support reading: that of web.2 is none" in pysup("logs", "web.2").err


def test_logs_of_a_terminal(stage: Stage, pysup: Pysup) -> None:
    write(stage, "term", 0, b"prompt")
    assert pysup("logs", "term").out == "term  | prompt\n"


def test_logs_of_many_lines_of_many_containers(stage: Stage, pysup: Pysup) -> None:
    def fill() -> None:
        for number in range(30):
            stage.commands.known[f"c.{number}"] = view(f"c.{number}")
            for line in range(300):
                stage.commands.write(f"c.{number}", Stream.STDOUT, b"%d" % line, at_ns=START_NS + line * 1000 + number)

    stage.do(fill)
    lines = pysup("logs", "c").out.splitlines()
    assert [line.split()[2] for line in lines] == [str(number) for number in range(300) for _ in range(30)]


def test_logs_follow(stage: Stage, live: Callable[..., Live]) -> None:
    write(stage, "web.1", 2, b"second")
    write(stage, "web.2", 1, b"first")
    shown = live("logs", "-f")
    shown.sees("second")
    assert shown.lines == ["web.2 | first", "web.1 | second"]
    write(stage, "web.2", 0, b"late, and shown")
    shown.sees("web.2 | late, and shown")
    shown.signal(signal.SIGINT)
    assert shown.ends() == 130


def test_a_reader_who_leaves_is_told_nothing(stage: Stage, run: Path) -> None:
    for number in range(20_000):
        stage.commands.write("web.1", Stream.STDOUT, b"x" * 100, at_ns=START_NS + number)
    command = f"{sys.executable} -m supervisor logs; echo status $? >&2"
    shown = subprocess.run(
        ["sh", "-c", f"({command}) | head -n 1"],
        env={**ENVIRONMENT, "PYSUP_RUN": str(run)},
        capture_output=True,
        check=True,
    )
    assert (shown.stdout, shown.stderr) == (b"web.1 | " + b"x" * 100 + b"\n", b"status 1\n")


def test_events(stage: Stage, pysup: Pysup, live: Callable[..., Live]) -> None:
    assert pysup("events", "--no-follow") == Ended(0, "")
    assert stage.commands.name == "demo"
    shown = live("events", "--json", "--since", "1h", "web")
    pysup("stop", "web.1", "term")
    shown.sees('"event": "stopped", "container": "web.1"')
    assert "term" not in shown.text
    assert "web.1: stopping (SIGTERM)" in pysup("events", "--no-follow").out


# --- looking ---------------------------------------------------------------------------------------------------------


def test_inspect_by_a_template_finds_what_scripts_look_for(stage: Stage, pysup: Pysup) -> None:
    known = json.loads(pysup("inspect", "web.1").out)[0]
    assert (
        pysup("inspect", "web", "--format", "{{.Name}} {{ .State.Status }}").out == "/web.1 running\n/web.2 running\n"
    )
    assert pysup("inspect", "web.1", "--format", "{{.State.Pid}}").out == f"{known['State']['Pid']}\n"
    assert json.loads(pysup("inspect", "web.1", "--format", "{{json .Config}}").out) == known["Config"]
    assert pysup("inspect", "web.1", "--format", "{{.State.Nope}}").complaint == (
        "--format: there is no .State.Nope: `pysup inspect` shows what there is"
    )
    assert stage.complaints == []


def test_top_inspect_diff_and_stats(stage: Stage, pysup: Pysup) -> None:
    assert pysup("top", "web.1").out.splitlines()[0].split()[:3] == ["NAME", "UID", "PID"]
    assert json.loads(pysup("top", "--json", "web.1").out)["web.1"][0]["CMD"] == "sleep 1000"
    assert [each["Name"] for each in json.loads(pysup("inspect", "web").out)] == ["/web.1", "/web.2"]
    upper = stage.root.parent / "uppers/web.1"
    upper.mkdir(parents=True)
    (upper / "new").touch()
    assert pysup("diff", "web.1").out == "A /new\n"
    found = [json.loads(line) for line in pysup("stats", "--no-stream", "--json", "web").out.splitlines()]
    assert [each["name"] for each in found] == ["web.1", "web.2"]
    assert found[0]["cpu_percent"] > 0
    assert "10MiB / 64MiB" in pysup("stats", "--no-stream").out


# --- exec and attach -------------------------------------------------------------------------------------------------


def test_exec_joins_streams_and_returns_the_status(stage: Stage, pysup: Pysup) -> None:
    ended = pysup("exec", "-e", "B=2", "web.1", "sh", "-c", "cat; echo $B >&2; exit 7", stdin=b"typed\n")
    assert ended == Ended(7, "typed\n", "2\n")
    assert pysup("exec", "web.1", "sh", "-c", "kill -9 $$").status == 137
    assert stage.complaints == []


def test_exec_passes_much_through_both_ways(stage: Stage, pysup: Pysup) -> None:
    data = b"".join(b"%d\n" % number for number in range(400_000))
    assert pysup("exec", "-T", "web.1", "cat", stdin=data).out.encode() == data
    assert stage.complaints == []


@pytest.mark.usefixtures("stage")
def test_exec_of_what_is_not_there(pysup: Pysup) -> None:
    assert pysup("exec", "web.1", "nonesuch").status in {126, 127}
    assert pysup("exec", "job", "true") == Ended(125, "", "pysup: container job is not running\n")
    assert pysup("exec", "nope", "true").status == 1
    assert "-t needs a terminal" in pysup("exec", "-t", "web.1", "true").complaint


def test_exec_passes_signals_on(stage: Stage, live: Callable[..., Live]) -> None:
    shown = live("exec", "web.1", "sh", "-c", "trap 'echo heard; exit 5' INT; echo up; while :; do sleep 0.01; done")
    shown.sees("up")
    shown.signal(signal.SIGINT)
    assert shown.ends() == 5
    assert shown.lines == ["up", "heard"]
    assert stage.complaints == []


def test_exec_with_a_terminal(stage: Stage, run: Path, tmp_path: Path) -> None:
    with at_terminal(argv("exec", "web.1", "sh"), tmp_path, PYSUP_RUN=str(run)) as screen:
        screen.sees("# ")
        assert screen.is_raw
        screen.type("stty size; echo $TERM\n")
        screen.sees("24 80")
        screen.sees("xterm")
        is_at_work(screen)
    assert stage.complaints == []


def test_attach_types_to_a_container_and_leaves_by_its_keys(stage: Stage, run: Path, tmp_path: Path) -> None:
    assert stage.commands.known["term"].tty
    with at_terminal(argv("attach", "term", "--detach-keys", "ctrl-a,q"), tmp_path, PYSUP_RUN=str(run)) as screen:
        until(lambda: ("resize", "term", 24, 80) in stage.commands.asked)
        screen.type("hello")
        screen.sees("hello")
        screen.type("\x01q")
        assert screen.ends() == 0
        assert screen.settings() == screen.settings_before


def test_attach_to_one_that_does_not_run_says_so_and_is_left_by_one_signal(
    stage: Stage, live: Callable[..., Live]
) -> None:
    assert stage.commands.known["job"].pid is None
    waiting = live("attach", "job")
    waiting.sees("job does not run: its next start is waited for, Ctrl-C leaves")
    waiting.signal(signal.SIGINT)
    assert waiting.ends() == 130


def test_attach_without_a_terminal(stage: Stage, live: Callable[..., Live]) -> None:
    shown = live("attach", "web.1")
    until(lambda: "web.1" in stage.commands.echoes)
    stage.do(stage.commands.echoes["web.1"].say, Stream.STDERR, b"said\n")
    shown.sees("said")
    stage.do(stage.commands.put, "web.1", phase=Phase.EXITED, exit_status=9, finished_at=time.time(), wanted_up=False)
    stage.portal.call(stage.commands.echoes["web.1"].send_eof)
    assert shown.ends() == 9


# --- cp --------------------------------------------------------------------------------------------------------------


def test_cp_both_ways(stage: Stage, pysup: Pysup, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("data")
    assert pysup("cp", "tree", "web.1:/") == Ended(0, "")
    assert pysup("cp", "tree", "web.1:/tree") == Ended(0, "")
    assert (stage.root / "tree/tree/sub/file").read_text() == "data"
    assert pysup("cp", "tree/sub/file", "web.1:/other") == Ended(0, "")
    assert (stage.root / "other").read_text() == "data"
    assert pysup("cp", "tree/.", "web.1:/tree/sub") == Ended(0, "")
    assert (stage.root / "tree/sub/sub/file").read_text() == "data"
    assert pysup("cp", "web.1:/other", "back") == Ended(0, "")
    assert (tmp_path / "back").read_text() == "data"
    (tmp_path / "there").mkdir()
    assert pysup("cp", "web.1:/tree", "there") == Ended(0, "")
    assert (tmp_path / "there/tree/sub/file").read_text() == "data"
    assert pysup("cp", "web.1:/tree/.", "new") == Ended(0, "")
    assert (tmp_path / "new/sub/file").read_text() == "data"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "new", "there", "tree"]


def test_cp_of_tar_streams(stage: Stage, pysup: Pysup) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    assert pysup("cp", "-", "web.1:/", stdin=made.getvalue()) == Ended(0, "")
    assert (stage.root / "empty").stat().st_size == 0
    assert "empty" in pysup("cp", "web.1:/empty", "-").out


def test_what_cp_brings_out_has_no_privileges_here_unless_that_is_asked_for(
    stage: Stage, pysup: Pysup, tmp_path: Path
) -> None:
    """A container's root could make a program that anybody on this machine may run as its owner, which is us."""
    made = stage.root / "made"
    made.mkdir()
    made.chmod(0o3775)
    (made / "program").touch()
    (made / "program").chmod(0o6755)
    os.setxattr(made / "program", "security.capability", CAP_SYS_ADMIN)
    os.mknod(made / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert pysup("cp", "web.1:/made", "out") == Ended(0, "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["program"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o3775
    assert stat.S_IMODE((tmp_path / "out/program").stat().st_mode) == 0o755
    assert os.listxattr(tmp_path / "out/program") == []
    assert "zero is a device: --archive" in pysup("cp", "web.1:/made/zero", "zero").complaint
    assert pysup("cp", "-a", "web.1:/made", "whole") == Ended(0, "")
    assert stat.S_IMODE((tmp_path / "whole/program").stat().st_mode) == 0o6755
    assert os.listxattr(tmp_path / "whole/program") == ["security.capability"]
    assert (tmp_path / "whole/zero").is_char_device()


def test_what_a_container_has_named_commands_no_terminal(stage: Stage, pysup: Pysup, tmp_path: Path) -> None:
    name = "a\x1b]0;title\x07"
    (stage.root / "made").mkdir()
    (stage.root / "made" / name).touch()
    (tmp_path / "there/made" / name).mkdir(parents=True)
    complaint = pysup("cp", "web.1:/made", "there").complaint
    assert "made/a\\x1b]0;title\\x07: cannot overwrite directory" in complaint


CAP_SYS_ADMIN = struct.pack("<5I", 0x0200_0001, 1 << 21, 0, 0, 0)  # struct vfs_cap_data, effective


def test_cp_says_what_is_wrong(stage: Stage, pysup: Pysup) -> None:
    assert "no such file" in pysup("cp", "nope", "web.1:/").complaint
    assert pysup("cp", "web.1:/nope", ".").status == 125
    assert "one of SRC and DST" in pysup("cp", "a", "b").complaint
    (stage.root / "plain").write_text("")
    assert "Not a directory" in pysup("cp", "/etc/hostname", "web.1:/plain/below").complaint
    assert "job is not running" in pysup("cp", "/etc/hostname", "job:/").complaint
    assert "there is no such directory" in pysup("cp", "/etc/hostname", "web.1:/nope/").complaint
    assert stage.complaints == []


# --- down, completion ------------------------------------------------------------------------------------------------


def test_ids_complete(stage: Stage, run: Path) -> None:
    words = {"_PYSUP_COMPLETE": "bash_complete", "COMP_WORDS": "pysup stop we", "COMP_CWORD": "2"}
    environment = {**ENVIRONMENT, "PYSUP_RUN": str(run), **words}
    call = "import sys; sys.argv = ['pysup']; from supervisor.__main__ import main; main()"
    shown = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["plain,web", "plain,web.1", "plain,web.2"]
    assert stage.complaints == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(pysup: Pysup, shell: str) -> None:
    assert f"_PYSUP_COMPLETE={shell}_complete" in pysup("completion", shell).out
