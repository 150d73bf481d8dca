"""A stack's branch of the cgroup tree, and the note of it on disk by which the next start sweeps.

    HOME/cgroups    the directories that a supervisor may have made, one a line; gone once they are

The next supervisor may live in another cgroup than the one that was killed, so it can't guess them. But the note may be
damaged, and what it says is killed: so no line of it counts that does not end in the stack's own name, and where the
stack's cgroups would be now is looked at in any case.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from runtime.cgroup.branch import TOP, Branch, directory_name
from runtime.cgroup.branch import sweep as sweep_branches
from runtime.cgroup.files import below
from runtime.cgroup.hierarchies import discover
from runtime.cgroup.limits import Limits
from runtime.errors import CgroupError
from supervisor.errors import StackError

NOTE = "cgroups"
_BRANCH = re.compile(rb"/%b/([^/\n]+)" % TOP.encode())  # in proc_pid_cgroup(5)
_NOTHING: Mapping[Limits, str] = MappingProxyType({})


@contextmanager
def branch(home: Path, wanted: Mapping[Limits, str] = _NOTHING) -> Iterator[Branch]:
    """The branch of the stack whose directory this is; of its own even where another state directory has its like.

    StackError if there is no room for the note of it. CgroupError if limits that are `wanted` can't be enforced; it
    begins with the container that wants them.
    """
    made = Branch(discover(), _name(home))
    note = home / NOTE
    try:
        note.write_bytes(b"".join(os.fsencode(directory) + b"\n" for directory in made.directories()))
    except OSError as error:
        raise StackError(
            f"state directory {note}: {error.strerror}; make room, or give another with --state"
        ) from error
    try:
        made.prepare()
        for limits, container in wanted.items():
            _prepare(made, limits, container)
        yield made
    finally:
        made.remove()
        if not any(os.path.exists(directory) for directory in made.directories()):  # noqa: PTH110 (they are strings)
            note.unlink(missing_ok=True)


def _prepare(branch: Branch, limits: Limits, container: str) -> None:
    try:
        branch.prepare(limits)
    except CgroupError as error:
        raise CgroupError(f"{container}: {error}") from error


def _name(home: Path) -> str:
    status = home.stat()
    return f"{home.name}-{status.st_dev:x}-{status.st_ino:x}"


def is_in_anothers(pid: int, home: Path) -> bool:
    """Is a process in the branch of a stack with another directory?"""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_bytes()
    except OSError:
        return False
    stacks = {os.fsdecode(each) for each in _BRANCH.findall(text)}
    return bool(stacks) and directory_name(_name(home)) not in stacks


def left(home: Path) -> int:
    """How many cgroups of containers a killed supervisor has left."""
    return len({os.path.basename(one) for each in _branches(home) for one in below(each)[1:]})  # noqa: PTH119 (a text of the kernel's)


def sweep(home: Path) -> int:
    """Kill what a killed supervisor has left in cgroups, and remove them; returns of how many containers they were.
    OSError if something does not end.
    """
    swept = sweep_branches(_branches(home))
    note = home / NOTE
    if note.is_dir() and not note.is_symlink():
        shutil.rmtree(note)
    note.unlink(missing_ok=True)
    return swept


def _branches(home: Path) -> list[str]:
    """Those that are there."""
    name = _name(home)
    noted = dict.fromkeys((*_noted(home / NOTE), *Branch(discover(), name).directories()))
    ending = f"/{TOP}/{directory_name(name)}"
    return [each for each in noted if each.endswith(ending) and os.path.isdir(each)]  # noqa: PTH112 (strings)


def _noted(note: Path) -> list[str]:
    try:
        lines = note.read_bytes().split(b"\n")
    except OSError:
        return []
    return [os.fsdecode(line) for line in lines if b"\0" not in line and b"/../" not in line]
