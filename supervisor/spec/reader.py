"""A YAML file to a tree, defensively: whatever the bytes are, a tree or a SpecError that says where and why.

The tree is built from the parser's events, not by PyYAML's composer, which recurses (in C, with no check of the stack)
and counts nothing. Here the nesting is a list of frames, an alias is one more reference to the node it names, and what
a reader would expand it to is counted as it grows.

YAML 1.2's core schema is meant, not 1.1: a scalar stays text (see tree.py), with null as the one exception. Anchors,
aliases and merge keys (`<<`) work. Tags do not, but for those of the core schema, and Compose's two that say how files
are laid over one another. Variables are put into each value as it is read, if that is asked for.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NoReturn

import yaml

from supervisor.spec import limits
from supervisor.spec.faults import WHOLE, Loc, Report, Wrong, quoted, shown
from supervisor.spec.tree import Filled, Map, Plain, Position, Seq, Spot, at

Fill = Callable[[str], str]  # text with the values of its variables; a Filled if it had any. Raises Wrong

PARSER: Any = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # libyaml's where PyYAML was built with it: 10 times as fast
NULLS = frozenset(("", "~", "null", "Null", "NULL"))  # YAML 1.2.2, 10.3.2
_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_CORE + name for name in ("null", "bool", "int", "float"))
_RESET, _OVERRIDE = "!reset", "!override"
_LAYERS = {_RESET, _OVERRIDE}
_TAGS = {
    yaml.ScalarEvent: _PLAIN_TAGS | {"!", f"{_CORE}str"} | _LAYERS,
    yaml.MappingStartEvent: {"!", f"{_CORE}map"} | _LAYERS,
    yaml.SequenceStartEvent: {"!", f"{_CORE}seq"} | _LAYERS,
}
# YAML 1.2.2, 5.1: all else must be escaped. A byte order mark may only be first, where decoding takes it away.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LIBYAML_DEPTH = "exceeded maximum nesting depth"  # newer ones of libyaml take 1,000 levels
_MERGE = object()  # the key `<<`
_DROPPED = object()  # a key at fault: its value is read, and forgotten; or a value that is to be none (!reset)

FILE_EXPECTED = "a YAML mapping with `containers:`"


def read(report: Report, fill: Fill | None = None, *, file: str = "") -> Map:
    """The document in `file`, or in `report.file`. SpecError where there is none; faults that it can be read in spite
    of are reported.
    """
    source = Source(report, file)
    builder = _Builder(source, fill)
    builder.feed(_events(source, source.text()))
    root = builder.root
    if root is None:
        source.stop(Position(1, 1), Wrong("the file is empty", FILE_EXPECTED))
    if not isinstance(root, Map):
        source.stop(builder.position, Wrong(f"the file is {shown(root)}", FILE_EXPECTED))
    return root


class Source:
    """A file that is being read. `name` is empty for the one that the report is of."""

    def __init__(self, report: Report, name: str = "") -> None:
        self.report = report
        self.name = name

    def text(self, expected: str = "a YAML file") -> str:
        """What is in it."""
        return self._decoded(self._contents(expected))

    def stop(self, position: Position, wrong: Wrong, loc: Loc = ()) -> NoReturn:
        self.report.stop(at(position._replace(file=self.name), loc), wrong)

    def _contents(self, expected: str) -> bytes:
        try:
            with open(self.name or self.report.file, "rb") as file:  # noqa: PTH123 (a path may hold a NUL, which pathlib lets through as late)
                contents = file.read(limits.FILE_MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or str(error)
            self._refuse(Wrong(f"can't be read: {reason}", expected))
        if len(contents) > limits.FILE_MAX_BYTES:
            self._refuse(Wrong("is too large", f"at most {limits.FILE_MAX_BYTES} bytes"))
        return contents

    def _refuse(self, wrong: Wrong) -> NoReturn:
        self.report.stop(WHOLE._replace(file=self.name), wrong)

    def _decoded(self, contents: bytes) -> str:
        try:
            text = contents.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # `error.object` is what was left after a byte order mark, which counts as no column.
            before = error.object[: error.start].decode()
            byte = error.object[error.start]
            self.stop(_end_of(before), Wrong(f"byte 0x{byte:02x} is not UTF-8", "a file saved as UTF-8"))
        if found := _UNPRINTABLE.search(text):
            wrong = Wrong(
                f"character U+{ord(found[0]):04X} can't be in YAML", 'an escape in double quotes, such as "\\x1b"'
            )
            self.stop(_end_of(text[: found.start()]), wrong)
        return text


def _end_of(text: str) -> Position:
    return Position(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _events(source: Source, text: str) -> Iterator[Any]:
    try:
        yield from _parsed(text)
    except yaml.MarkedYAMLError as error:
        source.stop(*_explained(error, text))
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # PyYAML's own parser, of numbers out of all bounds
        source.stop(Position(1, 1), Wrong(f"is not YAML: {error}"))


def _parsed(text: str) -> Iterator[Any]:
    seen = 0
    try:
        for event in _parse(PARSER, text):
            yield event
            seen += 1
    except yaml.MarkedYAMLError as error:
        if error.problem != _LIBYAML_DEPTH:
            raise
        # It looks ahead, and has met its own limit before it told of what passes ours: PyYAML's parser has none.
        yield from islice(_parse(yaml.SafeLoader, text), seen, None)


def _parse(parser_type: Any, text: str) -> Iterator[Any]:
    parser = parser_type(text)
    try:
        while (event := parser.get_event()) is not None:
            yield event
    finally:
        parser.dispose()


def _explained(error: yaml.MarkedYAMLError, text: str) -> tuple[Position, Wrong]:
    mark = error.problem_mark or error.context_mark
    position = Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)
    line = text.split("\n")[position.line - 1 :][:1]
    if any("\t" in indent[: len(indent) - len(indent.lstrip())] for indent in line):
        return position, Wrong("is indented by a tab", "spaces")
    context = (
        f", {error.context} from line {error.context_mark.line + 1}" if error.context and error.context_mark else ""
    )
    hint = next((hint for part, hint in _HINTS.items() if part in (error.problem or "")), "")
    return position, Wrong(f"is not YAML: {error.problem}{context}", hint)


_HINTS = {  # by a part of what the parser says: what people had in mind, as a rule
    "mapping values are not allowed": 'quotes around a text with ": " in it, or keys below each other',
    "cannot start any token": "quotes around a text that begins with it",
    "expected key": "all keys of a mapping below each other",
    "expected '-' indicator": "all entries of a list below each other",
    "end of stream": "a closing quote",
    "expected ',' or": "a comma between entries, and a closing bracket",
}


class _Frame:
    """A collection whose end has not been read."""

    __slots__ = ("anchor", "key", "key_position", "merges", "node", "nodes_before", "reset")

    def __init__(self, node: Map | Seq, anchor: str | None, nodes_before: int, *, reset: bool = False) -> None:
        self.node = node
        self.reset = reset
        self.anchor = anchor
        self.nodes_before = nodes_before
        self.key: object = None  # a mapping's, between it and its value
        self.key_position = node.position
        self.merges: list[tuple[Position, object]] = []

    def awaits_key(self) -> bool:
        return self.key is None and isinstance(self.node, Map)

    def step(self) -> str | int:
        """Leads to the entry that is being read."""
        if isinstance(self.node, Seq):
            return len(self.node)
        return self.key if isinstance(self.key, str) else "<<" if self.key is _MERGE else "?"


class _Builder:
    """Events in, the first document's root out."""

    def __init__(self, source: Source, fill: Fill | None) -> None:
        self.root: object = None
        self.position = Position(1, 1)  # of the root
        self._source = source
        self._file = source.name
        self._fill = fill
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[object, int]] = {}  # node, and how many nodes it stands for
        self._nodes = 0
        self._documents = 0

    def feed(self, events: Iterator[Any]) -> None:
        handlers = {
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.MappingStartEvent: self._open,
            yaml.SequenceStartEvent: self._open,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
        }
        for event in events:
            if handler := handlers.get(type(event)):
                handler(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    wrong = Wrong("is a second document", "one in a file")
                    self._source.report.add(at(self._position(event.start_mark)), wrong)
                    return

    def _scalar(self, event: Any) -> None:
        position = self._count(event, 1)
        self._check_tag(event, position)
        plain = event.tag in _PLAIN_TAGS if event.tag and event.tag not in _LAYERS else event.implicit[0]
        text = Plain(event.value) if plain else event.value
        value = None if plain and event.value in NULLS else text
        if self._frames and self._frames[-1].awaits_key():
            self._anchor(event.anchor, value, 1)
            self._key(event.value, position, plain=plain)
            return
        if self._fill and "$" in text:
            value = self._filled(text, position)
        self._anchor(event.anchor, value, 1)
        self._attach(_DROPPED if event.tag == _RESET else value, position)

    def _filled(self, text: str, position: Position) -> str:
        """With its variables' values; as it was, if that can't be."""
        assert self._fill is not None
        try:
            filled = self._fill(text)
        except Wrong as wrong:
            self._wrong(position, wrong)
            return text
        return filled if isinstance(filled, Filled) else type(text)(filled)

    def _alias(self, event: Any) -> None:
        position = self._position(event.start_mark)
        if any(frame.anchor == event.anchor for frame in self._frames):
            self._stop(position, Wrong(f"*{event.anchor} stands for what it is in", "an alias of something complete"))
        if event.anchor not in self._anchors:
            self._stop(position, Wrong(f"*{event.anchor} stands for nothing", f"&{event.anchor} before it"))
        value, nodes = self._anchors[event.anchor]
        self._count(event, nodes)
        if isinstance(value, str) and self._frames and self._frames[-1].awaits_key():
            self._key(value, position, plain=False)
        else:
            self._attach(value, position)

    def _open(self, event: Any) -> None:
        before = self._nodes
        position = self._count(event, 1)
        self._check_tag(event, position)
        if len(self._frames) >= limits.DEPTH_MAX:
            self._stop(position, Wrong("is nested too deep", f"at most {limits.DEPTH_MAX} levels"))
        node: Map | Seq = Map(position) if isinstance(event, yaml.MappingStartEvent) else Seq(position)
        node.whole = event.tag == _OVERRIDE
        self._frames.append(_Frame(node, event.anchor, before, reset=event.tag == _RESET))

    def _close(self, _event: Any) -> None:
        frame = self._frames[-1]
        if isinstance(frame.node, Map):
            frame.key = _MERGE if frame.merges else None
            for position, value in frame.merges:
                self._merge(frame.node, value, position)
        self._frames.pop()
        self._anchor(frame.anchor, frame.node, self._nodes - frame.nodes_before)
        self._attach(_DROPPED if frame.reset else frame.node, frame.node.position)

    def _key(self, key: str, position: Position, *, plain: bool) -> None:
        frame = self._frames[-1]
        spots = frame.node.spots
        frame.key, frame.key_position = key, position
        if plain and key == "<<":
            frame.key = _MERGE
            if frame.merges:
                self._wrong(position, Wrong("is given twice", "a list, such as <<: [*one, *two]"))
        elif isinstance(spots, dict) and key in spots:
            first = spots[key].key
            self._wrong(position, Wrong(f"is given twice, first at {first.line}:{first.column}", "each key once"))
            frame.key = _DROPPED

    def _attach(self, value: object, position: Position) -> None:
        if not self._frames:
            self.root, self.position = None if value is _DROPPED else value, position
            return
        frame = self._frames[-1]
        if isinstance(frame.node, Seq):
            if value is not _DROPPED:
                frame.node.put(value, position)
        elif frame.key is None:
            self._wrong(position, Wrong(f"{shown(value)} can't be a key", "a word"))
            frame.key = _DROPPED
        else:
            self._enter(frame, frame.node, value, position)

    def _enter(self, frame: _Frame, node: Map, value: object, position: Position) -> None:
        if frame.key is _MERGE and value is not _DROPPED:
            frame.merges.append((position, value))
        elif value is _DROPPED and isinstance(frame.key, str):
            node.resets |= {frame.key}
        elif isinstance(frame.key, str):
            node.put(frame.key, value, Spot(frame.key_position, position))
        frame.key = None

    def _merge(self, node: Map, value: object, position: Position) -> None:
        """What is written out wins over what is merged; what is merged first, over what is merged later."""
        sources = value if isinstance(value, Seq) else [value]
        for source in sources:
            if isinstance(source, Map):
                node.absorb(source)
            else:
                wrong = Wrong(f"is {shown(source)}", "a mapping, or a list of them, such as *name")
                self._wrong(position, wrong)

    def _anchor(self, name: str | None, value: object, nodes: int) -> None:
        if name is not None:
            self._anchors[name] = (value, nodes)

    def _count(self, event: Any, nodes: int) -> Position:
        position = self._position(event.start_mark)
        self._nodes += nodes
        if self._nodes > limits.NODES_MAX:
            self._stop(
                position, Wrong("the file is too large", f"at most {limits.NODES_MAX} values, with aliases expanded")
            )
        return position

    def _check_tag(self, event: Any, position: Position) -> None:
        if event.tag and event.tag not in _TAGS[type(event)]:
            self._wrong(position, Wrong(f"tag {quoted(event.tag)} is unknown here", "no tag"))

    def _position(self, mark: Any) -> Position:
        return Position(mark.line + 1, mark.column + 1, self._file)

    def _wrong(self, position: Position, wrong: Wrong) -> None:
        self._source.report.add(at(position, self._loc()), wrong)

    def _stop(self, position: Position, wrong: Wrong) -> NoReturn:
        self._source.report.stop(at(position, self._loc()), wrong)

    def _loc(self) -> Loc:
        return tuple(frame.step() for frame in self._frames)
