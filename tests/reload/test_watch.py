"""Files that are watched: whatever becomes of them is noticed, and nothing else."""

import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from waiting import PATIENCE_S

from supervisor.reload.watch import Watcher, places

Edit = Callable[[Path], None]


def write(path: Path) -> None:
    path.write_text("new")


def replace_by_rename(path: Path) -> None:
    (path.parent / "swap").write_text("new")
    (path.parent / "swap").rename(path)


def move_away(path: Path) -> None:
    path.rename(path.parent / "backup")


def link_elsewhere(path: Path) -> None:
    """As Kubernetes changes a ConfigMap: a link that is on the way is another, by a rename."""
    link = path.parent.parent / "next"
    link.symlink_to("v2")
    link.rename(path.parent.parent / "data")


def replace_its_directory(path: Path) -> None:
    path.parent.rename(path.parent.parent / "old")
    path.parent.mkdir()
    path.write_text("new")


async def changes(files: list[Path], edit: Callable[[], None], expected: int = 1) -> int:
    told: list[str] = []
    count = 0

    def changed() -> None:
        nonlocal count
        count += 1

    with closing(Watcher(changed, told.append)) as watcher:
        watcher.watch(tuple(map(str, files)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watcher.run)
            await anyio.lowlevel.checkpoint()
            edit()
            with anyio.fail_after(PATIENCE_S):
                while count < expected:
                    await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.4)  # what is shown is also that nothing more comes
            tasks.cancel_scope.cancel()
    assert told == []
    return count


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """DIRECTORY/data/spec, where data leads to v1."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "spec").write_text(version)
    (tmp_path / "data").symlink_to("v1")
    return tmp_path / "data" / "spec"


EDITS: list[Edit] = [write, replace_by_rename, move_away, Path.unlink, link_elsewhere]


@pytest.mark.parametrize("edit", EDITS)
def test_a_change_is_noticed_once(tmp_path: Path, file: Path, edit: Edit) -> None:
    assert anyio.run(changes, [file, tmp_path / "v1" / "spec"], partial(edit, file)) == 1


def test_a_file_that_is_not_there_is_awaited(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "spec"

    def make() -> None:
        path.parent.mkdir()
        path.write_text("new")

    assert anyio.run(changes, [path], make) == 1


def test_a_directory_may_be_another_one(tmp_path: Path) -> None:
    path = tmp_path / "here" / "spec"
    path.parent.mkdir()
    path.write_text("old")
    assert anyio.run(changes, [path], partial(replace_its_directory, path)) == 1


def test_other_files_of_the_directory_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "spec").write_text("old")

    def edit() -> None:
        (tmp_path / "other").write_text("new")
        (tmp_path / "spec").read_text()
        (tmp_path / ".spec.swp").write_text("new")

    assert anyio.run(changes, [tmp_path / "spec"], edit, 0) == 0


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert (str(tmp_path), "a") in set(places(os.fspath(tmp_path / "a")))
