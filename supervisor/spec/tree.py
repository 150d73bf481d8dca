"""A YAML document as plain data that knows where it was written.

A mapping is a `Map`, a sequence a `Seq`, a plain null None, and every other scalar the text the user wrote: a `Plain`
where it had no quotes, else a str. So nothing is guessed before it is known what is wanted: `no`, `0022`, `12:30:00`
and `1.10` are what they look like, wherever a string is expected.
"""

from typing import NamedTuple

from supervisor.spec.faults import Loc, Place

DEFAULTS = "defaults"


class Plain(str):
    """A scalar without quotes: where a number or a boolean is expected, it may be one."""

    __slots__ = ()


class Position(NamedTuple):
    line: int
    column: int


class Spot(NamedTuple):
    """Where an entry of a mapping was written."""

    key: Position
    value: Position


class Map(dict[str, object]):
    """A mapping. `inherited` are the keys that came from the spec's `defaults`."""

    __slots__ = ("inherited", "position", "spots")

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.spots: dict[str, Spot] = {}
        self.inherited: set[str] = set()

    def put(self, key: str, value: object, spot: Spot) -> None:
        self[key] = value
        self.spots[key] = spot

    def absorb(self, other: "Map") -> None:
        """Take the entries of `other` that are not here yet (`<<`: YAML's merge key)."""
        for key, value in other.items():
            if key not in self:
                self.put(key, value, other.spots[key])

    def over(self, defaults: "Map") -> "Map":
        """A mapping with what is here, and with what is in `defaults` for the rest."""
        result = Map(self.position)
        result.absorb(self)
        result.absorb(defaults)
        result.inherited = set(defaults) - set(self)
        return result

    def without(self, *keys: str) -> "Map":
        result = Map(self.position)
        for key in self:
            if key not in keys:
                result.put(key, self[key], self.spots[key])
        result.inherited = self.inherited
        return result


class Seq(list[object]):
    """A sequence."""

    __slots__ = ("position", "spots")

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position
        self.spots: list[Position] = []

    def put(self, value: object, position: Position) -> None:
        self.append(value)
        self.spots.append(position)


def locate(root: Map, loc: Loc, *, key: bool = False) -> Place:
    """Where `loc` leads, or the nearest node on the way there; with `key`, where its key is.

    What was inherited is found where it was written: in the defaults.
    """
    node: object = root
    position, path = root.position, loc
    for depth, step in enumerate(loc):
        spot = _spot(node, step)
        if spot is None:
            break
        if isinstance(node, Map) and step in node.inherited:
            path = (DEFAULTS, *loc[2:])
        position = spot.key if key and depth == len(loc) - 1 else spot.value
        node = node[step]  # type: ignore[index]  # it has that spot, so it is a Map or a Seq with that entry
    return Place(*position, path)


def _spot(node: object, step: str | int) -> Spot | None:
    match node, step:
        case Map(), str():
            return node.spots.get(step)
        case Seq(), int() if step < len(node):
            return Spot(node.spots[step], node.spots[step])
        case _:
            return None
