"""A program: the system calls that make one container, as bytes that are *linked*, not interpreted.

Like an object file it is one block of memory (calls, then the strings and structures they point to) and three kinds of
relocation: places that get the block's own address added (pointers), places that get the number of a descriptor that came with
the request, and places that get the result of an earlier call. A call is seven 64-bit words: its number and six arguments.
What runs it is then a loop of `syscall(*words)`; a rule beside a call says what else than success is acceptable.

    header | calls: 7 x i64 each | data | pointers: u32 | descriptors: u32 place, u32 which | results: u32 call, u32 place |
    rules: u32 call, 4 x u8 errno, u8 flags, 3 x pad

Places are byte offsets into calls + data; NARROW marks one that is 32 bits wide (a descriptor inside a structure).
All numbers are in the machine's own byte order: a program never leaves the machine.

The launcher loads this module: it imports nothing but `struct`.
"""

import struct

MAGIC = 0x70737570
HEADER = struct.Struct("=8I")  # magic, calls, calls of the prologue, data bytes, pointers, descriptors, results, rules
CALL = struct.Struct("=7q")
PAIR = struct.Struct("=2I")
RULE = struct.Struct("=I4BB3x")
WORD = struct.Struct("=q")
HALF = struct.Struct("=i")
NARROW = 0x8000_0000
RULE_ZERO = 1  # any result but 0 is a failure, reported as ESRCH
FORK_INIT = -1  # in place of a call's number: fork; the parent becomes the container's init (child.py)
FAILURE = struct.Struct("=ii")  # what a child writes when a call fails: its index and errno

MAX_CALLS = 4096
MAX_BYTES = 4 << 20


class Linked:
    """A program in memory, its pointers and descriptors filled in, ready to run once."""

    __slots__ = ("calls", "memory", "prologue", "results", "rules")

    def __init__(self, memory: bytearray, calls: int, prologue: int) -> None:
        self.memory = memory
        self.calls = calls
        self.prologue = prologue
        self.results: dict[int, list[int]] = {}
        self.rules: dict[int, tuple[int, ...]] = {}


def store(memory: bytearray, place: int, value: int) -> None:
    """Write `value` at a place, as wide as the place says."""
    if place & NARROW:
        HALF.pack_into(memory, place & ~NARROW, value)
    else:
        WORD.pack_into(memory, place, value)


def link(image: memoryview, address_of: "AddressOf", descriptors: list[int]) -> Linked:
    """Decode and link an encoded program. ValueError if it is not one."""
    magic, calls, prologue, data, pointers, fds, results, rules = HEADER.unpack_from(image)
    if magic != MAGIC:
        raise ValueError("not a program")
    start, end = HEADER.size, HEADER.size + calls * CALL.size + data
    memory = bytearray(image[start:end])
    linked = Linked(memory, calls, prologue)
    base = address_of(memory)
    tables = image[end:]
    words = memoryview(memory).cast("q")
    for place in tables[: pointers * 4].cast("I"):
        words[place >> 3] += base
    tables = tables[pointers * 4 :]
    for place, which in PAIR.iter_unpack(tables[: fds * PAIR.size]):
        store(memory, place, descriptors[which])
    tables = tables[fds * PAIR.size :]
    for call, place in PAIR.iter_unpack(tables[: results * PAIR.size]):
        linked.results.setdefault(call, []).append(place)
    for call, *rule in RULE.iter_unpack(tables[results * PAIR.size :][: rules * RULE.size]):
        linked.rules[call] = tuple(rule)
    return linked


class AddressOf:
    """The type of `linux.address_of`, without importing typing into the launcher."""

    def __call__(self, memory: bytearray) -> int:
        raise NotImplementedError
