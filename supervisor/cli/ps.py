"""`pysup ps`: the containers of a stack, or of all stacks. What it shows is in listing.py, which needs no parser."""

import click

from supervisor.cli import options
from supervisor.cli.listing import Wish


@click.command()
@options.on_stacks
@click.option("-a", "--all", "every", is_flag=True, help="Also those that do not run.")
@click.option("-q", "--quiet", is_flag=True, help="Their ids only.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, with more than the table shows.")
@click.option(
    "--format", "template", metavar="TEMPLATE", help="table, json, or a line for each: '{{.Name}} {{.Status}}'."
)
def ps(run: str, name: str | None, *, every: bool, quiet: bool, as_json: bool, template: str | None) -> None:
    """List containers: of one stack, or of all that run.

    USERNS is shown where one has ids of its own: inside:outside:count.
    """
    wish = Wish(run, name, every=every, quiet=quiet, as_json=as_json, template=template)
    click.echo(wish.text(), nl=False)
