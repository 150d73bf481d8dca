"""Privileges: which capabilities a container keeps, and which namespaces it gets.

capabilities(7): the bounding set limits what any program run later can gain, so it is cut first; effective and
permitted are set last, after the user. Inheritable and ambient are empty: a program run by another user than root has
none at all.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from runtime import linux, plan
from runtime.capabilities import CAPABILITIES
from runtime.config import ContainerConfig, Network

# moby/profiles: the capabilities that Docker leaves to a container by default.
DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
ALL = "ALL"
NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWCGROUP


def capability_mask(add: Iterable[str], drop: Iterable[str], *, privileged: bool) -> int:
    """The bit mask left by Docker's rule: the default set, less `drop`, plus `add`; ALL is every capability that we
    have.
    """
    every = available()
    if privileged:
        return every
    added, dropped = set(add), set(drop)
    base = every if ALL in added else 0 if ALL in dropped else _mask(DEFAULT_CAPABILITIES)
    return (base & ~_mask(dropped - {ALL}) | _mask(added - {ALL})) & every


def _mask(names: Iterable[str]) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in set(names))


@cache
def available() -> int:
    """What this process may pass on: its permitted capabilities, CapPrm of proc_pid_status(5)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("CapPrm:")[2].split()[0], 16)


@cache
def capability_count() -> int:
    """How many capabilities this kernel knows (/proc/sys/kernel/cap_last_cap)."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii")) + 1


def clone_flags(wanted: plan.Plan) -> int:
    """CLONE_NEW* for clone3(2): those that the child does not make itself."""
    # A cgroup namespace has its root where it was made: it must be in its cgroup by then. And a network belongs to the
    # user namespace in which it was made, not by us.
    made = {
        linux.CLONE_NEWCGROUP: wanted.cgroup is not None,
        linux.CLONE_NEWNET: wanted.userns or wanted.network is not Network.NONE,
        linux.CLONE_NEWNS: wanted.own_mounts,
    }
    return (NAMESPACES | linux.CLONE_NEWNET) & ~sum(flag for flag, later in made.items() if later)


def inner_flags(network: Network) -> int:
    """Of what a command enters that is run in a container: all that are the container's own."""
    return NAMESPACES & ~linux.CLONE_NEWPID | (0 if network is Network.HOST else linux.CLONE_NEWNET)


def init_needs(config: ContainerConfig) -> int:
    """What an init has beyond the container's own capabilities: CAP_KILL, to pass signals on to another user's command
    (kill(2)). It is a program of ours, and executes nothing.
    """
    return _mask(("CAP_KILL",)) & ~config.capabilities & available() if config.init else 0


def passing_on(config: ContainerConfig, *, owned: bool) -> list[plan.Step]:
    """Before the bounding set is cut; `owned` is who has joined a user namespace, and so has every capability there."""
    needed = init_needs(config)
    held = (1 << capability_count()) - 1 if owned else available()
    return [plan.LetInherit(held, needed)] if needed else []


def bounding(config: ContainerConfig) -> list[plan.Step]:
    """What is given up for good, while still root."""
    if config.privileged:
        return [plan.DropBounding(config.capabilities, capability_count())]
    return [plan.DropBounding(config.capabilities, capability_count()), plan.NoNewPrivileges()]


def identity(config: ContainerConfig) -> list[plan.Step]:
    """Become the user, then set what is left of the privileges: none for anybody but root."""
    user = config.user
    return [
        *(_filter(config) if config.privileged else []),
        plan.SetUser(user.uid, user.gid, user.groups),
        plan.SetCapabilities(config.capabilities if user.uid == 0 else 0),
    ]


def confinement(config: ContainerConfig) -> list[plan.Step]:
    """The last step before the command is executed, so that a filter need permit nothing of ours but execve(2)."""
    return [] if config.privileged else _filter(config)


def _filter(config: ContainerConfig) -> list[plan.Step]:
    """It needs no_new_privs, which a privileged container has not, or CAP_SYS_ADMIN, which is lost with the user: there
    it must come before that, and permit what follows, as in runc.
    """
    return [plan.InstallSeccomp(config.seccomp)] if config.seccomp else []
