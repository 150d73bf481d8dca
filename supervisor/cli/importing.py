"""`pysup import`: specs from what other tools read."""

from pathlib import Path

import click

from supervisor.cli import options
from supervisor.cli.group import Group
from supervisor.cli.writing import write_file
from supervisor.compose import convert


@click.group("import", cls=Group)
def importing() -> None:
    """Make a spec of what another tool reads."""


@importing.command()
@click.argument("file", type=options.PATH)
@click.option("-o", "--output", metavar="FILE", type=options.PATH, help="Where to write it; default: standard output.")
@click.option("--force", is_flag=True, help="Replace the output file.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if anything was dropped, or is missing.")
@click.pass_context
def compose(context: click.Context, file: Path, output: Path | None, *, force: bool, strict: bool) -> None:
    """Make a spec of a docker-compose file.

    What does not carry over is told on standard error, each with its place and what to do, and again at the top of the
    spec. Variables stay variables. No other file is read: import those under `include` and `extends` too.
    """
    converted = convert(str(file), None if output is None else str(output))
    if output is None:
        click.echo(converted.text, nl=False)
    else:
        write_file(output, converted.text, replace=force)
    for note in converted.notes:
        click.echo(note, err=True)
    if strict and not converted.complete:
        context.exit(1)
