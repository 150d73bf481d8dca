"""A new volume gets what the image has at its place, once, and whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from runtime import seeding


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "var/lib/db/deep").mkdir(parents=True)
    (root / "var/lib/db/deep/file").write_bytes(b"x" * 100_000)
    (root / "var/lib/db/link").symlink_to("/etc/passwd")
    os.mkfifo(root / "var/lib/db/pipe")
    (root / "var/lib/db").chmod(0o1750)
    (root / "var/lib/db/deep/file").chmod(0o4640)
    os.utime(root / "var/lib/db/deep/file", ns=(1, 2))
    if os.geteuid() == 0:
        os.chown(root / "var/lib/db/deep", 1, 2)
    return root


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volumes/db"
    path.mkdir(parents=True)
    return path


def test_it_is_filled_with_everything_as_it_was(image: Path, volume: Path) -> None:
    seeding.seed(str(volume), [str(image)], "/var/lib/db")
    assert (volume / "deep/file").read_bytes() == b"x" * 100_000
    assert os.readlink(volume / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((volume / "pipe").stat().st_mode)
    assert stat.S_IMODE(volume.stat().st_mode) == 0o1750
    told = (volume / "deep/file").stat()
    assert (stat.S_IMODE(told.st_mode), told.st_mtime_ns) == (0o4640, 2)
    if os.geteuid() == 0:
        assert ((volume / "deep").stat().st_uid, (volume / "deep").stat().st_gid) == (1, 2)
    assert [path.name for path in volume.parent.iterdir()] == ["db"]


def test_what_is_in_it_stays(image: Path, volume: Path) -> None:
    (volume / "mine").touch()
    seeding.seed(str(volume), [str(image)], "/var/lib/db")
    assert [path.name for path in volume.iterdir()] == ["mine"]


@pytest.mark.parametrize("target", ["/nowhere", "/var/lib/db/deep/file"])
def test_an_image_without_a_directory_there_leaves_it_empty(image: Path, volume: Path, target: str) -> None:
    seeding.seed(str(volume), [str(image)], target)
    assert list(volume.iterdir()) == []


def test_links_of_the_image_lead_nowhere_out_of_it(image: Path, volume: Path) -> None:
    (image / "out").symlink_to("/../../../../../etc")
    seeding.seed(str(volume), [str(image)], "/out")
    assert list(volume.iterdir()) == []
    (image / "in").symlink_to("/var/lib")
    seeding.seed(str(volume), [str(image)], "/in/db")
    assert (volume / "deep").is_dir()


def test_what_was_begun_by_one_that_was_killed_is_begun_again(image: Path, volume: Path) -> None:
    (volume.parent / ".new-db/half").mkdir(parents=True)
    seeding.seed(str(volume), [str(image)], "/var/lib/db")
    assert sorted(path.name for path in volume.iterdir()) == ["deep", "link", "pipe"]


def test_who_has_it_mounted_already_sees_what_it_is_filled_with(image: Path, volume: Path) -> None:
    mounted = os.open(volume, os.O_PATH | os.O_DIRECTORY)
    try:
        seeding.seed(str(volume), [str(image)], "/var/lib/db")
        assert os.stat("deep/file", dir_fd=mounted).st_size == 100_000
    finally:
        os.close(mounted)


def test_what_was_moved_half_is_moved_to_its_end(image: Path, volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    (volume.parent / ".whole-db/deep").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(seeding, "_dress", killed)
        with pytest.raises(KeyboardInterrupt):
            seeding.seed(str(volume), [str(image)], "/var/lib/db")
    assert (volume / "deep").is_dir()
    seeding.seed(str(volume), [str(image)], "/var/lib/db")
    assert [path.name for path in volume.iterdir()] == ["deep"]
    assert [path.name for path in volume.parent.iterdir()] == ["db"]


def test_the_first_layer_that_has_it_counts(image: Path, volume: Path, tmp_path: Path) -> None:
    (tmp_path / "top/var/lib/db").mkdir(parents=True)
    (tmp_path / "top/var/lib/db/upper").touch()
    seeding.seed(str(volume), [str(tmp_path / "top"), str(image)], "/var/lib/db")
    assert [path.name for path in volume.iterdir()] == ["upper"]
