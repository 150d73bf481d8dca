"""A JSON body's fields, each of the type it must have; null and absence are the same, as in Go."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.api.errors import bad


@dataclass(frozen=True, slots=True)
class Fields:
    """An object's. All of these raise RefusedError."""

    values: Mapping[str, object]

    def text(self, name: str) -> str:
        value = self._value(name, "")
        if not _is_text(value):
            raise _wrong(name, "a string")
        return str(value)

    def truth(self, name: str) -> bool:
        value = self._value(name, default=False)
        if not isinstance(value, bool):
            raise _wrong(name, "true or false")
        return value

    def number(self, name: str) -> int:
        value = self._value(name, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(name, "a number")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; one alone counts as such."""
        value = self._value(name, [])
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(map(_is_text, found)):
            raise _wrong(name, "a list of strings")
        return tuple(found)

    def numbers(self, name: str) -> tuple[int, ...]:
        value = self._value(name, [])
        if not isinstance(value, list) or not all(isinstance(each, int) for each in value):
            raise _wrong(name, "a list of numbers")
        return tuple(value)

    def pairs(self, name: str) -> dict[str, str]:
        """An object of strings."""
        value = self._value(name, {})
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise _wrong(name, "an object of strings")
        return value

    def below(self, name: str) -> "Fields":
        """An object in it."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise _wrong(name, "an object")
        return Fields(value)

    def each(self, name: str) -> "tuple[Fields, ...]":
        """A list of objects."""
        value = self._value(name, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise _wrong(name, "a list of objects")
        return tuple(map(Fields, value))

    def _value(self, name: str, default: object) -> object:
        value = self.values.get(name)
        return default if value is None else value


def _is_text(value: object) -> bool:
    """One that the kernel can be given: of surrogates, only those that stand for undecodable bytes (PEP 383)."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _wrong(name: str, wanted: str) -> Exception:
    return bad(f"invalid JSON: {name}: {wanted} is expected")
