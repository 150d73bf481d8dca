"""The commands of an operator against stacks that run: `pysup up`, its control socket, and real containers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cgroups import HOST
from command import ENVIRONMENT, Ended, Live, Pysup, script
from screen import at_terminal, is_at_work
from waiting import PATIENCE_S, until

pytestmark = pytest.mark.kernel

WAITING = "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done"


@dataclass(frozen=True)
class Operator:
    """Somebody with a stack."""

    pysup: Pysup
    run: Path

    def __call__(self, *words: str, stdin: bytes = b"") -> Ended:
        done = subprocess.run(
            self.argv(*words),
            cwd=self.pysup.directory,
            env={**ENVIRONMENT, "PYSUP_RUN": str(self.run)},
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "supervisor", *words]

    @contextmanager
    def up(self, name: str = "stack", cmd: str = WAITING) -> Iterator[Live]:
        """A stack of db, and two of web; in the foreground, so that it ends with the test."""
        entry = {"image": "busybox", "cmd": script(cmd), "stop_grace_s": 5}
        containers = [{"id": "db", **entry}, {"id": "web", "replicas": 2, "depends_on": ["db"], **entry}]
        path = self.pysup.directory / f"{name}.json"
        path.write_text(json.dumps({"name": name, "containers": containers}))
        with self.pysup.live("up", "--run", str(self.run), str(path)) as live:
            live.sees("all 3 containers are up")
            for each in ("db    |", "web.1 |", "web.2 |"):
                live.sees(f"{each} up")
            yield live

    def statuses(self) -> dict[str, str]:
        return {each["id"]: each["state"] for each in json.loads(self("ps", "-a", "--json").out)}


@pytest.fixture
def operator(pysup: Pysup) -> Iterator[Operator]:
    """His sockets are in a place with a short name."""
    run = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    yield Operator(pysup, run)
    shutil.rmtree(run, ignore_errors=True)  # the last supervisor has removed it


def test_what_is_stopped_stays_stopped_and_starts_again(operator: Operator) -> None:
    with operator.up():
        assert operator("stop", "web.1").out == "web.1\n"
        assert operator.statuses() == {"db": "running", "web.1": "exited", "web.2": "running"}
        assert operator("start", "web.1").out == "web.1\n"
        assert operator("restart", "db").out == "db\n"
        assert set(operator.statuses().values()) == {"running"}
        assert operator("kill", "web.2").out == "web.2\n"
        assert operator("wait", "web.2") == Ended(137, "137\n")


def test_a_paused_one_is_not_looked_at_and_can_be_stopped(operator: Operator) -> None:
    """It says nothing while it is paused, for as long as twice over would have made it unhealthy."""
    often = {"interval_s": 0.2, "start_interval_s": 0.2, "start_period_s": 0}
    ticking = "trap 'exit 0' TERM; while :; do echo tick; sleep 0.05; done"
    entry = {"image": "busybox", "cmd": script(ticking), "stop_grace_s": 5, "logs": {"driver": "none"}}
    web = {"id": "web", "health": {"log": "tick", "retries": 8, **often}, **entry}
    db = {"id": "db", "health": {"log": "tock", "retries": 16, "on_unhealthy": "ignore", **often}, **entry}
    path = operator.pysup.directory / "stack.json"
    path.write_text(json.dumps({"name": "stack", "containers": [web, db]}))
    with operator.pysup.live("up", "--run", str(operator.run), str(path)) as live:
        live.sees("web: healthy")
        assert operator("pause", "web").out == "web\n"
        assert operator.statuses() == {"web": "paused", "db": "running"}
        assert "web is paused: unpause it\n" in operator("start", "web").err
        assert operator("restart", "db").status == 0
        live.sees("db: unhealthy", after="db: stopping")
        assert operator.statuses() == {"web": "paused", "db": "running"}
        assert operator("stop", "web").out == "web\n"
        assert operator("wait", "web") == Ended(0, "0\n")
        assert "web: unhealthy" not in live.text


@pytest.mark.skipif(HOST.processes is None, reason="no writable cgroups")
def test_what_others_have_frozen_is_not_taken_for_ill(operator: Operator) -> None:
    often = {"interval_s": 0.1, "start_interval_s": 0.1, "start_period_s": 0, "timeout_s": 0.5, "retries": 1}
    web = {"id": "web", "image": "busybox", "cmd": script(WAITING), "health": {"exec": ["true"], **often}}
    path = operator.pysup.directory / "stack.json"
    path.write_text(json.dumps({"name": "stack", "containers": [web]}))
    with operator.pysup.live("up", "--run", str(operator.run), str(path)) as live:
        live.sees("web: healthy")
        [pid] = [each["pid"] for each in json.loads(operator("ps", "--json").out)]
        freeze(pid, frozen=True)
        live.sees("web: frozen by others")
        assert operator.statuses() == {"web": "paused"}
        freeze(pid, frozen=False)
        live.sees("web: goes on")
        assert operator.statuses() == {"web": "running"}
        freeze(pid, frozen=True)
        live.sees("web: frozen by others", after="web: goes on")
        assert operator("stop", "web").status == 0
        assert "unhealthy" not in live.text


def freeze(pid: int, *, frozen: bool) -> None:
    """As somebody does who knows nothing of us."""
    assert HOST.processes is not None
    places = (Path(place) for place, _, _ in os.walk(HOST.processes.own))
    place = next(place for place in places if holds(place, pid))
    if HOST.processes.version == 2:
        (place / "cgroup.freeze").write_text(str(int(frozen)))
    else:
        (place / "freezer.state").write_text("FROZEN" if frozen else "THAWED")


def holds(place: Path, pid: int) -> bool:
    try:
        return str(pid) in (place / "cgroup.procs").read_text().split()
    except OSError:  # it has just gone
        return False


def test_commands_run_inside(operator: Operator) -> None:
    with operator.up():
        assert operator("exec", "web.2", "sh", "-c", "hostname; cat; exit 3", stdin=b"x\n") == Ended(3, "web.2\nx\n")
        ended = operator("exec", "-e", "A=1", "-w", "/tmp", "-u", "12:34", "web.1", "sh", "-c", "echo $A; pwd; id -u")
        assert ended.out.split() == ["1", "/tmp", "12"]
        assert operator("exec", "web.1", "nonesuch").status == 127
        (operator.pysup.directory / "file").write_text("data")
        assert operator("cp", "file", "web.1:/tmp/copied") == Ended(0, "")
        assert operator("exec", "web.1", "cat", "/tmp/copied").out == "data"
        assert operator("cp", "web.1:/tmp/copied", "back") == Ended(0, "")
        assert (operator.pysup.directory / "back").read_text() == "data"
        # A whole root: the kernel's files, of which some can't be read, are not the container's.
        assert operator("cp", "web.1:/", "all") == Ended(0, "")
        assert (operator.pysup.directory / "all/tmp/copied").read_text() == "data"
        assert [list((operator.pysup.directory / "all" / name).iterdir()) for name in ("proc", "sys")] == [[], []]


def test_a_shell_inside(operator: Operator) -> None:
    with (
        operator.up(),
        at_terminal(
            operator.argv("exec", "web.1", "sh"), operator.pysup.directory, PYSUP_RUN=str(operator.run)
        ) as screen,
    ):
        screen.sees("# ")
        is_at_work(screen)


def test_logs_and_processes(operator: Operator) -> None:
    with operator.up():
        assert sorted(operator("logs").out.splitlines()) == ["db    | up", "web.1 | up", "web.2 | up"]
        found = json.loads(operator("top", "--json", "db").out)
        assert any("echo up" in each["CMD"] for each in found["db"])
        assert "all 3 containers are up" in operator("events", "--no-follow").out


def test_down_ends_a_stack(operator: Operator) -> None:
    with operator.up() as stack:
        assert operator("down") == Ended(0, "")
        assert stack.process.wait(PATIENCE_S) == 0
        assert operator("down").complaint.startswith("which stack? no stack runs")
        assert operator.pysup.left() == []


def test_who_listens_to_events_hears_the_end_and_ends_well(operator: Operator) -> None:
    with operator.up() as stack:
        words = operator.argv("events", "--since", "1m")
        environment = {**ENVIRONMENT, "PYSUP_RUN": str(operator.run)}
        with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listener:
            assert listener.stdout is not None
            while b"all 3 containers are up" not in listener.stdout.readline():
                pass
            assert operator("down") == Ended(0, "")
            assert stack.process.wait(PATIENCE_S) == 0
            said, complained = listener.communicate(timeout=PATIENCE_S)
    assert (listener.returncode, complained) == (0, b"")
    assert b"db: stopped" in said


@pytest.mark.parametrize("words", [("stats", "--json"), ("attach", "--no-stdin", "db")], ids=lambda words: words[0])
def test_who_watches_a_stack_ends_well_with_it(operator: Operator, words: tuple[str, ...]) -> None:
    environment = {**ENVIRONMENT, "PYSUP_RUN": str(operator.run)}
    cmd = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; echo more; done"
    with operator.up(cmd=cmd) as stack:
        watcher = subprocess.Popen(
            operator.argv(*words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with watcher:
            assert watcher.stdout is not None
            watcher.stdout.readline()
            assert operator("down", "-t", "5") == Ended(0, "")
            assert stack.ends() == 0
            _, complained = watcher.communicate(timeout=PATIENCE_S)
    assert complained == b""
    if words[0] == "stats":
        assert watcher.returncode == 0


def test_who_asks_twice_does_not_kill(operator: Operator) -> None:
    with operator.up(cmd="trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.1; done") as stack:
        both = [
            subprocess.Popen(operator.argv("down"), env={**ENVIRONMENT, "PYSUP_RUN": str(operator.run)})
            for _ in range(2)
        ]
        assert [each.wait(PATIENCE_S) for each in both] == [0, 0]
        assert stack.ends() == 0


def test_down_kills_what_does_not_stop(operator: Operator) -> None:
    with operator.up(cmd="trap '' TERM; echo up; while :; do sleep 1; done") as stack:
        assert operator("down", "-t", "0.1") == Ended(0, "")
        assert stack.ends() == 1
        assert operator.pysup.left() == []


def test_down_ends_all_stacks(operator: Operator) -> None:
    with ExitStack() as stacks:
        both = [stacks.enter_context(operator.up(name)) for name in ("one", "two")]
        assert operator("down").complaint == "which stack? running: one, two; name one with --stack"
        assert operator("down", "--all") == Ended(0, "")
        assert [stack.process.wait(PATIENCE_S) for stack in both] == [0, 0]


def test_down_ends_a_stack_without_its_socket(operator: Operator) -> None:
    with operator.up() as stack:
        os.unlink(operator.run / "stack/pysup.sock")
        assert operator("down", "--state", str(operator.pysup.state)) == Ended(0, "")
        assert stack.process.wait(PATIENCE_S) == 0


def test_the_environment_names_the_state_directory_for_every_command(operator: Operator) -> None:
    home = replace(operator.pysup, directory=operator.run)  # a short path: a socket's may have 107 bytes
    path = home.stack({"id": "c", "cmd": script(WAITING)})

    def at_home(*words: str) -> Ended:
        return home(*words, PYSUP_STATE=str(home.state))

    with home.live("up", path) as live:
        live.sees("all containers are up")
        assert at_home("ps", "-a", "-q").out == "c\n"
        until((home.state / "stacks/stack/logs/c/0.log").exists)
    assert at_home("ps", "-a", "-q") == Ended(0, "")
    assert "| up" in at_home("logs").out


def test_a_killed_supervisor_leaves_no_stack_to_ask(operator: Operator) -> None:
    with operator.up() as stack:
        stack.signal(signal.SIGKILL)
        stack.process.wait(PATIENCE_S)
        assert operator("ps", "-q") == Ended(0, "")
        assert operator("logs").complaint.startswith("which stack? no stack runs")
