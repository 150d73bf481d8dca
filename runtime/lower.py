"""Plan to program: each step as the system calls that do it, every argument encoded.

One function a step type, registered with `lower`; each writes calls into an `Assembler`. Nothing here touches the
kernel, and nothing is left to decide in the child: paths, numbers and structures are final. The steps before
`PivotRoot` or `EnterRoot` see the launcher's mounts, in which images and state directories have the host's paths; those
after it see the container's root alone, so no symbolic link of an image can lead out of it, and until `MountProc` there
is no /proc whose magic links could.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, singledispatch
from operator import attrgetter
from typing import Any

from runtime import linux, plan
from runtime.assemble import Assembler, Descriptor, Own, Pointed, Program, Result, Size, Strings, Struct, Template
from runtime.cgroup.group import Cgroup
from runtime.linux import AT_FDCWD, MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REMOUNT
from runtime.mounts import DATA, NO_PROGRAMS, READ_ONLY
from runtime.program import NOTHING, REPORT
from runtime.remove import VOLATILE

# The descriptors of a request, by position; the launcher adds the first three itself: two that are none,
# and the mount namespace that has nothing in it.
SUPERVISOR_WORD, SUPERVISOR_THREAD, FD_NOTHING, FD_STDIN, FD_STDOUT, FD_STDERR, FD_MORE = range(7)
FD_DEVPTS = FD_MORE  # of a start with a terminal
FD_PIDFD = FD_MORE  # of an entry

LAYERS = "/.layers"  # where layers are mounted that are shown with other ids
_MEMORY_TREE, _ROOT_TREE = "memory", "root"  # results: what is mounted nowhere yet
_PAGE = "page"  # and where that is which tells who was cloned
LAYER_NAMES = ("upper", "work", "merged")
SCRATCH = "/.scratch"  # an empty directory in the launcher's root, where the container's tmpfs is mounted
MISSING_ONLY = (errno.EEXIST,)


KINDS_KEPT = 256  # templates: of a spec's entries, of what operators execute


@dataclass(frozen=True, slots=True)
class Kind:
    """What all plans have in common that differ in their containers' own texts alone: they have one template."""

    shapes: tuple[object, ...]
    prologue: int
    steps: tuple[plan.Step, ...] = field(compare=False)  # of any of them


def lower_plan(wanted: plan.Plan) -> Program:
    """The program of a plan."""
    shapes: list[object] = []
    texts: list[bytes] = []
    for step in wanted.steps:
        if (own := _OWN.get(type(step))) is None:
            shapes.append(step)
        else:
            shapes.append((type(step), own.shape(step)))
            texts += map(os.fsencode, own.texts(step))
    return _template(Kind(tuple(shapes), wanted.prologue, wanted.steps)).program(texts)


@lru_cache(maxsize=KINDS_KEPT)
def _template(kind: Kind) -> Template:
    asm = Assembler()
    for asm.step, step in enumerate(kind.steps):
        lower(step, asm)
    return asm.template(kind.prologue)


@singledispatch
def lower(step: plan.Step, asm: Assembler) -> None:
    """Write the calls that do `step`."""
    raise TypeError(f"no lowering for {step!r} into {asm!r}")


# --- the cgroup -------------------------------------------------------------------------------------------------------


@lower.register
def _(step: plan.MakeCgroup, asm: Assembler) -> None:
    for index, name in zip(step.cgroup.own, _own(asm, step), strict=True):
        asm.call("mkdirat", Descriptor(step.first + index), name, 0o755, forgive=MISSING_ONLY)


@lower.register
def _(step: plan.SetLimit, asm: Assembler) -> None:
    (path,) = _own(asm, step)
    value = os.fsencode(step.setting.value)
    opened = asm.call("openat", Descriptor(step.first + step.place), path, os.O_WRONLY | os.O_CLOEXEC)
    asm.call("write", opened, Struct(value), len(value))
    asm.call("close", opened)


@lower.register
def _(step: plan.HoldDevices, asm: Assembler) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    (name,) = _own(asm, step)
    cgroup = asm.call("openat", Descriptor(step.first), name, flags)
    points = ((8, Struct(step.program)), (16, Struct(b"MIT\0")))
    load = Struct(linux.BPF_LOAD.pack(linux.BPF_PROG_TYPE_CGROUP_DEVICE, len(step.program) // 8, 0, 0), points=points)
    loaded = asm.call("bpf", linux.BPF_PROG_LOAD, load, linux.BPF_LOAD.size)
    attach = Struct(
        linux.BPF_ATTACH.pack(0, 0, linux.BPF_CGROUP_DEVICE, linux.BPF_F_ALLOW_MULTI),
        results=((0, cgroup), (4, loaded)),
    )
    asm.call("bpf", linux.BPF_PROG_ATTACH, attach, linux.BPF_ATTACH.size)


@lower.register
def _(step: plan.OpenCgroup, asm: Assembler) -> None:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    (name,) = _own(asm, step)
    asm.clone_into(asm.call("openat", Descriptor(step.first), name, flags))


@lower.register
def _(step: plan.JoinCgroup, asm: Assembler) -> None:
    for index, tasks in zip(_places_of_version_1(step.cgroup), _own(asm, step), strict=True):
        # `tasks`, and 0 for the calling thread: who moves itself alone takes no lock that all processors must hear
        # of (kernel/cgroup/cgroup.c: cgroup_procs_write_start). By cgroup.procs it would take milliseconds.
        opened = asm.call("openat", Descriptor(step.first + index), tasks, os.O_WRONLY | os.O_CLOEXEC)
        asm.call("write", opened, Struct(b"0"), 1)
    if step.namespace:
        asm.call("unshare", linux.CLONE_NEWCGROUP)


# --- the root file system --------------------------------------------------------------------------------------------


@lower.register
def _(step: plan.MakeDirectories, asm: Assembler) -> None:
    forgive = MISSING_ONLY if step.exist_ok else ()
    directory, upper, work, merged, *volatile = _own(asm, step)
    asm.call("mkdirat", AT_FDCWD, directory, 0o700, forgive=forgive)
    _make_layers(asm, (upper, work, merged), (step.root_mode, step.root_uid, step.root_gid), forgive)
    # Where a volatile overlay was, none can be mounted before this is gone (filesystems/overlayfs.rst).
    for index, path in enumerate(volatile):
        flags = linux.AT_REMOVEDIR if index else 0
        asm.call("unlinkat", AT_FDCWD, path, flags, forgive=(errno.ENOENT,))


@lower.register
def _(step: plan.MountMemory, asm: Assembler) -> None:
    if step.detached:
        parameters = (("source", "tmpfs"), ("mode", "700"), ("size", str(step.size_bytes)))
        tree = _make_file_system(asm, "tmpfs", parameters, DATA)
        asm.keep(_MEMORY_TREE, tree)
        asm.call("fchdir", tree)
    else:
        asm.call("mount", "tmpfs", SCRATCH, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=700,size={step.size_bytes}")
        asm.call("chdir", SCRATCH)
    _make_layers(asm, LAYER_NAMES, (step.root_mode, step.root_uid, step.root_gid), ())


def _make_layers(asm: Assembler, layers: Sequence[Pointed], root: tuple[int, int, int], forgive: Sequence[int]) -> None:
    """The upper directory lends its mode and owner to the container's root directory."""
    mode, uid, gid = root
    upper, *others = layers
    asm.call("mkdirat", AT_FDCWD, upper, mode, forgive=forgive)
    if (uid, gid) != (0, 0):
        asm.call("fchownat", AT_FDCWD, upper, uid, gid, 0)
    for name in others:
        asm.call("mkdirat", AT_FDCWD, name, 0o700, forgive=forgive)


@lower.register
def _(step: plan.MountOverlay, asm: Assembler) -> None:
    (directory,) = _own(asm, step)
    if step.detached:
        _detached_overlay(step, asm, directory)
        return
    layers = ":".join(option(lower) for lower in step.lowers)
    if step.userns is not None:
        layers = ":".join(
            _idmapped(asm, lower, f"{LAYERS}/{index}", step.userns) for index, lower in enumerate(step.lowers)
        )
    if not step.in_memory:
        upper = directory if step.userns is None else _idmapped(asm, directory, f"{LAYERS}/upper", step.userns)
        asm.call("chdir", upper)
    options = f"lowerdir={layers},upperdir=upper,workdir=work" + (",volatile" if step.volatile else "")
    asm.call("mount", directory, "merged", "overlay", MS_NODEV, options)
    asm.call("chdir", "merged")


Parameter = str | Own | Result | None  # of fsconfig(2)


def _detached_overlay(step: plan.MountOverlay, asm: Assembler, directory: Own) -> None:
    # Layers by descriptors (Linux 6.13): a parameter of fsconfig(2) has no more than 255 bytes.
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    parameters: list[tuple[str, Parameter]] = [("source", directory)]
    parameters += [("lowerdir+", asm.call("openat", AT_FDCWD, lower, flags)) for lower in step.lowers]
    if not step.in_memory:
        asm.call("chdir", directory)
    parameters += [("upperdir", "upper"), ("workdir", "work"), *([("volatile", None)] if step.volatile else [])]
    asm.keep(_ROOT_TREE, _make_file_system(asm, "overlay", parameters, linux.MOUNT_ATTR_NODEV))


def _make_file_system(
    asm: Assembler, kind: str, parameters: Iterable[tuple[str, Parameter]], attributes: int
) -> Result:
    """A file system that is mounted nowhere: fsopen(2), fsmount(2)."""
    context = asm.call("fsopen", kind, linux.FSOPEN_CLOEXEC)
    for key, value in parameters:
        if isinstance(value, Result):
            asm.call("fsconfig", context, linux.FSCONFIG_SET_FD, key, None, value)
        else:
            command = linux.FSCONFIG_SET_FLAG if value is None else linux.FSCONFIG_SET_STRING
            asm.call("fsconfig", context, command, key, value, 0)
    asm.call("fsconfig", context, linux.FSCONFIG_CMD_CREATE, None, None, 0)
    return asm.call("fsmount", context, linux.FSMOUNT_CLOEXEC, attributes)


def _idmapped(asm: Assembler, path: str | Own, target: str, userns: int) -> str:
    """Mount it once more, with the ids of a user namespace."""
    asm.call("mkdirat", AT_FDCWD, target, 0o700, forgive=MISSING_ONLY)
    tree = asm.call("open_tree", AT_FDCWD, path, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
    attributes = linux.MOUNT_ATTR.pack(linux.MOUNT_ATTR_IDMAP, 0, 0, 0)
    mapped = Struct(attributes, (linux.MOUNT_ATTR.size - 8, Descriptor(userns)))
    asm.call("mount_setattr", tree, "", linux.AT_EMPTY_PATH, mapped, linux.MOUNT_ATTR.size)
    asm.call("move_mount", tree, "", AT_FDCWD, target, linux.MOVE_MOUNT_F_EMPTY_PATH)
    return target


def option(path: str) -> str:
    """Escape what overlayfs reads as a separator (ovl_parse_param and ovl_split_lowerdirs)."""
    return "".join("\\" + letter if letter in "\\:," else letter for letter in path)


@lower.register
def _(step: plan.PivotRoot, asm: Assembler) -> None:
    # The old root is stacked on the new one and lazily detached: no put_old directory needed (pivot_root(2), NOTES).
    del step
    asm.call("pivot_root", ".", ".")
    asm.call("umount2", ".", linux.MNT_DETACH)
    asm.call("chdir", "/")


@lower.register
def _(step: plan.EnterRoot, asm: Assembler) -> None:
    # What upper and work are in comes along, below the root: else the kernel would wait for all processors when the
    # last descriptor of it is closed.
    asm.call("setns", Descriptor(FD_NOTHING), linux.CLONE_NEWNS)
    asm.call("unshare", linux.CLONE_NEWNS)
    for name in (_MEMORY_TREE, _ROOT_TREE) if step.in_memory else (_ROOT_TREE,):
        asm.call("move_mount", asm.kept(name), "", AT_FDCWD, "/", linux.MOVE_MOUNT_F_EMPTY_PATH)
    asm.call("fchdir", asm.kept(_ROOT_TREE))
    asm.call("chroot", ".")


_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_INERT = MS_NOSUID | MS_NODEV | MS_NOEXEC  # of mounts by mount(2); NO_PROGRAMS is the same for mount_setattr(2)


@lower.register
def _(step: plan.MountDev, asm: Assembler) -> None:
    _make_own(asm, "/dev")
    asm.call("mount", "tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k")
    for name, (major, minor) in _NODES.items():
        asm.call("mknodat", AT_FDCWD, f"/dev/{name}", linux.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in _LINKS.items():
        asm.call("symlinkat", target, AT_FDCWD, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        asm.call("mkdirat", AT_FDCWD, f"/dev/{name}", 0o755)
    if step.terminal:
        asm.call("move_mount", Descriptor(FD_DEVPTS), "", AT_FDCWD, "/dev/pts", linux.MOVE_MOUNT_F_EMPTY_PATH)
    else:
        options = f"{DEVPTS_OPTIONS},gid={step.tty_gid}"
        asm.call("mount", "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)
    shm = "/dev/shm"  # noqa: S108 (a mount point, no file of ours)
    asm.call("mount", "shm", shm, "tmpfs", _INERT, f"mode=1777,size={step.shm_bytes}")
    asm.call("mount", "mqueue", "/dev/mqueue", "mqueue", _INERT, None)


DEVPTS_OPTIONS = "newinstance,ptmxmode=0666,mode=0620"


@lower.register
def _(step: plan.TakeLinksAway, asm: Assembler) -> None:
    for path in step.paths:
        asm.call("unlinkat", AT_FDCWD, path, 0, forgive=(errno.ENOENT,))


@lower.register
def _(step: plan.ShowFiles, asm: Assembler) -> None:
    for directory in {os.path.dirname(file.path): None for file in step.files}:
        _make_directory(asm, directory)
    for file, contents in zip(step.files, _own(asm, step), strict=True):
        _show_file(asm, file.path, contents)


def _show_file(asm: Assembler, path: str, contents: Own) -> None:
    """Write it into the tmpfs of /dev, bind it into place, and take its name there away."""
    temporary = "/dev/." + os.path.basename(path)
    descriptor = asm.call("openat", AT_FDCWD, temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    asm.call("write", descriptor, contents, Size(contents))
    asm.call("mknodat", AT_FDCWD, path, linux.S_IFREG | 0o644, 0, forgive=MISSING_ONLY)
    asm.call("mount", temporary, path, None, MS_BIND)
    asm.call("unlinkat", AT_FDCWD, temporary, 0)


@lower.register
def _(step: plan.ShowNotify, asm: Assembler) -> None:
    asm.call("mknodat", AT_FDCWD, plan.NOTIFY_PATH, linux.S_IFREG | 0o666, 0)
    mount = Descriptor(FD_MORE + step.terminal)
    asm.call("move_mount", mount, "", AT_FDCWD, plan.NOTIFY_PATH, linux.MOVE_MOUNT_F_EMPTY_PATH)


@lower.register
def _(step: plan.MakeDevice, asm: Assembler) -> None:
    _make_parents(asm, step.path)
    asm.call("mknodat", AT_FDCWD, step.path, step.mode, step.number)
    if (step.uid, step.gid) != (0, 0):
        asm.call("fchownat", AT_FDCWD, step.path, step.uid, step.gid, linux.AT_SYMLINK_NOFOLLOW)


@lower.register
def _(step: plan.CloseDev, asm: Assembler) -> None:
    for node in (*(f"/dev/{name}" for name in _NODES), *step.nodes):
        asm.call("mount", node, node, None, MS_BIND)
    asm.call("mount", None, "/dev", None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)


# What is mounted at a target that the user names is attached to a descriptor of it, never to a path: others who share a
# volume with the container may swap directories in it for symbolic links at any time (CVE-2021-30465). There is no
# /proc yet whose magic links could lead anywhere, and what is mounted on /proc or /sys by way of a symbolic link is
# covered by the kernel's own afterwards (CVE-2025-31133, CVE-2025-52565).


@lower.register
def _(step: plan.ShowBind, asm: Assembler) -> None:
    _attach(asm, Descriptor(step.position), _make_target(asm, step.target, directory=step.directory))


@lower.register
def _(step: plan.MountTmpfs, asm: Assembler) -> None:
    asm.call("fchdir", _make_target(asm, step.target, directory=True))
    asm.call("mount", "tmpfs", ".", "tmpfs", step.flags, step.options)
    asm.call("chdir", "/")


@lower.register
def _(step: plan.ShowMemory, asm: Assembler) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    file = asm.call("openat", AT_FDCWD, _MEMORY, flags, step.mode)
    asm.call("sendfile", file, Descriptor(step.position), None, step.size)
    if (step.uid, step.gid) != (0, 0):
        asm.call("fchownat", AT_FDCWD, _MEMORY, step.uid, step.gid, 0)
    tree = asm.call("open_tree", AT_FDCWD, _MEMORY, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
    attributes = Struct(linux.MOUNT_ATTR.pack(READ_ONLY | NO_PROGRAMS, 0, 0, 0))
    asm.call("mount_setattr", tree, "", linux.AT_EMPTY_PATH, attributes, linux.MOUNT_ATTR.size)
    _attach(asm, tree, _make_target(asm, step.target, directory=False))
    asm.call("unlinkat", AT_FDCWD, _MEMORY, 0)  # not before: what has no name can't be mounted


_MEMORY = "/dev/.memory"


def _attach(asm: Assembler, tree: Descriptor | Result, target: Result) -> None:
    flags = linux.MOVE_MOUNT_F_EMPTY_PATH | linux.MOVE_MOUNT_T_EMPTY_PATH
    asm.call("move_mount", tree, "", target, "", flags)


def _make_target(asm: Assembler, path: str, *, directory: bool) -> Result:
    """Make what is not there of it, and open it, once and for all."""
    _make_parents(asm, path)
    if directory:
        _make_directory(asm, path)
    else:
        asm.call("mknodat", AT_FDCWD, path, linux.S_IFREG | 0o644, 0, forgive=MISSING_ONLY)
    flags = os.O_PATH | os.O_CLOEXEC | (os.O_DIRECTORY if directory else 0)
    # The root is the container's own by now. RESOLVE_IN_ROOT would add nothing but EAGAIN, when a link has a `..` and
    # somebody, anywhere on the machine, renames something meanwhile: openat2(2).
    how = linux.OPEN_HOW.pack(flags, 0, linux.RESOLVE_NO_MAGICLINKS)
    return asm.call("openat2", AT_FDCWD, path, Struct(how), linux.OPEN_HOW.size)


def _make_parents(asm: Assembler, path: str) -> None:
    parts = path.split("/")[1:-1]
    for depth in range(len(parts)):
        _make_directory(asm, "/" + "/".join(parts[: depth + 1]))


@lower.register
def _(step: plan.ReadOnlyRoot, asm: Assembler) -> None:
    del step
    _change_mount(asm, "/", READ_ONLY, 0)


@lower.register
def _(step: plan.SetSysctl, asm: Assembler) -> None:
    # Through a procfs mounted for this and attached nowhere: nothing that an image or a volume has made of /proc can
    # lead the write elsewhere (CVE-2025-52881), and what is masked there is no obstacle.
    proc = _make_file_system(asm, "proc", (), 0)
    resolve = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_XDEV
    how = linux.OPEN_HOW.pack(os.O_WRONLY | os.O_CLOEXEC, 0, resolve)
    name = step.name if "/" in step.name else step.name.replace(".", "/")  # as sysctl(8) reads them
    path, value = f"sys/{name}", os.fsencode(step.value)
    file = asm.call("openat2", proc, path, Struct(how), linux.OPEN_HOW.size)
    asm.call("write", file, Struct(value), len(value))


def _make_own(asm: Assembler, path: str) -> None:
    """A directory of the container's own layer: a symbolic link of the image's might lead into a volume, where others
    could swap what is below it (CVE-2019-19921, CVE-2023-27561).
    """
    _make_directory(asm, path)
    asm.call("openat", AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _make_directory(asm: Assembler, path: str) -> None:
    asm.call("mkdirat", AT_FDCWD, path, 0o755, forgive=MISSING_ONLY)


@lower.register
def _(step: plan.MountSys, asm: Assembler) -> None:
    _make_own(asm, "/sys")
    asm.call("mount", "sysfs", "/sys", "sysfs", _INERT | (MS_RDONLY if step.read_only else 0), None)


@lower.register
def _(step: plan.MountProc, asm: Assembler) -> None:
    del step
    _make_own(asm, "/proc")
    asm.call("mount", "proc", "/proc", "proc", _INERT, None)


@lower.register
def _(step: plan.MaskPath, asm: Assembler) -> None:
    if step.behind is None:
        options = "size=4k,nr_inodes=1"
        asm.call("mount", "tmpfs", step.path, "tmpfs", _INERT | MS_RDONLY, options, forgive=(errno.ENOENT,))
    else:
        asm.call("mount", step.behind, step.path, None, MS_BIND, forgive=(errno.ENOENT,))


@lower.register
def _(step: plan.ReadOnlyPaths, asm: Assembler) -> None:
    # A bind has the attributes of what it is made from: so /proc is read-only for the moment, not each of them changed.
    _change_mount(asm, "/proc", READ_ONLY, 0)
    for path in step.paths:
        asm.call("mount", path, path, None, MS_BIND, forgive=(errno.ENOENT,))
    _change_mount(asm, "/proc", 0, READ_ONLY)


def _change_mount(asm: Assembler, path: str, to_set: int, to_clear: int) -> None:
    attributes = Struct(linux.MOUNT_ATTR.pack(to_set, to_clear, 0, 0))
    asm.call("mount_setattr", AT_FDCWD, path, 0, attributes, linux.MOUNT_ATTR.size)


# --- host name, network, limits --------------------------------------------------------------------------------------


@lower.register
def _(step: plan.SetHostname, asm: Assembler) -> None:
    (name,) = _own(asm, step)
    asm.call("sethostname", name, Size(name))


@lower.register
def _(step: plan.JoinNetwork, asm: Assembler) -> None:
    asm.call("setns", Descriptor(step.position), linux.CLONE_NEWNET)


@lower.register
def _(step: plan.LoopbackUp, asm: Assembler) -> None:
    del step
    descriptor = asm.call("socket", linux.AF_INET, linux.SOCK_DGRAM | linux.SOCK_CLOEXEC, 0)
    asm.call("ioctl", descriptor, linux.SIOCSIFFLAGS, Struct(linux.IFREQ_FLAGS.pack(b"lo", linux.IFF_UP)))


@lower.register
def _(step: plan.SetRlimit, asm: Assembler) -> None:
    soft, hard = (linux.RLIM_INFINITY if value < 0 else value for value in (step.soft, step.hard))
    asm.call("prlimit64", 0, step.resource, Struct(linux.RLIMIT64.pack(soft, hard)), None)


# --- entering a container that runs -----------------------------------------------------------------------------------


@lower.register
def _(step: plan.JoinProcesses, asm: Assembler) -> None:
    del step
    asm.call("setns", Descriptor(FD_PIDFD), linux.CLONE_NEWPID)


@lower.register
def _(step: plan.EnterNamespaces, asm: Assembler) -> None:
    asm.call("setns", Descriptor(FD_PIDFD), step.flags)


@lower.register
def _(step: plan.BecomeEntry, asm: Assembler) -> None:
    asm.call("dup3", Descriptor(step.page), NOTHING, 0)
    if step.file is not None:
        asm.call("fcntl", REPORT, fcntl.F_SETFD, 0)
        asm.call("execveat", Descriptor(step.file), "", Strings((b"enter",)), Strings(()), linux.AT_EMPTY_PATH)


@lower.register
def _(step: plan.MapPage, asm: Assembler) -> None:
    del step
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    page = asm.call("mmap", None, mmap.PAGESIZE, protection, mmap.MAP_SHARED, NOTHING, 0)
    asm.call("madvise", page, mmap.PAGESIZE, linux.MADV_DONTFORK)
    asm.keep(_PAGE, page)


@lower.register
def _(step: plan.Pass, asm: Assembler) -> None:
    del step
    asm.call("pass", linux.CLONE_PARENT | linux.CLONE_PARENT_SETTID, None, asm.kept(_PAGE))


@lower.register
def _(step: plan.HideMemory, asm: Assembler) -> None:
    del step
    asm.call("prctl", linux.PR_SET_DUMPABLE, 0)


@lower.register
def _(step: plan.KeepOrphans, asm: Assembler) -> None:
    del step
    asm.call("prctl", linux.PR_SET_CHILD_SUBREAPER, 1)


# --- privileges -------------------------------------------------------------------------------------------------------


@lower.register
def _(step: plan.DropBounding, asm: Assembler) -> None:
    for number in range(step.count):
        if not step.kept >> number & 1:
            asm.call("prctl", linux.PR_CAPBSET_DROP, number)


@lower.register
def _(step: plan.NoNewPrivileges, asm: Assembler) -> None:
    del step
    asm.call("prctl", linux.PR_SET_NO_NEW_PRIVS, 1)


@lower.register
def _(step: plan.InstallSeccomp, asm: Assembler) -> None:
    points = ((linux.SOCK_FPROG.size - 8, Struct(step.filter.code)),)
    program = Struct(linux.SOCK_FPROG.pack(step.filter.instructions, 0), points=points)
    asm.call("seccomp", linux.SECCOMP_SET_MODE_FILTER, step.filter.flags, program)


@lower.register
def _(step: plan.CreateAs, asm: Assembler) -> None:
    # capabilities(7): that user 0 becomes another one of the file system's takes no capability away then. Entering a
    # user namespace undoes it (kernel/user_namespace.c: set_cred_user_ns).
    asm.call("prctl", linux.PR_SET_SECUREBITS, linux.SECBIT_NO_SETUID_FIXUP)
    asm.call("setfsgid", step.gid)
    asm.call("setfsuid", step.uid)


@lower.register
def _(step: plan.JoinUsers, asm: Assembler) -> None:
    asm.call("setns", Descriptor(step.position), linux.CLONE_NEWUSER)
    asm.call("setgroups", 0, None)
    asm.call("setresgid", 0, 0, 0)
    asm.call("setresuid", 0, 0, 0)


@lower.register
def _(step: plan.SetUser, asm: Assembler) -> None:
    groups = b"".join(linux.GID.pack(group) for group in step.groups)
    asm.call("setgroups", len(step.groups), Struct(groups))
    asm.call("setresgid", step.gid, step.gid, step.gid)
    asm.call("setresuid", step.uid, step.uid, step.uid)


@lower.register
def _(step: plan.SetCapabilities, asm: Assembler) -> None:
    asm.call("capset", *_capset(step.capabilities))


def _capset(capabilities: int, inheritable: int = 0) -> tuple[Struct, Struct]:
    header = linux.CAP_HEADER.pack(linux.CAPABILITY_VERSION_3, 0)
    return Struct(header), Struct(linux.cap_data(capabilities, capabilities, inheritable))


@lower.register
def _(step: plan.LetInherit, asm: Assembler) -> None:
    asm.call("capset", *_capset(step.held, step.inheritable))


@lower.register
def _(step: plan.ForkInit, asm: Assembler) -> None:
    own = step.capabilities
    asm.call("fork init", *((None, None) if own is None else _capset(own, step.inheritable)))


# --- the process itself -----------------------------------------------------------------------------------------------


@lower.register
def _(step: plan.NewSession, asm: Assembler) -> None:
    asm.call("setsid")
    if step.terminal:
        asm.call("ioctl", 0, linux.TIOCSCTTY, 0)


@lower.register
def _(step: plan.TakeStdio, asm: Assembler) -> None:
    del step
    for number, position in enumerate((FD_STDIN, FD_STDOUT, FD_STDERR)):
        asm.call("dup3", Descriptor(position), number, 0)


@lower.register
def _(step: plan.MakeWorkdir, asm: Assembler) -> None:
    parts = [part for part in step.path.split("/") if part]
    for depth, part in enumerate(parts):
        parent = _open_directory(asm, "/" + "/".join(parts[:depth])) if depth else AT_FDCWD
        asm.call("mkdirat", parent, part if depth else "/" + part, 0o755, forgive=MISSING_ONLY)


@lower.register
def _(step: plan.EnterWorkdir, asm: Assembler) -> None:
    asm.call("fchdir", _open_directory(asm, step.path))


def _open_directory(asm: Assembler, path: str) -> Result:
    """Of the container's: no magic link of /proc may lead to a descriptor of the host's (CVE-2024-21626)."""
    how = linux.OPEN_HOW.pack(os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, linux.RESOLVE_NO_MAGICLINKS)
    return asm.call("openat2", AT_FDCWD, path, Struct(how), linux.OPEN_HOW.size)


@lower.register
def _(step: plan.SetUmask, asm: Assembler) -> None:
    asm.call("umask", step.umask)


@lower.register
def _(step: plan.DieWithSupervisor, asm: Assembler) -> None:
    asm.call("prctl", linux.PR_SET_PDEATHSIG, linux.SIGKILL)
    if not step.checked:
        return
    # The signal is sent when the thread ends whose children we are. The kernel changes the word before that (see
    # linux.leave_word), so one of the two holds. All else that tells of its end does so too late: a pidfd afterwards,
    # a socket of its process when the last thread closes it, and that may be busy with the memory still. Here no more
    # is asked of futex(2) than to compare: it wakes none and moves none.
    word = Descriptor(SUPERVISOR_WORD)
    asm.call("futex", word, linux.FUTEX_CMP_REQUEUE, 0, 0, word, Descriptor(SUPERVISOR_THREAD))


@lower.register
def _(step: plan.CloseDescriptors, asm: Assembler) -> None:
    # Closed, not marked to be: what is executed may be named by /proc/self/fd, and lead out through a directory of the
    # host's (CVE-2024-21626). Only the failure pipe is marked: its end of file tells that exec happened.
    del step
    asm.call("close_range", 3, REPORT - 1, 0)
    asm.call("close_range", REPORT, REPORT, linux.CLOSE_RANGE_CLOEXEC)
    asm.call("close_range", REPORT + 1, 0xFFFF_FFFF, 0)


@lower.register
def _(step: plan.Exec, asm: Assembler) -> None:
    words = _own(asm, step)
    argv, env = Strings(tuple(words[: len(step.argv)])), Strings(tuple(words[len(step.argv) :]))
    elsewhere = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
    for candidate in step.candidates:
        asm.call("execve", candidate, argv, env, forgive=elsewhere)


# --- what is a container's own ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """Of a step that differs from container to container: its own texts, and all else that its calls are made of."""

    texts: Callable[[Any], Iterable[str | bytes]]
    shape: Callable[[Any], object]


def _own(asm: Assembler, step: plan.Step) -> list[Own]:
    return [asm.own(text) for text in _OWN[type(step)].texts(step)]


def _in_cgroups(step: plan.InCgroups) -> tuple[object, ...]:
    return step.first, step.cgroup.own, *(place.version for place in step.cgroup.places)


def _places_of_version_1(cgroup: Cgroup) -> list[int]:
    return [index for index, place in enumerate(cgroup.places) if place.version == 1]


_OWN: dict[type, _Parts] = {
    plan.MakeCgroup: _Parts(lambda step: map(step.cgroup.within, step.cgroup.own), _in_cgroups),
    plan.SetLimit: _Parts(
        lambda step: (f"{step.cgroup.within(step.place)}/{step.setting.file}",), attrgetter("first", "place", "setting")
    ),
    plan.HoldDevices: _Parts(lambda step: (step.cgroup.within(0),), attrgetter("first", "program")),
    plan.OpenCgroup: _Parts(lambda step: (step.cgroup.within(0),), attrgetter("first")),
    plan.JoinCgroup: _Parts(
        lambda step: [f"{step.cgroup.within(index)}/tasks" for index in _places_of_version_1(step.cgroup)],
        lambda step: (step.namespace, *_in_cgroups(step)),
    ),
    plan.MakeDirectories: _Parts(
        lambda step: (
            step.directory,
            *(f"{step.directory}/{name}" for name in (*LAYER_NAMES, *(VOLATILE if step.again else ()))),
        ),
        attrgetter("root_mode", "root_uid", "root_gid", "exist_ok", "again"),
    ),
    plan.MountOverlay: _Parts(
        lambda step: (step.directory,), attrgetter("lowers", "in_memory", "volatile", "userns", "detached")
    ),
    plan.ShowFiles: _Parts(
        lambda step: [file.contents for file in step.files], lambda step: tuple([file.path for file in step.files])
    ),
    plan.SetHostname: _Parts(lambda step: (step.hostname,), lambda _: None),
    plan.Exec: _Parts(
        lambda step: (*step.argv, *(f"{name}={value}" for name, value in step.env)),
        lambda step: (step.candidates, len(step.argv), len(step.env)),
    ),
}
