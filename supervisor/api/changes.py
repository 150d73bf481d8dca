"""What a container has written, read from its upper directory: Documentation/filesystems/overlayfs.rst.

There a deleted file is a character device 0/0 (a whiteout), a file that is also in the image was changed, and any other
is new. Callers of these give their descriptor away, or None where there is nothing to read.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from runtime import linux
from supervisor.api.tarball import PLAIN, walk

# Where something is mounted in every container: what is there of it in the upper was made for that.
OWN = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
MODIFIED, ADDED, DELETED = 0, 1, 2  # as Docker numbers them


@dataclass(frozen=True, slots=True)
class Change:
    """Of one path."""

    path: str
    kind: int


def changes(upper: int | None, lowers: Sequence[str], targets: Sequence[str] = ()) -> list[Change]:
    """By path. What was made there for the `targets` of mounts is none. RefusedError if there are too many."""
    if upper is None:
        return []
    bases: list[int] = []
    try:
        bases += (os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for lower in lowers)
        found = [Change(f"/{path}", _kind(path, status, bases)) for path, status in walk(upper)]
        return _without_targets(sorted(found, key=lambda change: change.path), targets)
    finally:
        for base in bases:
            os.close(base)
        os.close(upper)


def _without_targets(found: list[Change], targets: Sequence[str]) -> list[Change]:
    """Less where they are, and the directories above them in which nothing else has changed."""
    above = {target[:end] for target in targets for end, letter in enumerate(target) if letter == "/" and end}
    result: list[Change] = []
    for change in reversed(found):  # what is in a directory comes before it
        needed = change.path not in above or any(each.path.startswith(f"{change.path}/") for each in result)
        if change.path not in targets and needed:
            result.append(change)
    return result[::-1]


def _kind(path: str, status: os.stat_result, bases: Sequence[int]) -> int:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return DELETED
    return MODIFIED if any(_is_in(base, path) for base in bases) else ADDED


def _is_in(base: int, path: str) -> bool:
    """A symlink on the way there would lead elsewhere, and stands there no more."""
    try:
        os.close(linux.openat2(base, path, os.O_PATH | os.O_NOFOLLOW, resolve=PLAIN))
    except OSError:
        return False
    return True


def size_bytes(upper: int | None) -> int:
    """The sum of its files' lengths."""
    if upper is None:
        return 0
    try:
        return sum(status.st_size for _, status in walk(upper) if stat.S_ISREG(status.st_mode))
    finally:
        os.close(upper)
