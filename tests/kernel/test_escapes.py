"""Known ways out of containers, each tried from inside: named after their CVE where they have one."""

import errno
import fcntl
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from driver import Driver, LaunchError, Result, children, kill, read_all, read_until, run_apart, wait
from probing import make_probing, probe
from rootfs import make_busybox
from steps import Pause

from runtime import linux, plan, rootfs, security, spawn, streams
from runtime.assemble import Assembler, Descriptor
from runtime.build import build_plan
from runtime.capabilities import CAPABILITIES
from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import Limits
from runtime.config import ContainerConfig, Network
from runtime.enter import build_entry
from runtime.idmap import Ids, block
from runtime.images.from_host import create
from runtime.lower import FD_MORE, lower, lower_plan
from runtime.mounts import Bind, Tmpfs
from runtime.seccomp.calls import numbers
from runtime.seccomp.load import default_filter
from runtime.status import Exited, Signaled
from runtime.users import User
from supervisor.state import cgroups

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000,), "app", "/home/app")
USUAL = security.capability_mask((), (), privileged=False)
DEFAULT = default_filter(USUAL)
MEMORY = 1 << 20
OWN = block(1 << 31)
ROOT = User(0, 0, (0,), "root", "/root")
MASKED = next(path for path in rootfs.MASKED if os.path.isfile(path))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An image of busybox to put traps into."""
    return make_busybox(tmp_path / "mine")


@pytest.fixture(params=["native", "python"])
def trapped(mine: Path, state: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A driver of that image."""
    with Driver(state, mine, in_python=request.param == "python") as made:
        yield made


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_probing(tmp_path_factory.mktemp("images") / "probing")


@pytest.fixture
def prober(probing: Path, state: Path) -> Iterator[Driver]:
    """A driver of an image with a program that makes any system call."""
    with Driver(state, probing) as made:
        yield made


@pytest.fixture(scope="module")
def pythonic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(create("python", tmp_path_factory.mktemp("images"), ["sh"], python=True).path)


@pytest.fixture
def snake(pythonic: Path, state: Path) -> Iterator[Driver]:
    """A driver of an image with Python."""
    with Driver(state, pythonic) as made:
        yield made


def python(driver: Driver, script: str, **changes: object) -> Result:
    """Run a script in a container."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return driver.run("python3", "-c", script, env=(("PATH", path),), memory_bytes=MEMORY, **changes)


@contextmanager
def running(driver: Driver, script: str, **changes: object) -> Iterator[tuple[int, ContainerConfig]]:
    """A container that has said `up` and goes on."""
    config = driver.config("sh", "-c", script, memory_bytes=MEMORY, **changes)
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        yield pid, config
        kill(pid)
        assert wait(pid) == Signaled(signal.SIGKILL)


# --- the host's interpreter ------------------------------------------------------------------------------------------


def set_interpreter_trap(image: Path) -> None:
    """What is executed is the launcher's own program, in two ways."""
    script = image / "bin/script"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    (image / "bin/link").symlink_to("/proc/self/exe")


@pytest.mark.parametrize("name", ["script", "link"])
def test_cve_2019_5736_the_hosts_interpreter_can_not_be_executed_at_a_start(
    trapped: Driver, mine: Path, name: str
) -> None:
    set_interpreter_trap(mine)
    with pytest.raises(LaunchError, match=f"^c: execute {name}: not executable"):
        trapped.run(name)


@pytest.mark.parametrize("name", ["script", "link"])
def test_cve_2019_5736_nor_by_a_command_that_enters(trapped: Driver, mine: Path, name: str) -> None:
    set_interpreter_trap(mine)
    with running(trapped, "echo up; exec sleep 1000") as (pid, config):
        with pytest.raises(LaunchError, match=f"^c: execute {name}: not executable"):
            trapped.enter(config, pid, name)
        assert trapped.enter(config, pid, "true").status == Exited(0)


def test_cve_2019_5736_the_launchers_program_can_not_be_written_to(driver: Driver) -> None:
    """Not even by root of the host through /proc: the mount is read-only."""
    exe = f"/proc/{driver.launcher.pid}/exe"
    assert os.path.samestat(os.stat(exe), os.stat(sys.executable))
    assert os.statvfs(exe).f_flag & os.ST_RDONLY
    with pytest.raises(PermissionError):
        os.execv(exe, ["python3", "-c", ""])


def test_cve_2019_5736_no_library_of_the_host_is_mapped(driver: Driver) -> None:
    for changes in ({}, {"user": APP}):
        maps = driver.run("cat", "/proc/self/maps", **changes).stdout
        files = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/" in line}
        assert files == {"/bin/busybox"}


# --- descriptors -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keep:
    """A step that puts a directory of the host at a known number, where it is until execve."""

    number: int

    def describe(self) -> str:
        return "keep a descriptor"


@lower.register
def _(step: Keep, asm: Assembler) -> None:
    asm.call("dup3", Descriptor(FD_MORE), step.number, os.O_CLOEXEC)


def start_with_a_directory(driver: Driver, config: ContainerConfig, directory: Path, number: int) -> Result:
    """Start it with a directory of the host among the descriptors that go along."""
    whole = build_plan(config)
    position = next(n for n, step in enumerate(whole.steps) if isinstance(step, plan.TakeStdio)) + 1
    held = replace(whole, steps=(*whole.steps[:position], Keep(number), *whole.steps[position:]))
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with driver.requested(held, more=(descriptor,)) as made:
            pid = driver.executed(held, made)
            said = read_all(made.stdout), read_all(made.stderr)
            return Result(wait(pid), *said)
    finally:
        os.close(descriptor)


NUMBER = 40


def test_cve_2024_21626_no_descriptor_is_left_over(trapped: Driver, tmp_path: Path) -> None:
    config = trapped.config("sh", "-c", "ls /proc/$$/fd; true", memory_bytes=MEMORY)
    assert start_with_a_directory(trapped, config, tmp_path, NUMBER).stdout.split() == ["0", "1", "2"]


def test_cve_2024_21626_the_command_can_not_be_named_by_a_descriptor(
    trapped: Driver, mine: Path, tmp_path: Path
) -> None:
    """Closed on execve is too late: the path is looked up before."""
    (mine / "bin/out").symlink_to(f"/proc/self/fd/{NUMBER}/mine/bin/busybox")
    (mine / "bin/script").write_text(f"#!/proc/self/fd/{NUMBER}/mine/bin/busybox sh\n")
    (mine / "bin/script").chmod(0o755)
    for name in ("out", "script", f"/proc/self/fd/{NUMBER}/mine/bin/busybox"):
        config = trapped.config(name, "true", memory_bytes=MEMORY)
        with pytest.raises(LaunchError, match=f"^c: execute {name}: not found in the image"):
            start_with_a_directory(trapped, config, tmp_path, NUMBER)


@pytest.mark.parametrize("workdir", [f"/proc/self/fd/{NUMBER}", f"/proc/self/fd/{NUMBER}/made", "/trap", "/trap/made"])
def test_cve_2024_21626_the_working_directory_is_no_descriptor(
    trapped: Driver, mine: Path, tmp_path: Path, workdir: str
) -> None:
    (mine / "trap").symlink_to(f"/proc/self/fd/{NUMBER}")
    config = trapped.config("pwd", memory_bytes=MEMORY, workdir=workdir)
    with pytest.raises(LaunchError, match=f"the working directory {workdir}: leads through a magic link of /proc"):
        start_with_a_directory(trapped, config, tmp_path, NUMBER)
    assert not (tmp_path / "made").exists()


def test_cve_2024_21626_nor_of_a_command_that_enters(trapped: Driver) -> None:
    with running(trapped, "echo up; exec sleep 1000", workdir="/srv/w") as (pid, config):
        trapped.enter(config, pid, "sh", "-c", "cd /; rmdir /srv/w; ln -s /proc/self/fd/11 /srv/w")
        with pytest.raises(LaunchError, match="leads through a magic link"):
            trapped.enter(config, pid, "true")


# --- what the image puts in our way ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "../etc/passwd", "/dev/sda"])
@pytest.mark.parametrize("name", ["dev/null", "dev/console", "dev/pts", "dev/shm"])
def test_cve_2025_31133_52565_devices_of_the_image_are_not_used(
    trapped: Driver, mine: Path, name: str, target: str
) -> None:
    """Masks are bound from a /dev that is ours, whatever is in the image: also for its console."""
    (mine / "dev").mkdir()
    (mine / name).symlink_to(target)
    script = f"cat {MASKED} | wc -c; stat -c %F /dev/null; echo x > /proc/sys/kernel/hostname; head -1 /etc/passwd"
    shown = trapped.run("sh", "-c", script)
    assert shown.stdout.split("\n")[:2] == ["0", "character special file"]
    assert "Read-only file system" in shown.stderr
    assert shown.stdout.split("\n")[2].startswith("root:")


@pytest.mark.parametrize("name", ["etc/hosts", "etc/hostname", "etc"])
@pytest.mark.parametrize(
    "target", ["/proc/sys/kernel/core_pattern", "/proc/self/attr/exec", "/sys/kernel/uevent_helper"]
)
def test_cve_2025_52881_what_we_write_follows_no_link_into_proc(
    trapped: Driver, mine: Path, name: str, target: str
) -> None:
    """Files are shown before there is a /proc, and never written to by a path of the image's."""
    before = Path("/proc/sys/kernel/core_pattern").read_bytes()
    if name == "etc":
        for file in ("passwd", "group"):
            (mine / "etc" / file).unlink()
        (mine / "etc").rmdir()
    (mine / name).symlink_to(target)
    try:
        trapped.run("true")
    except LaunchError as error:
        assert str(error).startswith("c: show /etc/hosts, /etc/hostname: ")
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == before


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("kind", ["symlink", "full", "file"])
def test_cve_2019_19921_and_cve_2023_27561_proc_is_the_kernels(
    trapped: Driver, mine: Path, name: str, kind: str
) -> None:
    """An image's own /proc is mounted over or refused; masks lie on the real one."""
    if kind == "symlink":
        (mine / "fake/sys/kernel").mkdir(parents=True)
        (mine / name).symlink_to("fake")
    elif kind == "full":
        (mine / name / "sys/kernel").mkdir(parents=True)
        (mine / name / "self").symlink_to("/etc")
    else:
        (mine / name).touch()
    script = "grep -q ' /sys ' /proc/self/mountinfo; echo x > /proc/sys/kernel/hostname; wc -c < MASKED".replace(
        "MASKED", MASKED
    )
    try:
        shown = trapped.run("sh", "-c", script)
    except LaunchError as error:
        assert kind != "full"
        assert str(error).startswith(("c: mount /proc", "c: mount /sys", "c: mask ", "c: make /proc"))
    else:
        assert kind == "full"
        assert "Read-only file system" in shown.stderr
        assert shown.stdout == "0\n"


# --- volumes ----------------------------------------------------------------------------------------------------------


@contextmanager
def swapping(path: Path, target: Path) -> Iterator[None]:
    """All the while, another container that shares the volume has a directory there, then a link to `target`."""
    stop = threading.Event()
    (path.parent / "link").symlink_to(target)
    path.mkdir()

    def swap() -> None:
        while not stop.is_set():
            linux_exchange(path, path.parent / "link")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        stop.set()
        swapper.join()


def linux_exchange(one: Path, other: Path) -> None:
    """renameat2(2), RENAME_EXCHANGE: at no time is either not there."""
    (first, _first_owner), (second, _second_owner) = linux._pointer(str(one)), linux._pointer(str(other))
    number = numbers(linux.MACHINE)["renameat2"]
    assert linux.syscall(number, linux.AT_FDCWD, first, linux.AT_FDCWD, second, 2, 0, 0) == 0


@pytest.mark.parametrize("below", ["", "sub"])
def test_cve_2021_30465_a_volume_whose_directory_is_swapped_for_a_link_leads_nowhere(
    driver: Driver, tmp_path: Path, below: str
) -> None:
    """As the place where another one is mounted, and as what is mounted, a link counts inside only."""
    volume, host = tmp_path / "volume", tmp_path / "host"
    for path in (volume, host):
        path.mkdir()
    (host / "marker").touch()
    shared = Bind(source=str(volume), target="/shared")
    inner = Bind(source=str(volume), target="/mnt", below="sub") if below else Tmpfs(target="/shared/sub")
    tries = starts = 0
    with swapping(volume / "sub", host):
        while starts < 30 and tries < 10_000:
            tries += 1
            time.sleep(0)  # the swapper's turn
            with suppress(LaunchError):
                shown = driver.run("sh", "-c", "ls /mnt; ls /shared/sub/", mounts=(shared, inner), memory_bytes=MEMORY)
                assert "marker" not in shown.stdout
                starts += 1
    assert starts == 30
    assert str(host) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


# --- cgroups, mounts, namespaces, devices ----------------------------------------------------------------------------


def test_cve_2022_0492_no_release_agent_can_be_set(prober: Driver) -> None:
    """By a cgroup mount of its own in a new user namespace, or by those of the host."""
    number = numbers(linux.MACHINE)
    words = [
        f"{number['unshare']}:{flags}" for flags in (linux.CLONE_NEWUSER, linux.CLONE_NEWNS, linux.CLONE_NEWCGROUP)
    ]
    assert set(probe(prober, *words, seccomp=DEFAULT).values()) == {errno.EPERM}
    script = "mount -t cgroup -o rdma none /tmp; mount -t cgroup2 none /tmp; find /sys/fs/cgroup -name release_agent"
    shown = prober.run("sh", "-c", f"{script}; echo x > /sys/fs/cgroup/release_agent", memory_bytes=MEMORY)
    assert shown.stdout == ""
    assert shown.status == Exited(1)


def test_mount_unshare_and_setns_are_refused(prober: Driver) -> None:
    names = "mount umount2 move_mount open_tree fsopen fsmount mount_setattr pivot_root unshare setns".split()
    words = {str(numbers(linux.MACHINE)[name]): errno.EPERM for name in names}
    for user in (APP, User(0, 0, (0,), "root", "/root")):
        assert probe(prober, *words, seccomp=DEFAULT, user=user) == words


@pytest.mark.parametrize(("memory", "below"), [(None, "[] False"), (MEMORY, "['merged', 'upper', 'work'] True")])
def test_below_a_root_that_is_taken_away_is_nothing_but_its_own(driver: Driver, memory: int | None, below: str) -> None:
    """Who may do that may enter the namespace anew, and is at its root then."""
    every = security.capability_mask(["ALL"], [], privileged=False)
    script = "umount -l / && echo off || echo on; exec sleep 1000"
    config = driver.config("sh", "-c", script, capabilities=every, memory_bytes=memory)
    with driver.started(config) as (pid, made):
        taken = read_until(made.stdout, "\n") == "off\n"
        entered = run_apart(_AT_ITS_ROOT, str(pid))
        kill(pid)
        wait(pid)
    assert taken is any(isinstance(step, plan.EnterRoot) for step in build_plan(config).steps)
    assert entered.strip() == below or not taken


_AT_ITS_ROOT = """
import os, sys
from runtime import linux
linux.setns(os.pidfd_open(int(sys.argv[1])), linux.CLONE_NEWNS)
found = sorted(os.listdir("/"))
try:
    os.mkdir("/x")
    print(found, True)
except OSError:
    print(found, False)
"""


def test_a_device_that_is_made_can_not_be_opened(driver: Driver) -> None:
    """CAP_MKNOD is among Docker's defaults, and no device controller stands behind it here: who may make nodes can't
    open them. A harmless one is tried, as all others are the same to the kernel.
    """
    script = "for d in / /tmp /dev/shm /dev; do mknod $d/a c 1 5 && echo made; head -c1 $d/a; done | tr '\\0' z"
    for memory in (None, MEMORY):
        result = driver.run("sh", "-c", script, memory_bytes=memory)
        assert result.stdout == "made\n" * 4
        assert result.stderr.count("Permission denied") == 4
        inside = driver.run("sh", "-c", "head -c1 /dev/zero | wc -c", memory_bytes=memory)
        assert inside.stdout == "1\n"


# --- other processes -------------------------------------------------------------------------------------------------


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


# --- keys, terminals, sockets ----------------------------------------------------------------------------------------


def test_keyrings_can_not_be_reached(prober: Driver) -> None:
    names = ("keyctl", "add_key", "request_key")
    words = {str(numbers(linux.MACHINE)[name]): errno.EPERM for name in names}
    assert probe(prober, *words, seccomp=DEFAULT) == words
    assert prober.run("cat", "/proc/keys", memory_bytes=MEMORY).stdout == ""


TIOCSTI = """
import fcntl, os, termios
try:
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
except OSError as error:
    print("refused", error.errno)
else:
    os.set_blocking(0, False)
    print("pushed")
"""


def test_tiocsti_reaches_no_terminal_of_the_hosts(snake: Driver) -> None:
    """Without a terminal there is none to push into; the one that a container may have is its own."""
    assert python(snake, TIOCSTI, seccomp=DEFAULT).stdout == f"refused {errno.ENOTTY}\n"
    tty = "import os\ntry: os.open('/dev/tty', os.O_RDWR)\nexcept OSError as error: print(error.errno)"
    assert python(snake, tty, seccomp=DEFAULT).stdout == f"{errno.ENXIO}\n"


@pytest.mark.parametrize(("network", "reached"), [(Network.NONE, False), (Network.HOST, True)])
def test_abstract_sockets_of_the_host_are_in_its_network(snake: Driver, network: Network, *, reached: bool) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        name = f"\0pysup-test-{os.getpid()}"
        server.bind(name)
        server.listen()
        script = f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})"
        assert (python(snake, script, network=network, seccomp=DEFAULT).status == Exited(0)) is reached


# --- floods ----------------------------------------------------------------------------------------------------------


def test_a_fork_bomb_is_bounded_by_nproc(snake: Driver) -> None:
    """Of a user that nobody else has here: the limit counts a user's processes on the whole host."""
    script = """
import os, signal
try:
    for made in range(200):
        if not os.fork(): signal.pause()
except BlockingIOError:
    print("refused", made)
"""
    bomb = User(54_321, 54_321, (54_321,), "bomb", "/")
    result = python(snake, script, user=bomb, rlimits=((6, 20, 20),), seccomp=DEFAULT)
    assert (result.status, result.stdout) == (Exited(0), "refused 19\n"), result


def test_a_descriptor_bomb_hits_its_own_limit(snake: Driver) -> None:
    script = """
import os, errno
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    os.closerange(3, 9999)
    print(errno.errorcode[error.errno], len(held) + 3)
"""
    assert python(snake, script, rlimits=((7, 256, 256),), seccomp=DEFAULT).stdout == "EMFILE 256\n"


def test_a_fork_bomb_is_bounded_by_its_cgroup(snake: Driver, tmp_path: Path) -> None:
    """Whoever it is, and whatever he has on the host."""
    script = """
import os, signal
try:
    for made in range(200):
        if not os.fork(): signal.pause()
except BlockingIOError:
    print("refused", made)
"""
    with cgroups.branch(tmp_path) as branch:
        cgroup = branch.cgroup("c", Limits(pids=20))
        assert cgroup is not None
        result = in_cgroup(snake, cgroup, script)
        assert (result.status, result.stdout) == (Exited(0), "refused 19\n"), result
        snake.launcher.remove(snake._next(), None, cgroup)
        assert snake.reply().error == 0


def in_cgroup(driver: Driver, cgroup: Cgroup, script: str) -> Result:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    config = driver.config("python3", "-c", script, env=(("PATH", path),), memory_bytes=MEMORY, seccomp=DEFAULT)
    whole = build_plan(config, cgroup)
    with driver.requested(whole, more=cgroup.descriptors) as made:
        pid = driver.executed(whole, made)
        said = read_all(made.stdout), read_all(made.stderr)
        return Result(wait(pid), *said)


def test_nobody_inside_is_spared_when_memory_runs_out(state: Path, image: Path) -> None:
    """Whatever our own process was granted by who started it: its containers neither have that nor may take it."""
    before, own = Path("/proc/self/oom_score_adj").read_bytes(), Path("/proc/self/oom_score_adj")
    script = "cat /proc/self/oom_score_adj; echo -1 > /proc/self/oom_score_adj; echo 300 > /proc/self/oom_score_adj"
    try:
        with suppress(PermissionError):  # we have no CAP_SYS_RESOURCE: then nobody has granted us anything
            own.write_text("-500", encoding="ascii")
        with Driver(state, image) as made:
            shown = made.run("sh", "-c", script, memory_bytes=MEMORY)
    finally:
        own.write_bytes(before)
    assert (shown.status, shown.stdout) == (Exited(0), "0\n")
    assert "Permission denied" in shown.stderr


FLOOD = """
import os
line = b"x" * 1023 + b"\\n"
for _ in range(20_000): os.write(1, line)
"""


def test_a_flood_of_output_waits_for_its_reader(snake: Driver) -> None:
    """It fills a pipe, and no memory of ours; what becomes of it on disk is bounded by `logs` (tests/logs)."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    config = snake.config("python3", "-c", FLOOD, env=(("PATH", path),), memory_bytes=MEMORY, seccomp=DEFAULT)
    with snake.started(config) as (pid, made):
        assert made.stdout is not None
        poll, full = select.poll(), fcntl.fcntl(made.stdout, fcntl.F_GETPIPE_SZ)
        poll.register(made.stdout, select.POLLIN)
        while poll.poll(30_000) and queued(made.stdout) + 1024 <= full:
            pass
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        assert len(read_all(made.stdout)) == 20_000 * 1024
        assert wait(pid) == Exited(0)


def queued(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("init", [False, True])
def test_a_flood_of_zombies_goes_with_the_container(snake: Driver, *, init: bool) -> None:
    script = """
import os
for _ in range(500):
    if not os.fork(): os._exit(0)
print("made")
"""
    result = python(snake, script, init=init, seccomp=DEFAULT)
    assert (result.status, result.stdout) == (Exited(0), "made\n")
    pidfd = os.pidfd_open(snake.launcher.pid)
    assert not select.select([pidfd], [], [], 0)[0]
    os.close(pidfd)
