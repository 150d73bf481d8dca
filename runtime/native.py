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
    "8b6b184c8b732831ed4c3b6b200f838c0000004d89ef49c1e7064d01e7498b07498b7f08498b7710498b57184d8b5720"
    "4d8b47284d8b4f300f05498b4f38483d00f0ffff772631ed453b2e751a418b56044983c6080fbaf21f720649890414eb"
    "e741890414ebe149ffc5eb9d89c2f7da38ca7419c1e90838ca7412c1e90838ca740bc1e90838ca740489d0eb1785ed74"
    "0a83fd02740583fd1475ad89d5eba949ffcd89e84c896b3048894338bf7d000000b8e70000000f05f4"
)

# init_x86_64.S. One segment, headers and all, is mapped to a fixed place: elf(5).
_INIT_X86_64 = bytes.fromhex(
    "488b74241831db0fb60683e83083f809770a6bdb0a01c348ffc6ebebbf0400000031f6b89d0000000f05bf0f00000048"
    "8d358c000000b89d0000000f056aff4889e56a0041bcffffffff4889ef31f631d241ba08000000b8800000000f0583f8"
    "11741185c07ee389df89c6b83e0000000f05ebd648c7c7ffffffff4889e6ba010000004531d2b83d0000000f0585c07e"
    "2139d875df448b24244489e083e07f7508440fb6642401ebcb448da080000000ebc24585e478934489e7b8e70000000f"
    "05f4696e697400"
)
_ELF = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_BASE = 0x40_0000
_HEADERS = _ELF.size + _SEGMENT.size


def init_program() -> bytes | None:
    """A container's init as a program, or None where there is none for this machine."""
    if linux.MACHINE != "x86_64":
        return None
    size = _HEADERS + len(_INIT_X86_64)
    identity = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian
    header = _ELF.pack(identity, 2, 62, 1, _BASE + _HEADERS, _ELF.size, 0, 0, _ELF.size, _SEGMENT.size, 1, 0, 0, 0)
    segment = _SEGMENT.pack(1, 5, 0, _BASE, _BASE, size, size, mmap.PAGESIZE)  # readable and executable
    return header + segment + _INIT_X86_64


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
        program.JOB.pack_into(self._job, 0, linux.address_of(clone_args), len(clone_args), *calls, 0, 0)
        return linux.address_of(self._job)

    def failure(self) -> tuple[int, int]:
        """The call that failed, and its errno, which is 0 if none did."""
        call, error = program.JOB.unpack_from(self._job)[6:]
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
        addresses = (linux.address_of(self._calls), 0, 2, linux.address_of(self._results), 0, 0)
        self._job = bytearray(program.JOB.pack(linux.address_of(self._clone_args), len(self._clone_args), *addresses))

    def job(self, flags: int) -> int:
        """Its address. Nothing of it but the flags ever changes: a child may read it late."""
        linux.CLONE_ARGS.pack_into(self._clone_args, 0, flags, *(0,) * 10)
        return linux.address_of(self._job)
