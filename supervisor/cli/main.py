"""The command line: one group; each family of commands is loaded when one of it is called, for a quick start.

Whatever goes wrong, the user sees lines of one sentence, and an exit status: 125 when it was pysup's own failure, as
with Docker. `--debug` before the command shows where an error came from.
"""

import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from runtime.errors import PysupError
from supervisor import __version__
from supervisor.cli.explain import FAILURE, explain
from supervisor.cli.group import Group
from supervisor.cli.words import did_you_mean

INTERRUPTED = 130

_FAMILIES = {  # command: (module, attribute)
    "attach": ("supervisor.cli.exec_", "attach"),
    "completion": ("supervisor.cli.complete", "completion"),
    "config": ("supervisor.cli.config", "config"),
    "cp": ("supervisor.cli.copy", "cp"),
    "diff": ("supervisor.cli.look", "diff"),
    "doctor": ("supervisor.cli.doctor", "doctor"),
    "down": ("supervisor.cli.down", "down"),
    "events": ("supervisor.cli.events", "events"),
    "exec": ("supervisor.cli.exec_", "exec_"),
    "gc": ("supervisor.cli.gc", "gc"),
    "image": ("supervisor.cli.image", "image"),
    "import": ("supervisor.cli.importing", "importing"),
    "inspect": ("supervisor.cli.look", "inspect"),
    "kill": ("supervisor.cli.life", "kill"),
    "logs": ("supervisor.cli.logs", "logs"),
    "pause": ("supervisor.cli.life", "pause"),
    "ps": ("supervisor.cli.ps", "ps"),
    "reload": ("supervisor.cli.change", "reload"),
    "restart": ("supervisor.cli.life", "restart"),
    "run": ("supervisor.cli.run", "run"),
    "scale": ("supervisor.cli.change", "scale"),
    "schema": ("supervisor.cli.config", "schema"),
    "start": ("supervisor.cli.life", "start"),
    "stats": ("supervisor.cli.stats", "stats"),
    "stop": ("supervisor.cli.life", "stop"),
    "systemd": ("supervisor.cli.systemd", "systemd"),
    "top": ("supervisor.cli.look", "top"),
    "unpause": ("supervisor.cli.life", "unpause"),
    "up": ("supervisor.cli.up", "up"),
    "wait": ("supervisor.cli.life", "wait"),
}


_ELSEWHERE = {  # what other tools call it
    "build": "image create",
    "check": "config",
    "help": "--help",
    "images": "image ls",
    "list": "ps",
    "ls": "ps",
    "remove": "down",
    "rm": "down",
    "status": "ps",
    "version": "--version",
}


class LazyGroup(Group):
    """Imports a command's module only when that command is asked for."""

    elsewhere = _ELSEWHERE

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_FAMILIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _FAMILIES:
            return None
        module, attribute = _FAMILIES[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command


_EXAMPLES = """\b
Examples:
  pysup image create base --from-host --tools   make images/base of this host's programs
  pysup run c1 base echo hello world            one container, in the foreground
  pysup run c2 base sh                          the same with a terminal, if you have one
  pysup up stack.yaml                           all containers of a stack, supervised

\b
Exit statuses:
  0    all is well
  1    some of what was asked for could not be done, or a container has failed
  125  nothing could be done: a wrong option, a faulty file, no such stack
  run, exec and attach have those of the command in the container.

pysup COMMAND --help tells more."""


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_EXAMPLES
)
@click.version_option(__version__, prog_name="pysup", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback with every error.")
def pysup(*, debug: bool) -> None:
    """Run and supervise many Linux containers from one YAML file."""
    del debug  # read from the arguments when there is an error, of whatever command


def run() -> None:
    """The command line's whole life."""
    try:
        status = pysup.main(prog_name="pysup", standalone_mode=False)
        code = status if isinstance(status, int) else 0
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except SystemExit as error:  # click's: nobody reads what we write; or a word was completed
        code = int(error.code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = FAILURE
    except click.ClickException as error:
        code = explain(PysupError(_usage(error)))
    except BaseException as error:  # noqa: BLE001 (the last place: nobody shall see a traceback unasked)
        code = explain(error)
    _leave(code)


def _usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "pysup"
    text = _complaint(error)
    return f"{text}{' ' if text.endswith('?') else '; '}see {command} --help"


def _complaint(error: click.ClickException) -> str:
    """In our form, whichever click's is: on one line."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption):
        return f"no such option {error.option_name}{did_you_mean(error.option_name, error.possibilities or ())}"
    text = " ".join(error.format_message().removesuffix(".").split())
    text = text[:1].lower() + text[1:]
    if text.startswith("got unexpected") and context and any(each.name == "file" for each in context.command.params):
        text += ": which stack is said by -s NAME or -f FILE"
    return text


def _leave(code: int) -> None:
    """Exit without waiting for a thread that may be stuck in a write to a paused terminal."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
