"""A process in a container that runs: the plan of it, and sockets in its network without a process.

The launcher joins the container's pid namespace, which concerns its children alone, clones, and goes back. The child
enters the other namespaces through the pidfd of the container's process 1, gives up what the container gave up, and
executes: it costs a start less the mounts. It has the container's user, limits and environment, whatever the container
has made of its own since.

Unlike at a start there are others who can see the child before it has executed, with the launcher's memory and
descriptors (CVE-2016-9962): it is not dumpable, so in the container only who has CAP_SYS_PTRACE can look into it, and
not even he where that is of a user namespace. There it gets a copy of the memory, not the launcher's own: as in runc,
that capability is not to be given, without `userns`, to whom one does not trust. Its descriptors are closed by execve,
its working directory is in the container before anything else happens (CVE-2024-21626).
"""

import os
import socket
from collections.abc import Sequence

from runtime import build, plan, security
from runtime.capabilities import CAPABILITIES
from runtime.cgroup.group import Cgroup
from runtime.config import ContainerConfig, Network
from runtime.idmap import Ids
from runtime.lower import FD_PIDFD
from runtime.network import namespace
from runtime.userns import Users

_PTRACE = CAPABILITIES.index("CAP_SYS_PTRACE")


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
    made itself since.

    With `keeps_orphans` all that it starts can be found, and ended with it; else it is as if the container had started
    it. Standard input may be a `terminal`.

    With `init` it has one of its own beside it, which is what the supervisor sees, and which reaps its orphans. That
    costs a copy of the launcher: it is for containers whose process 1 reaps none.
    """
    inside = security.inner_flags(config.network)
    users = Users(ids, FD_PIDFD + 1)
    first = users.position + users.count
    prologue = [plan.JoinProcesses(), *build.make_cgroup(cgroup, first, new=cgroup is not None and cgroup.entry != "")]
    steps: list[plan.Step] = [
        *prologue,
        *build.join_cgroup(cgroup, first, namespace=False),
        plan.TakeStdio(),
        plan.EnterNamespaces(inside),
        plan.NewSession(terminal=terminal),
        *([] if config.workdir == "/" else [plan.EnterWorkdir(config.workdir)]),
        *users.join(build.limits(config)),
        *security.bounding(config),
        *([plan.KeepOrphans()] if keeps_orphans else []),
        *(_init(config) if init else []),
        *([] if ids else build.limits(config)),
        *security.identity(config),
        plan.HideMemory(),
        *build.execution(config, tuple(argv)),
    ]
    return plan.Plan(
        id=config.id,
        directory=None,
        keep=False,
        network=config.network,
        terminal=False,
        init=init,
        prologue=len(prologue),
        steps=tuple(steps),
        apart=ids is None and bool(config.capabilities >> _PTRACE & 1),
        owner=users.owner(config.user.uid, config.user.gid),
        cgroup=cgroup,
    )


def _init(config: ContainerConfig) -> list[plan.Step]:
    return [plan.DieWithSupervisor(), plan.ForkInit(config.capabilities)]


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
