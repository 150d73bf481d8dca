"""The supervisor's half of the launcher's protocol: start a launcher, send it requests, read its replies, name what
failed.

Nothing here waits: the socket is non-blocking, and whoever owns the loop waits for it to become readable. A request is
answered by exactly one reply with its number, unless the launcher dies: then `receive` raises LauncherLostError, once.
An entry may be called off (`cancel`), which is no request of its own.
"""

import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from runtime import advice, launcher, linux, lower
from runtime.cgroup.group import Cgroup
from runtime.errors import LauncherLostError, LaunchError, PysupError
from runtime.plan import Exec, JoinProcesses, Plan
from runtime.program import MAX_BYTES
from runtime.security import clone_flags

F_ADD_SEALS, F_SEAL_FUTURE_WRITE = 1033, 0x10  # fcntl(2); Python's fcntl lacks the second
REQUESTS_MAX = 8  # in flight to one launcher: they fit its socket's buffer
CONTROL_BYTES = 8 << 20  # of that: a new one is shown a directory for each image at once, about 700 bytes each
_SO_SNDBUFFORCE = 32  # socket(7)
_BOOT = "import sys; sys.path.append({root!r}); from runtime.launcher import main; main({state!r}, {soft}, {hard})"


class Reply(NamedTuple):
    """What a launcher answers. With a pid and an error there was a child, which must still be reaped."""

    number: int
    pid: int
    error: int
    call: int


class Launcher:
    """One launcher process, seen from the supervisor. Its exit status is reaped by whoever reaps everything."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._socket = control

    @classmethod
    def spawn(cls, state: str) -> Self:
        """Start one, from the main thread: its children die when the thread that started it does (PR_SET_PDEATHSIG)."""
        ours, theirs = _control()
        try:
            with theirs:
                return cls(_start(theirs.fileno(), state), ours)
        except BaseException:
            ours.close()
            raise

    def fork(self, number: int) -> socket.socket:
        """Ask for another that shares this one's memory and mounts. The reply has its pid, this is our end of it."""
        ours, theirs = _control()
        try:
            with theirs:
                self._send(launcher.FORK, number, b"", (theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        return ours

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Ask it to end, by end of file."""
        self._socket.close()

    def hang_up(self) -> None:
        """Have done with it, whether it can end or not: the next `receive` finds it lost."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def start(
        self, number: int, plan: Plan, image: bytes, descriptors: Sequence[int], *, in_python: bool = False
    ) -> None:
        """Clone a container with these standard streams. The reply comes when its command was executed."""
        # An init is the launcher's own process going on: only the loop in Python can become one.
        flags = launcher.IN_PYTHON if in_python or plan.init else 0
        _check_size(plan, image)
        self._send(launcher.START, number, image, descriptors, flags, clone_flags(plan))

    def enter(
        self, number: int, entry: Plan, image: bytes, descriptors: Sequence[int], *, in_python: bool = False
    ) -> None:
        """Clone a process into a container that runs; after the streams comes a pidfd of the container."""
        _check_size(entry, image)
        flags = launcher.IN_PYTHON if in_python or entry.init or entry.apart else 0
        flags |= launcher.APART if entry.apart else 0
        self._send(launcher.ENTER, number, image, descriptors, flags)

    def cancel(self, number: int) -> None:
        """Have who enters, by that request, killed if it has not executed yet: the reply comes soon then."""
        self._send(launcher.CANCEL, number, b"", ())

    def hold(self, number: int, pipe: int, flags: int) -> None:
        """Ask for a process in new namespaces that lives until the pipe's other end is closed. The reply has its
        pid.
        """
        self._send(launcher.HOLD, number, b"", (pipe,), clone=flags)

    def remove(self, number: int, path: str | None, cgroup: Cgroup | None = None) -> None:
        """Remove a container's directory, and its cgroup."""
        names = () if cgroup is None else tuple(cgroup.within(index) for index in cgroup.own)
        descriptors = () if cgroup is None else cgroup.descriptors[: len(names)]
        self._send(launcher.REMOVE, number, os.fsencode("\0".join((path or "", *names))), descriptors)

    def attach(self, number: int, path: str) -> None:
        """Show the directory `path` of our mount namespace at the same path in the launcher's."""
        tree = linux.open_tree(linux.AT_FDCWD, path, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
        try:
            self._send(launcher.ATTACH, number, os.fsencode(path), (tree,))
        finally:
            os.close(tree)

    def _send(
        self, operation: int, number: int, payload: bytes, descriptors: Sequence[int], flags: int = 0, clone: int = 0
    ) -> None:
        if len(payload) <= launcher.INLINE_MAX:
            self._send_message(launcher.REQUEST.pack(operation, flags, 0, number, clone) + payload, descriptors)
        else:
            header = launcher.REQUEST.pack(operation, flags | launcher.IN_MEMFD, 0, number, clone)
            self._send_memfd(header, payload, descriptors)

    def _send_memfd(self, header: bytes, payload: bytes, descriptors: Sequence[int]) -> None:
        memfd = os.memfd_create("program")
        try:
            os.write(memfd, payload)
            self._send_message(header, (*descriptors, memfd))
        finally:
            os.close(memfd)

    def _send_message(self, message: bytes, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._socket, [message], list(descriptors))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise LauncherLostError(f"launcher {self.pid} is gone") from error

    def receive(self) -> list[Reply]:
        """Every reply that is there. LauncherLostError at end of file."""
        replies: list[Reply] = []
        while True:
            try:
                data = self._socket.recv(launcher.REPLY.size)
            except BlockingIOError:
                return replies
            except ConnectionResetError:
                data = b""
            if not data:
                if replies:
                    return replies  # the end of file is still there next time
                raise LauncherLostError(f"launcher {self.pid} ended unexpectedly")
            replies.append(Reply(*launcher.REPLY.unpack(data)))


def _check_size(plan: Plan, image: bytes) -> None:
    if len(image) > MAX_BYTES:
        too_long = f"arguments and environment are too long: {len(image)} bytes, {MAX_BYTES} at most"
        raise LaunchError(too_long, 126, container=plan.id)


def _control() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with suppress(PermissionError):
        ours.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, CONTROL_BYTES)
    return ours, theirs


def _start(control: int, state: str) -> int:
    """posix_spawn(3) of a bare interpreter: no fork of this process, whatever its size."""
    soft, hard = ORIGINAL_DESCRIPTORS
    root = str(Path(__file__).resolve().parent.parent)
    code = _BOOT.format(root=root, state=state, soft=soft, hard=hard)
    mount = _mount_interpreter()
    with ExitStack() as opened:
        opened.callback(os.close, mount)
        held, interpreter, life = (_held(fd, opened) for fd in (control, mount, _life()))
        return os.posix_spawn(
            f"/proc/self/fd/{interpreter}",
            [sys.executable, "-I", "-S", "-B", "-c", code],
            {"LC_ALL": "C.UTF-8"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, held, launcher.CONTROL),
                (os.POSIX_SPAWN_DUP2, interpreter, launcher.INTERPRETER),
                (os.POSIX_SPAWN_DUP2, life, launcher.LIFE),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )


def _held(descriptor: int, opened: ExitStack) -> int:
    """A copy out of the way of the numbers they get there: dup2 onto itself would leave close-on-exec set."""
    held = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, launcher.HOME + 1)
    opened.callback(os.close, held)
    return held


@cache
def _life() -> int:
    """A page with a word that tells whether this thread lives, for its launchers' children to look at; nobody else can
    write to it.
    """
    page = os.memfd_create("life", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(page, mmap.PAGESIZE)
    linux.leave_word(page, threading.get_native_id())
    fcntl.fcntl(page, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
    return page


def start_python(module: str, request: int, answer: int) -> int:
    """A whole interpreter that runs a module of ours, with `request` as its standard input and `answer` as its output:
    the pid of a child that whoever reaps everything reaps.
    """
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", module],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, request, 0), (os.POSIX_SPAWN_DUP2, answer, 1)],
        setsid=True,  # Ctrl-C is not meant for it
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    )


def _mount_interpreter() -> int:
    """The interpreter on a mount of its own, attached nowhere and read-only: who gets at the file by /proc/PID/exe of a
    launcher, or of what becomes of its children, can't write to it (CVE-2019-5736).
    """
    mount = linux.open_tree(linux.AT_FDCWD, sys.executable, linux.OPEN_TREE_CLONE | linux.OPEN_TREE_CLOEXEC)
    linux.make_private(mount, linux.MOUNT_ATTR_RDONLY)
    return mount


ORIGINAL_DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)
DESCRIPTORS_MIN = 128  # with fewer a supervisor is not begun
DESCRIPTORS_SPARE = 64  # that containers do not get: for launchers, clients and log files
DESCRIPTORS_EACH = 3  # of an idle container: its pidfd, and two pipes


def raise_descriptor_limit() -> None:
    """Use as many descriptors as we may; containers keep the limit that pysup was started with. PysupError if those are
    too few to begin with.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (ORIGINAL_DESCRIPTORS[1], ORIGINAL_DESCRIPTORS[1]))
    if (limit := descriptor_limit()) < DESCRIPTORS_MIN:
        raise PysupError(
            f"pysup may open {limit} files only, and needs {DESCRIPTORS_MIN}: raise the limit (ulimit -Hn)"
        )


def descriptor_limit() -> int:
    """How many we may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def spare_some(descriptors: Iterable[int]) -> None:
    """OSError EMFILE if these are among the last that we may have: the kernel gives the lowest that is free, so its
    number tells how many are used.
    """
    if max(descriptors, default=0) >= descriptor_limit() - DESCRIPTORS_SPARE:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


# --- what came of a start ---------------------------------------------------------------------------------------------

KEPT = (
    f"enter it: killed, as it did not get to execute within {launcher.ENTER_S:g} s: the container is frozen, has used "
    "up its share of the processor, or stops what enters it"
)


def advise(error: OSError) -> str:
    """What an error of our own system calls means, and what to do."""
    return advice.advise(None, error.errno or errno.EIO)


def launch_error(plan: Plan, call: int, code: int) -> LaunchError:
    """The error of call `call` of the plan's program, -1 being clone, as one line: container, step, what to do."""
    if call < 0 and code == errno.ETIMEDOUT:
        return LaunchError(KEPT, 125, container=plan.id)
    step = plan.steps[lower.lower_plan(plan).steps[call]] if call >= 0 else None
    what = step.describe() if step else _clone_into(plan)
    status = 125
    if isinstance(step, Exec):
        status = 127 if code in (errno.ENOENT, errno.ENOTDIR) else 126
    return LaunchError(f"{what}: {advice.advise(step, code)}", status, container=plan.id)


def _clone_into(plan: Plan) -> str:
    entry = any(isinstance(step, JoinProcesses) for step in plan.steps)
    return "clone into the container" if entry else "clone into new namespaces"
