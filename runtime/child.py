"""From clone to execve: the loop over the program, in the child.

It runs in a copy of the launcher's memory, and every page it writes to is copied by a fault: so it imports nothing, formats
nothing, and allocates next to nothing. The first call that fails is reported on the failure pipe as (index, errno); the pipe's
end of file without a report means that execve happened.

The same loop runs the program's prologue in the launcher, before clone. And here is the init that `init: true` asks for:
process 1 of the container, which waits for signals and children and for nothing else.
"""

import errno
import os

from runtime import linux, program

FAILED = 125  # the exit status of a child that could not reach execve; nobody but a debugger sees it

_errno = linux.errno_cell()


def run(linked: program.Linked, first: int, last: int) -> tuple[int, int]:
    """Make the calls [first, last); returns (index, errno) of the one that failed, (last, 0) when none did.

    The end of the program is a failure too: no candidate could be executed. Reported is the last error, or the one that says
    more than "not there", as execvp(3) does with EACCES.
    """
    syscall, unpack, memory, rules, results = (
        linux.syscall,
        program.CALL.unpack_from,
        linked.memory,
        linked.rules,
        linked.results,
    )
    forgiven = 0
    for index in range(first, last):
        words = unpack(memory, index * 56)
        if words[0] == program.FORK_INIT:
            result = fork_init(words[1], words[2])
        else:
            result = syscall(*words)
        rule = rules.get(index)
        if result < 0:
            error = _errno.value
            if rule is None or error not in rule[:4]:
                return index, error
            if forgiven in (0, errno.ENOENT, errno.ENOTDIR):
                forgiven = error
        elif rule is not None and rule[4] and result:
            return index, errno.ESRCH
        else:
            forgiven = 0
        for place in results.get(index, ()):
            program.store(memory, place, result)
    return (last - 1, forgiven) if last == linked.calls else (last, 0)


def main(linked: program.Linked, failure: int) -> None:
    """The child's whole life; never returns."""
    try:
        report = run(linked, linked.prologue, linked.calls)
        os.write(failure, program.FAILURE.pack(*report))
    finally:
        os._exit(FAILED)


# --- the container's init ----------------------------------------------------------------------------------------------

_ALL_SIGNALS = bytearray(b"\xff" * 8)
_STATUS = bytearray(4)
_NAME = bytearray(b"init\0")
_SIG_SETMASK = 2
_WNOHANG = 1


def fork_init(capset_header: int, capset_data: int) -> int:
    """Fork. Returns 0 in the child, which goes on with the program, -1 on failure; the parent stays as init."""
    signals = linux.address_of(_ALL_SIGNALS)
    # Blocked before the fork, so that no SIGCHLD and no stop signal is missed; a blocked signal stays pending even for a
    # process 1 that has no handler for it (signal(7), kernel/signal.c: sig_ignored).
    linux.syscall(linux.NR["rt_sigprocmask"], _SIG_SETMASK, signals, 0, 8, 0, 0)
    child = linux.syscall(linux.NR["clone"], linux.SIGCHLD, 0, 0, 0, 0, 0)
    if child > 0:
        try:
            _init(child, signals, capset_header, capset_data)
        finally:
            os._exit(FAILED)
    none = bytearray(8)
    linux.syscall(linux.NR["rt_sigprocmask"], _SIG_SETMASK, linux.address_of(none), 0, 8, 0, 0)
    return child


def _init(main_child: int, signals: int, capset_header: int, capset_data: int) -> None:
    syscall, nr = linux.syscall, linux.NR
    syscall(nr["close_range"], 0, 0xFFFF_FFFF, 0, 0, 0, 0)
    syscall(nr["prctl"], linux.PR_SET_NAME, linux.address_of(_NAME), 0, 0, 0, 0)
    linux.set_command_line(b"init")
    if syscall(nr["capset"], capset_header, capset_data, 0, 0, 0, 0) < 0:
        return
    wait, kill = nr["rt_sigtimedwait"], nr["kill"]
    while True:
        signal = syscall(wait, signals, 0, 0, 8, 0, 0)
        if signal == linux.SIGCHLD:
            _reap(main_child)
        elif signal > 0:
            syscall(kill, main_child, signal, 0, 0, 0, 0)


def _reap(main_child: int) -> None:
    """Collect every zombie; the end of the main child is the end of init and so of the container."""
    wait4, status = linux.NR["wait4"], linux.address_of(_STATUS)
    while True:
        pid = linux.syscall(wait4, -1, status, _WNOHANG, 0, 0, 0)
        if pid <= 0:
            return
        if pid == main_child:
            ended = _STATUS[0] & 0x7F
            os._exit(128 + ended if ended else _STATUS[1])
