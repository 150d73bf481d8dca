"""`init: true`: a process 1 that reaps what is orphaned and passes signals on, and gives nothing of the host away."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from driver import Driver, children, kill, read_until, wait
from steps import Pause

from runtime import plan
from runtime.build import build_plan
from runtime.status import Exited, Signaled
from runtime.users import User

pytestmark = pytest.mark.kernel

ROOT = User(0, 0, (0,), "root", "/root")
APP = User(1000, 1000, (1000,), "app", "/home/app")
RESIDENT_MAX_KIB = 64


def lines(driver: Driver, script: str, **changes: object) -> list[str]:
    """What a shell script in a container with an init writes."""
    result = driver.run("sh", "-c", script, init=True, **changes)
    assert result.status == Exited(0), result
    return result.stdout.splitlines()


def test_the_init_is_process_1_and_the_command_its_child(driver: Driver) -> None:
    assert lines(driver, "cat /proc/1/comm; echo $$ $PPID") == ["init", "2 1"]


def test_the_command_leads_a_session_of_its_own(driver: Driver) -> None:
    (stat,) = lines(driver, "cat /proc/$$/stat")
    assert stat.rpartition(")")[2].split()[2:4] == ["2", "2"]


def test_the_command_has_a_clean_signal_state(driver: Driver) -> None:
    masks = driver.run("grep", "-E", "^Sig(Blk|Ign|Cgt):", "/proc/self/status", init=True).stdout
    assert [int(line.split()[1], 16) for line in masks.splitlines()] == [0, 0, 0]


def test_orphans_are_reaped(driver: Driver) -> None:
    # Parents that end before their children. Some may not have been reaped at once: so it looks until none is left.
    orphans = "for i in $(seq 100); do (true &); done"
    look = (
        "tries=0; while grep -q '^State:.Z' /proc/[0-9]*/status && [ $tries -lt 1000 ]; do tries=$((tries + 1)); done"
    )
    assert lines(driver, f"{orphans}; {look} 2>/dev/null; grep -l '^State:.Z' /proc/[0-9]*/status || echo none") == [
        "none"
    ]


@pytest.mark.parametrize("user", [ROOT, APP], ids=["root", "app"])
def test_signals_reach_another_users_command_though_nobody_has_a_capability(driver: Driver, user: User) -> None:
    script = (
        "trap 'echo got; exit 9' TERM; grep Cap /proc/1/status /proc/$$/status; echo up; while :; do sleep 0.01; done"
    )
    config = driver.config("sh", "-c", script, init=True, user=user, capabilities=0)
    with driver.started(config) as (pid, made):
        shown = read_until(made.stdout, "up\n")
        os.kill(pid, signal.SIGTERM)
        assert wait(pid) == Exited(9)
    own = {line.split(":", 1)[1] for line in shown.splitlines() if "/proc/1/" not in line and "Cap" in line}
    assert {int(line.split()[1], 16) for line in own} == {0}


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1", "HUP"])
def test_signals_are_passed_on(driver: Driver, name: str) -> None:
    script = f"trap 'echo got; exit 9' {name}; echo up; while :; do sleep 1000 & wait $!; done"
    with driver.started(driver.config("sh", "-c", script, init=True)) as (pid, made):
        read_until(made.stdout, "up\n")
        os.kill(pid, getattr(signal, f"SIG{name}"))
        read_until(made.stdout, "got\n")
        assert wait(pid) == Exited(9)


def test_a_signal_from_inside_to_process_1_is_passed_on(driver: Driver) -> None:
    assert driver.run("sh", "-c", "kill -USR2 1; exec sleep 1000", init=True).status == Exited(128 + signal.SIGUSR2)


def test_the_end_of_the_command_is_the_end_of_all(driver: Driver) -> None:
    assert driver.run("sh", "-c", "sleep 1000 & (sleep 1000 &); exit 4", init=True).status == Exited(4)


def test_killing_the_init_kills_all(driver: Driver) -> None:
    with driver.started(driver.config("sh", "-c", "sleep 1000 & echo up; wait", init=True)) as (pid, made):
        read_until(made.stdout, "up\n")
        kill(pid)
        assert wait(pid) == Signaled(signal.SIGKILL)
        assert made.stdout is not None
        os.set_blocking(made.stdout, True)
        assert os.read(made.stdout, 1) == b""  # nobody holds the pipe any more


def test_a_signal_that_comes_before_the_command_was_executed_is_not_lost(driver: Driver) -> None:
    whole = build_plan(driver.config("sleep", "1000", init=True))
    position = next(n for n, step in enumerate(whole.steps) if isinstance(step, plan.ForkInit)) + 1
    paused = replace(whole, steps=(*whole.steps[:position], Pause(1), *whole.steps[position:]))
    ours, before = children(os.getpid()), driver.launcher.pid
    stdin, go_on = os.pipe()
    with driver.requested(paused, stdin=stdin) as made:
        read_until(made.stdout, "paused")
        (pid,) = set(children(os.getpid())) - {*ours, before}
        os.kill(pid, signal.SIGTERM)
        os.close(go_on)
        assert driver.executed(paused, made) == pid
        assert wait(pid) == Exited(128 + signal.SIGTERM)
    os.close(stdin)


# --- what the init gives away: it was a copy of the launcher, a process of the host -----------------------------------


@pytest.mark.parametrize("user", [User(0, 0, (0,), "root", "/root"), APP])
@pytest.mark.parametrize(
    "name", ["environ", "maps", "fd", "exe", "cwd", "root", "auxv", "mem", "stack", "fdinfo", "map_files"]
)
def test_nothing_inside_can_look_into_the_init(driver: Driver, name: str, user: User) -> None:
    script = f"ls /proc/1/{name}/ 2>/dev/null; cat /proc/1/{name} 2>/dev/null; readlink /proc/1/{name}; true"
    assert lines(driver, script, user=user) == []


def test_the_command_line_of_the_init_tells_nothing(driver: Driver) -> None:
    assert lines(driver, "tr '\\0' '|' < /proc/1/cmdline") == ["init|"]


def test_the_init_holds_no_descriptor(driver: Driver) -> None:
    with driver.started(driver.config("sleep", "1000", init=True)) as (pid, _):
        assert list(Path(f"/proc/{pid}/fd").iterdir()) == []
        kill(pid)
        wait(pid)


def test_the_init_has_the_containers_capabilities_and_no_more(driver: Driver) -> None:
    expected = driver.config().capabilities
    for user in (APP, User(0, 0, (0,), "root", "/root")):
        effective, bounding = lines(driver, "grep -E '^Cap(Eff|Bnd):' /proc/1/status", user=user)
        assert int(effective.split()[1], 16) == expected
        assert int(bounding.split()[1], 16) == expected


def test_the_init_is_as_small_as_can_be(driver: Driver) -> None:
    with driver.started(driver.config("sleep", "1000", init=True)) as (pid, _):
        fields = [
            line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        ]
        kib = {name: int(value) for name, value, *_ in fields}
        kill(pid)
        wait(pid)
    assert kib["Rss:"] < RESIDENT_MAX_KIB
