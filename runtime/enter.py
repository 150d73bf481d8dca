"""A process in a container that runs: the plan of it, and sockets in its network without a process.

The launcher joins the container's pid namespace, which concerns its children alone, clones, and goes back. The child
enters the other namespaces through the pidfd of the container's process 1, gives up what the container gave up, and
executes: it costs a start less the mounts. It has the container's user, limits and environment, whatever the container
has made of its own since.

Unlike at a start there are others who can see the child before it has executed, with the launcher's memory and
descriptors (CVE-2016-9962). What forbids to look into it is that it is not dumpable: that does not count for who has
CAP_SYS_PTRACE in the user namespace in which the launcher was executed, the host's (kernel/ptrace.c:
__ptrace_may_access). Its descriptors are closed by execve, its working directory is in the container before anything
else happens (CVE-2024-21626).

So where somebody inside may have that capability, the way in is another (`_steps_apart`). A copy of the launcher, out
of the container's sight, becomes all that the container's own are, filter included, closes its descriptors, and
executes a file in memory that holds the calls that are left to make (native.py). Only then it clones into the
container's pid namespace, a child of the supervisor's like itself, and ends: what can be seen inside has never been
more than any other process of the container. Who was cloned is told by a page that only the first of the two has
mapped.

No other capability of the host's user namespace leads into what enters and not elsewhere too: CAP_SYS_ADMIN may mount
the host's disk, CAP_PERFMON and CAP_BPF read all of the kernel's memory, CAP_SYS_MODULE and CAP_SYS_RAWIO write it; and
/proc/PID/mem and its like ask the same question as ptrace(2), whatever CAP_DAC_OVERRIDE permits. In a user namespace
none of them counts for what was executed outside.
"""

import mmap
import os
import socket
import sys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runtime import build, linux, native, plan, security
from runtime.assemble import Program
from runtime.capabilities import CAPABILITIES
from runtime.cgroup.group import Cgroup
from runtime.config import ContainerConfig, Network
from runtime.idmap import Ids
from runtime.lower import FD_PIDFD
from runtime.network import namespace
from runtime.userns import Users

_PTRACE = CAPABILITIES.index("CAP_SYS_PTRACE")
_ANYBODY = "1"  # of fs.suid_dumpable: who changes the user stays dumpable


def build_entry(
    config: ContainerConfig,
    argv: Sequence[str],
    *,
    init: bool = False,
    terminal: bool = False,
    keeps_orphans: bool = True,
    cgroup: Cgroup | None = None,
    ids: Ids | None = None,
) -> plan.Plan:
    """The plan of a command in the container that `config` describes, in a cgroup inside the container's. Its
    descriptors: the streams, a pidfd, and with `ids` the container's user namespace: not whatever its process 1 has
    made itself since; then those of its `Passage`.

    With `keeps_orphans` all that it starts can be found, and ended with it; else it is as if the container had started
    it. Standard input may be a `terminal`.

    With `init` it has one of its own beside it, which is what the supervisor sees, and which reaps its orphans. That
    costs a copy of the launcher: it is for containers whose process 1 reaps none.
    """
    users = Users(ids, FD_PIDFD + 1)
    after = users.position + users.count
    apart = can_be_looked_into(config, ids)
    become = plan.BecomeEntry(after, after + 1 if _has_program() else None) if apart else None
    first = after + (0 if become is None else 1 if become.file is None else 2)
    made = build.make_cgroup(cgroup, first, new=cgroup is not None and cgroup.entry != "")
    joined = build.join_cgroup(cgroup, first, namespace=False)
    own = _Own(
        users=users,
        limits=build.limits(config),
        session=plan.NewSession(terminal=terminal),
        orphans=[plan.KeepOrphans()] if keeps_orphans else [],
        init=init,
    )
    return plan.Plan(
        id=config.id,
        directory=None,
        keep=False,
        network=config.network,
        terminal=False,
        init=init,
        prologue=len(made) + (become is None),
        steps=(
            *([] if apart else [plan.JoinProcesses()]),
            *made,
            *joined,
            plan.TakeStdio(),
            *(_steps(config, argv, own) if become is None else _steps_apart(config, argv, own, become)),
        ),
        apart=apart,
        owner=users.owner(config.user.uid, config.user.gid),
        cgroup=cgroup,
    )


def can_be_looked_into(config: ContainerConfig, ids: Ids | None) -> bool:
    """May somebody inside look into what enters, before it has executed?"""
    return (ids is None and bool(config.capabilities >> _PTRACE & 1)) or _anybody_may()


@cache
def _anybody_may() -> bool:
    """Where fs.suid_dumpable says so, who has become another user may be traced by that one (proc_sys_fs(5)): for a
    moment, until we forbid it.
    """
    try:
        return Path("/proc/sys/fs/suid_dumpable").read_text(encoding="ascii").strip() == _ANYBODY
    except OSError:
        return False


@cache
def _has_program() -> bool:
    """Can a file in memory be executed here? Not on other machines, nor where vm.memfd_noexec forbids it: there what
    forks into the container has a copy of the launcher's memory, if nothing else of it.
    """
    program = native.init_program()
    if program is None:
        return False
    try:
        os.close(linux.executable_file("entry", program))
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Own:
    """What a command has of its own."""

    users: Users
    limits: list[plan.Step]
    session: plan.Step
    orphans: list[plan.Step]
    init: bool


def _steps(config: ContainerConfig, argv: Sequence[str], own: _Own) -> list[plan.Step]:
    return [
        _namespaces(config),
        own.session,
        *_workdir(config),
        *own.users.join(own.limits),
        *security.bounding(config),
        *own.orphans,
        *([plan.DieWithSupervisor(), plan.ForkInit(config.capabilities)] if own.init else []),
        *(own.limits if own.users.ids is None else ()),
        *security.identity(config),
        plan.HideMemory(),
        *build.execution(config, tuple(argv)),
    ]


def _steps_apart(config: ContainerConfig, argv: Sequence[str], own: _Own, become: plan.BecomeEntry) -> list[plan.Step]:
    """The filter must be there before it is seen, and so permit what it does then. A user's limit of processes counts
    two for a moment.
    """
    umask, die, close, *confinement, execute = build.execution(config, tuple(argv))
    unchecked = plan.DieWithSupervisor(checked=False)
    return [
        plan.JoinProcesses(),
        _namespaces(config),
        *_workdir(config),
        *own.users.join(own.limits),
        *security.bounding(config),
        *(own.limits if own.users.ids is None else ()),
        *security.identity(config),
        umask,
        die,
        become,
        plan.MapPage(),
        close,
        *confinement,
        plan.Pass(),
        own.session,
        *own.orphans,
        *([unchecked, plan.ForkInit(None)] if own.init else []),
        unchecked,
        execute,
    ]


def _namespaces(config: ContainerConfig) -> plan.Step:
    return plan.EnterNamespaces(security.inner_flags(config.network))


def _workdir(config: ContainerConfig) -> list[plan.Step]:
    return [] if config.workdir == "/" else [plan.EnterWorkdir(config.workdir)]


class Passage:
    """What goes along with an entry besides streams and namespaces: its cgroup's places, and if it enters apart, the
    page that tells who it has become, and the file that it becomes.
    """

    def __init__(self, entry: plan.Plan, program: Program) -> None:
        """OSError where there are no descriptors, or there is no memory."""
        self.places = () if entry.cgroup is None else entry.cgroup.descriptors
        self._files: tuple[int, ...] = ()
        self._page: mmap.mmap | None = None
        if entry.apart:
            self._make(entry, program)

    def _make(self, entry: plan.Plan, program: Program) -> None:
        page = os.memfd_create("page", os.MFD_CLOEXEC)
        self._files = (page,)
        try:
            os.truncate(page, mmap.PAGESIZE)
            self._page = mmap.mmap(page, mmap.PAGESIZE)
            index = next(index for index, step in enumerate(entry.steps) if isinstance(step, plan.BecomeEntry))
            if _has_program():
                calls = bisect_right(program.steps, index)
                file = linux.executable_file("entry", native.entry_program(program.image, calls))
                self._files = (page, file)
        except BaseException:
            self.close()
            raise

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (*self._files, *self.places)

    def close(self) -> None:
        """They were sent. `pid` is told all the same."""
        for descriptor in self._files:
            os.close(descriptor)
        self._files = ()

    def forget(self) -> None:
        """Nobody will ask for the pid any more."""
        if self._page is not None:
            self._page.close()

    def pid(self, cloned: int) -> int:
        """Who is in the container, if the launcher has cloned this one: another child of the supervisor's, or that
        one. To be asked again once that one has ended, if it did not succeed: it may have done so just then.
        """
        return cloned if self._page is None else int.from_bytes(self._page[:4], sys.byteorder) or cloned


class Door:
    """Our own network namespace, held open: the way back from a container's."""

    def __init__(self) -> None:
        self._home = namespace.opened()

    def close(self) -> None:
        os.close(self._home)

    def socket(self, pidfd: int, network: Network, family: socket.AddressFamily) -> socket.socket:
        """A TCP socket, non-blocking, in the network of the container whose process 1 this is. OSError if it has ended.

        A socket stays in the network namespace that it was made in (network_namespaces(7)). Nothing waits here, and
        no other thread gets a turn: system calls are made with the interpreter's lock held.
        """
        if network is Network.HOST:
            return _socket(family)
        with namespace.inside(pidfd, self._home):
            return _socket(family)


def _socket(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
