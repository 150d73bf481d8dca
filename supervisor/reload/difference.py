"""What a stack that runs must become when its spec has changed: compared container by container. Pure.

Most of what makes a run can't be changed in it: such a container is replaced. How it is supervised (policy, output's
form, dependencies) is swapped while it runs. What only the host has changed (/etc/resolv.conf) is no difference to the
user: no run is ended for it, and the next one has it.

`web` of one replica is `web.1` as soon as there are more, and the other way round. It is the same container all the
same: it goes on running and has another name, unless more than its name has changed with that.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import fields, replace

from runtime.config import Attachment, ContainerConfig
from supervisor.core.checks import Log
from supervisor.entry import Compiled, Entry, StackNetwork, other_name
from supervisor.errors import StackError
from supervisor.logs.policy import LogLimit
from supervisor.reload.changes import Change, Changes, Field, NetworkChange
from supervisor.reload.facts import differing, differing_network

_LIVE = ("policy", "depends_on", "output", "logs", "update")  # parts of an entry that a run does not hold
# Of its configuration, what `Run.apply` changes in a run, or the next one has.
_IN_PLACE = frozenset({"resolv_conf", "limits"})
_NAMES = frozenset({"directory"})  # follows from its id


def difference(old: Compiled, new: Compiled) -> Changes:
    """What turns one into the other. StackError if it is another stack."""
    if old.name != new.name:
        raise StackError(
            f"the stack is called {new.name} now, and {old.name} runs: stop that and start the other, "
            f"or give it the name that it had"
        )
    changes = compared(old.entries, new.entries, compared_networks(old.networks, new.networks))
    return replace(changes, logs=compared_logs(old.logs, new.logs))


def compared_logs(old: LogLimit, new: LogLimit) -> tuple[Field, ...]:
    """What is different in the limit of all logs."""
    before, after = (None if each.max_total_bytes is None else str(each.max_total_bytes) for each in (old, new))
    return () if before == after else (Field("max_total", before, after),)


def compared_networks(old: Iterable[StackNetwork], new: Iterable[StackNetwork]) -> tuple[NetworkChange, ...]:
    """What is different in the networks, in the order of the new ones; those that are gone come last."""
    before, after = {each.name: each for each in old}, {each.name: each for each in new}
    return tuple(
        NetworkChange(name, one, other, differing_network(one, other))
        for name in dict.fromkeys((*after, *before))
        if (one := before.get(name)) != (other := after.get(name))
    )


def compared(old: Iterable[Entry], new: Iterable[Entry], networks: tuple[NetworkChange, ...] = ()) -> Changes:
    """The same for entries. Who is in a network that is another now is replaced, and so is who shares the place of one
    that moves.
    """
    before, after = _by_id(old), _by_id(new)
    kept = [(before[name], entry) for name, entry in after.items() if name in before and _is_same(before[name], entry)]
    apart = _apart(kept, networks)
    moved = _moved(kept, apart)
    changed = [
        Change(one, other, differing(one, other), apart=other.id in apart)
        for one, other in kept
        if one != other or other.id in moved
    ]
    anew = {each.new.id for each in changed if each.new.id in moved or _needs_new_run(each.old, each.new)}
    heirs = [pair for entry in before.values() if entry.id not in after and (pair := _heir(entry, before, after))]
    renamed = tuple(
        Change(one, other, differing(named(one, other), other)) for one, other in heirs if _is_named(one, other)
    )
    staying = {entry.id for _, entry in kept}
    gone = staying | {each.old.id for each in renamed}
    there = staying | {each.new.id for each in renamed}
    return Changes(
        added=tuple(entry for name, entry in after.items() if name not in there),
        removed=tuple(entry for name, entry in before.items() if name not in gone),
        replaced=tuple(each for each in changed if each.new.id in anew),
        adapted=tuple(each for each in changed if each.new.id not in anew),
        unchanged=tuple(other for one, other in kept if one == other and other.id not in moved),
        renamed=renamed,
        successors={other.id: one.id for one, other in heirs if other.id not in there},
        networks=networks,
    )


def _by_id(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.id: entry for entry in entries}


def _is_same(old: Entry, new: Entry) -> bool:
    """One that has become another entry's replica is another container, whatever it is called."""
    return old.group == new.group


def _apart(kept: Iterable[tuple[Entry, Entry]], networks: Iterable[NetworkChange]) -> set[str]:
    """Those in a network that is made anew."""
    anew = {each.name for each in networks if each.is_other}
    return {other.id for one, other in kept if _is_in(one, anew) or _is_in(other, anew)}


def _is_in(entry: Entry, networks: Container[str]) -> bool:
    return any(each.network in networks for each in entry.config.attachments)


def _moved(kept: Iterable[tuple[Entry, Entry]], apart: Iterable[str]) -> set[str]:
    """Those that will be elsewhere, and those that share a place with one of them."""
    moved = {other.id for one, other in kept if one.config.whereabouts != other.config.whereabouts} | set(apart)
    return moved | {other.id for _, other in kept if other.config.shares in moved}


def _heir(entry: Entry, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> tuple[Entry, Entry] | None:
    """`web` and the first of several `web.1`, or the other way round: one container, whose name has changed."""
    found = after.get(other_name(entry))
    return (entry, found) if found is not None and found.id not in before and _is_same(entry, found) else None


def named(entry: Entry, other: Entry) -> Entry:
    """A container as it would be under another's name."""
    old, new = entry.config, other.config
    hostname = new.hostname if old.hostname == old.id else old.hostname
    env = tuple((name, hostname if (name, value) == ("HOSTNAME", old.hostname) else value) for name, value in old.env)
    config = replace(old, id=new.id, directory=new.directory, hostname=hostname, env=env)
    if _without_aliases(old) == _without_aliases(new):  # what replicas share is an alias, and one alone has none
        config = replace(config, attachments=new.attachments)
    return replace(entry, id=other.id, config=config)


def _without_aliases(config: ContainerConfig) -> list[Attachment]:
    return [replace(each, aliases=()) for each in config.attachments]


def _is_named(entry: Entry, other: Entry) -> bool:
    """Is it the same but for its name, and what follows from that?"""
    return not _needs_new_run(named(entry, other), other)


def _needs_new_run(old: Entry, new: Entry) -> bool:
    return _of_run(old) != _of_run(new) or _listens_for(new) not in {None, _listens_for(old)}


def _of_run(entry: Entry) -> list[object]:
    """What a run is made of, and keeps."""
    config, rest = entry.config, (each.name for each in fields(entry) if each.name not in {"config", *_LIVE})
    made = (each.name for each in fields(config) if each.name not in _IN_PLACE | _NAMES)
    return [*(getattr(config, name) for name in made), *(getattr(entry, name) for name in rest)]


def _listens_for(entry: Entry) -> str | None:
    """The pattern of a health check by its output: that is looked for from a run's start on, or not at all."""
    health = entry.policy.health
    return health.probe.pattern if health is not None and isinstance(health.probe, Log) else None
