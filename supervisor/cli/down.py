"""`pysup down`: stop a stack that runs in the background."""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

import click

from supervisor.cli import options
from supervisor.errors import StackError
from supervisor.state import running


@click.command()
@options.state
@click.option("-s", "--stack", metavar="NAME", help="Which stack; default: the only one that runs.")
@click.option("-t", "--timeout", "timeout_s", type=click.FloatRange(0), metavar="SECONDS", help="Kill it after this.")
def down(stack: str | None, *, state: Path, timeout_s: float | None) -> int:
    """Stop a stack, wherever it was started.

    Its containers get their stop signals and grace periods, dependents before what they depend on, as after a Ctrl-C.
    Returns when nothing of it is left.
    """
    options.need_root()
    name, pid = chosen(running(state), stack)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        if running(state).get(name) != pid:  # it ended, and its pid may be another's
            return 0
        _send(descriptor, signal.SIGTERM)
        if not _ended(descriptor, timeout_s):
            _send(descriptor, signal.SIGTERM)  # the second kills: see up
            _ended(descriptor, None)
    finally:
        os.close(descriptor)
    return 0


def chosen(stacks: dict[str, int], name: str | None) -> tuple[str, int]:
    """The stack that is meant, and its supervisor's pid. StackError that lists those there are."""
    if name is None and len(stacks) == 1:
        return next(iter(stacks.items()))
    if name is not None and name in stacks:
        return name, stacks[name]
    there = f"running: {', '.join(stacks)}" if stacks else "no stack runs"
    if name is not None:
        raise StackError(f"stack {name} does not run; {there}")
    raise StackError(f"which stack? {there}" + ("; name one with --stack" if stacks else ""))


def _send(descriptor: int, number: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _ended(descriptor: int, limit_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if limit_s is None else limit_s * 1000))
