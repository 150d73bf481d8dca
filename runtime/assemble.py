"""The assembler: calls with arguments of every kind, laid out as the relocatable block that program.py describes.

A string is stored once. Pointers are offsets into the data until `finish()` puts the data behind the calls. What one
assembler holds can be included in another's, so that parts common to many programs are assembled once.
"""

import os
import struct
from bisect import bisect_left
from collections.abc import Sequence
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


class Named(NamedTuple):
    """What the call returned that was kept under this name, in whatever was included last under it."""

    name: str


@dataclass(frozen=True, slots=True)
class Strings:
    """A NULL-terminated array of pointers to strings: argv, envp."""

    items: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure passed by pointer; a descriptor may have to be written into it, 32 bits wide, at an offset, and the
    addresses of others.
    """

    data: bytes
    descriptor: tuple[int, Descriptor] | None = None
    points: "tuple[tuple[int, Struct], ...]" = ()
    results: tuple[tuple[int, "Result"], ...] = ()  # descriptors that earlier calls returned, at these offsets


Pointed = str | bytes | None | Descriptor | Result | Named | Strings | Struct
Argument = int | Pointed


@dataclass(frozen=True, slots=True)
class Program:
    """Encoded calls, and for each the step it belongs to (an index into the plan's steps)."""

    image: bytes
    steps: tuple[int, ...]


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
        self._steps: list[int] = []
        self._cgroup = 0
        self.step = 0
        self._kept: dict[str, int] = {}  # calls, by the name of their result
        self._wanted: list[tuple[str, int]] = []  # names, and where their result goes

    def include(self, other: "Assembler") -> None:
        """Append what another one holds; its steps count from the present one."""
        calls, words, data = len(self._steps), len(self._words) * 8, self._align()
        self._steps += [self.step + step for step in other._steps]
        self._words += other._words
        self._data += other._data
        for place in other._pointers:
            self._words[(words + place) >> 3] += data
            self._pointers.append(words + place)
        self._data_pointers += [(data + at, data + target) for at, target in other._data_pointers]
        self._descriptors += [(words + place, which) for place, which in other._descriptors]
        self._struct_descriptors += [(data + at, which) for at, which in other._struct_descriptors]
        self._struct_results += [(calls + call, data + at) for call, at in other._struct_results]
        self._results += [(calls + call, words + place) for call, place in other._results]
        self._kept |= {name: calls + call for name, call in other._kept.items()}
        self._wanted += [(name, words + place) for name, place in other._wanted]
        self._cgroup = words + other._cgroup if other._cgroup else self._cgroup

    def call(self, name: str, *arguments: Argument, forgive: Sequence[int] = ()) -> Result:
        """Append a call. Errors in `forgive` count as success."""
        index = len(self._steps)
        self._steps.append(self.step)
        self._words.append(program.FORK_INIT if name == "fork init" else NR[name])
        for argument in arguments:
            word = argument if isinstance(argument, int) else self._word(argument, len(self._words) * 8)
            self._words.append(word)
        self._words.extend(_PADDING[len(arguments)])
        self._words.append(_rule(forgive))
        return Result(index)

    def keep(self, name: str, result: Result) -> None:
        """Let later calls have it as `Named(name)`, whatever is assembled apart from this."""
        self._kept[name] = result.call

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
        if isinstance(argument, Named):
            self._wanted.append((argument.name, place))
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
        targets = [self._string(item) for item in strings.items]
        self._arrays[strings] = start = self._align()
        self._data_pointers += [(start + 8 * index, target) for index, target in enumerate(targets)]
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
        self._align()
        base = len(self._words) * 8
        for place in self._pointers:
            self._words[place >> 3] += base
        for at, target in self._data_pointers:
            program.WORD.pack_into(self._data, at, base + target)
        pointers = [*self._pointers, *(base + at for at, _ in self._data_pointers)]
        descriptors = [*self._descriptors, *((base + at | program.NARROW, fd) for at, fd in self._struct_descriptors)]
        named = ((self._kept[name], place) for name, place in self._wanted)
        narrow = ((call, base + at | program.NARROW) for call, at in self._struct_results)
        results = sorted((*self._results, *named, *narrow))
        header = program.HEADER.pack(
            program.MAGIC,
            len(self._steps),
            bisect_left(self._steps, prologue_steps),
            len(self._data),
            len(pointers),
            len(descriptors),
            len(results),
            self._cgroup,
        )
        pairs = [number for pair in (*descriptors, *results) for number in pair]
        tables = struct.pack(f"={len(pointers)}I{len(pairs)}I", *pointers, *pairs)
        words = struct.pack(f"={len(self._words)}q", *self._words)
        return Program(b"".join((header, words, self._data, tables)), tuple(self._steps))


_PADDING = [(0,) * (6 - used) for used in range(7)]


def _rule(forgive: Sequence[int]) -> int:
    """Up to four errnos, one byte each."""
    return int.from_bytes(bytes(forgive), "little")
