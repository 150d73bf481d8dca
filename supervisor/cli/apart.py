"""Work done in a child process, whose memory goes with it: only the result comes back.

What checks a spec (pydantic, YAML, the schema's types) takes 15 MiB that a supervisor would carry for as long as it
runs, and time in which it can load its own parts. So the command line forks, once, while it is small and has one
thread; the supervisor that it becomes never does.
"""

import os
import pickle
import sys
from collections.abc import Callable
from typing import TypeVar

from runtime.errors import PysupError

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
            raise PysupError("the process that reads the spec died: see its messages above")
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
