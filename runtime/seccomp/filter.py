"""What the kernel gets. Plans hold it: this module is apart so that they need nothing else of the package."""

from dataclasses import dataclass, field

INSTRUCTION_BYTES = 8  # struct sock_filter


@dataclass(frozen=True, slots=True)
class Filter:
    """What the kernel gets: struct sock_filter[], and SECCOMP_FILTER_FLAG_*."""

    code: bytes = field(repr=False)
    flags: int = 0
    name: str = ""  # of its profile, for people

    @property
    def instructions(self) -> int:
        return len(self.code) // INSTRUCTION_BYTES
