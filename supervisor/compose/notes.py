"""What did not carry over, and where it was written: one line each, which editors follow like those of a fault."""

from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.spec.faults import Fault, Loc, Place, path_of
from supervisor.spec.tree import Map, locate


class Kind(StrEnum):
    DROPPED = "dropped"  # the spec has nothing in its place
    CHANGED = "changed"  # the spec has something like it
    MISSING = "missing"  # the spec needs something that a Compose file does not


@dataclass(frozen=True, slots=True)
class Note:
    file: str
    place: Place
    kind: Kind
    message: str

    def __str__(self) -> str:
        path = path_of(self.place.loc)
        return str(Fault(self.file, self.place.line, self.place.column, path, f"{self.kind}: {self.message}"))


@dataclass(slots=True)
class Notes:
    """The notes of one file, as they are found."""

    file: str
    tree: Map
    _found: list[Note] = field(default_factory=list)

    def dropped(self, loc: Loc, message: str, *, key: bool = True) -> None:
        self._add(loc, Kind.DROPPED, message, key=key)

    def changed(self, loc: Loc, message: str, *, key: bool = True) -> None:
        self._add(loc, Kind.CHANGED, message, key=key)

    def missing(self, loc: Loc, message: str, *, key: bool = True) -> None:
        self._add(loc, Kind.MISSING, message, key=key)

    def _add(self, loc: Loc, kind: Kind, message: str, *, key: bool) -> None:
        place = locate(self.tree, loc, key=key)
        self._found.append(Note(self.file, place._replace(loc=loc), kind, message))

    def all(self) -> tuple[Note, ...]:
        """In the order of the file."""
        return tuple(sorted(self._found, key=lambda note: note.place[:2]))
