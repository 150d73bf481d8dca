"""Work that may wait for a disk or the kernel, in a thread: the loop goes on meanwhile."""

import errno
import os
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

T = TypeVar("T")


async def aside(work: Callable[..., T], *arguments: object, limiter: anyio.CapacityLimiter | None = None) -> T:
    """What it returns. OSError too where there can't be one more thread: containers may have used up all processes that
    we may have together.
    """
    try:
        return await to_thread.run_sync(work, *arguments, limiter=limiter)
    except RuntimeError as error:
        if str(error) != "can't start new thread":
            raise
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
