"""`pysup import`: specs from what other tools read."""

from pathlib import Path

import click

from runtime.errors import PysupError
from supervisor.cli import options
from supervisor.compose import convert


@click.group("import")
def importing() -> None:
    """Make a spec of what another tool reads."""


@importing.command()
@click.argument("file", type=options.PATH)
@click.option("-o", "--output", metavar="FILE", type=options.PATH, help="Where to write it; default: standard output.")
@click.option("--force", is_flag=True, help="Replace the output file.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if anything was dropped.")
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
        _write(output, converted.text, replace=force)
    for note in converted.notes:
        click.echo(note, err=True)
    if strict and not converted.complete:
        context.exit(1)


def _write(path: Path, text: str, *, replace: bool) -> None:
    try:
        with path.open("w" if replace else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PysupError(f"{path} is there already: --force replaces it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise PysupError(f"{path} can't be written: {reason}") from None
