"""How files of the host get into a container: opened in the supervisor's mount namespace, mounted in the container's.

The supervisor follows a source to its end once (`pin`), and through no symbolic link: the paths in a configuration have
none, so one that is met has been put there since, perhaps by another container that may write there. What is pinned is
what is mounted. For each start it makes a detached copy of that mount, gives it the attributes that were asked for, and
sends its descriptor along with the request; the child attaches it to a descriptor of the target (lower.py).

All that happens to a volume's mount before the container has it happens in `_copy`.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from runtime import advice, linux, plan, seeding
from runtime.config import ContainerConfig
from runtime.errors import LaunchError
from runtime.inside import open_inside
from runtime.linux import AT_FDCWD, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from runtime.mounts import Bind, MemoryFile, Mount, Propagation, Tmpfs

DEVICES_MAX = 256  # in a directory of them
_PROPAGATION = {Propagation.PRIVATE: linux.MS_PRIVATE, Propagation.SLAVE: linux.MS_SLAVE}
# Of MOUNT_ATTR_* by MS_*: for mount(2), which mounts what is new.
_FLAGS = (
    (linux.MOUNT_ATTR_RDONLY, MS_RDONLY),
    (linux.MOUNT_ATTR_NOSUID, MS_NOSUID),
    (linux.MOUNT_ATTR_NODEV, MS_NODEV),
    (linux.MOUNT_ATTR_NOEXEC, MS_NOEXEC),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What the sources are: for each bind whether it is a directory, and the nodes for all devices."""

    directories: tuple[bool, ...] = ()
    devices: tuple[plan.MakeDevice, ...] = ()


def look(config: ContainerConfig) -> Found:
    """What a plan must know; nothing is made, and nothing refused but devices that are not there (LaunchError)."""
    if not (config.mounts or config.devices):
        return _NOTHING
    directories = [not os.path.exists(bind.source) or os.path.isdir(bind.source) for bind in _binds(config)]
    return Found(tuple(directories), tuple(_nodes(config)))


_NOTHING = Found()


class Pinned:
    """The sources of a run, held open. `close` when it has started, or failed to."""

    def __init__(self, config: ContainerConfig) -> None:
        self._files = [each for each in config.mounts if isinstance(each, MemoryFile)]
        self._binds = list(_binds(config))
        self._held: list[int] = []
        self.found = _NOTHING
        try:
            for bind in self._binds:
                self._held.append(_open(bind, config))
            directories = tuple(stat.S_ISDIR(os.fstat(each).st_mode) for each in self._held)
            self.found = Found(directories, tuple(_nodes(config)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Again is harmless."""
        while self._held:
            os.close(self._held.pop())

    def copies(self, userns: int | None = None) -> list[int]:
        """The descriptors for one start, in their order: a detached mount for each bind, then the contents of all files
        in memory, one after the other. Who called closes them. With `userns` all owners are seen by the ids of that
        user namespace. OSError.
        """
        made: list[int] = []
        try:
            made += (_copy(held, bind, userns) for held, bind in zip(self._held, self._binds, strict=True))
            if self._files:
                made.append(_memory(self._files))
        except BaseException:
            for each in made:
                os.close(each)
            raise
        return made


def needs_pinning(config: ContainerConfig) -> bool:
    """Whether any descriptor goes along."""
    return any(not isinstance(each, Tmpfs) for each in config.mounts) or bool(config.devices)


def count(config: ContainerConfig) -> int:
    """How many descriptors `copies` gives."""
    files = any(isinstance(each, MemoryFile) for each in config.mounts)
    return sum(1 for _ in _binds(config)) + files


def steps(mounts: Sequence[Mount], found: Found, first: int) -> list[plan.Step]:
    """What the child does. `first` is the position of the first of their descriptors."""
    if not mounts:
        return []
    directories = iter(enumerate(found.directories, first))
    memory = first + len(found.directories)
    return [_step(each, directories, memory) for each in mounts]


def _step(mount: Bind | Tmpfs | MemoryFile, directories: Iterator[tuple[int, bool]], memory: int) -> plan.Step:
    match mount:
        case Bind():
            position, is_directory = next(directories)
            return plan.ShowBind(mount.source, mount.target, is_directory, position)
        case Tmpfs():
            flags = sum(flag for attribute, flag in _FLAGS if mount.attributes & attribute)
            size = "" if mount.size_bytes is None else f",size={mount.size_bytes}"
            return plan.MountTmpfs(mount.target, flags, f"mode={mount.mode:o},uid={mount.uid},gid={mount.gid}{size}")
        case MemoryFile():
            return plan.ShowMemory(mount.target, memory, len(mount.contents), mount.mode, mount.uid, mount.gid)


def _binds(config: ContainerConfig) -> Iterator[Bind]:
    return (each for each in config.mounts if isinstance(each, Bind))


# --- sources ----------------------------------------------------------------------------------------------------------


def _open(bind: Bind, config: ContainerConfig) -> int:
    """The source, by O_PATH. LaunchError."""
    try:
        if bind.create and not os.path.lexists(bind.source):
            _make(bind.source, 0o700 if bind.volume else 0o755)
        if bind.seed:
            seeding.seed(bind.source, config.lowers, bind.target)
        held = linux.openat2(AT_FDCWD, bind.source, os.O_PATH, resolve=linux.RESOLVE_NO_SYMLINKS)
        return _below(held, bind.below) if bind.below else held
    except OSError as error:
        what = f"open {bind.source}{'/' if bind.below else ''}{bind.below}, the source of {bind.target}"
        raise LaunchError(f"{what}: {advice.of_source(error)}", container=config.id) from error


def _make(path: str, above: int) -> None:
    """As mkdir -p does, but through no symbolic link; what had to be made `above` it has that mode."""
    held = os.open("/", _DIRECTORY)
    names = path.split("/")[1:]
    for depth, name in enumerate(names, 1):
        held = _made_in(held, name, 0o755 if depth == len(names) else above)
    os.close(held)


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _made_in(parent: int, name: str, mode: int) -> int:
    """Gives up `parent`. The mode is whole, whatever our umask."""
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        made = os.open(name, _DIRECTORY, dir_fd=parent)
        os.fchmod(made, mode)
        return made
    finally:
        os.close(parent)


def _below(root: int, path: str) -> int:
    """A container may have made what is in the volume: its links lead no further than to the volume's own root."""
    try:
        return open_inside(root, path, os.O_PATH)
    finally:
        os.close(root)


def _copy(held: int, bind: Bind, userns: int | None) -> int:
    """The mount that the container gets."""
    flags = linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC | linux.AT_EMPTY_PATH
    tree = linux.open_tree(held, "", flags | (linux.AT_RECURSIVE if bind.recursive else 0))
    try:
        propagation = _PROPAGATION[bind.propagation]
        linux.mount_setattr(tree, bind.attributes, propagation, recursive=bind.recursive, userns=userns)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _memory(files: Sequence[MemoryFile]) -> int:
    memory = os.memfd_create("files", os.MFD_CLOEXEC)
    try:
        os.writev(memory, [file.contents for file in files])
        os.lseek(memory, 0, os.SEEK_SET)
    except BaseException:
        os.close(memory)
        raise
    return memory


# --- devices ----------------------------------------------------------------------------------------------------------


def _nodes(config: ContainerConfig) -> Iterator[plan.MakeDevice]:
    for device in config.devices:
        try:
            yield from (replace(each, permissions=device.permissions) for each in _node(device.source, device.target))
        except OSError as error:
            what = f"find the device {error.filename or device.source}"
            raise LaunchError(f"{what}: {advice.of_source(error)}", container=config.id) from error


def _node(source: str, target: str) -> Iterator[plan.MakeDevice]:
    status = os.stat(source)
    if stat.S_ISDIR(status.st_mode):
        for name in sorted(os.listdir(source))[:DEVICES_MAX]:
            inside = os.lstat(f"{source}/{name}").st_mode
            if stat.S_ISDIR(inside) or stat.S_ISCHR(inside) or stat.S_ISBLK(inside):
                yield from _node(f"{source}/{name}", f"{target}/{name}")
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        yield plan.MakeDevice(target, status.st_mode, status.st_rdev, status.st_uid, status.st_gid)
    else:
        raise OSError(errno.ENODEV, "is no device", source)
