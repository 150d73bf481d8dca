"""A YAML document as plain data that knows where it was written.

A mapping is a `Map`, a sequence a `Seq`, a plain null None, and every other scalar the text the user wrote: a `Plain`
where it had no quotes, else a str. So nothing is guessed before it is known what is wanted: `no`, `0022`, `12:30:00`
and `1.10` are what they look like, wherever a string is expected. A `Filled` is text that variables were put into:
it has no quotes either, as nobody knows beforehand what it will hold.

A tree may be put together from several files, and a mapping from several places of one. So a position tells its file,
and a mapping tells of an entry that came from elsewhere what leads to it there (its `home`).
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

from supervisor.spec.faults import Loc, Place

DEFAULTS = "defaults"


class Plain(str):
    """A scalar without quotes: where a number or a boolean is expected, it may be one."""

    __slots__ = ()


class Filled(Plain):
    """A scalar that held variables; `origins` tells where their values came from."""

    __slots__ = ("origins",)
    origins: tuple[str, ...]

    def __new__(cls, text: str, origins: Iterable[str] = ()) -> Self:
        filled = super().__new__(cls, text)
        filled.origins = tuple(dict.fromkeys(origins))
        return filled


class Position(NamedTuple):
    """`file` is empty for the one that is being read: its report knows its name. Line 0 is nowhere in it."""

    line: int
    column: int
    file: str = ""


class Spot(NamedTuple):
    """Where an entry of a mapping was written."""

    key: Position
    value: Position


class Map(dict[str, object]):
    """A mapping. `homes` has what leads to the mappings that its entries were taken from, if not from this one.

    `home` is what leads to this one in its own file, where it is not what leads to it here. `resets` are the keys that
    are not to be inherited (Compose's tag !reset), and `whole` one that inherits none (!override).
    """

    __slots__ = ("home", "homes", "position", "resets", "spots", "whole")

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.spots: dict[str, Spot] = {}
        self.homes: dict[str, Loc] = {}
        self.home: Loc | None = None
        self.resets: frozenset[str] = frozenset()
        self.whole = False

    def put(self, key: str, value: object, spot: Spot) -> None:
        self[key] = value
        self.spots[key] = spot

    def absorb(self, other: "Map") -> None:
        """Take the entries of `other` that are not here yet (`<<`: YAML's merge key)."""
        for key, value in other.items():
            if key not in self:
                self.put(key, value, other.spots[key])

    def copy(self) -> "Map":
        """Another mapping of the same entries."""
        result = Map(self.position)
        result.update(self)
        result.spots = dict(self.spots)
        result.homes = dict(self.homes)
        result.home, result.resets, result.whole = self.home, self.resets, self.whole
        return result

    def inherit(self, key: str, base: "Map", home: Loc) -> None:
        """Take an entry of `base`, which `home` leads to in its file."""
        self.put(key, base[key], base.spots[key])
        self.homes[key] = base.homes.get(key, home)

    def over(self, base: "Map", home: Loc) -> "Map":
        """A mapping with what is here, and with what is in `base` for the rest."""
        result = self.copy()
        for key in base:
            if key not in self and key not in self.resets:
                result.inherit(key, base, home)
        return result

    def without(self, *keys: str) -> "Map":
        result = self.copy()
        for key in keys:
            if key in result:
                del result[key], result.spots[key]
        return result


class Seq(list[object]):
    """A sequence. `whole`: it is joined to no other (!override)."""

    __slots__ = ("position", "spots", "whole")

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.spots: list[Position] = []
        self.whole = False

    def put(self, value: object, position: Position) -> None:
        self.append(value)
        self.spots.append(position)


def at(position: Position, loc: Loc = ()) -> Place:
    """A position, and what leads to it, as a fault has them."""
    return Place(position.line, position.column, loc, position.file)


def locate(root: Map, loc: Loc, *, key: bool = False) -> Place:
    """Where `loc` leads, or the nearest node on the way there; with `key`, where its key is.

    What was taken from elsewhere is found where it was written: in the defaults, say.
    """
    node: object = root
    position, path = root.position, loc
    for depth, step in enumerate(loc):
        if isinstance(node, Map) and node.home is not None:
            path = (*node.home, *loc[depth:])
        spot = _spot(node, step)
        if spot is None:
            break
        if isinstance(node, Map) and step in node.homes:
            path = (*node.homes[str(step)], *loc[depth:])
        position = spot.key if key and depth == len(loc) - 1 else spot.value
        node = node[step]  # type: ignore[index]  # it has that spot, so it is a Map or a Seq with that entry
    else:
        if isinstance(node, Map) and node.home is not None:
            path = node.home
    return at(position, path)


def _spot(node: object, step: str | int) -> Spot | None:
    match node, step:
        case Map(), str():
            return node.spots.get(step)
        case Seq(), int() if step < len(node):
            return Spot(node.spots[step], node.spots[step])
        case _:
            return None
