"""What a process inside a container sees, has and can't do."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from driver import Driver, LaunchError, wait

from runtime import security
from runtime.config import Network
from runtime.status import Exited, Signaled
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000, 44), "app", "/home/app")


def lines(driver: Driver, *argv: str, **changes: object) -> list[str]:
    """What a command writes, by line; it must succeed."""
    result = driver.run(*argv, **changes)
    assert result.status == Exited(0), result
    return result.stdout.splitlines()


def status_field(driver: Driver, name: str, **changes: object) -> str:
    """A field of /proc/self/status."""
    (line,) = lines(driver, "grep", f"^{name}:", "/proc/self/status", **changes)
    return line.split("\t", 1)[1]


def test_a_process_sees_only_its_own_processes(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "ls -d /proc/[0-9]*; true") == ["/proc/1"]


def test_the_command_is_process_1(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "echo $$") == ["1"]


def test_nothing_of_the_hosts_mounts_is_left(driver: Driver) -> None:
    targets = {line.split()[4] for line in lines(driver, "cat", "/proc/self/mountinfo")}
    made = {"/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/proc", "/sys", "/etc/hosts", "/etc/hostname"}
    assert made <= targets
    assert all(target.startswith(("/dev", "/proc", "/sys", "/etc")) for target in targets - {"/"})


def test_the_root_is_an_overlay_of_the_image(driver: Driver) -> None:
    assert "busybox" in lines(driver, "ls", "/bin")
    assert any(" / / " in line and " overlay " in line for line in lines(driver, "cat", "/proc/self/mountinfo"))


def test_files_of_the_host_can_not_be_reached(driver: Driver, state: Path) -> None:
    assert driver.run("ls", str(state)).status == Exited(1)
    assert lines(driver, "sh", "-c", "cd ..; cd ../../..; ls -d bin") == ["bin"]


def test_the_image_is_never_written_to(driver: Driver, image: Path) -> None:
    before = snapshot(image)
    script = "echo x > /new; rm /bin/wc; echo y >> /etc/passwd; chmod 700 /tmp; mkdir /bin/d; mv /etc/group /etc/g"
    assert driver.run("sh", "-c", script).status == Exited(0)
    assert snapshot(image) == before


def snapshot(root: Path) -> list[tuple[str, os.stat_result, bytes]]:
    """Every file of a tree with what it holds; access times left out."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kept = os.stat_result((*status[:7], 0, status.st_mtime, status.st_ctime))
        found.append((str(path), kept, path.read_bytes() if path.is_file() and not path.is_symlink() else b""))
    return found


def test_two_runs_do_not_see_each_others_files(driver: Driver) -> None:
    lines(driver, "touch", "/mark")
    assert driver.run("ls", "/mark").status == Exited(1)


def test_the_host_name_is_its_own(driver: Driver) -> None:
    before = os.uname().nodename
    assert lines(driver, "hostname", hostname="box") == ["box"]
    assert lines(driver, "cat", "/etc/hostname", hostname="box") == ["box"]
    assert any(line.endswith("\tbox") for line in lines(driver, "cat", "/etc/hosts", hostname="box"))
    assert os.uname().nodename == before


@pytest.mark.parametrize("target", ["../run/systemd/resolve/stub-resolv.conf", "/nowhere", "resolv.conf"])
def test_a_link_of_the_image_that_leads_nowhere_gives_way_to_a_file(
    driver: Driver, tmp_path: Path, target: str
) -> None:
    image = tmp_path / "installed"
    shutil.copytree(driver.image, image, symlinks=True)
    (image / "etc/resolv.conf").unlink(missing_ok=True)
    (image / "etc/resolv.conf").symlink_to(target)
    (image / "etc/hosts").unlink(missing_ok=True)
    (image / "etc/hosts").symlink_to("names")
    (image / "etc/names").touch()
    driver.attach(image)
    script = "cat /etc/resolv.conf; tail -n 1 /etc/names; readlink /etc/hosts"
    shown = driver.run("sh", "-c", script, lowers=(str(image),), resolv_conf=b"nameserver ::1\n", hostname="box")
    assert shown.stdout.split("\n") == ["nameserver ::1", "127.0.1.1\tbox", "names", ""]
    assert os.readlink(image / "etc/resolv.conf") == target


def test_only_the_standard_descriptors_are_open(driver: Driver) -> None:
    shown = lines(driver, "sh", "-c", "ls /proc/$$/fd; true")
    assert shown == ["0", "1", "2"]


def test_nothing_of_the_hosts_environment_is_inherited(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert lines(driver, "env") == ["PATH=/bin"]


@pytest.mark.parametrize("name", ["CapPrm", "CapEff", "CapBnd"])
def test_root_has_the_14_capabilities_that_docker_leaves(driver: Driver, name: str) -> None:
    assert int(status_field(driver, name), 16) == 0xA80425FB


@pytest.mark.parametrize("name", ["CapInh", "CapAmb"])
def test_inheritable_and_ambient_are_empty(driver: Driver, name: str) -> None:
    assert int(status_field(driver, name), 16) == 0


@pytest.mark.parametrize("name", ["CapPrm", "CapEff"])
def test_a_user_other_than_root_has_no_capabilities(driver: Driver, name: str) -> None:
    assert int(status_field(driver, name, user=APP), 16) == 0


def test_capabilities_are_added_and_dropped(driver: Driver) -> None:
    mask = security.capability_mask(["CAP_NET_ADMIN"], ["ALL"], privileged=False)
    assert int(status_field(driver, "CapEff", capabilities=mask), 16) == 1 << 12


def test_no_new_privs_is_set(driver: Driver) -> None:
    assert status_field(driver, "NoNewPrivs") == "1"


def test_privileged_has_every_capability_and_nothing_masked(driver: Driver) -> None:
    every = security.capability_mask([], [], privileged=True)
    assert int(status_field(driver, "CapEff", privileged=True, capabilities=every), 16) == every
    assert status_field(driver, "NoNewPrivs", privileged=True, capabilities=every) == "0"
    assert lines(driver, "sh", "-c", "echo x > /proc/sys/kernel/hostname", privileged=True) == []


def test_the_signal_state_is_clean(driver: Driver) -> None:
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        assert int(status_field(driver, name), 16) == 0, name


def test_it_leads_a_session_of_its_own(driver: Driver) -> None:
    fields = lines(driver, "sh", "-c", "cat /proc/1/stat")[0].rpartition(")")[2].split()
    assert fields[2:4] == ["1", "1"]  # process group and session


def test_a_user_runs_with_its_groups(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "id -u; id -g; id -G", user=APP) == ["1000", "1000", "1000 44"]


def test_a_user_can_open_its_standard_streams_again(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "echo again > /dev/stdout", user=APP) == ["again"]


def test_umask_and_working_directory(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "umask; pwd", umask=0o077, workdir="/srv/new") == ["0077", "/srv/new"]


def test_limits_are_set(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "ulimit -n; ulimit -Hn", rlimits=((7, 64, 128),)) == ["64", "128"]


@pytest.mark.parametrize("resource", [2, 7, 9])  # data, nofile, as: what the child itself lives on
def test_the_tightest_limits_do_not_keep_a_container_from_starting(driver: Driver, resource: int) -> None:
    result = driver.run("true", rlimits=((resource, 3, 3),))
    assert isinstance(result.status, Exited | Signaled)  # the command may fail, but it was reached


def test_a_private_network_has_nothing_but_loopback_and_that_is_up(driver: Driver) -> None:
    shown = lines(driver, "ip", "-o", "link", network=Network.NONE)
    assert len(shown) == 1
    assert "lo: <LOOPBACK,UP" in shown[0]
    assert lines(driver, "ping", "-c1", "-w2", "127.0.0.1", network=Network.NONE)


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"])
def test_telling_files_of_proc_are_masked(driver: Driver, path: str) -> None:
    if not Path(path).exists():
        assert driver.run("ls", path).status == Exited(1)
    else:
        assert lines(driver, "cat", path) == []


@pytest.mark.parametrize("path", ["/proc/acpi", "/proc/scsi", "/sys/firmware"])
def test_telling_directories_are_masked(driver: Driver, path: str) -> None:
    if not Path(path).exists():
        assert driver.run("ls", path).status == Exited(1)
    else:
        assert lines(driver, "ls", "-A", path) == []
        assert driver.run("touch", f"{path}/x").status == Exited(1)


def test_nothing_can_be_put_into_what_hides_a_directory(driver: Driver) -> None:
    """All containers' are the same one: nobody may leave anything in it for the others, whatever he may do."""
    mask = security.capability_mask(["ALL"], [], privileged=False)
    script = "mount -o remount,bind,rw /sys/firmware && mkdir /sys/firmware/x"
    result = driver.run("sh", "-c", script, capabilities=mask)
    assert result.status == Exited(1)
    assert "mkdir" in result.stderr


def test_proc_itself_can_be_written(driver: Driver) -> None:
    assert lines(driver, "sh", "-c", "echo 321 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj") == ["321"]


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/profiling", "/sys/x"]
)
def test_kernel_settings_can_not_be_written(driver: Driver, path: str) -> None:
    result = driver.run("sh", "-c", f"echo x > {path}")
    assert result.status == Exited(1)


def test_the_nodes_of_dev_work(driver: Driver) -> None:
    script = "echo x > /dev/null; head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; echo x > /dev/full"
    result = driver.run("sh", "-c", script)
    assert result.stdout.split() == ["4", "4"]
    assert "No space left" in result.stderr
    nodes = {"full", "null", "ptmx", "random", "tty", "urandom", "zero"}
    names = nodes | {"fd", "mqueue", "pts", "shm", "stderr", "stdin", "stdout"}
    assert set(lines(driver, "ls", "/dev")) == names


def test_mount_is_refused_inside(driver: Driver) -> None:
    assert driver.run("mount", "-t", "tmpfs", "none", "/tmp").status == Exited(1)
    assert driver.run("umount", "/proc").status == Exited(1)


@pytest.mark.parametrize("target", ["/tmp/gone", "../../../../../../tmp", "/etc", "/proc/self/root", "/bin"])
@pytest.mark.parametrize("name", ["proc", "dev", "sys"])
def test_a_symlink_where_we_mount_never_leads_out(
    tmp_path: Path, state: Path, image: Path, name: str, target: str
) -> None:
    mine = tmp_path / "image"
    for part in ("bin", "tmp", "etc"):
        (mine / part).mkdir(parents=True)
    (mine / "bin/busybox").write_bytes((image / "bin/busybox").read_bytes())
    (mine / "bin/busybox").chmod(0o755)
    (mine / name).symlink_to(target)
    host = {path: ours_in(path) for path in ("/tmp", "/etc", "/bin")}
    with Driver(state, mine) as driver:
        try:
            driver.run("/bin/busybox", "true")
        except LaunchError as error:
            assert str(error).startswith("c: ")
    assert {path: ours_in(path) for path in host} == host


def ours_in(path: str) -> set[str]:
    """Which of the names that we make when we mount are in a directory of the host."""
    return {"gone", "hosts", "hostname", ".hosts", "null", "pts", "shm", "1", "kernel"} & set(os.listdir(path))


def test_an_image_without_any_directory_but_the_programs_works(tmp_path: Path, state: Path, image: Path) -> None:
    mine = tmp_path / "image"
    (mine / "bin").mkdir(parents=True)
    (mine / "bin/busybox").write_bytes((image / "bin/busybox").read_bytes())
    (mine / "bin/busybox").chmod(0o755)
    with Driver(state, mine) as driver:
        assert driver.run("/bin/busybox", "cat", "/etc/hostname").stdout == "c\n"


@pytest.mark.parametrize("path", ["/proc/self/fd/3", "/proc/1/cwd", "/proc/self/root"])
def test_a_working_directory_by_a_magic_link_is_refused(driver: Driver, path: str) -> None:
    with pytest.raises(LaunchError, match="working directory"):
        driver.run("true", workdir=path)


def test_a_kept_upper_is_there_again(driver: Driver, state: Path) -> None:
    lines(driver, "sh", "-c", "echo kept > /mark", keep=True)
    assert (state / "c/upper/mark").read_text() == "kept\n"
    assert lines(driver, "cat", "/mark", keep=True) == ["kept"]


def test_storage_in_memory_is_limited_and_leaves_nothing_on_disk(driver: Driver, state: Path) -> None:
    result = driver.run("dd", "if=/dev/zero", "of=/big", "bs=1M", "count=9", memory_bytes=4 << 20)
    assert result.status == Exited(1)
    assert "No space left" in result.stderr
    assert list(state.iterdir()) == []


def test_the_end_of_process_1_is_the_end_of_all(driver: Driver) -> None:
    result = driver.run("sh", "-c", "sleep 1000 & sleep 1000 & exit 3")
    assert result.status == Exited(3)  # and reading its pipes to the end did not hang on the sleepers


def test_killing_process_1_kills_the_rest(driver: Driver) -> None:
    config = driver.config("sh", "-c", "sleep 1000 & echo up; wait")
    with driver.started(config) as (pid, made):
        assert made.stdout is not None
        os.set_blocking(made.stdout, True)
        assert os.read(made.stdout, 3) == b"up\n"
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == Signaled(signal.SIGKILL)
        assert os.read(made.stdout, 1) == b""
