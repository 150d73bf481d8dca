"""On which line of a JSON text something is. The standard library's reader does not tell, so when there is something to
say, the text is read once more along the way there.
"""

import json
import re

Path = tuple[str | int, ...]

_decode = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r\n]*")


def line_of(text: str, path: Path) -> int:
    """The line on which the value at `path` begins, in a text that is JSON. Of what is not there, its parent's."""
    at = _skip(text, 0)
    for part in path:
        found = _member(text, at, part) if isinstance(part, str) else _item(text, at, part)
        if found is None:
            break
        at = found
    return text.count("\n", 0, at) + 1


def _member(text: str, at: int, wanted: str) -> int | None:
    """Where the value of a key is in the object at `at`; the last one, if the key is there twice."""
    if text[at] != "{":
        return None
    found = None
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, at = _decode(text, at)
        at = _skip(text, _skip(text, at) + 1)  # the colon
        if key == wanted:
            found = at
        at = _behind(text, at)
    return found


def _item(text: str, at: int, wanted: int) -> int | None:
    """Where an item of the array at `at` is."""
    if text[at] != "[":
        return None
    at = _skip(text, at + 1)
    for _ in range(wanted):
        if text[at] == "]":
            return None
        at = _behind(text, at)
    return None if text[at] == "]" else at


def _behind(text: str, at: int) -> int:
    """Where the next member or item begins, or the closing bracket is."""
    _, at = _decode(text, at)
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
