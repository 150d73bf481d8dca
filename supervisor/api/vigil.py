"""Keeps a control socket where it is: who cleans /run would otherwise leave a stack that nobody reaches.

Its directory is watched by inotify(7). Where that can't be had, as all instances are in use, nothing is watched.
"""

import os
from pathlib import Path

import anyio

from runtime import linux

_MASK = linux.IN_DELETE | linux.IN_MOVED_FROM | linux.IN_DELETE_SELF | linux.IN_MOVE_SELF | linux.IN_ONLYDIR
_EVENTS_BYTES = 4096


async def lost(path: Path) -> None:
    """Return when what is at `path` now is there no more."""
    try:
        descriptor = linux.inotify_init()
    except OSError:
        await anyio.sleep_forever()
    try:
        found = _identity(path)
        if found is not None and _watch(descriptor, path.parent):
            while _identity(path) == found:
                await anyio.wait_readable(descriptor)
                os.read(descriptor, _EVENTS_BYTES)
    finally:
        os.close(descriptor)


def _watch(descriptor: int, directory: Path) -> bool:
    """False: it is gone."""
    try:
        linux.inotify_add_watch(descriptor, str(directory), _MASK)
    except OSError:
        return False
    return True


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
