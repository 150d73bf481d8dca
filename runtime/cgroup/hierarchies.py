"""Which cgroup hierarchies this host has, which controllers live in which, and where in them pysup itself is.

From proc_pid_mountinfo(5) and proc_pid_cgroup(5), both as our own cgroup namespace shows them. Controllers have the
names of version 2 throughout: `io` is blkio of version 1; `cpuacct` and `freezer` exist there alone.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

_RENAMED = {"blkio": "io"}
CONTROLLERS = frozenset(
    "blkio cpu cpuacct cpuset devices dmem freezer hugetlb io memory misc net_cls net_prio perf_event pids rdma".split()
)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One tree of cgroups, mounted where we can reach our own place in it."""

    version: int
    controllers: frozenset[str]  # of version 2: those that our own cgroup may use
    own: str  # the directory of the cgroup that we are in
    writable: bool

    def describe(self) -> str:
        """For people: `cgroup v1 at /sys/fs/cgroup/memory (memory)`."""
        return f"cgroup v{self.version} at {self.own} ({', '.join(sorted(self.controllers)) or 'no controllers'})"


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """All that this host offers us."""

    found: tuple[Hierarchy, ...]

    @property
    def unified(self) -> Hierarchy | None:
        """Version 2, with controllers or without."""
        return next((one for one in self.found if one.version == 2 and one.writable), None)

    def of(self, controller: str) -> Hierarchy | None:
        """Where this controller lives."""
        return next((one for one in self.found if controller in one.controllers and one.writable), None)

    @property
    def processes(self) -> Hierarchy | None:
        """Where a container can be killed and frozen as a whole."""
        return self.unified or self.of("freezer")


def discover(mountinfo: str = "/proc/self/mountinfo", membership: str = "/proc/self/cgroup") -> Hierarchies:
    """What this process can use. Hosts without cgroups have nothing, which is no error here."""
    try:
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as mounts:
            lines = mounts.read().splitlines()
        with open(membership, encoding="utf-8", errors="surrogateescape") as cgroups:
            own = dict(_memberships(cgroups.read()))
    except FileNotFoundError:
        return Hierarchies(())
    found = {one.controllers if one.version == 1 else 2: one for line in lines for one in _hierarchy(line, own)}
    return Hierarchies(tuple(found.values()))


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    """(controllers, path) of each line `4:memory:/a/b`; version 2 is `0::/a/b`."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _hierarchy(mount: str, own: dict[str, str]) -> Iterator[Hierarchy]:
    """Of a line of mountinfo, if it is one that we are in."""
    before, _, after = mount.partition(" - ")
    kind, _, options = after.split(" ", 2)
    root, point = (_unescape(word) for word in before.split(" ")[3:5])
    if kind == "cgroup2":
        yield from _version_2(_join(point, root, own.get("")))
    elif kind == "cgroup" and (named := CONTROLLERS.intersection(options.split(","))):
        directory = _join(point, root, own.get(min(named)))
        if directory is not None:
            yield Hierarchy(1, frozenset(_RENAMED.get(one, one) for one in named), directory, _writable(directory))


def _version_2(directory: str | None) -> Iterator[Hierarchy]:
    if directory is None:
        return
    with open(f"{directory}/cgroup.controllers", encoding="ascii") as controllers:
        yield Hierarchy(2, frozenset(controllers.read().split()), directory, _writable(directory))


def _join(point: str, root: str, path: str | None) -> str | None:
    """The directory of cgroup `path` in a mount whose own root is cgroup `root`; None if it is not below that."""
    if path is None or os.path.commonpath((root, path)) != root or "/.." in path:
        return None
    directory = os.path.normpath(f"{point}/{os.path.relpath(path, root)}")
    return directory if os.path.isdir(directory) else None


def _writable(directory: str) -> bool:
    """A container of others' often has them read-only."""
    return os.access(directory, os.W_OK)


def _unescape(word: str) -> str:
    """White space and backslashes are octal there."""
    if "\\" not in word:
        return word
    return os.fsdecode(os.fsencode(word).decode("unicode_escape").encode("latin-1"))
