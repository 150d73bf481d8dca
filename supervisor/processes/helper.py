"""Work that a running supervisor has done elsewhere: in an interpreter that is started for it, and ends with it.

Reading a spec takes pydantic, YAML and the schema's types: 15 MiB that a supervisor would carry from its first reload
on, and tenths of a second in which a thread would keep the loop from the interpreter. A supervisor never forks, so it
is posix_spawn(3) of a new one, as with the launchers. Question and answer are pickles in memory files: nothing is read
in pieces, and the end of the process says that the answer is there.
"""

import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio

from runtime import spawn
from runtime.status import Exited, Status
from supervisor.errors import CommandError, StackError
from supervisor.processes.reaper import Exit, Reaper

LIMIT_S = 60.0  # a spec on a server that does not answer


class HelperError(CommandError):
    """An error of the helper's, as it was; and the files that it has looked at before."""

    def __init__(self, message: str, exit_status: int, found: tuple[str, ...]) -> None:
        super().__init__(message)
        self.exit_status = exit_status
        self.found = found


async def consult(reaper: Reaper, module: str, question: object, limit_s: float = LIMIT_S) -> Any:
    """What a module of ours answers. HelperError where it refuses, StackError where it gives no answer."""
    try:
        data = await _answered(reaper, module, question, limit_s)
    except OSError as error:  # descriptors, memory or processes are used up just now: what runs goes on
        raise StackError(f"the spec can't be read: {spawn.advise(error)}") from error
    result, refused = pickle.loads(data)  # noqa: S301 (our own child's)
    if refused is not None:
        raise HelperError(*refused)
    return result


async def _answered(reaper: Reaper, module: str, question: object, limit_s: float) -> bytes:
    with _memory("question") as request, _memory("answer") as answer:
        os.write(request, pickle.dumps(question, pickle.HIGHEST_PROTOCOL))
        os.lseek(request, 0, os.SEEK_SET)
        pid = spawn.start_python(module, request, answer)
        if await _end(pid, reaper.claim(pid), limit_s) != Exited(0):  # what is there may be half an answer
            raise StackError("the process that reads the spec died: see its messages")
        return os.pread(answer, os.fstat(answer).st_size, 0)


@contextmanager
def _memory(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _end(pid: int, ended: Exit, limit_s: float) -> Status:
    """See it to its end, whatever happens here."""
    try:
        with anyio.fail_after(limit_s):
            return await ended.wait()
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            _kill(pid, ended)
            await ended.wait()
        if isinstance(error, TimeoutError):
            raise StackError(f"the spec could not be read within {limit_s:g} s") from None
        raise


def _kill(pid: int, ended: Exit) -> None:
    """Our own child: until it is reaped, its pid is nobody else's."""
    if ended.status is None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
