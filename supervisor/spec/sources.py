"""The files of a spec, to one tree: what they include, extend and take variables from, and who takes part.

    read        each file, variables put into its values (interpolate.py)
    laid        several named ones over one another, in their order (merge.py)
    complete    each container that takes part: under its own keys the variables of its `env_file`, then what it
                `extends`, then the file's `defaults`
    joined      the containers of what is included, at whatever distance, behind those of the file that includes it

Each file's faults are told at their places in it. Paths are relative to the folder of the file they are in, but in a
file that is laid over another to that of the first.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import dropwhile

from pydantic import BaseModel, ValidationError

from supervisor.errors import SpecError
from supervisor.spec import defaults, limits
from supervisor.spec.envfile import EXPECTED, read_env_file
from supervisor.spec.explain import NOT_SHARED, keys, parsed, some, unknown_key
from supervisor.spec.faults import Place, Report, Wrong, quoted, unexpected
from supervisor.spec.interpolate import Variable, Variables, fill
from supervisor.spec.merge import CONTAINERS, documents, home_of, laid, settle, with_variables
from supervisor.spec.model import Joining, Sharing, Spec
from supervisor.spec.paths import anchor
from supervisor.spec.reader import read
from supervisor.spec.sharing import Base, env_files, is_active
from supervisor.spec.tree import DEFAULTS, Map, Position, Seq, Spot, locate

SHARED = (
    "networks",
    "volumes",
    "secrets",
    "configs",
)  # at the top; they go where a file is included
CHAIN_SHOWN_MAX = 6  # members of a cycle in a message
_USERS_OWN = "x-"  # keys that begin so


@dataclass(slots=True)
class Document:
    """A file, or several laid over one another."""

    file: str  # as the user would name it
    tree: Map
    defaults: Map
    containers: dict[str, Map]  # by id; the first of each


@dataclass(slots=True)
class Gathered:
    """All containers that take part, complete, and who does not."""

    containers: Seq
    inactive: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shared: dict[str, Map] = field(default_factory=dict)  # by their key at the top


@dataclass(slots=True)
class Sources:
    """What has been read."""

    report: Report
    variables: Variables
    chosen: frozenset[str]  # profiles
    seen: list[str] = field(default_factory=list)  # files that were looked at, or for
    _documents: dict[str, Document] = field(default_factory=dict)  # by real path
    _env_files: dict[str, dict[str, Variable]] = field(default_factory=dict)
    _files: int = 0

    def tree(self, files: Sequence[str]) -> tuple[Map, dict[str, tuple[str, ...]]]:
        """The name and the containers of all; and the profiles of those that take no part."""
        first = self._document(files, home="")
        self._documents[os.path.realpath(files[0])] = first
        gathered = Gathered(Seq(first.tree.position))
        self._gather(first, gathered, [os.path.realpath(files[0])], set())
        tree = first.tree.without(*(key for key in first.tree if key not in Spec.model_fields or key in SHARED))
        for key, entries in gathered.shared.items():
            tree.put(key, entries, first.tree.spots.get(key, Spot(entries.position, entries.position)))
        if gathered.containers:
            spot = tree.spots.get(CONTAINERS, Spot(tree.position, tree.position))
            tree.put(CONTAINERS, gathered.containers, spot)
        elif tree.get(CONTAINERS) or "include" in first.tree:
            self._tell_why_none(tree, gathered)
        return tree, gathered.inactive

    def _tell_why_none(self, tree: Map, gathered: Gathered) -> None:
        """Nothing takes part: all has faults, which have been told, or a profile."""
        if gathered.inactive:
            profiles = sorted({name for names in gathered.inactive.values() for name in names})
            wrong = Wrong("all have profiles, of which none is chosen", f"--profile {profiles[0]}, or the like")
            self.report.add(locate(tree, (CONTAINERS,)), wrong)
        if isinstance(tree.get(CONTAINERS, Seq(tree.position)), Seq):
            self.report.check()

    # --- files ------------------------------------------------------------------------------------------------

    def _document(self, files: Sequence[str], home: str | None = None) -> Document:
        """`home` is the name of the first file as its report has it: empty for the report's own."""
        file = files[0]
        folder = os.path.dirname(file)  # noqa: PTH120 (a path may hold a NUL)
        tree = self._read(file if home is None else home, folder)
        for other in files[1:]:
            tree = documents(self._read(other, folder), tree)
        self._check_keys(tree)
        under = tree.get(DEFAULTS, Map(tree.position))
        if isinstance(under, Map):
            under = self._with_env_files(_own(under), file)
        document = Document(file, tree, defaults.sound(tree, under, self.report), {})
        for _, container in _mappings(tree):
            if isinstance(id_ := container.get("id"), str):
                document.containers.setdefault(str(id_), container)
        return document

    def _read(self, file: str, folder: str) -> Map:
        self._files += 1
        self.seen.append(file or self.report.file)
        if self._files > limits.FILES_MAX:
            self.report.stop(Place(0, 0, (), file), Wrong("is one file too many", f"at most {limits.FILES_MAX}"))
        tree = read(self.report, lambda text: fill(text, self.variables), file=file)
        settle(tree)
        anchor(tree, folder)
        return tree

    def _check_keys(self, tree: Map) -> None:
        for key in tree:
            if key not in keys(()) and not key.startswith(_USERS_OWN):
                self.report.add(locate(tree, (key,), key=True), unknown_key((key,)))

    def _other(self, path: str, asker: Document, place: Place) -> Document | None:
        """The document that another one names, each read once; None where it can't be: that is told."""
        file = beside(asker.file, path)
        real = os.path.realpath(file)
        self.seen.append(file)
        if real not in self._documents:
            if not os.path.isfile(real):  # noqa: PTH113 (a path may hold a NUL)
                what = "is no file" if os.path.exists(real) else "is not there"  # noqa: PTH110 (as above)
                self.report.add(place, Wrong(f"{file} {what}", "the path of a spec, from the folder of this one"))
                return None
            self._documents[real] = self._document([file])
        return self._documents[real]

    # --- include ----------------------------------------------------------------------------------------------

    def _gather(self, document: Document, gathered: Gathered, trail: list[str], seen: set[str]) -> None:
        seen.add(trail[-1])
        self._take(document, gathered)
        for key in SHARED:
            self._share(document, key, gathered)
        entries = _only(document.tree, Joining)
        joining = parsed(entries, Joining, self.report, document.tree) if entries else None
        for index, path in enumerate(joining.include if joining else ()):
            place = locate(document.tree, ("include", index))
            real = os.path.realpath(beside(document.file, path))
            if real in trail:
                self.report.add(place, _cycle([os.path.basename(each) for each in trail[trail.index(real) :]]))  # noqa: PTH119 (texts, of which there are many)
            elif len(trail) >= limits.NESTING_MAX:
                self.report.add(place, Wrong("is included too deep", f"at most {limits.NESTING_MAX} levels"))
            elif real not in seen and (other := self._other(path, document, place)):
                self._gather(other, gathered, [*trail, real], seen)

    def _take(self, document: Document, gathered: Gathered) -> None:
        """Its own containers, as far as they take part."""
        containers = document.tree.get(CONTAINERS)
        if not isinstance(containers, Seq):
            if CONTAINERS in document.tree:
                wrong = unexpected(containers, "a list of at least one container")
                self.report.add(locate(document.tree, (CONTAINERS,)), wrong)
            return
        for index, (container, position) in enumerate(zip(containers, containers.spots, strict=True)):
            if not isinstance(container, Map):
                wrong = unexpected(container, f"a mapping with {some(keys((CONTAINERS, index)))}")
                self.report.add(locate(document.tree, (CONTAINERS, index)), wrong)
            elif is_active(container, self.chosen):
                whole = self._inherited(container, document, [])
                complete = defaults.completed(whole, document.defaults) if document.defaults else whole
                gathered.containers.put(complete, position)
            else:
                sharing = parsed(_only(container, Sharing), Sharing, self.report, container)
                if sharing:
                    gathered.inactive[str(container.get("id"))] = sharing.profiles

    def _share(self, document: Document, key: str, gathered: Gathered) -> None:
        """Its entries under a key at the top, each of which only one file may have."""
        entries = document.tree.get(key)
        if not isinstance(entries, Map):
            if entries is not None:
                wrong = unexpected(entries, f"a mapping of names of {key}")
                self.report.add(locate(document.tree, (key,)), wrong)
            return
        shared = gathered.shared.setdefault(key, Map(entries.position))
        for name in entries:
            if name in shared:
                place, first = locate(document.tree, (key, name), key=True), locate(shared, (name,), key=True)
                self.report.add(place, Wrong("is given again", "each once"), self.report.first_at(first, place))
            else:
                shared.inherit(name, entries, (key,))

    # --- extends and env_file ---------------------------------------------------------------------------------

    def _inherited(self, container: Map, document: Document, trail: list[Map]) -> Map:
        """A container with what it extends, at whatever distance."""
        own = _own(container)
        if not any(key in own for key in Sharing.model_fields):
            return own
        sharing = parsed(_only(own, Sharing), Sharing, self.report, own)
        own = self._with_env_files(own, document.file).without(*Sharing.model_fields)
        if sharing is None or sharing.extends is None:
            return own
        base, place = sharing.extends, locate(container, ("extends",))
        source = document if base.file is None else self._other(base.file, document, place)
        if source is None or (found := self._base(source, base, place, [*trail, container])) is None:
            return own
        under = found.without(*NOT_SHARED)
        under = under if source is document else defaults.completed(under, source.defaults)
        return laid(own, under, home_of(own), home_of(found))

    def _base(self, source: Document, wanted: Base, place: Place, trail: list[Map]) -> Map | None:
        base = source.containers.get(wanted.id)
        if base is None:
            what = f"is {quoted(wanted.id)}" if wanted.file is None else f"{source.file} has no {quoted(wanted.id)}"
            self.report.add(place, Wrong(what, "the id of a container", word=wanted.id, words=source.containers))
        elif cycle := list(dropwhile(lambda one: one is not base, trail)):
            self.report.add(place, _cycle([str(one.get("id")) for one in cycle]))
        elif len(trail) >= limits.NESTING_MAX:
            self.report.add(place, Wrong("extends too far", f"at most {limits.NESTING_MAX} containers in a row"))
        else:
            return self._inherited(base, source, trail)
        return None

    def _with_env_files(self, container: Map, asker: str) -> Map:
        """With the variables of its files under its own, the last file's uppermost. A faulty list is told elsewhere."""
        try:
            wanted = env_files(container.get("env_file", ()))
        except (Wrong, ValidationError):
            return container
        found = Map(Position(0, 0))
        for index, each in enumerate(wanted):
            place = locate(container, ("env_file", index) if isinstance(container["env_file"], Seq) else ("env_file",))
            for name, variable in self._env_file(beside(asker, each.path), place, required=each.required).items():
                file, _, line = variable.origin.rpartition(":")
                position = Position(int(line), 1, file)
                found.put(name, variable.value, Spot(position, position))
        return with_variables(container, found) if found else container

    def _env_file(self, file: str, place: Place, *, required: bool) -> dict[str, Variable]:
        self.seen.append(file)
        if file in self._env_files:
            return self._env_files[file]
        if not os.path.exists(file):  # noqa: PTH110 (a path may hold a NUL)
            if required:
                self.report.add(place, Wrong(f"{file} is not there", "a file, or {path: …, required: false}"))
            return {}
        if os.path.isdir(file):  # noqa: PTH112 (the same)
            self.report.add(place, Wrong(f"{file} is a directory", EXPECTED))
            return {}
        if len(self._env_files) >= limits.ENV_FILES_MAX:
            self.report.stop(place, Wrong("is one file too many", f"at most {limits.ENV_FILES_MAX}"))
        self._env_files[file] = {}
        with suppress(SpecError):  # it is in the report
            self._env_files[file] = read_env_file(self.report, file, self.variables)
        return self._env_files[file]


def beside(file: str, path: str) -> str:
    """A path that a file names, as the user would name it."""
    return os.path.join(os.path.dirname(file), path)  # noqa: PTH118, PTH120 (pathlib drops `./`, and chokes on a NUL)


def _mappings(tree: Map) -> Iterator[tuple[int, Map]]:
    containers = tree.get(CONTAINERS)
    if isinstance(containers, Seq):
        yield from ((index, entry) for index, entry in enumerate(containers) if isinstance(entry, Map))


def _own(container: Map) -> Map:
    """Less what is the user's own."""
    own = [key for key in container if key.startswith(_USERS_OWN)]
    return container.without(*own) if own else container


def _only(tree: Map, model: type[BaseModel]) -> Map:
    """Those entries that a model is about."""
    result = Map(tree.position)
    for key in model.model_fields:
        if key in tree:
            result.inherit(key, tree, ())
    return result


def _cycle(names: Iterable[str]) -> Wrong:
    way = list(names)
    half = CHAIN_SHOWN_MAX // 2
    shown = way if len(way) <= CHAIN_SHOWN_MAX else [*way[:half], "…", *way[-half:]]
    return Wrong(f"closes a cycle, {' -> '.join([*shown, way[0]])}", "no cycle")
