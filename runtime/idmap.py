"""Users and groups of a container, as they are called inside and on the host: user_namespaces(7).

With ids of its own a container is in a user namespace that was made before its first run and outlives its runs, so a
restart costs no more. What it is mounted and what it writes goes through idmapped mounts (mount_setattr(2)): on disk,
in images, uppers and volumes, everything has the ids that it has inside. So nothing is ever chowned, what is kept does
not depend on which ids a container was given, and those can be given to another one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

EXTENTS_MAX = 340  # UID_GID_MAP_MAX_EXTENTS
BLOCK = 65_536  # ids of a container that is given some
NOBODY = 65_534  # as whom the kernel shows what has no name inside: /proc/sys/kernel/overflowuid


@dataclass(frozen=True, slots=True)
class Extent:
    """So many ids in a row."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside}:{self.outside}:{self.count}"


Extents = tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class Ids:
    """Who is who."""

    uid: Extents
    gid: Extents

    def __str__(self) -> str:
        sides = (",".join(map(str, extents)) for extents in (self.uid, self.gid))
        return " ".join(dict.fromkeys(sides)) or "auto"

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """What the host calls them. Who is not mapped is the container's root."""
        root = tuple(_outside(extents, 0) or 0 for extents in (self.uid, self.gid))
        return (
            root[0] if (one := _outside(self.uid, uid)) is None else one,
            root[1] if (other := _outside(self.gid, gid)) is None else other,
        )

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """What the container calls them."""
        return _inside(self.uid, uid), _inside(self.gid, gid)


AUTO = Ids((), ())  # a block that nobody else has, chosen when it is first started


def block(first: int) -> Ids:
    """A whole block of the host's ids."""
    extents = (Extent(0, first, BLOCK),)
    return Ids(extents, extents)


def written(extents: Iterable[Extent]) -> bytes:
    """As the kernel takes them, in one write(2)."""
    return b"".join(b"%d %d %d\n" % (each.inside, each.outside, each.count) for each in extents)


def _outside(extents: Extents, wanted: int) -> int | None:
    return next((e.outside + wanted - e.inside for e in extents if 0 <= wanted - e.inside < e.count), None)


def _inside(extents: Extents, wanted: int) -> int:
    return next((e.inside + wanted - e.outside for e in extents if 0 <= wanted - e.outside < e.count), NOBODY)
