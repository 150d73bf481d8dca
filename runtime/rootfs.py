"""Which steps make a container's root file system, and in what order.

The overlay first, then that becomes the root, then everything that is mounted inside. What is masked and read-only is
what the OCI runtime specification's users agree on (runc's default specification; moby/oci/defaults.go), as far as this
kernel has it.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from functools import cache

from runtime import linux, plan, volumes
from runtime.capabilities import CAPABILITIES
from runtime.config import ContainerConfig
from runtime.inside import open_inside
from runtime.userns import Users

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
_MKNOD = CAPABILITIES.index("CAP_MKNOD")
# What hides a directory: one of the container's own /sys in which nothing can be made, whoever may write; it is only
# there to be mounted on (fs/sysfs/mount.c: sysfs_create_mount_point).
EMPTY = "/sys/fs/cgroup"
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


# From when on an overlay's layers may be in what is mounted nowhere (fs/namespace.c: clone_private_mount).
_DETACHED_SINCE = (6, 15)
_PARAMETER_MAX = 255  # bytes of a parameter of fsconfig(2)


def prologue(config: ContainerConfig, root: os.stat_result) -> list[plan.Step]:
    """What happens on disk before clone."""
    if config.memory_bytes is not None:
        return []
    owner = (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid)
    kept = config.keep or config.lasting
    return [plan.MakeDirectories(config.directory, *owner, exist_ok=kept, again=config.lasting)]


def steps(
    config: ContainerConfig, root: os.stat_result, found: volumes.Found, first: int, users: Users
) -> list[plan.Step]:
    """From the launcher's root to the container's; `root` is the image's root directory, whose mode and owner are
    kept, and `first` the position of the descriptors of mounts.

    What the user mounts comes after /dev, which it may be in, and before /proc: see lower.py.
    """
    made: list[plan.Step] = []
    files = _files(config)
    stale = _leading_nowhere(config.lowers, files)
    detached = is_detached(config, users)
    if config.memory_bytes is not None:
        owner = (stat.S_IMODE(root.st_mode), *users.created(root.st_uid, root.st_gid))
        made.append(plan.MountMemory(config.memory_bytes, *owner, detached=detached))
    made += [
        plan.MountOverlay(
            config.lowers,
            config.directory,
            in_memory=config.memory_bytes is not None,
            volatile=not config.keep,
            userns=users.userns,
            detached=detached,
        ),
        plan.EnterRoot(config.memory_bytes is not None) if detached else plan.PivotRoot(),
        plan.MountDev(config.terminal, config.shm_bytes, users.tty_gid),
        *map(users.device, found.devices),
        *_closing(config, found),
        *([plan.TakeLinksAway(stale)] if stale else []),
        plan.ShowFiles(files),
        *([plan.ShowNotify(config.terminal)] if config.notify else []),
        *volumes.steps(users.mounts(config.mounts), found, first),
        plan.MountSys(read_only=not config.privileged),
        plan.MountProc(),
        *(plan.SetSysctl(name, value) for name, value in config.sysctls),
    ]
    return made if config.privileged else [*made, *_protection()]


def is_detached(config: ContainerConfig, users: Users) -> bool:
    """Is the root made without being mounted? With ids of its own its layers must be mounted before."""
    fits = users.ids is None and len(os.fsencode(config.directory)) <= _PARAMETER_MAX
    return fits and _mounts_detached_layers()


@cache
def _mounts_detached_layers() -> bool:
    return linux.kernel_version() >= _DETACHED_SINCE


def _closing(config: ContainerConfig, found: volumes.Found) -> list[plan.Step]:
    """Whoever is without CAP_MKNOD needs none of it, or has it in a user namespace of his own, where it is none."""
    if config.privileged or config.userns or not config.capabilities >> _MKNOD & 1:
        return []
    return [plan.CloseDev(tuple(each.path for each in found.devices))]


@cache
def _protection() -> tuple[plan.Step, ...]:
    masks = (plan.MaskPath(path, _behind(path)) for path in _present(MASKED))
    return (*masks, plan.ReadOnlyPaths(_present(READ_ONLY)))


def _behind(path: str) -> str | None:
    if not os.path.isdir(path):
        return "/dev/null"
    return EMPTY if os.path.isdir(EMPTY) else None


def _present(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Those that this kernel has: a container's /proc and /sys have the same."""
    return tuple(path for path in paths if os.path.exists(path))


def _files(config: ContainerConfig) -> tuple[plan.EtcFile, ...]:
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{config.address}\t{config.hostname}\n"
    hosts += "".join(f"{address}\t{name}\n" for name, address in config.hosts)
    files = [
        plan.EtcFile("/etc/hosts", os.fsencode(hosts)),
        plan.EtcFile("/etc/hostname", os.fsencode(config.hostname + "\n")),
    ]
    if config.resolv_conf is not None:
        files.append(plan.EtcFile("/etc/resolv.conf", config.resolv_conf))
    return tuple(files)


def _leading_nowhere(lowers: Sequence[str], files: Iterable[plan.EtcFile]) -> tuple[str, ...]:
    """Of the places of files those where the image has a symbolic link that does not lead to one."""
    tops = ((file.path, next((each for each in lowers if os.path.lexists(each + file.path)), "")) for file in files)
    return tuple(path for path, lower in tops if os.path.islink(lower + path) and not _leads_on(lower, path))


def _leads_on(lower: str, path: str) -> bool:
    root = os.open(lower, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(open_inside(root, path, os.O_PATH))
    except OSError:
        return False
    finally:
        os.close(root)
    return True
