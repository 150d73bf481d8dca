"""Network namespaces from inside: a thread makes one, or visits one, and comes back.

Only a thread that nobody else uses meanwhile may do so: what it opens in between is another network's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from runtime import linux

OWN = "/proc/thread-self/ns/net"


def opened() -> int:
    """The calling thread's own, as a descriptor."""
    return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


def make(home: int) -> int:
    """A new one, as a descriptor: it lasts as long as that, or a process in it. OSError."""
    linux.unshare_unlocked(linux.CLONE_NEWNET)
    try:
        return opened()
    finally:
        _return(home)


@contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Be in one, given by its descriptor or by a pidfd of who is in it. OSError if that has ended."""
    linux.setns(namespace, linux.CLONE_NEWNET)
    try:
        yield
    finally:
        _return(home)


def _return(home: int) -> None:
    """Going on in a container's network would be worse than any end."""
    try:
        linux.setns(home, linux.CLONE_NEWNET)
    except OSError as error:
        os.write(2, f"pysup: can't leave a container's network namespace: {error.strerror}\n".encode())
        os.abort()
