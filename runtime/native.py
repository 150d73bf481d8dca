"""The loop of the child in machine code, for x86-64: see launch_x86_64.S, whose assembled bytes these are.

`clone3` with CLONE_VM | CLONE_VFORK copies neither page tables nor pages, so a start costs what its system calls cost:
about half of what the loop in Python (child.py) costs, which serves every other machine, an init, and hosts that refuse
executable memory. Both are held to the same contract by the same tests.
"""

import mmap
import struct

from runtime import linux, program

_X86_64 = bytes.fromhex(
    "535541544155415641574889fb488b3b488b7308b8b30100000f054885c0740b415f415e415d415c5d5bc34c8b63104c"
    "8b6b184c8b732831ed4c3b6b200f83950000004d89ef49c1e7064d01e7498b07498b7f08498b7710498b57184d8b5720"
    "4d8b47284d8b4f304885c00f88940000000f05498b4f38483d00f0ffff772631ed453b2e751a418b56044983c6080fba"
    "f21f720649890414ebe741890414ebe149ffc5eb9489c2f7da38ca7419c1e90838ca7412c1e90838ca740bc1e90838ca"
    "740489d0eb1785ed740a83fd02740583fd1475ad89d5eba949ffcd89e844896b30894334488b7b38488d7330ba080000"
    "00b8010000000f05bf7d000000b8e70000000f05f44883f8fe74546affe867000000bf1100000031f631d24531d24531"
    "c0b8380000000f054885c07f18596a004989c4e8410000004c89e04c8b631059e92effffff89c531ffbeffffffff31d2"
    "b8b40100000f05488b434089ebffe0b8380000000f054885c00f8e04ffffff31ffb8e70000000f05f4bf02000000488d"
    "74240831d241ba08000000b80e0000000f05c366662e0f1f8400000000006690488d1d09000000e97ffeffff0f1f4000"
)

_ENTRY_BYTES = 16  # the last of it: where it begins as a program of its own, whose job comes right behind

# init_x86_64.S.
_INIT_X86_64 = bytes.fromhex(
    "488b74241831db0fb60683e83083f809772e6bdb0a01c348ffc6ebeb66662e0f1f84000000000066662e0f1f84000000"
    "000066662e0f1f8400000000000f1f00bf0400000031f6b89d0000000f05bf0f000000488d35a3000000b89d0000000f"
    "056aff4889e56a0041bcffffffff41bd010000004889ef31f631d241ba08000000b8800000000f0583f811741983f8fc"
    "74e285c07e0d89df89c6b83e0000000f05ebd14531ed48c7c7ffffffff4889e64489ea4531d2b83d0000000f0585c07e"
    "2139d875e1448b24244489e083e07f7508440fb6642401ebcd448da080000000ebc44585e4790b4585ed758841bc7d00"
    "00004489e7b8e70000000f05f4696e697400"
)
_INIT_ENTRY = 64  # where who has forked goes on as an init

_ELF = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_BASE = 0x40_0000
_PAGE = 0x1000
_READ_EXECUTE, _READ_WRITE = 5, 6


def init_program() -> bytes | None:
    """A container's init as a program, or None where there is none for this machine."""
    if linux.MACHINE != "x86_64":
        return None
    headers = _ELF.size + _SEGMENT.size
    size = headers + len(_INIT_X86_64)
    return _headers(_BASE + headers, (_READ_EXECUTE, 0, size)) + _INIT_X86_64


def entry_program(image: bytes, first: int) -> bytes:
    """The calls of a program from the first-th on, as a program of the kernel's kind: whoever looks into a process that
    makes them finds these and no more. The calls before must have given it what they need but memory.
    """
    place = _BASE + _PAGE + program.JOB.size  # a page of code, then the job, the calls and their data
    linked = program.link(memoryview(image), lambda _memory: place, _NO_DESCRIPTORS)
    rest = b"".join(pair for pair in _pairs(linked.results) if program.PAIR.unpack(pair)[0] >= first)
    results = place + len(linked.memory)
    end = results + len(rest) - _BASE
    headers = _headers(_BASE + _PAGE - _ENTRY_BYTES, (_READ_EXECUTE, 0, _PAGE), (_READ_WRITE, _PAGE, end))
    init = _BASE + len(headers) + _INIT_ENTRY
    code = headers + _INIT_X86_64.ljust(_PAGE - len(headers) - len(_X86_64), b"\0") + _X86_64
    job = program.JOB.pack(0, 0, place, first, linked.calls, results, 0, 0, program.REPORT, init)
    return code + job + linked.memory + rest


_NO_DESCRIPTORS = [-1] * 256  # those that come with a request belong to the calls before


def _pairs(results: bytes) -> "list[bytes]":
    return [results[at : at + program.PAIR.size] for at in range(0, len(results), program.PAIR.size)]


def _headers(entry: int, *segments: tuple[int, int, int]) -> bytes:
    """Of a file that is mapped to a fixed place, headers and all: elf(5). Segments: rights, from where to where."""
    identity = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
    sizes = (_ELF.size, _SEGMENT.size, len(segments), 0, 0, 0)
    header = _ELF.pack(identity, 2, 62, 1, entry, _ELF.size, 0, 0, *sizes)
    table = (
        _SEGMENT.pack(1, rights, begin, _BASE + begin, _BASE + begin, end - begin, end - begin, _PAGE)
        for rights, begin, end in segments
    )
    return header + b"".join(table)


def available() -> "Native | None":
    """The native loop, or None where there is none: another machine, or no executable memory (SELinux, PaX)."""
    if linux.MACHINE != "x86_64":
        return None
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        memory.write(_X86_64)
        return Native(linux.executable(memory))
    except OSError:
        return None


class Native:
    """The loop, mapped and ready. One use at a time: a launcher has one thread."""

    def __init__(self, function: "linux.Function") -> None:
        self._function = function
        self._clone_args = bytearray(linux.CLONE_ARGS.size)
        self._holding = _Holding()

    def launch(self, linked: program.Linked, flags: int, cgroup: int = 0) -> tuple[int, int, int]:
        """Clone, and run the program in the child: (pid or -errno, errno, call that failed). Returns once it has
        executed.
        """
        pid, job = self.begin(linked, flags | linux.CLONE_VFORK, cgroup)
        call, error = job.failure()
        return pid, error, call

    def begin(self, linked: program.Linked, flags: int, cgroup: int = 0) -> "tuple[int, Job]":
        """The same without waiting: the pid or -errno, and the job, which must not go before the child has executed or
        ended.
        """
        job = Job(linked)
        linux.CLONE_ARGS.pack_into(self._clone_args, 0, flags | linux.CLONE_VM, *(0,) * 9, cgroup)
        return self._function(job.address(self._clone_args)), job

    def hold(self, flags: int) -> int:
        """See `child.hold`. We do not wait for this child: it shares our memory, and has its own part of that."""
        return self._function(self._holding.job(flags | linux.CLONE_VM))


class Job:
    """What a child is to do, in memory of its own: it may not be waited for."""

    def __init__(self, linked: program.Linked) -> None:
        self._linked = linked
        self._results = bytearray(linked.results)
        self._job = bytearray(program.JOB.size)

    def address(self, clone_args: bytearray) -> int:
        """Ready to be begun."""
        linked = self._linked
        calls = (linux.address_of(linked.memory), linked.prologue, linked.calls, linux.address_of(self._results))
        program.JOB.pack_into(self._job, 0, linux.address_of(clone_args), len(clone_args), *calls, 0, 0, -1, 0)
        return linux.address_of(self._job)

    def failure(self) -> tuple[int, int]:
        """The call that failed, and its errno, which is 0 if none did."""
        call, error = program.JOB.unpack_from(self._job)[6:8]
        return call, error


class _Holding:
    """The program of all children that are there to be waited for: close what is not theirs, read(2), and end."""

    def __init__(self) -> None:
        self._clone_args = bytearray(linux.CLONE_ARGS.size)
        self._results = bytearray(program.NO_MORE)
        self._scratch = bytearray(8)
        close = (linux.NR["close_range"], 0, program.HELD - 1, 0, 0, 0, 0, 0)
        read = (linux.NR["read"], program.HELD, linux.address_of(self._scratch), 1, 0, 0, 0, 0)
        self._calls = bytearray(program.CALL.pack(*close) + program.CALL.pack(*read))
        addresses = (linux.address_of(self._calls), 0, 2, linux.address_of(self._results), 0, 0, -1, 0)
        self._job = bytearray(program.JOB.pack(linux.address_of(self._clone_args), len(self._clone_args), *addresses))

    def job(self, flags: int) -> int:
        """Its address. Nothing of it but the flags ever changes: a child may read it late."""
        linux.CLONE_ARGS.pack_into(self._clone_args, 0, flags, *(0,) * 10)
        return linux.address_of(self._job)
