"""Text to what a spec takes from elsewhere: `include`, `extends`, `env_file`; and to who takes part: `profiles`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.spec.faults import Wrong, unexpected
from supervisor.spec.kinds import boolean, each, keyed, listed, mapped, matching, some_text
from supervisor.spec.values import ID_PATTERN, identifier

ALL_PROFILES = "*"
_PROFILE = re.compile(ID_PATTERN)


@dataclass(frozen=True, slots=True)
class Base:
    """Another container; `file` None: of the same file."""

    id: str
    file: str | None = None


@dataclass(frozen=True, slots=True)
class EnvFile:
    path: str
    required: bool = True


def path(value: object) -> str:
    return some_text(value, "the path of a file")


def base(value: object) -> Base:
    """An id, or `{file: …, id: …}`."""
    expected = "the id of a container, or {file: …, id: …}"
    if not isinstance(value, Mapping):
        return Base(some_text(value, expected))
    given = keyed(value, {"id": identifier, "file": path})
    if "id" not in given:
        raise Wrong("is without an id", expected)
    return Base(**given)


def env_files(value: object) -> tuple[EnvFile, ...]:
    """A path, or a list of paths and of `{path: …, required: …}`."""
    if isinstance(value, str | Mapping):
        return (_env_file(value),)
    return tuple(each(listed(value, "a path, or a list of them"), _env_file))


def _env_file(value: object) -> EnvFile:
    if isinstance(value, str):
        return EnvFile(path(value))
    expected = "a path, or {path: …, required: …}"
    given = keyed(mapped(value, expected), {"path": path, "required": boolean})
    if "path" not in given:
        raise Wrong("is without a path", expected)
    return EnvFile(**given)


def includes(value: object) -> tuple[str, ...]:
    """A list of paths, or of `{path: …}`."""
    return tuple(each(listed(value, "a list of paths"), _include))


def _include(value: object) -> str:
    if isinstance(value, str):
        return path(value)
    expected = "a path, or {path: …}"
    given = keyed(mapped(value, expected), {"path": path})
    if "path" not in given:
        raise Wrong("is without a path", expected)
    found: str = given["path"]
    return found


def profiles(value: object) -> tuple[str, ...]:
    return tuple(each(listed(value, "a list of profiles"), _profile))


def _profile(value: object) -> str:
    return matching(value, _PROFILE, "a word of a-z A-Z 0-9 _ . -")


def is_active(container: Mapping[str, object], chosen: frozenset[str]) -> bool:
    """Whether one of its profiles is chosen, or it has none. One at fault is: its fault is told."""
    named = container.get("profiles")
    if not named or ALL_PROFILES in chosen or not isinstance(named, list):
        return True
    return any(isinstance(name, str) and name in chosen for name in named)


def check_profile(name: str) -> None:
    """Wrong for what can be no profile."""
    if name != ALL_PROFILES and not _PROFILE.fullmatch(name):
        raise unexpected(name, "a profile: a word of a-z A-Z 0-9 _ . -, or *")
