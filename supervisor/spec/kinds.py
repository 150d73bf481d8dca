"""Scalars and collections to Python's: what all fields are made of. Each raises `Wrong`, or several at once."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError

from supervisor.spec import later, limits
from supervisor.spec.faults import Wrong, apart, shown, together, unexpected, unknown
from supervisor.spec.tree import Plain

S = TypeVar("S")
T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

DURATION_PATTERN = "".join(rf"(?:(\d{{1,15}}(?:\.\d{{1,15}})?){unit})?" for unit in ("h", "m", "s", "ms"))
SIZE_PATTERN = r"(\d{1,18}(?:\.\d{1,9})?) ?([kKmMgGtT]?)(?:[iI]?[bB])?"

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_SIZE = re.compile(SIZE_PATTERN, re.ASCII)
_DURATION_UNITS_S = (3600.0, 60.0, 1.0, 0.001)
TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TRUTH_OF = {"yes": "true", "on": "true", "no": "false", "off": "false"}


# --- kinds of scalars -------------------------------------------------------------------------------------


def text(value: object, expected: str = "a string") -> str:
    """A scalar, as it was written. To execve(2) and the rest of the kernel a string ends at its first NUL."""
    if not isinstance(value, str):
        raise unexpected(value, expected)
    if later.stands_in(value):
        raise unexpected(value, expected)
    return replica_text(value, expected)


def replica_text(value: object, expected: str = "a string") -> str:
    """The same, where each replica may have its own number and name in it."""
    if not isinstance(value, str):
        raise unexpected(value, expected)
    if "\0" in value:
        raise Wrong("holds a NUL byte", expected)
    try:
        length = len(later.sample(value).encode())
    except UnicodeEncodeError:
        raise Wrong("holds half of a surrogate pair", expected) from None
    if length > limits.TEXT_MAX_BYTES:
        raise Wrong(f"is {length} bytes long", f"at most {limits.TEXT_MAX_BYTES}")
    return str(value)


def some_text(value: object, expected: str) -> str:
    """A scalar that is not empty."""
    if value == "":
        raise unexpected(value, expected)
    return text(value, expected)


def matching(value: object, pattern: re.Pattern[str], expected: str) -> str:
    found = text(value, expected)
    if not pattern.fullmatch(found):
        raise unexpected(value, expected)
    return found


def boolean(value: object) -> bool:
    """YAML 1.2's booleans: `yes` and `on` are words there, so a hint is all they get."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Plain) and value in TRUTHS:
        return TRUTHS[value]
    wrong = unexpected(value, "true or false" + _unquoted(value))
    if isinstance(value, Plain):
        wrong.word, wrong.words = _TRUTH_OF.get(value.lower(), value), ("true", "false")
    raise wrong


def whole(value: object, low: int, high: int, what: str = "a whole number") -> int:
    expected = f"{what} from {low} to {high}"
    if isinstance(value, Plain) and _WHOLE.fullmatch(value):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise unexpected(value, expected + _unquoted(value))
    if not low <= number <= high:
        raise unexpected(value, expected)
    return number


def number(value: object, low: float, high: float, expected: str) -> float:
    if isinstance(value, Plain) and _NUMBER.fullmatch(value):
        found = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(value) if abs(value) <= limits.RLIMIT_MAX else float("inf")
    else:
        raise unexpected(value, expected + _unquoted(value))
    if not (low <= found <= high and found != float("inf")):  # NaN fails every comparison
        raise unexpected(value, expected)
    return found


def _unquoted(value: object) -> str:
    return ", without quotes" if isinstance(value, str) and not isinstance(value, Plain) else ""


def seconds(value: object, high: float, low: float = 0.0) -> float:
    """Seconds as a number, or with units: `500ms`, `10s`, `1m30s`, `2h`."""
    expected = f"seconds from {low:g} to {high:.0f}, as a number or such as 500ms, 10s, 1m30s or 2h"
    found = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if found is None:
        return number(Plain(value) if isinstance(value, str) else value, low, high, expected)
    parts = zip(found.groups(), _DURATION_UNITS_S, strict=True)
    total = sum(float(part) * unit_s for part, unit_s in parts if part)
    if not low <= total <= high:
        raise unexpected(value, expected)
    return total


def time_limit(value: object) -> float | None:
    return None if value is None else seconds(value, limits.WAIT_MAX_S, limits.CHECK_MIN_S)


def factor(value: object) -> float:
    return number(value, 1, float("inf"), "a number of at least 1")


def share(value: object) -> float:
    return number(value, 0, 1, "a number from 0 to 1")


def storage_size(value: object) -> int | None:
    return None if value is None else size(value)


def size(value: object, low: str = "64k") -> int:
    """Bytes as a number, or with a unit, all powers of 1024 as Docker has them: `512k`, `64m`, `1.5g`, `256MiB`."""
    expected = f"a size from {low} to 1024t, such as 512k, 256MiB or 1g"
    amount = _bytes(value)
    if amount is None or not (_bytes(low) or 0) <= amount <= limits.STORAGE_MAX_BYTES:
        raise unexpected(value, expected)
    return amount


def _bytes(value: object) -> int | None:
    found = _SIZE.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    return None if found is None else int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def choice(value: object, kinds: type[E]) -> E:
    """One of an enumeration's words."""
    words = [kind.value for kind in kinds]
    if isinstance(value, str) and value in words:
        return kinds(str(value))
    raise unexpected(value, " or ".join([", ".join(words[:-1]), words[-1]]), words)


# --- kinds of collections ---------------------------------------------------------------------------------


def each(entries: Iterable[tuple[str | int, S]], parse: Callable[[S], T]) -> list[T]:
    """`parse` of each entry; the faults of all of them at once, each at its step."""
    results: list[T] = []
    wrongs: list[Wrong] = []
    for step, entry in entries:
        try:
            results.append(parse(entry))
        except Wrong as wrong:
            wrongs.append(wrong.within(step))
        except ValidationError as error:
            wrongs += [wrong.within(step) for wrong in apart(error)]
    if wrongs:
        raise together(wrongs)
    return results


def listed(value: object, expected: str) -> Iterable[tuple[int, object]]:
    if not isinstance(value, list | tuple):
        raise unexpected(value, expected)
    return enumerate(value)


def some_list(value: object) -> object:
    """Something for pydantic to look into."""
    if not isinstance(value, list | tuple) or not value:
        what = "without a container" if isinstance(value, list | tuple) else shown(value)
        raise Wrong(f"is {what}", "a list of at least one container")
    return value


def mapped(value: object, expected: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise unexpected(value, expected)
    return value


def pairs(entries: Mapping[str, object]) -> Iterable[tuple[str, tuple[str, object]]]:
    """For `each`, where the key matters as much as the value."""
    return ((str(key), (str(key), value)) for key, value in entries.items())


def only_keys(entries: Mapping[str, object], keys: Collection[str]) -> None:
    for key in entries:
        if key not in keys:
            raise unknown("key", key, keys).within(key)


def keyed(entries: Mapping[str, object], parsers: Mapping[str, Callable[[object], object]]) -> dict[str, Any]:
    """A mapping of few keys, each with a parser of its own. What begins with `x-` is the user's own."""

    def parse(pair: tuple[str, object]) -> tuple[str, object]:
        key, value = pair
        if key not in parsers:
            raise unknown("key", key, parsers)
        return key, parsers[key](value)

    return dict(each(pairs({key: value for key, value in entries.items() if not key.startswith("x-")}), parse))


def absolute(value: object, expected: str) -> str:
    path = replica_text(value, expected)
    if not path.startswith("/") or len(later.sample(path).encode()) > limits.PATH_MAX_BYTES:
        raise Wrong(f"is {shown(path)}", expected)
    return path
