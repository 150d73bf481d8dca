"""Changes of a stack that runs: how many replicas there are, and what its file says now."""

import json

import click

from runtime.errors import PysupError
from supervisor.cli import options, stacks


@click.command()
@options.on_stack
@click.argument("scales", nargs=-1, required=True, metavar="ID=N...", shell_complete=options.complete_id)
def scale(stack: stacks.Stack, scales: tuple[str, ...]) -> None:
    """Run N replicas of a container from now on.

    Until the stack ends, or is scaled again.
    """
    stack.client.post("/pysup/scale", {"scales": dict(map(_scale, scales))})


def _scale(item: str) -> tuple[str, int]:
    name, _, number = item.rpartition("=")
    if not name or not number.isdecimal():
        raise PysupError(f"{item}: expected ID=N, N being a number of replicas")
    return name, int(number)


@click.command()
@options.on_stack
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Only print the difference.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object: text, changed.")
def reload(stack: stacks.Stack, *, dry: bool, as_json: bool) -> None:
    """Read the stack's file again, and change what differs.

    The difference is printed. A faulty file changes nothing.
    """
    answer = stack.client.post("/pysup/reload", {"dry_run": dry})
    text = str(answer["text"])
    click.echo(json.dumps(answer) if as_json else text.rstrip("\n") or "nothing has changed")
