"""What differs between two stacks, as data: container by container, each value as people would write it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from supervisor.entry import Entry, StackNetwork

SHOWN_MAX_CHARS = 60  # of a value


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that has changed, in words: `image: a -> b`. None: it was not there, or is not any more."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        before, after = _where_they_differ(self.before, self.after)
        return f"{self.name}: {_in_short(before)} -> {_in_short(after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """A container that is there before and after. No `fields`: nothing that a user would care for."""

    old: Entry
    new: Entry
    fields: tuple[Field, ...]
    apart: bool = False  # its old run ends before any new one starts: they can't be in the same network


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """A network that is different; None: it was not there, or is not any more."""

    name: str
    old: StackNetwork | None
    new: StackNetwork | None
    fields: tuple[Field, ...]

    @property
    def is_other(self) -> bool:
        """Is it there before and after?"""
        return self.old is not None and self.new is not None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different, each in the order of its spec: `removed` of the old one, all others of the new one."""

    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    replaced: tuple[Change, ...]
    adapted: tuple[Change, ...]  # without a restart
    unchanged: tuple[Entry, ...]
    renamed: tuple[Change, ...] = ()  # without a restart, too
    successors: Mapping[str, str] = field(default_factory=dict)  # of those added: whose place it takes, removed too
    networks: tuple[NetworkChange, ...] = ()
    logs: tuple[Field, ...] = ()  # of the whole stack

    @property
    def is_empty(self) -> bool:
        """Is there nothing that a user would call a difference?"""
        adapted = any(each.fields for each in self.adapted)
        parts = (self.added, self.removed, self.replaced, self.renamed, self.networks, self.logs)
        return not (any(parts) or adapted)


def _where_they_differ(before: str | None, after: str | None) -> tuple[str | None, str | None]:
    """Two long texts without most of what both begin with, so that what is shown of them is not the same twice."""
    if before is None or after is None or max(len(before), len(after)) <= SHOWN_MAX_CHARS:
        return before, after
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    skipped = alike - SHOWN_MAX_CHARS // 3
    return (f"…{before[skipped:]}", f"…{after[skipped:]}") if skipped > 0 else (before, after)


def _in_short(text: str | None) -> str:
    if text is None:
        return "none"
    return text if len(text) <= SHOWN_MAX_CHARS else f"{text[:SHOWN_MAX_CHARS]}…"
