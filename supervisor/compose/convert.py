"""`convert`: a docker-compose file to the text of a spec, and the notes of what it lacks."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from supervisor.compose import writer
from supervisor.compose.health import NONE
from supervisor.compose.kept import KEPT, kept
from supervisor.compose.keys import SERVICE, carry
from supervisor.compose.network import networks
from supervisor.compose.notes import Kind, Note, Notes
from supervisor.compose.scalars import nothing
from supervisor.compose.services import File, Keys, Service, cmd, image, name_containers
from supervisor.spec.faults import Report, Wrong, nearest, quoted, shortened, unexpected
from supervisor.spec.reader import read
from supervisor.spec.tree import Map, Plain, locate
from supervisor.spec.values import NAME_PATTERN

TOP = {
    "include": "a spec includes specs only: import each of these files too, and list what is written under include",
    "models": "pysup runs containers only",
}
_CARRIED = ("name", "services", "networks")
_SILENT = ("version",)  # of no meaning to Compose either
NAMES_SHOWN_MAX = 20  # on a line that is about many containers


@dataclass(frozen=True, slots=True)
class Converted:
    text: str
    notes: tuple[Note, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing was dropped, and nothing is missing."""
        return all(note.kind is Kind.CHANGED for note in self.notes)


def convert(path: str, output: str | None = None) -> Converted:
    """The file at `path`, for a spec at `output`; None: in the same folder. SpecError if no sense can be made of it."""
    tree = _read(path)
    notes = Notes(path, tree)
    file = File(_services(tree, notes), notes, _way(path, output or path))
    name_containers(file)
    services = [Service(name, file) for name in file.services]
    containers = {service.name: _container(service) for service in services if service.name in file.ids}
    _tell_left_out(services)
    _settle_health(containers, file)
    _tell_once(containers, file)
    top = {**_top(tree, notes), **networks(tree, file), **kept(tree, file)}
    return Converted(writer.spec(path, top, containers.values(), notes.all()), notes.all())


def _read(path: str) -> Map:
    report = Report(path)
    tree = read(report)
    services = tree.get("services")
    if not isinstance(services, Map) or not services:
        report.add(locate(tree, ("services",)), _no_services(tree))
    report.check()
    return tree


def _no_services(tree: Map) -> Wrong:
    if "services" not in tree:
        return Wrong("is no docker-compose file: it has no services", "`services:`")
    return unexpected(tree["services"], "a mapping of names to services")


def _way(path: str, output: str) -> str:
    """From the folder of the spec to the file's: paths in a spec are relative to its own."""
    folder, start = (os.path.dirname(os.path.abspath(name)) for name in (path, output))  # noqa: PTH100, PTH120 (as the spec's own folder is found)
    return "" if folder == start else os.path.relpath(folder, start)


def _services(tree: Map, notes: Notes) -> dict[str, Map]:
    """Those that are mappings; one that is empty has no keys."""
    found: dict[str, Map] = {}
    written = tree["services"]
    assert isinstance(written, Map)
    for name, entries in written.items():
        if entries is None or isinstance(entries, Map):
            found[name] = Map(written.position) if entries is None else entries
        else:
            notes.dropped(("services", name), str(unexpected(entries, "a mapping")), key=False)
    return found


def _container(service: Service) -> Keys:
    return {"id": service.id, **image(service), **cmd(service), **carry(service)}


def _tell_left_out(services: Iterable[Service]) -> None:
    for service in services:
        if service.name not in service.file.ids:
            service.notes.dropped(service.loc("provider"), str(SERVICE["provider"]))


def _settle_health(containers: Mapping[str, Keys], file: File) -> None:
    """Who waits for the health of one without a check, waits for its start: its image's own check is not known."""
    by_id = {keys["id"]: keys for keys in containers.values()}
    names = {id_: name for name, id_ in file.ids.items()}
    for name, keys in containers.items():
        needs = keys.get("depends_on")
        for id_, need in needs.items() if isinstance(needs, dict) else ():
            if need["condition"] == "healthy" and not _checked(by_id, id_):
                need["condition"] = Plain("started")
                why = (
                    f"is `started` here: {names[id_]} has no healthcheck in this file; give it a health or ready check"
                )
                file.notes.dropped(("services", name, "depends_on", names[id_], "condition"), why, key=False)


def _checked(by_id: Mapping[object, Keys], id_: object) -> bool:
    seen: set[object] = set()
    while id_ in by_id and id_ not in seen:
        seen.add(id_)
        if "health" in by_id[id_]:
            return by_id[id_]["health"] is not NONE
        id_ = by_id[id_].get("extends")
    return False


def _tell_once(containers: Mapping[str, Keys], file: File) -> None:
    """What would be told of most services."""
    names = [str(keys["image"]) for keys in containers.values() if "image" in keys]
    loc = ("services",)
    if names:
        file.notes.changed(loc, f"images are not pulled: bring {_some(dict.fromkeys(names))} to images/")
    alone = [str(keys["id"]) for name, keys in containers.items() if _is_alone(file, name)]
    if alone:
        file.notes.changed(loc, f"cmd of {_some(alone)} is the command alone: an image has no ENTRYPOINT here")


def _some(names: Iterable[str]) -> str:
    """A line stays a line, however many there are."""
    every = list(names)
    shown = [shortened(name) for name in every[:NAMES_SHOWN_MAX]]
    return ", ".join([*shown, f"{len(every) - len(shown)} more"] if len(shown) < len(every) else shown)


def _is_alone(file: File, name: str) -> bool:
    service = Service(name, file)
    command = service.entries.get("command")
    first = command[0] if isinstance(command, list) and command else command
    return isinstance(first, str) and first[:1] not in ("", "-") and service.found("entrypoint") is None


def _top(tree: Map, notes: Notes) -> Keys:
    top: Keys = {}
    for key, value in tree.items():
        if key.startswith("x-"):
            top[key] = value
        elif key in TOP and not nothing(value):
            notes.dropped((key,), TOP[key])
        elif key not in (*TOP, *_CARRIED, *KEPT, *_SILENT):
            near = nearest(key, (*TOP, *_CARRIED, *KEPT))
            notes.dropped((key,), "is no key of Compose" + (f"; did you mean {quoted(near)}?" if near else ""))
    if isinstance(name := tree.get("name"), str) and name:
        if "$" in name or re.fullmatch(NAME_PATTERN, name):
            top["name"] = name
        else:
            notes.dropped(("name",), "can't be a stack's name, which is then that of the folder", key=False)
    return top
