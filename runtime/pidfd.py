"""A process that somebody may end at any time, by a descriptor: pidfd_open(2)."""

import errno
import os


def opened(pid: int) -> int | None:
    """None: it is gone. Older kernels say EINVAL of one that is just being reaped (Linux 6.1: kernel/fork.c)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in {errno.ESRCH, errno.EINVAL}:
            return None
        raise
