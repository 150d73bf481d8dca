"""`pysup up`: a stack in the foreground."""

import os
import sys
from functools import partial
from pathlib import Path

import anyio
import click

from runtime.errors import PysupError
from runtime.images.lookup import search_path
from supervisor import spec as specs
from supervisor.cli import options
from supervisor.compile import Images, compile_stack
from supervisor.events import LogFormat
from supervisor.lines import Ansi, layout_for, wants_colour
from supervisor.show import dry_run
from supervisor.state import Home
from supervisor.up import STARTS_MAX, Look
from supervisor.up import up as run_stack


@click.command()
@options.images
@options.state
@click.option("--scale", multiple=True, metavar="ID=N", help="Run N replicas of a container, whatever the spec says.")
@click.option("--dry-run", "dry", is_flag=True, help="Print the order and every step of each plan; start nothing.")
@click.option("--parallel", type=click.IntRange(1), default=STARTS_MAX, show_default=True, help="Starts at once.")
@click.option("--log-format", type=click.Choice(list(LogFormat)), default=LogFormat.TEXT, show_default=True)
@click.option("--ansi", type=click.Choice(list(Ansi)), default=Ansi.AUTO, show_default=True, help="Colours.")
@click.option("-v", "--verbose", is_flag=True, help="Tell of every start attempted, too.")
@click.argument("file", type=click.Path(path_type=Path))
def up(
    file: Path,
    *,
    images: Path | None,
    state: Path,
    scale: tuple[str, ...],
    dry: bool,
    parallel: int,
    log_format: LogFormat,
    ansi: Ansi,
    verbose: bool,
) -> int:
    """Run the stack in FILE in the foreground, until all is done or Ctrl-C.

    The first Ctrl-C stops it in reverse order, the second kills. The exit status is 1 if a container failed, else 0.
    """
    found = Images(search_path(file, images, Path.cwd()))
    spec = specs.load(file, found.check)
    spec = spec.scaled(dict(_scale(item) for item in scale))
    if dry:
        home = Home((state / "stacks" / spec.name).absolute())
        click.echo(dry_run(spec, compile_stack(spec, found, home)), nl=False)
        return 0
    options.need_root()
    options.raise_limits()
    colour = wants_colour(Ansi(ansi), os.environ, terminal=sys.stdout.isatty())
    layout = layout_for([each.id for each in spec.instances()], colour=colour)
    look = Look(LogFormat(log_format), layout, "debug" if verbose else "info")
    outcome = anyio.run(partial(run_stack, spec, found, state, look, parallel))
    return outcome.exit_status


def _scale(item: str) -> tuple[str, int]:
    name, _, number = item.rpartition("=")
    if not name or not number.isdecimal():
        raise PysupError(f"--scale {item}: expected ID=N, N being a number of replicas")
    return name, int(number)
