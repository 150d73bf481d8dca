"""A program: the system calls that make one container, as bytes that are *linked*, not interpreted.

Like an object file it is one block of memory (calls, then the strings and structures they point to) and three kinds of
relocation: places that get the block's own address added (pointers), places that get the number of a descriptor that
came with the request, and places that get the result of an earlier call. A call is eight 64-bit words: its number, six
arguments, and a rule that says what else than success is acceptable: four errnos, one byte each, that are forgiven.
What runs it is then a loop of `syscall(*words)`, in Python (child.py), in machine code (native.py), in C (the
benchmark's floor).

    header | calls: 8 x i64 each | data | pointers: u32 place | descriptors: u32 place, u32 which | results: u32 call,
    u32 place

The prologue may open the cgroup that the child is to be cloned into; the header has the place of its descriptor.

Places are byte offsets into calls + data; NARROW marks one that is 32 bits wide (a descriptor inside a structure).
Results are in the order of the calls. All numbers are in the machine's own byte order: a program never leaves the
machine.

The launcher loads this module: it imports nothing but `struct`.
"""

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = 0x70737570
# Magic, calls, calls of the prologue, data bytes, pointers, descriptors, results, place of the cgroup or 0.
HEADER = struct.Struct("=8I")
CALL = struct.Struct("=8q")
PAIR = struct.Struct("=2I")
JOB = struct.Struct("=6Q2iqQ")  # struct job of launch_x86_64.S
WORD = struct.Struct("=q")
HALF = struct.Struct("=i")
NARROW = 0x8000_0000
FORK_INIT = -1  # in place of a call's number: fork; the parent becomes the init of its child (child.py)
FAILURE = struct.Struct("=ii")  # what a child writes when a call fails: its index and errno
PASS = -2  # the same: clone(2); the parent ends
PSEUDO = {"fork init": FORK_INIT, "pass": PASS}
REPORT = 12  # the descriptor by which the loop in Python writes that; always taken in a launcher
INIT = REPORT + 1  # the program that process 1 becomes once it has forked the command, where there is one
NOTHING = INIT + 1  # a mount namespace with an empty directory
HELD = NOTHING + 1  # the pipe that a process waits for which is there to be waited for
NO_MORE = PAIR.pack(0xFFFF_FFFF, 0)  # ends the results

MAX_BYTES = 4 << 20


class Linked:
    """A program in memory, its pointers and descriptors filled in, ready to run once. `results` still are (call,
    place).
    """

    __slots__ = ("_cgroup", "calls", "memory", "prologue", "results")

    def __init__(self, memory: bytearray, calls: int, prologue: int, results: bytes, cgroup: int) -> None:
        self.memory = memory
        self.calls = calls
        self.prologue = prologue
        self.results = results
        self._cgroup = cgroup

    def cgroup(self) -> int:
        """The descriptor of the cgroup to clone into, once the prologue has run; 0 for none."""
        descriptor: int = WORD.unpack_from(self.memory, self._cgroup)[0] if self._cgroup else 0
        return descriptor


def store(memory: bytearray, place: int, value: int) -> None:
    """Write `value` at a place, as wide as the place says."""
    if place & NARROW:
        HALF.pack_into(memory, place & ~NARROW, value)
    else:
        WORD.pack_into(memory, place, value)


def link(image: memoryview, address_of: "Callable[[bytearray], int]", descriptors: list[int]) -> Linked:
    """Decode and link an encoded program. ValueError, IndexError or struct.error if it is not one."""
    magic, calls, prologue, data, pointers, fds, results, cgroup = HEADER.unpack_from(image)
    end = HEADER.size + calls * CALL.size + data
    size = end + pointers * 4 + (fds + results) * PAIR.size
    if magic != MAGIC or prologue > calls or size != len(image) or data % 8:
        raise ValueError("not a program")
    memory = bytearray(image[HEADER.size : end])
    base = address_of(memory)
    words = memoryview(memory).cast("q")
    pointer_end = end + pointers * 4
    for place in image[end:pointer_end].cast("I"):
        words[place >> 3] += base
    fds_end = pointer_end + fds * PAIR.size
    for place, which in PAIR.iter_unpack(image[pointer_end:fds_end]):
        store(memory, place, descriptors[which])
    for _, place in PAIR.iter_unpack(image[fds_end:]):
        if place & ~NARROW > len(memory) - WORD.size:
            raise ValueError("a result's place is out of range")
    if cgroup and cgroup > len(memory) - WORD.size:
        raise ValueError("the cgroup's place is out of range")
    return Linked(memory, calls, prologue, bytes(image[fds_end:]) + NO_MORE, cgroup)
