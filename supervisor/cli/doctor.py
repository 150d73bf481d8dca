"""`pysup doctor`: what this host offers, what is missing, and what that costs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from supervisor.cli import options
from supervisor.cli.apart import apart
from supervisor.cli.table import readable, table

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
    from runtime.host import trials  # noqa: PLC0415 (seccomp's tables and all)

    for trial in trials(state):
        finding = apart(trial.make)()
        yield trial.name, str(finding.verdict), finding.found, finding.cost
        if trial.basic and finding.verdict == FATAL:
            return


def _as_json(rows: Sequence[Row]) -> str:
    keys = ("name", "verdict", "found", "cost")
    return json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2) + "\n"


def _as_text(rows: Sequence[Row]) -> str:
    """A table of what there is, and below it what is to be done."""
    shown = table(("CHECK", "", "FOUND"), [(name, verdict, readable(found)) for name, verdict, found, _ in rows])
    lacking = [(name, cost) for name, verdict, _, cost in rows if verdict != "ok"]
    said = "".join(f"{name}: {readable(cost)}\n" for name, cost in lacking)
    return f"{shown}\n{said or 'nothing is missing'}".rstrip("\n") + "\n"
