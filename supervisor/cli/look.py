"""What containers are and do: inspect, top, diff."""

import json
import re
from functools import partial
from typing import Any

import click

from supervisor.cli import options, stacks
from supervisor.cli.table import readable, table
from supervisor.cli.together import check, side_by_side
from supervisor.client import name_in_path
from supervisor.errors import CommandError

_KINDS = "CAD"  # changed, added, deleted, as Docker numbers and names them


def _path(container: stacks.Listed, what: str) -> str:
    return f"/containers/{name_in_path(str(container['id']))}/{what}"


def _each(
    stack: stacks.Stack, chosen: list[stacks.Listed], what: str, **query: object
) -> tuple[list[tuple[str, Any]], list[Any]]:
    done, errors = side_by_side(lambda container: stack.client.get(_path(container, what), **query), chosen)
    return [(str(container["id"]), answer) for container, answer in done], list(errors)


@click.command()
@options.on_stack
@options.ids
@click.option("--format", "template", metavar="TEMPLATE", help="A line for each: '{{.Name}} {{.State.Pid}}'.")
def inspect(stack: stacks.Stack, ids: tuple[str, ...], *, template: str | None) -> None:
    """Print all that is known of containers.

    A JSON array, as Docker has it.
    """
    done, errors = _each(stack, stacks.selected(stack.containers(), ids), "json")
    answers = [answer for _, answer in done]
    if template in {None, "json"}:
        click.echo(json.dumps(answers, indent=4))
    else:
        for answer in answers:
            click.echo(_PLACE.sub(partial(_found, answer), str(template)))
    check(errors)


_PLACE = re.compile(r"\{\{\s*(json\s+)?((?:\.\w+)+|\.)\s*\}\}")  # what people use of Go's templates, as a rule


def _found(answer: object, place: re.Match[str]) -> str:
    """The value that a path such as `.State.Pid` leads to. CommandError."""
    for key in filter(None, place[2].split(".")):
        if not isinstance(answer, dict) or key not in answer:
            raise CommandError(f"--format: there is no {place[2]}: `pysup inspect` shows what there is")
        answer = answer[key]
    if isinstance(answer, str) and not place[1]:
        return readable(answer)
    return json.dumps(answer)


@click.command()
@options.on_stack
@options.ids
@click.option("-o", "--columns", metavar="COLUMNS", help="Which: as ps -o has them, such as pid,comm,etime,rss.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object: ids, and their processes.")
def top(stack: stacks.Stack, ids: tuple[str, ...], columns: str | None, *, as_json: bool) -> None:
    """List the processes of containers."""
    containers = stack.containers()
    chosen = stacks.selected(containers, ids) if ids else [each for each in containers if each["running"]]
    done, errors = _each(stack, chosen, "top", **({} if columns is None else {"ps_args": f"-o {columns}"}))
    if as_json:
        found = {
            name: [dict(zip(answer["Titles"], row, strict=True)) for row in answer["Processes"]]
            for name, answer in done
        }
        click.echo(json.dumps(found, indent=2))
    elif done:
        rows = [[name, *map(readable, row)] for name, answer in done for row in answer["Processes"]]
        click.echo(table(["NAME", *done[0][1]["Titles"]], rows), nl=False)
    check(errors)


@click.command()
@options.on_stack
@options.one_id
@click.option("--json", "as_json", is_flag=True, help="A JSON array, as Docker has it.")
def diff(stack: stacks.Stack, id_: str, *, as_json: bool) -> None:
    """List what a container has changed of its files."""
    found = stack.client.get(_path(stacks.single(stack, id_), "changes")) or []
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        lines = (f"{_KINDS[each['Kind']]} {readable(each['Path'])}\n" for each in found)
        click.echo("".join(lines), nl=False)
