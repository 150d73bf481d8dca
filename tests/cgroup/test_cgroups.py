"""Cgroups on the real kernel, in every kind of host that this one can be taken for."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cgroups import HOST, Start, offered
from waiting import PATIENCE_S, until

from runtime.cgroup.branch import SHAPES_MAX, Branch, sweep
from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import Limits

pytestmark = pytest.mark.kernel
MIB = 1 << 20
EVERY_KIND = pytest.mark.parametrize("branch", ["host", "v1", "v2"], indirect=True)


def needs(controller: str) -> None:
    if HOST.of(controller) is None:
        pytest.skip(f"no controller {controller}")


def made(branch: Branch, limits: Limits | None = None, name: str = "c") -> Cgroup:
    cgroup = branch.cgroup(name, limits or Limits())
    assert cgroup is not None
    cgroup.make()
    return cgroup


def ended(process: subprocess.Popen[str]) -> int:
    return process.wait(PATIENCE_S)


def until_frozen(cgroup: Cgroup, *, frozen: bool = True) -> None:
    """Version 2 tells by an event; version 1 has none."""
    events = f"{cgroup.directory(0)}/cgroup.events"
    if cgroup.places[0].version == 2:
        with open(events) as file:
            poll = select.poll()
            poll.register(file, select.POLLPRI)
            while cgroup.frozen is not frozen:
                file.seek(0)
                file.read()
                assert cgroup.frozen is frozen or poll.poll(PATIENCE_S * 1000)
    until(lambda: cgroup.frozen is frozen)


@EVERY_KIND
def test_what_runs_in_it_is_its_member_and_it_is_gone_afterwards(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    process = start(cgroup, "sleep", "1000")
    assert cgroup.members() == [process.pid]
    cgroup.kill()
    assert ended(process) == -signal.SIGKILL
    cgroup.remove()
    assert not any(os.path.exists(cgroup.directory(index)) for index in cgroup.own)
    cgroup.remove()
    cgroup.kill()


@EVERY_KIND
def test_a_frozen_container_does_nothing_until_thawed(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    process = start(cgroup, "sh", "-c", "while :; do :; done")
    until_frozen(cgroup, frozen=False)
    cgroup.freeze()
    until_frozen(cgroup)
    used = times_of(process.pid)
    assert [times_of(process.pid) for _ in range(1000)] == [used] * 1000
    cgroup.thaw()
    until_frozen(cgroup, frozen=False)
    until(lambda: times_of(process.pid) != used)
    cgroup.kill()
    assert ended(process) == -signal.SIGKILL


def times_of(pid: int) -> int:
    """Nanoseconds that a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


@EVERY_KIND
def test_what_is_frozen_can_be_killed(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    processes = [start(cgroup, "sleep", "1000") for _ in range(5)]
    cgroup.freeze()
    until_frozen(cgroup)
    cgroup.kill()
    assert [ended(process) for process in processes] == [-signal.SIGKILL] * 5
    cgroup.remove()


@EVERY_KIND
def test_a_kill_takes_those_who_ran_away_from_their_session_and_forked_on(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    forking = "trap '' TERM HUP; while :; do setsid sleep 0.01 & setsid sleep 1000 & wait $!; done"
    shell = start(cgroup, "sh", "-c", f"({forking}) & ({forking}) & echo up; wait")
    assert shell.stdout is not None
    assert shell.stdout.readline() == "up\n"
    cgroup.kill()
    assert ended(shell) == -signal.SIGKILL
    cgroup.remove()


@EVERY_KIND
def test_an_entry_can_be_killed_alone(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    entry = cgroup.inside("check")
    entry.make()
    container = start(cgroup, "sleep", "1000")
    check = start(entry, "sh", "-c", "sleep 1000 & wait")
    assert container.pid not in entry.members()
    assert {container.pid, check.pid} <= set(cgroup.members())
    entry.kill()
    assert ended(check) == -signal.SIGKILL
    entry.remove()
    assert cgroup.members() == [container.pid]
    cgroup.kill()
    assert ended(container) == -signal.SIGKILL


def test_cgroups_that_a_container_made_go_with_it(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    for index in cgroup.own:
        os.makedirs(f"{cgroup.directory(index)}/a/b/c")
        os.mkdir(f"{cgroup.directory(index)}/a/d")
    inner = cgroup.inside("a/b/c")
    process = start(inner, "sleep", "1000")
    assert cgroup.members() == [process.pid]
    cgroup.kill()
    ended(process)
    cgroup.remove()
    assert not any(os.path.exists(cgroup.directory(index)) for index in cgroup.own)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_memory_limit_kills_and_it_is_seen(branch: Branch, start: Start) -> None:
    needs("memory")
    cgroup = made(branch, Limits(memory_bytes=16 * MIB, swap_bytes=0 if swap_is_counted() else None))
    assert cgroup.oom_kills() == 0
    process = start(cgroup, "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    assert ended(process) == -signal.SIGKILL
    assert cgroup.oom_kills() == 1
    figures = cgroup.figures()
    assert figures.oom_kills == 1
    assert figures.memory_max_bytes == 16 * MIB
    assert 12 * MIB < (figures.memory_peak_bytes or 0) <= 16 * MIB


def swap_is_counted() -> bool:
    memory = HOST.of("memory")
    return memory is not None and (memory.version == 2 or os.path.exists(f"{memory.own}/memory.memsw.limit_in_bytes"))


def test_one_that_ends_within_its_memory_was_not_killed_for_it(branch: Branch, start: Start) -> None:
    needs("memory")
    cgroup = made(branch, Limits(memory_bytes=64 * MIB))
    assert ended(start(cgroup, "dd", "if=/dev/zero", "of=/dev/null", "bs=8M", "count=2")) == 0
    assert cgroup.oom_kills() == 0


def test_a_fork_bomb_is_held(branch: Branch, start: Start) -> None:
    needs("pids")
    cgroup = made(branch, Limits(pids=20))
    bomb = start(cgroup, "sh", "-c", "trap 'echo full' 0; while :; do sleep 1000 & done")
    assert bomb.stdout is not None
    assert bomb.stdout.readline() == "full\n"  # a shell that can't fork gives up
    assert len(cgroup.members()) <= 20
    figures = cgroup.figures()
    assert figures.pids_max == 20
    assert figures.pids is not None
    assert 19 <= figures.pids <= 20
    cgroup.kill()
    ended(bomb)
    cgroup.remove()


def test_a_quota_of_the_processor_holds(branch: Branch, start: Start) -> None:
    needs("cpu")
    cgroup = made(branch, Limits(cpus=0.2))
    process = start(cgroup, "sh", "-c", "while :; do :; done")
    began, before = time.monotonic_ns(), cgroup.figures().cpu_ns or 0
    until(lambda: (cgroup.figures().cpu_throttled_periods or 0) >= 3)
    used, passed = (cgroup.figures().cpu_ns or 0) - before, time.monotonic_ns() - began
    cgroup.kill()
    ended(process)
    assert used > 0
    assert used <= 0.2 * passed + 50_000_000  # a period's share may be used on either side
    assert (cgroup.figures().cpu_throttled_ns or 0) > 0


def test_processors_can_be_chosen(branch: Branch, start: Start) -> None:
    needs("cpuset")
    one = str(max(os.sched_getaffinity(0)))
    process = start(made(branch, Limits(cpuset=one)), "sleep", "1000")
    assert os.sched_getaffinity(process.pid) == {int(one)}


def test_every_limit_can_be_set_at_once(branch: Branch) -> None:
    for controller in ("memory", "cpu", "cpuset", "pids"):
        needs(controller)
    swap = 8 * MIB if swap_is_counted() else None
    limits = Limits(memory_bytes=32 * MIB, swap_bytes=swap, cpus=1.5, cpu_weight=50, cpuset="0", pids=10)
    cgroup = made(branch, limits)
    written = {s.file: Path(cgroup.directory(index), s.file).read_text().strip() for index, s in cgroup.settings}
    for index, setting in cgroup.settings:
        if (index, setting.file) not in [(i, s.file) for i, s in cgroup.settings if s is not setting]:
            assert written[setting.file] == setting.value


# --- figures ---------------------------------------------------------------------------------------------------------


@EVERY_KIND
def test_figures_tell_what_was_used(branch: Branch, start: Start) -> None:
    cgroup = made(branch)
    process = start(cgroup, "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done; exec sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"
    figures = cgroup.figures()
    assert figures.cpu_ns is not None
    assert figures.cpu_ns > 10_000_000
    assert figures.cpu_user_ns is not None
    assert figures.pids == 1
    if any("memory" in place.controllers for place in cgroup.places):
        assert 0 < (figures.memory_bytes or 0) <= (figures.memory_peak_bytes or 0)
        assert figures.memory_max_bytes is None
    cgroup.kill()
    ended(process)
    cgroup.remove()
    assert cgroup.figures().memory_bytes is None  # gone: nothing is known, nothing is raised


# --- many, and what was left -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", ["host", "v1"], indirect=True)
def test_one_that_is_gone_is_not_made_again_by_other_limits(branch: Branch) -> None:
    needs("memory")
    cgroup = made(branch)
    other, resets = branch.changed(cgroup, Limits(), Limits(memory_bytes=64 * MIB))
    cgroup.remove()
    with pytest.raises(FileNotFoundError):
        cgroup.change(other, resets)
    assert not os.path.exists(cgroup.directory(0))
    other.remove()


@EVERY_KIND
def test_five_hundred_are_made_read_and_removed(branch: Branch) -> None:
    cgroups = [made(branch, name=f"c.{number}") for number in range(500)]
    assert all(cgroup.figures().pids == 0 for cgroup in cgroups)
    for cgroup in cgroups:
        cgroup.remove()
    branch.remove()
    assert [path for path in branch.directories() if os.path.exists(path)] == []


def test_any_number_of_different_limits_leaves_few_behind_in_memory(branch: Branch) -> None:
    first = branch.cgroup("c", Limits(pids=1))
    for pids in range(2, SHAPES_MAX + 10):
        branch.cgroup("c", Limits(pids=pids))
    assert len(branch._shapes) == SHAPES_MAX
    assert branch.cgroup("c", Limits(pids=1)) == first


OWNER = """
import sys
from cgroups import KINDS, HOST, join
from runtime.cgroup.branch import Branch
from runtime.cgroup.limits import Limits
import subprocess
branch = Branch(KINDS[sys.argv[2]](HOST), sys.argv[1])
for number in range(3):
    cgroup = branch.cgroup(f"c{number}", Limits())
    cgroup.make()
    process = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, preexec_fn=lambda: join(cgroup))
    print(process.pid, flush=True)
    if number == 2:
        cgroup.freeze()
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["host", "v1", "v2"])
@pytest.mark.parametrize("branch", ["host"], indirect=True)
def test_what_a_killed_owner_left_is_swept(branch: Branch, name: str, kind: str) -> None:
    if not offered(kind):
        pytest.skip(f"this host has no cgroups of {kind}")
    here = Path(__file__).resolve().parent
    env = {**os.environ, "PYTHONPATH": f"{here.parent}/support:{here.parent.parent}"}
    command = [sys.executable, "-c", OWNER, name, kind]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(line) for line in iter(owner.stdout.readline, "\n")]
        pidfds = [os.pidfd_open(pid) for pid in pids]
        owner.kill()
        owner.wait(PATIENCE_S)
    assert sweep(branch.directories()) == 3
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], "it lives on"
        os.close(pidfd)
    assert [path for path in branch.directories() if os.path.exists(path)] == []
    assert sweep(branch.directories()) == 0


def test_two_branches_share_the_top_and_leave_each_other_alone(branch: Branch, name: str, start: Start) -> None:
    cgroup = made(branch)
    process = start(cgroup, "sleep", "1000")
    with Branch(HOST, f"{name}-other") as other:
        made(other).remove()
    assert not any(os.path.exists(path) for path in other.directories())
    assert cgroup.members() == [process.pid]
