"""Images: `docker images`, `image inspect`, `tag`, `rmi`, `load` and `import`."""

import fnmatch
import platform
import secrets
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import IO

from supervisor.api.archive import stream_in
from supervisor.api.call import Call
from supervisor.api.errors import bad, not_offered
from supervisor.api.http import Answer, Answering, encoded, shown
from supervisor.api.queries import Filters, is_true
from supervisor.api.shapes import Shape
from supervisor.api.shelf import Known, tagged, untagged

FILTERS = frozenset({"reference", "dangling", "label", "before", "since", "until"})
_MACHINES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}  # as Go names them


async def every(call: Call) -> Answering:
    """`docker images`."""
    filters = call.query.filters(FILTERS)
    found = await call.api.aside(call.api.images.all)
    return shown([summary(known) for known in found if _passes(known, filters)])


def _passes(known: Known, filters: Filters) -> bool:
    """No image here has labels, and none is without a name."""
    references = filters.get("reference", ())
    if references and not any(_is_called(known, wanted) for wanted in references):
        return False
    return not filters.get("label") and all(wanted in {"false", "0"} for wanted in filters.get("dangling", ()))


def _is_called(known: Known, wanted: str) -> bool:
    return any(fnmatch.fnmatchcase(each, wanted) for name in known.names for each in (name, tagged(name)))


def summary(known: Known) -> Shape:
    """An element of the list."""
    return {
        "Id": known.id,
        "ParentId": "",
        "RepoTags": [tagged(name) for name in known.names],
        "RepoDigests": [],
        "Created": int(known.info.created.timestamp()),
        "Size": known.info.size_bytes,
        "VirtualSize": known.info.size_bytes,
        "SharedSize": -1,
        "Labels": {},
        "Containers": -1,
    }


async def inspect(call: Call) -> Answering:
    """`docker image inspect`."""
    known = await call.api.aside(call.api.images.find, call.parts["name"])
    return shown(
        {
            "Id": known.id,
            "RepoTags": [tagged(name) for name in known.names],
            "RepoDigests": [],
            "Parent": "",
            "Comment": "",
            "Created": known.info.created.isoformat().replace("+00:00", "Z"),
            "Author": "",
            "Config": {"Cmd": None, "Entrypoint": None, "Env": None, "Labels": {}, "Volumes": None, "WorkingDir": ""},
            "Architecture": architecture(),
            "Os": "linux",
            "Size": known.info.size_bytes,
            "VirtualSize": known.info.size_bytes,
            "GraphDriver": {"Name": "overlay", "Data": {"LowerDir": str(known.info.path)}},
            "RootFS": {"Type": "layers", "Layers": [known.id]},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        }
    )


def architecture() -> str:
    """Of this machine, as Go names it."""
    return _MACHINES.get(platform.machine(), platform.machine())


async def tag(call: Call) -> Answering:
    """`docker tag`."""
    repository = call.query.text("repo")
    if not repository:
        raise bad("repo: the new name is needed")
    name = untagged(repository, call.query.text("tag"))
    await call.api.aside(call.api.images.tag, call.parts["name"], name)
    return Answer(status=HTTPStatus.CREATED)


async def remove(call: Call) -> Answering:
    """`docker rmi`."""
    in_use = [lower for view in call.commands.views() for lower in view.config.lowers]
    done = await call.api.aside(call.api.images.remove, call.parts["name"], in_use)
    return shown([{what: which} for what, which in done])


async def prune(call: Call) -> Answering:
    """`docker image prune`, of those without a name: there are none. Those that nobody uses now may be others'."""
    filters = call.query.filters({"dangling", "until", "label", "label!"})
    if not all(is_true("dangling", each) for each in filters.get("dangling", ())):
        raise not_offered("removing all unused images", "other stacks may use them: remove them by name")
    return shown({"ImagesDeleted": [], "SpaceReclaimed": 0})


async def prune_builds(_call: Call) -> Answering:
    """`docker builder prune`: nothing is built here, and nothing cached."""
    return shown({"CachesDeleted": [], "SpaceReclaimed": 0})


async def load(call: Call) -> Answering:
    """`docker load`, of the tar of a root file system. Docker's has no parameter for a name: `name` is pysup's own."""
    name = call.query.text("name") or f"loaded-{secrets.token_hex(4)}"
    await stream_in(call.api, call.request.pieces(), partial(_load, call, name))
    return Answer(encoded({"stream": f"Loaded image: {tagged(name)}\n"}))


async def create(call: Call) -> Answering:
    """`docker import`, of a root file system that comes with the request; `docker pull` comes here too."""
    query = call.query
    if query.text("fromSrc") != "-":
        raise not_offered("pulling an image", "make one by `pysup image create`, or docker import a root file system")
    name = untagged(query.text("repo"), query.text("tag"))
    if not name:
        raise bad("repo: the image's name is needed")
    identity = await stream_in(call.api, call.request.pieces(), partial(_load, call, name))
    return Answer(encoded({"status": identity}))


def _load(call: Call, name: str, source: IO[bytes]) -> str:
    return call.api.images.load(name, source)
