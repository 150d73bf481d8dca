"""What a failed step means for the user, and what to do: the second half of a launch error's one line."""

import errno
import os

from runtime import plan

_FULL = "the file system is full: make room, or use another one with --state"
_ANYWHERE = {
    errno.EPERM: "not permitted: pysup needs root with CAP_SYS_ADMIN",
    errno.ENOSYS: "this kernel lacks the system call: Linux 5.15 or newer is needed",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up: make room, or use another file system with --state",
    # Where overlayfs can't make a directory in `work`, it mounts read-only (fs/overlayfs/super.c: ovl_make_workdir).
    errno.EROFS: "read-only, or too full for an overlay: make room, or use another file system with --state",
    errno.ENOMEM: "the kernel is out of memory",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "the system's file table is full: raise fs.file-max",
}
_CLONE = {
    errno.EAGAIN: "no more processes: raise kernel.pid_max, ulimit -u, or the pids limit of pysup's cgroup",
    errno.ENOSPC: "no more namespaces: raise the limits in /proc/sys/user",
}
_STEPS: dict[tuple[type, int], str] = {
    (
        plan.Exec,
        errno.ENOENT,
    ): "not found in the image: check cmd and PATH, or the interpreter that its first line names",
    (plan.Exec, errno.ENOTDIR): "not found in the image: a part of the path is no directory",
    (
        plan.Exec,
        errno.EACCES,
    ): "not executable: it lacks the x bit, is a directory, or lies where the user can't reach it",
    (plan.Exec, errno.EPERM): "not permitted: does its seccomp profile permit execve?",
    (
        plan.InstallSeccomp,
        errno.EINVAL,
    ): "this kernel has no seccomp filters, or does not take this one: try seccomp: unconfined",
    (plan.Exec, errno.ENOEXEC): "not executable: neither a program of this machine's kind nor a script with #!",
    (plan.Exec, errno.E2BIG): "arguments and environment are too long",
    (plan.Exec, errno.ELOOP): "too many symbolic links on the way",
    (plan.Exec, errno.EAGAIN): "the user has as many processes as its nproc limit allows",
    (plan.MakeDirectories, errno.EEXIST): "the directory is in use or was left behind",
    (plan.MountOverlay, errno.EINVAL): (
        "overlayfs does not take these directories: the upper can't be on overlay, NFS or FAT; "
        "use --state or storage: memory; and with userns, nothing but ext4, xfs, btrfs and the like"
    ),
    (plan.MountOverlay, errno.ENOENT): "the image or the container's directory is gone",
    (plan.MountOverlay, errno.EBUSY): "another mount uses this upper",
    (plan.MountOverlay, errno.ENODEV): "this kernel has no overlayfs",
    (plan.MountOverlay, errno.ELOOP): "the image lies on too many overlays: copy it to a plain file system",
    (plan.EnterWorkdir, errno.ELOOP): "leads through a magic link of /proc, which is refused",
    (plan.MakeWorkdir, errno.ELOOP): "leads through a magic link of /proc, which is refused",
    (plan.EnterWorkdir, errno.ENOTDIR): "not a directory in the image",
    (plan.MakeWorkdir, errno.ENOTDIR): "a part of the path is no directory in the image",
    (
        plan.MountOverlay,
        errno.EOPNOTSUPP,
    ): "the file system of the image or of --state has no idmapped mounts: userns: host",
    (plan.SetUser, errno.EINVAL): "it has no id on the host: see userns",
    (plan.SetRlimit, errno.EPERM): "above the hard limit that pysup itself runs under",
    (plan.MakeCgroup, errno.ENOENT): "the cgroup above it is gone: somebody has removed it",
    (plan.SetLimit, errno.EINVAL): "the kernel does not take this value: is it within those of pysup's own cgroup?",
    (plan.SetLimit, errno.ERANGE): "the kernel does not take this value",
    (plan.SetLimit, errno.EACCES): "beyond what pysup's own cgroup may use",
    (plan.SetLimit, errno.ENODEV): "no such device, or none that the kernel limits",
    (plan.JoinProcesses, errno.ESRCH): "it has ended",
    (plan.EnterNamespaces, errno.ESRCH): "it has ended",
    (plan.DieWithSupervisor, errno.EAGAIN): "the supervisor is gone",
    **{
        (step, code): what
        for step in (plan.ShowBind, plan.MountTmpfs, plan.ShowMemory)
        for code, what in {
            errno.ENOENT: "a symbolic link of the image or of a volume leads nowhere there",
            errno.ELOOP: "too many symbolic links on the way, or a magic one of /proc",
            errno.ENOTDIR: "a part of the path is no directory, or one is a file and the other a directory",
            errno.EISDIR: "it is a directory, and what is to be there a file",
            errno.EROFS: "what it is in is read-only, and it is not there: make it there, or mount it elsewhere",
            errno.ENOSPC: "what it is in is full",
        }.items()
    },
    (plan.ShowBind, errno.EINVAL): "the kernel does not take it there: one is a file and the other a directory",
    **{
        (step, errno.ENOTDIR): "the image has a symbolic link or a file there: make it a directory, or leave it out"
        for step in (plan.MountDev, plan.MountSys, plan.MountProc)
    },
    (plan.MakeDevice, errno.EEXIST): "it is there already",
    (plan.SetSysctl, errno.ENOENT): "this kernel has none of this name in a container's own namespaces",
    (plan.SetSysctl, errno.EINVAL): "the kernel does not take this value",
    (plan.SetSysctl, errno.EACCES): "a container may not set it",
    (plan.SetSysctl, errno.EPERM): "a container may not set it",
}
_OF_SOURCES = {
    errno.ENOENT: "not there",
    errno.ELOOP: "a symbolic link is on the way that was not there when the spec was read: reload it if that is meant",
    errno.ENODEV: "it is no device",
    errno.EXDEV: "it leads out of the volume",
}


def advise(step: plan.Step | None, code: int) -> str:
    """What error `code` of `step` means; None stands for clone itself."""
    specific = _CLONE.get(code) if step is None else _STEPS.get((type(step), code))
    return specific or of_host(code)


def of_host(code: int) -> str:
    """What error `code` means, wherever it is met."""
    return _ANYWHERE.get(code) or os.strerror(code).lower()


def of_source(error: OSError) -> str:
    """What is wrong with a file of the host that a container is to see."""
    code = error.errno or errno.EIO
    return _OF_SOURCES.get(code) or os.strerror(code).lower()
