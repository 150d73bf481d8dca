"""Volumes of the stack: `docker volume ls`, `inspect`, `create`, `rm`. Each is a directory of its state."""

import re
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path

from runtime.mounts import Bind
from runtime.remove import remove_tree
from supervisor.api.call import Call
from supervisor.api.errors import bad, conflict, missing, not_offered
from supervisor.api.fields import Fields
from supervisor.api.http import Answer, Answering, shown
from supervisor.api.shapes import moment

Shape = dict[str, object]
_NAME = re.compile(r"[a-zA-Z0-9@][a-zA-Z0-9_.-]{0,127}")  # as in a spec; @: of one container, which gave it no name


async def every(call: Call) -> Answering:
    """`docker volume ls`."""
    found = await call.api.aside(_all, call.commands.volumes())
    return shown({"Volumes": found, "Warnings": None})


async def inspect(call: Call) -> Answering:
    """`docker volume inspect`."""
    return shown(await call.api.aside(_one, _place(call, call.parts["name"])))


async def create(call: Call) -> Answering:
    """`docker volume create`. One that is there already is no error, as with Docker."""
    fields = Fields(await call.request.data())
    if fields.text("Driver") not in ("", "local") or fields.below("DriverOpts").values:
        raise not_offered("a volume driver", "a volume is a directory of this machine")
    if not (name := fields.text("Name")):
        raise not_offered("a volume without a name", "name it")
    return shown(await call.api.aside(_make, _place(call, name)), HTTPStatus.CREATED)


async def remove(call: Call) -> Answering:
    """`docker volume rm`, of one that no container has."""
    name = call.parts["name"]
    place = _place(call, name)
    users = [view.id for view in call.commands.views() if name in _volumes_of(view.config.mounts)]
    if users:
        raise conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
    await call.api.aside(_remove, place)
    return Answer(status=HTTPStatus.NO_CONTENT)


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


def _remove(place: Path) -> None:
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
