"""Work done in a child process: the one place that forks, while the command line is small and has one thread.

`apart`: only the result comes back, and the memory goes with the child. What checks a spec (pydantic, YAML, the
schema's types) takes 15 MiB that a supervisor would carry for as long as it runs, and time in which it can load its own
parts. `in_background`: the child goes on as the supervisor, in a session of its own, and the command line returns when
it says so. The supervisor itself never forks.
"""

import fcntl
import os
import pickle
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from runtime.errors import PysupError
from supervisor.cli.explain import explain
from supervisor.errors import StackError

Result = TypeVar("Result")


class ReportedError(PysupError):
    """An error of the child's, as it was."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def apart(work: Callable[[], Result]) -> Callable[[], Result]:
    """Start `work` in a child. What is returned waits for its result, or raises its PysupError."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _serve(work, writing)
    os.close(writing)

    def collect() -> Result:
        with open(reading, "rb") as pipe:  # noqa: PTH123 (a descriptor)
            answer = pipe.read()
        os.waitpid(pid, 0)
        if not answer:
            raise PysupError("a child of this command died: see its messages above")
        result, error = pickle.loads(answer)  # noqa: S301 (our own child's)
        if error is not None:
            raise ReportedError(*error)
        return result  # type: ignore[no-any-return]  # what `work` returned

    return collect


def _serve(work: Callable[[], object], writing: int) -> None:
    try:
        answer: tuple[object, tuple[str, int] | None]
        try:
            answer = work(), None
        except PysupError as error:
            answer = None, (str(error), error.exit_status)
        with open(writing, "wb") as pipe:
            pickle.dump(answer, pipe, pickle.HIGHEST_PROTOCOL)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except BaseException as error:  # noqa: BLE001 (said here, as it can't be in the parent)
        sys.stderr.write(f"pysup: internal error: {type(error).__name__}: {error}\n")
        if "--debug" in sys.argv:
            sys.excepthook(type(error), error, error.__traceback__)
        status = 1
    os._exit(status)


UP, NOT_UP = b"+", b"-"


@dataclass(frozen=True, slots=True)
class Parent:
    """The command line that waits for its child in the background: how to `tell` it, and where its user reads."""

    tell: Callable[[bool], None]
    output: int


def in_background(work: Callable[[Parent], int], limit_s: float | None = None) -> int:
    """Have `work` done in a session of its own. Returns its exit status if it ends; 0 or 1 once it has told
    us whether all went well: then it goes on, and none of our standard streams is its any
    more. Ctrl-C before that stops it. StackError if it has not said anything after `limit_s`; it goes on all the same.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _serve_in_background(work, writing, limit_s)
    os.close(writing)
    if answer := _await(reading, pid, limit_s):
        return int(answer != UP)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _await(reading: int, pid: int, limit_s: float | None) -> bytes:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    while True:
        try:
            if not poll.poll(None if limit_s is None else limit_s * 1000):
                raise StackError(f"not all is up after {limit_s:g} s; it goes on in the background, under pid {pid}")
            return os.read(reading, 1)
        except KeyboardInterrupt:
            os.kill(pid, signal.SIGTERM)  # our own child, not reaped yet; the second Ctrl-C kills, as in the foreground


def _serve_in_background(work: Callable[[Parent], int], writing: int, limit_s: float | None) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    # Under numbers that nobody inherits: else launchers and containers would keep the user's pipes open.
    shown, complaints = (fcntl.fcntl(stream, fcntl.F_DUPFD_CLOEXEC, 3) for stream in (1, 2))
    for stream in (0, 1, 2):
        os.dup2(null, stream)

    def let_go(*_: object) -> None:
        for stream in (shown, complaints):
            os.dup2(null, stream, inheritable=False)

    def tell(up: bool) -> None:
        let_go()
        with suppress(BrokenPipeError):  # the command line waits no more
            os.write(writing, UP if up else NOT_UP)
        os.close(writing)

    if limit_s is not None:  # by then the command line has ended, and who reads its output waits for the end of file
        signal.signal(signal.SIGALRM, let_go)
        signal.setitimer(signal.ITIMER_REAL, max(limit_s, 1e-6))
    try:
        status = work(Parent(tell, shown))
    except BaseException as error:  # noqa: BLE001 (said here, as it can't be in the parent)
        os.dup2(complaints, 2)
        status = explain(error)
        sys.stderr.flush()
    os._exit(status)
