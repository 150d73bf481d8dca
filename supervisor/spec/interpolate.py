"""Variables in text, as Compose has them, but that one without a value is a fault, and no empty string.

    $NAME ${NAME}               its value
    ${NAME:-text} ${NAME-text}  the text where NAME is not set; with the colon, where it is empty, too
    ${NAME:?text} ${NAME?text}  a fault that says the text, in these cases
    ${NAME:+text} ${NAME+text}  the text in all other cases, else nothing
    $$                          a $

The text may hold variables, of which only those are looked up that are needed. Braces in it come in pairs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.spec import limits
from supervisor.spec.faults import Wrong, quoted, shortened
from supervisor.spec.later import MARKS
from supervisor.spec.tree import Filled, Plain

NAME_PATTERN = "[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(
    rf"\$(?:(?P<dollar>\$)|(?P<bare>{NAME_PATTERN})|\{{(?P<braced>{NAME_PATTERN})(?P<operator>\}}|:?[-?+]))"
    r"|(?P<lone>\$)|(?P<brace>[{}])"
)
_EXPECTED = "$NAME, ${NAME}, ${NAME:-default} or the like; $$ is a $ that begins none"


@dataclass(frozen=True, slots=True)
class Variable:
    """A value, and where it came from: `environment` or `.env:3`."""

    value: str
    origin: str


@dataclass(slots=True)
class Variables:
    """All that are known. Those of the environment win over those of a file."""

    environment: Mapping[str, str] = field(default_factory=dict)
    file: Mapping[str, Variable] = field(default_factory=dict)
    _left: int = limits.FILLED_MAX_CHARS

    def find(self, name: str) -> Variable | None:
        if name in MARKS:
            return Variable(MARKS[name], "")
        if name in self.environment:
            return Variable(self.environment[name], f"environment {name}")
        return self.file.get(name)

    def use(self, variable: Variable) -> str:
        """Its value. Wrong if that is too much for one spec."""
        self._left -= len(variable.value)
        if self._left < 0:
            raise Wrong("the values of variables are too large", f"at most {limits.FILLED_MAX_CHARS} characters in all")
        return variable.value

    def names(self) -> list[str]:
        return [*self.file, *self.environment]


def fill(text: str, variables: Variables) -> str:
    """The text with its variables' values: a Filled, if it had any. Wrong where one has none, or can't be read."""
    scan = _Scan(text, variables)
    result = scan.until_end()
    if scan.found:
        return Filled(result, scan.origins)
    return Plain(result) if isinstance(text, Plain) else result


class _Scan:
    """One text, read from left to right."""

    def __init__(self, text: str, variables: Variables) -> None:
        self.found = False
        self.origins: list[str] = []
        self._text = text
        self._variables = variables
        self._end = 0  # of what has been read

    def until_end(self, depth: int = 0, *, needed: bool = True) -> str:
        """The rest, or what is left of the word in braces. What is not `needed` is read, but not looked up."""
        parts: list[str] = []
        start, pairs = self._end, 0
        for token in iter(self._token, None):
            parts.append(self._text[start : token.start()])
            if token["brace"] == "}" and depth and not pairs:
                return "".join(parts)
            if token["brace"]:
                pairs += 1 if token["brace"] == "{" else -1 if pairs else 0
            parts.append(token[0] if token["brace"] else self._value(token, depth, needed=needed))
            start = self._end
        if depth:
            raise Wrong(f"{quoted(self._text)} lacks a }}", _EXPECTED)
        return "".join([*parts, self._text[start:]])

    def _token(self) -> re.Match[str] | None:
        token = _TOKEN.search(self._text, self._end)
        if token:
            self._end = token.end()
        return token

    def _value(self, token: re.Match[str], depth: int, *, needed: bool) -> str:
        if token["dollar"]:
            return "$"
        if token["lone"]:
            raise Wrong(f"{quoted(self._text[token.start() :])} begins no variable", _EXPECTED)
        self.found = True
        name = token["bare"] or token["braced"]
        if token["bare"] or token["operator"] == "}":
            return self._plain(name) if needed else ""
        if depth >= limits.VARIABLES_DEPTH_MAX:
            raise Wrong("has too many defaults in one another", f"at most {limits.VARIABLES_DEPTH_MAX}")
        return self._choice(name, token["operator"], depth, needed=needed)

    def _plain(self, name: str) -> str:
        variable = self._variables.find(name)
        if variable is None:
            expected = f"it in the environment or in .env, or a default: ${{{name}:-…}}; $$ is a $ that begins none"
            raise Wrong(f"variable {name} is not set", expected, word=name, words=self._variables.names())
        return self._use(variable)

    def _use(self, variable: Variable) -> str:
        if variable.origin:
            self.origins.append(variable.origin)
        return self._variables.use(variable)

    def _choice(self, name: str, operator: str, depth: int, *, needed: bool) -> str:
        variable = self._variables.find(name)
        given = variable is not None and not (operator.startswith(":") and variable.value == "")
        word = self.until_end(depth + 1, needed=needed and given == operator.endswith("+"))
        if not needed:
            return ""
        if operator.endswith("+"):
            return word if given else ""
        if given and variable is not None:
            return self._use(variable)
        if operator.endswith("?"):
            what = "is not set" if variable is None else "is empty"
            raise Wrong(f"variable {name} {what}" + (f": {shortened(word, limits.MESSAGE_MAX_CHARS)}" if word else ""))
        return word
