"""What all runs share, and how often a launcher that dies over its work is replaced by another."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

import anyio

from runtime.cgroup.branch import Branch
from runtime.enter import Door
from runtime.errors import LauncherLostError
from supervisor.kernel.memory import MemoryWatch
from supervisor.kernel.namespaces import Namespaces
from supervisor.kernel.notify import Listener
from supervisor.network.stack import Networks
from supervisor.processes.launchers import LauncherPool
from supervisor.processes.reaper import Reaper

TRIES_MAX = 3  # what a launcher died over is tried again by another

Result = TypeVar("Result")
Tell = Callable[[str, str, Mapping[str, object]], None]  # (event, container, fields)


@dataclass(frozen=True, slots=True)
class Means:
    """What all runs of a runner share."""

    pool: LauncherPool
    branch: Branch
    door: Door
    listener: Listener
    namespaces: Namespaces
    networks: Networks
    reaper: Reaper
    memory: MemoryWatch
    tasks: anyio.abc.TaskGroup  # for what must not be waited for
    tell: Tell
    numbers: Iterator[int] = field(default_factory=count)  # of commands in containers


async def insist(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """The same again where a launcher was lost; whatever else fails has failed."""
    for _ in range(TRIES_MAX - 1):
        with suppress(LauncherLostError):
            return await attempt()
    return await attempt()
