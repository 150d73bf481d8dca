"""Paths of the host's in a file are relative to its folder: made absolute as soon as the file is read, so that they
mean the same wherever the container that has them ends up, and in what `pysup config` prints.
"""

import os
from collections.abc import Iterator

from supervisor.spec.merge import CONTAINERS
from supervisor.spec.terms import SECCOMP_WORDS
from supervisor.spec.tree import DEFAULTS, Filled, Map, Plain, Seq


def anchor(document: Map, folder: str) -> None:
    """Make the paths in a file's containers and defaults absolute."""
    for entries in _entries(document):
        profile = entries.get("seccomp")
        if isinstance(profile, str) and names_a_profile(profile):
            entries["seccomp"] = _retyped(profile, absolute(profile, folder))


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
