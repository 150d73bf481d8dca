"""Ids of a container's own: what is root inside is nobody on the host, and nothing on disk tells. By both loops."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from driver import Driver, LaunchError, kill, read_until, wait

from runtime import linux
from runtime.config import ContainerConfig, Network
from runtime.idmap import Extent, Ids, block
from runtime.mounts import Bind, MemoryFile, Tmpfs
from runtime.security import capability_mask
from runtime.status import Exited
from runtime.users import User

pytestmark = pytest.mark.kernel

FIRST = 1 << 31
OWN = block(FIRST)
APP = User(1000, 1000, (1000, 44), "app", "/home/app")
MEMORY = 1 << 20
UP = "echo up; exec sleep 1000"


def said(driver: Driver, script: str, **changes: object) -> str:
    """What it writes, and no complaints."""
    result = driver.run("sh", "-c", script, **{"userns": OWN, **changes})
    assert (result.stderr, result.status) == ("", Exited(0))
    return result.stdout


@contextmanager
def running(driver: Driver, script: str = UP, **changes: Any) -> Iterator[tuple[int, ContainerConfig]]:
    config = driver.config("sh", "-c", script, **{"userns": OWN, "memory_bytes": MEMORY, **changes})
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        yield pid, config
        kill(pid)
        wait(pid)


def identity(pid: int) -> dict[str, list[str]]:
    """Of a process, as the host has it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split()[1:] for line in lines}


# --- who is who -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, APP])
@pytest.mark.parametrize("init", [False, True])
def test_who_is_inside_is_somebody_else_on_the_host(driver: Driver, user: User | None, *, init: bool) -> None:
    changes: dict[str, Any] = {} if user is None else {"user": user}
    uid = 0 if user is None else user.uid
    with running(driver, init=init, **changes) as (pid, _):
        last = int(Path(f"/proc/{pid}/task/{pid}/children").read_text() or pid) if init else pid
        found = identity(last)
        assert found["Uid"] == found["Gid"] == [str(FIRST + uid)] * 4
        assert identity(pid)["Uid"] == [str(FIRST + (0 if init else uid))] * 4
        groups = (0,) if user is None else user.groups
        assert set(found["Groups"]) == {str(FIRST + group) for group in groups}


def test_it_sees_itself_and_its_image_as_without(driver: Driver) -> None:
    script = (
        "id -u; id -g; cat /proc/self/uid_map; stat -c '%u %g' / /bin /etc/passwd /dev /dev/null /dev/shm /etc/hosts"
    )
    first, second, mapped, *owners = said(driver, script).splitlines()
    assert (first, second, mapped.split()) == ("0", "0", ["0", str(FIRST), "65536"])
    assert owners == ["0 0"] * 7


def test_maps_of_ones_own(driver: Driver) -> None:
    ids = Ids((Extent(0, 700_000, 1), Extent(1000, 800_000, 10)), (Extent(0, 900_000, 2000),))
    with running(driver, userns=ids, user=APP) as (pid, _):
        assert identity(pid)["Uid"] == ["800000"] * 4
        assert identity(pid)["Gid"] == ["901000"] * 4


def test_a_user_who_has_no_id_is_told(driver: Driver) -> None:
    ids = Ids((Extent(0, 700_000, 1),), (Extent(0, 700_000, 65536),))
    with pytest.raises(LaunchError, match=r"^c: become user 1000:1000: it has no id on the host: see userns"):
        driver.run("true", userns=ids, user=APP, memory_bytes=MEMORY)


def test_terminals_belong_to_its_user_and_group(driver: Driver) -> None:
    config = driver.config("sh", "-c", "stat -c '%u %g' $(tty)", userns=OWN, user=APP, terminal=True)
    with driver.started(config) as (pid, made):
        assert read_until(made.terminal, "\n").split() == ["1000", "5"]
        assert wait(pid) == Exited(0)


# --- what is on disk --------------------------------------------------------------------------------------------------


def test_what_it_writes_has_the_ids_of_inside_and_outlives_them(driver: Driver) -> None:
    """Kept, it belongs to nobody else when the ids are others, or the host's."""
    script = "touch /tmp/new; chown 1000:44 /tmp/new; mkdir /tmp/d; rm /etc/group; chmod 600 /etc/passwd"
    said(driver, script, keep=True)
    upper = driver.state / "c/upper"
    owners = {path.name: (path.lstat().st_uid, path.lstat().st_gid) for path in upper.rglob("*")}
    assert owners["new"] == (1000, 44)
    assert owners["d"] == owners["passwd"] == owners["group"] == (0, 0)
    assert stat.S_ISCHR((upper / "etc/group").lstat().st_mode)
    for userns in (block(FIRST + (1 << 16)), None):
        assert (
            said(driver, "stat -c '%u %g' /tmp/new /tmp/d /etc/passwd", keep=True, userns=userns)
            == "1000 44\n0 0\n0 0\n"
        )
    driver.remove(str(driver.state / "c"))


def test_the_image_is_not_touched(driver: Driver, image: Path) -> None:
    def looks() -> dict[Path, tuple[int, ...]]:
        every = ((path, path.lstat()) for path in image.rglob("*"))
        return {path: (status.st_uid, status.st_gid, status.st_ctime_ns) for path, status in every}

    before = looks()
    said(driver, "chown -R 7:7 /bin /etc; echo more >>/etc/passwd")
    assert looks() == before


def test_its_volumes_follow(driver: Driver, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "mine").write_text("x")
    os.chown(data / "mine", 1000, 1000)
    mounts = (
        Bind(source=str(data), target="/data"),
        Tmpfs(target="/memory", uid=1000, gid=44),
        MemoryFile(target="/run/secret", contents=b"s", uid=1000),
    )
    script = "stat -c '%u %g' /data /data/mine /memory /run/secret; touch /data/new; chown 5:6 /data/new"
    assert said(driver, script, mounts=mounts) == "0 0\n1000 1000\n1000 44\n1000 0\n"
    assert ((data / "new").stat().st_uid, (data / "new").stat().st_gid) == (5, 6)


# --- what it can't ----------------------------------------------------------------------------------------------------

EVERY = capability_mask((), (), privileged=True)


def test_root_inside_has_no_power_over_the_host(driver: Driver, tmp_path: Path) -> None:
    """With all capabilities, nothing masked and no filter, and a descriptor of the host's at hand."""
    theirs = tmp_path / "theirs"
    theirs.write_text("of the host\n")
    theirs.chmod(0o600)
    before = Path("/proc/sys/kernel/core_pattern").read_bytes()
    script = """
        try() { "$@" 2>/dev/null && echo "$*"; }
        try mount -t tmpfs x /tmp; try umount /proc; try mount -o remount,rw /sys
        try sh -c 'echo x >/proc/sys/kernel/core_pattern'; try sh -c 'echo b >/proc/sysrq-trigger'
        try mknod /tmp/disk b 8 0; try hostname x; try swapoff /tmp/x;
        try sh -c 'echo 7 >/proc/sys/vm/swappiness'; try cat /proc/kcore; try insmod /x; try reboot -f
        try nice -n -5 true; try dmesg -c
    """
    result = driver.run("sh", "-c", script, userns=OWN, capabilities=EVERY, privileged=True, network=Network.NONE)
    assert result.stdout == "", result
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == before


def test_what_it_has_power_over_is_its_own(driver: Driver) -> None:
    script = "id -u; chown 9:9 /tmp; su app -c 'id -u'; ip addr add 10.9.9.1/24 dev lo; ip addr"
    shown = driver.run("sh", "-c", script, userns=OWN, network=Network.NONE, capabilities=EVERY)
    assert shown.stdout.splitlines()[0] == "0"
    assert "10.9.9.1" in shown.stdout, shown
    result = said(
        driver, "nc -l -p 80 -w 1 </dev/null 2>&1 | head -1; ping -c1 127.0.0.1 | grep -c ttl", network=Network.NONE
    )
    assert result.split()[-1] == "1"
    assert "ermission" not in result


def test_another_containers_processes_are_out_of_reach(driver: Driver, tmp_path: Path) -> None:
    """Even with a way to what belongs to it: its files are nobody's, and nothing is permitted."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    os.chown(secret, FIRST + (1 << 16), FIRST + (1 << 16))
    secret.chmod(0o600)
    config = driver.config("sleep", "1000", userns=OWN, memory_bytes=MEMORY)
    with driver.started(config) as (pid, _):
        own = driver.own(config)
        assert own is not None
        child = os.fork()
        if child == 0:
            _try_as(own.user, secret)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES
        kill(pid)
        wait(pid)


def _try_as(users: int, path: Path) -> None:
    """Root of the user namespace, but of no other of the container's: the end of this process."""
    try:
        linux.setns(users, linux.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        path.read_bytes()
        os._exit(0)
    except OSError as error:
        os._exit(error.errno or 1)


# --- commands in it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [Network.HOST, Network.NONE])
def test_a_command_in_it_is_as_it_is(driver: Driver, network: Network) -> None:
    with running(driver, network=network, workdir="/srv/w") as (pid, config):
        spaces = "for s in user net mnt pid uts ipc cgroup; do readlink /proc/self/ns/$s; done"
        first = driver.enter(config, pid, "sh", "-c", f"id -u; pwd; touch x; stat -c %u x; {spaces}")
        assert first.stderr == ""
        assert first.stdout.split()[:3] == ["0", "/srv/w", "0"]
        names = ("user", "net", "mnt", "pid", "uts", "ipc", "cgroup")
        assert first.stdout.split()[3:] == [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]


def test_a_command_has_the_containers_user_namespace_not_one_of_its_process_1(driver: Driver) -> None:
    script = "exec unshare -U sh -c 'echo up; exec sleep 1000'"
    with running(driver, script, capabilities=EVERY) as (pid, config):
        assert driver.enter(config, pid, "cat", "/proc/self/uid_map").stdout.split() == ["0", str(FIRST), "65536"]


def test_its_limits_hold_for_commands_too(driver: Driver) -> None:
    with running(driver, rlimits=((resource.RLIMIT_NOFILE, 100, 200),), init=True) as (pid, config):
        assert driver.enter(config, pid, "sh", "-c", "ulimit -n; ulimit -Hn").stdout == "100\n200\n"
