"""A machine for classic BPF as seccomp has it: what the kernel would do with a filter, slowly and in the open."""

import struct
from collections.abc import Callable, Sequence
from operator import eq, ge, gt

INSTRUCTION = struct.Struct("=HBBI")
SECCOMP_DATA = struct.Struct("=IIQ6Q")

_TESTS: dict[int, Callable[[int, int], bool]] = {0x15: eq, 0x25: gt, 0x35: ge}


class Machine:
    """A filter, decoded once. `verdict()` runs it; a filter that the kernel would refuse is an error."""

    def __init__(self, code: bytes) -> None:
        self._code = list(INSTRUCTION.iter_unpack(code))
        assert 0 < len(self._code) <= 4096
        for place, (kind, yes, no, k) in enumerate(self._code):
            if kind & 0x7 == 0x5:
                jumps = (k,) if kind == 0x05 else (yes, no)
                assert all(place + 1 + jump < len(self._code) for jump in jumps), "a jump out of the filter"
        assert self._code[-1][0] & 0x7 == 0x6, "no return at the end"

    def __len__(self) -> int:
        return len(self._code)

    def verdict(self, arch: int, number: int, arguments: Sequence[int] = ()) -> int:
        """What seccomp does with this call: SECCOMP_RET_* and its data."""
        data = SECCOMP_DATA.pack(number, arch, 0, *arguments, *(0,) * (6 - len(arguments)))
        accumulator = place = 0
        while True:
            kind, yes, no, k = self._code[place]
            place += 1
            if kind == 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            elif kind == 0x54:
                accumulator &= k
            elif kind == 0x05:
                place += k
            elif kind == 0x06:
                return int(k)
            else:
                place += yes if _TESTS[kind](accumulator, k) else no
