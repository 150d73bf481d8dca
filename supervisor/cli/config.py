"""`pysup config` and `pysup schema`: what a spec comes to, and what a spec may say."""

from pathlib import Path

import click

from supervisor import spec


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def config(file: Path) -> None:
    """Check the spec FILE and print it with every default filled in."""
    click.echo(spec.resolved(spec.load(file)), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of a spec, for editors."""
    click.echo(spec.schema(), nl=False)
