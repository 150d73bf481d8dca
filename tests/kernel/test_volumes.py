"""What a container sees of the host's files, and what it is given in memory: on the real kernel, by both loops."""

import os
import stat
from pathlib import Path

import pytest
from driver import Driver, LaunchError, Result, apart, kill, read_until, wait

from runtime.config import Network
from runtime.mounts import DATA, NO_PROGRAMS, READ_ONLY, Bind, Device, MemoryFile, Mount, Propagation, Tmpfs
from runtime.status import Exited
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000,), "app", "/home/app")
OTHER = User(1, 1, (1,), "other", "/")
MEMORY = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of the host with a file in it."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "file").write_text("of the host\n")
    return path


def sh(driver: Driver, script: str, *mounts: Mount, **changes: object) -> Result:
    return driver.run("sh", "-c", script, mounts=mounts, **{"memory_bytes": MEMORY, **changes})


def said(driver: Driver, script: str, *mounts: Mount, **changes: object) -> str:
    """What it writes, and no complaints."""
    result = sh(driver, script, *mounts, **changes)
    assert (result.stderr, result.status) == ("", Exited(0))
    return result.stdout


def refused(driver: Driver, *mounts: Mount, **changes: object) -> str:
    with pytest.raises(LaunchError) as raised:
        sh(driver, "true", *mounts, **changes)
    return str(raised.value)


# --- binds ------------------------------------------------------------------------------------------------------------


def test_a_directory_is_read_and_written(driver: Driver, data: Path) -> None:
    bind = Bind(source=str(data), target="/srv/data")
    assert said(driver, "cat /srv/data/file; echo new >/srv/data/new", bind) == "of the host\n"
    assert (data / "new").read_text() == "new\n"


def test_a_file_too(driver: Driver, data: Path) -> None:
    bind = Bind(source=str(data / "file"), target="/etc/some/file")
    assert said(driver, "cat /etc/some/file; echo more >>/etc/some/file", bind) == "of the host\n"
    assert (data / "file").read_text() == "of the host\nmore\n"


def test_read_only_holds_below_too(driver: Driver, data: Path) -> None:
    inner = data / "inner"
    inner.mkdir()
    bind = Bind(source=str(data), target="/data", attributes=DATA | READ_ONLY)
    for path in ("/data/x", "/data/inner/x"):
        result = sh(driver, f"touch {path}", bind)
        assert "Read-only file system" in result.stderr
    assert not (inner / "x").exists()


def test_what_is_data_has_no_privileges_and_no_devices(driver: Driver, data: Path) -> None:
    script = "grep ' /data ' /proc/self/mountinfo; mknod /data/zero c 1 5; head -c1 /data/zero"
    result = sh(driver, script, Bind(source=str(data), target="/data"))
    line, _, _ = result.stdout.partition("\n")
    assert {"rw", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    assert "noexec" not in line
    assert "Permission denied" in result.stderr


def test_programs_run_from_it_unless_told_otherwise(driver: Driver, data: Path) -> None:
    (data / "run").write_text("#!/bin/sh\necho ran\n")
    (data / "run").chmod(0o755)
    assert said(driver, "/data/run", Bind(source=str(data), target="/data")) == "ran\n"
    result = sh(driver, "/data/run", Bind(source=str(data), target="/data", attributes=NO_PROGRAMS))
    assert result.status == Exited(126)


def test_it_is_private_or_a_slave(driver: Driver, data: Path) -> None:
    script = "grep -o ' /data .*' /proc/self/mountinfo"
    assert "master:" not in said(driver, script, Bind(source=str(data), target="/data"))
    slave = Bind(source=str(data), target="/data", propagation=Propagation.SLAVE)
    assert "shared:" not in said(driver, script, slave)


def test_one_in_another_whatever_it_is_called(driver: Driver, data: Path) -> None:
    mounts = (Bind(source=str(data), target="/a"), Tmpfs(target="/a/b"), Bind(source=str(data), target="/a/b/c"))
    assert said(driver, "cat /a/b/c/file", *mounts) == "of the host\n"


def test_a_source_that_is_not_there_is_made_if_that_is_asked_for(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "new" / "deep"
    said(driver, "touch /data/x", Bind(source=str(source), target="/data", create=True))
    assert (source / "x").exists()
    assert stat.S_IMODE(source.stat().st_mode) == 0o755


def test_and_told_of_otherwise(driver: Driver, tmp_path: Path) -> None:
    what = f"c: open {tmp_path}/nothing, the source of /data: not there"
    assert refused(driver, Bind(source=f"{tmp_path}/nothing", target="/data")) == what


@pytest.fixture
def many(driver: Driver, tmp_path: Path) -> list[Mount]:
    del driver
    for number in range(60):
        (tmp_path / f"m{number}").mkdir()
    return [Bind(source=f"{tmp_path}/m{number}", target=f"/m{number}") for number in range(60)]


def test_there_may_be_many(driver: Driver, many: list[Mount]) -> None:
    assert said(driver, "grep -c ' /m[0-9]* ' /proc/self/mountinfo", *many) == "60\n"


def test_nothing_of_them_is_open_inside(driver: Driver, many: list[Mount]) -> None:
    secret = MemoryFile(target="/run/secrets/s", contents=b"s")
    assert said(driver, "ls /proc/self/fd | wc -l", *many, secret) == "4\n"  # 0, 1, 2 and the one of ls


def test_the_host_sees_no_mount(driver: Driver, data: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    said(driver, "true", Bind(source=str(data), target="/data"), Tmpfs(target="/t"))
    assert Path("/proc/self/mountinfo").read_text() == before


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_tmpfs_has_size_mode_and_owner(driver: Driver) -> None:
    tmpfs = Tmpfs(target="/scratch", size_bytes=1 << 20, mode=0o750, uid=1000, gid=1000)
    script = "stat -c '%a %u %g' /scratch; df -k /scratch | tail -1; grep ' /scratch ' /proc/self/mountinfo"
    first, size, line = said(driver, script, tmpfs).splitlines()
    assert first == "750 1000 1000"
    assert size.split()[1] == "1024"
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))


def test_a_secret_is_the_users_alone_and_can_not_be_changed(driver: Driver) -> None:
    secret = MemoryFile(target="/run/secrets/key", contents=b"hush", uid=1000, gid=1000)
    read = "cat /run/secrets/key"
    script = f"{read}; stat -c ' %a %u %g' /run/secrets/key; chmod 600 /run/secrets/key; ls /dev/.* -d"
    result = sh(driver, script, secret, user=APP)
    assert result.stdout.splitlines() == ["hush 400 1000 1000", "/dev/.", "/dev/.."]
    assert "Read-only file system" in result.stderr
    assert "Permission denied" in sh(driver, read, secret, user=OTHER).stderr


def test_several_have_their_own_contents(driver: Driver) -> None:
    files = [MemoryFile(target=f"/s/{n}", contents=bytes([65 + n]) * (n * 5000)) for n in range(4)]
    assert said(driver, "wc -c /s/*|sed 's/ *//'; cat /s/* | tr -d B", *files).endswith("C" * 10000 + "D" * 15000)


def test_a_secret_is_on_no_disk(driver: Driver) -> None:
    secret = MemoryFile(target="/run/secrets/key", contents=b"hush-hush-hush")
    config = driver.config("sh", "-c", "echo up; sleep 1000", mounts=(secret,))
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        files = [path for path in driver.state.rglob("*") if path.is_file()]
        assert [path.name for path in files if path.stat().st_size] == []
        kill(pid)
        wait(pid)


# --- root, devices, sysctls, shm -------------------------------------------------------------------------------------


def test_a_read_only_root_takes_no_writes_but_what_is_mounted_does(driver: Driver, data: Path) -> None:
    mounts = (Bind(source=str(data), target="/new/data"), Tmpfs(target="/tmp"))
    script = "touch /x /tmp/x /new/data/x /dev/shm/x; pwd; ls / /new"
    result = sh(driver, script, *mounts, read_only=True, workdir="/made")
    assert result.stderr.splitlines() == ["touch: /x: Read-only file system"]
    assert result.stdout.splitlines()[0] == "/made"
    assert (data / "x").exists()


def test_a_device_is_shown_and_its_node_is_its_own(driver: Driver) -> None:
    script = "head -c2 /dev/deep/z | wc -c; stat -c %t,%T /dev/deep/z; chmod 0 /dev/deep/z"
    before = os.stat("/dev/zero").st_mode
    assert said(driver, script, devices=(Device("/dev/zero", "/dev/deep/z"),)) == "2\n1,5\n"
    assert os.stat("/dev/zero").st_mode == before


def test_what_is_no_device_is_told(driver: Driver, data: Path) -> None:
    devices = (Device(str(data / "file"), "/dev/x"),)
    assert refused(driver, devices=devices) == f"c: find the device {data}/file: it is no device"


def test_shm_has_its_size(driver: Driver) -> None:
    assert said(driver, "df -k /dev/shm | tail -1", shm_bytes=3 << 20).split()[1] == "3072"


def test_sysctls_are_set_in_its_own_namespaces(driver: Driver) -> None:
    name = "net/ipv4/ip_forward"
    host = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    value = "0" if host.strip() == "1" else "1"
    sysctls = (("net.ipv4.ip_forward", value), ("kernel.msgmax", "65000"))
    script = f"cat /proc/sys/{name} /proc/sys/kernel/msgmax"
    assert said(driver, script, sysctls=sysctls, network=Network.NONE).split() == [value, "65000"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == host


def test_a_sysctl_that_is_not_there_is_told(driver: Driver) -> None:
    what = "c: set the sysctl kernel.nothing to 1: this kernel has none of this name in a container's own namespaces"
    assert refused(driver, sysctls=(("kernel.nothing", "1"),)) == what


# --- known ways out ---------------------------------------------------------------------------------------------------


SWAP = """
import os, sys, time
shared = sys.argv[1]
print("up", flush=True)
end = time.monotonic() + 3
while time.monotonic() < end:
    os.rename(f"{shared}/a", f"{shared}/dir"); os.rename(f"{shared}/link", f"{shared}/a")
    os.rename(f"{shared}/a", f"{shared}/link"); os.rename(f"{shared}/dir", f"{shared}/a")
"""


@pytest.mark.parametrize("out", ["/", "../../../../../..", "/proc/1/root", "/proc/self/cwd"])
def test_cve_2021_30465_a_target_that_is_swapped_for_a_link_leads_nowhere(driver: Driver, data: Path, out: str) -> None:
    """Another container that shares the volume makes a link of the directory that a target is in, again and again: what
    is mounted there is in the container, wherever it is, and never on the host.
    """
    (data / "a/b").mkdir(parents=True)
    (data / "link").symlink_to(out)
    marked = data.parent / "marked"
    marked.mkdir()
    before = Path("/proc/self/mountinfo").read_text()
    mounts = (Bind(source=str(data), target="/shared"), Bind(source=str(marked), target="/shared/a/b"))
    with apart(SWAP, str(data)) as swapping:
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == "up\n"
        for _ in range(20):
            try:
                result = sh(driver, "ls -d /etc /bin && grep -c marked /proc/self/mountinfo", *mounts)
            except LaunchError as error:  # the link leads nowhere, or the directory is just not there
                assert "mount" in str(error)
                continue
            assert result.stdout.split() == ["/bin", "/etc", "1"]
        swapping.kill()
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not list(marked.iterdir())


@pytest.mark.parametrize("link", ["/proc/sys", "/proc/self/fd/9", "/sys/kernel", "../../proc"])
def test_cve_2025_31133_and_52565_nothing_is_mounted_over_the_kernels_files(
    trapped: Driver, mine: Path, data: Path, link: str
) -> None:
    """A target that is a symbolic link into /proc or /sys: it leads nowhere, or is covered by the kernel's own."""
    (mine / "trap").symlink_to(link)
    (mine / "proc").mkdir()
    bind = Bind(source=str(data), target="/trap")
    try:
        result = sh(trapped, "stat -f -c %T /proc /proc/sys /sys; echo x > /proc/sys/kernel/hostname", bind)
    except LaunchError as error:
        assert "a symbolic link of the image or of a volume leads nowhere there" in str(error)
    else:
        assert result.stdout.split() == ["proc", "proc", "sysfs"]
        assert "Read-only file system" in result.stderr


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_cve_2019_19921_the_kernels_file_systems_are_never_in_a_volume(
    trapped: Driver, mine: Path, data: Path, name: str
) -> None:
    """By way of a symbolic link of the image's: there, others could swap what is masked, and see what is in /dev."""
    (data / name).mkdir()
    (mine / name).symlink_to(f"/data/{name}")
    said = refused(trapped, Bind(source=str(data), target="/data"), MemoryFile(target="/key", contents=b"hush"))
    assert said.startswith(f"c: mount /{name}")
    assert list((data / name).iterdir()) == []


def test_cve_2025_52881_a_sysctl_is_written_to_the_kernels_proc_alone(trapped: Driver, mine: Path, data: Path) -> None:
    """Whatever a volume or the image has made of /proc/sys, and of a file in it."""
    (mine / "proc/sys/kernel").mkdir(parents=True)
    (mine / "proc/sys/kernel/msgmax").symlink_to("/data/file")
    bind = Bind(source=str(data), target="/data")
    trap = Bind(source=str(data), target="/proc")  # which no spec lets through
    result = sh(trapped, "cat /proc/sys/kernel/msgmax", bind, trap, sysctls=(("kernel.msgmax", "65001"),))
    assert result.stdout == "65001\n"
    assert (data / "file").read_text() == "of the host\n"


def test_a_source_is_not_followed_through_a_link_that_came_later(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    for source in (f"{tmp_path}/out", f"{tmp_path}/out/new"):
        said = refused(driver, Bind(source=source, target="/data", create=True))
        assert "that was not there when the spec was read" in said or "not a directory" in said
    assert not Path("/etc/new").exists()


@pytest.mark.parametrize("link", ["/etc", "../../../../../../etc", "/proc/self/root/etc"])
def test_a_part_of_a_volume_is_in_the_volume(driver: Driver, data: Path, link: str) -> None:
    (data / "part").symlink_to(link)
    assert "open " in refused(driver, Bind(source=str(data), target="/data", below="part"))
    (data / "etc").mkdir()
    (data / "etc/mine").touch()
    if not link.startswith("/proc"):
        assert said(driver, "ls /data", Bind(source=str(data), target="/data", below="part")) == "mine\n"
