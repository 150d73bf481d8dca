"""A new volume gets what the image has at its place, as in Docker: files, modes, owners, times, extended attributes.

It is done once, while the volume is empty, in a directory beside it; when all is there, it is moved into the volume:
that itself stays, as others may have it mounted. What a crash leaves is begun anew, or moved to its end, by the next
start. Nothing of the image leads out of the image, and no symbolic link is followed.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from runtime.inside import open_inside
from runtime.remove import remove_tree

_PIECE_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def seed(volume: str, lowers: Sequence[str], target: str) -> None:
    """Fill `volume`, if it is empty and an image's layer has a directory at `target`; the uppermost that has counts."""
    whole = _beside(volume, "whole")
    if _is_filled(volume) and not os.path.lexists(whole):
        return
    lock = os.open(os.path.dirname(volume), _DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another container may share it, and start now
        if not os.path.lexists(whole) and not _is_filled(volume):
            _prepare(volume, lowers, target, whole)
        if os.path.lexists(whole):
            _move(whole, volume)
    finally:
        os.close(lock)


def _beside(volume: str, what: str) -> str:
    return f"{os.path.dirname(volume)}/.{what}-{os.path.basename(volume)}"


def _is_filled(directory: str) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is not None


def _directory_in(lowers: Sequence[str], target: str) -> int | None:
    for lower in lowers:
        root = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                return open_inside(root, target, _DIRECTORY)
        finally:
            os.close(root)
    return None


def _prepare(volume: str, lowers: Sequence[str], target: str, whole: str) -> None:
    source = _directory_in(lowers, target)
    if source is not None:
        try:
            _copy_beside(_beside(volume, "new"), source, whole)
        finally:
            os.close(source)


def _copy_beside(beside: str, source: int, whole: str) -> None:
    if os.path.lexists(beside):  # of one that was killed
        remove_tree(beside)
    os.mkdir(beside, 0o700)
    made = os.open(beside, _DIRECTORY | os.O_NOFOLLOW)
    try:
        _copy_directory(source, made)
    except BaseException:
        remove_tree(beside)
        raise
    finally:
        os.close(made)
    os.rename(beside, whole)


def _move(whole: str, volume: str) -> None:
    source = os.open(whole, _DIRECTORY | os.O_NOFOLLOW)
    try:
        target = os.open(volume, _DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in os.listdir(source):
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            _dress(source, target, os.fstat(source))
        finally:
            os.close(target)
    finally:
        os.close(source)
    os.rmdir(whole)


def _copy_directory(source: int, target: int) -> None:
    with os.scandir(source) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            _copy(entry.name, status, source, target)
    _dress(source, target, os.fstat(source))


def _copy(name: str, status: os.stat_result, source: int, target: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        _with_both(name, source, target, _DIRECTORY, _DIRECTORY, _copy_directory)
    elif stat.S_ISREG(status.st_mode):
        _with_both(name, source, target, os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _copy_file)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    # Devices and sockets have no use in a volume.


def _with_both(
    name: str, source: int, target: int, reading: int, writing: int, work: Callable[[int, int], None]
) -> None:
    """`work` on the file of that name in both."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    one = os.open(name, reading | flags, dir_fd=source)
    try:
        other = os.open(name, writing | flags, 0o600, dir_fd=target)
        try:
            work(one, other)
        finally:
            os.close(other)
    finally:
        os.close(one)


def _copy_file(source: int, target: int) -> None:
    with open(source, "rb", closefd=False) as reader, open(target, "wb", closefd=False) as writer:
        shutil.copyfileobj(reader, writer, _PIECE_BYTES)
    _dress(source, target, os.fstat(source))


def _dress(source: int, target: int, status: os.stat_result) -> None:
    """Owner, mode, extended attributes and times, in the one order in which none undoes another."""
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not name.startswith("trusted.overlay."):
            with suppress(OSError):  # a file system that has none
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
