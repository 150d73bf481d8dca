"""User namespaces for containers with ids of their own: made before a container's first run, kept for those after it.

A launcher clones a process into them that waits for the end of file of a pipe: long enough to write its maps, which
only somebody outside may (user_namespaces(7)), and to open its namespaces. Then it ends, and the descriptors hold them.
The network namespace of a container without a network is made along, so that it belongs to the container's root.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import anyio

from runtime import linux
from runtime.errors import LaunchError
from runtime.idmap import AUTO, Ids, block, written
from supervisor.kernel.turns import Turns
from supervisor.processes.reaper import Exit
from supervisor.state.ids import Blocks

FAREWELL_S = 5.0  # the longest it may take a process that was told to end

Hold = Callable[[int, int], Awaitable[tuple[int, Exit]]]  # pipe, CLONE_NEW* -> a process in them


@dataclass(slots=True)
class Own:
    """A container's namespaces."""

    ids: Ids
    user: int
    network: int | None
    block: int | None  # which of ours the ids are

    def descriptors(self) -> tuple[int, ...]:
        """In the order in which a start takes them: runtime/userns.py."""
        return (self.user,) if self.network is None else (self.network, self.user)

    def close(self) -> None:
        for descriptor in self.descriptors():
            os.close(descriptor)


class Namespaces:
    """Those of a stack's containers."""

    def __init__(self, hold: Hold, blocks: Blocks) -> None:
        self._hold = hold
        self._blocks = blocks
        self._held: list[Exit] = []  # of processes that were there to be got hold of, until they have ended
        self._idle: dict[str, Own] = {}  # of containers that do not run
        self._turns = Turns()

    def turn(self, container: str) -> AbstractAsyncContextManager[None]:
        """While it lasts, nobody else takes those of this container."""
        return self._turns.of(container)

    async def take(self, container: str, wanted: Ids, *, network: bool) -> Own:
        """For a run. LaunchError, and those of Hold."""
        kept = self._idle.pop(container, None)
        if kept is not None:
            if _serves(kept, wanted, network=network):
                return kept
            self._discard(kept)
        try:
            return await self._make(wanted, network=network)
        except OSError as error:
            raise LaunchError(f"make its user namespace: {_advice(error)}", container=container) from error

    def give(self, container: str, own: Own) -> None:
        """Its run has ended."""
        if container in self._idle:
            self._discard(self._idle.pop(container))
        self._idle[container] = own

    def rename(self, container: str, to: str) -> None:
        """It is called otherwise from now on."""
        if container in self._idle:
            self._idle[to] = self._idle.pop(container)

    def forget(self, container: str) -> None:
        """It will not run again."""
        if container in self._idle:
            self._discard(self._idle.pop(container))

    async def settle(self) -> None:
        """Wait for the end of all that was started: they have been told, and do nothing else."""
        with anyio.move_on_after(FAREWELL_S, shield=True):
            for ended in self._held:
                await ended.wait()

    def close(self) -> None:
        """None of them runs."""
        for container in list(self._idle):
            self.forget(container)
        self._blocks.close()

    def _discard(self, own: Own) -> None:
        own.close()
        if own.block is not None:
            self._blocks.give(own.block)

    async def _make(self, wanted: Ids, *, network: bool) -> Own:
        taken = self._blocks.take() if wanted == AUTO else None
        ids = wanted if taken is None else block(taken)
        try:
            return Own(ids, *await self._made(ids, network=network), taken)
        except BaseException:
            if taken is not None:
                self._blocks.give(taken)
            raise

    async def _made(self, ids: Ids, *, network: bool) -> tuple[int, int | None]:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            pid, ended = await self._hold(reading, linux.CLONE_NEWUSER | (linux.CLONE_NEWNET if network else 0))
            self._held = [*(each for each in self._held if each.status is None), ended]
            # It can't end, nor its pid become another's, before we close the pipe.
            for name, extents in (("uid_map", ids.uid), ("gid_map", ids.gid)):
                _write(f"/proc/{pid}/{name}", written(extents))
            user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return user, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) if network else None
            except BaseException:
                os.close(user)
                raise
        finally:
            os.close(reading)
            os.close(writing)


def _serves(kept: Own, wanted: Ids, *, network: bool) -> bool:
    same = kept.block is not None if wanted == AUTO else kept.block is None and kept.ids == wanted
    return same and (kept.network is not None) == network


def _write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def _advice(error: OSError) -> str:
    code = error.errno or errno.EIO
    if code == errno.ENOSPC:
        return "no more can be made: raise user.max_user_namespaces (sysctl)"
    if code == errno.EINVAL and (error.filename or "").endswith("_map"):
        return "the kernel does not take its ids: they overlap, or are too many"
    return f"{os.strerror(code).lower()}{f' ({error.filename})' if error.filename else ''}"
