"""What a seccomp profile says, resolved: for this machine, this kernel and these capabilities, nothing left to look up.

A call is decided by the first rule that names it without conditions, if there is one, whatever others say of it; else
by the first whose conditions all hold, else by the profile's default. So it is with libseccomp, for which profiles are
written. Actions are the kernel's own words (seccomp(2)): SECCOMP_RET_*, with an errno in the low half.
"""

from dataclasses import dataclass
from enum import StrEnum

KILL_PROCESS = 0x8000_0000
KILL_THREAD = 0x0000_0000
TRAP = 0x0003_0000
ERRNO = 0x0005_0000
TRACE = 0x7FF0_0000
LOG = 0x7FFC_0000
ALLOW = 0x7FFF_0000

DATA = 0x0000_FFFF
EVERY_BIT = (1 << 64) - 1
ARGUMENTS = 6


def errno_action(code: int) -> int:
    """The call is not made; its caller gets this errno."""
    return ERRNO | code


def kind(action: int) -> int:
    """An action without its data."""
    return action & ~DATA


def lets_through(action: int) -> bool:
    """Does the call happen, if nothing but the filter is asked? (Who traces may let it happen.)"""
    return kind(action) in (ALLOW, LOG, TRACE)


class Compare(StrEnum):
    """How an argument is compared: all 64 bits, unsigned."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="


@dataclass(frozen=True, slots=True)
class Condition:
    """`argument & mask` compared with `value`; a mask goes with EQUAL only."""

    argument: int
    compare: Compare
    value: int
    mask: int = EVERY_BIT


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of these calls if all conditions hold. Names that an architecture lacks are passed over there."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole profile. Calls of architectures that are not named kill the process that makes them."""

    default: int
    architectures: tuple[str, ...]  # the machine's own first; keys of calls.AUDIT
    rules: tuple[Rule, ...]
    flags: int = 0  # SECCOMP_FILTER_FLAG_*
