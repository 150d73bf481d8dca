"""What stands in a query, as Docker writes it: truths, numbers, times, and filters."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from supervisor.api.errors import bad

_FALSE = frozenset({"", "0", "no", "false", "none"})  # as Docker's httputils.BoolValue
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s|us|µs|ns)")
_NUMBER_MAX_CHARS = 20
_FURTHEST_S = 1e15

Filters = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a request."""

    values: Mapping[str, tuple[str, ...]]

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, (default,))[0]

    def truth(self, name: str, *, default: bool = False) -> bool:
        return self.text(name).strip().lower() not in _FALSE if name in self.values else default

    def number(self, name: str) -> int | None:
        """RefusedError if it is not one."""
        text = self.text(name)
        if not text:
            return None
        if len(text) > _NUMBER_MAX_CHARS or not re.fullmatch(r"-?\d+", text, re.ASCII):
            raise bad(f"{name}: {text[:_NUMBER_MAX_CHARS]!r} is not a number")
        return int(text)

    def moment(self, name: str, now: float) -> float | None:
        """Seconds since the epoch. None if there is none: Docker's clients send 0 for that too."""
        text = self.text(name)
        return None if text in {"", "0"} else moment(name, text, now)

    def filters(self, allowed: Iterable[str]) -> Filters:
        """RefusedError if one is not `allowed`."""
        found = _filters(self.text("filters"))
        for name in found:
            if name not in allowed:
                raise bad(f"invalid filter '{name[:100]}'")
        return found


def is_true(name: str, text: str) -> bool:
    """In a filter. RefusedError if it is neither."""
    if (word := text.strip().lower()) in {"true", "t", "1"}:
        return True
    if word not in {"false", "f", "0"}:
        raise bad(f"invalid filter '{name}={text[:100]}'")
    return False


def moment(name: str, text: str, now: float) -> float:
    """A time as seconds since the epoch (`1700000000.000000001`), in RFC 3339, or as a duration before now (`10m`)."""
    if re.fullmatch(r"-?\d{1,15}(\.\d{1,18})?", text, re.ASCII):
        return float(text)
    faulty = bad(f"{name}: {text[:100]!r} is not a time: give seconds since the epoch, RFC 3339 or 10m")
    if text and "".join("".join(found) for found in _DURATION_PART.findall(text)) == text:
        ago = sum(float(count) * _UNITS_S[unit] for count, unit in _DURATION_PART.findall(text))
        if ago > _FURTHEST_S:
            raise faulty
        return now - ago
    try:
        return datetime.fromisoformat(_microseconds(text)).timestamp()
    except (ValueError, OverflowError) as error:  # the year 1 of a local time is none
        raise faulty from error


def _microseconds(text: str) -> str:
    """Go writes nanoseconds, which datetime does not read."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)


def _filters(text: str) -> Filters:
    """`{"status": ["running"]}`, or of older clients `{"status": {"running": true}}`."""
    if not text:
        return {}
    try:
        return {name: tuple(_words(value)) for name, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise bad("invalid filter: a JSON object of lists is expected") from error


def _words(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        value = [name for name, wanted in value.items() if wanted]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(value)
    return value


def passes(filters: Filters, tests: Mapping[str, Callable[[str], bool]], labels: Mapping[str, str]) -> bool:
    """Has it, of each filter, one of the values that are wanted; and all of the labels?"""
    return has_labels(labels, filters.get("label", ())) and all(
        any(map(tests[name], wanted)) for name, wanted in filters.items() if name != "label" and wanted
    )


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Each is `name` or `name=value`."""
    return all(_has_label(labels, each) for each in wanted)


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
