"""Containers: which there are, what they are, and up and down with them."""

import re
import signal
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

import anyio

from supervisor.api import changes, networks
from supervisor.api.call import Call, now
from supervisor.api.columns import columns
from supervisor.api.creation import check_name
from supervisor.api.errors import RefusedError, bad, conflict
from supervisor.api.files import shown_mounts
from supervisor.api.http import NOTHING, UNCHANGED, Answer, Answering, Reply, Stream, encoded, shown
from supervisor.api.queries import Filters, has_labels, moment, passes
from supervisor.api.shapes import exit_code_of, inspection, is_running, labels_of, state_of, summary
from supervisor.commands import Commands, View
from supervisor.core.states import HealthStatus
from supervisor.errors import CommandError, ConflictError, NoSuchContainerError

FILTERS = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since status volume".split()
)
STATES = frozenset("created running paused restarting removing exited dead".split())
HEALTHS = frozenset({"none", *HealthStatus})
CONDITIONS = frozenset({"", "not-running", "next-exit", "removed"})

# --- which there are -------------------------------------------------------------------------------------------------


async def every(call: Call) -> Answering:
    """`docker ps`."""
    query, commands, at = call.query, call.commands, now()
    filters = query.filters(FILTERS)
    _check(filters)
    views = sorted(commands.views(), key=lambda view: view.created_at, reverse=True)
    found = [view for view in views if _passes(view, filters, commands)]
    limit = query.number("limit") or 0
    if not (query.truth("all") or limit > 0 or filters.keys() & {"status", "exited"}):
        found = [view for view in found if is_running(view)]
    if limit > 0:
        found = found[:limit]
    if not query.truth("size"):
        return shown([summary(commands.name, view, at) for view in found])
    return shown([summary(commands.name, view, at, await _size(call, view)) for view in found])


def _check(filters: Filters) -> None:
    """Values that can't be met are faults, as with Docker."""
    for state in filters.get("status", ()):
        if state not in STATES:
            raise bad(f"invalid filter 'status={state[:100]}'")
    for health in filters.get("health", ()):
        if health not in HEALTHS:
            raise bad(f"Unrecognised filter value for health: {health[:100]}")
    for name in ("publish", "expose"):
        for wanted in filters.get(name, ()):
            networks.ports(wanted)
    for code in filters.get("exited", ()):
        if not re.fullmatch(r"-?\d{1,9}", code, re.ASCII):
            raise bad(f"invalid filter 'exited={code[:100]}'")


def _passes(view: View, filters: Filters, commands: Commands) -> bool:
    tests: Mapping[str, Callable[[str], bool]] = {
        "id": view.key.startswith,
        "name": lambda wanted: _named(view.id, wanted),
        "status": lambda wanted: state_of(view) == wanted,
        "ancestor": lambda wanted: wanted.removesuffix(":latest") == view.image.removesuffix(":latest"),
        "exited": lambda wanted: state_of(view) == "exited" and exit_code_of(view) == int(wanted),
        "health": lambda wanted: (view.health or "none") == wanted,
        "network": lambda wanted: _is_in(commands.name, view, wanted),
        "publish": lambda wanted: _has_port(view, wanted, "host"),
        "expose": lambda wanted: _has_port(view, wanted, "container"),
        "volume": lambda wanted: any(
            wanted in (mount.get("Name"), mount["Source"], mount["Destination"]) for mount in shown_mounts(view.config)
        ),
        "isolation": lambda wanted: wanted in {"", "default"},
        "before": lambda wanted: view.created_at < commands.find(wanted).created_at,
        "since": lambda wanted: view.created_at > commands.find(wanted).created_at,
        "is-task": lambda wanted: wanted in {"false", "0"},
    }
    return passes(filters, tests, labels_of(commands.name, view))


def _is_in(stack: str, view: View, wanted: str) -> bool:
    """By the network's name, or its id."""
    return any(wanted in (name, shape["NetworkID"]) for name, shape in networks.endpoints(stack, view).items())


def _has_port(view: View, wanted: str, side: str) -> bool:
    low, high, protocol = networks.ports(wanted)
    return any(each.protocol == protocol and low <= getattr(each, side) <= high for each in view.connections.ports)


def _named(name: str, wanted: str) -> bool:
    """Docker takes a regular expression, which may begin with the slash that it puts before names."""
    try:
        return any(re.search(wanted, each) for each in (name, f"/{name}"))
    except re.error:
        return wanted in name


async def inspect(call: Call) -> Answering:
    """`docker inspect`."""
    view = call.container()
    size = await _size(call, view) if call.query.truth("size") else None
    return shown(inspection(call.commands.name, view, size, tuple(call.api.executions.of(view.key))))


async def _size(call: Call, view: View) -> tuple[int, int]:
    """What it has written, and that with its image."""
    written = await call.api.aside(changes.size_bytes, call.commands.upper(view.id))
    image = await call.api.aside(call.api.images.size_bytes, view.image)
    return written, written + image


async def top(call: Call) -> Answering:
    """`docker top`."""
    view = _running(call)
    chosen = columns(call.query.text("ps_args"))
    processes = await call.commands.processes(view.id)
    rows = [[each.get(name, "-") for _, name in chosen] for _, each in processes]
    return shown({"Titles": [title for title, _ in chosen], "Processes": rows})


async def diff(call: Call) -> Answering:
    """`docker diff`."""
    view = call.container()
    upper = call.commands.upper(view.id)
    if upper is None and view.config.memory_bytes is not None and is_running(view):
        raise conflict(f"{view.id} writes to memory (`storage: memory`), where nobody sees what has changed")
    if upper is None:
        async with call.commands.files(view.id):  # has it begun yet, or is what it had written gone?
            pass
    found = await call.api.aside(
        changes.changes,
        upper,
        view.config.lowers,
        [*changes.OWN, *(mount.target for mount in view.config.mounts)],
    )
    return shown([{"Path": each.path, "Kind": each.kind} for each in found])


# --- up and down -----------------------------------------------------------------------------------------------------


async def start(call: Call) -> Answering:
    """`docker start`."""
    view = call.container()
    if view.paused:
        raise conflict(f"container {view.id} is paused: unpause it")
    if is_running(view):
        return UNCHANGED
    try:
        await call.commands.start(view.id)
    except ConflictError as error:
        raise _not_started(str(error)) from error
    return NOTHING


def _not_started(message: str) -> RefusedError:
    """Docker's command line looks for these words, and exits with 127 then. A bad command is the caller's own fault."""
    if "not found in the image" in message:
        return bad(f"{message} (executable file not found)")
    return bad(message) if "not executable" in message else conflict(message)


async def stop(call: Call) -> Answering:
    """`docker stop`. `t` is the grace period; -1 is for ever."""
    view = call.container()
    grace_s = _grace_s(call)
    if not is_running(view) and not view.wanted_up:
        return UNCHANGED
    await call.commands.stop(view.id, grace_s)
    return NOTHING


async def restart(call: Call) -> Answering:
    """`docker restart`."""
    view = call.container()
    await call.commands.restart(view.id, _grace_s(call))
    return NOTHING


def _grace_s(call: Call) -> float | None:
    given = call.query.number("t")
    if given is None:
        return None
    return FOREVER_S if given < 0 else float(given)


FOREVER_S = 10 * 365 * 86400.0


async def kill(call: Call) -> Answering:
    """`docker kill`."""
    view = call.container()
    number = signal_number(call.query.text("signal") or "KILL")
    if not is_running(view):
        raise conflict(f"cannot kill container: {view.id}: container {view.key} is not running")
    call.commands.kill(view.id, number)
    return NOTHING


def signal_number(text: str) -> int:
    """`9`, `KILL`, `SIGKILL`, `RTMIN+3`. RefusedError."""
    word = text.upper().removeprefix("SIG")
    base, plus, offset = word.partition("+")
    if base == "RTMIN" and plus and offset.isascii() and offset.isdigit() and len(offset) < 3:
        word = str(int(signal.SIGRTMIN) + int(offset))
    if word.isascii() and word.isdigit() and len(word) < 3:
        number = int(word)
    else:
        number = int(signal.Signals.__members__.get(f"SIG{word}", 0))
    if not 0 < number <= signal.SIGRTMAX:
        raise bad(f"invalid signal: {text[:100]}")
    return number


async def pause(call: Call) -> Answering:
    """`docker pause`."""
    view = _running(call)
    if view.paused:
        raise conflict(f"container {view.id} is already paused")
    await call.commands.pause(view.id)
    return NOTHING


async def unpause(call: Call) -> Answering:
    """`docker unpause`."""
    view = call.container()
    if not view.paused:
        raise conflict(f"container {view.id} is not paused")
    await call.commands.unpause(view.id)
    return NOTHING


async def resize(call: Call) -> Answering:
    """The size of its terminal."""
    view = _running(call)
    rows, columns = window(call)
    call.commands.resize(view.id, rows, columns)
    return Answer()


def window(call: Call) -> tuple[int, int]:
    """`h` and `w`. RefusedError."""
    rows, columns = call.query.number("h"), call.query.number("w")
    return sides(rows, columns)


def sides(rows: object, columns: object) -> tuple[int, int]:
    """As a terminal takes them: struct winsize has 16 bits for each (TIOCSWINSZ(2const)). RefusedError."""
    if not (isinstance(rows, int) and isinstance(columns, int) and 0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise bad(f"a window of {rows} rows and {columns} columns makes no sense")
    return rows, columns


def _running(call: Call) -> View:
    view = call.container()
    if not is_running(view):
        raise conflict(f"container {view.id} is not running")
    return view


async def wait(call: Call) -> Answering:
    """`docker wait`. The head is sent at once: `docker run` takes it that the wait has begun, and starts it then."""
    view = call.container()
    condition = call.query.text("condition")
    if condition not in CONDITIONS:
        raise bad(f"invalid condition: {condition[:100]!r}")

    async def write(reply: Reply) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reply.begin)  # which runs when the wait has begun, not before
            try:
                status = await call.commands.wait(view.id, condition or "not-running")
                answer: Mapping[str, object] = {"StatusCode": status}
            except CommandError as error:
                answer = {"StatusCode": -1, "Error": {"Message": str(error)}}
        await reply.send(encoded(answer))

    return Stream(write)


# --- coming and going ------------------------------------------------------------------------------------------------


async def rename(call: Call) -> Answering:
    """`docker rename`."""
    view = call.container()
    name = call.query.text("name").removeprefix("/")
    if not name:
        raise bad("neither old nor new names may be empty")
    check_name(name)
    if name == view.id:
        raise bad("Renaming a container with the same name as its current name")
    await call.commands.rename(view.id, name)
    return NOTHING


async def remove(call: Call) -> Answering:
    """`docker rm`. It has no links."""
    view = call.container()
    if call.query.truth("link"):
        raise RefusedError(
            HTTPStatus.NOT_IMPLEMENTED, "links are not offered by pysup: remove the container as a whole"
        )
    force = call.query.truth("force")
    if is_running(view) and not force and not view.managed:  # else there is something worse to say
        raise conflict(
            f'cannot remove container "/{view.id}": container is running: stop the container before removing or '
            "force remove"
        )
    await call.commands.remove(view.id, force=force, volumes=call.query.truth("v"))
    return NOTHING


async def prune(call: Call) -> Answering:
    """`docker container prune`: of what the spec does not have, all that has ended."""
    filters = call.query.filters({"until", "label", "label!"})
    gone: list[str] = []
    freed = 0
    for view in _prunable(call.commands, filters, now()):
        freed += await call.api.aside(changes.size_bytes, call.commands.upper(view.id))
        try:
            await call.commands.remove(view.id)
        except (NoSuchContainerError, CommandError):  # somebody else was quicker, or has started it
            continue
        gone.append(view.key)
    return shown({"ContainersDeleted": gone, "SpaceReclaimed": freed})


def _prunable(commands: Commands, filters: Filters, at: float) -> Iterable[View]:
    until = [moment("until", each, at) for each in filters.get("until", ())]
    without = filters.get("label!", ())
    for view in commands.views():
        labels = labels_of(commands.name, view)
        old = all(view.created_at < each for each in until)
        chosen = has_labels(labels, filters.get("label", ())) and not (without and has_labels(labels, without))
        if not view.managed and state_of(view) in {"created", "exited", "dead"} and old and chosen:
            yield view
