"""`pysup systemd`: a unit file for a stack, so that it runs from boot on.

The unit says in comments why it has each line that one might want to change. All paths in it are absolute, and what was
found relative to the working directory will be found again: that is the unit's working directory too.
"""

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.errors import PysupError
from supervisor.cli import options
from supervisor.cli.explain import FAILURE
from supervisor.cli.writing import write_file

if TYPE_CHECKING:
    from supervisor.entry import Compiled

WATCHDOG_S = 30
MARGIN_S = 15  # beside the containers' own time to stop: for the clean-up of many at once

_TEXT = """\
# {title}
# Made by pysup systemd, of {files}.
# Make it again when the grace periods or the dependencies of the stack have changed.

[Unit]
Description=pysup stack {name}
After=network-online.target
Wants=network-online.target
RequiresMountsFor={needs}

[Service]
# pysup says itself when all containers are up. However long that takes: systemd must not end those that are up already.
Type=notify
NotifyAccess=main
TimeoutStartSec=infinity
WorkingDirectory={directory}
ExecStart={start}
# Read the stack file again, and change what differs.
ExecReload=/bin/kill -HUP $MAINPID
# A service has nothing of your shell's environment. Variables that the stack file uses go here:
#Environment=NAME=value

# The stack as a whole: its containers are restarted by pysup, as the stack file says. Status {failure}: it can't be run
# as it is, which another try would not change.
Restart=on-failure
RestartSec=1
RestartPreventExitStatus={failure}
# pysup tells systemd that it lives; if it hangs, it is started anew and sweeps what was left.
WatchdogSec={watchdog_s}

# Only pysup gets SIGTERM, and stops the containers in their order; what is left after the time below is killed.
KillMode=mixed
# The longest that the containers may take, one after the other: {takes_s} s. Then {margin_s} s for the clean-up.
TimeoutStopSec={stop_s}

# Cgroups of the containers are pysup's business, and so is what happens when one of them runs out of memory.
Delegate=yes
OOMPolicy=continue
# All processes of all containers count as this unit's; limit them in the stack file.
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


_EXAMPLES = """\b
Examples:
  pysup systemd stack.yaml -o /etc/systemd/system
  systemctl daemon-reload
  systemctl enable --now pysup-NAME"""


@click.command(epilog=_EXAMPLES)
@options.spec_source
@options.images
@options.state
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    type=options.PATH,
    help="Where to write it: a file, or a directory, for pysup-NAME.service in it; default: standard output.",
)
@click.option("--force", is_flag=True, help="Replace the output file.")
def systemd(
    source: options.Source,
    ids: tuple[str, ...],
    *,
    images: Path | None,
    state: Path,
    output: Path | None,
    force: bool,
) -> None:
    """Print a systemd unit that runs a stack.

    All of it, or the containers with these IDs and what they depend on.

    The spec is checked first: a unit of one that can't be run would fail at the next boot.
    """
    from supervisor.cli.up import Wish  # noqa: PLC0415 (slow to load)

    stack = Wish(source, images, state, {}, ids, no_deps=False, timeout_s=None).compile()
    text = unit(stack, Call(source, ids, images, state, Path.cwd(), _program()))
    if output is None:
        click.echo(text, nl=False)
        return
    write_file(output / unit_name(stack.name) if output.is_dir() else output, text, replace=force)


@dataclass(frozen=True, slots=True)
class Call:
    """How pysup is to be called. Paths may be from `directory`, which is absolute."""

    source: options.Source
    ids: tuple[str, ...]
    images: Path | None
    state: Path
    directory: Path
    program: tuple[str, ...]

    def words(self) -> Iterator[str]:
        """The whole command line."""
        yield from (*self.program, "up")
        if self.images is not None:
            yield from ("--images", self._path(self.images))
        if self.state != options.DEFAULT_STATE:
            yield from ("--state", self._path(self.state))
        if self.source.env_file is not None:
            yield from ("--env-file", self._path(self.source.env_file))
        for profile in self.source.profiles:
            yield from ("--profile", profile)
        for file in self.source.files:
            yield from ("-f", self._path(file))
        yield from self.ids

    def mounts(self) -> dict[str, None]:
        """Directories without which it can't run."""
        files = (self.directory / file for file in self.source.files)
        return dict.fromkeys(map(str, (*(file.parent for file in files), self.directory / self.state)))

    def _path(self, path: Path) -> str:
        return str(self.directory / path)


def unit(stack: "Compiled", call: Call) -> str:
    """The text of a unit."""
    from supervisor.reporting.systemd import stop_s  # noqa: PLC0415 (slow to load)

    takes_s = stop_s(stack.entries)
    return _TEXT.format(
        title=unit_name(stack.name),
        files=", ".join(_one_line(call.directory / file) for file in call.source.files),
        name=_literal(stack.name),
        needs=" ".join(map(_word, call.mounts())),
        directory=_literal(_one_line(call.directory)),
        start=_command(list(call.words())),
        failure=FAILURE,
        watchdog_s=WATCHDOG_S,
        takes_s=f"{takes_s:g}",
        margin_s=MARGIN_S,
        stop_s=ceil(takes_s) + MARGIN_S,
    )


def unit_name(stack: str) -> str:
    """What the unit of a stack is called."""
    return f"pysup-{stack}.service"


def _program() -> tuple[str, ...]:
    """The console script beside this interpreter; else the interpreter, told not to look in the working directory."""
    script = Path(sys.executable).parent / "pysup"
    return (str(script),) if script.exists() else (sys.executable, "-P", "-m", "supervisor")


def _command(words: Sequence[str]) -> str:
    """A command line as systemd.service(5) reads it: the program's path knows no variables, arguments do."""
    return " ".join((_word(words[0]), *(_word(word.replace("$", "$$")) for word in words[1:])))


def _word(text: str) -> str:
    """One word, in quotes if it has to be, and with no specifiers: systemd.syntax(7)."""
    escaped = _literal(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return escaped if shlex.quote(text) == text else f'"{escaped}"'


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _one_line(path: Path) -> str:
    if "\n" in str(path):
        raise PysupError(f"{str(path)!r}: a unit can't name a path with a line break in it: rename it")
    return str(path)
