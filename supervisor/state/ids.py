"""Blocks of the host's user and group ids for containers that have ids of their own: no two have the same.

    HOME/ids        the blocks that a supervisor has taken for its containers, a line each: the first id. Gone with it;
                    if it was killed, once its containers are (home.py: sweep)

Who takes blocks holds a lock on the state directory and reads the notes of all stacks in it: there is no other book
that could be wrong. Nothing on disk has these ids (see runtime/idmap.py), so that a block is free again with its
container.

They are those of `pysup` in /etc/subuid (subuid(5)), which must be in /etc/subgid too, or else 32,767 blocks from 2^31
on. What these files give to others is left to them.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.errors import LaunchError
from runtime.idmap import BLOCK

NOTE = "ids"
OWNER = "pysup"
FIRST, LAST = 1 << 31, (1 << 32) - BLOCK  # the very last ids mean "none"
AT_ONCE = 16  # blocks that are noted at a time
_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))

Span = tuple[int, int]  # the first, and the one after the last


def room(files: Sequence[Path] = _FILES) -> int:
    """How many containers with ids of their own there may be on this host."""
    return sum(1 for _ in _offered(files))


class Blocks:
    """Those of one stack, whose home is locked."""

    def __init__(self, home: Path, files: Sequence[Path] = _FILES) -> None:
        self._home = home
        self._files = files
        self._noted: list[int] = []
        self._free: list[int] = []

    def take(self) -> int:
        """The first id of a block. LaunchError if there is none, OSError if it can't be noted."""
        if not self._free:
            self._note_more()
        return self._free.pop()

    def give(self, first: int) -> None:
        """Nobody has these ids any more."""
        self._free.append(first)

    def close(self) -> None:
        """All containers are gone."""
        with suppress(FileNotFoundError):
            (self._home / NOTE).unlink()

    def _note_more(self) -> None:
        state = self._home.parent.parent
        with _locked(state):
            taken = {first for note in state.glob(f"*/*/{NOTE}") for first in _noted(note)}
            found = _some(_offered(self._files), taken, AT_ONCE)
            if not found:
                files = " and ".join(map(str, self._files))
                raise LaunchError(f"no ids are left for it: give more to {OWNER} in {files}")
            self._noted += found
            _write(self._home / NOTE, self._noted)
        self._free += reversed(found)


def _offered(paths: Sequence[Path]) -> Iterator[int]:
    """The first ids of all blocks that may be ours."""
    files = [list(_entries(path)) for path in paths]
    own = [[span for name, span in entries if name == OWNER] for entries in files]
    others = [span for entries in files for name, span in entries if name != OWNER]
    if not any(own):
        yield from (first for first in _blocks((FIRST, LAST)) if not _meets(first, others))
        return
    for span in own[0]:
        yield from (first for first in _blocks(span) if all(_is_in(first, spans) for spans in own[1:]))


def _blocks(span: Span) -> Iterator[int]:
    return iter(range(span[0], span[1] - BLOCK + 1, BLOCK))


def _meets(first: int, spans: Sequence[Span]) -> bool:
    return any(first < end and begin < first + BLOCK for begin, end in spans)


def _is_in(first: int, spans: Sequence[Span]) -> bool:
    return any(begin <= first and first + BLOCK <= end for begin, end in spans)


def _some(offered: Iterator[int], taken: set[int], count: int) -> list[int]:
    found: list[int] = []
    for first in offered:
        if len(found) == count:
            break
        if first not in taken:
            found.append(first)
    return found


def _entries(file: Path) -> Iterator[tuple[str, Span]]:
    """`name:first:count`, a line each; what is none is passed over, as by newuidmap(1)."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split(":")
        if len(parts) == 3 and parts[1].isdecimal() and parts[2].isdecimal():
            yield parts[0], (int(parts[1]), min(int(parts[1]) + int(parts[2]), LAST + BLOCK - 1))


def _noted(note: Path) -> Iterator[int]:
    """A line that a crash has cut short is none: what it would have noted was not used."""
    with suppress(FileNotFoundError):
        yield from (
            int(line) for line in note.read_text(encoding="ascii", errors="replace").split() if line.isdecimal()
        )


def _write(note: Path, blocks: Sequence[int]) -> None:
    """Before any of it is used. Not synced: a machine that loses it has lost whoever used them, too."""
    fresh = note.with_name(f".{note.name}")
    fresh.write_text("".join(f"{first}\n" for first in blocks), encoding="ascii")
    fresh.rename(note)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
