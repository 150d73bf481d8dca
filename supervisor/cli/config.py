"""`pysup config` and `pysup schema`: what a spec comes to, and what a spec may say."""

import click

from supervisor import spec
from supervisor.cli import options


@click.command()
@options.spec_source
@click.option("--origins", is_flag=True, help="Tell of each line where its value came from.")
@click.option("--no-deps", is_flag=True, help="Of the containers named, show no dependencies.")
def config(source: options.Source, ids: tuple[str, ...], *, origins: bool, no_deps: bool) -> None:
    """Check a spec and print it with its defaults.

    All of it, or the containers with these IDs.

    It comes out complete: every key of every container, with the value that it has, whichever file or variable it is
    from. A container with replicas is one entry. Images are not looked for.
    """
    found = source.load()
    if ids:
        found = found.selected(ids, with_dependencies=not no_deps)
    click.echo(spec.with_origins(found) if origins else spec.resolved(found), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of a spec.

    Editors check a spec against it, and complete its keys.
    """
    click.echo(spec.schema(), nl=False)
