"""Which stacks run, which one is meant, and which of its containers.

A stack that runs has a control socket, RUN/STACK/pysup.sock: that is all these commands know of it, and all they need.
One that nobody answers at was left by a killed supervisor, and counts for nothing. `pysup ps` goes through here with
nothing else loaded, so this keeps to what loads in no time.
"""

import os
from collections.abc import Iterable, Sequence

from supervisor.cli.words import did_you_mean, shortened
from supervisor.client import Client
from supervisor.errors import NoSuchContainerError, StackError

RUN = "/run/pysup"
STATE = "/var/lib/pysup"
RUN_VARIABLE = "PYSUP_RUN"
STATE_VARIABLE = "PYSUP_STATE"
SOCKET = "pysup.sock"
NAMES_MAX = 5  # in a message

Listed = dict[str, object]  # a container: see /pysup/ps


class NotThereError(NoSuchContainerError):
    """The user has named something that the stack does not have."""

    exit_status = 1


class Stack:
    """One that may run."""

    def __init__(self, run: str, name: str) -> None:
        self.name = name
        self.client = Client(socket_of(run, name))

    def containers(self) -> list[Listed]:
        """All of them, in the spec's order. StackError if it does not run."""
        found: list[Listed] = self.client.get("/pysup/ps")
        return found


def run_directory(state: str | None = None) -> str:
    """Where control sockets are if --run does not say it: beside the state, if --state does; else as the environment
    has it, or beside the state that it names.
    """
    if state is not None:
        return run_beside(state)
    state = os.environ.get(STATE_VARIABLE)
    return os.environ.get(RUN_VARIABLE) or (run_beside(state) if state else RUN)


def run_beside(state: str) -> str:
    """The directory of the control sockets of all stacks with this state directory."""
    path = os.path.abspath(state)  # noqa: PTH100 (see above)
    return RUN if path == STATE else f"{path}/run"


def socket_of(run: str, name: str) -> str:
    """Where a stack is asked."""
    return f"{run}/{name}/{SOCKET}"


def known(run: str) -> list[Stack]:
    """All that have a socket, by name. StackError if one may not look."""
    try:
        names = sorted(os.listdir(run))  # noqa: PTH208 (pathlib takes longer to load than all else here)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StackError(f"{run}: {error.strerror}; give another with --run DIR") from error
    return [Stack(run, name) for name in names if _may_be(socket_of(run, name))]


def _may_be(socket: str) -> bool:
    """Is it there? Also if one may not look: whoever asks it is told so."""
    try:
        os.stat(socket)  # noqa: PTH116 (see above)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def running(run: str) -> list[Stack]:
    """Those of them where somebody listens."""
    return [stack for stack in known(run) if stack.client.answers()]


def chosen(run: str, name: str | None) -> Stack:
    """The one of this name, or else the only one. StackError that lists those there are."""
    there = running(run)
    if name is None and len(there) == 1:
        return there[0]
    for stack in there:
        if stack.name == name:
            return stack
    raise unclear(run, name, [stack.name for stack in there])


def unclear(run: str, name: str | None, there: Sequence[str]) -> StackError:
    """Not one of those there are is meant, or none there is."""
    said = "which stack? " if name is None else f"stack {shortened(name)} does not run; "
    if there:
        return StackError(f"{said}running: {', '.join(there)}" + ("; name one with --stack" if name is None else ""))
    return StackError(
        f"{said}no stack runs with its socket in {run}; after `up --state DIR` give --state DIR here, too"
    )


# --- its containers --------------------------------------------------------------------------------------------------


def selected(containers: Sequence[Listed], words: Iterable[str]) -> list[Listed]:
    """Those that are named, each once; all, if no word is given. NotThereError that tells of every word."""
    wanted = tuple(words)
    if not wanted:
        return list(containers)
    found: dict[object, Listed] = {}
    faults = []
    for word in wanted:
        try:
            found |= {each["id"]: each for each in _named(containers, word)}
        except NotThereError as error:
            faults.append(str(error))
    if faults:
        raise NotThereError("\n".join(faults))
    return list(found.values())


def single(stack: Stack, word: str) -> Listed:
    """The one container that a word names. NotThereError."""
    found = _named(stack.containers(), word)
    if len(found) > 1:
        raise NotThereError(f"{word}: which of them? {_shortened(each['id'] for each in found)}")
    return found[0]


def _named(containers: Sequence[Listed], word: str) -> list[Listed]:
    """By its id; by the id in the spec, which is all its replicas; or by a beginning of either, or of its key."""
    for name in ("id", "group"):
        if exact := [each for each in containers if each[name] == word]:
            return exact
    near = [each for each in containers if word and any(str(each[name]).startswith(word) for name in ("id", "key"))]
    if not near:
        raise NotThereError(f"{shortened(word)}: no such container; {_others(containers, word)}")
    if len({each["group"] for each in near}) == 1 and (len(near) == 1 or str(near[0]["group"]).startswith(word)):
        return near
    raise NotThereError(f"{word} is ambiguous: {_shortened(each['id'] for each in near)}")


def _others(containers: Sequence[Listed], word: str) -> str:
    names = {str(each[key]): None for each in containers for key in ("group", "id")}
    return f"there are {_shortened(each['id'] for each in containers)}{did_you_mean(word, names)}"


def _shortened(names: Iterable[object]) -> str:
    listed = list(map(str, names))
    more = f" and {len(listed) - NAMES_MAX} more" if len(listed) > NAMES_MAX else ""
    return (", ".join(listed[:NAMES_MAX]) or "none") + more
