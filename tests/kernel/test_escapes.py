"""Known ways out of containers, each tried from inside: named after their CVE where they have one."""

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from driver import Driver, LaunchError, Result, kill, python, read_all, read_until, run_apart, wait
from probing import probe

from runtime import linux, plan, rootfs, security
from runtime.assemble import Assembler, Descriptor
from runtime.build import build_plan
from runtime.config import ContainerConfig, Network
from runtime.lower import FD_MORE, lower
from runtime.mounts import Bind, Tmpfs
from runtime.seccomp.calls import numbers
from runtime.seccomp.load import default_filter
from runtime.status import Exited, Signaled
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000,), "app", "/home/app")
USUAL = security.capability_mask((), (), privileged=False)
DEFAULT = default_filter(USUAL)
MEMORY = 1 << 20
MASKED = next(path for path in rootfs.MASKED if os.path.isfile(path))


@contextmanager
def running(driver: Driver, script: str, **changes: object) -> Iterator[tuple[int, ContainerConfig]]:
    """A container that has said `up` and goes on."""
    config = driver.config("sh", "-c", script, memory_bytes=MEMORY, **changes)
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        yield pid, config
        kill(pid)
        assert wait(pid) == Signaled(signal.SIGKILL)


# --- the host's interpreter -------------------------------------------------------------------------------------------


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


# --- descriptors ------------------------------------------------------------------------------------------------------


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


# --- what the image puts in our way -----------------------------------------------------------------------------------


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


# --- cgroups, mounts, namespaces, devices -----------------------------------------------------------------------------


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


# --- keys, terminals, sockets -----------------------------------------------------------------------------------------


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
