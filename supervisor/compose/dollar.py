"""Variables in values: a spec writes them as Compose does, but for two things, which are mended here.

Compose takes a variable that is not set for an empty one, with a warning; a spec refuses it. So `${NAME}` becomes
`${NAME:-}`, which says the same. And a `$` that begins no variable stands for itself in Compose; in a spec it is `$$`.
"""

import re
import shlex
from collections.abc import Iterator

from supervisor.spec.faults import Wrong

_TOKEN = re.compile(
    r"(?P<escaped>\$\$)"
    r"|\$\{(?P<braced>[_a-zA-Z][_a-zA-Z0-9]*)(?P<operator>\}|:?[-?+])"
    r"|\$(?P<named>[_a-zA-Z][_a-zA-Z0-9]*)"
    r"|(?P<lone>\$)"
    r"|(?P<end>\})",
    re.ASCII,
)
_HIDDEN = "\0"  # stands for a variable while a line is split: no argument can hold it


def has(value: object) -> bool:
    """Whether what it comes to is known only when the spec is loaded."""
    match value:
        case str():
            return "$" in value
        case dict():
            return any(map(has, value.values()))
        case list() | tuple():
            return any(map(has, value))
        case _:
            return False


def optional(name: str) -> str:
    """The value of a variable, empty if it is not set."""
    return f"${{{name}:-}}"


def carried(text: str) -> str:
    """`text` as a spec has it. What was carried once is carried again unchanged."""
    done, end, depth = [], 0, 0
    for token in _TOKEN.finditer(text):
        done.append(text[end : token.start()])
        done.append(_token(token))
        end = token.end()
        depth += _opens(token) - bool(depth and token["end"])
    if depth:  # `${` without its end, which Compose refuses too: text
        return text.replace("$", "$$")
    return "".join([*done, text[end:]])


def _token(token: re.Match[str]) -> str:
    if token["operator"] == "}":
        return optional(token["braced"])
    if token["named"]:
        return optional(token["named"])
    return "$$" if token["lone"] else token[0]


def _opens(token: re.Match[str]) -> bool:
    return bool(token["braced"]) and token["operator"] != "}"


def split(line: str) -> list[str]:
    """The words of a command line; a variable is part of its word, whatever is in its braces. Wrong at open quotes."""
    parts = list(_parts(line))
    variables = iter([part for part in parts if has(part)])
    try:
        words = shlex.split("".join(_HIDDEN if has(part) else part for part in parts))
    except ValueError as error:  # "No closing quotation", "No escaped character"
        raise Wrong(f"can't be split: {str(error).lower()}", "balanced quotes, or a list of arguments") from None
    return [re.sub(_HIDDEN, lambda _: next(variables), word) for word in words]


def _parts(line: str) -> Iterator[str]:
    """Variables with what is in their braces, and the text between them."""
    if _HIDDEN in line:
        raise Wrong("holds a NUL byte", "text")
    end = depth = 0
    for token in _TOKEN.finditer(line):
        if not depth and token["end"]:
            continue
        if not depth:
            yield line[end : token.start()]
            end = token.start()
        depth += _opens(token) - bool(token["end"])
        if not depth:
            yield line[end : token.end()]
            end = token.end()
    yield line[end:]
