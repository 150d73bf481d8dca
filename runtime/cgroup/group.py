"""A container's cgroup, as seen from the supervisor: who is in it, kill, freeze, what it uses.

Nothing here waits, but the kill of version 1, and that not for long.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from runtime import pidfd
from runtime.cgroup import v1, v2
from runtime.cgroup.figures import Figures, Pressure
from runtime.cgroup.files import below, entries, pids, read, write
from runtime.cgroup.hierarchies import Hierarchy
from runtime.cgroup.limits import Setting
from runtime.remove import remove_cgroup

KILL_ROUNDS_MAX = 100  # of signals to a cgroup of version 1 whose processes fork, or are slow to freeze
KILL_ROUND_S = 0.005
BRING_ROUNDS_MAX = 20  # of moves to another cgroup of processes that fork


@dataclass(frozen=True, slots=True)
class Place:
    """A branch in one hierarchy. The descriptor is what a launcher reaches it by, which has no /sys."""

    hierarchy: Hierarchy
    controllers: frozenset[str]  # those that a container has there
    directory: str
    descriptor: int

    @property
    def version(self) -> int:
        return self.hierarchy.version


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A container's, whether it has been made or not. The first place is where it is killed and frozen.

    With `entry` it is a cgroup of that name inside the container's, for a command that is run there: of its own only
    in the first place, so that it can be killed alone, while the container's limits hold for both.
    """

    name: str
    places: tuple[Place, ...]
    settings: tuple[tuple[int, Setting], ...] = ()  # index of the place, what to write there
    entry: str = ""

    def inside(self, entry: str) -> "Cgroup":
        """A cgroup in this one; without a name this one itself, as it is."""
        return Cgroup(self.name, self.places, (), entry)

    def within(self, index: int) -> str:
        """Where it is, from the directory of that place."""
        return f"{self.name}/{self.entry}" if self.entry and index == 0 else self.name

    def directory(self, index: int) -> str:
        """Where it is in that place."""
        return f"{self.places[index].directory}/{self.within(index)}"

    @property
    def path(self) -> str:
        """For people."""
        return self.directory(0)

    @property
    def own(self) -> range:
        """The places in which it has a directory of its own."""
        return range(1 if self.entry else len(self.places))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Of its places, in their order: for the launcher."""
        return tuple(place.descriptor for place in self.places)

    # --- life --------------------------------------------------------------------------------------------------------

    def make(self) -> None:
        """Make it, with its limits. A launcher does the same by the steps of a plan."""
        for index in self.own:
            with suppress(FileExistsError):
                os.mkdir(self.directory(index))
        for index, setting in self.settings:
            write(f"{self.directory(index)}/{setting.file}", setting.value)

    def change(self, to: "Cgroup", resets: tuple[tuple[int, Setting], ...]) -> None:
        """Have it be like `to`, which has all of its places and perhaps more, while it lives: its processes come along.
        `resets` are limits that it had. OSError names the file.
        """
        for index in range(len(self.places), len(to.places)):  # what it has had may be gone, and stays so
            with suppress(FileExistsError):
                os.mkdir(to.directory(index))
        for index, setting in (*resets, *to.settings):
            write(f"{to.directory(index)}/{setting.file}", setting.value)
        for index in range(len(self.places), len(to.places)):
            self._bring(to.directory(index))

    def _bring(self, directory: str) -> None:
        """Into a hierarchy that they were not in. Those that are born meanwhile have the place of their parents."""
        for _ in range(BRING_ROUNDS_MAX):
            missing = set(self.members()) - set(pids(directory))
            for pid in missing:
                with suppress(ProcessLookupError):
                    write(f"{directory}/cgroup.procs", str(pid))
            if not missing:
                return

    def remove(self) -> None:
        """Remove it, and what the container made in it; its processes must have ended. OSError if they have not."""
        for index in self.own:
            remove_cgroup(self.directory(index))

    def members(self) -> list[int]:
        """Its processes, those in cgroups below it included."""
        return [pid for one in below(self.directory(0)) for pid in pids(one)]

    # --- control -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL to all of it, frozen or not, forking or not. No error if it is gone."""
        with suppress(FileNotFoundError):
            if self.places[0].version == 2:
                write(f"{self.directory(0)}/cgroup.kill", "1")
            else:
                kill_by_freezer(self.directory(0))

    def freeze(self) -> None:
        """Stop all its processes where they are; `frozen` tells when they are. OSError if it is gone."""
        self._freeze(frozen=True)

    def thaw(self) -> None:
        """Let them go on."""
        self._freeze(frozen=False)

    def _freeze(self, *, frozen: bool) -> None:
        if self.places[0].version == 2:
            write(f"{self.directory(0)}/cgroup.freeze", str(int(frozen)))
        else:
            write(f"{self.directory(0)}/freezer.state", "FROZEN" if frozen else "THAWED")

    @property
    def frozen(self) -> bool:
        """Whether every process of it has stopped."""
        if self.places[0].version == 2:
            return entries(f"{self.directory(0)}/cgroup.events").get("frozen") == 1
        return read(f"{self.directory(0)}/freezer.state").strip() == b"FROZEN"

    # --- figures -----------------------------------------------------------------------------------------------------

    def figures(self) -> Figures:
        """What it uses and has used."""
        found: dict[str, int | None] = {}
        for index, place in enumerate(self.places):
            version = v1 if place.version == 1 else v2
            found |= version.figures(self.directory(index), place.controllers)
        if "pids" not in found:
            found["pids"] = len(self.members())
        return Figures(pressure=self._pressure(), **found)

    def _pressure(self) -> dict[str, Pressure]:
        return v2.pressures(self.directory(0)) if self.places[0].version == 2 else {}

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory, as far as it tells."""
        index = self.index_of("memory")
        if index is None:
            return 0
        version = v1 if self.places[index].version == 1 else v2
        return version.oom_kills(self.directory(index)) or 0

    def ran_full(self) -> bool:
        """Has it met its limit of memory, so that a kill may be under way? Of version 2 the count of kills says all."""
        index = self.index_of("memory")
        return index is not None and self.places[index].version == 1 and v1.ran_full(self.directory(index))

    def index_of(self, controller: str) -> int | None:
        """The place where it has this controller."""
        found = (index for index, place in enumerate(self.places) if controller in place.controllers)
        return next(found, None)


def kill_by_freezer(directory: str) -> None:
    """Version 1: what is frozen can't fork and can't end, so all that is listed then gets the signal; it takes effect
    when thawed. Again, while something is there: what was about to enter, or did not freeze in time.
    """
    for _ in range(KILL_ROUNDS_MAX):
        groups = below(directory)
        if not any(pids(one) for one in groups):
            return
        for state in ("FROZEN", "THAWED"):
            for one in groups:
                with suppress(FileNotFoundError):
                    write(f"{one}/freezer.state", state)
            if state == "FROZEN":
                signal_all(groups)
        time.sleep(KILL_ROUND_S)


def signal_all(groups: list[str]) -> None:
    """SIGKILL to every process in these cgroups. A pid may become another's: it is looked for again once held."""
    for one in groups:
        for pid in pids(one):
            descriptor = pidfd.opened(pid)
            if descriptor is None:
                continue
            with suppress(ProcessLookupError):
                try:
                    if pid in pids(one):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                finally:
                    os.close(descriptor)
