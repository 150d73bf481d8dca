"""The same asked about many containers, side by side: what came of each, and everything that went wrong."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Thread
from typing import TypeVar

from runtime.errors import PysupError

THREADS_MAX = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


class SomeFailedError(PysupError):
    """What was asked could not be done for all: a line for each that it could not be done for."""

    exit_status = 1


def side_by_side(
    work: Callable[[Item], Result], items: Sequence[Item]
) -> tuple[list[tuple[Item, Result]], list[PysupError]]:
    """What `work` returned of each, and the errors, both in the order of the items. Other exceptions are raised."""
    outcomes: list[Result | Exception | None] = [None] * len(items)
    waiting = deque(enumerate(items))

    def worker() -> None:
        while waiting:
            try:
                index, item = waiting.popleft()
            except IndexError:  # another took the last one
                return
            try:
                outcomes[index] = work(item)
            except Exception as error:  # noqa: BLE001 (raised below, in the thread that waits)
                outcomes[index] = error

    threads = [Thread(target=worker, daemon=True) for _ in range(min(THREADS_MAX, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for error in errors:
        if not isinstance(error, PysupError):
            raise error
    done = [
        (item, outcome) for item, outcome in zip(items, outcomes, strict=True) if not isinstance(outcome, Exception)
    ]
    return done, errors  # type: ignore[return-value]  # of all others it was raised above


def check(errors: Sequence[PysupError]) -> None:
    """SomeFailedError if there are any."""
    if errors:
        raise SomeFailedError("\n".join(map(str, errors)))
