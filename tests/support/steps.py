"""Steps that only tests have."""

from dataclasses import dataclass

from runtime import linux
from runtime.assemble import Assembler, Struct
from runtime.lower import lower


@dataclass(frozen=True)
class Pause:
    """Says so on a descriptor, and then waits for the end of standard input."""

    descriptor: int

    def describe(self) -> str:
        return "pause"


@lower.register
def _(step: Pause, asm: Assembler) -> None:
    asm.call("write", step.descriptor, Struct(b"paused"), len(b"paused"))
    asm.call("ppoll", Struct(linux.POLLFD.pack(0, linux.POLLIN, 0)), 1, None, None, 0)
