"""Options and checks that several commands share."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtime.errors import PysupError
from supervisor.cli import stacks
from supervisor.errors import StackError

if TYPE_CHECKING:
    from supervisor.spec import Spec
    from supervisor.spec.loader import Check

DEFAULT_STATE = Path(stacks.STATE)
PROFILES = "PYSUP_PROFILES"  # the environment's, separated by commas: those of the options come on top

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Seconds(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic from click 8.4 on
    """A length of time, from 0 on; `whole` ones where Docker's API has no others."""

    name = "seconds"

    def __init__(self, *, whole: bool = False) -> None:
        self._number = int if whole else float

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Seconds. BadParameter."""
        try:
            seconds = self._number(value)
        except ValueError:
            seconds = -1
        if not 0 <= seconds < float("inf"):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class Signal(click.ParamType):  # type: ignore[type-arg, unused-ignore]  # generic from click 8.4 on
    """A signal's name or number: the stack knows them, but takes an empty word for SIGKILL, as Docker's API has it."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The same. BadParameter."""
        word = str(value).strip()
        return word or self.fail("it is empty", param, ctx)


PATH = click.Path(readable=False, path_type=Path)  # whoever opens it says what is wrong with it

images = click.option(
    "--images",
    metavar="DIR",
    type=PATH,
    help="The images directory; default: images beside the spec's folder or in the working directory.",
)
state = click.option(
    "--state",
    metavar="DIR",
    type=PATH,
    envvar=stacks.STATE_VARIABLE,
    default=DEFAULT_STATE,
    show_default=True,
    help="Where upper layers and locks are.",
)


def named(*names: str, short_file: bool = True, default: str = "the only one that runs") -> Decorator:
    """Give a command `name`: of the stack that is meant, if one is; by itself, or by its file."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        short = [name for name in ("-f",) if "-s" in names and short_file]  # where -s is something else, both are long

        @click.option(*names, "name", metavar="NAME", help=f"Which stack; default: {default}.")
        @click.option(*short, "--file", "file", type=PATH, metavar="FILE", help="Which stack: that of this spec.")
        @wraps(command)
        def with_name(*arguments: Any, name: str | None, file: Path | None, **options: Any) -> Any:
            meant = Source((file,)).load().name if name is None and file is not None else name
            return command(*arguments, name=meant, **options)

        return with_name

    return decorate


def _sockets(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `run`: where the control sockets of stacks are, by itself, or by what was given to `up`."""

    @click.option("--state", metavar="DIR", help="The state directory of the stack, if `up` was given one.")
    @click.option("--run", metavar="DIR", help=f"Where control sockets are; default: {stacks.RUN}.")
    @wraps(command)
    def with_run(*arguments: Any, run: str | None, state: str | None, **options: Any) -> Any:
        return command(*arguments, run=run or stacks.run_directory(state), **options)

    return with_run


def _on_stack(*names: str) -> Decorator:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @_sockets
        @named(*names)
        @wraps(command)
        def with_stack(*arguments: Any, run: str, name: str | None, **options: Any) -> Any:
            return command(*arguments, stack=stacks.chosen(run, name), **options)

        return with_stack

    return decorate


on_stack = _on_stack("-s", "--stack")  # give a command `stack`: the one that is named, or else the only one that runs


def on_run_by_long_name(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `run_dir` and `name`, where -f is something else: the stack may not run any more."""
    with_both: Callable[..., Any] = run_dir(named("-s", "--stack", short_file=False)(command))
    return with_both


on_stack_by_long_name = _on_stack("--stack")  # where -s or -f is something else


def on_stacks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `run` and `name`: what is asked for may be of one stack, or of all."""
    with_both: Callable[..., Any] = _sockets(named("-s", "--stack", default="all that run")(command))
    return with_both


def complete_id(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The ids that a shell may offer; none, rather than an error."""
    try:
        run, state = (None if word is None else str(word) for word in map(context.params.get, ("run", "state")))
        stack = stacks.chosen(run or stacks.run_directory(state), context.params.get("name"))
        found = stack.containers()
    except PysupError:
        return []
    names = {str(each[key]): None for each in found for key in ("group", "id")}
    return [name for name in names if name.startswith(begun)]


ids = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=complete_id)
one_id = click.argument("id_", metavar="ID", shell_complete=complete_id)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a spec is to be read from, and which part of it."""

    files: tuple[Path, ...]
    profiles: tuple[str, ...] = ()
    env_file: Path | None = None

    def load(self, check: "Check | None" = None, seen: list[str] | None = None) -> "Spec":
        """Imported here: a command's help needs no YAML."""
        from supervisor.spec import load  # noqa: PLC0415 (slow to load)

        return load(self.files, check, env_file=self.env_file, profiles=self.profiles, seen=seen)


def spec_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `source` and `ids`: files by -f, and containers; or else a file, and then containers."""

    @click.argument("words", nargs=-1, metavar="[FILE] [ID]...")
    @click.option(
        "-f",
        "--file",
        "files",
        type=PATH,
        multiple=True,
        metavar="FILE",
        help="A spec; of several, each adds to those before it.",
    )
    @click.option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="NAME",
        help="Take in the containers of this profile; *: of all.",
    )
    @click.option(
        "--env-file",
        type=PATH,
        metavar="FILE",
        help="Take variables from this file, and not from .env beside the spec.",
    )
    @wraps(command)
    def with_source(
        *arguments: Any,
        words: tuple[str, ...],
        files: tuple[Path, ...],
        profiles: tuple[str, ...],
        env_file: Path | None,
        **options: Any,
    ) -> Any:
        if not files and not words:
            raise click.UsageError("Missing argument 'FILE'.")
        named, ids = (files, words) if files else ((Path(words[0]),), words[1:])
        return command(*arguments, source=Source(named, _profiles(profiles), env_file), ids=ids, **options)

    return with_source


def _profiles(chosen: tuple[str, ...]) -> tuple[str, ...]:
    inherited = os.environ.get(PROFILES, "").split(",")
    return (*chosen, *(name for word in inherited if (name := word.strip())))


run_dir = click.option(
    "--run",
    "run_dir",
    metavar="DIR",
    type=PATH,
    envvar=stacks.RUN_VARIABLE,
    help=f"Where control sockets are; default: {stacks.RUN}, or run in the --state directory if that is another one.",
)


def _group(_context: click.Context, _parameter: click.Parameter, word: str | None) -> int | None:
    """A name of the host's group(5), or a number."""
    if word is None:
        return None
    if word.isdecimal():
        return int(word)
    import grp  # noqa: PLC0415 (for this alone)

    try:
        return grp.getgrnam(word).gr_gid
    except KeyError:
        raise PysupError(f"--socket-group {word}: there is no such group on this host") from None


socket_group = click.option(
    "--socket-group",
    metavar="GROUP",
    callback=_group,
    help="Who may use the control socket, besides its owner: that is to be root, in what it can do.",
)


def run_of(state: Path, run_dir: Path | None) -> Path:
    """The directory of the control sockets of all stacks with this state directory."""
    if run_dir is not None:
        return run_dir.absolute()
    return Path(stacks.run_beside(str(state)))


def words(kind: type[StrEnum]) -> click.Choice[str]:
    """One of an enum's values (given the enum itself, click 8.2 and newer would want the members' names)."""
    return click.Choice([word.value for word in kind])


def need_root() -> None:
    """StackError for anybody else."""
    if os.geteuid() != 0:
        raise StackError("pysup needs root to make namespaces and mounts: run it with sudo")


def raise_limits() -> None:
    """As many descriptors as we may have. PysupError if they are too few to begin with."""
    from runtime.spawn import raise_descriptor_limit  # noqa: PLC0415 (loads much of the runtime)

    raise_descriptor_limit()
