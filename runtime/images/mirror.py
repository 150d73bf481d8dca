"""Copies of host files in another tree, at the same paths.

A path is walked as the kernel walks it (path_resolution(7)): each directory, symlink and file on the way is made in the
tree too, so a path that a program names leads to the same file there (`/bin/sh` to `/usr/bin/dash` where `/bin` is a
symlink). Each is made once. Files are copies: no inode is shared with the host. Nothing is opened through a symlink of
the tree, which would lead back to the host. Paths that are walked are text, as the kernel takes them.
"""

import os
import posixpath
import shutil
import stat
from collections import deque
from pathlib import Path

from runtime.errors import ImageError

LINKS_MAX = 40  # in one path, as the kernel: path_resolution(7)
KERNEL_DIRECTORIES = ("/proc", "/sys", "/dev")  # mounted over in a container
OPEN = 0o755


class Mirror:
    """The tree at `root`, which is empty at first."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, str | None] = {}  # path without symlinks → its target if it is itself one

    def add(self, path: str) -> str:
        """Make the absolute `path` lead where it leads on the host; returns that place, without symlinks."""
        real, links = "/", 0
        left = deque(path.split("/"))
        while left:
            name = left.popleft()
            if name in ("", "."):
                continue
            if name == "..":
                real = posixpath.dirname(real)
                continue
            here = posixpath.join(real, name)
            target = self._make(here)
            if target is None:
                real = here
                continue
            links += 1
            if links > LINKS_MAX:
                raise ImageError(f"{path} is a symlink that leads in a circle: leave it out")
            real = "/" if target.startswith("/") else real
            left.extendleft(reversed(target.split("/")))
        return real

    def add_directory(self, path: str, mode: int = OPEN) -> str:
        """A directory, also where the host has none; one that leads to a copy stays open. Returns its place."""
        if path == "/":
            return path
        leads_on = posixpath.realpath(path) in self._made
        if posixpath.isdir(path) and path not in KERNEL_DIRECTORIES:
            real = self.add(path)
        else:
            real = posixpath.join(self.add_directory(posixpath.dirname(path)), posixpath.basename(path))
            if real not in self._made:
                self._place(real).mkdir()
                self._made[real] = None
        self._place(real).chmod(mode | (OPEN if leads_on else 0))
        return real

    def add_link(self, path: str, target: str) -> None:
        """A symlink of our own, unless something is there."""
        real = self._entry(path)
        if real not in self._made:
            self._place(real).symlink_to(target)
            self._made[real] = target

    def add_text(self, path: str, text: str) -> None:
        """A small file of our own, unless something is there."""
        real = self._entry(path)
        if real not in self._made:
            self._place(real).write_text(text)
            self._place(real).chmod(0o644)
            self._made[real] = None

    def give(self, directory: str, uid: int, gid: int) -> None:
        """Change the owner of a directory made before."""
        os.chown(self._place(self.add_directory(directory)), uid, gid)

    def _entry(self, path: str) -> str:
        return posixpath.join(self.add_directory(posixpath.dirname(path)), posixpath.basename(path))

    def _place(self, real: str) -> Path:
        return Path(f"{self._root}{real}")

    def _make(self, path: str) -> str | None:
        if path in KERNEL_DIRECTORIES:
            raise ImageError(f"{path} is the kernel's, not a part of the host's files: name a program elsewhere")
        if path not in self._made:
            self._made[path] = _copy(Path(path), self._place(path))
        return self._made[path]


def _copy(path: Path, place: Path) -> str | None:
    """The target, if `path` is a symlink. Directories are open to all: the way to a program may lead through a home
    that the host keeps closed (pyenv's Python in /root).
    """
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(path)
        place.symlink_to(target)
        return target
    if stat.S_ISDIR(status.st_mode):
        place.mkdir()
        place.chmod(OPEN)  # whatever the umask
    elif stat.S_ISREG(status.st_mode):
        _copy_file(path, place, status)
    else:
        raise ImageError(f"{path} is neither a file nor a directory: leave it out")
    return None


def _copy_file(path: Path, place: Path, status: os.stat_result) -> None:
    """Permissions and time of change (which Python's .pyc files record) stay; set-user-ID bits don't: a container
    has no_new_privs, and a privileged one is no place for the host's.
    """
    shutil.copyfile(path, place, follow_symlinks=False)
    place.chmod(status.st_mode & 0o777)
    os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))
