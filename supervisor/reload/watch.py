"""`up --watch`: tells when a file of the spec has changed.

Editors and tools that replace a file by renaming another to its name change the directory, not the file: so it is
directories that are watched, by inotify(7), for the names that matter in them, and every symbolic link on the way to a
file is one of those names (`..data` of a Kubernetes ConfigMap). A file or a directory that is missing is awaited where
it would be. Whatever comes within QUIET_S is one change. Nothing wakes while nothing happens: watchfiles, which has
more of this ready, looks every 50 ms whether something has come.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import anyio

from runtime import linux

QUIET_S = 0.1
MOST_S = 2.0  # then it is told although more is coming
LINKS_MAX = 40  # on the way to a file, as the kernel has it (path_resolution(7))
EVENTS_MAX_BYTES = 64 << 10

_ENDS = linux.IN_DELETE_SELF | linux.IN_MOVE_SELF | linux.IN_IGNORED | linux.IN_Q_OVERFLOW
_INSIDE = linux.IN_CLOSE_WRITE | linux.IN_MOVED_FROM | linux.IN_MOVED_TO | linux.IN_CREATE | linux.IN_DELETE
_MASK = _INSIDE | linux.IN_DELETE_SELF | linux.IN_MOVE_SELF | linux.IN_ONLYDIR


class Watcher:
    """Watches files; `changed` is called when one has. `run` is its task; `close` when that has ended."""

    def __init__(self, changed: Callable[[], None], complain: Callable[[str], None]) -> None:
        self._changed = changed
        self._complain = complain
        self._descriptor = linux.inotify_init()
        self._files: tuple[str, ...] = ()
        self._names: dict[int, tuple[str, set[str]]] = {}  # by watch: the directory, and what matters in it

    def close(self) -> None:
        os.close(self._descriptor)

    def watch(self, files: tuple[str, ...]) -> None:
        """These, and no others any more."""
        self._files = files
        wanted: dict[str, set[str]] = {}
        for file in files:
            for directory, name in places(file):
                wanted.setdefault(directory, set()).add(name)
        before, self._names = self._names, {}
        for directory, names in wanted.items():
            self._add(directory, names)
        for watch in before.keys() - self._names.keys():
            with suppress(OSError):  # its directory is gone, and the watch with it
                linux.inotify_rm_watch(self._descriptor, watch)

    def _add(self, directory: str, names: set[str]) -> None:
        try:
            watch = linux.inotify_add_watch(self._descriptor, directory, _MASK)
        except OSError as error:
            self._complain(f"{directory}: {error.strerror}")
        else:
            known = self._names.get(watch)  # the same directory by another name
            self._names[watch] = (directory, names if known is None else names | known[1])

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await anyio.wait_readable(self._descriptor)
            if self._read():
                await self._settle()
                self.watch(self._files)  # what was a link or missing may be something else now
                self._changed()

    async def _settle(self) -> None:
        """Wait until nothing more comes."""
        with anyio.move_on_after(MOST_S):
            while True:
                with anyio.move_on_after(QUIET_S) as quiet:
                    await anyio.wait_readable(self._descriptor)
                if quiet.cancelled_caught:
                    return
                self._read()

    def _read(self) -> bool:
        """Was there something that matters?"""
        try:
            data = os.read(self._descriptor, EVENTS_MAX_BYTES)
        except BlockingIOError:
            return False
        return any(self._matters(*event) for event in events(data))

    def _matters(self, watch: int, mask: int, name: str) -> bool:
        if mask & linux.IN_Q_OVERFLOW:
            return True
        directory, names = self._names.get(watch, ("", set()))
        if mask & _ENDS:
            return bool(directory)
        if name not in names:
            return False
        # Of a file that was just made its writing is still to come, and tells more.
        return not mask & linux.IN_CREATE or _is_complete(f"{directory}/{name}")


def events(data: bytes) -> Iterator[tuple[int, int, str]]:
    """What was read from an inotify descriptor: watch, mask, name."""
    at = 0
    while at < len(data):
        watch, mask, _, length = linux.INOTIFY_EVENT.unpack_from(data, at)
        at += linux.INOTIFY_EVENT.size
        yield watch, mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length


def _is_complete(path: str) -> bool:
    """A link of either kind, or a directory: nobody writes it open."""
    try:
        return not os.path.isfile(path) or os.path.islink(path) or os.stat(path).st_nlink > 1  # noqa: PTH113, PTH114, PTH116 (as below)
    except OSError:
        return True


def places(path: str) -> Iterator[tuple[str, str]]:
    """The directories, and the names in them, that decide which file is at `path`; as far as they are there."""
    left, here, links = _parts(os.path.abspath(path)), "/", 0  # noqa: PTH100 (strings, as inotify has them)
    while left:
        name = left.pop(0)
        if name == "..":
            here = os.path.dirname(here)  # noqa: PTH120 (as above)
            continue
        there = os.path.join(here, name)  # noqa: PTH118 (as above)
        if os.path.islink(there) and links < LINKS_MAX:  # noqa: PTH114 (as above)
            links += 1
            yield here, name
            with suppress(OSError):
                target = os.readlink(there)  # noqa: PTH115 (as above)
                here, left = ("/" if target.startswith("/") else here), [*_parts(target), *left]
            continue
        if not left or not os.path.isdir(there):  # noqa: PTH112 (as above)
            yield here, name
            return
        here = there


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]
