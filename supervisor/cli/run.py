"""`pysup run`: one container in the foreground."""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.images.lookup import search_path
from supervisor.cli import options
from supervisor.cli.apart import apart
from supervisor.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.config import ContainerConfig
    from supervisor import spec

# A fault names a key of the spec, as `ulimits.nofile: …`; whoever called `pysup run` wrote an option.
_FAULT = re.compile(r'(\w+)(?:\[\d+\]|\["(?:[^"\\]|\\.)*"\]|\.([\w.-]+))?(.*)', re.DOTALL)
_WRITTEN = {
    "id": "ID",
    "image": "IMAGE",
    "cmd": "CMD",
    "ulimits": "--ulimit",
    "volumes": "--volume",
    "devices": "--device",
    "sysctls": "--sysctl",
    "extra_hosts": "--add-host",
    "stop_grace_s": "--stop-grace",
}
_STORAGES = ("disk", "memory")  # supervisor/spec/terms.py has them, which is slow to load
_LIMITS = {"memory": "--memory", "cpus": "--cpus", "pids": "--pids-limit"}


@click.command(context_settings={"allow_interspersed_args": False})
@options.images
@options.state
@click.option("-t/-T", "--tty/--no-tty", "tty", default=None, help="A terminal for it; default: if we have one.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; NAME alone: as it is here.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Run as this user: a number, or a name of the image.")
@click.option("-w", "--workdir", metavar="DIR", help="Start in this directory; made if it is not there.")
@click.option("--hostname", metavar="NAME", help="Its host name; default: ID.")
@click.option("--network", type=click.Choice(["host", "none"]), help="The host's network, or one with loopback only.")
@click.option("--storage", type=click.Choice(_STORAGES), help="Where what it writes goes.")
@click.option("--storage-size", metavar="SIZE", help="The limit of --storage memory; default 64MiB.")
@click.option("--keep", is_flag=True, help="Keep what it writes, and go on with it at the next run.")
@click.option("--init", is_flag=True, help="Run a small init as process 1.")
@click.option("--cap-add", multiple=True, metavar="CAP", help="Add a capability, or ALL.")
@click.option("--cap-drop", multiple=True, metavar="CAP", help="Drop a capability, or ALL.")
@click.option("--privileged", is_flag=True, help="All capabilities, nothing masked. No sandbox.")
@click.option("--userns", type=click.Choice(["auto", "host"]), help="Ids of its own on the host, or the host's.")
@click.option("--seccomp", metavar="PROFILE", help="Its system calls: default, unconfined, or a profile's path.")
@click.option("--umask", metavar="OCTAL", help="Its file mode creation mask; default 022.")
@click.option("-m", "--memory", metavar="SIZE", help="The most memory that it may use, such as 256m.")
@click.option("--cpus", type=float, metavar="NUMBER", help="How many processors' time it may use, such as 1.5.")
@click.option("--pids-limit", type=int, metavar="NUMBER", help="How many processes and threads it may have.")
@click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Set a resource limit.")
@click.option(
    "-v", "--volume", "volumes", multiple=True, metavar="SOURCE:TARGET[:OPTIONS]", help="Mount a path, or a volume."
)
@click.option("--tmpfs", multiple=True, metavar="TARGET[:OPTIONS]", help="Mount memory of its own.")
@click.option("--read-only", is_flag=True, help="Make its root read-only.")
@click.option("--device", "devices", multiple=True, metavar="SOURCE[:TARGET[:rwm]]", help="Let it use a device.")
@click.option("--shm-size", metavar="SIZE", help="The size of /dev/shm; default 64MiB.")
@click.option("--sysctl", "sysctls", multiple=True, metavar="NAME=VALUE", help="Set a kernel parameter of its own.")
@click.option("--add-host", "extra_hosts", multiple=True, metavar="NAME=ADDRESS", help="Add to its /etc/hosts.")
@click.option("--dns", multiple=True, metavar="ADDRESS", help="Ask this name server.")
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
    ulimit: tuple[str, ...],
    memory: str | None,
    cpus: float | None,
    pids_limit: int | None,
    stop_grace: str | None,
    **given: object,
) -> int:
    """Run one container in the foreground.

    CMD runs in a container called ID, on top of IMAGE, and what it writes is gone afterwards. Options go before ID;
    all that follows IMAGE is CMD's.

    The exit status is CMD's; 128+n if signal n ended it; 125 if pysup failed; 126 if CMD can't be executed, 127 if it
    is not there. Ctrl-C is passed on; a second one kills.
    """
    options.need_root()
    entry = {
        "id": id,
        "image": image,
        "cmd": list(cmd),
        "env": _variables(env),
        "ulimits": dict(map(_limit, ulimit)),
        "limits": _present({"memory": memory, "cpus": cpus, "pids": pids_limit}),
        "stop_grace_s": stop_grace,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in given.items()},
    }
    return _run(apart(partial(_compiled, _present(entry), images, state, tty)), state)


def _present(given: Mapping[str, object]) -> dict[str, object]:
    """What was given."""
    return {key: value for key, value in given.items() if value is not None}


def _compiled(
    entry: Mapping[str, object], images: Path | None, state: Path, tty: bool | None
) -> "tuple[ContainerConfig, float]":
    """The container, and how long it may take to end. In a child: see apart.py."""
    from supervisor.compile.compiler import Images, compile_single  # noqa: PLC0415 (slow to load)
    from supervisor.state.home import Home  # noqa: PLC0415 (slow to load)

    container = _container(entry)
    found, home = Images(search_path(None, images, Path.cwd())), Home.of_single(state, container.id)
    return compile_single(container, found, home, terminal=_wants_terminal(tty)), container.stop_grace_s


def _container(entry: Mapping[str, object]) -> "spec.Container":
    from supervisor import spec  # noqa: PLC0415 (slow to load)

    try:
        return spec.container(entry)
    except spec.SpecError as error:
        raise spec.SpecError(_as_written(str(fault)) for fault in error.faults) from None


def _as_written(fault: str) -> str:
    """`--ulimit nofile: …` for `ulimits.nofile: …`."""
    found = _FAULT.fullmatch(fault)
    assert found is not None
    key, part, rest = found.groups()
    if key == "limits" and part:
        return f"{_LIMITS[part]}{rest}"
    return f"{_WRITTEN.get(key, '--' + key.replace('_', '-'))}{' ' + part if part else ''}{rest}"


def _wants_terminal(tty: bool | None) -> bool:
    from supervisor.streams.terminal import is_terminal  # noqa: PLC0415 (slow to load)

    if tty and not is_terminal():
        raise StackError("-t needs a terminal on standard input and output: leave it out, or give --no-tty")
    return is_terminal() if tty is None else tty


def _variables(items: tuple[str, ...]) -> dict[str, str]:
    """As docker does it: a bare name that we don't have either is left out."""
    given = {}
    for item in items:
        name, equals, value = item.partition("=")
        if equals or not name:
            given[name] = value
        elif name in os.environ:
            given[name] = os.environ[name]
    return given


def _limit(item: str) -> tuple[str, object]:
    name, equals, value = item.partition("=")
    if not equals:
        raise StackError(f"--ulimit {item}: expected NAME=SOFT[:HARD], such as nofile=1024:4096")
    soft, colon, hard = value.partition(":")
    return name, {"soft": _number(soft), "hard": _number(hard)} if colon else _number(soft)


def _number(text: str) -> object:
    return int(text) if text.removeprefix("-").isdecimal() else text


def _run(read: "Callable[[], tuple[ContainerConfig, float]]", state: Path) -> int:
    # Loaded while the child compiles.
    import anyio  # noqa: PLC0415 (slow to load)

    from supervisor.single import Single, run_single  # noqa: PLC0415 (slow to load)
    from supervisor.state.home import Home, locked  # noqa: PLC0415 (slow to load)

    config, stop_grace_s = read()
    home = Home.of_single(state, config.id)
    with locked(home):
        options.raise_limits()
        status = anyio.run(run_single, Single(config, home.path, stop_grace_s, _complain))
        if config.keep:
            click.echo(f"pysup: kept what it wrote in {config.directory}/upper", err=True)
    return status.exit_status


def _complain(container: str, what: str) -> None:
    click.echo(f"pysup: {container}: {what}", err=True)
