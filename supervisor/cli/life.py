"""Up and down with containers of a stack that runs: start, stop, restart, kill, pause, unpause, wait.

Without an ID all are meant. They are asked side by side, in the spec's order, or in the reverse of it where they are to
end; each that is done is printed, and each that can't be is told, after which the exit status is 1.
"""

import json
from collections.abc import Callable, Sequence

import click

from supervisor.cli import options, stacks
from supervisor.cli.together import check, side_by_side
from supervisor.client import name_in_path

_timeout = click.option(
    "-t",
    "--timeout",
    "timeout_s",
    type=options.Seconds(whole=True),
    metavar="SECONDS",
    help="Its grace period, before SIGKILL.",
)


def _ask(stack: stacks.Stack, chosen: Sequence[stacks.Listed], verb: str, **query: object) -> None:
    def ask(container: stacks.Listed) -> None:
        stack.client.post(f"/containers/{name_in_path(str(container['id']))}/{verb}", **query)

    done, errors = side_by_side(ask, chosen)
    click.echo("".join(f"{container['id']}\n" for container, _ in done), nl=False)
    check(errors)


def _which(stack: stacks.Stack, ids: tuple[str, ...], fits: Callable[[stacks.Listed], object]) -> list[stacks.Listed]:
    """Those that are named; or all of which it makes sense."""
    containers = stack.containers()
    return stacks.selected(containers, ids) if ids else [each for each in containers if fits(each)]


@click.command()
@options.on_stack
@options.ids
def start(stack: stacks.Stack, ids: tuple[str, ...]) -> None:
    """Start containers that were stopped, or have ended.

    Without IDs, all of these.
    """
    _ask(stack, _which(stack, ids, lambda each: not each["running"]), "start")


@click.command()
@options.on_stack
@options.ids
@_timeout
def stop(stack: stacks.Stack, ids: tuple[str, ...], *, timeout_s: int | None) -> None:
    """Stop containers. They stay down until they are started; the stack goes on.

    Without IDs, all. `pysup down` ends the stack.
    """
    _ask(stack, _which(stack, ids, bool)[::-1], "stop", t=timeout_s)


@click.command()
@options.on_stack
@options.ids
@_timeout
def restart(stack: stacks.Stack, ids: tuple[str, ...], *, timeout_s: int | None) -> None:
    """Stop containers and start them anew.

    Without IDs, all.
    """
    _ask(stack, _which(stack, ids, bool), "restart", t=timeout_s)


@click.command()
@options.on_stack_by_long_name
@options.ids
@click.option(
    "-s",
    "--signal",
    type=options.Signal(),
    metavar="SIGNAL",
    default="SIGKILL",
    show_default=True,
    help="A name or a number.",
)
def kill(stack: stacks.Stack, ids: tuple[str, ...], *, signal: str) -> None:
    """Send a signal to containers.

    Without IDs, to all that run. After SIGKILL they stay down until they are started.
    """
    _ask(stack, _which(stack, ids, lambda each: each["running"])[::-1], "kill", signal=signal)


@click.command()
@options.on_stack
@options.ids
def pause(stack: stacks.Stack, ids: tuple[str, ...]) -> None:
    """Freeze all processes of containers, where they stand.

    Without IDs, of all that run.
    """
    _ask(stack, _which(stack, ids, lambda each: each["state"] == "running"), "pause")


@click.command()
@options.on_stack
@options.ids
def unpause(stack: stacks.Stack, ids: tuple[str, ...]) -> None:
    """Let frozen containers go on.

    Without IDs, all of these.
    """
    _ask(stack, _which(stack, ids, lambda each: each["state"] == "paused"), "unpause")


@click.command()
@options.on_stack
@options.ids
@click.option("--json", "as_json", is_flag=True, help="A JSON object: ids, and exit statuses.")
def wait(stack: stacks.Stack, ids: tuple[str, ...], *, as_json: bool) -> int:
    """Wait until containers have ended for good.

    Without IDs, all. Their exit statuses are printed, in the order given. Exits with the first of these that is not 0.
    """

    def ended(container: stacks.Listed) -> int:
        answer = stack.client.post(f"/containers/{name_in_path(str(container['id']))}/wait")
        return int(answer["StatusCode"])

    done, errors = side_by_side(ended, stacks.selected(stack.containers(), ids))
    if as_json:
        click.echo(json.dumps({str(container["id"]): status for container, status in done}))
    else:
        click.echo("".join(f"{status}\n" for _, status in done), nl=False)
    check(errors)
    return next((status for _, status in done if status), 0)
