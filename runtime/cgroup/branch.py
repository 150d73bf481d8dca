"""A stack's part of the tree: OWN/pysup/NAME in every hierarchy that its containers use.

It is made when the first container needs it, and removed with the last. A supervisor that is killed leaves it; the next
one, which may live in another cgroup, is told the directories and sweeps them.
"""

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from runtime.cgroup import v1, v2
from runtime.cgroup.files import below, pids, read, write
from runtime.cgroup.group import Cgroup, Place, signal_all
from runtime.cgroup.hierarchies import CONTROLLERS, Hierarchies, Hierarchy
from runtime.cgroup.limits import NO_LIMITS, Limits, Setting, controller_of, device_number, keys, path_of, processors
from runtime.errors import CgroupError
from runtime.remove import remove_cgroup

TOP = "pysup"
FIGURES = frozenset({"memory", "pids"})  # of version 2, where a controller more costs no directory more
SHAPES_MAX = 256  # remembered: of a spec's limits there are few, of `docker update`'s there may be any number
MAKE_TRIES_MAX = 10  # while others remove the top that they found empty
CONTROL_FILES = CONTROLLERS | {"cgroup", "irq"}
VERSIONS = {1: v1, 2: v2}

Settings = tuple[tuple[Hierarchy, Setting], ...]


def directory_name(container: str) -> str:
    """As systemd does (CGROUP_DELEGATION): what could be the name of a control file gets an underscore before it."""
    reserved = container in ("tasks", "notify_on_release", "release_agent")
    return f"_{container}" if reserved or container[0] == "_" or _is_control_file(container) else container


def _is_control_file(name: str) -> bool:
    first, dot, _ = name.partition(".")
    return bool(dot) and first in CONTROL_FILES


def settings(hierarchies: Hierarchies, limits: Limits) -> Settings:
    """What to write where. CgroupError names a limit that this host can't enforce, and says what to do."""
    for key, why in unmet(hierarchies, limits).items():
        raise CgroupError(f"{path_of(key)}: {why}")
    where = {key: hierarchies.of(controller) for key, controller in keys(limits)}
    return tuple(
        (hierarchy, setting)
        for number, version in VERSIONS.items()
        for setting in version.settings(limits)
        if (hierarchy := where[setting.key]) is not None and hierarchy.version == number
    )


def unmet(hierarchies: Hierarchies, limits: Limits) -> dict[str, str]:
    """By the keys of limits, why this host can't enforce them, as far as that can be told before they are set."""
    found = {key: _why_not(hierarchies, limits, key, controller) for key, controller in keys(limits)}
    return {key: why for key, why in found.items() if why is not None}


def _why_not(hierarchies: Hierarchies, limits: Limits, key: str, controller: str) -> str | None:
    found = hierarchies.of(controller)
    if found is None:
        return f"{_lacking(hierarchies, controller)}, or leave the limit out"
    if found.version == 1 and (reason := v1.lacking(limits).get(key)):
        return f"this host has {controller} in cgroup v1, {reason}"
    if key == "cpuset":
        return _missing_processors(found, str(limits.cpuset))
    try:
        for one in limits.io if key == "io" else ():
            device_number(one.device)
    except CgroupError as error:
        return str(error)
    return None


def _is_gone(reset: Setting, wanted: Iterable[tuple[int, Setting]]) -> bool:
    """Whether the file is not written anyway; that of `io` has more than one limit."""
    return reset.key == "io" or reset.file not in {setting.file for _, setting in wanted}


def _missing_processors(hierarchy: Hierarchy, cpuset: str) -> str | None:
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        if offered := read(f"{hierarchy.own}/{name}").decode("ascii").strip():
            missing = processors(cpuset) - processors(offered)
            return f"there is no processor {min(missing)}: there are {offered}" if missing else None
    return None


def _lacking(hierarchies: Hierarchies, controller: str) -> str:
    if any(controller in one.controllers for one in hierarchies.found):
        return f"cgroup controller {controller} is read-only here: mount /sys/fs/cgroup writable"
    if hierarchies.unified is not None and len(hierarchies.found) == 1:
        own = hierarchies.unified.own
        return (
            f"{own} was not given the cgroup controller {controller}: "
            "start pysup by systemd-run --scope -p Delegate=yes, or in a service with Delegate=yes"
        )
    return f"this host offers no cgroup controller {controller}: enable and mount it"


@dataclass(frozen=True, slots=True)
class Shape:
    """What all cgroups with the same limits have in common."""

    places: tuple[Place, ...]
    settings: tuple[tuple[int, Setting], ...]
    unmet: Mapping[str, str]  # limits that are left out, and why


class Branch:
    """Where the containers of one stack have their cgroups. A context manager: leaving it removes the branch."""

    def __init__(self, hierarchies: Hierarchies, name: str) -> None:
        self._hierarchies = hierarchies
        self._name = directory_name(name)
        self._places: dict[Hierarchy, Place] = {}
        self._shapes: dict[Limits, Shape] = {}
        self._home: str | None = None  # the cgroup that we have left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def holds_devices(self) -> bool:
        """Can a container be held to reading, or writing, a device? See runtime/devices.py."""
        return self._hierarchies.unified is not None

    def directories(self) -> list[str]:
        """Every directory that it may make."""
        return [self._directory(one) for one in self._hierarchies.found if one.writable]

    def _directory(self, hierarchy: Hierarchy) -> str:
        return f"{hierarchy.own}/{TOP}/{self._name}".replace("//", "/")

    def prepare(self, limits: Limits = NO_LIMITS) -> None:
        """Make what containers with these limits need, before there are launchers, which would be in our own cgroup.
        CgroupError.
        """
        self._shape(limits)

    # --- cgroups of containers ---------------------------------------------------------------------------------------

    def cgroup(self, container: str, limits: Limits) -> Cgroup | None:
        """The cgroup of a container with these limits, to be made yet; None on a host without cgroups.

        CgroupError if the host can't enforce a limit.
        """
        shape = self._shape(limits)
        return Cgroup(directory_name(container), shape.places, shape.settings) if shape.places else None

    def changed(self, cgroup: Cgroup, old: Limits, new: Limits) -> tuple[Cgroup, tuple[tuple[int, Setting], ...]]:
        """What a cgroup that was made with the old limits is with the new ones, and what takes the old ones away: see
        `Cgroup.change`. CgroupError if the host can't enforce a limit.
        """
        shape = self._shape(new)
        merged = {place.hierarchy: place for place in (*cgroup.places, *shape.places)}
        order = list(merged)
        wanted = tuple((order.index(shape.places[index].hierarchy), setting) for index, setting in shape.settings)
        held = old.without(self._shape(old).unmet)
        resets = tuple(
            (order.index(hierarchy), setting)
            for hierarchy in order
            for setting in VERSIONS[hierarchy.version].resets(held)
            if controller_of(setting.key) in hierarchy.controllers and _is_gone(setting, shape.settings)
        )
        if held.cpuset is not None and new.cpuset is None:
            resets += self._all_processors(order)
        return Cgroup(cgroup.name, tuple(merged.values()), wanted), resets

    @staticmethod
    def _all_processors(order: list[Hierarchy]) -> tuple[tuple[int, Setting], ...]:
        """Neither version lets a cpuset with processes become empty again (kernel/cgroup/cpuset.c: validate_change)."""
        places = [(index, one) for index, one in enumerate(order) if "cpuset" in one.controllers]
        names = {1: "cpuset.cpus", 2: "cpuset.cpus.effective"}
        found = [(index, read(f"{one.own}/{names[one.version]}").decode("ascii").strip()) for index, one in places]
        return tuple((index, Setting("cpuset", "cpuset.cpus", processors)) for index, processors in found)

    def unmet(self, limits: Limits) -> Mapping[str, str]:
        """By their keys, the limits that are left out, as best effort has it, and why."""
        return self._shape(limits).unmet

    def _shape(self, limits: Limits) -> Shape:
        if limits not in self._shapes:
            if len(self._shapes) == SHAPES_MAX:  # the oldest: it is made again if somebody asks
                del self._shapes[next(iter(self._shapes))]
            self._shapes[limits] = self._best_shape(limits) if limits.best_effort else self._whole_shape(limits, {})
        return self._shapes[limits]

    def _best_shape(self, limits: Limits) -> Shape:
        left_out = unmet(self._hierarchies, limits)
        try:
            return self._whole_shape(limits.without(left_out), left_out)
        except CgroupError as error:
            nothing = {key: str(error) for key, _ in keys(limits)}
            return self._whole_shape(NO_LIMITS, {**nothing, **left_out})

    def _whole_shape(self, limits: Limits, left_out: Mapping[str, str]) -> Shape:
        writes = settings(self._hierarchies, limits)
        used = self._used(limits)
        needed = {controller for _, controller in keys(limits)}
        places = tuple(self._place(one, needed) for one in used)
        indexed = tuple((used.index(hierarchy), setting) for hierarchy, setting in writes)
        for index, setting in indexed:
            if not os.path.exists(f"{places[index].directory}/{setting.file}"):
                raise CgroupError(f"{path_of(setting.key)}: this kernel has no {setting.file}: leave the limit out")
        return Shape(places, indexed, left_out)

    def _used(self, limits: Limits) -> list[Hierarchy]:
        """The hierarchies that do the job, that for killing first."""
        all_of = self._hierarchies
        accounting = None if all_of.unified else all_of.of("cpuacct")
        limiting = [all_of.of(controller) for _, controller in keys(limits)]
        wanted = [all_of.processes, all_of.of("memory"), accounting, *limiting]
        return list(dict.fromkeys(one for one in wanted if one is not None))

    # --- making it ---------------------------------------------------------------------------------------------------

    def _place(self, hierarchy: Hierarchy, needed: set[str]) -> Place:
        """The branch in a hierarchy, made if need be, and the controllers of it that are needed or cost nothing."""
        try:
            if hierarchy not in self._places:
                self._places[hierarchy] = self._make(hierarchy)
            place = self._places[hierarchy]
            if hierarchy.version == 1:
                return self._fill(place, needed)
            return self._enable(place, hierarchy.controllers & (needed | FIGURES), hierarchy.controllers & needed)
        except OSError as error:
            raise CgroupError(f"can't use {error.filename or hierarchy.own}: {error.strerror}") from error

    def _make(self, hierarchy: Hierarchy) -> Place:
        directory = self._directory(hierarchy)
        for _ in range(MAKE_TRIES_MAX):
            with suppress(FileNotFoundError):
                os.makedirs(directory, 0o755, exist_ok=True)
                descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                return Place(hierarchy, hierarchy.controllers, directory, descriptor)
        raise CgroupError(f"can't make {directory}: it is removed again and again")

    def _fill(self, place: Place, needed: set[str]) -> Place:
        if "cpuset" in needed & place.controllers:
            v1.fill_cpuset(os.path.dirname(place.directory))
            v1.fill_cpuset(place.directory)
        return place

    def _enable(self, place: Place, wanted: frozenset[str], required: frozenset[str]) -> Place:
        """Hand controllers down. Those that are only for figures are done without where it can't be."""
        try:
            self._hand_down(place, wanted)
        except OSError as error:
            if required:
                raise CgroupError(_undivided(place.hierarchy.own, error)) from error
            wanted = frozenset()
        return Place(place.hierarchy, wanted, place.directory, place.descriptor)

    def _hand_down(self, place: Place, controllers: frozenset[str]) -> None:
        top = os.path.dirname(place.directory)
        own = place.hierarchy.own
        try:
            v2.enable(own, controllers)
        except OSError as error:
            if error.errno != errno.EBUSY or self._home is not None:
                raise
            self._move_into_leaf(own, top)
            v2.enable(own, controllers)
        v2.enable(top, controllers)
        v2.enable(place.directory, controllers)

    def _move_into_leaf(self, own: str, top: str) -> None:
        """A cgroup with processes can't hand controllers down (the "no internal process constraint" of cgroups(7))."""
        leaf = f"{top}/{_leaf()}"
        os.makedirs(leaf, 0o755, exist_ok=True)
        write(f"{leaf}/cgroup.procs", "0")
        self._home = own

    # --- taking it away ----------------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Take it away, as far as it is empty, and go back to where we came from; close its descriptors."""
        for place in self._places.values():
            os.close(place.descriptor)
            with suppress(OSError):
                os.rmdir(place.directory)
            with suppress(OSError):
                self._go_home(os.path.dirname(place.directory))
            with suppress(OSError):
                os.rmdir(os.path.dirname(place.directory))
        self._places, self._shapes = {}, {}

    def _go_home(self, top: str) -> None:
        if self._home is None:
            return
        home, self._home = self._home, None
        held = v2.enabled(home)
        write(f"{home}/cgroup.subtree_control", " ".join(f"-{one}" for one in held))
        write(f"{home}/cgroup.procs", "0")
        os.rmdir(f"{top}/{_leaf()}")


def _leaf() -> str:
    """Of a name that no stack has."""
    return f"@{os.getpid()}"


def _undivided(own: str, error: OSError) -> str:
    others = len([pid for pid in pids(own) if pid != os.getpid()])
    if error.errno == errno.EBUSY:
        return (
            f"{own} has {others} processes besides pysup, so its controllers can't be handed down: start pysup by "
            "systemd-run --scope -p Delegate=yes"
        )
    return f"can't hand cgroup controllers down in {error.filename}: {error.strerror}"


def sweep(directories: Iterable[str]) -> int:
    """Kill all that is in these branches, and remove them; returns how many cgroups of containers there were.

    OSError if something in them does not end.
    """
    found = [directory for directory in directories if os.path.isdir(directory)]
    containers = {os.path.basename(one) for directory in found for one in below(directory)[1:]}
    for directory in found:
        if os.path.exists(f"{directory}/cgroup.kill"):
            write(f"{directory}/cgroup.kill", "1")
    for directory in found:
        _kill_leftovers(below(directory))
    for directory in found:
        remove_cgroup(directory)
        with suppress(OSError):
            os.rmdir(os.path.dirname(directory))
    return len(containers)


def _kill_leftovers(groups: list[str]) -> None:
    """What is in version 1 alone."""
    signal_all(groups)
    for one in groups:
        if os.path.exists(f"{one}/freezer.state"):
            write(f"{one}/freezer.state", "THAWED")
