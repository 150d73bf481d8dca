"""What containers of a stack wrote that does not run: read from its files, which outlive it however it ended.

Beside a stack that runs, this is for containers that it has no more.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from supervisor.cli.stacks import Listed
from supervisor.commands import LogLine
from supervisor.errors import StackError
from supervisor.logs.reader import Part, shelved
from supervisor.state.home import Home, homes


@dataclass(frozen=True, slots=True)
class Past:
    """The logs of a stack."""

    name: str
    directory: Path

    def containers(self) -> list[Listed]:
        """Those that have written something."""
        names = sorted(path.name for path in self.directory.iterdir() if path.is_dir())
        return [{"id": name, "group": _group(name), "key": ""} for name in names]

    def lines(self, ids: Iterable[str], part: Part) -> Iterator[tuple[str, LogLine]]:
        """Of these containers, the oldest first."""
        with ExitStack() as stack:
            readers = [_of(name, stack.enter_context(closing(shelved(self.directory / name, part)))) for name in ids]
            for _, name, line in heapq.merge(*readers, key=itemgetter(0)):
                yield name, line


def _of(name: str, lines: Iterable[LogLine]) -> Iterator[tuple[int, str, LogLine]]:
    return ((line.at_ns, name, line) for line in lines)


def _group(name: str) -> str:
    base, _, number = name.rpartition(".")
    return base if base and number.isdecimal() else name


def past(state: Path, name: str) -> Past | None:
    """None: it has left nothing."""
    directory = Home.of_stack(state, name).logs
    return Past(name, directory) if directory.is_dir() else None


def only(state: Path) -> Past | None:
    """That of the only stack that has logs. StackError that lists them, if there are several."""
    found = _all(state)
    if len(found) > 1:
        raise StackError(
            f"which stack? none runs, and there are logs of {', '.join(each.name for each in found)}; name one with "
            "--stack"
        )
    return found[0] if found else None


def _all(state: Path) -> Sequence[Past]:
    return [
        Past(home.path.name, home.logs)
        for home in homes(state)
        if home.path.parent.name == "stacks" and home.logs.is_dir()
    ]
