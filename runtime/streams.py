"""The standard streams of a run: pipes that we read, descriptors handed through, or a terminal.

Each maker returns `Streams`: what the launcher is to pass on, and what stays with us. `close_theirs` once the run has
started, or when it could not be.
"""

import errno
import fcntl
import os
from dataclasses import dataclass

from runtime import linux, lower
from runtime.plan import TTY_GID


@dataclass(slots=True)
class Streams:
    """`theirs` are standard input, output, error, and for a terminal the mount of its devpts; `owned` those we must
    close.
    """

    theirs: tuple[int, ...]
    owned: tuple[int, ...]
    stdout: int | None = None  # our reading ends
    stderr: int | None = None
    terminal: int | None = None  # the master
    stdin: int | None = None  # our writing end

    def close_theirs(self) -> None:
        """Close what the run has got, so that its end is seen as end of file."""
        for descriptor in self.owned:
            os.close(descriptor)
        self.owned = ()

    def close(self) -> None:
        """Close everything: no run came of it."""
        self.close_theirs()
        for descriptor in (self.stdin, self.stdout, self.stderr, self.terminal):
            if descriptor is not None:
                os.close(descriptor)
        self.stdin = self.stdout = self.stderr = self.terminal = None


def pipes(stdin: int, owner: tuple[int, int]) -> Streams:
    """Standard output and error as pipes, non-blocking at our end. `stdin` stays the caller's."""
    stdout, their_stdout = _output_pipe(owner)
    try:
        stderr, their_stderr = _output_pipe(owner)
    except OSError:
        os.close(stdout)
        os.close(their_stdout)
        raise
    return Streams((stdin, their_stdout, their_stderr), (their_stdout, their_stderr), stdout, stderr)


def conversing(owner: tuple[int, int], *, stdin: bool) -> Streams:
    """Three pipes, non-blocking at our ends; without `stdin` there is nothing to read for it."""
    if stdin:
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(ours, False)
    else:
        theirs, ours = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None
    try:
        if stdin and owner != (0, 0):
            os.fchown(theirs, *owner)
        made = pipes(theirs, owner)
    except OSError:
        for descriptor in (theirs, ours):
            if descriptor is not None:
                os.close(descriptor)
        raise
    made.owned += (theirs,)
    made.stdin = ours
    return made


def joined(owner: tuple[int, int]) -> Streams:
    """Nothing to read, and standard output and error in one pipe."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ours, theirs = _output_pipe(owner)
    except OSError:
        os.close(null)
        raise
    return Streams((null, theirs, theirs), (null, theirs), ours)


def _output_pipe(owner: tuple[int, int]) -> tuple[int, int]:
    """(our end, the container's end, which its user may open again by /dev/stdout)."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    if owner != (0, 0):
        os.fchown(theirs, *owner)
    return ours, theirs


def inherited() -> Streams:
    """The caller's own standard streams, as they are."""
    return Streams((0, 1, 2), ())


def terminal(owner: tuple[int, int], tty_gid: int = TTY_GID) -> Streams:
    """A pseudoterminal in a devpts instance of its own, which the container mounts as /dev/pts: pts(4), devpts(5)."""
    options = dict(option.split("=") for option in lower.DEVPTS_OPTIONS.split(",") if "=" in option)
    options["gid"] = str(tty_gid)
    mount = linux.detached_mount("devpts", options, linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NOEXEC)
    try:
        master, peer = _terminal(mount, owner)
    except OSError:
        os.close(mount)
        raise
    return Streams((peer, peer, peer, mount), (mount, peer), terminal=master)


def terminal_inside(pid: int, owner: tuple[int, int]) -> Streams:
    """A pseudoterminal of the devpts that the container of process `pid` has mounted, so that ttyname(3) works there.

    OSError if what is mounted there is none: whatever the container has made of its /dev is not followed.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_MAGICLINKS
        pts = linux.openat2(root, "dev/pts", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    finally:
        os.close(root)
    try:
        if linux.filesystem_type(pts) != linux.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "is no devpts", "/dev/pts")
        master, peer = _terminal(pts, owner)
    finally:
        os.close(pts)
    return Streams((peer, peer, peer), (peer,), terminal=master)


def _terminal(devpts: int, owner: tuple[int, int]) -> tuple[int, int]:
    """(master, peer) of a new pseudoterminal."""
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=devpts)
    try:
        fcntl.ioctl(master, linux.TIOCSPTLCK, bytes(4))
        peer = fcntl.ioctl(master, linux.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    try:
        os.fchown(peer, owner[0], -1)
        os.set_blocking(master, False)
    except OSError:
        os.close(master)
        os.close(peer)
        raise
    return master, peer
