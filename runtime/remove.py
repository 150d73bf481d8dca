"""Remove what a run left on disk, whatever a container made of it.

Most runs leave empty directories, which go with a few rmdir. The rest is walked by descriptor (a symbolic link is never
followed), without recursion, and with a bounded number of descriptors however deep the tree is.
"""

import errno
import os
import time

CGROUP_GONE_S = 5.0  # the longest a cgroup may stay busy: the kernel lets go of a process some time after its end
DEPTH_MAX = 64  # descriptors held at once; deeper directories are moved up first
# A volatile overlay leaves a file in the work directory (fs/overlayfs/super.c, ovl_create_volatile_dirty).
VOLATILE = ("work/work/incompat/volatile/dirty", "work/work/incompat/volatile", "work/work/incompat")
_EMPTY_RUN = ("upper", "merged", *VOLATILE[1:], "work/work", "work", ".")


def remove_run(path: str) -> None:
    """Remove a container's directory and all in it; no error if it is not there."""
    try:  # noqa: SIM105 (contextlib is not loaded into the launcher)
        os.unlink(f"{path}/{VOLATILE[0]}")
    except FileNotFoundError:
        pass
    for name in _EMPTY_RUN:
        try:
            os.rmdir(path if name == "." else f"{path}/{name}")
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            remove_tree(path)
            return


def remove_cgroup(path: str, parent: int | None = None) -> None:
    """Remove a cgroup and those below it, in which nothing is left running; no error if it is not there.

    The path may be from a directory that a descriptor is of.
    """
    deadline = time.monotonic() + CGROUP_GONE_S
    pause_s = 0.0005
    while True:
        try:
            os.rmdir(path, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise
            if not _remove_below(path, parent):
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.05)
        else:
            return


def _remove_below(path: str, parent: int | None) -> bool:
    """What a container has made in its cgroup, deepest first. Did any of it go?"""
    found = [path]
    for one in found:
        found += [f"{one}/{name}" for name in _directories(one, parent)]
    gone = 0
    for one in reversed(found[1:]):
        try:
            os.rmdir(one, dir_fd=parent)
            gone += 1
        except OSError:  # the caller tries again
            continue
    return gone > 0


def _directories(path: str, parent: int | None) -> list[str]:
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return []
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(directory)


def remove_tree(path: str) -> None:
    """Remove a directory tree. OSError names what could not be removed."""
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(top: int) -> None:
    moved = 0
    stack = [(os.dup(top), "")]
    try:
        while stack:
            directory, name = stack[-1]
            below = _unlink_files(directory)
            if below is None:
                os.close(directory)
                stack.pop()
                if stack:
                    os.rmdir(name, dir_fd=stack[-1][0])
            elif len(stack) < DEPTH_MAX:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                stack.append((os.open(below, flags, dir_fd=directory), below))
            else:
                moved = _move_up(below, directory, top, moved)
    finally:
        for directory, _ in stack:
            os.close(directory)


def _move_up(name: str, directory: int, top: int, number: int) -> int:
    """Rename a directory to the first `.deep-NUMBER` in `top` that is free; returns the number after it."""
    while True:
        number += 1
        try:
            os.rename(name, f".deep-{number}", src_dir_fd=directory, dst_dir_fd=top)
        except OSError as error:  # a removal that was interrupted may have left some
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return number


def _unlink_files(directory: int) -> str | None:
    """Unlink what is no directory or an empty one; returns the first directory that is not empty."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
                continue
            try:
                os.rmdir(entry.name, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return entry.name
    return None
