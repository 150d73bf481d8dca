"""Hears of kills for want of memory while containers live: tells of them, and sees `oom: kill-group` through where the
kernel does not (cgroup v1).

Only containers that have a limit of memory are watched: they cost a descriptor with version 1, and none with 2.
"""

from collections.abc import Callable

import anyio
import anyio.abc

from runtime.cgroup.group import Cgroup
from runtime.cgroup.oom import OomWatch

LOOKS_S = (0.01, 0.05, 0.2, 0.5)  # version 1 says it before it kills: when to look again


class MemoryWatch:
    """The ear for all containers of a runner. `run` is its one task."""

    def __init__(self) -> None:
        self._watch = OomWatch()
        self._looks: dict[int, Callable[[], bool]] = {}
        self._tasks: anyio.abc.TaskGroup | None = None  # while it listens

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            while True:
                await anyio.wait_readable(self._watch.fileno())
                for cgroup in self._watch.ready():
                    look = self._looks.get(id(cgroup))
                    if look is not None and not look():
                        tasks.start_soon(self._look_again, cgroup)

    async def _look_again(self, cgroup: Cgroup) -> None:
        for delay_s in LOOKS_S:
            await anyio.sleep(delay_s)
            look = self._looks.get(id(cgroup))
            if look is None or look():
                return

    def add(self, cgroup: Cgroup, look: Callable[[], bool]) -> None:
        """Call `look` when there may have been a kill, until it says that there was. OSError."""
        if not self._watch.add(cgroup):
            return
        self._looks[id(cgroup)] = look
        # It runs already: what happened before we listened was told to nobody.
        if not look() and self._tasks is not None and cgroup.ran_full():
            self._tasks.start_soon(self._look_again, cgroup)

    def remove(self, cgroup: Cgroup) -> None:
        """Nobody is to hear of this one. No error if nobody did."""
        if self._looks.pop(id(cgroup), None) is not None:
            self._watch.remove(cgroup)

    def close(self) -> None:
        """Hear no more."""
        self._watch.close()
