"""A stack's branch of the cgroup tree, and the note of it on disk by which the next start sweeps.

    HOME/cgroups    the directories that a supervisor may have made, one a line; gone once they are

The next supervisor may live in another cgroup than the one that was killed, so it can't guess them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.cgroup.branch import Branch
from runtime.cgroup.branch import sweep as sweep_branches
from runtime.cgroup.hierarchies import discover

NOTE = "cgroups"


@contextmanager
def branch(home: Path) -> Iterator[Branch]:
    """The branch of the stack whose directory this is; of its own even where another state directory has its like."""
    status = home.stat()
    made = Branch(discover(), f"{home.name}-{status.st_dev:x}-{status.st_ino:x}")
    note = home / NOTE
    note.write_bytes(b"".join(os.fsencode(directory) + b"\n" for directory in made.directories()))
    try:
        made.prepare()
        yield made
    finally:
        made.remove()
        if not any(os.path.exists(directory) for directory in made.directories()):  # noqa: PTH110 (they are strings)
            note.unlink(missing_ok=True)


def sweep(home: Path) -> int:
    """Kill what a killed supervisor has left in cgroups, and remove them; returns of how many containers they were.
    OSError if something does not end.
    """
    try:
        noted = (home / NOTE).read_bytes()
    except FileNotFoundError:
        return 0
    swept = sweep_branches([os.fsdecode(line) for line in noted.splitlines()])
    (home / NOTE).unlink()
    return swept
