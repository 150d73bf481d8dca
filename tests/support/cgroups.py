"""Cgroups of the host, and hosts that it can be taken for."""

import subprocess
from collections.abc import Callable

from runtime.cgroup.group import Cgroup
from runtime.cgroup.hierarchies import Hierarchies, discover

HOST = discover()
Start = Callable[..., subprocess.Popen[str]]


def joined(cgroup: Cgroup) -> list[str]:
    """The files by which a process of one thread joins: `tasks` of version 1, where no lock is waited for."""
    names = {1: "tasks", 2: "cgroup.procs"}
    return [f"{cgroup.directory(i)}/{names[place.version]}" for i, place in enumerate(cgroup.places)]


def join(cgroup: Cgroup) -> None:
    """Enter, as a child does before it executes."""
    for path in joined(cgroup):
        with open(path, "w") as file:
            file.write("0")


def without_unified(host: Hierarchies) -> Hierarchies:
    """As if version 2 were not there."""
    return Hierarchies(tuple(one for one in host.found if one.version == 1))


def unified_only(host: Hierarchies) -> Hierarchies:
    """As if version 1 were not there."""
    return Hierarchies(tuple(one for one in host.found if one.version == 2))


KINDS = {"host": lambda host: host, "v1": without_unified, "v2": unified_only}


def offered(kind: str) -> bool:
    """Whether this host can be taken for one of that kind; any can for itself."""
    return kind == "host" or KINDS[kind](HOST).processes is not None
