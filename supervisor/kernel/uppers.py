"""What containers that do not run have written: to be copied from and to, and thrown away.

An upper is used by one at a time: a start waits for who copies into it, for a while, and he for a start.
"""

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

import anyio

from runtime.config import ContainerConfig, Network
from runtime.errors import LaunchError
from runtime.idmap import Ids
from runtime.still import Still
from supervisor.kernel.means import Means
from supervisor.kernel.run import KernelRun
from supervisor.kernel.turns import Turns

COPYING_S = 60.0  # the longest that a start waits for who copies files into its container

T = TypeVar("T")
Remove = Callable[[str, str], Awaitable[None]]  # (container, directory)


@dataclass(frozen=True, slots=True)
class Running:
    """The files of one that runs: all that it sees itself."""

    root: int
    ids: Ids | None

    def within(self, work: Callable[[int], T]) -> T:
        """See `Files.within`."""
        return work(self.root)


@contextmanager
def running(run: KernelRun) -> Iterator[Running]:
    """Those of a run. ConflictError if it has ended."""
    root = run.root()
    try:
        yield Running(root, run.ids)
    finally:
        os.close(root)


class Uppers:
    """Of a runner's containers."""

    def __init__(self, means: Means, remove: Remove) -> None:
        self._means = means
        self._remove = remove
        self._turns = Turns()
        self._numbers = count(1)
        self._going: set[anyio.Event] = set()

    @asynccontextmanager
    async def started(self, config: ContainerConfig) -> AsyncIterator[None]:
        """While a run begins. LaunchError if files are copied into it for too long."""
        with anyio.move_on_after(COPYING_S) as patience:
            async with self._turns.of(config.directory):
                patience.deadline = math.inf
                yield
                return
        raise LaunchError("files are still being copied into it", container=config.id)

    @asynccontextmanager
    async def held(self, config: ContainerConfig) -> AsyncIterator[None]:
        """While it lasts, it does not start."""
        async with self._turns.of(config.directory):
            yield

    @asynccontextmanager
    async def still(self, config: ContainerConfig, *, write: bool, volumes: bool) -> AsyncIterator[Still]:
        """The files of one that does not run. Who writes holds it. LaunchError."""
        if config.userns is None:
            yield Still(config, write, volumes=volumes)
            return
        namespaces, alone = self._means.namespaces, config.network in (Network.NONE, Network.BRIDGE)
        async with namespaces.turn(config.id):
            own = await namespaces.take(config.id, config.userns, network=alone)
            try:
                yield Still(config, write, own.ids, own.user, volumes)
            finally:
                namespaces.give(config.id, own)

    def discard(self, container: str, directory: Path, aside: Path) -> None:
        """Throw away what a container had. The name is free at once: it goes `aside`, and from there by and by."""
        gone = aside / f".gone-{next(self._numbers)}"
        try:
            directory.rename(gone)
        except FileNotFoundError:
            return
        except OSError:  # the disk may be full, or read-only now
            gone = directory
        done = anyio.Event()
        self._going.add(done)
        self._means.tasks.start_soon(self._discard, container, str(directory), str(gone), done)

    async def _discard(self, container: str, directory: str, gone: str, done: anyio.Event) -> None:
        with anyio.CancelScope(shield=True):
            async with self._turns.of(directory):  # somebody may still copy into it
                await self._remove(container, gone)
        done.set()
        self._going.discard(done)

    async def settle(self) -> None:
        """Wait until all that was thrown away has gone."""
        for done in list(self._going):
            await done.wait()
