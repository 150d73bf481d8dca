"""A resolved spec with a comment at the end of each line: which line of which file its value is from.

    replicas: 3             # stack.yaml:7, environment N
    stop_grace_s: 10.0      # default

The text that resolve.py writes is read again, event by event: each value in it has a path, and that path leads to
where it was written in the tree that the spec was made of. Where a value was written in a shorter form, the nearest
node on the way there is its origin.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from supervisor.spec.faults import Loc, printable
from supervisor.spec.model import Spec
from supervisor.spec.reader import PARSER
from supervisor.spec.resolve import resolved
from supervisor.spec.tree import Filled, Map, Position, Seq

DEFAULT = "default"
_BREAK = re.compile("([\n\r\x85\u2028\u2029])")  # YAML 1.1, as both parsers count lines
_COLUMN_MAX = 60  # of the comments; a longer line has its own behind it
_FIRST_OF_KEYS = 2  # of a path: containers, their index, a key


def with_origins(spec: Spec) -> str:
    """What `pysup config --origins` prints. It loads again as it is."""
    parts = _BREAK.split(resolved(spec))  # lines, and between them what ends them
    column = min(max(map(len, parts[::2])), _COLUMN_MAX)
    for number, loc in _leaves("".join(parts)):
        origin = printable(_origin(spec.tree, loc, str(spec.source)))
        parts[2 * number] = f"{parts[2 * number]:<{column}}  # {origin}"
    return "".join(parts)


def _leaves(text: str) -> Iterator[tuple[int, Loc]]:
    """The line that each value ends on, from 0, and its path. A collection is one if it is empty."""
    trail: list[str | int | None] = []  # the step to what is read next; None: a key
    first = False  # nothing has been read of the innermost collection
    for event in yaml.parse(text, Loader=PARSER):
        if isinstance(event, yaml.CollectionStartEvent):
            trail.append(None if isinstance(event, yaml.MappingStartEvent) else 0)
            first = True
        elif isinstance(event, yaml.CollectionEndEvent):
            trail.pop()
            if first:
                yield _last_line(event), _path(trail)
            first = False
            _advance(trail)
        elif isinstance(event, yaml.ScalarEvent):
            first = False
            if trail and trail[-1] is None:
                trail[-1] = event.value
            else:
                yield _last_line(event), _path(trail)
                _advance(trail)


def _last_line(event: Any) -> int:
    """What ends before the first column, ended on the line above."""
    line: int = event.end_mark.line - (event.end_mark.column == 0)
    return line


def _path(trail: list[str | int | None]) -> Loc:
    return tuple(step for step in trail if step is not None)


def _advance(trail: list[str | int | None]) -> None:
    """To the next entry."""
    if trail:
        step = trail[-1]
        trail[-1] = step + 1 if isinstance(step, int) else None


def _origin(tree: Map, loc: Loc, file: str) -> str:
    node: object = tree
    position = Position(0, 0)
    for depth, step in enumerate(loc):
        if isinstance(node, Map):
            key = _key(node, str(step), in_limits=depth > _FIRST_OF_KEYS and loc[_FIRST_OF_KEYS] == "ulimits")
            if key is None:
                return DEFAULT
            position, node = node.spots[key].value, node[key]
        elif isinstance(node, Seq):
            index = _index(node, step)
            if index is None:
                break
            position, node = node.spots[index], node[index]
    if not position.line:
        return DEFAULT
    variables = node.origins if isinstance(node, Filled) else ()
    return ", ".join([f"{position.file or file}:{position.line}", *variables])


def _key(node: Map, step: str, *, in_limits: bool) -> str | None:
    """What it is written as: names of limits may have a prefix."""
    if step in node:
        return step
    return next((key for key in node if in_limits and key.lower().removeprefix("rlimit_") == step), None)


def _index(node: Seq, step: str | int) -> int | None:
    """Of a list that may stand for a mapping: of ids, or of NAME=value."""
    if isinstance(step, int):
        return step if step < len(node) else None
    names = (entry.partition("=")[0] if isinstance(entry, str) else None for entry in node)
    return next((index for index, name in enumerate(names) if name == step), None)
