"""Ends a command that was run in a container, with all that it has started, as a whole.

It has a cgroup of its own, which is killed: that leaves nobody. On a host without cgroups it is as follows.

The command is a subreaper (PR_SET_CHILD_SUBREAPER(2const)): while it lives, its descendants stay its own, whoever of
their parents ends. So it is stopped first, then the tree below it is stopped from the top down, and killed, as often
as it takes until nothing below it lives; itself last. A parent that is stopped neither sees its children die, and goes
on, nor makes new ones. A command that has ended by itself has left its orphans to the container's process 1: those of
its session are found there. Only who has left the session, as daemons do, is none of its own any more.

Zombies among them are left to process 1, as orphans always are. Where that reaps none (`has_zombies`), a command gets
an init of its own: that one is not stopped, as it reaps, and what is said above holds for its first child, the command.

A pid is safe here: its parent is looked at after its pidfd was opened, so that is the descriptor of the parent's child,
or of somebody dead.
"""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import anyio

from runtime import pidfd
from runtime.cgroup.group import Cgroup
from supervisor.processes.reaper import Exit

ROUNDS_MAX = 16
TREE_MAX = 256  # processes in one round
ROUND_S = 0.005  # between two looks at a cgroup in which somebody still lives
STOP_ROUNDS_MAX = 200  # looks at a process until it has stopped
DEATH_S = 1.0  # the longest to wait for those killed in one round
DESCRIPTORS_S = 60.0  # the longest to wait for descriptors where there are none
END_S = 5.0  # and for all of it; what the kernel holds longer is left to it

Child = tuple[int, int]  # (pid, its parent's)


async def end_command(pid: int, ended: Exit, init: int, cgroup: Cgroup | None, *, kept: bool = False) -> None:
    """Kill a command, our child `pid`, and all of its own, by its cgroup if it has one; reap it. An init beside it that
    is `kept` outlives the others, so that it reaps them: a cgroup kills in no order.
    """
    if cgroup is None:
        await uproot(pid, ended, init, kept=kept)
        return
    with anyio.move_on_after(END_S, shield=True):
        if kept and ended.status is None:
            await _uproot_kept(pid, ended)
        await kill_cgroup(cgroup)
        await ended.wait()
        while _has_members(cgroup):
            await kill_cgroup(cgroup)
            await anyio.sleep(ROUND_S)


async def kill_cgroup(cgroup: Cgroup) -> None:
    """Kill all of it. Where there are no descriptors for that, as soon as there are, within a limit."""
    with anyio.move_on_after(DESCRIPTORS_S):
        while True:
            with suppress(OSError):
                cgroup.kill()
                return
            await anyio.sleep(ROUND_S)


def _has_members(cgroup: Cgroup) -> bool:
    try:
        return bool(cgroup.members())
    except OSError:
        return True


async def uproot(pid: int, ended: Exit, init: int, *, kept: bool = False) -> None:
    """Kill a command, our child `pid`, in the container whose process 1 is `init`, and all of its own; reap it. `kept`:
    our child is the command's init.
    """
    with anyio.move_on_after(END_S, shield=True):
        if ended.status is None and kept:
            await _uproot_kept(pid, ended)
        if ended.status is None:
            os.kill(pid, signal.SIGSTOP)  # our own child, not reaped: its pid can't be another's
            await _clear(lambda: _stopped([pid]))
            if ended.status is None:
                os.kill(pid, signal.SIGKILL)
            await ended.wait()
        await _clear(lambda: _orphans(pid, init))


async def _uproot_kept(keeper: int, ended: Exit) -> None:
    """The command last: its init ends with it."""
    command = await _command_of(keeper, ended)
    if command is None:
        return
    _stop((command, keeper))
    await _clear(lambda: [child for child in _stopped([keeper]) if child[0] != command])
    await _clear(lambda: [(command, keeper)] if _lives(command) else [])
    with anyio.move_on_after(DEATH_S):
        await ended.wait()


async def _command_of(keeper: int, ended: Exit) -> int | None:
    """What an init was begun for; None: it has not begun that yet, and is stopped before it does."""
    if (command := next(iter(_children(keeper)), None)) is not None:
        return command
    os.kill(keeper, signal.SIGSTOP)  # our own child, not reaped
    for _ in range(STOP_ROUNDS_MAX):  # a fork that is under way comes first
        if _stat(keeper)[0] in (0, *b"TZX"):
            break
        await anyio.sleep(ROUND_S)
    command = next(iter(_children(keeper)), None)
    if command is not None and ended.status is None:
        os.kill(keeper, signal.SIGCONT)
    return command


def has_zombies(session: int, init: int) -> bool:
    """Has process 1 not reaped what a command left dead? Session 0 is any but process 1's: each command has its own."""
    own = _stat(init)[SESSION]
    dead = {_stat(pid)[SESSION] for pid in _children(init) if not _lives(pid)}
    return session in dead if session else bool(dead - {own})


async def _clear(find: Callable[[], list[Child]]) -> None:
    """Kill what is found until nothing is."""
    for _ in range(ROUNDS_MAX):
        found = find()
        if not found:
            return
        dying = [fd for fd in (_signal(child, signal.SIGKILL) for child in found) if fd is not None]
        try:
            with anyio.move_on_after(DEATH_S):
                for descriptor in dying:
                    await anyio.wait_readable(descriptor)
        finally:
            for descriptor in dying:
                os.close(descriptor)


def _orphans(session: int, init: int) -> list[Child]:
    """Those of a session whose parent is process 1 now, and what is below them, stopped."""
    left = [(pid, init) for pid in _children(init) if _stat(pid)[SESSION] == session and _lives(pid)]
    for child in left:
        _stop(child)
    return [*left, *_stopped(pid for pid, _ in left)]


def _stopped(roots: Iterable[int]) -> list[Child]:
    """All that live below these, parents first; each was stopped before its children were looked for."""
    found: list[Child] = []
    parents = list(roots)
    for parent in parents:
        for pid in _children(parent):
            if len(found) < TREE_MAX and _lives(pid):
                _stop((pid, parent))
                found.append((pid, parent))
                parents.append(pid)
    return found


def _stop(child: Child) -> None:
    if (descriptor := _signal(child, signal.SIGSTOP)) is not None:
        os.close(descriptor)


def _signal(child: Child, number: int) -> int | None:
    """Send a signal; the pidfd of whom it was sent to, None if that is nobody."""
    pid, parent = child
    with suppress(OSError):  # it has ended, or we are out of descriptors: there is another round
        descriptor = pidfd.opened(pid)
        if descriptor is None:
            return None
        with suppress(ProcessLookupError):
            if _stat(pid)[PARENT] == parent:
                signal.pidfd_send_signal(descriptor, number)
                return descriptor
        os.close(descriptor)
    return None


def below(root: int, most: int) -> list[int]:
    """The pids of at most so many descendants, nearest first."""
    found = [root]
    for pid in found:
        found += _children(pid)[: most + 1 - len(found)]
    return found[1:]


# --- what /proc tells ------------------------------------------------------------------------------------------------

PARENT, SESSION = 1, 3  # fields of `_stat`; the first is the state
_GONE = (0, 0, 0, 0)


def _children(pid: int) -> list[int]:
    """Of all its threads: proc_tid_children(5)."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def _stat(pid: int) -> tuple[int, int, int, int]:
    """(state's letter, parent, process group, session): proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return _GONE
    return ord(fields[0]), int(fields[1]), int(fields[2]), int(fields[3])


def _lives(pid: int) -> bool:
    """A zombie does not, unless other threads of it still run."""
    if _stat(pid)[0] not in (0, *b"ZX"):
        return True
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    return False
