"""What a stack that runs must become when its spec has changed: the difference, and the steps to get there. Pure.

`difference` compares what runs with what is wanted, container by container, in the spec's words. Most of what makes a
run can't be changed in it: such a container is replaced. How it is supervised (policy, output's form, dependencies) is
swapped while it runs. What only the host has changed (/etc/resolv.conf) is no difference to the user: no run is ended
for it, and the next one has it.

`web` of one replica is `web.1` as soon as there are more, and the other way round. It is the same container all the
same: it goes on running and has another name, unless more than its name has changed with that.

`plan` puts the steps in waves; those of a wave may be done side by side, and the next one waits until all of them are
up again:

1. The new dependencies hold, for all (`Rewire`), and what needs no restart is swapped in (`Rename`, `Adapt`).
2. What is no longer wanted is removed, dependents first: what it holds (a port, say) may be wanted by what comes.
3. What is new is started, what has changed is replaced, dependencies first; of the replicas of an entry no more than
   its `update.parallel` at a time. Whoever has `restart: true` on one that is replaced is restarted by the stack, as
   ever.

A step is whole: it holds all that whoever does it must know. `in_place` says what runs after some of them. So going
back (`on_failure: rollback`) is no code of its own, but the difference between what is in place and what was.

start-first: a container's id is taken while the old run lives. The new one runs `beside` it under an id that no spec
can have (`web+3`, for the third reload) and with a directory of its own, but with its true name inside and in all
output. When it is up, the two exchange their ids, and the old one is stopped. Nothing of a run is renamed in the
kernel: its directory and cgroup are known to it alone, and the next run has those of the id again. In a network it has
an address of its own, which is the container's from then on; names and ports of the host lead to it as soon as it has
the id. The spec refuses this where two runs can't be at once: `keep: true`, an address that is asked for.
"""

import os
import shlex
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from graphlib import TopologicalSorter
from hashlib import blake2b
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING, Any, cast

from runtime.build import RLIMITS
from runtime.capabilities import CAPABILITIES
from runtime.cgroup.limits import Limits, described
from runtime.config import Attachment, ContainerConfig, Network, Port
from runtime.mounts import ATTRIBUTES, Bind, Device, MemoryFile, Mount, Tmpfs
from supervisor.core.checks import Log
from supervisor.entry import Compiled, Entry, Order, StackNetwork, other_name
from supervisor.errors import StackError
from supervisor.logs.policy import LogLimit
from supervisor.reporting.events import printable

if TYPE_CHECKING:
    from runtime.idmap import Ids
    from runtime.seccomp.filter import Filter

SHOWN_MAX_CHARS = 60  # of a value
NAMES_MAX = 3  # of containers that have the same said of them

# --- what has changed -------------------------------------------------------------------------------------------------

_LIVE = ("policy", "depends_on", "output", "logs", "update")  # parts of an entry that a run does not hold
# Of its configuration, what `Run.apply` changes in a run, or the next one has.
IN_PLACE = frozenset({"resolv_conf", "limits"})
_NAMES = frozenset({"directory"})  # follows from its id
# Not said: what follows from something else that is, and what the host has put into a configuration.
_UNSAID = frozenset(
    (
        *("id", "group", "config.id", "config.directory", "config.notify", "config.resolv_conf"),
        *("policy.waits_s", "policy.one_shot"),
    )
)
_WORDS = {
    "argv": "cmd",
    "lowers": "image",
    "memory_bytes": "storage_size",
    "rlimits": "ulimits",
    "mounts": "volumes",
    "attachments": "networks",
    "shm_bytes": "shm_size",
    "hosts": "extra_hosts",
    "max_retries": "restart.max_retries",
}


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

    old: StackNetwork | None
    new: StackNetwork | None

    @property
    def name(self) -> str:
        """The same before and after."""
        return (self.new or self.old or _NOWHERE).name

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
        NetworkChange(before.get(name), after.get(name))
        for name in dict.fromkeys((*after, *before))
        if before.get(name) != after.get(name)
    )


def compared(old: Iterable[Entry], new: Iterable[Entry], networks: tuple[NetworkChange, ...] = ()) -> Changes:
    """The same for entries. Who is in a network that is another now is replaced, and so is who shares the place of one
    that moves.
    """
    before = {entry.id: entry for entry in old}
    after = {entry.id: entry for entry in new}
    same = [(before[name], entry) for name, entry in after.items() if name in before and _is_same(before[name], entry)]
    staying = {entry.id for _, entry in same}
    relaid = {each.name for each in networks if each.is_other}
    moved = {other.id for one, other in same if one.config.whereabouts != other.config.whereabouts}
    apart = {other.id for one, other in same if _is_in(one, relaid) or _is_in(other, relaid)}
    moved |= apart
    moved |= {other.id for _, other in same if other.config.shares in moved}
    changed = [
        (one, other, other.id in moved or _needs_new_run(one, other))
        for one, other in same
        if one != other or other.id in moved
    ]
    heirs = [pair for entry in before.values() if entry.id not in after and (pair := _heir(entry, before, after))]
    renamed = tuple(
        Change(one, other, _fields(named(one, other), other)) for one, other in heirs if _is_named(one, other)
    )
    gone = staying | {each.old.id for each in renamed}
    there = staying | {each.new.id for each in renamed}
    return Changes(
        added=tuple(entry for name, entry in after.items() if name not in there),
        removed=tuple(entry for name, entry in before.items() if name not in gone),
        replaced=tuple(
            Change(one, other, _fields(one, other), apart=other.id in apart) for one, other, anew in changed if anew
        ),
        adapted=tuple(Change(one, other, _fields(one, other)) for one, other, anew in changed if not anew),
        unchanged=tuple(other for one, other in same if one == other and other.id not in moved),
        renamed=renamed,
        successors={other.id: one.id for one, other in heirs if other.id not in there},
        networks=networks,
    )


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


def _is_in(entry: Entry, networks: Container[str]) -> bool:
    return any(each.network in networks for each in entry.config.attachments)


def _is_same(old: Entry, new: Entry) -> bool:
    """One that has become another entry's replica is another container, whatever it is called."""
    return old.group == new.group


def _needs_new_run(old: Entry, new: Entry) -> bool:
    return _of_run(old) != _of_run(new) or _listens_for(new) not in {None, _listens_for(old)}


def _of_run(entry: Entry) -> list[object]:
    """What a run is made of, and keeps."""
    config, rest = entry.config, (each.name for each in fields(entry) if each.name not in {"config", *_LIVE})
    made = (each.name for each in fields(config) if each.name not in IN_PLACE | _NAMES)
    return [*(getattr(config, name) for name in made), *(getattr(entry, name) for name in rest)]


def _listens_for(entry: Entry) -> str | None:
    """The pattern of a health check by its output: that is looked for from a run's start on, or not at all."""
    health = entry.policy.health
    return health.probe.pattern if health is not None and isinstance(health.probe, Log) else None


def _fields(old: Entry, new: Entry) -> tuple[Field, ...]:
    before, after = (dict(_facts("", entry)) for entry in (old, new))
    names = dict.fromkeys((*before, *after))
    return tuple(
        Field(_in_words(name), before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )


def _facts(path: str, value: object) -> Iterator[tuple[str, str]]:
    """An entry as a flat list: what leads to a value, and the value as people would write it."""
    if path in _UNSAID or value is None or value == ():
        return
    if path == "depends_on":
        yield from ((f"{path}.{name}", _condition(need)) for name, need in cast("Mapping[str, object]", value).items())
    elif path == "config.env":
        yield from ((f"{path}.{name}", text) for name, text in cast("Iterable[tuple[str, str]]", value))
    elif path == "config.rlimits":
        limits = cast("Iterable[tuple[int, int, int]]", value)
        yield from ((f"{path}.{RLIMITS[kind]}", f"{soft}:{hard}") for kind, soft, hard in limits)
    elif path == "config.mounts":
        yield from ((f"{path}.{mount.target}", _mount(mount)) for mount in cast("Iterable[Mount]", value))
    elif path == "config.devices":
        yield path, ", ".join(f"{each.source}:{each.target}" for each in cast("Iterable[Device]", value))
    elif path == "config.ports":
        yield path, ", ".join(map(_port, cast("Iterable[Port]", value)))
    elif path == "config.attachments":
        yield from ((f"{path}.{each.network}", _attachment(each)) for each in cast("Iterable[Attachment]", value))
    elif path in {"config.hosts", "config.sysctls"}:
        pairs = cast("Iterable[tuple[str, str]]", value)
        yield from ((f"{path}.{name}", text) for name, text in pairs)
    elif path in {"config.network", "config.shares"}:  # one word of the spec
        if value is not Network.CONTAINER:
            yield "config.network", f"container:{value}" if path == "config.shares" else _shown(value)
    elif path == "config.capabilities":
        yield path, _capabilities(cast("int", value))
    elif path == "config.limits":
        yield from ((f"config.{name}", text) for name, text in described(cast("Limits", value)))
    elif path == "config.userns":
        yield path, str(cast("Ids", value))
    elif path == "config.seccomp":
        yield path, cast("Filter", value).name
    elif is_dataclass(value):
        for each in fields(value):
            yield from _facts(f"{path}.{_step(each.name, value)}".lstrip("."), getattr(value, each.name))
    else:
        yield path, _shown(value)


def _mount(mount: Mount) -> str:
    """In words; of a secret's contents only whether they are the same."""
    match mount:
        case MemoryFile():
            mark = blake2b(mount.contents, key=_MARKED_WITH, digest_size=3).hexdigest()
            return f"hidden ({mark}), mode {mount.mode:04o}, of {mount.uid}:{mount.gid}"
        case Bind():
            more = [mount.propagation.value, *(["without what is below"] if not mount.recursive else [])]
            return ", ".join([mount.volume or mount.source, *_forbidden(mount.attributes), *more])
        case Tmpfs():
            size = "any size" if mount.size_bytes is None else f"{mount.size_bytes} bytes"
            owner = f"mode {mount.mode:04o}, of {mount.uid}:{mount.gid}"
            return ", ".join(["tmpfs", size, owner, *_forbidden(mount.attributes)])


def _port(port: Port) -> str:
    """As the spec has it."""
    host = f"[{port.address}]" if ":" in port.address else port.address
    published = "" if port.host is None else str(port.host)
    before = f"{host}:{published}:" if host else f"{published}:" if published else ""
    return f"{before}{port.container}/{port.protocol}"


def _attachment(attachment: Attachment) -> str:
    more = [f"aliases {' '.join(attachment.aliases)}"] if attachment.aliases else []
    return ", ".join([*filter(None, (attachment.ipv4, attachment.ipv6)), *more]) or "connected"


_MARKED_WITH = os.urandom(16)  # so that a mark tells nothing to who has it


def _forbidden(attributes: int) -> list[str]:
    return [word for attribute, word in ATTRIBUTES.items() if attributes & attribute]


def _step(name: str, owner: object) -> str:
    """A probe's kind is a word of the spec: `ready.tcp`, not `ready.probe`."""
    return type(cast("Any", owner).probe).__name__.lower() if name == "probe" else name


def _in_words(path: str) -> str:
    words = path.split(".")
    if words[0] in {"config", "policy"}:
        words = words[1:]
    return ".".join((_WORDS.get(words[0], words[0]), *words[1:]))


def _condition(need: object) -> str:
    """Of a dependency, as Compose has it, and what is special to it."""
    if not is_dataclass(need):
        return _shown(need)
    special = [
        f"{each.name} {_shown(value)}" for each in fields(need) if (value := getattr(need, each.name)) != each.default
    ]
    return ", ".join(special).removeprefix("condition ") or "started"


def _capabilities(mask: int) -> str:
    return " ".join(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1) or "none"


def _shown(value: object) -> str:
    match value:
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case tuple() | list() if all(isinstance(each, str) for each in value):
            return shlex.join(value)
        case tuple() | list() | set() | frozenset():
            return ", ".join(sorted(map(_shown, value)) if isinstance(value, set | frozenset) else map(_shown, value))
        case float():
            return f"{value:g}"
        case bytes():
            return value.decode(errors="backslashreplace")
    return str(value)


# --- how to get there -------------------------------------------------------------------------------------------------


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
    fields: tuple[Field, ...]
    beside: Entry | None = None


Step = Rewire | Rename | Adapt | Remove | Add | Replace
Wave = tuple[Step, ...]


def plan(changes: Changes, generation: int = 1) -> tuple[Wave, ...]:
    """The steps, in waves. `generation` is the number of this reload in the supervisor's life."""
    waves = (_swaps(changes), *_removals(changes), *_launches(changes, generation))
    return tuple(wave for wave in waves if wave)


def in_place(entries: Iterable[Entry], steps: Iterable[Step]) -> tuple[Entry, ...]:
    """What there is after some steps of a plan."""
    there = {entry.id: entry for entry in entries}
    for step in steps:
        match step:
            case Rewire(depends_on):
                there = {
                    name: replace(entry, depends_on=depends_on.get(entry.group, {})) for name, entry in there.items()
                }
            case Remove(name):
                del there[name]
            case Rename(name, new):
                there = {(new.id if each == name else each): entry for each, entry in there.items()} | {new.id: new}
            case Adapt(new) | Add(new) | Replace(new):
                there[new.id] = new
    return tuple(there.values())


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
    return Replace(change.new, change.fields, aside)


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


# --- in words ---------------------------------------------------------------------------------------------------------


def render(changes: Changes) -> str:
    """For people. Containers of which the same is to be said share a line."""
    lines = [
        *(f"= logs of the stack: {each}" for each in changes.logs),
        *map(_network_told, changes.networks),
        *_told("+", "new", ((entry, ()) for entry in changes.added)),
        *_told("-", "removed", ((entry, ()) for entry in changes.removed)),
        *_told(">", "renamed, goes on running", ((each.new, _renaming(each)) for each in changes.renamed)),
        *_told("~", "replaced", ((each.new, each.fields) for each in changes.replaced)),
        *_told("=", "goes on running", ((each.new, each.fields) for each in changes.adapted if each.fields)),
    ]
    return "".join(f"{line}\n" for line in (*lines, _sum(changes)))


_NOWHERE = StackNetwork("")


def _network_told(change: NetworkChange) -> str:
    if change.old is None:
        facts = [f"{each.name}: {each.after}" for each in _network_fields(change) if each.after is not None]
        return printable(f"+ network {change.name}: new" + (f" ({', '.join(facts)})" if facts else ""))
    if change.new is None:
        return printable(f"- network {change.name}: removed")
    return printable(f"~ network {change.name}: made anew ({', '.join(map(str, _network_fields(change)))})")


def _network_fields(change: NetworkChange) -> tuple[Field, ...]:
    before, after = (_network_facts(each) for each in (change.old, change.new))
    return tuple(
        Field(name, before.get(name), after.get(name))
        for name in ("internal", "ipv6", "subnet")
        if before.get(name) != after.get(name)
    )


def _network_facts(network: StackNetwork | None) -> dict[str, str]:
    if network is None:
        return {}
    facts = {"internal": network.internal, "ipv6": network.ipv6, "subnet": ", ".join(network.subnets)}
    return {name: _shown(fact) for name, fact in facts.items() if fact}


def _renaming(change: Change) -> tuple[Field, ...]:
    return Field("name", change.old.id, change.new.id), *change.fields


def as_data(changes: Changes) -> dict[str, object]:
    """For programs."""
    adapted = [each for each in changes.adapted if each.fields]
    return {
        "logs": _fields_as_data(changes.logs),
        "networks": [
            {
                "name": each.name,
                "change": "added" if each.old is None else "removed" if each.new is None else "replaced",
                "fields": _fields_as_data(_network_fields(each)),
            }
            for each in changes.networks
        ],
        "added": [entry.id for entry in changes.added],
        "removed": [entry.id for entry in changes.removed],
        "renamed": [{"from": each.old.id, **_change_as_data(each)} for each in changes.renamed],
        "replaced": [_change_as_data(each) for each in changes.replaced],
        "adapted": [_change_as_data(each) for each in adapted],
        "unchanged": _unchanged(changes),
    }


def _change_as_data(change: Change) -> dict[str, object]:
    return {"id": change.new.id, "fields": _fields_as_data(change.fields)}


def _fields_as_data(fields: Iterable[Field]) -> list[dict[str, str | None]]:
    return [{"name": each.name, "before": each.before, "after": each.after} for each in fields]


def _told(mark: str, what: str, changes: Iterable[tuple[Entry, tuple[Field, ...]]]) -> Iterator[str]:
    alike: dict[tuple[str, tuple[Field, ...]], list[str]] = {}
    for entry, changed in changes:
        alike.setdefault((entry.group, changed), []).append(entry.id)
    for (_, changed), names in alike.items():
        details = f" ({', '.join(map(str, changed))})" if changed else ""
        yield printable(f"{mark} {_named(names)}: {what}{details}")


def _named(names: Sequence[str]) -> str:
    if len(names) <= NAMES_MAX:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} … {names[-1]} ({len(names)} containers)"


def _sum(changes: Changes) -> str:
    counts = Counter(
        {
            "new": len(changes.added),
            "removed": len(changes.removed),
            "renamed": len(changes.renamed),
            "replaced": len(changes.replaced),
            "changed without a restart": sum(bool(each.fields) for each in changes.adapted),
            "unchanged": _unchanged(changes),
        }
    )
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing runs, nothing is to"


def _unchanged(changes: Changes) -> int:
    return len(changes.unchanged) + sum(not each.fields for each in changes.adapted)


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
