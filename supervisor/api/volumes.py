"""Volumes of the stack: `docker volume ls`, `inspect`, `create`, `rm`, `prune`. Each is a directory of its state."""

import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from pathlib import Path

from runtime.mounts import NAMELESS, NAMELESS_BYTES, Bind
from runtime.remove import remove_tree
from supervisor.api import changes
from supervisor.api.call import Call
from supervisor.api.errors import bad, conflict, missing, not_offered
from supervisor.api.fields import Fields
from supervisor.api.http import NOTHING, Answering, shown
from supervisor.api.queries import Filters, is_true, passes
from supervisor.api.shapes import moment

Shape = dict[str, object]
ANONYMOUS = "@"
_NAME = re.compile(r"[a-zA-Z0-9@][a-zA-Z0-9_.-]{0,127}")  # as in a spec; @: of one container, which gave it no name


async def every(call: Call) -> Answering:
    """`docker volume ls`."""
    filters = call.query.filters({"dangling", "driver", "label", "name"})
    used, found = _users(call), await call.api.aside(_all, call.commands.volumes())
    return shown({"Volumes": [each for each in found if _passes(each, filters, used)], "Warnings": None})


def _passes(shape: Shape, filters: Filters, used: Mapping[str, int]) -> bool:
    """None has labels."""
    name = str(shape["Name"])
    tests: Mapping[str, Callable[[str], bool]] = {
        "dangling": lambda wanted: is_true("dangling", wanted) is (name not in used),
        "driver": lambda wanted: wanted == "local",
        "name": lambda wanted: wanted in name,
    }
    return passes(filters, tests, {})


def _users(call: Call) -> Mapping[str, int]:
    """How many containers have which."""
    return Counter(name for view in call.commands.views() for name in _volumes_of(view.config.mounts))


async def inspect(call: Call) -> Answering:
    """`docker volume inspect`."""
    return shown(await call.api.aside(_one, _place(call, call.parts["name"])))


async def create(call: Call) -> Answering:
    """`docker volume create`. One that is there already is no error, as with Docker."""
    fields = Fields(await call.request.data())
    if fields.text("Driver") not in ("", "local") or fields.below("DriverOpts").values:
        raise not_offered("a volume driver", "a volume is a directory of this machine")
    if fields.below("Labels").values:
        raise not_offered("a volume's labels", "a volume is a directory: leave them out")
    name = fields.text("Name") or secrets.token_hex(NAMELESS_BYTES)
    return shown(await call.api.aside(_make, _place(call, name)), HTTPStatus.CREATED)


async def remove(call: Call) -> Answering:
    """`docker volume rm`, of one that no container has. With `force` one that is not there is none to complain of."""
    name = call.parts["name"]
    place = _place(call, name)
    users = [view.id for view in call.commands.views() if name in _volumes_of(view.config.mounts)]
    if users:
        raise conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
    await call.api.aside(_remove, place, call.query.truth("force"))
    return NOTHING


async def prune(call: Call) -> Answering:
    """`docker volume prune`: those that no container has. Unless `all` are asked for, only those without a name."""
    filters = call.query.filters({"all", "label", "label!"})
    every_one = call.version < (1, 42) or any(is_true("all", each) for each in filters.get("all", ()))
    directory = call.commands.volumes()
    gone, freed = [], 0
    for shape in await call.api.aside(_all, directory) if not filters.get("label") else ():
        name = str(shape["Name"])
        if name not in _users(call) and (every_one or name.startswith(ANONYMOUS) or re.fullmatch(NAMELESS, name)):
            freed += await call.api.aside(size_bytes, directory / name)
            await call.api.aside(_remove, directory / name, True)
            gone.append(name)
    return shown({"VolumesDeleted": gone, "SpaceReclaimed": freed})


async def usage(call: Call) -> list[Shape]:
    """For `docker system df`."""
    used, directory = _users(call), call.commands.volumes()
    found = []
    for shape in await call.api.aside(_all, directory):
        name = str(shape["Name"])
        size = await call.api.aside(size_bytes, directory / name)
        found.append({**shape, "UsageData": {"Size": size, "RefCount": used.get(name, 0)}})
    return found


def size_bytes(place: Path) -> int:
    """0 if it is gone."""
    try:
        return changes.size_bytes(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError:
        return 0


def _volumes_of(mounts: Collection[object]) -> set[str]:
    return {mount.volume for mount in mounts if isinstance(mount, Bind)}


def _place(call: Call, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise bad(f"{name[:100]!r} includes invalid characters for a volume name: only {_NAME.pattern} is allowed")
    return call.commands.volumes() / name


def _all(directory: Path) -> list[Shape]:
    if not directory.is_dir():
        return []
    return [_shape(place) for place in sorted(directory.iterdir()) if _NAME.fullmatch(place.name)]


def _one(place: Path) -> Shape:
    if not place.is_dir():
        raise missing(f"get {place.name}: no such volume")
    return _shape(place)


def _make(place: Path) -> Shape:
    place.parent.mkdir(0o700, exist_ok=True)
    try:
        place.mkdir(0o755)
    except FileExistsError:
        return _one(place)
    place.chmod(0o755)  # whatever our umask
    return _shape(place)


def _remove(place: Path, force: bool) -> None:
    if force and not place.is_dir():
        return
    _one(place)
    remove_tree(str(place))


def _shape(place: Path) -> Shape:
    return {
        "Name": place.name,
        "Driver": "local",
        "Mountpoint": str(place),
        "CreatedAt": moment(place.stat().st_ctime),
        "Status": {},
        "Labels": {},
        "Scope": "local",
        "Options": {},
    }
