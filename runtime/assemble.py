"""The assembler: calls with arguments of every kind, laid out as the relocatable block that program.py describes.

A string is stored once. Pointers are offsets into the data until `template()` puts the data behind the calls.

Programs of many containers differ in a few texts: a name, a path, the environment. These are `own`, and lie behind all
other data: so all such programs have one template, to which each adds its texts.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runtime import program
from runtime.linux import NR


class Descriptor(NamedTuple):
    """The descriptor that came with the request at this position."""

    position: int


class Result(NamedTuple):
    """What the call with this index returned."""

    call: int


class Own(NamedTuple):
    """The program's own text with this number: see `Assembler.own`."""

    number: int


class Size(NamedTuple):
    """How many bytes that text has."""

    of: Own


@dataclass(frozen=True, slots=True)
class Strings:
    """A NULL-terminated array of pointers to strings: argv, envp."""

    items: tuple[bytes | Own, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure passed by pointer; a descriptor may have to be written into it, 32 bits wide, at an offset, and the
    addresses of others.
    """

    data: bytes
    descriptor: tuple[int, Descriptor] | None = None
    points: "tuple[tuple[int, Struct], ...]" = ()
    results: tuple[tuple[int, "Result"], ...] = ()  # descriptors that earlier calls returned, at these offsets


Pointed = str | bytes | None | Descriptor | Result | Own | Size | Strings | Struct
Argument = int | Pointed


@dataclass(frozen=True, slots=True)
class Program:
    """Encoded calls, and for each the step it belongs to (an index into the plan's steps)."""

    image: bytes
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """Programs that differ in their own texts alone: all of them but these."""

    steps: tuple[int, ...]
    prologue: int  # calls
    memory: bytes  # calls and data
    pointers: int
    descriptors: int
    results: int
    tables: bytes  # of all three
    cgroup: int
    own: tuple[tuple[int, int], ...]  # (place, number of the text that it points to)
    sizes: tuple[tuple[int, int], ...]  # (place, number of the text whose size stands there)

    def program(self, texts: Sequence[bytes]) -> Program:
        """The program with these texts."""
        memory, starts = bytearray(self.memory), []
        for text in texts:
            starts.append(len(memory))
            memory += text
            memory.append(0)
        memory += bytes(-len(memory) % 8)
        pack_into = program.WORD.pack_into
        for place, number in self.own:
            pack_into(memory, place, starts[number])
        for place, number in self.sizes:
            pack_into(memory, place, len(texts[number]))
        calls = len(self.steps)
        header = program.HEADER.pack(
            program.MAGIC,
            calls,
            self.prologue,
            len(memory) - calls * program.CALL.size,
            self.pointers,
            self.descriptors,
            self.results,
            self.cgroup,
        )
        return Program(b"".join((header, memory, self.tables)), self.steps)


class Assembler:
    """Collects calls and lays their arguments out; `finish()` gives the program."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._data = bytearray()
        self._strings: dict[bytes, int] = {}
        self._arrays: dict[Strings, int] = {}
        self._pointers: list[int] = []
        self._data_pointers: list[tuple[int, int]] = []  # (where in the data, what it points to in the data)
        self._descriptors: list[tuple[int, int]] = []
        self._struct_descriptors: list[tuple[int, int]] = []
        self._struct_results: list[tuple[int, int]] = []
        self._results: list[tuple[int, int]] = []
        self._texts: list[bytes] = []
        self._own: list[tuple[int, int]] = []
        self._data_own: list[tuple[int, int]] = []
        self._sizes: list[tuple[int, int]] = []
        self._steps: list[int] = []
        self._cgroup = 0
        self.step = 0
        self._kept: dict[str, Result] = {}

    def own(self, text: str | bytes) -> Own:
        """A text, or any other bytes, in which like programs may differ; to be pointed to."""
        self._texts.append(os.fsencode(text))
        return Own(len(self._texts) - 1)

    def call(self, name: str, *arguments: Argument, forgive: Sequence[int] = ()) -> Result:
        """Append a call. Errors in `forgive` count as success."""
        index = len(self._steps)
        self._steps.append(self.step)
        self._words.append(program.PSEUDO[name] if name in program.PSEUDO else NR[name])
        for argument in arguments:
            word = argument if isinstance(argument, int) else self._word(argument, len(self._words) * 8)
            self._words.append(word)
        self._words.extend(_PADDING[len(arguments)])
        self._words.append(_rule(forgive))
        return Result(index)

    def keep(self, name: str, result: Result) -> None:
        """Let later steps have it."""
        self._kept[name] = result

    def kept(self, name: str) -> Result:
        """What an earlier step has kept."""
        return self._kept[name]

    def clone_into(self, cgroup: Result) -> None:
        """Have the child cloned into the cgroup that this call of the prologue, the last one, has opened."""
        self._cgroup = len(self._words) * 8 - 16  # its sixth argument, which openat(2) does not have
        self._results.append((cgroup.call, self._cgroup))

    def _word(self, argument: Pointed, place: int) -> int:
        """What stands at `place` before linking: for a pointer its offset in the data."""
        if isinstance(argument, str | bytes):
            return self._pointer(place, self._string(os.fsencode(argument)))
        if isinstance(argument, Struct):
            return self._pointer(place, self._structure(argument))
        if isinstance(argument, Strings):
            return self._pointer(place, self._array(argument))
        if isinstance(argument, Own):
            self._own.append((place, argument.number))
        elif isinstance(argument, Size):
            self._sizes.append((place, argument.of.number))
        elif isinstance(argument, Result):
            self._results.append((argument.call, place))
        elif isinstance(argument, Descriptor):
            self._descriptors.append((place, argument.position))
        return 0

    def _pointer(self, place: int, target: int) -> int:
        self._pointers.append(place)
        return target

    def _string(self, text: bytes) -> int:
        if text not in self._strings:
            self._strings[text] = len(self._data)
            self._data += text + b"\0"
        return self._strings[text]

    def _align(self) -> int:
        self._data += bytes(-len(self._data) % 8)
        return len(self._data)

    def _array(self, strings: Strings) -> int:
        if strings in self._arrays:
            return self._arrays[strings]
        targets = [item if isinstance(item, Own) else self._string(item) for item in strings.items]
        self._arrays[strings] = start = self._align()
        for index, target in enumerate(targets):
            if isinstance(target, Own):
                self._data_own.append((start + 8 * index, target.number))
            else:
                self._data_pointers.append((start + 8 * index, target))
        self._data += bytes(8 * len(targets) + 8)
        return start

    def _structure(self, structure: Struct) -> int:
        pointers = [(offset, self._structure(other)) for offset, other in structure.points]
        start = self._align()
        self._data += structure.data
        if structure.descriptor is not None:
            offset, (position,) = structure.descriptor
            self._struct_descriptors.append((start + offset, position))
        self._struct_results += [(result.call, start + offset) for offset, result in structure.results]
        self._data_pointers += [(start + offset, target) for offset, target in pointers]
        return start

    def finish(self, prologue_steps: int) -> Program:
        """Encode. The calls of the first `prologue_steps` steps are the prologue."""
        return self.template(prologue_steps).program(self._texts)

    def template(self, prologue_steps: int) -> Template:
        """The same without its own texts."""
        self._align()
        base = len(self._words) * 8
        for place in self._pointers:
            self._words[place >> 3] += base
        for at, target in self._data_pointers:
            program.WORD.pack_into(self._data, at, base + target)
        own = (*self._own, *((base + at, number) for at, number in self._data_own))
        pointers = [*self._pointers, *(base + at for at, _ in self._data_pointers), *(place for place, _ in own)]
        descriptors = [*self._descriptors, *((base + at | program.NARROW, fd) for at, fd in self._struct_descriptors)]
        narrow = ((call, base + at | program.NARROW) for call, at in self._struct_results)
        results = sorted((*self._results, *narrow))
        return Template(
            steps=tuple(self._steps),
            prologue=bisect_left(self._steps, prologue_steps),
            memory=struct.pack(f"={len(self._words)}q", *self._words) + self._data,
            pointers=len(pointers),
            descriptors=len(descriptors),
            results=len(results),
            tables=_table(pointers) + _table(number for pair in (*descriptors, *results) for number in pair),
            cgroup=self._cgroup,
            own=own,
            sizes=tuple(self._sizes),
        )


def _table(numbers: Iterable[int]) -> bytes:
    listed = [*numbers]
    return struct.pack(f"={len(listed)}I", *listed)


_PADDING = [(0,) * (6 - used) for used in range(7)]


def _rule(forgive: Sequence[int]) -> int:
    """Up to four errnos, one byte each."""
    return int.from_bytes(bytes(forgive), "little")
