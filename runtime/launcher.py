"""The launcher: a small process with one thread that clones containers on behalf of the supervisor.

A fork copies the page tables of who forks, and a fork of a process with threads, a heap and a loop is unsafe; so the
supervisor never forks, and this process is kept small: a bare interpreter (isolated, no site-packages) that imports
what is named below, and whose objects are frozen out of the garbage collector's sight. With CLONE_PARENT its children
are the supervisor's.

It lives in a mount namespace of its own, pruned of everything: the root is an empty tmpfs, to which the supervisor
attaches the directories of images and state, at the same paths as on the host. Every container's namespace is a copy of
that one, so a clone costs the same on a host with 1,000 mounts.

Protocol, over a SOCK_SEQPACKET socketpair; one request, one reply, in order:

    request: u8 operation, u8 flags, u16 -, u32 id, u64 clone flags | payload, descriptors by SCM_RIGHTS
      START   payload: a program; descriptors: stdin, stdout, stderr, more as the program says
      REMOVE  payload: a path; the tree is removed. More, with NUL between: the names of cgroups, which are removed from
              the directories that the descriptors are of; the path may then be empty
      ATTACH  payload: a path; descriptor: a detached mount that goes there
      ENTER   payload: a program that starts with joining a pid namespace; descriptors: the streams, a pidfd
      HOLD    no payload; descriptor: a pipe. A process in new namespaces, as the flags say, that ends when the pipe is
              closed: by it they can be got hold of
      FORK    no payload; descriptor: the socket of another launcher, which shares this one's memory and mount namespace
      CANCEL  no payload: the ENTER of that number is not wanted any more. It has no reply of its own: that one's comes
              at once, and who has it to reap has it to kill, too
    reply: u32 id, i32 pid or 0, i32 errno or 0, i32 index of the call that failed or -1 (clone itself)

A request that makes no sense is answered with EINVAL. The reply to START or ENTER comes when the command was executed;
with a pid and an errno there was a child, which has ended, and the supervisor has it to reap. A payload over INLINE_MAX
bytes comes in a memfd, the last descriptor (flag IN_MEMFD); IN_PYTHON asks for the loop in Python where there is a
native one. End of file means: the supervisor is gone. APART is an ENTER whose child makes another one, and ends: that
may be reaped long before its reply, so it is not killed here either.

All requests are answered in their order but ENTER, which nobody waits for: what enters a container can be seen there,
and stopped, by who is root in it, or may be slow because the container has used up its share of the processor. One that
has not executed after ENTER_S is killed, and its reply is ETIMEDOUT.
"""

import _socket
import errno
import gc
import os
import struct
import sys
import time

from runtime import child, linux, native, program, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

START, REMOVE, ATTACH, FORK, ENTER, HOLD, CANCEL = 1, 2, 3, 4, 5, 6, 7
IN_MEMFD, IN_PYTHON, APART = 1, 2, 4
REQUEST = struct.Struct("=BBHIQ")
REPLY = struct.Struct("=Iiii")
INLINE_MAX = 64 << 10
DESCRIPTORS_MAX = 200  # of one request; SCM_RIGHTS takes 253
CONTROL = 10  # the descriptor it is started with: its socket
HOME = 11  # its own pid namespace, opened while it has a /proc
INTERPRETER = 9  # the mount that it is executed from, to begin with
LIFE = 8  # the page that tells whether the supervisor lives, to begin with
SCRATCH, LAYERS = "/.scratch", "/.layers"
ENTER_S = 10.0  # the longest it may take from the clone to execve
ENTRIES_MAX = 64  # that have not executed yet

_buffer = bytearray(REQUEST.size + INLINE_MAX)
_native = native.available()
_life: list[int] = []  # where the word is, and what it is while the supervisor lives
_entries: "dict[int, Entry]" = {}  # by the descriptor that tells when it has executed


def main(state: str, soft_descriptors: int, hard_descriptors: int) -> None:
    """Become the launcher; returns when the supervisor has closed the socket. `state` is any directory of ours."""
    linux.prctl(linux.PR_SET_PDEATHSIG, linux.SIGKILL)
    # Not dumpable: nothing in a container may look into this memory, or at the program it runs (proc(5), ptrace(2)).
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.set_command_line(b"pysup launcher")
    _reset_signals()
    _limit_descriptors(soft_descriptors, hard_descriptors)
    _forgo_mercy()
    os.umask(0)
    _protect_interpreter()
    _map_life()
    _remember_home()
    _keep_init()
    _prune_mounts(state)
    control = _socket.socket(fileno=CONTROL)
    gc.disable()
    gc.freeze()
    try:
        serve(control)
    except ConnectionError:  # it was closed with replies unread: an end of file all the same
        return


def _reset_signals() -> None:
    """Containers inherit what is ignored here: Python ignores two signals, posix_spawn of glibc the two it uses
    itself.
    """
    default = bytearray(32)  # struct sigaction: SIG_DFL, no flags
    for number in range(1, 65):
        linux.raw("rt_sigaction", number, linux.address_of(default), 0, 8)


def _limit_descriptors(soft: int, hard: int) -> None:
    """The supervisor raised its own soft limit; containers get what it had before."""
    limits = bytearray(linux.RLIMIT64.pack(soft, hard))
    linux.raw("prlimit64", 0, linux.RLIMIT_NOFILE, linux.address_of(limits))


def _forgo_mercy() -> None:
    """A service manager may spare the supervisor where memory runs out (OOMScoreAdjust=): what it runs has no part in
    that. What we write, while we have CAP_SYS_RESOURCE, is also the least that anybody without it may set
    (fs/proc/base.c: __set_oom_adj), or a container could put itself out of reach of the kill that its limit asks for.
    """
    place = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(place, b"%d" % max(0, int(os.read(place, 16))))
    finally:
        os.close(place)


def _protect_interpreter() -> None:
    """A child is the interpreter until it executes something: by #!/proc/self/exe that would be the host's interpreter
    again, in the container (CVE-2019-5736). The mount is ours alone, read-only already, and from now on nothing can be
    executed from it.
    """
    linux.make_private(INTERPRETER, linux.MOUNT_ATTR_NOEXEC)
    os.close(INTERPRETER)


def _map_life() -> None:
    word = linux.map_shared(LIFE) + linux.ROBUST_WORD
    _life.extend((word, int.from_bytes(os.pread(LIFE, 4, linux.ROBUST_WORD), sys.byteorder)))
    os.close(LIFE)


def _remember_home() -> None:
    opened = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(opened, HOME, inheritable=False)
    os.dup2(opened, program.REPORT, inheritable=False)  # to keep the numbers
    os.dup2(opened, program.INIT, inheritable=False)
    os.dup2(opened, program.NOTHING, inheritable=False)
    os.close(opened)


def _keep_init() -> None:
    """In a file that is nowhere, and that nobody can write to: containers get at it by /proc/1/exe (CVE-2019-5736).
    Where no such file may be executed (vm.memfd_noexec), the init stays what it was cloned as.
    """
    image = native.init_program()
    if image is None:
        return
    try:
        memory = linux.executable_file("init", image)
    except OSError:
        return
    os.dup2(memory, program.INIT, inheritable=False)
    os.close(memory)


def _prune_mounts(state: str) -> None:
    """An empty tmpfs becomes the root of a mount namespace of our own; every mount of the host is let go."""
    ourselves = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("pysup", state, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    _become_root(state)
    os.mkdir(SCRATCH, 0o700)
    os.mkdir(LAYERS, 0o755)
    _make_nothing(ourselves)
    os.close(ourselves)


def _make_nothing(ourselves: int) -> None:
    """A mount namespace with nothing but an empty directory, in which nothing can be made: containers' are copies of
    it. Not even what is below a container's root tells of us or of others then.
    """
    own = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=ourselves)
    linux.unshare(linux.CLONE_NEWNS)
    flags = linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("nothing", SCRATCH, "tmpfs", flags, "size=4k,nr_inodes=1,mode=555")
    _become_root(SCRATCH)
    made = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=ourselves)
    os.dup2(made, program.NOTHING, inheritable=False)
    linux.setns(own, linux.CLONE_NEWNS)
    os.close(made)
    os.close(own)


def _become_root(path: str) -> None:
    os.chdir(path)
    linux.pivot_root(".", ".")
    linux.umount2(".", linux.MNT_DETACH)
    os.chdir("/")


class Entry:
    """Who enters a container, from its clone on."""

    __slots__ = ("apart", "deadline", "job", "linked", "number", "pid")

    def __init__(self, number: int, pid: int, linked: program.Linked, job: "native.Job | None", *, apart: bool) -> None:
        self.apart = apart
        self.number = number
        self.pid = pid
        self.linked = linked  # which it runs
        self.job = job  # None: in memory of its own
        self.deadline: float | None = time.monotonic() + ENTER_S  # None: it was given up, and that was told

    def failure(self, report: int) -> tuple[int, int]:
        """The call that failed, and its errno; (-1, 0) if none did."""
        if self.job is not None:
            return self.job.failure()
        said = os.read(report, program.FAILURE.size)
        if len(said) < program.FAILURE.size:
            return -1, 0
        call, error = program.FAILURE.unpack(said)
        return (call, error) if 0 <= call < self.linked.calls and 0 < error < ERRNO_END else (-1, errno.EPROTO)


ERRNO_END = 4096
FOREVER = 1e9


def serve(control: _socket.socket) -> None:
    """Answer requests until end of file."""
    room = _socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)
    while True:
        while _entries and not _attend(control):
            pass
        size, ancillary, _flags, _ = control.recvmsg_into([_buffer], room, _socket.MSG_CMSG_CLOEXEC)
        if not size:
            return
        descriptors = [fd for _level, _kind, data in ancillary for (fd,) in struct.iter_unpack("=i", data)]
        reply = _answer(control, memoryview(_buffer)[:size], descriptors)
        _close_all_but(_entries)
        if reply is not None:
            _send(control, reply)


def _send(control: _socket.socket, reply: tuple[int, int, int, int]) -> None:
    control.send(REPLY.pack(*reply), _socket.MSG_NOSIGNAL)


def _close_all_but(reports: "Iterable[int]") -> None:
    """What came, and what a program's prologue has opened."""
    first = 3
    for kept in sorted((CONTROL, HOME, program.REPORT, program.INIT, program.NOTHING, *reports)):
        if kept > first:
            linux.raw("close_range", first, kept - 1, 0)
        first = kept + 1
    linux.raw("close_range", first, 0xFFFF_FFFF, 0)


def _attend(control: _socket.socket) -> bool:
    """Wait for a request, or for what becomes of an entry; is there a request?"""
    reports = list(_entries)
    watched = bytearray(b"".join(linux.POLLFD.pack(fd, linux.POLLIN, 0) for fd in (control.fileno(), *reports)))
    deadlines = [entry.deadline for entry in _entries.values() if entry.deadline is not None]
    left = max(0.0, min(deadlines, default=FOREVER) - time.monotonic())
    wait = bytearray(linux.TIMESPEC.pack(int(left), int(left % 1 * 1e9)))
    linux.raw("ppoll", linux.address_of(watched), len(reports) + 1, linux.address_of(wait), 0, 8)
    (_, _, asked), *told = linux.POLLFD.iter_unpack(watched)
    for report, _, events in told:
        if events:
            _conclude(control, report)
    now = time.monotonic()
    for report, entry in list(_entries.items()):
        if entry.deadline is not None and entry.deadline <= now:
            _give_up(control, report, entry)
    return bool(asked)


def _conclude(control: _socket.socket, report: int) -> None:
    """It has executed, or ended."""
    entry = _entries.pop(report)
    call, error = entry.failure(report)
    os.close(report)
    if entry.deadline is not None:
        _send(control, (entry.number, entry.pid, error, call))


def _give_up(control: _socket.socket, report: int, entry: Entry) -> None:
    """It has taken too long: kill it, unless its pid may be another's by now."""
    if entry.apart:
        _let_go(control, report, entry)
        return
    try:
        pidfd = os.pidfd_open(entry.pid)
    except OSError:  # it has just ended; or there is no descriptor left, and there will be
        return
    try:
        if _is_over(report):  # else it had not ended when we opened it, so that this is nobody else's pid
            return
        linux.raw("pidfd_send_signal", pidfd, linux.SIGKILL)
    finally:
        os.close(pidfd)
    _let_go(control, report, entry)


def _let_go(control: _socket.socket, report: int, entry: Entry) -> None:
    """Nobody waits for it any more. As long as it may still use our memory, it keeps its part of that."""
    entry.deadline = None
    if entry.job is None:
        del _entries[report]
        os.close(report)
    _send(control, (entry.number, entry.pid, errno.ETIMEDOUT, -1))


def _is_over(report: int) -> bool:
    watched = bytearray(linux.POLLFD.pack(report, linux.POLLIN, 0))
    return linux.raw("ppoll", linux.address_of(watched), 1, linux.address_of(_AT_ONCE), 0, 8) > 0


_AT_ONCE = bytearray(linux.TIMESPEC.size)


def _cancel(control: _socket.socket, number: int) -> None:
    """It is not killed here: with it an init might die before the command that it has forked, which nobody would reap
    then.
    """
    for report, entry in list(_entries.items()):
        if entry.number == number and entry.deadline is not None:
            _let_go(control, report, entry)


def _answer(control: _socket.socket, request: memoryview, descriptors: list[int]) -> tuple[int, int, int, int] | None:
    """None: the reply is sent later."""
    if len(request) < REQUEST.size:
        return 0, 0, errno.EINVAL, -1
    operation, flags, _, number, clone_flags = REQUEST.unpack_from(request)
    try:
        payload = request[REQUEST.size :]
        if flags & IN_MEMFD:
            payload = _read_all(descriptors[-1])
        if operation == START:
            return (number, *_start(payload, descriptors, clone_flags, in_python=bool(flags & IN_PYTHON)))
        if operation == ENTER:
            failed = _enter(number, payload, descriptors, flags)
            return None if failed is None else (number, *failed)
        if operation == CANCEL:
            _cancel(control, number)
            return None
        if operation == FORK:
            return number, _fork(descriptors[0]), 0, -1
        if operation == HOLD:
            return number, _hold(descriptors[0], clone_flags | linux.CLONE_PARENT), 0, -1
        path, *names = os.fsdecode(bytes(payload)).split("\0")
        if operation == REMOVE:
            _remove(path, names, descriptors)
        elif operation == ATTACH:
            os.makedirs(path, 0o755, exist_ok=True)
            linux.move_mount(descriptors[0], path)
        else:
            return number, 0, errno.EINVAL, -1
    except OSError as error:
        return number, 0, error.errno or errno.EIO, -1
    except (ValueError, IndexError, struct.error):
        return number, 0, errno.EINVAL, -1
    return number, 0, 0, -1


def _remove(path: str, cgroups: list[str], parents: list[int]) -> None:
    for name, parent in zip(cgroups, parents, strict=True):
        remove.remove_cgroup(name, parent)
    if path:
        remove.remove_run(path)


def _read_all(memfd: int) -> memoryview:
    size = os.fstat(memfd).st_size
    return memoryview(os.pread(memfd, min(size, program.MAX_BYTES), 0))


def _start(payload: memoryview, descriptors: list[int], clone_flags: int, *, in_python: bool) -> tuple[int, int, int]:
    linked = program.link(payload, linux.address_of, [*_life, program.NOTHING, *descriptors])
    call, error = child.run(linked, 0, linked.prologue)
    if error:
        return 0, error, call
    cgroup = linked.cgroup()
    flags = clone_flags | linux.CLONE_PARENT | (linux.CLONE_INTO_CGROUP if cgroup else 0)
    launch = child.launch if _native is None or in_python else _native.launch
    pid, error, call = launch(linked, flags, cgroup)
    return (pid, error, call) if pid >= 0 else (0, -pid, -1)


def _enter(number: int, payload: memoryview, descriptors: list[int], flags: int) -> tuple[int, int, int] | None:
    """The same in a container's pid namespace, which the prologue has joined: what is cloned next must not be there.
    None: it is under way.
    """
    if len(_entries) >= ENTRIES_MAX:
        return 0, errno.EAGAIN, -1
    linked = program.link(payload, linux.address_of, [*_life, program.NOTHING, *descriptors])
    try:
        call, error = child.run(linked, 0, linked.prologue)
        return (0, error, call) if error else _begin(number, linked, flags)
    finally:
        if linux.raw("setns", HOME, linux.CLONE_NEWPID) < 0:
            os.abort()


def _begin(number: int, linked: program.Linked, asked: int) -> tuple[int, int, int] | None:
    cgroup = linked.cgroup()
    flags = linux.CLONE_PARENT | (linux.CLONE_INTO_CGROUP if cgroup else 0)
    report, writing = os.pipe2(os.O_CLOEXEC)
    os.dup2(writing, program.REPORT, inheritable=False)
    os.close(writing)
    job = None
    if _native is None or asked & IN_PYTHON:
        pid = child.begin(linked, flags, cgroup)
    else:
        pid, job = _native.begin(linked, flags, cgroup)
    os.dup2(HOME, program.REPORT, inheritable=False)
    if pid < 0:
        os.close(report)
        return 0, -pid, -1
    _entries[report] = Entry(number, pid, linked, job, apart=bool(asked & APART))
    return None


def _fork(control: int) -> int:
    """Another launcher that costs a copy of our page tables and little more: its memory stays shared with ours."""
    pid = child.clone(linux.CLONE_PARENT)
    if pid < 0:
        raise OSError(-pid, "clone3")
    if pid == 0:
        try:
            linux.prctl(linux.PR_SET_PDEATHSIG, linux.SIGKILL)  # not inherited
            os.dup2(control, CONTROL)
            os.close(control)
            _entries.clear()
            serve(_socket.socket(fileno=CONTROL))
        finally:
            os._exit(0)
    return pid


def _hold(pipe: int, flags: int) -> int:
    """A process that waits for the end of file of a pipe, and does nothing else."""
    os.dup2(pipe, program.HELD, inheritable=False)
    pid = _native.hold(flags) if _native is not None else child.hold(flags)
    if pid < 0:
        raise OSError(-pid, "clone3")
    return pid
