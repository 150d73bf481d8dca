"""Changes of a stack that runs: how many replicas there are, and what its file says now."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from runtime.errors import PysupError
from supervisor.cli import options, stacks
from supervisor.errors import StackError


@click.command()
@options.on_stack
@click.argument("scales", nargs=-1, required=True, metavar="ID=N...", shell_complete=options.complete_id)
def scale(stack: stacks.Stack, scales: tuple[str, ...]) -> None:
    """Run N replicas of a container from now on.

    Until the stack ends, it is scaled again, or its file has another number than now and is reloaded. Returns when all
    of them are up.
    """
    _tell(stack.client.post("/pysup/scale", {"scales": _numbers(scales)}))


def _numbers(items: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for name, number in map(_scale, items):
        if numbers.setdefault(name, number) != number:
            raise PysupError(f"{name} is given two numbers, {numbers[name]} and {number}")
    return numbers


def _scale(item: str) -> tuple[str, int]:
    name, _, number = item.rpartition("=")
    if not name or not number.isdecimal():
        raise PysupError(f"{item}: expected ID=N, N being a number of replicas")
    return name, int(number)


@click.command()
@options.on_stack
@click.option("-n", "--dry-run", "dry", is_flag=True, help="Only print the difference.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object: text, changed, changes, failure.")
def reload(stack: stacks.Stack, *, dry: bool, as_json: bool) -> None:
    """Read the stack's file again, and change what differs.

    The difference is printed. New containers are started, removed ones stopped, changed ones replaced in the order of
    their dependencies, as their update says. Returns when that is done. A faulty file changes nothing.
    """
    _tell(stack.client.post("/pysup/reload", {"dry_run": dry}), as_json=as_json)


def _tell(answer: Mapping[str, Any], *, as_json: bool = False) -> None:
    text = str(answer["text"]).rstrip("\n") if answer["changed"] else "nothing has changed"
    click.echo(json.dumps(answer) if as_json else text)
    if answer.get("failure"):
        raise StackError(str(answer["failure"]))
