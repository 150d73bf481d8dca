"""Who may trace, or look into, a process that is not his: each way tried from inside."""

import errno
import os
import signal
from dataclasses import replace

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
        trapped.launcher.enter(
            trapped._next(), paused, lower_plan(paused).image, descriptors, in_python=trapped.in_python
        )
        inner.close_theirs()
        read_until(inner.stderr, "paused")
        (entering,) = set(children(os.getpid())) - before
        same = linux.syscall(numbers(linux.MACHINE)["kcmp"], entering, trapped.launcher.pid, 1, 0, 0, 0, 0) == 0
        assert same is (shared and not trapped.in_python)
        os.close(go_on)
        assert trapped.reply().error == 0
        assert wait(entering) == Exited(0)
        kill(pid)
        wait(pid)
        inner.close()
        os.close(pidfd)
    os.close(stdin)


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
