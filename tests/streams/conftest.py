"""Pipes for the tests of the output path, which are gone afterwards."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def pipe() -> Iterator[Callable[[], tuple[int, int]]]:
    """Makes pipes, as (read, write); whichever ends are still open are closed at the end."""
    made: list[tuple[int, os.stat_result]] = []

    def make() -> tuple[int, int]:
        ends = os.pipe()
        made.extend((end, os.fstat(end)) for end in ends)
        return ends

    yield make
    for fd, inode in made:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(fd), inode):
                os.close(fd)
    for thread in threading.enumerate():
        if thread.name == "pysup console":  # freed by the closed pipe, where it was stuck
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.fixture
def full_pipe(pipe: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """A paused terminal: a pipe which takes not one byte more."""
    read, write = pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"." * 4096)
    os.set_blocking(write, True)
    return read, write
