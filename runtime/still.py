"""The root of a container that does not run, for who copies files out of it, or into it.

It is mounted as a start would mount it, and its volumes on it, in a mount namespace that one thread has while it is at
work: nobody else sees it, the host's mount table least of all, and it goes with the thread, whatever becomes of that.

Who only reads has an upper of his own on top, in memory, where targets of volumes are made: nothing of the container
changes, and it may start meanwhile. Who writes has the container's own upper, which can be in use but once
(Documentation/filesystems/overlayfs.rst): the caller sees to it that it does not start.
"""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from threading import Thread
from typing import Any, TypeVar

from runtime import linux
from runtime.config import ContainerConfig
from runtime.idmap import Ids
from runtime.inside import open_inside
from runtime.lower import option
from runtime.mounts import Bind
from runtime.remove import VOLATILE
from runtime.userns import creating_as
from runtime.volumes import Pinned

T = TypeVar("T")
_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Still:
    """A container as it lies. With `ids` of its own, `userns` has them."""

    config: ContainerConfig
    write: bool
    ids: Ids | None = None
    userns: int | None = None
    volumes: bool = True

    def within(self, work: Callable[[int], T]) -> T:
        """Have a thread do `work` on a descriptor of the root. OSError, LaunchError, and what `work` raises."""
        return _in_a_thread(lambda: _visit(self, work))


def _in_a_thread(work: Callable[[], T]) -> T:
    """One of its own: it does not come back from where it goes."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            failed.append(error)

    thread = Thread(target=run, name="still", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    result: T = done[0]
    return result


def _visit(still: Still, work: Callable[[int], T]) -> T:
    config = still.config
    binds = [each for each in config.mounts if isinstance(each, Bind)] if still.volumes else []
    with ExitStack() as held:
        with Pinned(replace(config, mounts=tuple(binds), devices=())) as pinned:
            trees = pinned.copies(still.userns)
        for tree in trees:
            held.callback(os.close, tree)
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        directory = _own_directory(still)
        place = os.path.dirname(config.directory)
        linux.mount("pysup", place, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=700")
        # Last of all: by then nobody holds anything of it, so that its upper is free when this returns.
        held.callback(linux.umount2, place, linux.MNT_DETACH)
        with ExitStack() as inside:
            if directory is not None:
                inside.callback(os.close, directory)
            with creating_as(still.ids):  # in a mount with ids of its own nobody else can make anything
                root = _mounted(still, place, directory)
                inside.callback(os.close, root)
                for bind, tree in zip(binds, trees, strict=True):
                    _show(root, bind.target, tree)
            if config.read_only and still.write:
                flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NODEV
                linux.mount(None, f"{place}/root", None, flags)
            return work(root)


def _own_directory(still: Still) -> int | None:
    """Where its upper is. None: it has none, and needs none."""
    path = still.config.directory
    if still.write:
        _make_layers(path, os.stat(still.config.lowers[0]))
        if still.config.lasting:
            _forget_volatile(path)
    try:
        os.stat(f"{path}/upper")
        return os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return None


def _make_layers(path: str, root: os.stat_result) -> None:
    """As a start does: see `MakeDirectories`. What is there stays."""
    for name, mode in (("", 0o700), ("/upper", stat.S_IMODE(root.st_mode)), ("/work", 0o700), ("/merged", 0o700)):
        with suppress(FileExistsError):
            os.mkdir(path + name, 0o700)
            os.chown(path + name, *((root.st_uid, root.st_gid) if name == "/upper" else (0, 0)))
            os.chmod(path + name, mode)


def _forget_volatile(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(f"{path}/{VOLATILE[0]}")
    for name in VOLATILE[1:]:
        with suppress(FileNotFoundError):
            os.rmdir(f"{path}/{name}")


def _mounted(still: Still, place: str, directory: int | None) -> int:
    """Mount it at `place`/root, by a descriptor of which all that follows finds it."""
    config = still.config
    lowers = [_shown(still, lower, f"{place}/layer-{number}") for number, lower in enumerate(config.lowers)]
    own = None if directory is None else _shown(still, f"/proc/self/fd/{directory}", f"{place}/own")
    if still.write:
        assert own is not None
        upper, work = f"{own}/upper", f"{own}/work"
    else:
        upper, work = f"{place}/upper", f"{place}/work"
        lowers = [f"{own}/upper", *lowers] if own is not None else lowers
        above = os.stat(lowers[0])  # whose root it seems to be
        for name in (upper, work):
            os.mkdir(name, 0o700)
            os.chown(name, above.st_uid, above.st_gid)
            os.chmod(name, stat.S_IMODE(above.st_mode))
    layers = ":".join(map(option, lowers))
    options = f"lowerdir={layers},upperdir={option(upper)},workdir={option(work)}"
    os.mkdir(f"{place}/root", 0o700)
    volatile = ",volatile" if config.lasting or not still.write else ""
    linux.mount(config.directory, f"{place}/root", "overlay", linux.MS_NODEV, options + volatile)
    return os.open(f"{place}/root", _DIRECTORY)


def _shown(still: Still, path: str, target: str) -> str:
    """Where a directory is found, with the container's ids if it has such."""
    if still.userns is None:
        return path
    os.mkdir(target, 0o700)
    here = os.open(path, _DIRECTORY)
    try:
        flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH
        tree = linux.open_tree(here, "", flags)
    finally:
        os.close(here)
    try:
        linux.mount_setattr(tree, 0, linux.MS_PRIVATE, userns=still.userns)
        linux.move_mount(tree, target)
    finally:
        os.close(tree)
    return target


def _show(root: int, target: str, tree: int) -> None:
    """Attach a volume, at a place that is made if it is not there."""
    is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    names = target.strip("/").split("/")
    for depth in range(1, len(names) + 1):
        _make(root, names[:depth], is_directory=is_directory or depth < len(names))
    place = open_inside(root, target, _PATH)
    try:
        linux.move_mount(tree, place)
    finally:
        os.close(place)


def _make(root: int, names: Sequence[str], *, is_directory: bool) -> None:
    try:
        os.close(open_inside(root, "/".join(names), _PATH))
    except FileNotFoundError:
        above = open_inside(root, "/".join(names[:-1]) or ".", _DIRECTORY)
        try:
            if is_directory:
                os.mkdir(names[-1], 0o755, dir_fd=above)
            else:
                os.mknod(names[-1], stat.S_IFREG | 0o644, dir_fd=above)
        finally:
            os.close(above)
