"""What is wrong with a spec, and where: all faults of a file are gathered, then told at once.

A parser that can't make sense of a value raises `Wrong`: what it found, what was expected, and the words among which
the nearest is to be sought. Where that was, only the tree knows. A `Report` joins the two to lines that editors follow:

    stack.yaml:12:5: containers[3].restart: is "allways", expected no, on-failure, …; did you mean "always"?
"""

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from supervisor.errors import SpecError
from supervisor.spec import later, limits

Loc = tuple[str | int, ...]  # the keys and indices that lead to a node
_BARE_KEY = re.compile(r"[\w-]+", re.ASCII)
_STEP = re.compile(r'\[(\d+)\]|\["(.*?)"\]|([^.\[\]]+)')


class Place(NamedTuple):
    """A node of a file; line and column count from 1. Line 0: the file as a whole. No `file`: the report's."""

    line: int
    column: int
    loc: Loc = ()
    file: str = ""


WHOLE = Place(0, 0)


class Wrong(ValueError):  # noqa: N818 (of the user's value: told to the user, no error of the program)
    """What is wrong with a value, what was `expected`, and the `words` of which the nearest to `word` may be meant.

    `loc` leads from the value to its part at fault, and `first` from the root to what it collides with. Where
    `expected` is but the list of `words`, the nearest one will do (`listing`). `others`: words that are none of them,
    and what they are called here. `at_key`: not the value, but its key.
    """

    def __init__(
        self,
        what: str,
        expected: str = "",
        *,
        word: str = "",
        words: Collection[str] = (),
        others: Mapping[str, str] | None = None,
        listing: bool = False,
        at_key: bool = False,
        first: Loc = (),
    ) -> None:
        super().__init__(f"{what}, expected {expected}" if expected else what)
        self.what = what
        self.word = word
        self.words = words
        self.others = others or {}
        self.listing = listing
        self.at_key = at_key
        self.first = first
        self.loc: Loc = ()

    def within(self, *steps: str | int) -> "Wrong":
        """The same fault, in the part of the value that `steps` lead to."""
        self.loc = (*steps, *self.loc)
        return self


def unexpected(value: object, expected: str, words: Collection[str] = ()) -> Wrong:
    """What is said of a value that is not what it should be."""
    if isinstance(value, str) and later.stands_in(value):
        return Wrong(f"is {shown(value)}", f"{expected}; {later.WHERE}")
    return Wrong(f"is {shown(value)}", expected, word=value if isinstance(value, str) else "", words=words)


def unknown(what: str, word: str, words: Collection[str], others: Mapping[str, str] | None = None) -> Wrong:
    """What is said of a key that is none of `words`."""
    listed = ", ".join(words) if len(words) <= limits.KEYS_SHOWN_MAX else "those that docs/spec.md explains"
    return Wrong(
        f"unknown {what}", f"one of {listed}", word=word, words=words, others=others, listing=True, at_key=True
    )


def together(wrongs: Sequence[Wrong]) -> ValidationError:
    """Several faults of one value, as pydantic lets a validator raise them: it puts its own location before theirs."""
    details = [
        InitErrorDetails(type="value_error", loc=wrong.loc, input=None, ctx={"error": wrong}) for wrong in wrongs
    ]
    return ValidationError.from_exception_data("spec", details)


def apart(error: ValidationError) -> list[Wrong]:
    """The opposite, of what a parser raised."""
    return [detail["ctx"]["error"] for detail in error.errors(include_url=False)]


@dataclass(frozen=True, slots=True)
class Fault:
    """One line for the user. `path` is empty where the file as a whole is at fault."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return printable(f"{self.file}{_at(self.line, self.column)}: {path}{self.message}")


def _at(line: int, column: int) -> str:
    """Of a file, if it is about a place in it."""
    return f":{line}:{column}" if line else ""


@dataclass(slots=True)
class Report:
    """The faults of one file, and of those that it leads to, as they are found."""

    file: str
    _found: list[tuple[Place, Wrong, str]] = field(default_factory=list)
    _comparisons: int = 0

    def add(self, place: Place, wrong: Wrong, more: str = "") -> None:
        self._found.append((place, wrong, more))

    def stop(self, place: Place, wrong: Wrong) -> NoReturn:
        """No sense can be made of the rest."""
        self.add(place, wrong)
        raise self.error()

    def check(self) -> None:
        """SpecError if anything was found."""
        if self._found:
            raise self.error()

    def error(self) -> SpecError:
        """What was found, in the order of the file; the same fault, met on several ways, once."""
        unique = {(place, str(wrong)): (place, wrong, more) for place, wrong, more in self._found}
        files = {"": 0, self.file: 0}
        for place, _, _ in self._found:
            files.setdefault(place.file, len(files))
        found = sorted(unique.values(), key=lambda entry: (files[entry[0].file], *entry[0][:2]))
        faults = [self._fault(*entry) for entry in found[: limits.FAULTS_MAX]]
        if left := found[limits.FAULTS_MAX :]:
            first, more = left[0][0], f"{len(left)} more faults from here on: mend those above first"
            faults.append(Fault(first.file or self.file, first.line, first.column, "", more))
        return SpecError(faults)

    def first_at(self, first: Place, beside: Place) -> str:
        """Said of a fault at `beside`: where what it collides with is."""
        names = [place.file or self.file for place in (first, beside)]
        name = "" if names[0] == names[1] else f"{names[0]}:"
        return f"; first at {name}{first.line}:{first.column}"

    def _fault(self, place: Place, wrong: Wrong, more: str) -> Fault:
        near = self._nearest(wrong)
        known = wrong.what if near and wrong.listing else str(wrong)
        hint = f"; did you mean {quoted(near)}?" if near else ""
        return Fault(place.file or self.file, place.line, place.column, path_of(place.loc), f"{known}{more}{hint}")

    def _nearest(self, wrong: Wrong) -> str | None:
        """Comparing is slow, and a file may be all faults: there is a limit to it."""
        if not wrong.word or self._comparisons > limits.COMPARISONS_MAX:
            return None
        self._comparisons += len(wrong.words) + len(wrong.others)
        near = wrong.others.get(wrong.word) or nearest(wrong.word, wrong.words)
        return near or wrong.others.get(nearest(wrong.word, wrong.others) or "")


def nearest(word: str, words: Collection[str]) -> str | None:
    """The one of `words` that `word` is most like, in whatever case; None if none is close."""
    known = {known.lower(): known for known in words}
    found = difflib.get_close_matches(word[: limits.SHOWN_MAX_CHARS].lower(), known, n=1)
    return known[found[0]] if found else None


def path_of(loc: Loc) -> str:
    """`containers[3].env["a b"]`."""
    return "".join(map(_step, loc)).removeprefix(".")


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _BARE_KEY.fullmatch(step) and len(step) <= limits.SHOWN_MAX_CHARS else f"[{quoted(step)}]"


def loc_of(path: str) -> Loc:
    """The opposite, for paths without quotes in their quoted keys."""
    return tuple(int(index) if index else quoted or bare for index, quoted, bare in _STEP.findall(path))


def shown(value: object) -> str:
    """A value in a few words."""
    match value:
        case None:
            return "empty"
        case str():
            return quoted(value)
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return shortened(repr(value))


def quoted(text: str) -> str:
    return json.dumps(shortened(text), ensure_ascii=False)


def shortened(text: str, most: int = limits.SHOWN_MAX_CHARS) -> str:
    whole = later.shown(text[: most + 1])
    return whole if len(whole) <= most else f"{whole[:most]}…"


def printable(line: str) -> str:
    """One line, and nothing that a terminal would obey."""
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
