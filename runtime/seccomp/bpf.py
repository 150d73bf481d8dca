"""A profile as the classic BPF that seccomp(2) takes, made for its cost per container.

The kernel translates a filter anew for each container that gets it, runs it once for every call's number to learn which
are always allowed (kernel/seccomp.c: seccomp_cache_prepare), and keeps it as long as the container lives. So what
counts is the number of instructions: neighbouring numbers with the same decision are one interval, intervals are found
by binary search, and what several of them lead to is there once. Docker's default is 230
instructions this way, where libseccomp makes more than 1,200 of it, and is installed in less than half the time.

BPF jumps forward only. So instructions are written from the last to the first: what they lead to is there already. A
conditional jump reaches 255 instructions; whatever is farther is led to by an unconditional one nearby.
"""

import struct
from collections.abc import Mapping, Sequence
from errno import ENOSYS

from runtime.seccomp.calls import AUDIT, X32_BIT, numbers
from runtime.seccomp.profile import (
    ERRNO,
    KILL_PROCESS,
    Compare,
    Condition,
    Profile,
    errno_action,
    kind,
)

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, k
INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS

# include/uapi/linux/bpf_common.h
LOAD, AND, RETURN, JUMP = 0x20, 0x54, 0x06, 0x05  # ld [k]; and #k; ret #k; ja k
EQUAL, GREATER, AT_LEAST = 0x15, 0x25, 0x35  # jeq, jgt, jge with #k

# struct seccomp_data: the number, the architecture, the instruction pointer, six arguments. Little-endian.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

_REACH = 255
_LOW = 0xFFFF_FFFF

Verdict = tuple[tuple[Condition, ...], int]  # the action if all hold
Decision = tuple[Verdict, ...]  # in order; the last one has no conditions
Interval = tuple[int, Decision]  # from this number on


def assemble(profile: Profile) -> bytes:
    """The filter. ValueError if it is longer than the kernel takes."""
    code = _Code()
    other = code.give(KILL_PROCESS)
    for arch in reversed(profile.architectures):
        search = code.load(NUMBER, _search(code, _intervals(profile, arch)))
        other = code.test(EQUAL, AUDIT[arch], search, other)
    code.load(ARCHITECTURE, other)
    return code.finish()


# --- what is decided for which numbers --------------------------------------------------------------------------------


def _intervals(profile: Profile, arch: str) -> list[Interval]:
    """Every number's decision, neighbours with the same one as one interval."""
    known = numbers(arch)
    decisions = {known[name]: decision for name, decision in _decisions(profile).items() if name in known}
    intervals: list[Interval] = []
    for number in range(max(decisions, default=-1) + 1):
        _extend(intervals, number, decisions.get(number, (_default(profile),)))
    _extend(intervals, max(decisions, default=-1) + 1, _newer(profile))
    if arch == "x86_64":
        # No kernel that leaves x32 out, as nearly all do, has these numbers.
        _extend(intervals, X32_BIT, (((), errno_action(ENOSYS)),))
    return intervals


def _extend(intervals: list[Interval], first: int, decision: Decision) -> None:
    if not intervals or intervals[-1][1] != decision:
        intervals.append((first, decision))


def _newer(profile: Profile) -> Decision:
    """Calls newer than all that the profile names: who refuses them with another error than ENOSYS keeps programs from
    doing without them (as runc does: libcontainer/seccomp/patchbpf).
    """
    return (((), errno_action(ENOSYS)),) if kind(profile.default) == ERRNO else (_default(profile),)


def _decisions(profile: Profile) -> Mapping[str, Decision]:
    """By name: the first rule without conditions, else those with conditions in order, and then the default."""
    found: dict[str, Decision] = {}
    for rule in sorted(profile.rules, key=lambda rule: bool(rule.conditions)):
        for name in rule.names:
            chain = found.get(name, ())
            if not chain or chain[-1][0]:
                found[name] = (*chain, (rule.conditions, rule.action))
    return {name: chain if not chain[-1][0] else (*chain, _default(profile)) for name, chain in found.items()}


def _default(profile: Profile) -> Verdict:
    return (), profile.default


def _search(code: "_Code", intervals: Sequence[Interval]) -> int:
    """Binary search of the interval that the loaded number is in."""
    if len(intervals) == 1:
        return _decide(code, intervals[0][1])
    middle = len(intervals) // 2
    upper = _search(code, intervals[middle:])
    lower = _search(code, intervals[:middle])
    return code.test(AT_LEAST, intervals[middle][0], upper, lower)


def _decide(code: "_Code", decision: Decision) -> int:
    *conditional, (_, action) = decision
    following = code.give(action)
    for conditions, action in reversed(conditional):
        hit = code.give(action)
        for condition in reversed(conditions):
            hit = _compare(code, condition, hit, following)
        following = hit
    return following


# --- conditions on arguments ------------------------------------------------------------------------------------------


def _compare(code: "_Code", condition: Condition, yes: int, no: int) -> int:
    """Compare an argument, which is two words for BPF: the high one first, the low one if those are equal."""
    if condition.compare in (Compare.NOT_EQUAL, Compare.LESS, Compare.LESS_OR_EQUAL):
        yes, no = no, yes
    value, mask = condition.value, condition.mask
    low = ARGUMENTS + 8 * condition.argument
    high = low + 4
    if condition.compare in (Compare.EQUAL, Compare.NOT_EQUAL):
        rest = _equal(code, low, value & _LOW, mask & _LOW, yes, no)
        return _equal(code, high, value >> 32, mask >> 32, rest, no)
    at_equal = AT_LEAST if condition.compare in (Compare.GREATER_OR_EQUAL, Compare.LESS) else GREATER
    rest = code.load(low, code.test(at_equal, value & _LOW, yes, no))
    return code.load(high, code.test(GREATER, value >> 32, yes, code.test(EQUAL, value >> 32, rest, no)))


def _equal(code: "_Code", word: int, value: int, mask: int, yes: int, no: int) -> int:
    if not mask:
        return no if value else yes
    test = code.test(EQUAL, value, yes, no)
    return code.load(word, test if mask == _LOW else code.mask(mask, test))


# --- instructions -----------------------------------------------------------------------------------------------------


class _Code:
    """Instructions from the last to the first. A place is how many come after it; the same instruction is written once
    while it is in reach.
    """

    def __init__(self) -> None:
        self._instructions: list[bytes] = []
        self._known: dict[tuple[int, ...], int] = {}

    def give(self, action: int) -> int:
        return self._once(RETURN, 0, 0, action)

    def load(self, word: int, following: int) -> int:
        return self._then(LOAD, word, following)

    def mask(self, mask: int, following: int) -> int:
        return self._then(AND, mask, following)

    def test(self, code: int, value: int, yes: int, no: int) -> int:
        """A conditional jump."""
        if yes == no:
            return yes
        near_yes = self._near(yes, spare=1)
        near_no = self._near(no, spare=0)
        return self._once(code, near_yes, near_no, value)

    def _then(self, code: int, value: int, following: int) -> int:
        """An instruction that goes on with the next one: that is `following`, or a jump there."""
        known = self._known.get((code, following, following, value))
        if known is not None and self._distance(known) < _REACH:
            return known
        if following != len(self._instructions) - 1:
            self._append(JUMP, 0, 0, self._distance(following))
        self._known[code, following, following, value] = self._append(code, 0, 0, value)
        return len(self._instructions) - 1

    def _once(self, code: int, yes: int, no: int, value: int) -> int:
        known = self._known.get((code, yes, no, value))
        if known is not None and self._distance(known) < _REACH:
            return known
        jumps = (0, 0) if code == RETURN else (self._distance(yes), self._distance(no))
        place = self._append(code, *jumps, value)
        self._known[code, yes, no, value] = place
        return place

    def _near(self, target: int, spare: int) -> int:
        """`target`, or a jump to it in reach of the next instruction, with room for `spare` more before that."""
        if self._distance(target) + spare <= _REACH:
            return target
        known = self._known.get((JUMP, target))
        if known is None or self._distance(known) + spare > _REACH:
            known = self._known[JUMP, target] = self._append(JUMP, 0, 0, self._distance(target))
        return known

    def _distance(self, target: int) -> int:
        """From the instruction that is written next."""
        return len(self._instructions) - 1 - target

    def _append(self, code: int, yes: int, no: int, value: int) -> int:
        self._instructions.append(INSTRUCTION.pack(code, yes, no, value))
        return len(self._instructions) - 1

    def finish(self) -> bytes:
        if len(self._instructions) > INSTRUCTIONS_MAX:
            raise ValueError(f"{len(self._instructions)} instructions, {INSTRUCTIONS_MAX} at most")
        return b"".join(reversed(self._instructions))
