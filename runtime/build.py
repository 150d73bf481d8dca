"""From what a container is to be (`ContainerConfig`) to the plan of a run: the steps of each room, in their one right
order.

Two orders matter beyond the obvious. What needs root's powers comes before they are dropped; and the limits that could
starve the child itself (descriptors, address space, processes) are set after everything that needs descriptors, memory
or a fork.
"""

import os
from functools import lru_cache

from runtime import devices, network, plan, rootfs, security, volumes
from runtime.cgroup.group import Cgroup
from runtime.config import DEFAULT_PATH, ContainerConfig
from runtime.errors import ImageError
from runtime.idmap import Ids
from runtime.lower import FD_MORE
from runtime.userns import Users

CANDIDATES_KEPT = 256  # lists of them: replicas have the same

# By number: include/uapi/asm-generic/resource.h
RLIMITS = ("cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime").split()


def build_plan(
    config: ContainerConfig,
    cgroup: Cgroup | None = None,
    found: volumes.Found | None = None,
    ids: Ids | None = None,
) -> plan.Plan:
    """The plan of a run, in its cgroup. `found` is what its volumes are; None: it is looked up. `ids` are its own, if
    it has such: then its user namespace comes along, and the network namespace it owns. ImageError if the image's root
    directory can't be read.
    """
    root = _root_of(config.lowers[0])
    spaces = FD_MORE + config.terminal + config.notify
    joining = network.joining(config, spaces, owned=ids is not None)
    users = Users(ids, spaces + len(joining))
    mounts = users.position + users.count
    first = mounts + (volumes.count(config) if config.mounts else 0)
    found = volumes.look(config) if found is None else found
    joining_cgroup = join_cgroup(cgroup, first, namespace=True)
    # A group of version 1 is charged for what its first process mounts, which the kernel is slow to set up. That goes
    # to the launcher's, where there is nothing of the user's in it, and so nothing that could be big.
    late = not config.mounts
    prologue = [*rootfs.prologue(config, root), *make_cgroup(cgroup, first, held=devices.rules(found.devices))]
    steps: list[plan.Step] = [
        *prologue,
        *([] if late else joining_cgroup),
        plan.TakeStdio(),
        plan.NewSession(terminal=config.terminal and not config.init),
        *joining,
        *users.begin(),
        *rootfs.steps(config, root, found, mounts, users),
        plan.SetHostname(config.hostname),
        *network.steps(config),
        *_workdir(config.workdir),
        *([plan.ReadOnlyRoot()] if config.read_only else []),
        *(joining_cgroup if late else []),
        *users.join(limits(config)),
        *security.passing_on(config, owned=ids is not None),
        *security.bounding(config),
        *_init(config),
        *([] if ids else limits(config)),
        *security.identity(config),
        *execution(config, config.argv),
    ]
    return plan.Plan(
        id=config.id,
        directory=config.directory if config.memory_bytes is None else None,
        keep=config.keep or config.lasting,
        network=config.network,
        terminal=config.terminal,
        init=config.init,
        prologue=len(prologue),
        steps=tuple(steps),
        owner=users.owner(config.user.uid, config.user.gid),
        tty_gid=users.tty_gid,
        userns=ids is not None,
        own_mounts=rootfs.is_detached(config, users),
        stdin=config.stdin,
        cgroup=cgroup,
    )


def make_cgroup(
    cgroup: Cgroup | None, first: int, *, new: bool = True, held: tuple[devices.Rule, ...] = ()
) -> list[plan.Step]:
    """What is done for it before the clone. `first` is the position of the first of its descriptors."""
    if cgroup is None:
        return []
    steps: list[plan.Step] = []
    if new:
        steps.append(plan.MakeCgroup(cgroup, first))
        steps += [plan.SetLimit(cgroup, first, place, setting) for place, setting in cgroup.settings]
    if held:
        steps.append(plan.HoldDevices(cgroup, first, devices.program(held)))
    if cgroup.places[0].version == 2:
        steps.append(plan.OpenCgroup(cgroup, first))
    return steps


def join_cgroup(cgroup: Cgroup | None, first: int, *, namespace: bool) -> list[plan.Step]:
    """What the child does."""
    return [] if cgroup is None else [plan.JoinCgroup(cgroup, first, namespace)]


def _root_of(lower: str) -> os.stat_result:
    try:
        return os.stat(lower)
    except OSError as error:
        raise ImageError(f"image {lower}: {error.strerror}") from error


def _workdir(path: str) -> list[plan.Step]:
    """Entered while still root, as runc does: a user's service may start in a directory that user can't list."""
    return [] if path == "/" else [plan.MakeWorkdir(path), plan.EnterWorkdir(path)]


def _init(config: ContainerConfig) -> list[plan.Step]:
    if not config.init:
        return []
    more = security.init_needs(config)
    return [
        plan.DieWithSupervisor(),
        plan.ForkInit(config.capabilities | more, more),
        plan.NewSession(config.terminal),
    ]


def limits(config: ContainerConfig) -> list[plan.Step]:
    """The container's resource limits: getrlimit(2)."""
    return [plan.SetRlimit(number, RLIMITS[number], soft, hard) for number, soft, hard in config.rlimits]


def execution(config: ContainerConfig, argv: tuple[str, ...]) -> list[plan.Step]:
    """What comes last, whatever is executed."""
    return [
        plan.SetUmask(config.umask),
        plan.DieWithSupervisor(),
        plan.CloseDescriptors(),
        *security.confinement(config),
        plan.Exec(candidates(argv[0], dict(config.env).get("PATH", DEFAULT_PATH)), argv, config.env),
    ]


@lru_cache(maxsize=CANDIDATES_KEPT)
def candidates(program: str, path: str) -> tuple[str, ...]:
    """Where execvp(3) would look: the word itself if it has a slash, else each directory of PATH."""
    if "/" in program:
        return (program,)
    return tuple(os.path.join(directory or ".", program) for directory in path.split(":"))
