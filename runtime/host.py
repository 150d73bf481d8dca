"""What this host offers to containers. Each thing is tried where it can be: a kernel that has it compiled in may still
refuse it, by a security module, a sysctl, a limit, or to a container that pysup itself is in.

A trial enters namespaces, mounts, and installs a filter, so it changes the process that it runs in: whoever asks has
each done in a child of its own. Nothing of it is left on the host.
"""

import errno
import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from runtime import linux, native, security
from runtime.capabilities import CAPABILITIES
from runtime.cgroup.branch import settings
from runtime.cgroup.hierarchies import Hierarchies, discover
from runtime.cgroup.limits import IoLimit, Limits
from runtime.errors import CgroupError
from runtime.seccomp.load import default_filter
from runtime.spawn import ORIGINAL_DESCRIPTORS

OLDEST = (5, 15)  # Linux: mount_setattr(2) is of 5.12, and what it may be told of overlays, of 5.15
DESCRIPTORS_EACH = 3  # of a container that runs: a pidfd and two pipes
DESCRIPTORS_OWN = 100  # of a supervisor without containers, generously
NEEDED = ("CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_CHOWN", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID", "CAP_KILL")


class Verdict(StrEnum):
    """What a finding means for containers."""

    OK = "ok"
    MISSING = "missing"  # something that a spec may ask for can't be had
    FATAL = "fatal"  # no container starts


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a trial. `cost`: what can't be had without it, and what to do about it."""

    verdict: Verdict
    found: str
    cost: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to try."""

    name: str
    trial: Callable[[], Finding]
    basic: bool = False  # where this is fatal, all others would say the same

    def make(self) -> Finding:
        """Try it. This may change the process."""
        try:
            return self.trial()
        except OSError as error:
            return Finding(Verdict.FATAL, _why(error), "not even this can be tried")


def trials(state: Path, userns: int | None) -> Iterator[Trial]:
    """All there is to know, what is needed most first. `state` is where upper layers are to be; `userns` a user
    namespace with ids, if one can be made: see `offer`.
    """
    yield Trial("kernel", _kernel, basic=True)
    yield Trial("privileges", _privileges, basic=True)
    yield Trial("namespaces", _namespaces)
    yield Trial("overlay in memory", partial(_overlay, None))
    yield Trial("overlay on disk", partial(_overlay, state))
    yield Trial("machine code", _machine_code)
    yield Trial("user namespaces", _user_namespaces)
    yield Trial("idmapped mounts", partial(_idmapped, state, userns))
    yield Trial("networks", _networks)
    yield Trial("forwarding", _forwarding)
    yield Trial("seccomp", _seccomp)
    yield Trial("cgroups", _cgroups)
    for key, limits in _LIMITS.items():
        yield Trial(f"limits.{key}", partial(_limit, limits))
    yield Trial("descriptors", _descriptors)
    yield Trial("processes", _processes)


def _ok(found: str) -> Finding:
    return Finding(Verdict.OK, found)


# --- the kernel and our rights ----------------------------------------------------------------------------------------


def _kernel() -> Finding:
    found = f"Linux {os.uname().release} on {linux.MACHINE}"
    if linux.kernel_version() < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Finding(
            Verdict.FATAL, found, f"calls that every start makes are not there: boot Linux {oldest} or newer"
        )
    return _ok(found)


def _privileges() -> Finding:
    held = security.available()
    lacking = [name for name in NEEDED if not held >> CAPABILITIES.index(name) & 1]
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    if os.geteuid() != 0 or lacking:
        without = f" without {', '.join(lacking)}" if lacking else ""
        return Finding(
            Verdict.FATAL, f"{who}{without}", "containers are made by root: use sudo, or a privileged container"
        )
    count = held.bit_count()
    return _ok(f"{who} with {count} of {security.capability_count()} capabilities")


def _namespaces() -> Finding:
    kinds = {
        "mnt": linux.CLONE_NEWNS,
        "pid": linux.CLONE_NEWPID,
        "uts": linux.CLONE_NEWUTS,
        "ipc": linux.CLONE_NEWIPC,
        "cgroup": linux.CLONE_NEWCGROUP,
        "net": linux.CLONE_NEWNET,
    }
    for kind, flag in kinds.items():
        try:
            linux.unshare(flag)
        except OSError as error:
            return Finding(Verdict.FATAL, f"no {kind} namespace: {_why(error)}", _namespace_cost(kind, error))
    return _ok(", ".join(kinds))


def _namespace_cost(kind: str, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"raise /proc/sys/user/max_{kind}_namespaces"
    return "every container has its own: is pysup itself in a container that may not make them?"


def _user_namespaces() -> Finding:
    try:
        linux.unshare(linux.CLONE_NEWUSER)
    except OSError as error:
        return Finding(
            Verdict.MISSING,
            f"none: {_why(error)}",
            "userns can only be host, where root inside is the host's root: raise /proc/sys/user/max_user_namespaces",
        )
    return _ok("can be made")


def offer(to: socket.socket) -> None:
    """Enter a user namespace, and send its descriptor. A process of its own: for it there is no way back."""
    with suppress(OSError):
        linux.unshare(linux.CLONE_NEWUSER)
        # All that a process may write there itself: user_namespaces(7).
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
        namespace = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        socket.send_fds(to, [b"u"], [namespace])


def _idmapped(state: Path, userns: int | None) -> Finding:
    """A copy of the mount that the state directory is on takes other ids."""
    cost = "userns can only be host for images and volumes there"
    if userns is None:
        return Finding(Verdict.MISSING, "needs a user namespace", cost)
    linux.unshare(linux.CLONE_NEWNS)
    directory = _existing(state)
    tree = linux.open_tree(linux.AT_FDCWD, str(directory), linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
    try:
        linux.mount_setattr(tree, 0, linux.MS_PRIVATE, userns=userns)
    except OSError as error:
        return Finding(Verdict.MISSING, f"not of the file system of {directory}: {_why(error)}", cost)
    return _ok(f"of the file system of {directory}")


def _networks() -> Finding:
    """A bridge, a pair of interfaces and a table of nftables, in a network namespace of their own."""
    from runtime.network import conversation, links, messages, namespace, rules  # noqa: PLC0415 (most hosts' next `up` needs none)

    linux.unshare(linux.CLONE_NEWNET)
    here = namespace.opened()
    made = links.Links(1, here)
    try:
        made.lay([links.Bridge("bridge", "02:00:00:00:00:01", ())])
        pair = messages.veth("outer", socket.if_nametoindex("bridge"), 1, "inner", "02:00:00:00:00:02", here)
        conversation.Conversation(conversation.ROUTE).do([("make a pair of interfaces", pair)])
        rules.Filter("doctor").set([], [])
    except OSError as error:
        return Finding(
            Verdict.MISSING,
            f"can't {error.filename or 'be made'}: {_why(error)}",
            "network can only be host or none: modprobe bridge veth nf_tables nft_chain_nat nft_masq",
        )
    return _ok("bridges, pairs of interfaces, nftables")


def _forwarding() -> Finding:
    """What other tables do to packets on their way through this host, where it is now."""
    from runtime.network.links import PREFIX  # noqa: PLC0415 (as above)
    from runtime.network.obstacles import obstacles  # noqa: PLC0415 (as above)

    found = obstacles()
    if not found:
        return _ok("nobody's rules are in its way")
    return Finding(
        Verdict.MISSING,
        f"dropped by default: {', '.join(found)}",
        f"networks lead nowhere outside, nor published ports into them: let each of these accept interfaces {PREFIX}*, "
        f'as by nft insert rule … iifname "{PREFIX}*" accept and … oifname "{PREFIX}*" accept, or iptables -I FORWARD '
        f"-i {PREFIX}+ -j ACCEPT and -o {PREFIX}+",
    )


def _machine_code() -> Finding:
    if native.available() is not None:
        return _ok("a start copies no page table")
    why = "only for x86-64" if linux.MACHINE != "x86_64" else "executable memory is refused (SELinux, PaX?)"
    return Finding(Verdict.MISSING, why, "the launchers' loop in Python serves: a start takes about twice as long")


def _seccomp() -> Finding:
    made = default_filter(security.capability_mask((), (), privileged=False))
    try:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.install_filter(made.code, made.flags)
    except OSError as error:
        return Finding(
            Verdict.MISSING, f"no filter can be installed: {_why(error)}", "only seccomp: unconfined can be had"
        )
    return _ok(f"the default filter of {made.instructions} instructions is taken")


# --- overlayfs --------------------------------------------------------------------------------------------------------


def _overlay(state: Path | None) -> Finding:
    """Mounted in a namespace of its own, with an upper layer in `state`, or in a tmpfs."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    try:
        with tempfile.TemporaryDirectory(prefix=".pysup-doctor-", dir=_existing(state)) as directory:
            if state is None:
                linux.mount("tmpfs", directory, "tmpfs", 0)
            try:
                _mount_overlay(Path(directory))
            finally:
                if state is None:
                    linux.umount2(directory, linux.MNT_DETACH)
    except OSError as error:
        return _no_overlay(state, error)
    return _ok("a tmpfs as upper layer" if state is None else f"{state} as place of upper layers")


def _existing(state: Path | None) -> Path | None:
    """It, or what is there above it: the first `up` makes the rest."""
    return None if state is None else next(path for path in (state, *state.parents) if path.is_dir())


def _mount_overlay(directory: Path) -> None:
    lower, upper, work, merged = (directory / name for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    linux.mount("overlay", str(merged), "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work},volatile")
    try:
        (merged / "file").write_bytes(b"")
    finally:
        linux.umount2(str(merged), linux.MNT_DETACH)


def _no_overlay(state: Path | None, error: OSError) -> Finding:
    if error.errno == errno.ENODEV:
        return Finding(
            Verdict.FATAL, "this kernel has no overlayfs", "every root is one: modprobe overlay, or CONFIG_OVERLAY_FS"
        )
    if state is None:
        return Finding(Verdict.FATAL, f"not with a tmpfs: {_why(error)}", "every root is an overlay")
    return Finding(
        Verdict.MISSING,
        f"not in {state}: {_why(error)}",
        "an upper can't be on overlay, NFS or FAT: --state DIR on ext4, xfs, btrfs or tmpfs, or storage: memory",
    )


# --- cgroups ----------------------------------------------------------------------------------------------------------

MEMSW = "memory.memsw.limit_in_bytes"  # of version 1, and not of every kernel
_LIMITS = {
    "memory": Limits(memory_bytes=1 << 30),
    "memory_high": Limits(memory_high_bytes=1 << 30),
    "swap": Limits(memory_bytes=1 << 30, swap_bytes=0),
    "cpus": Limits(cpus=1.0),
    "cpu_weight": Limits(cpu_weight=100),
    "cpuset": Limits(cpuset="0"),
    "pids": Limits(pids=100),
    "io": Limits(io=(IoLimit(device="1:0", rbps=1 << 20),)),
}


def _cgroups() -> Finding:
    found = discover()
    shown = "; ".join(_hierarchies(found)) or "none that can be written to"
    if found.processes is None:
        cost = "containers have no limits and no stats, can't be paused, and are killed by their process 1 alone"
        return Finding(Verdict.MISSING, shown, f"{cost}: mount cgroup2 at /sys/fs/cgroup, writable")
    return _ok(shown)


def _hierarchies(found: Hierarchies) -> Iterator[str]:
    for version in (1, 2):
        usable = [one for one in found.found if one.version == version and one.writable]
        controllers = sorted(controller for one in usable for controller in one.controllers)
        if usable:
            yield f"version {version} with {', '.join(controllers) or 'no controllers'}"


def _limit(limits: Limits) -> Finding:
    found = discover()
    try:
        writes = settings(found, limits)
    except CgroupError as error:
        return Finding(Verdict.MISSING, *_split(str(error)))
    for hierarchy, setting in writes:
        if setting.file == MEMSW and not os.path.exists(f"{hierarchy.own}/{MEMSW}"):
            return Finding(Verdict.MISSING, f"{hierarchy.own} has no {MEMSW}", "boot this kernel with swapaccount=1")
    where = sorted({f"version {hierarchy.version}" for hierarchy, _ in writes})
    return _ok(f"by cgroup {' and '.join(where)}")


def _split(message: str) -> tuple[str, str]:
    """`limits.KEY: what is so: what to do`."""
    _, _, rest = message.partition(": ")
    found, _, cost = rest.partition(": ")
    return found, cost


# --- how many ---------------------------------------------------------------------------------------------------------


def _descriptors() -> Finding:
    hard = ORIGINAL_DESCRIPTORS[1]
    if hard == resource.RLIM_INFINITY:
        hard = _number("/proc/sys/fs/nr_open")
    room = max(0, hard - DESCRIPTORS_OWN) // DESCRIPTORS_EACH
    return _ok(f"a hard limit of {hard:,}: room for about {room:,} containers in a stack")


def _processes() -> Finding:
    limits = {
        "kernel.pid_max": _number("/proc/sys/kernel/pid_max"),
        "kernel.threads-max": _number("/proc/sys/kernel/threads-max"),
        **_pids_limit(discover()),
    }
    name, least = min(limits.items(), key=lambda item: item[1])
    return _ok(f"at most {least:,} on this host at once ({name})")


def _pids_limit(found: Hierarchies) -> dict[str, int]:
    """Of our own cgroup, where it has one."""
    hierarchy = found.of("pids")
    path = Path(f"{hierarchy.own}/pids.max") if hierarchy else None
    if path is None or not path.exists() or (text := path.read_text(encoding="ascii").strip()) == "max":
        return {}
    return {str(path): int(text)}


def _number(path: str) -> int:
    return int(Path(path).read_text(encoding="ascii"))


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
