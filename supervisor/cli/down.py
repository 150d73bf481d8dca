"""`pysup down`: stop a stack, or all of them.

It is asked at its control socket. One that does not answer there is sent a signal, if the lock of its state directory
tells who it is. Either way this returns when its supervisor's process has ended, and so nothing of it is left.
"""

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

import click

from runtime import pidfd
from supervisor.cli import options, stacks
from supervisor.cli.together import check, side_by_side
from supervisor.errors import CommandError, GoneError, StackError
from supervisor.state.home import Home, remove_volumes, running


@click.command()
@options.named("-s", "--stack")
@options.state
@options.run_dir
@click.option("-t", "--timeout", "timeout_s", type=options.Seconds(), metavar="SECONDS", help="Kill it after this.")
@click.option("--all", "every", is_flag=True, help="All stacks that run.")
@click.option("-v", "--volumes", is_flag=True, help="Remove its volumes too, whether it runs or not.")
def down(
    name: str | None, *, state: Path, run_dir: Path | None, timeout_s: float | None, every: bool, volumes: bool
) -> None:
    """Stop a stack, wherever it was started.

    Its containers get their stop signals and grace periods, dependents before what they depend on, as after a Ctrl-C.
    Returns when nothing of it is left, but for its volumes.
    """
    if every and name is not None:
        raise click.UsageError(f"--all means every stack, and {name} only one of them")
    run = str(options.run_of(state, run_dir))
    there = _supervisors(run, state)
    if volumes and name is not None and name not in there and Home.of_stack(state, name).volumes.is_dir():
        remove_volumes(Home.of_stack(state, name))
        return
    chosen = list(there) if every else [_chosen(run, there, name)]

    def end(each: str) -> None:
        _end(each, there[each], stacks.Stack(run, each), timeout_s)
        if volumes:
            remove_volumes(Home.of_stack(state, each))

    _, errors = side_by_side(end, chosen)
    check(errors)


def _supervisors(run: str, state: Path) -> dict[str, int]:
    """The stacks that run, and the pids of their supervisors."""
    found = running(state) if os.geteuid() == 0 else {}
    for stack in stacks.running(run):
        with suppress(GoneError):
            found[stack.name] = stack.client.server_pid()
    return found


def _chosen(run: str, there: dict[str, int], name: str | None) -> str:
    if name is None and len(there) == 1:
        return next(iter(there))
    if name is not None and name in there:
        return name
    raise stacks.unclear(run, name, list(there))


def _end(name: str, pid: int, stack: stacks.Stack, timeout_s: float | None) -> None:
    descriptor = pidfd.opened(pid)
    if descriptor is None:
        return
    try:
        try:
            if stack.client.server_pid() == pid:
                stack.client.post("/pysup/down")
        except (CommandError, StackError):
            _send(name, descriptor, signal.SIGTERM)
        if not _ended(descriptor, timeout_s):
            # The first may count as the request that it is, the second kills: see up. Two of a kind could become one.
            _send(name, descriptor, signal.SIGTERM)
            _send(name, descriptor, signal.SIGINT)
            _ended(descriptor, None)
    finally:
        os.close(descriptor)


def _send(name: str, descriptor: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise StackError(f"stack {name}: only its owner may kill it: run it with sudo") from error


def _ended(descriptor: int, limit_s: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if limit_s is None else limit_s * 1000))
