"""Compose's scalars, where a spec writes them in another way. What holds a variable is left as it is."""

import re

from supervisor.compose import dollar
from supervisor.spec.faults import unexpected
from supervisor.spec.kinds import DURATION_PATTERN
from supervisor.spec.tree import Plain

_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_PART = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = frozenset(("true", "yes", "on", "y", "1"))
_FALSE = frozenset(("false", "no", "off", "n", "0"))


def truth(value: object) -> object:
    """A boolean; with quotes or in YAML 1.1's words too."""
    if dollar.has(value):
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word not in _TRUE | _FALSE:
        raise unexpected(value, "true or false")
    return word in _TRUE


def duration(value: object) -> object:
    """`1m30s` as it is; units that a spec does not know, or in another order, come to seconds."""
    if dollar.has(value):
        return value
    if not isinstance(value, str) or not value:
        raise unexpected(value, "a duration, such as 1m30s")
    if _DURATION.fullmatch(value) or value.isdecimal():
        return Plain(value)
    parts = list(_PART.finditer(value))
    if "".join(part[0] for part in parts) != value:
        raise unexpected(value, "a duration, such as 1m30s")
    return round(sum(float(part[1]) * _UNITS_S[part[2]] for part in parts), 9)


def nothing(value: object) -> bool:
    """Whether a key with this value asks for nothing."""
    return value in (None, "", [], {}) or (isinstance(value, Plain) and value.lower() == "false")
