"""A command in a container that runs: it is as the container is and brings nothing along; each step's error is told."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from driver import Driver, LaunchError, Result, Spoil, children, kill, read_all, read_until, wait

from runtime import linux, program, security, streams
from runtime.config import ContainerConfig, Network
from runtime.enter import Door, build_entry
from runtime.lower import lower_plan
from runtime.status import Exited, Signaled
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000, 44), "app", "/home/app")
NO_SUCH_CALL = 0x7FFF


class Inside:
    """A container that runs, to enter."""

    def __init__(self, driver: Driver, config: ContainerConfig, pid: int, pidfd: int) -> None:
        self.driver = driver
        self.config = config
        self.pid = pid
        self.pidfd = pidfd

    def run(self, *argv: str, spoil: Spoil = bytes, init: bool = False) -> Result:
        """Run a command in it to its end. LaunchError if it does not start."""
        with self.begun(*argv, spoil=spoil, init=init) as (pid, made):
            said = read_all(made.stdout), read_all(made.stderr)
            return Result(wait(pid), *said)

    @contextmanager
    def begun(self, *argv: str, spoil: Spoil = bytes, init: bool = False) -> Iterator[tuple[int, streams.Streams]]:
        with self.driver.entered(self.config, self.pidfd, argv, spoil=spoil, init=init) as begun:
            yield begun


@contextmanager
def running(driver: Driver, **changes: object) -> Iterator[Inside]:
    """A container that is up."""
    config = driver.config("sh", "-c", "echo up; exec sleep 1000", memory_bytes=1 << 20, **changes)
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up")
        pidfd = os.pidfd_open(pid)
        try:
            yield Inside(driver, config, pid, pidfd)
        finally:
            os.close(pidfd)
            kill(pid)
            wait(pid)


FULL: dict[str, object] = {
    "workdir": "/srv/new",
    "network": Network.NONE,
    "rlimits": ((1, -1, -1), (7, 77, 99)),
    "user": APP,
    "umask": 0o027,
    "env": (("PATH", "/bin"), ("COLOUR", "blue")),
}
PTRACE = security.capability_mask(["CAP_SYS_PTRACE"], (), privileged=False)  # such are entered apart
KINDS = {
    "root": {},
    "user": FULL,
    "init": {**FULL, "init": True},
    "privileged": {"privileged": True},
    "apart": {"capabilities": PTRACE},
    "apart, user": {**FULL, "capabilities": PTRACE},
}
NAMESPACES = ("mnt", "pid", "uts", "ipc", "net", "cgroup", "user", "time")
SHOW = """
for ns in mnt pid uts ipc net cgroup user time; do readlink /proc/self/ns/$ns; done
id; pwd; hostname; umask; ulimit -a; env | sort
grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid|Sig(Blk|Ign|Cgt)|Seccomp|CoreDumping|Umask)' /proc/self/status
cat /proc/self/mountinfo /proc/self/limits /proc/self/oom_score_adj; ls -ld /proc/1/cwd /proc/self/root; ls /
"""


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_a_command_is_in_every_way_as_the_containers_own(driver: Driver, changes: dict[str, object]) -> None:
    with running(driver, **changes) as inside:
        entered = inside.run("sh", "-c", f"exec 2>&1; {SHOW}")
    own = driver.run("sh", "-c", f"exec 2>&1; {SHOW}", memory_bytes=1 << 20, **changes)
    assert comparable(entered.stdout) == comparable(own.stdout)


def comparable(text: str) -> list[str]:
    """Without the numbers that every mount and namespace has of its own."""
    lines = [line for line in text.splitlines() if "->" not in line and ":[" not in line]
    return [" ".join(line.split()[3:]) if " / / " in line or " - " in line else line for line in lines]


def test_it_is_in_the_namespaces_of_the_container(driver: Driver) -> None:
    with running(driver, network=Network.NONE) as inside:
        show = "; ".join(f"readlink /proc/self/ns/{name}" for name in NAMESPACES)
        own = [str(Path(f"/proc/{inside.pid}/ns/{name}").readlink()) for name in NAMESPACES]
        assert inside.run("sh", "-c", show).stdout.split() == own


def test_it_sees_the_containers_processes_and_is_seen(driver: Driver) -> None:
    with running(driver) as inside:
        assert inside.run("sh", "-c", "kill -0 1 && readlink /proc/self").stdout == "2\n"


def test_it_brings_no_descriptor_along(driver: Driver) -> None:
    with running(driver) as inside:
        assert inside.run("sh", "-c", "ls /proc/$$/fd; true").stdout == "0\n1\n2\n"


def test_its_working_directory_is_in_the_container(driver: Driver) -> None:
    for workdir in ("/", "/tmp"):
        with running(driver, workdir=workdir) as inside:
            assert inside.run("sh", "-c", "pwd -P; readlink /proc/self/cwd").stdout.split() == [workdir] * 2


def test_a_working_directory_that_became_a_way_out_is_refused(driver: Driver) -> None:
    """Through /proc of the entering process itself, whose descriptors are the launcher's (CVE-2024-21626)."""
    workdir = "/srv/w"
    with running(driver, workdir=workdir) as inside:
        inside.run("sh", "-c", "cd /; rmdir /srv/w; ln -s /proc/self/fd/10 /srv/w")
        with pytest.raises(LaunchError, match="enter the working directory /srv/w: leads through a magic link"):
            inside.run("true")


def test_its_orphans_stay_its_own(driver: Driver) -> None:
    with running(driver) as inside:
        script = "(sleep 1000 & echo $! > /tmp/pid); grep PPid /proc/$(cat /tmp/pid)/status; kill $(cat /tmp/pid)"
        assert inside.run("sh", "-c", f"{script}; echo $$").stdout.split()[1:] == ["2", "2"]


@pytest.mark.parametrize(("name", "status"), [("nosuch", 127), ("/etc/passwd", 126)])
def test_what_can_not_be_executed_is_told_as_at_a_start(driver: Driver, name: str, status: int) -> None:
    with running(driver) as inside:
        with pytest.raises(LaunchError, match=f"^c: execute {name}: not ") as raised:
            inside.run(name)
        assert raised.value.exit_status == status
        assert inside.run("true").status == Exited(0)


@pytest.mark.parametrize("changes", [FULL, {**FULL, "capabilities": PTRACE}], ids=["usual", "apart"])
def test_an_error_of_any_call_is_told_and_the_container_lives_on(driver: Driver, changes: dict[str, object]) -> None:
    with running(driver, **changes) as inside:
        entry = build_entry(inside.config, ("true",))
        steps = lower_plan(entry).steps
        wrong = []
        for index, step in enumerate(steps):
            with pytest.raises(LaunchError) as raised:
                inside.run("true", spoil=spoiled(index))
            expected = f"c: {entry.steps[step].describe()}: this kernel lacks the system call"
            if not str(raised.value).startswith(expected):
                wrong.append((index, expected, str(raised.value)))
        assert wrong == []
        assert {*steps} == {*range(len(entry.steps))}
        assert inside.run("true").status == Exited(0)


@pytest.mark.parametrize("changes", [FULL, {**FULL, "capabilities": PTRACE}], ids=["usual", "apart"])
@pytest.mark.parametrize("driver", ["python"], indirect=True)  # an init is always made by the loop in Python
def test_an_error_beside_an_init_is_told_too_and_leaves_none(driver: Driver, changes: dict[str, object]) -> None:
    with running(driver, **changes) as inside:
        entry = build_entry(inside.config, ("true",), init=True)
        steps = lower_plan(entry).steps
        wrong = []
        for index, step in enumerate(steps):
            with pytest.raises(LaunchError) as raised:
                inside.run("true", spoil=spoiled(index), init=True)
            if not str(raised.value).startswith(f"c: {entry.steps[step].describe()}: this kernel lacks"):
                wrong.append((index, str(raised.value)))
        assert wrong == []
        assert inside.run("sh", "-c", "exit 7", init=True).status == Exited(7)
        assert inside.run("sh", "-c", "kill -9 $$", init=True).status == Exited(137)
        assert children(inside.pid) == []


def spoiled(index: int) -> Spoil:
    def spoil(image: bytes) -> bytes:
        place = program.HEADER.size + index * program.CALL.size
        return image[:place] + program.WORD.pack(NO_SUCH_CALL) + image[place + program.WORD.size :]

    return spoil


@pytest.mark.parametrize("reaped", [False, True])
def test_a_container_that_has_ended_is_told(driver: Driver, *, reaped: bool) -> None:
    config = driver.config("true")
    with driver.started(config) as (pid, _):
        pidfd = os.pidfd_open(pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            wait(pid)
        with pytest.raises(LaunchError, match=r"^c: join the container's processes: it has ended$"):
            Inside(driver, config, pid, pidfd).run("true")
        os.close(pidfd)
        if not reaped:
            wait(pid)
    assert driver.run("true").status == Exited(0)


def test_it_dies_with_the_container(driver: Driver) -> None:
    with running(driver) as inside, inside.begun("sh", "-c", "echo up; exec sleep 1000") as (pid, made):
        read_until(made.stdout, "up")
        kill(inside.pid)
        assert wait(pid) == Signaled(signal.SIGKILL)


def test_the_launcher_is_in_its_own_namespaces_afterwards(driver: Driver) -> None:
    def namespaces() -> list[str]:
        links = [f"/proc/{driver.launcher.pid}/ns/{name}" for name in (*NAMESPACES, "pid_for_children")]
        return [os.readlink(link) for link in links]

    before = namespaces()
    with running(driver) as inside:
        inside.run("true")
        with pytest.raises(LaunchError):
            inside.run("nosuch")
        with pytest.raises(LaunchError):
            inside.run("true", spoil=spoiled(0))
        assert namespaces() == before
    assert driver.run("sh", "-c", "echo $$").stdout == "1\n"


def test_500_entries_leave_no_descriptor_in_the_launcher(driver: Driver) -> None:
    def descriptors() -> list[str]:
        return sorted(os.readlink(path) for path in Path(f"/proc/{driver.launcher.pid}/fd").iterdir())

    with running(driver) as inside:
        before = descriptors()
        for number in range(500 if not driver.in_python else 50):
            if number % 10:
                inside.run("true")
            else:
                with pytest.raises(LaunchError):
                    inside.run("nosuch")
        assert descriptors() == before


def test_it_has_nothing_that_the_container_may_look_into_before_it_executes(driver: Driver) -> None:
    """It is not dumpable: stopped between its steps, none of its descriptors or memory can be opened from inside."""
    with running(driver) as inside:
        entry = build_entry(inside.config, ("true",))
        names = [type(step).__name__ for step in entry.steps]
        hidden = names.index("HideMemory")
        assert hidden > names.index("SetUser")
        assert {"DieWithSupervisor", "CloseDescriptors", "Exec"} <= set(names[hidden:])
        assert Path(f"/proc/{driver.launcher.pid}/fd").stat().st_uid == 0  # of a process that is not dumpable


# --- sockets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


def network_of_thread() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_a_socket_is_in_the_containers_network_and_we_are_in_ours(driver: Driver, door: Door) -> None:
    before = network_of_thread()
    with (
        running(driver, network=Network.NONE) as inside,
        door.socket(inside.pidfd, Network.NONE, socket.AF_INET) as made,
    ):
        assert network_of_thread() == before
        assert not made.getblocking()
        made.bind(("127.0.0.1", 7))
        made.listen()
        assert "0100007F:0007" in inside.run("cat", "/proc/net/tcp").stdout
    assert "0100007F:0007" not in Path("/proc/net/tcp").read_text(encoding="ascii")


def test_no_socket_comes_of_a_container_that_has_ended(driver: Driver, door: Door) -> None:
    before = network_of_thread()
    with running(driver, network=Network.NONE) as inside:
        kill(inside.pid)
        os.waitid(os.P_PID, inside.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            door.socket(inside.pidfd, Network.NONE, socket.AF_INET)
    assert network_of_thread() == before


NO_WAY_BACK = """
import os, sys
from runtime import linux
from runtime.config import Network
from runtime.enter import Door
import socket

door = Door()
home = os.pidfd_open(os.getpid())
os.close(door._home)
try:
    door.socket(home, Network.NONE, socket.AF_INET)
except BaseException:
    print("lives on")
"""


def test_who_can_not_come_back_dies() -> None:
    root = Path(linux.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", NO_WAY_BACK], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGABRT
    assert done.stdout == ""
    assert done.stderr.startswith("pysup: can't leave a container's network namespace: ")
