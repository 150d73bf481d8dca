"""Whenever a supervisor is killed, and whatever becomes of its files, the next start sweeps, says so, and comes up."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from command import ENVIRONMENT, ROOT

from runtime.cgroup.hierarchies import discover
from supervisor.state import cgroups
from supervisor.state import home as home_module
from supervisor.state.home import HeldError, Home, Left, locked

KILLS = 200
SEED = int(os.environ.get("PYSUP_SEED", "20261127"))
LIMIT_S = 600


@pytest.mark.kernel
def test_killed_at_200_moments_it_leaves_nothing(image: Path, tmp_path: Path) -> None:
    apart = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    program = [sys.executable, str(ROOT / "tests/support/crashes.py")]
    (tmp_path / "place").mkdir()
    arguments = [str(image.parent), str(KILLS), str(SEED), str(tmp_path / "place")]
    environ = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"}
    done = subprocess.run(
        [*apart, *program, *arguments], env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    kills, _, sweeps, *_ = done.stdout.split()
    assert int(kills) >= KILLS
    assert int(sweeps) > KILLS // 20


# --- damaged files ---------------------------------------------------------------------------------------------------

RUN = "left"


@pytest.fixture
def crashed(tmp_path: Path) -> Home:
    """One whose supervisor was killed."""
    home = Home.of_stack(tmp_path, "tiny")
    for part in ("upper", "work", "merged"):
        (home.runs / RUN / part).mkdir(parents=True)
    home.kept.mkdir()
    (home.path / "lock").write_bytes(b"4194303\n")
    return home


def swept(home: Home) -> Left | None:
    with locked(home) as found:
        assert home.runs.is_dir()
        assert not any(home.runs.iterdir())
    assert not home.path.exists()
    return found


COPY = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
if os.fork() == 0:
    sys.stdin.read()  # its copy of the lock goes when our end of this pipe does
"""


def test_a_killed_supervisors_lock_is_waited_for_while_a_child_of_its_has_a_copy(
    crashed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", COPY, str(crashed.path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        process.wait()
        (crashed.path / "lock").write_bytes(b"%d\n" % process.pid)
        monkeypatch.setattr(home_module, "COPIES_GONE_S", 0.05)
        with pytest.raises(HeldError, match=f"tiny is already running under pid {process.pid}"), locked(crashed):
            pass
        (crashed.path / "lock").write_bytes(b"9" * 30)
        with pytest.raises(HeldError), locked(crashed):
            pass
        monkeypatch.setattr(home_module, "COPIES_GONE_S", 30.0)
        assert process.stdin is not None
        threading.Timer(0.1, process.stdin.close).start()
        assert swept(crashed) == Left(0, (RUN,))


@pytest.mark.parametrize("size", range(9))
def test_a_truncated_lock_hides_nothing(crashed: Home, size: int) -> None:
    os.truncate(crashed.path / "lock", size)
    assert swept(crashed) == Left(0, (RUN,))


@pytest.mark.parametrize("place", range(8))
def test_a_damaged_lock_hides_nothing(crashed: Home, place: int) -> None:
    text = bytearray(b"4194303\n")
    text[place] = random.Random(place).choice((0, 0xFF, 0x0A))
    (crashed.path / "lock").write_bytes(text)
    assert swept(crashed) == Left(0, (RUN,))


def test_files_where_directories_should_be_are_swept(crashed: Home) -> None:
    (crashed.runs / "file").write_bytes(b"x")
    (crashed.runs / "link").symlink_to("/")
    (crashed.path / cgroups.NOTE).mkdir()
    assert swept(crashed) == Left(0, ("file", RUN, "link"))
    (crashed.path).mkdir()
    crashed.runs.write_bytes(b"x")
    assert swept(crashed) is None


@pytest.fixture
def neighbour() -> Iterator[tuple[str, int]]:
    """Another stack's cgroup, and the pid of a process in it."""
    hierarchy = next((one for one in discover().found if one.writable), None)
    if hierarchy is None:
        pytest.skip("no cgroup can be made here")
    branch = Path(f"{hierarchy.own}/pysup/tiny-neighbour-1-2/web")
    branch.mkdir(parents=True)
    process = subprocess.Popen(["sleep", "1000"])
    (branch / "cgroup.procs").write_text(f"{process.pid}\n", encoding="ascii")
    yield str(branch.parent), process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    for directory in (branch, branch.parent):
        directory.rmdir()
    with suppress(OSError):  # others may have made it, and use it
        branch.parent.parent.rmdir()


@pytest.mark.kernel
def test_a_damaged_note_of_cgroups_kills_nobody_elses(crashed: Home, neighbour: tuple[str, int]) -> None:
    """A line that was cut names what is above: all stacks, or all of this host."""
    branch, pid = neighbour
    status = crashed.path.stat()
    own = f"{Path(branch).parent}/tiny-{status.st_dev:x}-{status.st_ino:x}"
    notes = [own[:size] for size in range(len(own))]
    notes += [branch, f"{branch}/../tiny-neighbour-1-2", f"{own}/../tiny-neighbour-1-2", "\0", "/", "\xff\n" * 9]
    for note in notes:
        (crashed.path / cgroups.NOTE).write_text(note, encoding="utf-8")
        assert cgroups.sweep(crashed.path) == 0
    os.kill(pid, 0)
    assert Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"


@pytest.mark.kernel
def test_cgroups_are_found_without_the_note(crashed: Home, neighbour: tuple[str, int]) -> None:
    """Where they would be made now."""
    status = crashed.path.stat()
    left = Path(f"{Path(neighbour[0]).parent}/tiny-{status.st_dev:x}-{status.st_ino:x}/web")
    left.mkdir(parents=True)
    assert swept(crashed) == Left(0, (RUN,), 1)
    assert not left.parent.exists()
