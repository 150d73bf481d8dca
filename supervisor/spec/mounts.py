"""Text to what a container sees beside its image, as Compose has it: volumes, tmpfs, devices, secrets, configs; and to
what a stack has of volumes, secrets and configs.

Targets are paths in the container, normal ones, and none where the kernel's own file systems are. Sources in a
file are absolute by now (paths.py); one that is relative all the same was written in code, or on a command line.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from runtime.mounts import Device, Propagation
from runtime.users import ID_MAX
from supervisor.spec import later, limits
from supervisor.spec.faults import Wrong, quoted, unexpected, unknown
from supervisor.spec.kinds import (
    absolute,
    boolean,
    choice,
    each,
    keyed,
    listed,
    mapped,
    matching,
    pairs,
    replica_text,
    size,
    some_text,
    text,
    whole,
)
from supervisor.spec.tree import Plain
from supervisor.spec.values import ID_PATTERN

SECRETS = "/run/secrets"
SECRET_MODE = 0o400
TMPFS_MODE = 0o1777
STANDARD_DEVICES = frozenset(
    "null zero full random urandom tty ptmx fd stdin stdout stderr pts shm mqueue notify".split()
)
_NAME = re.compile(ID_PATTERN)
_VOLUME_NAME = re.compile(ID_PATTERN)
_MODE = re.compile(r"(?:0[oO]?)?([0-7]{1,4})")
_KERNELS = ("/proc", "/sys")


class Kind(StrEnum):
    """What is mounted."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class Volume:
    """One mount of a container. Which fields have a meaning depends on its type."""

    type: Kind
    target: str
    source: str = ""  # a path, or the name of a volume; empty: a volume of this container's own
    read_only: bool = False
    suid: bool = False
    dev: bool = False
    exec: bool = True
    propagation: Propagation = Propagation.PRIVATE
    create_host_path: bool = True
    recursive: bool = True
    nocopy: bool = False
    subpath: str = ""
    size: int | None = None
    mode: int = TMPFS_MODE
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """A secret or config of the stack, as one container sees it. No uid or gid: its user's."""

    source: str
    target: str
    uid: int | None = None
    gid: int | None = None
    mode: int = SECRET_MODE


@dataclass(frozen=True, slots=True)
class NamedVolume:
    """A volume of the stack. With a `name` it is the machine's; `external`: it must be there."""

    name: str | None = None
    external: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where a secret or config comes from: one of a file, a variable of our environment, and what is written here."""

    file: str | None = None
    environment: str | None = None
    content: str | None = field(default=None, repr=False)


# --- volumes ----------------------------------------------------------------------------------------------------------

VOLUME_EXPECTED = "SOURCE:TARGET[:OPTIONS], or {type: bind, volume or tmpfs, source: …, target: …}"
_OPTIONS: dict[str, dict[str, object]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    **{word: {word: True} for word in ("suid", "dev", "exec", "nocopy")},
    **{f"no{word}": {word: False} for word in ("suid", "dev", "exec")},
    **{prefix + word.value: {"propagation": word} for word in Propagation for prefix in ("", "r")},
    **{word: {} for word in ("consistent", "cached", "delegated")},  # of Docker Desktop's
}
_SHARED = Wrong("shared is not offered: what the container mounts would appear on the host", "private or slave")
_LABELS = Wrong("z and Z are not offered: pysup sets no SELinux labels", "a source that has its label already")
_REFUSED = {"shared": _SHARED, "rshared": _SHARED, "z": _LABELS, "Z": _LABELS}


def volumes(value: object) -> tuple[Volume, ...]:
    """A list, each in the short form or the long one."""
    return tuple(each(listed(value, "a list of volumes"), volume))


def volume(value: object) -> Volume:
    if isinstance(value, Volume):
        return value
    if isinstance(value, Mapping):
        return _long(value)
    parts = replica_text(value, VOLUME_EXPECTED).split(":")
    if len(parts) > 3 or not all(parts):
        raise unexpected(value, VOLUME_EXPECTED)
    if len(parts) == 1:
        return Volume(Kind.VOLUME, target(parts[0]))
    kind = Kind.BIND if is_path(parts[0]) else Kind.VOLUME
    options = _options(parts[2].split(",")) if len(parts) > 2 else {}
    return Volume(kind, target(parts[1]), _source(kind, parts[0]), **options)


def is_path(source: str) -> bool:
    """And not the name of a volume."""
    return source.startswith(("/", ".", "~"))


def _source(kind: Kind, source: str) -> str:
    if kind is Kind.BIND:
        if len(later.sample(source).encode()) > limits.PATH_MAX_BYTES:
            raise unexpected(source, "a path of the host's")
        return source
    if not _VOLUME_NAME.fullmatch(later.sample(source)):
        raise Wrong(f"has the source {quoted(source)}", "a path that begins with / or ./, or the name of a volume")
    return source


def _options(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        if word in _REFUSED:
            raise Wrong(_REFUSED[word].what, str(_REFUSED[word]).partition(", expected ")[2])
        if word not in _OPTIONS:
            raise unknown("option", word, _OPTIONS)
        found |= _OPTIONS[word]
    return found


def _words(value: object) -> dict[str, Any]:
    """Of the long form: a list, or as in the short one."""
    words = value.split(",") if isinstance(value, str) else each(listed(value, "a list of options"), text)
    return _options([str(word) for word in words])


def _long(value: Mapping[str, object]) -> Volume:
    given = keyed(value, _LONG)
    if "target" not in given:
        raise Wrong("is without a target", VOLUME_EXPECTED)
    source = given.get("source", "")
    kind = given.pop("type", None) or (Kind.BIND if is_path(source) else Kind.VOLUME)
    if kind is Kind.BIND and not source:
        raise Wrong("is without a source", "a path of the host's")
    if kind is Kind.TMPFS and source:
        raise Wrong(f"is {quoted(source)}", "none: a tmpfs has no source").within("source")
    flat: dict[str, Any] = {"source": _source(kind, source) if source else ""}
    for key in ("options", *(other.value for other in Kind)):
        if (more := given.pop(key, None)) is not None:
            if key in Kind.__members__.values() and key != kind:
                raise Wrong(f"is of a {kind}", f"{kind}: …", at_key=True).within(key)
            flat |= more
    executes = {} if kind is not Kind.TMPFS else {"exec": False}
    return Volume(kind, **{**executes, **given, **flat})


def _propagation(value: object) -> Propagation:
    word = text(value)
    if word in _REFUSED:
        raise Wrong(_REFUSED[word].what, "private or slave")
    return choice(word.removeprefix("r") if word in ("rprivate", "rslave") else word, Propagation)


def _nested(parsers: Mapping[str, Callable[[object], object]]) -> Callable[[object], dict[str, Any]]:
    expected = f"{{{', '.join(f'{key}: …' for key in parsers)}}}"
    return lambda value: {} if value is None else keyed(mapped(value, expected), parsers)


def _recursive(value: object) -> bool:
    if isinstance(value, str) and value in ("enabled", "disabled"):  # Docker's words
        return value == "enabled"
    return boolean(value)


def _subpath(value: object) -> str:
    path = replica_text(value)
    if path.startswith("/") or ".." in path.split("/"):
        raise Wrong(f"is {quoted(path)}", "a path in the volume")
    return path


def mode(value: object) -> int:
    """Octal digits, whatever they look like."""
    if isinstance(value, int) and not isinstance(value, bool):
        return whole(value, 0, 0o7777)
    found = _MODE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise unexpected(value, "octal digits, such as 0755")
    return int(found[1], 8)


def target(value: object) -> str:
    """Where something is mounted: normal, and not where the kernel's own file systems are."""
    expected = "an absolute path in the container"
    path = absolute(value, expected)
    if ".." in path.split("/"):
        raise Wrong(f"is {quoted(path)}", f"{expected} without ..")
    normal = posixpath.normpath(path)
    normal = normal.removeprefix("/") if normal.startswith("//") else normal
    if normal in ("/", "/dev"):
        raise Wrong(f"is {quoted(path)}", f"{expected} below it")
    if any(normal == each or normal.startswith(f"{each}/") for each in _KERNELS):
        raise Wrong(f"is {quoted(path)}", f"{expected} that is not the kernel's own: not in /proc or /sys")
    return normal


def _id(value: object) -> int:
    return whole(Plain(value) if isinstance(value, str) else value, 0, ID_MAX)


_LONG: dict[str, Callable[[object], object]] = {
    "type": lambda value: choice(value, Kind),
    "source": replica_text,
    "target": target,
    "read_only": boolean,
    "options": _words,
    "bind": _nested({"propagation": _propagation, "create_host_path": boolean, "recursive": _recursive}),
    "volume": _nested({"nocopy": boolean, "subpath": _subpath}),
    "tmpfs": _nested({"size": size, "mode": mode, "uid": _id, "gid": _id}),
    "consistency": text,
}


# --- tmpfs ------------------------------------------------------------------------------------------------------------

TMPFS_EXPECTED = "a path in the container, and what a tmpfs is to be: /tmp:size=64m,mode=1777"
_TMPFS: dict[str, Callable[[object], object]] = {"size": size, "mode": mode, "uid": _id, "gid": _id}


def tmpfs(value: object) -> tuple[Volume, ...]:
    """A path with options, or a list of them."""
    if isinstance(value, str):
        return (_tmpfs(value),)
    return tuple(each(listed(value, f"{TMPFS_EXPECTED}; or a list of such"), _tmpfs))


def _tmpfs(value: object) -> Volume:
    if isinstance(value, Volume):
        return value
    path, _, options = replica_text(value, TMPFS_EXPECTED).partition(":")
    found: dict[str, Any] = {"exec": False}
    for word in filter(None, options.split(",")):
        key, equals, given = word.partition("=")
        if key not in _TMPFS:
            found |= _options([word])
        elif not equals:
            raise Wrong(f"has {key} without a value", TMPFS_EXPECTED)
        else:
            found[key] = _TMPFS[key](Plain(given))
    return Volume(Kind.TMPFS, target(path), **found)


# --- secrets and configs ----------------------------------------------------------------------------------------------


def secrets(value: object) -> tuple[Grant, ...]:
    """A list of names of the stack's secrets, or of `{source: …, target: …, uid: …, gid: …, mode: …}`."""
    return _grants(value, SECRETS)


def configs(value: object) -> tuple[Grant, ...]:
    """The same of configs."""
    return _grants(value, "")


def _grants(value: object, place: str) -> tuple[Grant, ...]:
    return tuple(each(listed(value, "a list of names"), lambda entry: _grant(entry, place)))


def _grant(value: object, place: str) -> Grant:
    if isinstance(value, Grant):
        return value
    expected = "a name, or {source: …, target: …, uid: …, gid: …, mode: …}"
    if not isinstance(value, Mapping):
        name = matching(value, _NAME, expected)
        return Grant(name, f"{place}/{name}")
    given = keyed(value, {"source": _name, "target": replica_text, "uid": _id, "gid": _id, "mode": mode})
    if "source" not in given:
        raise Wrong("is without a source", expected)
    where = given.get("target", given["source"])
    try:
        return Grant(**{**given, "target": target(where if where.startswith("/") else f"{place}/{where}")})
    except Wrong as wrong:
        raise wrong.within("target") from None


def _name(value: object) -> str:
    return matching(value, _NAME, "a name")


def sources(value: object) -> dict[str, Source]:
    """The stack's secrets or configs."""
    return dict(each(pairs(mapped(value, "a mapping of names")), lambda pair: (_key(pair[0]), source(pair[1]))))


def source(value: object) -> Source:
    if isinstance(value, Source):
        return value
    expected = "one of file, environment and content"
    given = keyed(mapped(value, expected), {"file": _file, "environment": _variable, "content": _content})
    if len(given) != 1:
        raise Wrong(f"has {' and '.join(given) or 'neither'}", expected)
    return Source(**given)


def _file(value: object) -> str:
    return some_text(value, "the path of a file")


def _variable(value: object) -> str:
    return some_text(value, "the name of a variable of pysup's own environment")


def _content(value: object) -> str:
    if value is None:
        raise Wrong("is hidden, as in what `pysup config` prints", "the content itself, or a file")
    return text(value)


def _key(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Wrong(f"{quoted(name)} is no name", "up to 63 of a-z A-Z 0-9 _ . -", at_key=True)
    return name


def named_volumes(value: object) -> dict[str, NamedVolume]:
    """The stack's volumes."""
    return dict(each(pairs(mapped(value, "a mapping of names")), lambda pair: (_key(pair[0]), _named(pair[1]))))


def _named(value: object) -> NamedVolume:
    if isinstance(value, NamedVolume):
        return value
    expected = "nothing, or {name: …, external: …}"
    given = keyed({} if value is None else mapped(value, expected), {**_NAMED, "driver": _driver})
    given.pop("driver", None)
    return NamedVolume(**given)


def _driver(value: object) -> None:
    if text(value) not in ("", "local"):
        raise Wrong(f"is {quoted(str(value))}", "local: a directory of this machine")


_NAMED: dict[str, Callable[[object], object]] = {
    "name": lambda value: None if value is None else _name(value),
    "external": boolean,
}


# --- devices ----------------------------------------------------------------------------------------------------------

DEVICE_EXPECTED = "a device of the host, as /dev/kvm or /dev/kvm:/dev/other"


def devices(value: object) -> tuple[Device, ...]:
    """A list of `SOURCE[:TARGET[:rwm]]`, or of `{source: …, target: …, permissions: …}`."""
    return tuple(each(listed(value, "a list of devices"), device))


def device(value: object) -> Device:
    if isinstance(value, Device):
        return value
    if isinstance(value, Mapping):
        given = keyed(value, dict.fromkeys(("source", "target", "permissions"), text))
        parts = [given.get("source", ""), given.get("target", given.get("source", "")), given.get("permissions", "rwm")]
    else:
        parts = text(value, DEVICE_EXPECTED).split(":")
        parts += (parts[0], "rwm")[len(parts) - 1 :]
    if len(parts) > 3:
        raise unexpected(value, DEVICE_EXPECTED)
    _check_permissions(parts[2])
    return Device(absolute(parts[0], DEVICE_EXPECTED), _in_dev(parts[1]), parts[2])


def _check_permissions(words: str) -> None:
    if not set(words) & {"r", "w"} or not set(words) <= {"r", "w", "m"}:
        raise Wrong(f"has the permissions {quoted(words)}", "r, w or rw, and perhaps m; or none, which is rwm")


def _in_dev(path: str) -> str:
    where = target(path)
    name = where.removeprefix("/dev/")
    if name == where:
        raise Wrong(f"has the target {quoted(path)}", "a path in /dev: a device is none anywhere else")
    if name.partition("/")[0] in STANDARD_DEVICES:
        raise Wrong(f"has the target {quoted(path)}", "one that a container does not have anyway")
    return where


# --- together ---------------------------------------------------------------------------------------------------------


def written(volume: Volume) -> dict[str, object]:
    """In the long form, so that it is read as the same again."""
    options = [word if getattr(volume, word) else f"no{word}" for word in ("suid", "dev", "exec")]
    result: dict[str, object] = {"type": volume.type.value, "target": volume.target, "options": options}
    if volume.source:
        result["source"] = volume.source
    result["read_only"] = volume.read_only
    match volume.type:
        case Kind.BIND:
            of_bind = {"create_host_path": volume.create_host_path, "recursive": volume.recursive}
            result["bind"] = {"propagation": volume.propagation.value, **of_bind}
        case Kind.VOLUME:
            result["volume"] = {"nocopy": volume.nocopy, "subpath": volume.subpath}
        case Kind.TMPFS:
            result["tmpfs"] = {key: value for key, value in _of_tmpfs(volume).items() if value is not None}
    return result


def _of_tmpfs(volume: Volume) -> dict[str, object]:
    return {"size": volume.size, "mode": f"{volume.mode:04o}", "uid": volume.uid, "gid": volume.gid}


def written_tmpfs(volume: Volume) -> str:
    """In the one form that it has."""
    options = [word if getattr(volume, word) else f"no{word}" for word in ("suid", "dev", "exec")]
    values = [f"{key}={value}" for key, value in _of_tmpfs(volume).items() if value is not None]
    return f"{volume.target}:{','.join(['ro' if volume.read_only else 'rw', *options, *values])}"


def written_grant(grant: Grant) -> dict[str, object]:
    """In the long form."""
    ids = {"uid": grant.uid, "gid": grant.gid}
    result = {"source": grant.source, "target": grant.target, "mode": f"{grant.mode:04o}"}
    return {**result, **{key: value for key, value in ids.items() if value is not None}}


def written_source(source: Source) -> dict[str, object]:
    """Less what is a secret: that is not read again."""
    given = {"file": source.file, "environment": source.environment}
    return {key: value for key, value in given.items() if value is not None} or {"content": None}


def target_of(key: str, value: object) -> str | None:
    """Where an entry of a list goes, however it is written; None if it has faults."""
    parse = PARSERS[key]
    try:
        found: Any = parse(value)
    except ValueError:  # Wrong, and pydantic's
        return None
    return str(found.target)


PARSERS: dict[str, Callable[[object], object]] = {
    "volumes": volume,
    "tmpfs": _tmpfs,
    "secrets": lambda value: _grant(value, SECRETS),
    "configs": lambda value: _grant(value, ""),
    "devices": device,
}
