"""`pysup exec` and `pysup attach`: one's own terminal, or pipes, joined to a container."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from os import environ, isatty

import click

from supervisor.cli import options, stacks
from supervisor.cli.session import PASSED_ON, Session, window
from supervisor.client import Client, name_in_path
from supervisor.errors import GoneError, StackError


@contextmanager
def _raw() -> Iterator[None]:
    from supervisor.streams.terminal import raw_mode  # noqa: PLC0415 (loads the loop's library)

    with raw_mode():
        yield


# --- exec ------------------------------------------------------------------------------------------------------------


_EXAMPLES = """\b
Examples:
  pysup exec web.1 sh                  a shell, with our terminal
  pysup exec -u 1000 db pg_dump app > app.sql"""


@click.command(context_settings={"allow_interspersed_args": False}, epilog=_EXAMPLES)
@options.on_stack
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on: it is, without this too.")
@click.option(
    "-t/-T", "--tty/--no-tty", "tty", default=None, help="With a terminal or without; default: if there is one."
)
@click.option("-d", "--detach", is_flag=True, help="Let it run, and return.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="A variable; NAME alone takes ours.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="As whom; default: the container's user.")
@click.option("-w", "--workdir", metavar="DIR", help="Where it starts; default: the container's.")
@click.option("--privileged", is_flag=True, help="With every capability.")
@options.one_id
@click.argument("cmd", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD...")
def exec_(
    stack: stacks.Stack,
    id_: str,
    cmd: tuple[str, ...],
    *,
    interactive: bool,
    tty: bool | None,
    detach: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    privileged: bool,
) -> int:
    """Run a command in a container that runs.

    The exit status is the command's; 128+n if signal n ended it; 125 if pysup failed; 126 if it can't be executed,
    127 if it is not there. Without a terminal, signals are passed on; a second Ctrl-C ends it.
    """
    del interactive  # for those who are used to give it
    has_terminal = isatty(0) and isatty(1)
    if tty and not has_terminal and not detach:
        raise StackError("-t needs a terminal on standard input and output: leave it out, or give -T")
    terminal = has_terminal and not detach if tty is None else tty
    container = stacks.single(stack, id_)
    attached = not detach
    asked = stack.client.post(
        f"/containers/{name_in_path(str(container['id']))}/exec",
        {
            "Cmd": list(cmd),
            "Env": [*([f"TERM={environ['TERM']}"] if terminal and "TERM" in environ else []), *_variables(env)],
            "User": user or "",
            "WorkingDir": workdir or "",
            "Tty": terminal,
            "Privileged": privileged,
            "AttachStdin": attached,
            "AttachStdout": attached,
            "AttachStderr": attached,
        },
    )
    return _Execution(stack.client, asked["Id"], terminal=terminal).run(detach=detach)


def _variables(items: tuple[str, ...]) -> list[str]:
    """A bare name that we don't have either is left out."""
    return [item if "=" in item else f"{item}={environ[item]}" for item in items if "=" in item or item in environ]


class _Execution:
    """A command that was asked for."""

    def __init__(self, client: Client, key: str, *, terminal: bool) -> None:
        self._client = client
        self._key = key
        self._terminal = terminal

    def run(self, *, detach: bool) -> int:
        size = {"ConsoleSize": list(window())} if self._terminal and not detach else {}
        body = {"Detach": detach, "Tty": self._terminal, **size}
        if detach:
            self._client.post(f"/exec/{self._key}/start", body)
            return 0
        connection = self._client.hijack(f"/exec/{self._key}/start", body)
        with connection, _raw() if self._terminal else nullcontext():
            session = Session(connection, terminal=self._terminal, stdin=True)
            passed_on = (signal.SIGTERM, signal.SIGHUP) if self._terminal else PASSED_ON
            number = session.run(passed_on, self._signal, self._resize if self._terminal else None)
        return self._status() if number is None else 128 + number

    def _status(self) -> int:
        """0 if it runs on: it was detached from."""
        found = self._client.get(f"/exec/{self._key}/json")
        return 0 if found["Running"] else int(found["ExitCode"] or 0)

    def _signal(self, number: int) -> None:
        self._client.post(f"/pysup/exec/{self._key}/kill", signal=number)

    def _resize(self, rows: int, columns: int) -> None:
        self._client.post(f"/exec/{self._key}/resize", h=rows, w=columns)


# --- attach ----------------------------------------------------------------------------------------------------------


@click.command()
@options.on_stack
@options.one_id
@click.option("--detach-keys", metavar="KEYS", help="What leaves a terminal; default: ctrl-p,ctrl-q.")
@click.option("--no-stdin", is_flag=True, help="Only listen.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, show_default=True, help="Pass signals on.")
def attach(stack: stacks.Stack, id_: str, *, detach_keys: str | None, no_stdin: bool, sig_proxy: bool) -> int:
    """Join a container's streams.

    See what it writes, and type to it if it listens.

    Without a terminal of its own Ctrl-C is passed on to it, and a second one leaves. The exit status is its own, if it
    has ended meanwhile.
    """
    name = name_in_path(str(stacks.single(stack, id_)["id"]))
    client = stack.client
    found = client.get(f"/containers/{name}/json")
    config = found["Config"]
    if not (runs := found["State"]["Running"]):
        name_ = found["Name"].removeprefix("/")
        click.echo(f"pysup: {name_} does not run: its next start is waited for, Ctrl-C leaves", err=True)
    terminal, stdin = config["Tty"], config["OpenStdin"] and not no_stdin
    is_raw = terminal and stdin and isatty(0) and isatty(1)

    def resize(rows: int, columns: int) -> None:
        client.post(f"/containers/{name}/resize", h=rows, w=columns)

    def pass_on(number: int) -> None:
        client.post(f"/containers/{name}/kill", signal=number)

    query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "detachKeys": detach_keys}
    connection = client.hijack(f"/containers/{name}/attach", **query)
    with connection, _raw() if is_raw else nullcontext():
        if is_raw:
            resize(*window())
        session = Session(connection, terminal=terminal, stdin=stdin)
        passed_on = (signal.SIGTERM, signal.SIGHUP) if is_raw else PASSED_ON if sig_proxy and runs else ()
        number = session.run(passed_on, pass_on, resize if is_raw else None)
    if number is not None:
        return 128 + number
    try:
        state = client.get(f"/containers/{name}/json")["State"]
    except GoneError:  # the whole stack has ended
        return 0
    return 0 if state["Running"] else int(state["ExitCode"])
