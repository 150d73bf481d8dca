"""`pysup up` for scripts: until all is ready, until one has ended, for a part of a stack, for thousands."""

import json
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command import Ended, Pysup, script
from waiting import PATIENCE_S, until

pytestmark = pytest.mark.kernel

DB = {"id": "db", "cmd": script("sleep 0.2; touch /tmp/up; exec sleep 1000"), "ready": {"file": "/tmp/up"}}
WEB = {"id": "web", "cmd": script("echo serving; exec sleep 1000"), "depends_on": {"db": {"condition": "ready"}}}
JOB = {"id": "job", "cmd": script("sleep 0.5; exit 5"), "depends_on": ["db"]}
OTHER = {"id": "other", "cmd": ["sleep", "1000"]}
MANY = 2000

Command = Callable[..., Ended]


@pytest.fixture
def pysup_command(pysup: Pysup) -> Iterator[Command]:
    """The command, whose stacks in the background end with the test. Its sockets are in a place with a short name."""
    run = tempfile.mkdtemp(prefix="pysup-", dir="/tmp")

    def call(command: str, *arguments: str) -> Ended:
        return replace(pysup, patience_s=4 * PATIENCE_S)(command, *arguments, PYSUP_RUN=run)

    yield call
    if any(Path(run).glob("*/pysup.sock")):
        call("down", "-t", "0")
    shutil.rmtree(run, ignore_errors=True)


def stack(pysup: Pysup, *containers: object) -> str:
    return pysup.stack(*containers, init=True, network="none", stop_grace_s=5)  # type: ignore[arg-type]  # mappings


def states(command: Command) -> dict[str, str]:
    return {each["id"]: each["state"] for each in json.loads(command("ps", "-a", "--json").out)}


def test_wait_returns_when_all_is_ready_and_it_runs_on(pysup: Pysup, pysup_command: Command) -> None:
    began = time.monotonic()
    done = pysup_command("up", "--wait", stack(pysup, DB, WEB, OTHER))
    assert done.status == 0, done
    assert time.monotonic() - began > 0.2
    assert "db: ready after" in done.out
    assert "all 3 containers are up" in done.out
    assert "serving" not in done.out  # that is for `pysup logs`
    assert set(states(pysup_command).values()) == {"running"}
    assert pysup_command("down").status == 0


def test_wait_returns_when_it_is_clear_that_not_all_will_be(pysup: Pysup, pysup_command: Command) -> None:
    faulty = {**WEB, "cmd": ["false"], "ready": {"file": "/never"}}
    done = pysup_command("up", "--wait", stack(pysup, DB, faulty, OTHER))
    assert done.status == 1
    assert done.out.endswith("web: failed: exited with status 1\n")
    assert states(pysup_command) == {"db": "running", "web": "exited", "other": "running"}


@pytest.mark.parametrize(("lasts", "status"), [("0", 1), ("0.6", 1), ("0.6", 0)])
def test_wait_waits_for_a_one_shot_whoever_is_quicker(
    pysup: Pysup, pysup_command: Command, lasts: str, status: int
) -> None:
    job = {"id": "job", "cmd": script(f"sleep {lasts}; exit {status}"), "timeout_s": 60}
    done = pysup_command("up", "--wait", stack(pysup, DB, WEB, job))
    assert done.status == status, done
    assert f"job: exited with status {status}" in done.out


def test_wait_has_a_limit_and_the_stack_goes_on(pysup: Pysup, pysup_command: Command) -> None:
    late = {**DB, "cmd": ["sleep", "1000"]}
    done = pysup_command("up", "--wait", "--wait-timeout", "0.5", stack(pysup, late, WEB))
    assert done.status == 125
    assert "not all is up after 0.5 s; it goes on in the background, under pid" in done.err
    until(lambda: states(pysup_command).get("db") == "running")


def test_the_first_that_ends_ends_all_if_so_asked(pysup: Pysup) -> None:
    last = {**JOB, "depends_on": ["web"]}
    done = pysup("up", "--abort-on-exit", stack(pysup, DB, WEB, last, OTHER))
    assert done.status == 1
    assert "job: ended, so all others are stopped" in done.out
    assert done.out.index("web: stopped") < done.out.index("db: stopping")
    assert done.out.endswith("all containers are done; failed: job\n")


def test_the_exit_status_may_be_that_of_one(pysup: Pysup) -> None:
    assert pysup("up", "--exit-code-from", "job", stack(pysup, DB, WEB, JOB)).status == 5
    fine = {**JOB, "cmd": ["true"]}
    assert pysup("up", "--exit-code-from", "job", stack(pysup, DB, WEB, fine)).status == 0


def test_the_exit_status_is_waited_for_though_a_job_before_it_has_ended(pysup: Pysup) -> None:
    first = {"id": "first", "cmd": ["true"]}
    test = {**JOB, "depends_on": {"first": {"condition": "completed"}}}
    done = pysup("up", "--exit-code-from", "job", stack(pysup, first, test, OTHER))
    assert done.status == 5
    assert "first: ended, so" not in done.out
    last = {"id": "last", "cmd": ["sleep", "1000"], "depends_on": {"job": {"condition": "completed"}}}
    fine = {"id": "job", "cmd": ["true"]}
    assert pysup("up", "--exit-code-from", "job", stack(pysup, fine, last, OTHER)).status == 0


def test_the_exit_status_can_only_be_of_one_that_is_there(pysup: Pysup) -> None:
    done = pysup("up", "--exit-code-from", "jbo", stack(pysup, DB, JOB))
    assert (done.status, done.complaint) == (125, "--exit-code-from jbo: no such container in the stack")


def test_a_part_starts_with_what_it_needs_and_nothing_else(pysup: Pysup) -> None:
    done = pysup("up", "--exit-code-from", "job", stack(pysup, DB, WEB, JOB, OTHER), "job")
    assert done.status == 5
    started = {line.split()[2] for line in done.out.splitlines() if ": started " in line}
    assert started == {"db:", "job:"}


def test_a_part_may_start_without_what_it_needs(pysup: Pysup) -> None:
    done = pysup("up", "--no-deps", "--exit-code-from", "job", stack(pysup, DB, WEB, JOB, OTHER), "job")
    assert done.status == 5
    assert "db" not in done.out


def test_one_grace_period_for_all(pysup: Pysup) -> None:
    stubborn = {"id": "stubborn", "cmd": script("trap '' TERM; echo deaf; sleep 1000"), "init": False}
    with pysup.live("up", "--timeout", "0.1", stack(pysup, stubborn)) as live:
        live.sees("| deaf")
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert "stubborn: killing: still there after 0.1 s" in live.text


def test_thousands_start_run_and_stop(pysup: Pysup, pysup_command: Command) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4 * MANY:
        pytest.skip("not as many descriptors here")
    speak = script("echo I am ${PYSUP_REPLICA}; exec sleep 1000")
    many = {"id": "many", "replicas": MANY, "cmd": speak, "storage": "memory", "stop_signal": "SIGKILL", "init": False}
    path = stack(pysup, many)
    assert len(pysup("config", path).out) < 4096
    done = pysup_command("up", "--wait", path)
    assert done.status == 0, done.err
    assert done.out.endswith(f"all {MANY} containers are up\n")
    assert len(pysup_command("ps", "-q").out.split()) == MANY
    until(lambda: pysup_command("logs", f"many.{MANY}").out.endswith(f"I am {MANY}\n"))
    assert pysup_command("down").status == 0
    assert pysup.left() == []


def test_who_has_too_few_descriptors_is_told_so_once_and_the_rest_runs(pysup: Pysup) -> None:
    many = {"id": "many", "replicas": 60, "cmd": ["sleep", "1000"], "storage": "memory"}
    with pysup.live("up", stack(pysup, many), prefix=("prlimit", "--nofile=160:160")) as live:
        live.sees(" | 60 containers may need 244 open files, and 160 is the limit: raise it (ulimit -Hn)")
        live.sees("could not start: make its pipes: too many open files: raise the limit (ulimit -n)")
        live.sees("started (pid")
        live.signal(signal.SIGINT)
        assert live.ends() == 1
    assert live.text.count("containers may need") == 1
    assert "internal error" not in live.text
    assert pysup.left() == []


def test_next_to_no_descriptors_are_one_line(pysup: Pysup) -> None:
    with pysup.live("up", stack(pysup, OTHER), prefix=("prlimit", "--nofile=100:100")) as live:
        assert live.ends() == 125
    assert live.text == "pysup: pysup may open 100 files only, and needs 128: raise the limit (ulimit -Hn)\n"


def test_what_is_wrong_with_thousands_is_said_in_few_words(pysup: Pysup) -> None:
    done = pysup("up", stack(pysup, {"id": "many", "replicas": MANY, "cmd": ["true"], "user": "nosuch"}))
    assert done.status == 125
    assert len(done.complaint) < 400
