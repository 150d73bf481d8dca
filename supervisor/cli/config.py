"""`pysup config` and `pysup schema`: what a spec comes to, and what a spec may say."""

from pathlib import Path

import click

from supervisor import spec
from supervisor.cli import options


@click.command()
@click.argument("file", type=options.PATH)
def config(file: Path) -> None:
    """Check a spec and print it with its defaults.

    FILE comes out complete: every key of every container, with the value that it has. Images are not looked for.
    """
    click.echo(spec.resolved(spec.load(file)), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of a spec.

    Editors check a spec against it, and complete its keys.
    """
    click.echo(spec.schema(), nl=False)
