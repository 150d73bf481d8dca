"""`pysup up`: a stack in the foreground, or in the background."""

import os
import sys
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.errors import PysupError
from runtime.images.lookup import search_path
from supervisor.cli import options
from supervisor.cli.apart import Parent, apart, in_background
from supervisor.errors import StackError
from supervisor.streams.lines import Ansi, layout_for, wants_colour

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from supervisor.entry import Compiled, Reading, Scale

AGAIN = "supervisor.cli.again"  # the module that reads the spec of a running stack
STARTS_MAX = 64  # runs between clone and execve at the same time, unless the user says otherwise


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be run: a spec, of which part, with what changes."""

    source: options.Source
    images: Path | None
    state: Path
    scales: dict[str, int]
    ids: tuple[str, ...]
    no_deps: bool
    timeout_s: float | None
    run: Path | None = None  # where the control socket is to be
    socket_group: int | None = None  # who may use it, too

    @property
    def image_path(self) -> tuple[Path, ...]:
        """Where images are looked for."""
        return search_path(self.source.files[0], self.images, Path.cwd())

    def compile(self) -> "Compiled":
        """In a child: see apart.py."""
        return self.read(self.scales_wanted, []).stack

    @property
    def scales_wanted(self) -> "dict[str, Scale]":
        """As asked for on the command line."""
        from supervisor.entry import Scale  # noqa: PLC0415 (slow to load)

        return {name: Scale(number) for name, number in self.scales.items()}

    def read(self, scales: "Mapping[str, Scale]", seen: list[str]) -> "Reading":
        """All of it, with other numbers of replicas as far as they hold. `seen`: the files that say what it is, those
        that are missing included; they are there even if this fails.
        """
        from supervisor.compile.compiler import Images, compile_stack, named_files  # noqa: PLC0415 (slow to load)
        from supervisor.entry import Reading, Scale  # noqa: PLC0415 (slow to load)

        _stand_somewhere((*self.source.files, self.state, *([] if self.images is None else [self.images])))
        found = Images(self.image_path)
        spec = self.source.load(found.check, seen)
        seen += named_files(spec)
        own = {each.id: each.replicas for each in spec.containers}
        held = {
            name: Scale(scale.number, own.get(name))
            for name, scale in scales.items()
            if scale.instead_of in {None, own.get(name)}
        }
        spec = spec.scaled({name: scale.number for name, scale in held.items()})
        if self.ids:
            spec = spec.selected(self.ids, with_dependencies=not self.no_deps)
        stack = compile_stack(spec, found, self.state)
        stack = stack if self.timeout_s is None else _with_grace(stack, self.timeout_s)
        replicas = {each.id: own[each.id] for each in spec.containers}
        return Reading(stack, replicas, held, tuple(dict.fromkeys(seen)))


def _stand_somewhere(paths: "Sequence[Path | None]") -> None:
    """Months later the directory that the stack was started in may be gone. StackError if paths begin there."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        if not all(path is not None and path.is_absolute() for path in paths):
            raise StackError(
                "the directory that pysup was started in is gone, and its paths begin there: start it from another, or "
                "name the file from / on"
            ) from error
        os.chdir("/")


@dataclass(frozen=True, slots=True)
class Show:
    """How output is to look."""

    json: bool
    ansi: Ansi
    verbose: bool
    timestamps: bool
    prefix: bool
    quiet: bool = False  # events only: what the containers write is not shown


@click.command()
@options.spec_source
@options.images
@options.state
@options.run_dir
@options.socket_group
@click.option("--scale", multiple=True, metavar="ID=N", help="Run N replicas of a container, whatever the spec says.")
@click.option("--no-deps", is_flag=True, help="Of the containers named, start no dependencies.")
@click.option("--dry-run", "dry", is_flag=True, help="Print the order and every step of each plan; start nothing.")
@click.option("-d", "--detach", is_flag=True, help="Run in the background: return when it has begun.")
@click.option(
    "--wait", is_flag=True, help="Run in the background: return when all is ready and healthy, or has failed."
)
@click.option(
    "--wait-timeout", "wait_timeout_s", type=options.Seconds(), metavar="SECONDS", help="The longest to wait."
)
@click.option(
    "--abort-on-exit",
    "--abort-on-container-exit",
    is_flag=True,
    help="Stop all when one has ended, unless it has completed what others wait for.",
)
@click.option("--exit-code-from", metavar="ID", help="Exit with the status of this container; stops all when it ends.")
@click.option(
    "-t", "--timeout", "timeout_s", type=options.Seconds(), metavar="SECONDS", help="Grace period of every stop."
)
@click.option(
    "--parallel", type=click.IntRange(1), metavar="N", default=STARTS_MAX, show_default=True, help="Starts at once."
)
@click.option("-w", "--watch", is_flag=True, help="Reload when a file that the spec was read from changes.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines for people, or a JSON object per line and event.",
)
@click.option("--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("--no-log-prefix", "bare", is_flag=True, help="Show lines without their container's name.")
@click.option(
    "--ansi",
    type=options.words(Ansi),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell of every start attempted, too.")
def up(
    source: options.Source,
    ids: tuple[str, ...],
    *,
    images: Path | None,
    state: Path,
    run_dir: Path | None,
    socket_group: int | None,
    scale: tuple[str, ...],
    no_deps: bool,
    dry: bool,
    detach: bool,
    wait: bool,
    wait_timeout_s: float | None,
    abort_on_exit: bool,
    exit_code_from: str | None,
    timeout_s: float | None,
    parallel: int,
    watch: bool,
    log_format: str,
    timestamps: bool,
    bare: bool,
    ansi: str,
    verbose: bool,
) -> int:
    """Run a stack, or some containers of it.

    With IDs, only these and what they depend on. Starts the containers of FILE in the order of their dependencies,
    keeps them as their restart policies say, and ends when all are done. The first Ctrl-C (or SIGTERM) stops them in
    reverse order, the second kills. SIGHUP reloads, as `pysup reload` does.

    The exit status is 0; 1 if a container failed or had to be killed; 125 if the stack could not be run.
    """
    scales = dict(_scale(item) for item in scale)
    wish = Wish(source, images, state, scales, ids, no_deps, timeout_s, options.run_of(state, run_dir), socket_group)
    if dry:
        click.echo(apart(partial(_dry_run, wish))(), nl=False)
        return 0
    options.need_root()
    behind = detach or wait
    if behind and (abort_on_exit or exit_code_from):
        raise StackError("--abort-on-exit and --exit-code-from need a stack in the foreground: leave -d and --wait out")
    show = Show(log_format == "json", Ansi(ansi), verbose, timestamps, prefix=not bare, quiet=behind)
    conduct = Conduct(
        wish, show, parallel, abort_on_exit or exit_code_from is not None, exit_code_from, wait=wait, watch=watch
    )
    return in_background(conduct.run, wait_timeout_s) if behind else conduct.run(None)


@dataclass(frozen=True, slots=True)
class Conduct:
    """All that was asked for."""

    wish: Wish
    show: Show
    parallel: int
    abort_on_exit: bool
    exit_code_from: str | None
    wait: bool
    watch: bool = False

    def run(self, parent: "Parent | None") -> int:
        """The supervisor's whole life: the exit status. `parent`: whom to tell how the beginning went."""
        wish, show = self.wish, self.show
        read = apart(partial(wish.read, wish.scales_wanted, []))
        # Loaded while the child compiles, and only here: none is needed to refuse a faulty spec or to show a plan.
        import anyio  # noqa: PLC0415 (slow to load)

        from supervisor import up as supervise  # noqa: PLC0415 (slow to load)
        from supervisor.reporting.events import LogFormat  # noqa: PLC0415 (slow to load)
        from supervisor.state.home import Home  # noqa: PLC0415 (slow to load)

        reading = read()
        stack = reading.stack
        if self.exit_code_from is not None and self.exit_code_from not in {entry.group for entry in stack.entries}:
            raise StackError(f"--exit-code-from {self.exit_code_from}: no such container in the stack")
        options.raise_limits()
        colour = wants_colour(show.ansi, os.environ, terminal=sys.stdout.isatty())
        look = supervise.Look(
            LogFormat.JSON if show.json else LogFormat.TEXT,
            layout_for(
                [entry.id for entry in stack.entries],
                {entry.id: entry.output for entry in stack.entries},
                colour=colour,
                timestamps=show.timestamps,
                prefixes=show.prefix,
            ),
            "debug" if show.verbose else "info",
        )
        manner = supervise.Manner(
            self.parallel,
            self.abort_on_exit,
            self.exit_code_from,
            None if parent is None else parent.tell,
            wait=self.wait,
            shows_lines=not show.quiet,
            stays=parent is not None,
            console=1 if parent is None else parent.output,
            run_directory=wish.run,
            socket_group=wish.socket_group,
            images=wish.image_path,
            again=supervise.Again(AGAIN, wish),
            watch=self.watch,
        )
        outcome = anyio.run(supervise.up, reading, Home.of_stack(wish.state, stack.name), look, manner)
        return outcome.exit_status


def _dry_run(wish: Wish) -> str:
    from supervisor.compile.show import dry_run  # noqa: PLC0415 (slow to load)

    return dry_run(wish.compile())


def _with_grace(stack: "Compiled", grace_s: float) -> "Compiled":
    changed = cache(partial(replace, stop_grace_s=grace_s))  # one policy for all replicas, as before
    return replace(stack, entries=tuple(replace(each, policy=changed(each.policy)) for each in stack.entries))


def _scale(item: str) -> tuple[str, int]:
    name, _, number = item.rpartition("=")
    if not name or not number.isdecimal():
        raise PysupError(f"--scale {item}: expected ID=N, N being a number of replicas")
    return name, int(number)
