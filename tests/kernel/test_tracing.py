"""Who may trace, or look into, a process that is not his: each way tried from inside."""

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from driver import Driver, children, kill, read_until, wait
from steps import Pause

from runtime import linux, plan, security, spawn, streams
from runtime.capabilities import CAPABILITIES
from runtime.config import Network
from runtime.enter import build_entry
from runtime.idmap import Ids, block
from runtime.lower import lower_plan
from runtime.seccomp.calls import numbers
from runtime.seccomp.load import default_filter
from runtime.status import Exited, Signaled
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000,), "app", "/home/app")
USUAL = security.capability_mask((), (), privileged=False)
MEMORY = 1 << 20
OWN = block(1 << 31)
ROOT = User(0, 0, (0,), "root", "/root")


PTRACE = 1 << CAPABILITIES.index("CAP_SYS_PTRACE")
SCAN = """
echo up
while :; do
    for p in /proc/[0-9]*; do ls -l $p/fd/ $p/cwd $p/exe; head -c 9999 $p/environ | tr '\\0' ' '; done 2>/dev/null
    echo scanned
done
"""


@pytest.mark.parametrize("before", [plan.NewSession, plan.SetUser, plan.CloseDescriptors])
@pytest.mark.parametrize(("capabilities", "userns"), [(USUAL, None), (USUAL | PTRACE, OWN)])
def test_cve_2016_9962_who_enters_can_not_be_looked_into(
    driver: Driver, before: type, capabilities: int, userns: Ids | None
) -> None:
    """However long it takes to execute: until then it has the launcher's memory and descriptors. Who has CAP_SYS_PTRACE
    on the host may look into all; in a user namespace it does not count until what enters has joined that.
    """
    config = driver.config(
        "sh", "-c", SCAN, memory_bytes=MEMORY, capabilities=capabilities, userns=userns, user=ROOT, network=Network.NONE
    )
    entry = build_entry(config, ["true"], ids=userns)
    position = next(n for n, step in enumerate(entry.steps) if isinstance(step, before))
    paused = replace(entry, steps=(*entry.steps[:position], Pause(2), *entry.steps[position:]))
    stdin, go_on = os.pipe()
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        own, pidfd, inner = driver.own(config), os.pidfd_open(pid), streams.pipes(stdin, entry.owner)
        descriptors = (*inner.theirs, pidfd, *(() if own is None else (own.user,)))
        driver.launcher.enter(driver._next(), paused, lower_plan(paused).image, descriptors, in_python=driver.in_python)
        inner.close_theirs()
        read_until(inner.stderr, "paused")
        seen = "".join(read_until(made.stdout, "scanned\n") for _ in range(3))
        os.close(go_on)
        reply = driver.reply()
        assert reply.error == 0
        assert wait(reply.pid) == Exited(0)
        kill(pid)
        wait(pid)
        inner.close()
        os.close(pidfd)
    os.close(stdin)
    theirs = ("socket:", "net:", "pid:", "mnt:", "user:", "/memfd", "LC_ALL", "python", str(driver.state))
    assert [line for line in seen.splitlines() if any(word in line for word in theirs)] == []
    assert "/bin/busybox" in seen


STOPPER = """
echo up
while :; do
    for p in /proc/[0-9]*; do
        [ $p = /proc/1 ] || kill -STOP ${p#/proc/}
    done
    grep -h '^State:.*stopped' /proc/[0-9]*/status
done 2>/dev/null
"""


def test_who_is_stopped_on_his_way_in_keeps_no_other_waiting(trapped: Driver) -> None:
    """Root in a container may stop a process that enters it, as it is root's: the launcher goes on."""
    config = trapped.config("sh", "-c", STOPPER, memory_bytes=MEMORY, capabilities=USUAL)
    entry = build_entry(config, ["true"])
    paused = replace(entry, steps=(*entry.steps[:-1], Pause(2), entry.steps[-1]))
    stdin, go_on = os.pipe()
    with trapped.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        before = os.listdir(f"/proc/{trapped.launcher.pid}/fd")
        pidfd, inner = os.pidfd_open(pid), streams.pipes(stdin, entry.owner)
        number, image = trapped._next(), lower_plan(paused).image
        trapped.launcher.enter(number, paused, image, (*inner.theirs, pidfd), in_python=trapped.in_python)
        inner.close_theirs()
        read_until(made.stdout, "stopped")
        os.close(go_on)
        assert trapped.run("echo", "another", memory_bytes=MEMORY).stdout == "another\n"
        trapped.launcher.cancel(number)
        reply = trapped.reply()
        assert (reply.number, reply.error) == (number, errno.ETIMEDOUT)
        kill(reply.pid)
        assert wait(reply.pid) == Signaled(signal.SIGKILL)
        assert str(spawn.launch_error(paused, reply.call, reply.error)).startswith("c: enter it: killed")
        assert trapped.run("true", memory_bytes=MEMORY).status == Exited(0)
        assert os.listdir(f"/proc/{trapped.launcher.pid}/fd") == before
        kill(pid)
        wait(pid)
        inner.close()
        os.close(pidfd)
    os.close(stdin)


@pytest.mark.parametrize(
    ("capabilities", "userns", "shared"),
    [(USUAL, None, True), (USUAL | PTRACE, OWN, True), (USUAL | PTRACE, None, False)],
)
def test_the_launchers_memory_is_shared_with_nobody_who_can_be_traced(
    trapped: Driver, capabilities: int, userns: Ids | None, *, shared: bool
) -> None:
    config = trapped.config(
        "sh", "-c", "echo up; exec sleep 1000", memory_bytes=MEMORY, capabilities=capabilities, userns=userns
    )
    entry = build_entry(config, ["true"], ids=userns)
    paused = replace(entry, steps=(*entry.steps[:-1], Pause(2), entry.steps[-1]))
    stdin, go_on = os.pipe()
    with trapped.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        own, pidfd, inner = trapped.own(config), os.pidfd_open(pid), streams.pipes(stdin, entry.owner)
        descriptors = (*inner.theirs, pidfd, *(() if own is None else (own.user,)))
        before = {pid, trapped.launcher.pid}
        passage = trapped.begin_entry(paused, descriptors)
        inner.close_theirs()
        read_until(inner.stderr, "paused")
        entering = set(children(os.getpid())) - before
        kcmp, memory = numbers(linux.MACHINE)["kcmp"], 1
        same = [linux.syscall(kcmp, one, trapped.launcher.pid, memory, 0, 0, 0, 0) == 0 for one in entering]
        assert any(same) is (shared and not trapped.in_python)
        os.close(go_on)
        reply = trapped.entered_by(passage)
        assert reply.error == 0
        assert wait(reply.pid) == Exited(0)
        kill(pid)
        wait(pid)
        inner.close()
        os.close(pidfd)
    os.close(stdin)


LOOK = r"""
import ctypes, json, os, signal
print("up", flush=True)
libc, own = ctypes.CDLL(None, use_errno=True), {1}
while not (found := {int(name) for name in os.listdir("/proc") if name.isdigit()} - own):
    pass
(pid,) = found
ATTACH, DETACH, GETFD, OPEN = 16, 17, 438, 434
traced = libc.ptrace(ATTACH, pid, 0, 0)
os.waitpid(pid, 0x40000000)
at = f"/proc/{pid}/"
links = {name: os.readlink(at + name) for name in ("cwd", "root", "exe")}
fds = {name: os.readlink(at + "fd/" + name) for name in os.listdir(at + "fd")}
stolen = [libc.syscall(GETFD, libc.syscall(OPEN, pid, 0), int(name), 0) for name in fds]
for descriptor in stolen:
    os.close(descriptor)
maps, memory = open(at + "maps").read().splitlines(), b""
with open(at + "mem", "rb", buffering=0) as file:
    for line in maps:
        begin, end = (int(word, 16) for word in line.split()[0].split("-"))
        try:
            file.seek(begin)
            memory += file.read(end - begin)
        except (OSError, OverflowError, ValueError):
            pass
status = dict(line.rstrip("\n").split(":\t", 1) for line in open(at + "status") if ":\t" in line)
own_status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
differing = [key for key in WORDS if status.get(key) != own_status.get(key)]
libc.ptrace(DETACH, pid, 0, 0)
said = {"traced": traced, "links": links, "fds": fds, "stolen": min(stolen), "maps": maps, "differing": differing,
        "secret": SECRET[::-1].encode() in memory, "mine": b"its own" in memory}
print(json.dumps(said), flush=True)
signal.pause()
"""
WORDS = ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb", "Uid", "Gid", "NoNewPrivs", "Seccomp"]


@pytest.mark.parametrize("before", [plan.NewSession, plan.Exec])
def test_cve_2016_9962_nor_has_he_anything_for_who_may_trace_all(snake: Driver, before: type) -> None:
    """Who has CAP_SYS_PTRACE on the host, from within a container, takes over what enters: that is by then what the
    container's own processes are, with memory of its own, and the others' secrets are not in that.
    """
    secret = "of-another-container"
    snake.run("sh", "-c", ":", env=(("PATH", "/bin:/usr/bin"), ("SECRET", secret)), memory_bytes=MEMORY)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    capabilities = USUAL | PTRACE
    script = f"WORDS = {WORDS!r}; SECRET = {secret[::-1]!r}\n{LOOK}"
    config = snake.config(
        *("python3", "-c", script), env=(("PATH", path),), memory_bytes=MEMORY, capabilities=capabilities, user=ROOT
    )
    config = replace(config, seccomp=default_filter(capabilities))
    entry = build_entry(config, ["sh", "-c", ":", "its own"])
    position = max(n for n, step in enumerate(entry.steps) if isinstance(step, before))
    paused = replace(entry, steps=(*entry.steps[:position], Pause(2), *entry.steps[position:]))
    stdin, go_on = os.pipe()
    with snake.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        pidfd, inner = os.pidfd_open(pid), streams.pipes(stdin, entry.owner)
        passage = snake.begin_entry(paused, (*inner.theirs, pidfd))
        inner.close_theirs()
        said = read_until(made.stdout, "\n")
        os.close(go_on)
        reply = snake.entered_by(passage)
        assert reply.error == 0
        assert wait(reply.pid) == Exited(0)
        kill(pid)
        assert wait(pid) == Signaled(signal.SIGKILL)
        inner.close()
        os.close(pidfd)
    os.close(stdin)
    seen = json.loads(said)
    assert seen["traced"] == 0
    assert seen["stolen"] > 0
    assert seen["links"] == {"cwd": "/", "root": "/", "exe": "/memfd:entry (deleted)"}
    assert {target.split(":")[0] for target in seen["fds"].values()} == {"pipe"}
    assert len(seen["fds"]) == 4
    named = {line.split(maxsplit=5)[5] for line in seen["maps"] if len(line.split()) > 5}
    assert {name for name in named if not name.startswith("[")} == {"/memfd:entry (deleted)"}
    assert seen["differing"] == []
    assert (seen["mine"], seen["secret"]) == (True, False)


HOLD = """
import ctypes, os, signal
print("up", flush=True)
libc = ctypes.CDLL(None)
while not (found := {int(name) for name in os.listdir("/proc") if name.isdigit()} - {1}):
    pass
pidfd = libc.syscall(434, found.pop(), 0)
print("held", [libc.syscall(438, pidfd, number, 0) for number in range(16)], flush=True)
signal.pause()
"""


def test_who_holds_what_an_entry_reports_by_keeps_no_other_waiting(snake: Driver) -> None:
    """The first of the two that enter has ended long since, and its pid may be another's: nobody is killed by that."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    capabilities = USUAL | PTRACE
    config = snake.config(
        *("python3", "-c", HOLD), env=(("PATH", path),), memory_bytes=MEMORY, capabilities=capabilities, user=ROOT
    )
    entry = build_entry(config, ["sh", "-c", "read _"])
    paused = replace(entry, steps=(*entry.steps[:-1], Pause(2), entry.steps[-1]))
    stdin, go_on = os.pipe()
    with snake.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        pidfd, inner = os.pidfd_open(pid), streams.pipes(stdin, entry.owner)
        number = snake._number + 1
        passage = snake.begin_entry(paused, (*inner.theirs, pidfd))
        inner.close_theirs()
        read_until(made.stdout, "held")
        snake.launcher.cancel(number)
        reply = snake.reply()
        entered = passage.pid(reply.pid)
        passage.forget()
        assert (reply.number, reply.error) == (number, errno.ETIMEDOUT)
        assert entered != reply.pid
        assert wait(reply.pid) == Exited(0)
        assert snake.run("sh", "-c", ":", memory_bytes=MEMORY).status == Exited(0)
        kill(entered)
        assert wait(entered) == Signaled(signal.SIGKILL)
        kill(pid)
        assert wait(pid) == Signaled(signal.SIGKILL)
        inner.close()
        os.close(pidfd)
    os.close(stdin)
    os.close(go_on)


@pytest.mark.parametrize("user", [User(0, 0, (0,), "root", "/root"), APP])
def test_whoever_may_trace_the_init_finds_nothing_of_the_launchers(driver: Driver, user: User) -> None:
    """It forbids that (dumpable), which does not count for CAP_SYS_PTRACE: so there must be nothing to find, from the
    command's first instruction on.
    """
    script = "cat /proc/1/maps; ls /proc/1/fd; readlink /proc/1/exe; cat /proc/1/environ"
    for _ in range(10):
        shown = driver.run("sh", "-c", script, init=True, capabilities=USUAL | PTRACE, user=user, memory_bytes=MEMORY)
        if user is APP:
            assert shown.stdout == ""
            continue
        *maps, exe, environ = shown.stdout.splitlines()
        named = {line.split(maxsplit=5)[5] for line in maps if len(line.split()) > 5}
        assert {name for name in named if not name.startswith("[v")} == {"/memfd:init (deleted)", "[stack]"}
        assert (exe, environ) == ("/memfd:init (deleted)", "2\0")
        assert "python" not in shown.stdout


def test_nor_can_the_inits_program_be_written_to(driver: Driver) -> None:
    """All containers with an init have the same."""
    script = "echo x >/proc/1/exe; echo x >>/proc/1/exe; head -c 3 /proc/1/exe"
    for _ in range(2):
        shown = driver.run("sh", "-c", script, init=True, capabilities=USUAL | PTRACE, memory_bytes=MEMORY)
        assert shown.stdout == "\x7fEL", shown
        assert shown.stderr.count("Operation not permitted") + shown.stderr.count("Text file busy") == 2, shown
