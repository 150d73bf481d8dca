"""A stack file, or several, to a spec, or to all that is wrong with it.

The files are read and put together to one tree (sources.py), whose containers are complete; the model parses it. What
pydantic finds is told with the places of the tree, and along with what is wrong between the containers and with their
images.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from supervisor.errors import SpecError
from supervisor.spec import graph, values
from supervisor.spec.envfile import read_env_file
from supervisor.spec.explain import add, explained
from supervisor.spec.faults import Report, Wrong, path_of
from supervisor.spec.interpolate import Variables
from supervisor.spec.model import Container, Source, Spec
from supervisor.spec.sharing import check_profile
from supervisor.spec.sources import Sources, beside
from supervisor.spec.tree import Map, Position, Seq, Spot, locate

Check = Callable[[str], str | None]  # what is wrong with the image of this name
FilePath = str | os.PathLike[str]

ENV_FILE = ".env"
NOWHERE = Position(0, 0)


def load(
    paths: FilePath | Sequence[FilePath],
    check: Check | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    env_file: FilePath | None = None,
    profiles: Iterable[str] = (),
    seen: list[str] | None = None,
) -> Spec:
    """The spec in the file at `paths`, or in several, each laid over those before it. SpecError with all its faults,
    and those that `check` finds with its images.

    `variables` are those that may stand in it; None: the environment's, and those of `.env` beside the first file.
    `env_file` takes the place of `.env`. Containers of other `profiles` than these take no part.
    `seen` gets the files that say what is in the spec, those that are looked for and missing included.
    """
    files = [os.fspath(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    report = Report(files[0])
    looked_at = seen if seen is not None else []
    known = _variables(report, variables, env_file, looked_at)
    sources = Sources(report, known, _chosen(profiles), looked_at)
    tree, inactive = sources.tree(files)
    if "name" not in tree:
        tree.put("name", default_name(report.file), Spot(NOWHERE, NOWHERE))
    if check:
        _check_images(tree, check, report)
    spec = _parse(Source(report.file, tree, inactive), report)
    report.check()
    return spec


def _chosen(profiles: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(profiles)
    try:
        for name in chosen:
            check_profile(name)
    except Wrong as wrong:
        raise SpecError([f"--profile: {wrong}"]) from None
    return chosen


def _variables(
    report: Report, given: Mapping[str, str] | None, env_file: FilePath | None, seen: list[str]
) -> Variables:
    """Those of a file are read with those of the environment known."""
    environment = os.environ if given is None else given
    file = beside(report.file, ENV_FILE) if env_file is None else os.fspath(env_file)
    is_read = env_file is not None or (given is None and os.path.isfile(file))  # noqa: PTH113 (a path may hold a NUL)
    known = Variables(environment)
    seen.append(file)
    return Variables(environment, read_env_file(report, file, known)) if is_read else known


def default_name(file: str) -> str:
    """The name of the file's folder, as far as it can be one."""
    folder = Path(os.path.abspath(file)).parent.name  # noqa: PTH100 (folds `..`, and leaves symlinks alone)
    return re.sub("[^a-z0-9_.-]", "-", folder.lower()).lstrip("_.-")[:63] or "stack"


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


def _parse(source: Source, report: Report) -> Spec:
    tree = source.tree
    for loc, wrong in graph.faults(list(_entries(tree)), source.inactive):
        add(report, tree, loc, wrong)
    try:
        return Spec.from_tree(source)
    except ValidationError as error:
        for loc, wrong in explained(error):
            if loc:  # what the whole spec is told of was told above, with its places
                add(report, tree, loc, wrong)
    raise report.error()


def _entries(tree: Map) -> Iterator[graph.Entry]:
    """What can be made out of the containers, sound or not."""
    for index, container in _containers(tree):
        if isinstance(id_ := container.get("id"), str):
            yield graph.Entry(index, str(id_), _replicas(container), _needs(container), _checks(container))


def _replicas(container: Map) -> int:
    try:
        return values.replicas(container.get("replicas", 1))
    except Wrong:
        return 1


def _checks(container: Map) -> frozenset[str]:
    """One at fault is one, too."""
    return frozenset(key for key in ("ready", "health") if container.get(key) not in (None, "none"))


def _needs(container: Map) -> dict[str, graph.Need]:
    match container.get("depends_on"):
        case Map() as needs:
            return {id_: _need(id_, need) for id_, need in needs.items()}
        case Seq() as needs:
            return {str(id_): graph.Need(step) for step, id_ in enumerate(needs) if isinstance(id_, str) and id_}
        case _:
            return {}


def _need(id_: str, written: object) -> graph.Need:
    """What is at fault in it is told elsewhere."""
    try:
        need = values.dependency(written)
    except (Wrong, ValidationError):
        return graph.Need(id_)
    return graph.Need(id_, need.condition, need.required)


def container(entry: Mapping[str, object]) -> Container:
    """A container that no file has, as `pysup run` makes it. SpecError with all its faults."""
    try:
        return Container.model_validate(dict(entry))
    except ValidationError as error:
        lines = (f"{path_of(loc)}: {wrong}" for loc, wrong in explained(error))
        raise SpecError(lines) from None
