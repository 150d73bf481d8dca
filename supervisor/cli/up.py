"""`pysup up`: a stack in the foreground."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from runtime.errors import PysupError
from runtime.images.lookup import search_path
from supervisor.cli import options
from supervisor.cli.apart import apart
from supervisor.lines import Ansi, layout_for, wants_colour

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervisor.entry import Compiled

STARTS_MAX = 64  # runs between clone and execve at the same time, unless the user says otherwise


@click.command()
@options.images
@options.state
@click.option("--scale", multiple=True, metavar="ID=N", help="Run N replicas of a container, whatever the spec says.")
@click.option("--dry-run", "dry", is_flag=True, help="Print the order and every step of each plan; start nothing.")
@click.option(
    "--parallel", type=click.IntRange(1), metavar="N", default=STARTS_MAX, show_default=True, help="Starts at once."
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or a JSON object per line and event.",
)
@click.option(
    "--ansi",
    type=options.words(Ansi),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell of every start attempted, too.")
@click.argument("file", type=options.PATH)
def up(
    file: Path,
    *,
    images: Path | None,
    state: Path,
    scale: tuple[str, ...],
    dry: bool,
    parallel: int,
    log_format: str,
    ansi: str,
    verbose: bool,
) -> int:
    """Run a stack in the foreground.

    Starts the containers in FILE in the order of their dependencies, keeps them as their restart policies say, and
    ends when all are done. The first Ctrl-C (or SIGTERM) stops them in reverse order, the second kills.

    The exit status is 0; 1 if a container failed or had to be killed; 125 if the stack could not be run.
    """
    compiling = (file, search_path(file, images, Path.cwd()), state, dict(_scale(item) for item in scale))
    if dry:
        click.echo(apart(partial(_dry_run, *compiling))(), nl=False)
        return 0
    options.need_root()
    compiled = apart(partial(_compile, *compiling))
    look = Look(log_format == "json", Ansi(ansi), verbose=verbose)
    return _run(compiled, state, look, parallel)


class Look(NamedTuple):
    """How output is to look."""

    json: bool
    ansi: Ansi
    verbose: bool


def _run(compiled: "Callable[[], Compiled]", state: Path, look: Look, parallel: int) -> int:
    # Loaded while the child compiles, and only here: none of it is needed to refuse a faulty spec or to show a plan.
    import anyio  # noqa: PLC0415

    from supervisor import up as supervise  # noqa: PLC0415
    from supervisor.events import LogFormat  # noqa: PLC0415
    from supervisor.state import Home  # noqa: PLC0415

    stack = compiled()
    colour = wants_colour(look.ansi, os.environ, terminal=sys.stdout.isatty())
    options.raise_limits()
    shown = supervise.Look(
        LogFormat.JSON if look.json else LogFormat.TEXT,
        layout_for([entry.id for entry in stack.entries], colour=colour),
        "debug" if look.verbose else "info",
    )
    outcome = anyio.run(supervise.up, stack, Home.of_stack(state, stack.name), shown, parallel)
    return outcome.exit_status


def _compile(file: Path, path: tuple[Path, ...], state: Path, scales: dict[str, int]) -> "Compiled":
    """In a child: see apart.py."""
    from supervisor import spec  # noqa: PLC0415
    from supervisor.compile import Images, compile_stack  # noqa: PLC0415

    found = Images(path)
    return compile_stack(spec.load(file, found.check).scaled(scales), found, state)


def _dry_run(file: Path, path: tuple[Path, ...], state: Path, scales: dict[str, int]) -> str:
    from supervisor.show import dry_run  # noqa: PLC0415

    return dry_run(_compile(file, path, state, scales))


def _scale(item: str) -> tuple[str, int]:
    name, _, number = item.rpartition("=")
    if not name or not number.isdecimal():
        raise PysupError(f"--scale {item}: expected ID=N, N being a number of replicas")
    return name, int(number)
