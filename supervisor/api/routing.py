"""A request to its handler: method and path, with or without a version of Docker's API before it.

A template's parameters stand in braces: `{id}` is one part of the path, `{name...}` all that is left but a fixed end
(an image's name has slashes). What Docker offers and pysup does not is a table of its own, so that a caller is told so,
and not that there is no such page.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from supervisor.api.call import Call
from supervisor.api.errors import RefusedError, bad, missing, not_offered
from supervisor.api.http import Answering, Request

Version = tuple[int, int]
Handler = Callable[[Call], Awaitable[Answering]]

OLDEST: Final[Version] = (1, 41)
NEWEST: Final[Version] = (1, 47)
_VERSIONED = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Route:
    """A call that is offered."""

    method: str
    template: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class Gap:
    """A call of Docker's that is not: what it is, and what to do in its place."""

    method: str
    template: str
    what: str
    instead: str


@dataclass(frozen=True, slots=True)
class Match:
    """A request, understood."""

    handler: Handler
    version: Version
    parts: Mapping[str, str]


class Routes:
    """Both tables, ready to be asked."""

    def __init__(self, routes: Sequence[Route], gaps: Sequence[Gap]) -> None:
        self._routes = [(route, _pattern(route.template)) for route in routes]
        self._gaps = [(gap, _pattern(gap.template)) for gap in gaps]

    def match(self, request: Request) -> Match:
        """RefusedError if there is no such call, or not in that version."""
        version, path = _version(re.sub(r"/{2,}", "/", request.path))  # a name may come with Docker's slash before it
        for route, pattern in self._routes:
            if route.method == request.method and (found := pattern.fullmatch(path)):
                parts = {name: unquote(value) for name, value in found.groupdict().items()}
                return Match(route.handler, version, parts)
        raise self._unknown(request.method, path)

    def _unknown(self, method: str, path: str) -> RefusedError:
        for gap, pattern in self._gaps:
            if gap.method in {method, "*"} and pattern.fullmatch(path):
                return not_offered(gap.what, gap.instead)
        return missing("page not found")


def _pattern(template: str) -> re.Pattern[str]:
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}").replace(r"\.\.\.", "...")
    wide = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", escaped)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", wide))


def _version(path: str) -> tuple[Version, str]:
    """The version a path asks for, and the rest of it. Messages are Docker's: tools look at them."""
    found = _VERSIONED.fullmatch(path)
    if found is None:
        return NEWEST, path
    version = int(found[1]), int(found[2])
    if version > NEWEST:
        raise bad(f"client version {_dotted(version)} is too new. Maximum supported API version is {_dotted(NEWEST)}")
    if version < OLDEST:
        raise bad(
            f"client version {_dotted(version)} is too old. Minimum supported API version is {_dotted(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    return version, found[3]


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


API_VERSION, OLDEST_API_VERSION = _dotted(NEWEST), _dotted(OLDEST)
