"""How a spec says who a container's users are on the host: `userns: auto`, `host`, or maps of one's own."""

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from runtime.idmap import AUTO, EXTENTS_MAX, Extent, Extents, Ids
from runtime.users import ID_MAX
from supervisor.spec.faults import Wrong, unexpected
from supervisor.spec.kinds import each, keyed, listed, mapped

if TYPE_CHECKING:
    from collections.abc import Callable

AUTO_WORD, HOST_WORD = WORDS = ("auto", "host")
EXTENT_PATTERN = r"[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}"
EXPECTED = "auto, host, or {uid: [INSIDE:OUTSIDE:COUNT, …], gid: …}"

_EXTENT = re.compile(EXTENT_PATTERN)
_EXPECTED = f"INSIDE:OUTSIDE:COUNT, ids from 0 to {ID_MAX}"


def userns(value: object) -> Ids | None:
    """None: the host's. Without `gid`, groups are as users."""
    if value is None or isinstance(value, Ids):
        return value
    if isinstance(value, str):
        if value in WORDS:
            return AUTO if value == AUTO_WORD else None
        raise unexpected(value, EXPECTED, WORDS)
    parsers: dict[str, Callable[[object], object]] = {"uid": extents, "gid": extents}
    found = keyed(mapped(value, EXPECTED), parsers)
    if "uid" not in found:
        raise Wrong("is without uid", EXPECTED)
    return Ids(found["uid"], found.get("gid", found["uid"]))


def extents(value: object) -> Extents:
    """A list of them, which may not overlap on either side, and in which root has an id."""
    expected = "a list of INSIDE:OUTSIDE:COUNT"
    found = tuple(each(listed(value, expected), _extent))
    if not found or len(found) > EXTENTS_MAX:
        raise Wrong(f"has {len(found)} of them", f"1 to {EXTENTS_MAX}")
    for side in ("inside", "outside"):
        spans = sorted((getattr(one, side), one.count) for one in found)
        for (first, count), (second, _) in pairwise(spans):
            if first + count > second:
                raise Wrong(f"gives {second} twice, {side}", "each id once")
    if not any(one.inside == 0 for one in found):
        raise Wrong("is without root", "one that begins with 0 inside")
    return found


def _extent(value: object) -> Extent:
    if not isinstance(value, str) or not _EXTENT.fullmatch(value):
        raise unexpected(value, _EXPECTED)
    inside, outside, count = map(int, value.split(":"))
    if not count or max(inside, outside) + count - 1 > ID_MAX:
        raise unexpected(value, _EXPECTED)
    return Extent(inside, outside, count)


def plain(ids: Ids | None) -> object:
    """As a user would have written it."""
    if ids is None:
        return HOST_WORD
    if ids == AUTO:
        return AUTO_WORD
    return {"uid": [str(one) for one in ids.uid], "gid": [str(one) for one in ids.gid]}
