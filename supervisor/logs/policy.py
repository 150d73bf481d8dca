"""How a container's output is kept, and the limit that all of a stack share. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class Driver(StrEnum):
    FILE = "file"  # lines, each with its time and stream
    RAW = "raw"  # the bytes as they are, a file per stream
    NONE = "none"
    STDOUT_JSON = "stdout-json"  # objects on standard output, and nothing here

    @property
    def is_readable(self) -> bool:
        """Can it be read again?"""
        return self in {Driver.FILE, Driver.RAW}


class Overflow(StrEnum):
    """What becomes of output while the disk can't keep up."""

    BLOCK = "block"  # it stays in the pipe, so whoever writes it waits
    DROP = "drop"  # lines are dropped whole, counted and told


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """`max_files` includes the one that is written to."""

    driver: Driver = Driver.FILE
    max_size_bytes: int = 10 << 20  # of a file, uncompressed; only a line longer than that makes a larger one
    max_files: int = 5
    compress: bool = False
    overflow: Overflow = Overflow.BLOCK


@dataclass(frozen=True, slots=True)
class LogLimit:
    """Of all logs of a stack together; None: there is none."""

    max_total_bytes: int | None = None


AS_USUAL = LogPolicy()
UNLIMITED = LogLimit()
