"""What can go wrong on the way to execve: the user reads which container, which step, and what to
do; nothing is left.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import Driver, LaunchError, Spoil, run_apart

from runtime import linux, program
from runtime.build import build_plan
from runtime.config import ContainerConfig, Network
from runtime.errors import ImageError
from runtime.idmap import block
from runtime.lower import lower_plan
from runtime.mounts import Bind, Device, MemoryFile, Tmpfs
from runtime.status import Exited
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000, 44), "app", "/home/app")
NO_SUCH_CALL = 0x7FFF


def full(driver: Driver, **changes: object) -> ContainerConfig:
    """A container whose plan has every kind of step."""
    changes = {
        "workdir": "/srv/new",
        "network": Network.NONE,
        "rlimits": ((1, -1, -1),),
        "resolv_conf": b"nameserver 127.0.0.1\n",
        "user": APP,
        "mounts": (
            Bind(source="/tmp", target="/srv/deep/bind"),
            Tmpfs(target="/srv/tmpfs"),
            MemoryFile(target="/run/secrets/s", contents=b"s", uid=1, gid=1),
        ),
        "devices": (Device("/dev/tty", "/dev/deep/terminal"),),
        "capabilities": 1 << 27,  # CAP_MKNOD
        "read_only": True,
        "sysctls": (("kernel.msgmax", "65000"),),
        **changes,
    }
    return driver.config("sh", "-c", "echo executed", **changes)


def spoiled(index: int) -> Spoil:
    """A program in which call `index` does not exist: ENOSYS, which no rule forgives."""

    def spoil(image: bytes) -> bytes:
        place = program.HEADER.size + index * program.CALL.size
        return image[:place] + program.WORD.pack(NO_SUCH_CALL) + image[place + program.WORD.size :]

    return spoil


KINDS: dict[str, dict[str, object]] = {"disk": {}, "memory and terminal": {"memory_bytes": 1 << 20, "terminal": True}}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_an_error_of_any_call_is_told_and_leaves_nothing(driver: Driver, changes: dict[str, object]) -> None:
    check_every_call(driver, full(driver, **changes))


def test_an_error_of_any_call_with_ids_of_its_own_too(driver: Driver) -> None:
    check_every_call(driver, full(driver, userns=block(1 << 31)))


@pytest.mark.parametrize("driver", ["python"], indirect=True)  # an init is always made by the loop in Python
@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_an_error_of_any_call_on_the_way_to_an_init_too(driver: Driver, changes: dict[str, object]) -> None:
    check_every_call(driver, full(driver, init=True, **changes))


def check_every_call(driver: Driver, config: ContainerConfig) -> None:
    """Fail each call in turn."""
    plan = build_plan(config, ids=config.userns)
    steps = lower_plan(plan).steps
    wrong = []
    for index, step in enumerate(steps):
        said = failure(driver, config, spoiled(index))
        expected = f"c: {plan.steps[step].describe()}: this kernel lacks the system call"
        if not said.startswith(expected) or left(driver):
            wrong.append((index, expected, said, left(driver)))
    assert wrong == []
    assert {*steps} == {*range(len(plan.steps))}  # there is no step without a call


def failure(driver: Driver, config: ContainerConfig, spoil: Spoil = bytes) -> str:
    """What is said when it can't be started. The driver checks that the command wrote nothing and is dead."""
    with pytest.raises(LaunchError) as raised, driver.started(config, spoil):
        pass
    return str(raised.value)


def left(driver: Driver) -> list[Path]:
    return list(driver.state.iterdir())


# --- what users get wrong --------------------------------------------------------------------------------------------

MakeLayer = Callable[[dict[str, str]], tuple[str, str]]


@pytest.fixture
def layer(driver: Driver, tmp_path: Path) -> MakeLayer:
    """Makes a layer of programs over the image, each with what it holds; returns both."""

    def make(programs: dict[str, str]) -> tuple[str, str]:
        top = tmp_path / "layer"
        for name, text in programs.items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text)
            (top / name).chmod(0o755)
        driver.attach(top)
        return str(top), str(driver.image)

    return make


def refused(driver: Driver, *argv: str, **changes: object) -> tuple[str, int]:
    """What is said, and the exit status for it."""
    with pytest.raises(LaunchError) as raised:
        driver.run(*argv, **changes)
    assert left(driver) == []
    return str(raised.value), raised.value.exit_status


def says(driver: Driver, name: str, layers: tuple[str, str], *path: str, **changes: object) -> str:
    """What a program that is looked for in these directories writes."""
    result = driver.run(name, lowers=layers, env=(("PATH", ":".join(path)),), **changes)
    assert result.status == Exited(0)
    return result.stdout.strip()


NOT_FOUND = "not found in the image: check cmd and PATH, or the interpreter that its first line names"
NO_PERMISSION = "not executable: it lacks the x bit, is a directory, or lies where the user can't reach it"
FULL = "the file system is full: make room, or use another one with --state"
TOO_FULL = "read-only, or too full for an overlay: make room, or use another file system with --state"
ECHO = "#!/bin/sh\necho {}\n"


@pytest.mark.parametrize("program", ["nothing", "/bin/nothing", "./nothing"])
def test_a_program_that_is_not_there_is_127(driver: Driver, program: str) -> None:
    assert refused(driver, program) == (f"c: execute {program}: {NOT_FOUND}", 127)


def test_a_program_below_a_file_is_127(driver: Driver) -> None:
    advice = "not found in the image: a part of the path is no directory"
    assert refused(driver, "/etc/passwd/sh") == (f"c: execute /etc/passwd/sh: {advice}", 127)


@pytest.mark.parametrize("program", ["/etc/passwd", "/etc"])
def test_a_program_without_the_x_bit_or_a_directory_is_126(driver: Driver, program: str) -> None:
    assert refused(driver, program) == (f"c: execute {program}: {NO_PERMISSION}", 126)


@pytest.mark.parametrize("text", ["junk\n", "", "\x7fELF"])
def test_a_file_that_is_no_program_is_126(driver: Driver, layer: MakeLayer, text: str) -> None:
    advice = "not executable: neither a program of this machine's kind nor a script with #!"
    assert refused(driver, "/junk", lowers=layer({"junk": text})) == (f"c: execute /junk: {advice}", 126)


def test_a_script_without_its_interpreter_is_127(driver: Driver, layer: MakeLayer) -> None:
    layers = layer({"script": "#!/usr/bin/perl6\n"})
    assert refused(driver, "/script", lowers=layers) == (f"c: execute /script: {NOT_FOUND}", 127)


def test_a_working_directory_that_is_a_file_is_refused(driver: Driver) -> None:
    said, status = refused(driver, "true", workdir="/etc/passwd")
    assert (said, status) == ("c: enter the working directory /etc/passwd: not a directory in the image", 125)


def test_a_working_directory_below_a_file_is_refused(driver: Driver) -> None:
    said, status = refused(driver, "true", workdir="/etc/passwd/sub")
    advice = "a part of the path is no directory in the image"
    assert (said, status) == (f"c: make the working directory /etc/passwd/sub: {advice}", 125)


def test_an_image_that_is_not_there_is_refused(driver: Driver) -> None:
    with pytest.raises(ImageError, match=r"^image /nowhere: No such file or directory$"):
        driver.run("true", lowers=("/nowhere",))


def test_an_image_that_vanishes_before_the_start_is_told(driver: Driver, layer: MakeLayer, tmp_path: Path) -> None:
    layers = layer({"gone/x": ""})
    gone = tmp_path / "layer/gone"

    def vanish(image: bytes) -> bytes:
        (gone / "x").unlink()
        gone.rmdir()
        return image

    said = failure(driver, driver.config("true", lowers=(str(gone), layers[1])), vanish)
    assert said.startswith(f"c: mount overlay of {gone}:{layers[1]} with its upper in ")
    assert said.endswith(": the image or the container's directory is gone")
    assert left(driver) == []


def test_a_directory_in_use_is_told(driver: Driver) -> None:
    (driver.state / "c").mkdir()
    said, status = refused(driver, "true")
    directory = driver.state / "c"
    assert said == f"c: make upper, work and merged in {directory}: the directory is in use or was left behind"
    assert status == 125


@pytest.fixture
def small(driver: Driver) -> Iterator[Callable[[int], tuple[Path, int]]]:
    """Makes a tmpfs for so many files, that only the launcher sees: (where, a descriptor of its root)."""
    opened = []

    def make(files: int) -> tuple[Path, int]:
        mount = linux.detached_mount("tmpfs", {"nr_inodes": str(files + 1)}, 0)
        opened.append(mount)
        opened.append(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount))
        driver.attach_mount(driver.state / f"small-{files}", mount)
        return driver.state / f"small-{files}", opened[-1]

    yield make
    for descriptor in opened:
        os.close(descriptor)


def test_a_full_file_system_is_told_wherever_it_is_met(
    driver: Driver, small: Callable[[int], tuple[Path, int]]
) -> None:
    met = []
    for files in range(12):
        directory, root = small(files)
        with contextlib.suppress(LaunchError):
            driver.run("true", directory=str(directory / "c"))
            break
        met.append(failure(driver, driver.config("true", directory=str(directory / "c"))))
        assert os.listdir(root) == []
    assert [line for line in met if not re.fullmatch(f"c: .*: ({FULL}|{TOO_FULL})", line)] == []
    steps = " ".join(line.split(" ")[1] for line in met)
    assert "make" in steps
    assert "mount" in steps


NO_PID_NAMESPACES = """
import sys
from pathlib import Path
from driver import Driver, LaunchError

state, image = map(Path, sys.argv[1:3])
Path("/proc/sys/user/max_pid_namespaces").write_text("0")
with Driver(state, image, in_python=sys.argv[3] == "True") as driver:
    try:
        driver.run("true")
    except LaunchError as error:
        print(error)
    print(list(state.iterdir()))
"""


def test_too_many_namespaces_is_told(driver: Driver) -> None:
    """The limit is that of a user namespace made for it: the host's stays as it is."""
    arguments = (str(driver.state), str(driver.image), str(driver.in_python))
    said = run_apart(NO_PID_NAMESPACES, *arguments, under=("unshare", "--user", "--map-root-user", "--mount"))
    advice = "no more namespaces: raise the limits in /proc/sys/user"
    assert said.splitlines() == [f"c: clone into new namespaces: {advice}", "[]"]


def test_arguments_longer_than_the_kernel_takes_are_126(driver: Driver) -> None:
    said, status = refused(driver, "true", "x" * (128 << 10))
    assert (said, status) == ("c: execute true: arguments and environment are too long", 126)


def test_arguments_longer_than_a_request_may_be_are_126(driver: Driver) -> None:
    said, status = refused(driver, "true", *(f"{number}" * 65536 for number in range(65)))
    assert said.startswith("c: arguments and environment are too long: ")
    assert status == 126


def test_a_big_environment_arrives_intact(driver: Driver) -> None:
    env = (("PATH", "/bin"), *((f"NAME{number}", f"{number}-" * 20_000) for number in range(10)))
    assert driver.run("env", env=env).stdout.splitlines() == [f"{name}={value}" for name, value in env]


# --- where programs are looked for: execvp(3), by the container's own PATH -------------------------------------------


def test_the_first_directory_of_the_path_that_has_it_counts(driver: Driver, layer: MakeLayer) -> None:
    layers = layer({"a/prog": ECHO.format("a"), "b/prog": ECHO.format("b")})
    assert says(driver, "prog", layers, "/a", "/b") == "a"
    assert says(driver, "prog", layers, "/b", "/a") == "b"


def test_directories_without_it_are_passed_over(driver: Driver, layer: MakeLayer) -> None:
    layers = layer({"last/prog": ECHO.format("last")})
    assert says(driver, "prog", layers, "/nowhere", "/etc/passwd", "/bin", "/last") == "last"


def test_one_that_may_not_be_executed_is_passed_over(driver: Driver, layer: MakeLayer, tmp_path: Path) -> None:
    layers = layer({"a/prog": "", "b/prog": ECHO.format("b")})
    (tmp_path / "layer/a/prog").chmod(0o644)
    assert says(driver, "prog", layers, "/a", "/b") == "b"


def test_one_that_may_not_be_executed_is_told_when_no_other_is_found(
    driver: Driver, layer: MakeLayer, tmp_path: Path
) -> None:
    layers = layer({"a/prog": ""})
    (tmp_path / "layer/a/prog").chmod(0o644)
    for path in ("/a:/bin", "/bin:/a", "/bin:/a:/etc/passwd"):
        said = refused(driver, "prog", lowers=layers, env=(("PATH", path),))
        assert said == (f"c: execute prog: {NO_PERMISSION}", 126)


def test_entries_of_the_path_may_be_relative_to_the_working_directory(driver: Driver, layer: MakeLayer) -> None:
    layers = layer({"a/prog": ECHO.format("a"), "a/sub/deep": ECHO.format("deep")})
    assert says(driver, "prog", layers, "", "/bin", workdir="/a") == "a"
    assert says(driver, "prog", layers, ".", workdir="/a") == "a"
    assert says(driver, "deep", layers, "sub", workdir="/a") == "deep"


def test_a_container_without_a_path_gets_the_usual_one(driver: Driver, layer: MakeLayer) -> None:
    layers = layer({"usr/local/sbin/prog": ECHO.format("usual")})
    assert driver.run("prog", lowers=layers, env=()).stdout == "usual\n"


def test_odd_letters_in_the_paths_of_layers_are_taken_as_they_are(driver: Driver, tmp_path: Path) -> None:
    odd = tmp_path / "a:b,c\\d e\\:\nü"
    odd.mkdir()
    (odd / "mark").write_text("seen")
    driver.attach(odd)
    assert driver.run("cat", "/mark", lowers=(str(odd), str(driver.image))).stdout == "seen"
