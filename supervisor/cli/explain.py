"""What the user is told when something goes wrong: lines of one sentence, and an exit status."""

import errno
import sys
import traceback
from collections.abc import Iterator
from itertools import takewhile

import click

from runtime.errors import PysupError
from supervisor.cli.table import readable

FAILURE = 125  # pysup's own, as with Docker
# What no program can do anything about, wherever it meets it: no fault of ours to report.
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EROFS})


def explain(error: BaseException) -> int:
    """Say what went wrong, and return the exit status for it."""
    if "--debug" in takewhile(lambda word: word.startswith("-"), sys.argv[1:]):
        traceback.print_exception(error)
    leaves = list(_leaves(error))
    for leaf in leaves:
        for line in _lines(leaf):
            click.echo(f"pysup: {readable(line)}", err=True)  # it may name what a container has named
    return leaves[0].exit_status if len(leaves) == 1 and isinstance(leaves[0], PysupError) else FAILURE


def _scarce(error: OSError) -> str:
    """Where no path says which file system is full, it may be that of our own output."""
    if error.errno == errno.ENOSPC and error.filename is None:
        return "no space left to write to: is the device full that standard output goes to?"
    from runtime.advice import of_host  # noqa: PLC0415 (rare, and loads the plan)

    return f"{'' if error.filename is None else f'{error.filename}: '}{of_host(error.errno or 0)}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Task groups raise groups, of one error as a rule."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _lines(error: BaseException) -> list[str]:
    if isinstance(error, PysupError):
        return str(error).splitlines()
    if isinstance(error, OSError) and error.errno in _SCARCE:
        return [_scarce(error)]
    return [f"internal error: {type(error).__name__}: {error}; please report it with what pysup --debug shows"]
