"""Which images there are, and how large: one walk of each, bounded, that says what it could not see."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from runtime.images.lookup import Image, names

FILES_MAX = 1_000_000  # counted in one image
PROBLEMS_MAX = 5  # named for one image


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """`size_bytes` is the sum of its files' lengths, one with several names counted once; `files` are all entries but
    directories; `created` is when the directory came to be there; `problems` is what was not counted.
    """

    name: str
    path: Path
    size_bytes: int
    files: int
    created: datetime
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Tally:
    size_bytes: int = 0
    files: int = 0
    problems: list[str] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)


def ls(path: Sequence[Path]) -> tuple[ImageInfo, ...]:
    """All images in the directories of `path`, by name; of two with one name, the one that `find` finds."""
    return tuple(info(image) for image in names(path))


def info(image: Image) -> ImageInfo:
    """Of one."""
    tally = _measure(image.path)
    created = datetime.fromtimestamp(image.path.stat().st_ctime, UTC)
    return ImageInfo(image.name, image.path, tally.size_bytes, tally.files, created, tuple(tally.problems))


def _measure(root: Path) -> _Tally:
    tally = _Tally()
    for entry in _entries(root, tally):
        if tally.files == FILES_MAX:
            tally.problems.append(f"more than {FILES_MAX} files: the rest is not counted")
            break
        _count(entry, tally)
    return tally


def _entries(root: Path, tally: _Tally) -> Iterator[os.DirEntry[str]]:
    """All but directories, without following symlinks."""
    left = [str(root)]
    while left:
        directory = left.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            _note(tally, directory, error)


def _count(entry: os.DirEntry[str], tally: _Tally) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        _note(tally, entry.path, error)
        return
    tally.files += 1
    inode = (status.st_dev, status.st_ino)
    if status.st_nlink > 1 and inode in tally.seen:
        return
    if status.st_nlink > 1:
        tally.seen.add(inode)
    tally.size_bytes += status.st_size


def _note(tally: _Tally, place: str, error: OSError) -> None:
    if len(tally.problems) < PROBLEMS_MAX:
        tally.problems.append(f"{place} is not counted: {error.strerror}")
