"""Looks for a pattern in what a container writes, within a limit: a container must not be able to hold up all others.

Python's regular expressions backtrack, so that there are patterns which take for ever at some line of a few bytes, and
many that take seconds at one of 64 KiB. But a search heeds signals while it is under way (CPython, Modules/_sre: it
calls PyErr_CheckSignals every 4096 steps), and so is ended by what a handler raises. The signal is that of a timer
which counts this process's own time only (setitimer(2)): being stopped, or a busy machine, ends no search.

The handler stays where it is, once it is there: a signal may come as late as it likes.
"""

import re
import signal
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

SEARCH_MAX_S = 0.1  # of processor time, for as much as is read at a time
SLOW_MAX = 10  # searches that took longer; then nothing is looked for any more


class Watch:
    """Looks for lines that match a regular expression: a line of either stream, without its newline, as bytes.

    Lines are looked at when they are read. While the console is behind (a paused pager), watched runs are read on until
    half of what may wait has gathered (`console.OVERDRAFT_MAX_BYTES`); from then on nothing is found.
    """

    __slots__ = ("_found", "_pattern", "_slow", "_told_slow", "matched")

    def __init__(
        self, pattern: str, found: Callable[[], None] | None = None, told_slow: Callable[[], None] | None = None
    ) -> None:
        """With `found`, which is called at the first match, it has seen enough then. `told_slow` is called at the first
        search that takes too long, and so passes for one without a match.
        """
        self._pattern = _compiled(pattern)
        self._found = found
        self._told_slow = told_slow
        self._slow = 0  # searches that took too long
        self.matched = False  # since it was last set to False: nothing is looked at meanwhile

    @property
    def given_up(self) -> bool:
        """Is nothing looked for any more, as that took too long too often?"""
        return self._slow >= SLOW_MAX

    def see(self, lines: bytes) -> bool:
        """Is it done with?"""
        if self.matched or not self._matches(lines):
            return self.given_up
        self.matched = True
        if self._found is None:
            return False
        self._found()
        return True

    def _matches(self, lines: bytes) -> bool:
        try:
            return _limit().any_matches(self._pattern, lines[:-1].split(b"\n"))
        except _TooSlowError:
            self._slow += 1
            if self._slow == 1 and self._told_slow is not None:
                self._told_slow()
            return False


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[bytes]:
    return re.compile(pattern.encode())


class _TooSlowError(Exception):
    """A search was ended."""


@cache
def _limit() -> "_Limit":
    """One for the process, as the timer is."""
    return _Limit()


class _Limit:
    """Of searches, one at a time, in the main thread: no other runs handlers of signals."""

    def __init__(self) -> None:
        self._searching = False
        signal.signal(signal.SIGVTALRM, self._end_search)

    def any_matches(self, pattern: re.Pattern[bytes], lines: Iterable[bytes]) -> bool:
        """Does any line? _TooSlowError if that takes too long."""
        self._searching = True
        signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_MAX_S)
        try:
            return any(map(pattern.search, lines))
        finally:
            self._searching = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _end_search(self, *_: object) -> None:
        if self._searching:
            raise _TooSlowError
