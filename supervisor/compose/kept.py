"""What a Compose file has at its top beside services, and a spec too: volumes, secrets and configs."""

from collections.abc import Iterator

from supervisor.compose import dollar
from supervisor.compose.scalars import nothing, truth
from supervisor.compose.services import File, Keys
from supervisor.spec.faults import Loc, Wrong, quoted, unexpected
from supervisor.spec.tree import Map

KEPT = ("volumes", "secrets", "configs")
_OF_A_SOURCE = ("file", "environment", "content")
_METADATA = ("labels", "x-")


def kept(tree: Map, file: File) -> Keys:
    """Those of the spec."""
    return {key: found for key in KEPT if (found := dict(_entries(tree, key, file)))}


def _entries(tree: Map, key: str, file: File) -> Iterator[tuple[str, object]]:
    entries = tree.get(key)
    if entries is None:
        return
    if not isinstance(entries, Map):
        file.notes.dropped((key,), str(unexpected(entries, "a mapping of names")), key=False)
        return
    for name, entry in entries.items():
        try:
            given = Map(entries.position) if entry is None else entry
            if not isinstance(given, Map):
                raise unexpected(entry, "a mapping")
            yield name, _volume(given, file, (key, name)) if key == "volumes" else _source(given, file, (key, name))
        except Wrong as wrong:
            file.notes.dropped((key, name), str(wrong), key=False)


def _volume(entry: Map, file: File, loc: Loc) -> Keys:
    """A volume of a driver's is told of, and becomes a directory all the same."""
    found: Keys = {}
    for key, value in entry.items():
        if key == "external":
            found |= _external(value)
        elif key == "name":
            found["name"] = value
        elif not nothing(value) and (key, value) != ("driver", "local") and not key.startswith(_METADATA):
            file.notes.dropped((*loc, key), "a volume is a directory of this machine")
    return found


def _external(value: object) -> Keys:
    """Once, it had the name in it."""
    if isinstance(value, Map):
        return {"external": True, **({"name": value["name"]} if "name" in value else {})}
    return {"external": truth(value)}


def _source(entry: Map, file: File, loc: Loc) -> Keys:
    given = {key: entry[key] for key in _OF_A_SOURCE if key in entry}
    if len(given) != 1:
        raise Wrong("is kept elsewhere: there is no store of secrets or configs", "file, environment or content")
    for key, value in entry.items():
        if key not in given and not nothing(value) and not key.startswith(_METADATA):
            file.notes.dropped((*loc, key), f"has no meaning beside {quoted(next(iter(given)))}")
    if isinstance(path := given.get("file"), str) and not dollar.has(path):
        given["file"] = file.path(path)
    return dict(given)
