"""What a reload changes, told: in lines for people, or as data for programs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from supervisor.entry import Entry
from supervisor.reload.changes import Change, Changes, Field, NetworkChange
from supervisor.reporting.events import printable

NAMES_MAX = 3  # of containers that have the same said of them


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


def _network_told(change: NetworkChange) -> str:
    if change.old is None:
        facts = ", ".join(f"{each.name}: {each.after}" for each in change.fields)
        return printable(f"+ network {change.name}: new" + (f" ({facts})" if facts else ""))
    if change.new is None:
        return printable(f"- network {change.name}: removed")
    return printable(f"~ network {change.name}: made anew ({', '.join(map(str, change.fields))})")


def _renaming(change: Change) -> tuple[Field, ...]:
    return Field("name", change.old.id, change.new.id), *change.fields


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


def as_data(changes: Changes) -> dict[str, object]:
    """For programs."""
    adapted = [each for each in changes.adapted if each.fields]
    return {
        "logs": _fields_as_data(changes.logs),
        "networks": [
            {
                "name": each.name,
                "change": "added" if each.old is None else "removed" if each.new is None else "replaced",
                "fields": _fields_as_data(each.fields),
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
