"""`pysup run`: one container in the foreground."""

import os
from pathlib import Path

import anyio
import click

from runtime.images.lookup import search_path
from supervisor import spec
from supervisor.cli import options
from supervisor.errors import StackError
from supervisor.state import locked
from supervisor.terminal import is_terminal


@click.command(context_settings={"allow_interspersed_args": False})
@options.images
@options.state
@click.option("-t/-T", "--tty/--no-tty", "tty", default=None, help="A terminal for it; default: if we have one.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable; NAME alone takes ours.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user: a number, or a name of the image.")
@click.option("-w", "--workdir", metavar="DIR", help="Start in this directory of the image.")
@click.option("--hostname", metavar="NAME", help="Its host name; default: ID.")
@click.option("--network", type=click.Choice(["host", "none"]), help="The host's network, or one with loopback only.")
@click.option("--storage", type=click.Choice(["disk", "memory"]), help="Where what it writes goes.")
@click.option("--storage-size", metavar="SIZE", help="The limit of --storage memory; default 64MiB.")
@click.option("--keep", is_flag=True, help="Keep what it writes, and go on with it at the next run.")
@click.option("--init", is_flag=True, help="Run a small init as process 1.")
@click.option("--cap-add", multiple=True, metavar="CAP", help="Add a capability, or ALL.")
@click.option("--cap-drop", multiple=True, metavar="CAP", help="Drop a capability, or ALL.")
@click.option("--privileged", is_flag=True, help="All capabilities, nothing masked. No sandbox.")
@click.option("--umask", metavar="OCTAL", help="Its file mode creation mask; default 022.")
@click.option("--rlimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Set a resource limit.")
@click.option("--stop-grace", metavar="DURATION", help="How long it may take to end on SIGTERM; default 10s.")
@click.argument("id")
@click.argument("image")
@click.argument("cmd", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    id: str,  # noqa: A002 (the argument's name on the command line)
    image: str,
    cmd: tuple[str, ...],
    *,
    images: Path | None,
    state: Path,
    tty: bool | None,
    env: tuple[str, ...],
    rlimit: tuple[str, ...],
    stop_grace: str | None,
    **given: object,
) -> int:
    """Run CMD in a container ID made from IMAGE, in the foreground.

    Its exit status is the command's, 128+n for signal n, 125 where pysup failed, 126 where CMD can't be executed, 127
    where it is not there. Ctrl-C is passed on; a second one kills.
    """
    options.need_root()
    container = spec.container(
        {
            "id": id,
            "image": image,
            "cmd": list(cmd),
            "env": dict(_variable(item) for item in env),
            "rlimits": dict(_limit(item) for item in rlimit),
            **({} if stop_grace is None else {"stop_grace_s": stop_grace}),
            **{key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value},
        }
    )
    return _run(container, images, state, _wants_terminal(tty))


def _wants_terminal(tty: bool | None) -> bool:
    if tty and not is_terminal():
        raise StackError("-t needs a terminal on standard input and output: leave it out, or give --no-tty")
    return is_terminal() if tty is None else tty


def _variable(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    return name, value if equals else os.environ.get(name, "")


def _limit(item: str) -> tuple[str, object]:
    name, _, value = item.partition("=")
    soft, colon, hard = value.partition(":")
    return name, {"soft": _number(soft), "hard": _number(hard)} if colon else _number(soft)


def _number(text: str) -> object:
    return int(text) if text.lstrip("-").isdecimal() else text


def _run(container: spec.Container, images: Path | None, state: Path, terminal: bool) -> int:
    from supervisor.compile import Images, compile_single  # noqa: PLC0415 (after the arguments are known to be right)
    from supervisor.single import run_single  # noqa: PLC0415

    found = Images(search_path(None, images, Path.cwd()))
    with locked(state, "single", container.id) as (home, _swept):
        config = compile_single(container, found, home, terminal=terminal)
        options.raise_limits()
        status = anyio.run(run_single, config, home.path, container.stop_grace_s, _complain)
        if container.keep:
            click.echo(f"pysup: kept what it wrote in {config.directory}/upper", err=True)
    return status.exit_status


def _complain(container: str, what: str) -> None:
    click.echo(f"pysup: {container}: {what}", err=True)
