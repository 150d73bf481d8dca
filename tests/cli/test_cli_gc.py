"""What is left of supervisors that were killed is found, said and removed; what runs is left alone."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from command import Ended, Pysup
from family import killed

from runtime import linux

pytestmark = pytest.mark.kernel

SLEEP = {"cmd": ["sleep", "1000"], "stop_signal": "SIGKILL"}
NOTHING = "nothing is left of any killed supervisor\n"


def gc(pysup: Pysup, *arguments: str) -> Ended:
    return pysup("gc", "--state", str(pysup.state), *arguments)


def findings(pysup: Pysup, *arguments: str) -> list[dict[str, Any]]:
    ended = gc(pysup, "--json", *arguments)
    assert (ended.status, ended.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


@pytest.fixture
def crashed(pysup: Pysup) -> Pysup:
    """With a stack of two containers whose supervisor was killed."""
    stack = pysup.stack({"id": "web", **SLEEP, "replicas": 2})
    with pysup.live("up", stack) as live:
        live.sees("all 2 containers are up")
        killed(live)
    return pysup


def test_where_nothing_is_left_nothing_is_found(pysup: Pysup) -> None:
    assert pysup("up", pysup.stack({"id": "a", "cmd": ["true"]})).status == 0
    assert gc(pysup) == Ended(0, NOTHING)
    assert findings(pysup) == []


def test_a_killed_stack_is_said_and_removed(crashed: Pysup) -> None:
    removed, socket_removed = gc(crashed).out.splitlines()
    assert removed == "stack stack: removed 2 cgroups and 2 directories of runs"
    assert socket_removed == f"stack stack: removed {crashed.state}/run/stack/pysup.sock"
    assert not (crashed.state / "run").exists()
    assert crashed.left() == []
    assert gc(crashed) == Ended(0, NOTHING)


def test_a_socket_that_was_being_made_is_removed_with_the_rest(crashed: Pysup) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as half_made:
        half_made.bind(str(crashed.state / "stacks/stack/notify-1"))
    assert gc(crashed).status == 0
    assert crashed.left() == []


def test_the_directory_of_a_socket_that_never_came_is_removed(pysup: Pysup) -> None:
    folder = pysup.state / "run/stack"
    folder.mkdir(parents=True)
    assert gc(pysup, "--dry-run").out == f"stack stack: would remove {folder}\n"
    assert gc(pysup).out == f"stack stack: removed {folder}\n"
    assert not folder.parent.exists()
    assert gc(pysup) == Ended(0, NOTHING)


def test_a_dry_run_changes_nothing(crashed: Pysup) -> None:
    home = crashed.state / "stacks/stack"
    before = sorted(home.rglob("*"))
    found, found_socket = findings(crashed, "--dry-run")
    assert found_socket["socket"] == str(crashed.state / "run/stack/pysup.sock")
    assert found == {
        "path": str(home),
        "name": "stack",
        "single": False,
        "processes": 0,
        "runs": ["web.1", "web.2"],
        "cgroups": 2,
        "socket": None,
        "log_bytes": None,
        "error": None,
    }
    assert gc(crashed, "-n").out.startswith("stack stack: would remove 2 cgroups and 2 directories of runs\n")
    assert sorted(home.rglob("*")) == before


def test_a_killed_single_run_is_removed_too(pysup: Pysup) -> None:
    with pysup.live("run", "lonely", "busybox", "sh", "-c", "echo here; sleep 1000") as live:
        live.sees("here")
        killed(live)
    assert gc(pysup) == Ended(0, "container lonely: removed 1 cgroup and the directory of lonely\n")
    assert pysup.left() == []


def test_what_runs_is_left_alone(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "web", **SLEEP})) as live:
        live.sees("started")
        assert gc(pysup) == Ended(0, NOTHING)
        assert findings(pysup, "--dry-run") == []
        live.signal(signal.SIGTERM)
        assert live.ends() == 0
    assert "web: killed by SIGKILL" in live.text


def test_a_process_that_outlived_its_supervisor_is_killed(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "web", **SLEEP})) as live:
        live.sees("started (pid ")
        container = os.pidfd_open(int(live.text.partition("started (pid ")[2].partition(")")[0]))
        stray = _stray_in(container, pysup.state)
        try:
            killed(live)
            assert gc(pysup).out.startswith("stack stack: removed 1 process, 1 cgroup and the directory of web\n")
        finally:
            os.close(container)
            os.kill(stray, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(stray, 0)[1])
        assert status == -signal.SIGKILL
        assert pysup.left() == []


def test_a_process_of_another_namespaces_stack_is_left_alone(pysup: Pysup) -> None:
    """There the directory has the same name; here there is none of it."""
    with pysup.live("up", pysup.stack({"id": "web", **SLEEP})) as live:
        live.sees("started (pid ")
        container = os.pidfd_open(int(live.text.partition("started (pid ")[2].partition(")")[0]))
        stray = _stray_in(container, pysup.state)
        try:
            killed(live)
            shutil.rmtree(pysup.state / "stacks/stack/runs/web")
            assert gc(pysup).out.startswith("stack stack: removed 1 cgroup\n")
            assert os.waitpid(stray, os.WNOHANG) == (0, 0)
        finally:
            os.close(container)
            os.kill(stray, signal.SIGKILL)
            os.waitpid(stray, 0)


def _stray_in(container: int, state: Path) -> int:
    """A child of ours that lives on in a container's mounts, whatever becomes of that."""
    stray = os.fork()
    if stray == 0:
        try:
            linux.setns(container, linux.CLONE_NEWNS)
            signal.pause()
        finally:
            os._exit(1)
    while f" - overlay {state}/" not in Path(f"/proc/{stray}/mountinfo").read_text(encoding="utf-8"):
        os.sched_yield()
    return stray


def test_what_was_written_to_be_kept_stays(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "db", "cmd": ["sh", "-c", "echo 1 > /data; sleep 1000"], "keep": True})
    with pysup.live("up", stack) as live:
        live.sees("started")
        killed(live)
    assert gc(pysup).status == 0
    assert (pysup.state / "stacks/stack/kept/db/upper").is_dir()
    assert gc(pysup) == Ended(0, NOTHING)


def test_an_empty_directory_is_removed(pysup: Pysup) -> None:
    (pysup.state / "stacks/gone/runs").mkdir(parents=True)
    assert gc(pysup) == Ended(0, "stack gone: removed an empty directory\n")
    assert pysup.left() == []


def test_what_can_not_be_removed_is_said_and_the_rest_is_removed(crashed: Pysup) -> None:
    """A file where a stack's directory should be."""
    (crashed.state / "stacks/another").touch()
    ended = gc(crashed)
    another, stack, _ = ended.out.splitlines()
    assert ended.status == 1
    assert another.startswith("stack another: state directory ")
    assert stack == "stack stack: removed 2 cgroups and 2 directories of runs"


def test_only_root_may(pysup: Pysup) -> None:
    ended = pysup.as_nobody("gc", "--state", str(pysup.state))
    assert (ended.status, ended.complaint) == (125, "pysup needs root to make namespaces and mounts: run it with sudo")
