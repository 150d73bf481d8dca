"""What holds between containers: ids that are unique, dependencies that exist and come to an end. Pure functions.

They work on `Entry`s, which a spec that is at fault elsewhere has too: so these faults are told along with the others.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from supervisor.core.policy import Condition
from supervisor.spec import limits
from supervisor.spec.faults import Loc, Wrong, quoted

if TYPE_CHECKING:
    from supervisor.spec.model import Container, Spec

Faults = Iterator[tuple[Loc, Wrong]]

_REPLICA = re.compile(r"(.+)\.([1-9][0-9]*)")
CYCLE_SHOWN_MAX = 10  # ids of a cycle in a message


@dataclass(frozen=True, slots=True)
class Need:
    """What a container needs of another: `step` leads to it in its `depends_on`."""

    step: str | int
    condition: str = Condition.STARTED
    required: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A container, as far as others care. `needs` is by id; `checks` are those of ready and health that it has."""

    index: int
    id: str
    replicas: int
    needs: Mapping[str, Need]
    checks: frozenset[str] = frozenset()

    def loc(self, *steps: str | int) -> Loc:
        return ("containers", self.index, *steps)


def order(spec: "Spec") -> "tuple[tuple[Container, ...], ...]":
    """The containers in levels: each depends on earlier levels only, so those of one level may start together."""
    places = {container.id: index for index, container in enumerate(spec.containers)}
    sorter = TopologicalSorter({container.id: tuple(container.depends_on) for container in spec.containers})
    sorter.prepare()
    levels: list[tuple[Container, ...]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        sorter.done(*ready)
        levels.append(tuple(spec.containers[place] for place in sorted(places[id_] for id_ in ready)))
    return tuple(levels)


def faults(entries: Sequence[Entry], inactive: Mapping[str, Sequence[str]] = MappingProxyType({})) -> Faults:
    """All that is wrong between `entries`. `inactive`: the profiles of those that take no part."""
    by_id: dict[str, Entry] = {}
    for entry in entries:
        by_id.setdefault(entry.id, entry)
    yield from _clashes(entries, by_id)
    yield from _unknown(entries, by_id, inactive)
    yield from _unmet(entries, by_id)
    yield from _cycles(by_id)
    instances = sum(entry.replicas for entry in entries)
    if instances > limits.INSTANCES_MAX:
        yield ("containers",), Wrong(f"come to {instances} with all replicas", f"at most {limits.INSTANCES_MAX}")


def _clashes(entries: Iterable[Entry], by_id: Mapping[str, Entry]) -> Faults:
    """`web.1` beside `web` is one too, whatever the number of replicas: that may be changed at any time."""
    for entry in entries:
        first = by_id[entry.id]
        if first is not entry:
            wrong = Wrong(f"is {quoted(entry.id)} again", "an id of its own", first=first.loc("id"))
            yield entry.loc("id"), wrong
        elif (replica := _REPLICA.fullmatch(entry.id)) and (other := by_id.get(replica[1])):
            wrong = Wrong(
                f"is what replica {replica[2]} of {quoted(other.id)} is called", "another id", first=other.loc("id")
            )
            yield entry.loc("id"), wrong


def _unknown(entries: Iterable[Entry], by_id: Mapping[str, Entry], inactive: Mapping[str, Sequence[str]]) -> Faults:
    for entry in entries:
        for id_, need in entry.needs.items():
            if id_ not in by_id and need.required:
                yield entry.loc("depends_on", need.step), _not_there(id_, entry, by_id, inactive)


def _not_there(id_: str, entry: Entry, by_id: Iterable[str], inactive: Mapping[str, Sequence[str]]) -> Wrong:
    if id_ in inactive:
        choice = f"--profile {inactive[id_][0]}, or required: false"
        return Wrong(f"is {quoted(id_)}, which takes no part: its profile is not chosen", choice, at_key=True)
    others = [other for other in by_id if other != entry.id]
    return Wrong(f"is {quoted(id_)}", "the id of a container", word=id_, words=others, at_key=True)


def _unmet(entries: Iterable[Entry], by_id: Mapping[str, Entry]) -> Faults:
    """Who waits for what nobody looks at."""
    for entry in entries:
        for id_, need in entry.needs.items():
            check = _CHECKS.get(need.condition)
            if check and id_ in by_id and check not in by_id[id_].checks:
                wrong = Wrong(f"is {need.condition}, but {quoted(id_)} has no {check} check", f"{check}: in it")
                yield entry.loc("depends_on", need.step, "condition"), wrong


_CHECKS: Mapping[str, str] = {Condition.READY: "ready", Condition.HEALTHY: "health"}


def _cycles(by_id: Mapping[str, Entry]) -> Faults:
    needs = {id_: list(entry.needs) for id_, entry in by_id.items()}
    for cycle in islice(cycles(needs), limits.FAULTS_MAX):
        last, first = by_id[cycle[-1]], cycle[0]
        way = " -> ".join([*_shortened(cycle), first])
        what = f"closes a cycle, {way}" if len(cycle) > 1 else f"is the container itself, {way}"
        wrong = Wrong(what, "no cycle", at_key=True)
        yield last.loc("depends_on", last.needs[first].step), wrong


def _shortened(cycle: list[str]) -> list[str]:
    half = CYCLE_SHOWN_MAX // 2
    return cycle if len(cycle) <= CYCLE_SHOWN_MAX else [*cycle[:half], "…", *cycle[-half:]]


def cycles(needs: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """The cycles that a depth-first search meets: [a, b] for a -> b -> a, one for each dependency that closes one."""
    done: set[str] = set()
    for start in needs:
        trail = {} if start in done else {start: iter(needs[start])}
        while trail:
            here = next(reversed(trail))
            for need in trail[here]:
                if need in trail:
                    way = list(trail)
                    yield way[way.index(need) :]
                elif need in needs and need not in done:
                    trail[need] = iter(needs[need])
                    break
            else:
                done.add(here)
                del trail[here]


def reached(starts: Iterable[str], needs: Mapping[str, Iterable[str]]) -> dict[str, None]:
    """`starts`, and all that they need at whatever distance."""
    found, waiting = dict.fromkeys(starts), list(starts)
    while waiting:
        new = [need for need in needs[waiting.pop()] if need not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return found
