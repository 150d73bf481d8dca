"""Paths of the host's in a file are relative to its folder: made absolute as soon as the file is read, so that they
mean the same wherever the container that has them ends up, and in what `pysup config` prints.
"""

import os
from collections.abc import Iterator

from supervisor.spec.merge import CONTAINERS
from supervisor.spec.mounts import Kind, is_path
from supervisor.spec.terms import SECCOMP_WORDS
from supervisor.spec.tree import DEFAULTS, Filled, Map, Plain, Seq


def anchor(document: Map, folder: str) -> None:
    """Make the paths in a file's containers and defaults absolute, and those of its secrets and configs."""
    for entries in _entries(document):
        profile = entries.get("seccomp")
        if isinstance(profile, str) and names_a_profile(profile):
            entries["seccomp"] = _retyped(profile, absolute(profile, folder))
        volumes = entries.get("volumes")
        if isinstance(volumes, Seq):
            volumes[:] = [_of_volume(volume, folder) for volume in volumes]
    for key in ("secrets", "configs"):
        sources = document.get(key)
        for source in sources.values() if isinstance(sources, Map) else ():
            if isinstance(source, Map) and isinstance(file := source.get("file"), str) and file:
                source["file"] = _retyped(file, _of_user(file, folder))


def _of_volume(volume: object, folder: str) -> object:
    """In the short form or the long one; a source that is no path is the name of a volume."""
    if isinstance(volume, str):
        path, colon, rest = volume.partition(":")
        return _retyped(volume, _of_user(path, folder) + colon + rest) if colon and is_path(path) else volume
    source = volume.get("source") if isinstance(volume, Map) else None
    if isinstance(volume, Map) and isinstance(source, str) and (is_path(source) or volume.get("type") == Kind.BIND):
        volume["source"] = _retyped(source, _of_user(source, folder))
    return volume


def _of_user(path: str, folder: str) -> str:
    return absolute(os.path.expanduser(path), folder)  # noqa: PTH111 (a path may hold a NUL)


def _entries(document: Map) -> Iterator[Map]:
    containers = document.get(CONTAINERS)
    every = [document.get(DEFAULTS), *(containers if isinstance(containers, Seq) else ())]
    yield from (entries for entries in every if isinstance(entries, Map))


def names_a_profile(text: str) -> bool:
    """Whether it is a path, and not a word or a profile itself."""
    return bool(text) and text not in SECCOMP_WORDS and not text.lstrip().startswith("{")


def absolute(path: str, folder: str) -> str:
    """From a folder that may be relative to our own; `..` stays, for what is before it may be a symbolic link."""
    return path if path.startswith("/") else os.path.join(os.path.abspath(folder), path.removeprefix("./"))  # noqa: PTH100, PTH118 (a path may hold a NUL)


def _retyped(old: str, new: str) -> str:
    if isinstance(old, Filled):
        return Filled(new, old.origins)
    return Plain(new) if isinstance(old, Plain) else new
