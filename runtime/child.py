"""From clone to execve: the loop over the program, in the child.

It runs in a copy of the launcher's memory, and every page it writes to is copied by a fault: so it imports nothing,
formats nothing, and allocates next to nothing. The first call that fails is reported on a pipe as (index, errno); the
pipe's end of file without a report means that execve happened.

The same loop runs the program's prologue in the launcher, before clone. And here is the init that `init: true` asks
for: process 1 of the container, which waits for signals and children and for nothing else.
"""

import errno
import os

from runtime import linux, program

FAILED = 125  # the exit status of a child that could not reach execve; nobody but a debugger sees it

_errno = linux.errno_cell()


def run(linked: program.Linked, first: int, last: int) -> tuple[int, int]:
    """Make the calls [first, last); returns (index, errno) of the one that failed, (last, 0) when none did.

    The end of the program is a failure too: no candidate could be executed. Reported is the last error, or the one that
    says more than "not there", as execvp(3) does with EACCES.
    """
    syscall, unpack, memory, results = linux.syscall, program.CALL.unpack_from, linked.memory, linked.results
    forgiven = cursor = 0
    call, place = program.PAIR.unpack_from(results)
    for index in range(first, last):
        words = unpack(memory, index * program.CALL.size)
        rule = words[7]
        result = syscall(*words) if words[0] >= 0 else _PSEUDO[words[0]](*words[1:4])
        if result < 0:
            error = _errno.value
            if not _forgives(rule, error):
                return index, error
            if forgiven in (0, errno.ENOENT, errno.ENOTDIR):
                forgiven = error
        else:
            forgiven = 0
        while call == index:
            program.store(memory, place, result)
            cursor += program.PAIR.size
            call, place = program.PAIR.unpack_from(results, cursor)
    linked.results = results[cursor:]  # for who makes the calls after these
    return (last - 1, forgiven) if last == linked.calls else (last, 0)


def _forgives(rule: int, error: int) -> bool:
    return error in (rule & 0xFF, rule >> 8 & 0xFF, rule >> 16 & 0xFF, rule >> 24 & 0xFF)


def clone(flags: int, cgroup: int = 0) -> int:
    """clone3(2) without the interpreter's fork hooks: the pid, 0 in the child, or -errno."""
    arguments = bytearray(linux.CLONE_ARGS.pack(flags, *(0,) * 9, cgroup))
    pid = linux.raw("clone3", linux.address_of(arguments), len(arguments))
    return pid if pid >= 0 else -_errno.value


def launch(linked: program.Linked, flags: int, cgroup: int = 0) -> tuple[int, int, int]:
    """Clone, and run the program in the child: (pid or -errno, errno, call that failed). Returns once it has executed.

    A bare clone, without the interpreter's fork hooks: the launcher has one thread, the call holds the interpreter's
    lock, and the child executes or exits; the hooks would cost it a quarter of a millisecond in page faults.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        pid = clone(flags, cgroup)
        if pid == 0:
            _main(linked, writing)
        if pid < 0:
            return pid, 0, -1
        os.close(writing)
        writing = -1
        report = os.read(reading, program.FAILURE.size)
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
    call, error = program.FAILURE.unpack(report) if report else (-1, 0)
    return pid, error, call


def begin(linked: program.Linked, flags: int, cgroup: int = 0) -> int:
    """The same without waiting: the pid, or -errno. What failed is written to REPORT, which has its end of file once
    the child has executed or ended.
    """
    pid = clone(flags, cgroup)
    if pid == 0:
        _main(linked, program.REPORT)
    return pid


def hold(flags: int) -> int:
    """A child that reads from HELD until its end of file, and ends: its pid, or -errno."""
    pid = clone(flags)
    if pid == 0:
        try:
            linux.raw("close_range", 0, program.HELD - 1)
            linux.raw("read", program.HELD, linux.address_of(_STATUS), 1)
        finally:
            os._exit(FAILED)
    return pid


def _main(linked: program.Linked, failure: int) -> None:
    """The child's whole life; never returns."""
    try:
        if failure != program.REPORT:
            os.dup2(failure, program.REPORT, inheritable=False)
        report = run(linked, linked.prologue, linked.calls)
        os.write(program.REPORT, program.FAILURE.pack(*report))
    finally:
        os._exit(FAILED)


def pass_on(flags: int, stack: int, parent_tid: int) -> int:
    """clone(2); who has done that ends."""
    child = linux.raw("clone", flags, stack, parent_tid)
    if child > 0:
        os._exit(0)
    return child


# --- the container's init ---------------------------------------------------------------------------------------------

_ALL_SIGNALS = bytearray(b"\xff" * 8)
_STATUS = bytearray(4)
_NAME = bytearray(b"init\0")
_SIG_SETMASK = 2
_WNOHANG = 1


def fork_init(capset_header: int, capset_data: int, _: int) -> int:
    """Fork. Returns 0 in the child, which goes on with the program, -1 on failure; the parent stays as init. The child
    waits until that has let go of the launcher's memory: until the pipe's other end is closed by execve.
    """
    signals = linux.address_of(_ALL_SIGNALS)
    # Blocked before the fork, so that no SIGCHLD and no stop signal is missed; a blocked signal stays pending even for
    # a process 1 that has no handler for it (signal(7), kernel/signal.c: sig_ignored).
    linux.raw("rt_sigprocmask", _SIG_SETMASK, signals, 0, 8)
    waiting, becoming = os.pipe2(os.O_CLOEXEC)
    child = linux.raw("clone", linux.SIGCHLD)
    if child > 0:
        try:
            _close_all_but(program.INIT, becoming)
            _init(child, signals, capset_header, capset_data)
        finally:
            os._exit(FAILED)
    os.close(becoming)
    if child == 0:
        linux.raw("read", waiting, linux.address_of(_STATUS), 1)
    os.close(waiting)
    none = bytearray(8)
    linux.raw("rt_sigprocmask", _SIG_SETMASK, linux.address_of(none), 0, 8)
    return child


def _init(main_child: int, signals: int, capset_header: int, capset_data: int) -> None:
    if capset_header and linux.raw("capset", capset_header, capset_data) < 0:
        return
    _execute_init(main_child)
    linux.raw("close_range", 0, 0xFFFF_FFFF)
    linux.raw("prctl", linux.PR_SET_NAME, linux.address_of(_NAME))
    linux.set_command_line(b"init")
    while True:
        signal = linux.raw("rt_sigtimedwait", signals, 0, 0, 8)
        if signal == linux.SIGCHLD:
            _reap(main_child)
        elif signal > 0:
            linux.raw("kill", main_child, signal)


def _close_all_but(one: int, other: int) -> None:
    first = 0
    for kept in (min(one, other), max(one, other)):
        if kept > first:
            linux.raw("close_range", first, kept - 1)
        first = kept + 1
    linux.raw("close_range", first, 0xFFFF_FFFF)


def _execute_init(main_child: int) -> None:
    """Become a program of a few hundred bytes that does the same: who has CAP_SYS_PTRACE in the container, and could
    look into process 1 whatever it forbids, finds nothing of the launcher's memory. Returns where that can't be.
    What descriptors there are, are closed by it.
    """
    empty, name, pid = bytearray(1), bytearray(b"init\0"), bytearray(b"%d\0" % main_child)
    argv = bytearray(program.WORD.pack(linux.address_of(name)) + bytes(8))
    envp = bytearray(program.WORD.pack(linux.address_of(pid)) + bytes(8))
    words = (linux.address_of(argv), linux.address_of(envp), linux.AT_EMPTY_PATH)
    linux.raw("execveat", program.INIT, linux.address_of(empty), *words)


def _reap(main_child: int) -> None:
    """Collect every zombie; the end of the main child is the end of init and so of the container. Those whom it leaves
    dead are collected before: an init that a command in a container has beside it leaves none to process 1.
    """
    status = linux.address_of(_STATUS)
    exit_status = -1
    while True:
        pid = linux.raw("wait4", -1, status, _WNOHANG)
        if pid <= 0:
            break
        if pid == main_child:
            ended = _STATUS[0] & 0x7F
            exit_status = 128 + ended if ended else _STATUS[1]
    if exit_status >= 0:
        os._exit(exit_status)


_PSEUDO = {program.FORK_INIT: fork_init, program.PASS: pass_on}
