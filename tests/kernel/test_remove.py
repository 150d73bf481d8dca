"""Removal: whatever a container made of its directory, it goes; what lies outside stays; few descriptors are enough."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Driver, read_all, run_apart, wait

from runtime import remove
from runtime.status import Exited

pytestmark = pytest.mark.kernel

ALL_LETTERS = bytes(set(range(1, 256)) - {ord("/")})


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory as a run leaves it. The test is to remove it."""
    path = tmp_path / "run"
    for name in ("upper", "work", "merged"):
        (path / name).mkdir(parents=True)
    yield path
    assert not path.exists()


def deepen(start: Path, levels: int) -> None:
    """Directories in directories, beyond what a path could name."""
    here = os.open(start, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove.remove_run(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        remove.remove_tree(str(tmp_path / "nothing"))


def test_empty_directories_go(tree: Path) -> None:
    remove.remove_run(str(tree))


@pytest.mark.parametrize("missing", ["upper", "work", "merged"])
def test_a_run_that_did_not_get_far_is_removed(tree: Path, missing: str) -> None:
    (tree / missing).rmdir()
    remove.remove_run(str(tree))


def test_a_tree_deeper_than_any_path_goes(tree: Path) -> None:
    deepen(tree / "upper", 5000)
    remove.remove_run(str(tree))


def test_deep_and_wide_at_once_goes(tree: Path) -> None:
    for number in range(5):
        (tree / f"upper/{number}").mkdir()
        deepen(tree / f"upper/{number}", 200)
    remove.remove_run(str(tree))


def test_a_removal_that_was_interrupted_is_taken_up_again(tree: Path) -> None:
    for number in range(4):
        (tree / f".deep-{number}/x/y").mkdir(parents=True)
    (tree / ".deep-4").write_text("a file")
    deepen(tree / "upper", 200)
    remove.remove_run(str(tree))


def test_many_files_go(tree: Path) -> None:
    for number in range(3000):
        (tree / f"upper/{number:0200}").touch()
    remove.remove_run(str(tree))


def test_many_directories_that_hold_something_go(tree: Path) -> None:
    for number in range(500):
        (tree / f"upper/{number}").mkdir()
        (tree / f"upper/{number}/x").touch()
    remove.remove_run(str(tree))


def test_links_are_removed_and_not_followed(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tree / "upper/directory").symlink_to(outside)
    (tree / "upper/file").symlink_to(outside / "kept")
    (tree / "upper/dangling").symlink_to("/nowhere/at/all")
    (tree / "upper/self").symlink_to("self")
    os.link(outside / "kept", tree / "upper/hard")
    remove.remove_run(str(tree))
    assert (outside / "kept").read_text() == "kept"
    assert (outside / "kept").stat().st_nlink == 1


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    (tmp_path / "run").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        remove.remove_tree(str(tmp_path / "run"))
    assert (outside / "kept").is_dir()


def test_odd_names_go(tree: Path) -> None:
    upper = os.fsencode(tree / "upper")
    names = [b"\xff\xfe", b"new\nline", b" ", b"-rf", b"\x01\x7f", b"*", b"\\", "ü".encode(), b"x" * 255, ALL_LETTERS]
    for number, name in enumerate(names):
        path = os.path.join(upper, name)
        if number % 2:
            os.makedirs(path + b"/" + name)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    remove.remove_run(str(tree))


def test_files_of_every_kind_go(tree: Path) -> None:
    upper = tree / "upper"
    os.mkfifo(upper / "fifo")
    os.mknod(upper / "whiteout", 0o020000, os.makedev(0, 0))  # how overlayfs marks what was deleted
    os.mknod(upper / "block", 0o060600, os.makedev(7, 200))
    (upper / "locked").mkdir(mode=0o000)
    (upper / "read-only").mkdir()
    (upper / "read-only/file").touch(mode=0o000)
    (upper / "read-only").chmod(0o500)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(upper / "socket"))
    remove.remove_run(str(tree))


def test_what_the_container_wrote_goes(driver: Driver) -> None:
    script = "mkdir -p /a/b/c; rm /etc/passwd; rm -r /tmp; mkdir /tmp; mv /bin/wc /a/b; mknod /x p; chmod 0 /a"
    assert driver.run("sh", "-c", script).status == Exited(0)
    assert list(driver.state.iterdir()) == []


FEW_DESCRIPTORS = """
import resource, sys
from runtime import remove
resource.setrlimit(resource.RLIMIT_NOFILE, (remove.DEPTH_MAX + 8, remove.DEPTH_MAX + 8))
remove.remove_run(sys.argv[1])
"""


def test_few_descriptors_are_enough_however_deep_it_is(tree: Path) -> None:
    deepen(tree / "upper", 500)
    run_apart(FEW_DESCRIPTORS, str(tree))


def test_what_can_not_be_removed_is_told_and_no_descriptor_left(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "upper/d").mkdir()
    (tree / "upper/d/x").touch()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "immutable")

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(PermissionError):
            remove.remove_tree(str(tree))
    remove.remove_run(str(tree))  # and the check after each test counts the descriptors


def test_what_a_run_that_wrote_nothing_leaves_goes_without_a_directory_read(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"  # with all that is mounted on, the upper stays empty
    for name in ("dev", "proc", "sys", "etc"):
        (whole / name).mkdir(parents=True)
    for name in ("hosts", "hostname"):
        (whole / "etc" / name).touch()
    driver.attach(whole)
    config = driver.config("cat", "/etc/hostname", lowers=(str(whole), str(driver.image)))

    def refuse(_: object) -> None:
        raise AssertionError("a directory was read")

    with driver.started(config) as (pid, made):
        assert read_all(made.stdout) == "c\n"
        assert wait(pid) == Exited(0)
        assert (driver.state / "c" / remove.VOLATILE[0]).exists()  # or this would prove little
        monkeypatch.setattr(os, "scandir", refuse)
        remove.remove_run(config.directory)
        assert os.listdir(driver.state) == []
