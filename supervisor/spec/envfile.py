r"""Files of variables, `NAME=value` a line, as Compose reads them: `.env` beside the spec, a container's `env_file`.

    NAME=value      # blanks around it, and a comment after a blank, do not count
    NAME='value'    as it is written, but for \'; over several lines, if need be
    NAME="value"    the same with \n, \t, \r, \", \\ and \$
    export NAME=…   the same, for shells

Where there are no single quotes, variables stand for their values (interpolate.py), those of earlier lines too. A name
without a value is a fault: nothing is taken from the host by stealth.
"""

import re
from collections.abc import Iterator

from supervisor.spec import limits
from supervisor.spec.faults import Report, Wrong, quoted, shortened
from supervisor.spec.interpolate import Variable, Variables, fill
from supervisor.spec.reader import Source
from supervisor.spec.tree import Position, at

EXPECTED = "a file of NAME=value lines"
_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(=)?[ \t]*")
_SKIPPED = re.compile(r"(?:[ \t\r]*(?:#[^\n]*)?\n)*(?:[ \t\r]*(?:#[^\n]*)?\Z)?")
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_COMMENT = re.compile(r"(?<=[ \t])#.*")
_REST = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


def read_env_file(report: Report, file: str, variables: Variables) -> dict[str, Variable]:
    """Its variables in the order of the file, each with its line. SpecError if it can't be read."""
    source = Source(report, file)
    text = source.text(EXPECTED)
    earlier = dict(variables.file)
    known = Variables(variables.environment, earlier)
    found: dict[str, Variable] = {}
    for line, name, written in _entries(source, text):
        try:
            value = str(fill(written, known)) if "$" in written else written
        except Wrong as wrong:
            report.add(at(Position(line, 1, file), (name,)), wrong)
            continue
        if len(found) >= limits.NODES_MAX:
            source.stop(Position(line, 1), Wrong("holds too much", f"at most {limits.NODES_MAX} variables"))
        found[name] = Variable(value, f"{file}:{line}")
        earlier[name] = found[name]
    return found


def _entries(source: Source, text: str) -> Iterator[tuple[int, str, str]]:
    """Line, name and value, which is ready to be filled: in single quotes, a $ stands doubled."""
    end = _skip(text, 0)
    line, counted = 1, 0
    while end < len(text):
        line, counted = line + text.count("\n", counted, end), end
        name, end = _name(source, text, end, line)
        value, end = _value(source, text, end, line)
        yield line, name, value
        end = _skip(text, end)


def _skip(text: str, start: int) -> int:
    """Past blank lines and comments."""
    found = _SKIPPED.match(text, start)
    return found.end() if found else start


def _name(source: Source, text: str, start: int, line: int) -> tuple[str, int]:
    found = _NAME.match(text, start)
    if found is None:
        line_start = text[start : start + limits.SHOWN_MAX_CHARS + 1].partition("\n")[0]
        what = quoted(line_start.strip())
        source.stop(Position(line, 1), Wrong(f"{what} is no variable", "NAME=value"))
    if not found[2]:
        expected = f"NAME=value; {found[1]}= is the empty one, and nothing is taken from the host's environment"
        source.stop(Position(line, 1), Wrong(f"{shortened(found[1])} is without a value", expected))
    return found[1], found.end()


def _value(source: Source, text: str, start: int, line: int) -> tuple[str, int]:
    if text[start : start + 1] not in {'"', "'"}:
        end = text.find("\n", start) % (len(text) + 1)
        return _COMMENT.sub("", text[start - 1 : end])[1:].strip(), end
    literal = text[start] == "'"
    found = (_SINGLE if literal else _DOUBLE).match(text, start)
    if found is None:
        source.stop(Position(line, 1), Wrong("has no closing quote", f"another {text[start]}"))
    if not (rest := _REST.match(text, found.end())):
        source.stop(Position(line, 1), Wrong("goes on after the closing quote", "a comment, or nothing"))
    return _literal(found[1]) if literal else _ESCAPE.sub(_unescaped, found[1]), rest.end()


def _literal(text: str) -> str:
    return text.replace("\\'", "'").replace("$", "$$")


def _unescaped(escape: re.Match[str]) -> str:
    return _ESCAPED.get(escape[1], escape[0])
