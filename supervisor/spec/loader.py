"""A stack file to a spec, or to all that is wrong with it.

The file is read to a tree; the `defaults` are checked by themselves and then laid under each container, so that a fault
in them is told once, where it is. The model parses what results. What pydantic finds is told with the places of the
tree, and along with what is wrong between the containers and with their images.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from supervisor.errors import SpecError
from supervisor.spec import graph, values
from supervisor.spec.faults import Loc, Report, Wrong, path_of, unexpected, unknown
from supervisor.spec.model import Backoff, Container, Spec
from supervisor.spec.reader import read
from supervisor.spec.terms import Storage
from supervisor.spec.tree import DEFAULTS, Map, Seq, Spot, locate

Check = Callable[[str], str | None]  # what is wrong with the image of this name

OWN_KEYS = ("id", "depends_on", "replicas")  # of each container, never of all
JOINED_KEYS = ("env", "backoff", "rlimits")  # a container's entries are laid over the defaults' one by one
_EXPECTED = {
    "id": "a name for the container",
    "image": "the name of an image, here or in the defaults",
    "cmd": "a list of arguments or a string, here or in the defaults",
    "containers": "a list of containers",
}
# What people who know Compose write, and difflib would not guess.
_COMPOSE = {
    "command": "cmd",
    "entrypoint": "cmd",
    "environment": "env",
    "working_dir": "workdir",
    "stop_grace_period": "stop_grace_s",
    "scale": "replicas",
    "container_name": "id",
    "network_mode": "network",
    "ulimits": "rlimits",
    "services": "containers",
}


def load(path: str | os.PathLike[str], check: Check | None = None) -> Spec:
    """The spec in the file at `path`. SpecError with all its faults, and those that `check` finds with its images."""
    report = Report(os.fspath(path))
    written = read(report)
    tree = _with_defaults(written, _defaults(written, report))
    if "name" not in tree:
        tree.put("name", default_name(report.file), Spot(tree.position, tree.position))
    if check:
        _check_images(tree, check, report)
    spec = _parse(tree, report)
    report.check()
    return spec


def default_name(file: str) -> str:
    """The name of the file's folder, as far as it can be one."""
    folder = Path(os.path.abspath(file)).parent.name  # noqa: PTH100 (folds `..`, and leaves symlinks alone)
    return re.sub("[^a-z0-9_.-]", "-", folder.lower()).lstrip("_.-")[:63] or "stack"


def _defaults(written: Map, report: Report) -> Map:
    """The defaults, less what can't be one. Their faults are told here, whether or not a container inherits them."""
    defaults = written.get(DEFAULTS, Map(written.position))
    if not isinstance(defaults, Map):
        report.add(locate(written, (DEFAULTS,)), unexpected(defaults, "a mapping of container's keys to values"))
        return Map(written.position)
    for key in OWN_KEYS:
        if key in defaults:
            report.add(locate(written, (DEFAULTS, key), key=True), Wrong("can't be a default", "it in each container"))
    try:
        Container.model_validate(_completed(defaults.without(*OWN_KEYS)))
    except ValidationError as error:
        for loc, wrong in _explained(error, DEFAULTS):
            _report(report, written, loc, wrong)
    return defaults.without(*OWN_KEYS, *(key for key in defaults if key not in Container.model_fields))


def _completed(defaults: Map) -> dict[str, object]:
    """A container with nothing wrong but what the defaults bring. A size is for those containers that are in memory."""
    complete = {"id": DEFAULTS, "image": DEFAULTS, "cmd": DEFAULTS, **defaults}
    if "storage_size" in defaults and defaults.get("storage") == Storage.DISK:
        del complete["storage"]
    return {"storage": Storage.MEMORY, **complete}


def _with_defaults(written: Map, defaults: Map) -> Map:
    """The document with its containers complete, and without the defaults."""
    tree = written.without(DEFAULTS)
    containers = tree.get("containers")
    if isinstance(containers, Seq):
        complete = Seq(containers.position)
        for container, position in zip(containers, containers.spots, strict=True):
            complete.put(_joined(container, defaults) if isinstance(container, Map) else container, position)
        tree["containers"] = complete
    return tree


def _joined(container: Map, defaults: Map) -> Map:
    joined = container.over(defaults)
    for key in JOINED_KEYS:
        own, base = (_as_map(value) if key == "env" else value for value in (container.get(key), defaults.get(key)))
        if isinstance(own, Map) and isinstance(base, Map):
            joined[key] = own.over(base)
    if "storage_size" in joined.inherited and joined.get("storage") != Storage.MEMORY:
        joined = joined.without("storage_size")
    return joined


def _as_map(value: object) -> object:
    """An environment given as a list, as a mapping; as it was if it has faults, which are told of the list."""
    if not isinstance(value, Seq):
        return value
    result = Map(value.position)
    for entry, position in zip(value, value.spots, strict=True):
        name, equals, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if not equals or name in result:
            return value
        result.put(name, text, Spot(position, position))
    return result


def _check_images(tree: Map, check: Check, report: Report) -> None:
    said: dict[str, str | None] = {}
    for index, container in _containers(tree):
        image = container.get("image")
        if not isinstance(image, str) or not image:
            continue
        if image not in said:
            said[image] = check(str(image))
        if message := said[image]:
            report.add(locate(tree, ("containers", index, "image")), Wrong(message))


def _containers(tree: Map) -> Iterator[tuple[int, Map]]:
    """Those that look like containers, and their indices."""
    containers = tree.get("containers")
    if isinstance(containers, Seq):
        yield from ((index, entry) for index, entry in enumerate(containers) if isinstance(entry, Map))


def _parse(tree: Map, report: Report) -> Spec:
    for loc, wrong in graph.faults(list(_entries(tree))):
        _report(report, tree, loc, wrong)
    try:
        return Spec.from_tree(tree, report.file)
    except ValidationError as error:
        for loc, wrong in _explained(error):
            if loc:  # what the whole spec is told of was told above, with its places
                _report(report, tree, loc, wrong)
    raise report.error()


def _report(report: Report, tree: Map, loc: Loc, wrong: Wrong) -> None:
    more = ""
    if wrong.first:
        first = locate(tree, wrong.first)
        more = f"; first at {first.line}:{first.column}"
    report.add(locate(tree, loc, key=wrong.at_key), wrong, more)


def _entries(tree: Map) -> Iterator[graph.Entry]:
    """What can be made out of the containers, sound or not."""
    for index, container in _containers(tree):
        if isinstance(id_ := container.get("id"), str):
            yield graph.Entry(index, str(id_), _replicas(container), _needs(container))


def _replicas(container: Map) -> int:
    try:
        return values.replicas(container.get("replicas", 1))
    except Wrong:
        return 1


def _needs(container: Map) -> dict[str, str | int]:
    match container.get("depends_on"):
        case Map() as needs:
            return {need: need for need in needs}
        case Seq() as needs:
            return {str(need): step for step, need in enumerate(needs) if isinstance(need, str) and need}
        case _:
            return {}


def _explained(error: ValidationError, *root: str) -> Iterator[tuple[Loc, Wrong]]:
    """What pydantic says, in our words."""
    for detail in error.errors(include_url=False):
        loc = (*root, *detail["loc"])
        yield loc, _wrong(detail, loc)


def _wrong(detail: ErrorDetails, loc: Loc) -> Wrong:
    match detail["type"]:
        case "value_error" if isinstance(wrong := detail["ctx"]["error"], Wrong):
            return wrong
        case "missing":
            return Wrong("is missing", _EXPECTED.get(str(loc[-1]), ""))
        case "extra_forbidden":
            key = str(loc[-1])
            return unknown("key", _COMPOSE.get(key, key), _keys(loc[:-1]))
        case "model_type":
            return unexpected(detail["input"], f"a mapping with {', '.join(_keys(loc))}")
        case _:
            return Wrong(detail["msg"])


def _keys(loc: Loc) -> tuple[str, ...]:
    """Of the mapping at `loc`."""
    match loc:
        case ():
            return (*Spec.model_fields, DEFAULTS)
        case (*_, "backoff"):
            return tuple(Backoff.model_fields)
        case ("defaults",):
            return tuple(key for key in Container.model_fields if key not in OWN_KEYS)
        case _:
            return tuple(Container.model_fields)


def container(entry: Mapping[str, object]) -> Container:
    """A container that no file has, as `pysup run` makes it. SpecError with all its faults."""
    try:
        return Container.model_validate(dict(entry))
    except ValidationError as error:
        lines = (f"{path_of(loc)}: {wrong}" for loc, wrong in _explained(error))
        raise SpecError(lines) from None
