"""`pysup gc`: what killed supervisors left, found and removed.

The next `up` of a stack does the same for that stack. This is for those that nobody starts again, and for whoever wants
to know. A stack whose lock is held runs, and is left alone; so is what a container wrote with `keep: true`. Logs
outlive their stack, however it ended: they go with `--logs`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import click

from supervisor.cli import options, stacks
from supervisor.errors import StackError
from supervisor.state.home import HeldError, Home, Left, clear, discard_logs, homes, is_held, left, locked

NOTHING = Left(0, ())


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one stack, or of a single container. `error`: why it is still there."""

    home: Home
    left: Left
    error: str | None = None
    socket: str | None = None  # this is what was found
    log_bytes: int | None = None  # of its logs, if they go

    @property
    def name(self) -> str:
        """As people call it."""
        kind = "stack" if self.home.path.parent.name == "stacks" else "container"
        return f"{kind} {self.home.path.name}"


@click.command()
@options.state
@options.run_dir
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Only say what there is.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, of what has left something.")
@click.option("--logs", is_flag=True, help="Remove the logs of all stacks that do not run, too.")
@click.pass_context
def gc(context: click.Context, *, state: Path, run_dir: Path | None, dry: bool, as_json: bool, logs: bool) -> None:
    """Remove what killed supervisors left.

    That is processes, cgroups, the directories of runs, and sockets. What runs is left alone, and so is what was
    written with keep: true, in volumes, and in logs without --logs. The exit status is 1 if something could not be
    removed.
    """
    options.need_root()
    findings = [found for home in homes(state) if (found := _dealt_with(home, dry=dry)) is not None]
    findings += _sockets(str(options.run_of(state, run_dir)), state, dry=dry)
    findings += _socketless(options.run_of(state, run_dir), state, dry=dry)
    if logs:
        findings += [found for home in homes(state) if (found := _without_logs(home, dry=dry)) is not None]
    click.echo(_as_json(findings) if as_json else _as_text(findings, dry=dry))
    if any(finding.error for finding in findings):
        context.exit(1)


def _dealt_with(home: Home, *, dry: bool) -> Finding | None:
    """None: nothing is left of it, or it runs."""
    try:
        return _found(home, left) if dry else _found(home, clear)
    except StackError as error:
        with suppress(StackError):
            return Finding(home, left(home) or NOTHING, str(error))
        return Finding(home, NOTHING, str(error))


def _sockets(run: str, state: Path, *, dry: bool) -> Iterator[Finding]:
    """Control sockets at which nobody listens. Whoever holds the stack's lock is about to."""
    for stack in stacks.known(run):
        home = Home.of_stack(state, stack.name)
        with nullcontext() if dry else suppress(HeldError), nullcontext() if dry else locked(home):
            if stack.client.answers() or (dry and is_held(home)):
                continue
            path = Path(stacks.socket_of(run, stack.name))
            if not dry:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # another stack's socket is there
                    path.parent.rmdir()
                    path.parent.parent.rmdir()
            yield Finding(home, NOTHING, socket=str(path))


def _socketless(run: Path, state: Path, *, dry: bool) -> Iterator[Finding]:
    """Directories made for a socket that never came, perhaps for want of room."""
    for folder in sorted(run.iterdir()) if run.is_dir() else ():
        home = Home.of_stack(state, folder.name)
        if not folder.is_dir() or any(folder.iterdir()) or is_held(home):  # who holds the lock is about to make it
            continue
        if not dry:
            with suppress(OSError):  # or was, just now
                folder.rmdir()
        yield Finding(home, NOTHING, socket=str(folder))
    if not dry:
        with suppress(OSError):  # another stack's socket is there
            run.rmdir()


def _without_logs(home: Home, *, dry: bool) -> Finding | None:
    """None: it has none, or it runs."""
    size_bytes = home.log_bytes()
    try:
        gone = home.logs.is_dir() and not is_held(home) if dry else discard_logs(home)
    except HeldError:
        return None
    except StackError as error:
        return Finding(home, NOTHING, str(error))
    return Finding(home, NOTHING, log_bytes=size_bytes) if gone else None


def _found(home: Home, look: Callable[[Home], Left | None]) -> Finding | None:
    found = look(home)
    return None if found is None else Finding(home, found)


def _as_text(findings: Sequence[Finding], *, dry: bool) -> str:
    return "\n".join(_lines(findings, dry=dry)) if findings else "nothing is left of any killed supervisor"


def _lines(findings: Sequence[Finding], *, dry: bool) -> Iterator[str]:
    for finding in findings:
        if finding.error is not None:
            yield f"{finding.name}: {finding.error}"
        else:
            logs = None if finding.log_bytes is None else f"its logs, {finding.log_bytes // 1024} KiB"
            what = finding.socket or logs or finding.left
            yield f"{finding.name}: {'would remove' if dry else 'removed'} {what}"


def _as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([_as_data(finding) for finding in findings], indent=2)


def _as_data(finding: Finding) -> dict[str, object]:
    return {
        "path": str(finding.home.path),
        "name": finding.home.path.name,
        "single": finding.home.path.parent.name == "single",
        "processes": finding.left.processes,
        "runs": list(finding.left.runs),
        "cgroups": finding.left.cgroups,
        "socket": finding.socket,
        "log_bytes": finding.log_bytes,
        "error": finding.error,
    }
