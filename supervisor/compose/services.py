"""Services, and the containers that they become: their ids, and what they take over from one another.

Only what a file says is known: an image's own entrypoint, command and health check are not. So a container without a
command gets one that must be given when the spec is loaded; it names the variable that gives it.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from runtime.errors import ImageError
from runtime.images.lookup import check_name
from supervisor.compose import dollar
from supervisor.compose.notes import Notes
from supervisor.errors import SpecError
from supervisor.spec import container
from supervisor.spec.faults import Loc, Wrong, quoted, unexpected
from supervisor.spec.model import Container
from supervisor.spec.tree import Map, Seq
from supervisor.spec.values import ID_PATTERN

Keys = dict[str, object]  # of a container, with their values

ID_MAX_CHARS = 63
_ID = re.compile(ID_PATTERN)
_BARE: Keys = {"id": "it", "image": "it", "cmd": "it"}


@dataclass(slots=True)
class File:
    """All services, by name; those that become containers have an id."""

    services: dict[str, Map]
    notes: Notes
    way: str = ""  # from the folder of the spec to that of this file
    ids: dict[str, str] = field(default_factory=dict)

    def path(self, path: str) -> str:
        """A path of this file, as the spec has it."""
        return path if path.startswith(("/", "$")) else posixpath.join(self.way, path)

    def known(self, name: str) -> str:
        """The id of the container that a service becomes. Wrong if it becomes none."""
        if name in self.ids:
            return self.ids[name]
        if name in self.services:
            raise Wrong(f"{quoted(name)} is no container here")
        raise Wrong(f"there is no service {quoted(name)}", word=name, words=self.services)


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    file: File

    @property
    def entries(self) -> Map:
        return self.file.services[self.name]

    @property
    def id(self) -> str:
        return self.file.ids[self.name]

    @property
    def notes(self) -> Notes:
        return self.file.notes

    def loc(self, *steps: str | int) -> Loc:
        return ("services", self.name, *steps)

    def base(self) -> str | None:
        """The service of this file that this one extends."""
        match self.entries.get("extends"):
            case str() as name:
                found = str(name)
            case {"service": str() as name, **more} if not more:
                found = str(name)
            case _:
                return None
        return found if found in self.file.ids else None

    def found(self, key: str) -> object:
        """The value of a key, its own or that of the service it extends."""
        return next((entries[key] for entries in self._chain() if key in entries), None)

    def _chain(self) -> Iterator[Map]:
        names: list[str] = []
        name: str | None = self.name
        while name is not None and name not in names:
            names.append(name)
            yield self.file.services[name]
            name = Service(name, self.file).base()


def name_containers(file: File) -> None:
    """Give each service that becomes a container its id: `container_name`, or its own name."""
    for name, entries in file.services.items():
        if "provider" not in entries:
            file.ids[name] = _id(file, name, entries.get("container_name"))


def _id(file: File, name: str, wanted: object) -> str:
    loc: Loc = ("services", name, "container_name")
    taken = {*file.ids.values(), *(other for other in file.services if other != name)}
    if isinstance(wanted, str) and wanted != name:
        if _ID.fullmatch(wanted) and wanted not in taken:
            return str(wanted)
        file.notes.changed(loc, f"can't be an id here, or is another's: the id is {quoted(name)}", key=False)
    if _ID.fullmatch(name) and name not in file.ids.values():
        return name
    made = _free(re.sub("[^a-zA-Z0-9_.-]", "-", name).lstrip("_.-") or "container", taken)
    file.notes.changed(("services", name), f"can't be an id here: it is {quoted(made)}")
    return made


def _free(name: str, taken: set[str]) -> str:
    """`name`, or the first of `name-2`, `name-3`… that is not taken."""
    found, number = name[:ID_MAX_CHARS], 1
    while found in taken:
        number += 1
        suffix = f"-{number}"
        found = name[: ID_MAX_CHARS - len(suffix)] + suffix
    return found


def image(service: Service) -> Keys:
    """What it runs from: images are found by their name, never pulled."""
    name = service.found("image")
    if isinstance(name, str) and name:
        return _own_image(service, str(name)) if "image" in service.entries else {}
    if name:
        service.notes.dropped(service.loc("image"), str(unexpected(name, "the name of an image")), key=False)
    elif service.found("build") is None:
        service.notes.dropped(service.loc(), f"has no image: make one of the name {quoted(service.id)}")
    return {"image": service.id} if service.base() is None or "build" in service.entries else {}


def _own_image(service: Service, name: str) -> Keys:
    if not dollar.has(name):
        try:
            check_name(name)
        except ImageError:
            made = re.sub("[^A-Za-z0-9._+@:-]+", "-", name).lstrip("._+@:-")[:ID_MAX_CHARS] or service.id
            service.notes.changed(service.loc("image"), f"is no image's name here: it is {quoted(made)}", key=False)
            return {"image": made}
    return {"image": name}


def cmd(service: Service) -> Keys:
    """`entrypoint` and `command` in one. What an image has for them is not known."""
    if service.base() is not None and not {"entrypoint", "command"} & set(service.entries):
        return {}
    given = {key: service.found(key) for key in ("entrypoint", "command")}
    try:
        parts = [_line(value, key) for key, value in given.items() if value not in (None, "", [])]
    except Wrong as wrong:
        service.notes.dropped(service.loc(*wrong.loc), f"{wrong}", key=False)
        parts = []
    line = _joined(parts)
    if not line:
        why = f"its command: write what its image runs as cmd, or set {_variable(service)}"
        service.notes.missing(service.loc(), why)
        return {"cmd": _asked(service, "what it runs; an image has no CMD or ENTRYPOINT here")}
    if given["entrypoint"] is None and _first(line).startswith("-"):
        why = f"the program of these arguments, its image's ENTRYPOINT: write it first, or set {_variable(service)}"
        service.notes.missing(service.loc("command"), why, key=False)
        program = _asked(service, "the program of these arguments; an image has no ENTRYPOINT here")
        return {"cmd": f"{program} {line}" if isinstance(line, str) else [program, *line]}
    return {"cmd": line}


def _line(value: object, key: str) -> str | list[str]:
    match value:
        case str():
            dollar.split(value)
            return str(value).strip()
        case Seq():
            for index, word in enumerate(value):
                if not isinstance(word, str):
                    raise unexpected(word, "text").within(key, index)
            return [word for word in value if isinstance(word, str)]
        case _:
            raise unexpected(value, "a list of arguments, or a string").within(key)


def _joined(parts: list[str | list[str]]) -> str | list[str]:
    """A string where all were strings, which is split when the spec is loaded."""
    lines = [part for part in parts if isinstance(part, str)]
    if len(lines) == len(parts):
        return " ".join(lines)
    return [word for part in parts for word in (dollar.split(part) if isinstance(part, str) else part)]


def _first(line: str | list[str]) -> str:
    return line if isinstance(line, str) else line[0]


def _variable(service: Service) -> str:
    return "CMD_" + re.sub("[^A-Z0-9]", "_", service.id.upper())


def _asked(service: Service, what: str) -> str:
    """A variable that must be set: the spec does not load without."""
    return f"${{{_variable(service)}:?{what}}}"


def refused(key: str, value: object) -> str | None:
    """Why a container can't have this, as far as that can be told before variables are known."""
    if key not in Container.model_fields or dollar.has(value):
        return None
    try:
        container({**_BARE, key: value})
    except SpecError as error:
        return "; ".join(map(str, error.faults))
    return None
