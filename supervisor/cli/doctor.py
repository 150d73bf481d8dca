"""`pysup doctor`: what this host offers, what is missing, and what that costs."""

import json
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli import options
from supervisor.cli.apart import apart
from supervisor.cli.table import readable, table

if TYPE_CHECKING:
    from runtime.host import Finding

FATAL = "fatal"
Row = tuple[str, str, str, str]  # name, verdict, found, cost


@click.command()
@options.state
@click.option("--json", "as_json", is_flag=True, help="A JSON array: name, verdict, found, cost.")
@click.pass_context
def doctor(context: click.Context, *, state: Path, as_json: bool) -> None:
    """Say what this host offers, and what is missing.

    Each missing part is told with what it costs. Everything is tried, in processes and namespaces of its own; nothing
    is changed. The exit status is 1 if no container can start here.
    """
    rows = list(_rows(state.absolute()))
    click.echo(_as_json(rows) if as_json else _as_text(rows), nl=False)
    if any(verdict == FATAL for _, verdict, _, _ in rows):
        context.exit(1)


def _rows(state: Path) -> Iterator[Row]:
    from runtime.host import Trial, trials  # noqa: PLC0415 (seccomp's tables and all)

    for trial in (*trials(state, _user_namespace()), Trial("ids", _ids)):
        finding = apart(trial.make)()
        yield trial.name, str(finding.verdict), finding.found, finding.cost
        if trial.basic and finding.verdict == FATAL:
            return


def _user_namespace() -> int | None:
    """One that only this descriptor keeps; None if there can't be one."""
    from runtime.host import offer  # noqa: PLC0415 (the same)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        apart(partial(offer, theirs))()
        theirs.shutdown(socket.SHUT_WR)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        return next(iter(descriptors), None)


def _ids() -> "Finding":
    from runtime.host import Finding, Verdict  # noqa: PLC0415 (the same)
    from supervisor.state import ids  # noqa: PLC0415 (for this one trial)

    count = ids.room()
    if not count:
        cost = f"userns: auto has none to give: let {ids.OWNER} have a range in /etc/subuid and in /etc/subgid"
        return Finding(Verdict.MISSING, "no block of 65,536 ids is free", cost)
    return Finding(Verdict.OK, f"for {count:,} containers with userns: auto")


def _as_json(rows: Sequence[Row]) -> str:
    keys = ("name", "verdict", "found", "cost")
    return json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2) + "\n"


def _as_text(rows: Sequence[Row]) -> str:
    """A table of what there is, and below it what is to be done."""
    shown = table(("CHECK", "", "FOUND"), [(name, verdict, readable(found)) for name, verdict, found, _ in rows])
    lacking = [(name, cost) for name, verdict, _, cost in rows if verdict != "ok"]
    said = "".join(f"{name}: {readable(cost)}\n" for name, cost in lacking)
    return f"{shown}\n{said or 'nothing is missing'}".rstrip("\n") + "\n"
