"""The steps from what runs to what is wanted, in waves. Pure.

Those of a wave may be done side by side, and the next one waits until all of them are up again:

1. The new dependencies hold, for all (`Rewire`), and what needs no restart is swapped in (`Rename`, `Adapt`).
2. What is no longer wanted is removed, dependents first: what it holds (a port, say) may be wanted by what comes.
3. What is new is started, what has changed is replaced, dependencies first; of the replicas of an entry no more than
   its `update.parallel` at a time. Whoever has `restart: true` on one that is replaced is restarted by the stack, as
   ever.

A step is whole: it holds all that whoever does it must know. So going back (`on_failure: rollback`) is no code of its
own, but the difference between what is in place by then and what was.

start-first: a container's id is taken while the old run lives. The new one runs `beside` it under an id that no spec
can have (`web+3`, for the third reload) and with a directory of its own, but with its true name inside and in all
output. When it is up, the two exchange their ids, and the old one is stopped. Nothing of a run is renamed in the
kernel: its directory and cgroup are known to it alone, and the next run has those of the id again. In a network it has
an address of its own, which is the container's from then on; names and ports of the host lead to it as soon as it has
the id. The spec refuses this where two runs can't be at once: `keep: true`, an address that is asked for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from itertools import zip_longest
from typing import Any

from supervisor.entry import Entry, Order
from supervisor.reload.changes import Change, Changes


@dataclass(frozen=True, slots=True)
class Rewire:
    """The dependencies of all groups that there will be. A group not among them has none any more."""

    depends_on: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Adapt:
    """Give the container another policy and form of output; its run stays."""

    new: Entry


@dataclass(frozen=True, slots=True)
class Rename:
    """The container of that id is this one now; its run stays."""

    id: str
    new: Entry


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop the container, and forget it."""

    id: str


@dataclass(frozen=True, slots=True)
class Add:
    """Start a container that was not there, unless it takes the place of one that somebody has stopped."""

    new: Entry
    succeeds: str = ""


@dataclass(frozen=True, slots=True)
class Replace:
    """End its run, and start it as it is now. With `beside` that is started first, and takes the id when it is up."""

    new: Entry
    beside: Entry | None = None


Step = Rewire | Rename | Adapt | Remove | Add | Replace
Wave = tuple[Step, ...]


def waves(changes: Changes, generation: int = 1) -> tuple[Wave, ...]:
    """What leads from one to the other. `generation` is the number of this reload in the supervisor's life."""
    found = (_swaps(changes), *_removals(changes), *_launches(changes, generation))
    return tuple(wave for wave in found if wave)


def _swaps(changes: Changes) -> Wave:
    swaps: Wave = (
        *(Rename(each.old.id, each.new) for each in changes.renamed),
        *(Adapt(each.new) for each in changes.adapted),
    )
    before = _graph([*changes.removed, *_olds(changes), *changes.unchanged])
    after = _graph(_news(changes))
    return swaps if before == after else (Rewire(after), *swaps)


def _removals(changes: Changes) -> Iterator[Wave]:
    gone = _by_group((*changes.removed, *(each.old for each in changes.replaced if each.apart)))
    for level in reversed(_levels([*changes.removed, *_olds(changes), *changes.unchanged])):
        yield tuple(Remove(entry.id) for group in level for entry in gone.get(group, ()))


def _launches(changes: Changes, generation: int) -> Iterator[Wave]:
    """The added ones of a level go with the first of its waves: they stand in nobody's way."""
    apart = [change.new for change in changes.replaced if change.apart]
    successors = {**changes.successors, **{entry.id: entry.id for entry in apart}}
    added = _by_group((*changes.added, *apart))
    replaced = {change.new.id: change for change in changes.replaced if not change.apart}
    groups = _by_group(change.new for change in replaced.values())
    for level in _levels(_news(changes)):
        adds: Wave = tuple(
            Add(entry, successors.get(entry.id, "")) for group in level for entry in added.get(group, ())
        )
        rounds = zip_longest(*(_turns(groups.get(group, [])) for group in level), fillvalue=())
        turns: list[Wave] = [
            tuple(_replacement(replaced[entry.id], generation) for turn in each for entry in turn) for each in rounds
        ]
        first, *rest = turns or [()]
        yield (*adds, *first)
        yield from rest


def _turns(entries: Sequence[Entry]) -> list[Sequence[Entry]]:
    """So many at a time."""
    size = (entries[0].update.parallel or len(entries)) if entries else 1
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _replacement(change: Change, generation: int) -> Replace:
    aside = beside(change.new, generation) if change.new.update.order is Order.START_FIRST else None
    return Replace(change.new, aside)


def beside(entry: Entry, generation: int) -> Entry:
    """The same container while another run has its id: see above."""
    suffix = f"+{generation}"
    config = replace(entry.config, directory=f"{entry.config.directory}{suffix}")
    return replace(entry, id=f"{entry.id}{suffix}", group=f"{entry.id}{suffix}", config=config)


def _olds(changes: Changes) -> list[Entry]:
    return [change.old for change in (*changes.replaced, *changes.adapted, *changes.renamed)]


def _news(changes: Changes) -> list[Entry]:
    changed = (change.new for change in (*changes.replaced, *changes.adapted, *changes.renamed))
    return [*changes.added, *changed, *changes.unchanged]


def _by_group(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry)
    return found


def _graph(entries: Iterable[Entry]) -> dict[str, Mapping[str, Any]]:
    return {entry.group: entry.depends_on for entry in entries}


def _levels(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """Groups that depend on none of the same level, dependencies first. There are no cycles: the spec was checked."""
    sorter = TopologicalSorter(_graph(entries))
    sorter.prepare()
    levels = []
    while sorter.is_active():
        levels.append(sorter.get_ready())
        sorter.done(*levels[-1])
    return levels
