"""A filter does what its profile says, for every call: the BPF, run by a machine of ours, against the profile, and
against what libseccomp makes of it. Pure.
"""

import ctypes
import errno
import json
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from bpf_machine import Machine
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.capabilities import CAPABILITIES
from runtime.seccomp import bpf
from runtime.seccomp.calls import AUDIT, COMPANIONS, X32_BIT, every_name, numbers
from runtime.seccomp.default import default_profile
from runtime.seccomp.load import load_profile
from runtime.seccomp.profile import (
    ALLOW,
    ERRNO,
    EVERY_BIT,
    KILL_PROCESS,
    Compare,
    Condition,
    Profile,
    Rule,
    errno_action,
    kind,
)
from runtime.security import DEFAULT_CAPABILITIES

ARCHES = ("x86_64", "x86")
ENOSYS = errno_action(errno.ENOSYS)
EPERM = errno_action(errno.EPERM)
USUAL = sum(1 << CAPABILITIES.index(name) for name in DEFAULT_CAPABILITIES)
EVERY = (1 << len(CAPABILITIES)) - 1
NEW_NAMESPACES = 0x7E02_0000


def mask(*names: str) -> int:
    return sum(1 << CAPABILITIES.index(name) for name in names)


# --- what a profile says, in the simplest way -------------------------------------------------------------------------


def said(profile: Profile, arch: str, number: int, arguments: Sequence[int]) -> int:
    """What the profile says of a call."""
    names = {known: name for name, known in numbers(arch).items()}
    if arch == "x86_64" and number >= X32_BIT:
        return ENOSYS
    named = {numbers(arch)[name] for rule in profile.rules for name in rule.names if name in numbers(arch)}
    if number > max(named, default=-1) and kind(profile.default) == ERRNO:
        return ENOSYS
    rules = [rule for rule in profile.rules if names.get(number) in rule.names]
    for rule in sorted(rules, key=lambda rule: bool(rule.conditions)):
        if all(holds(condition, arguments[condition.argument]) for condition in rule.conditions):
            return rule.action
    return profile.default


def holds(condition: Condition, argument: int) -> bool:
    left, right = argument & condition.mask, condition.value
    return {
        Compare.EQUAL: left == right,
        Compare.NOT_EQUAL: left != right,
        Compare.LESS: left < right,
        Compare.LESS_OR_EQUAL: left <= right,
        Compare.GREATER: left > right,
        Compare.GREATER_OR_EQUAL: left >= right,
    }[condition.compare]


def telling(profile: Profile) -> list[tuple[int, ...]]:
    """Arguments near every value that the profile compares with, in their low and high halves."""
    conditions = {condition for rule in profile.rules for condition in rule.conditions}
    values = {condition.value for condition in conditions} | {condition.mask for condition in conditions}
    near = {value + by for value in values for by in (-1, 0, 1, 1 << 32, -(1 << 32))} | {0, 1 << 31, EVERY_BIT}
    some = [value & EVERY_BIT for value in sorted(near)]
    chance = random.Random(1)
    return [(value,) * 6 for value in some] + [tuple(chance.choices(some, k=6)) for _ in range(len(some))]


def every_number(arch: str) -> Iterator[int]:
    yield from range(max(numbers(arch).values()) + 40)
    yield from (X32_BIT - 1, X32_BIT, X32_BIT + 1, X32_BIT + 520, 0x8000_0000, 0xFFFF_FFFF)


@pytest.mark.parametrize("capabilities", [0, USUAL, USUAL | mask("CAP_SYS_ADMIN"), EVERY])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_the_default_filter_does_what_its_profile_says(arch: str, capabilities: int) -> None:
    profile = default_profile(capabilities, arch)
    machine = Machine(bpf.assemble(profile))
    samples = telling(profile)
    conditional = {name for rule in profile.rules if rule.conditions for name in rule.names}
    for each in profile.architectures:
        judged = {numbers(each)[name] for name in conditional if name in numbers(each)}
        for number in every_number(each):
            for arguments in samples if number in judged else samples[:2]:
                got = machine.verdict(AUDIT[each], number, arguments)
                assert got == said(profile, each, number, arguments), (each, number, arguments)


Values = st.one_of(st.sampled_from([0, 1, 2, 1 << 31, 1 << 32, (1 << 32) + 1, EVERY_BIT]), st.integers(0, EVERY_BIT))
Conditions = st.one_of(
    st.builds(Condition, st.integers(0, 5), st.sampled_from(Compare), Values),
    st.builds(Condition, st.integers(0, 5), st.just(Compare.EQUAL), Values, Values),
)
Actions = st.sampled_from([ALLOW, KILL_PROCESS, EPERM, errno_action(errno.EINVAL), 0x7FFC_0000, 0x3_0000, 0x7FF0_0001])
Names = st.lists(st.sampled_from(sorted(every_name())), min_size=1, max_size=40).map(tuple)
Rules = st.builds(Rule, Names, Actions, st.lists(Conditions, max_size=4).map(tuple))
Profiles = st.builds(
    Profile, Actions, st.sampled_from([("x86_64",), ("x86_64", "x86")]), st.lists(Rules, max_size=12).map(tuple)
)


@settings(deadline=None, max_examples=60)
@given(Profiles)
def test_any_filter_does_what_its_profile_says(profile: Profile) -> None:
    machine = Machine(bpf.assemble(profile))
    samples = random.Random(2).choices(telling(profile), k=4)
    named = {name for rule in profile.rules for name in rule.names}
    for arch in profile.architectures:
        mine = {known for name, known in numbers(arch).items() if name in named}
        around = sorted({number + by for number in mine for by in (0, 1)} | {0, 470, X32_BIT, X32_BIT + 1})
        for number in around:
            for arguments in samples:
                got = machine.verdict(AUDIT[arch], number, arguments)
                assert got == said(profile, arch, number, arguments), (arch, number, arguments)


def test_far_jumps_lead_where_they_should() -> None:
    """Every call with a decision of its own: nothing can be shared, and most jumps are out of reach of a byte."""
    names = sorted(numbers("x86_64"))
    rules = tuple(
        Rule((name,), errno_action(200 + index), (Condition(index % 6, Compare.GREATER, index << 31),))
        for index, name in enumerate(names)
    )
    profile = Profile(ALLOW, ("x86_64",), rules)
    machine = Machine(bpf.assemble(profile))
    for arch in profile.architectures:
        for index, name in enumerate(names):
            if name in numbers(arch):
                for value in (index << 31, (index << 31) + 1):
                    number, arguments = numbers(arch)[name], (value,) * 6
                    assert machine.verdict(AUDIT[arch], number, arguments) == said(profile, arch, number, arguments)


def test_a_profile_that_is_too_long_is_refused() -> None:
    conditions = tuple(Condition(number, Compare.NOT_EQUAL, 1 << 40 | number) for number in range(6))
    rules = (Rule((name,), errno_action(index), conditions) for index, name in enumerate(sorted(every_name())))
    with pytest.raises(ValueError, match="instructions, 4096 at most"):
        bpf.assemble(Profile(ALLOW, ("x86_64",), tuple(rules)))


# --- what the default is to be ----------------------------------------------------------------------------------------


def verdict(name: str, *arguments: int, capabilities: int = USUAL, arch: str = "x86_64") -> int:
    machine = Machine(bpf.assemble(default_profile(capabilities, "x86_64")))
    return machine.verdict(AUDIT[arch], numbers(arch)[name], arguments)


def test_calls_of_other_architectures_kill() -> None:
    machine = Machine(bpf.assemble(default_profile(USUAL, "x86_64")))
    assert machine.verdict(AUDIT["aarch64"], 63) == KILL_PROCESS
    alone = Machine(bpf.assemble(Profile(ALLOW, ("x86_64",), ())))
    assert alone.verdict(AUDIT["x86"], 1) == KILL_PROCESS


@pytest.mark.parametrize("default", [ALLOW, EPERM])
def test_calls_of_x32_are_as_on_a_kernel_without_them(default: int) -> None:
    machine = Machine(bpf.assemble(Profile(default, ("x86_64",), (Rule(("mount", "read"), EPERM),))))
    for number in (0, 165, 520):
        assert machine.verdict(AUDIT["x86_64"], X32_BIT | number) == ENOSYS


@pytest.mark.parametrize("arch", ARCHES)
def test_clone_makes_no_namespace_and_clone3_is_not_there(arch: str) -> None:
    assert verdict("clone", 0x11, arch=arch) == ALLOW
    for bit in range(64):
        expected = EPERM if 1 << bit & NEW_NAMESPACES else ALLOW
        assert verdict("clone", 1 << bit, arch=arch) == expected
    assert verdict("clone3", arch=arch) == ENOSYS
    assert verdict("clone3", capabilities=mask("CAP_SYS_ADMIN"), arch=arch) == ALLOW
    assert verdict("clone", NEW_NAMESPACES, capabilities=mask("CAP_SYS_ADMIN"), arch=arch) == ALLOW


def test_only_common_families_of_sockets_are_there() -> None:
    allowed = {family for family in range(64) if verdict("socket", family) == ALLOW}
    assert allowed == {0, 1, 2, 10, 16, 17}
    assert verdict("socket", 38) == EPERM  # AF_ALG
    assert verdict("socket", 1 << 32 | 2) == EPERM


def test_personalities_that_weaken_a_process_are_refused() -> None:
    assert verdict("personality", 0xFFFF_FFFF) == ALLOW
    assert verdict("personality", 0x0040000) == EPERM  # ADDR_NO_RANDOMIZE
    assert verdict("personality", 0x0400000) == EPERM  # READ_IMPLIES_EXEC


def test_a_call_that_no_kernel_of_today_has_is_not_there() -> None:
    machine = Machine(bpf.assemble(default_profile(USUAL, "x86_64")))
    assert machine.verdict(AUDIT["x86_64"], 600) == ENOSYS
    assert verdict("file_setattr") == ENOSYS  # newer than all that are allowed


def allowed_of(machine: Machine, arch: str, number: int, samples: Iterable[Sequence[int]]) -> set[Sequence[int]]:
    return {arguments for arguments in samples if machine.verdict(AUDIT[arch], number, arguments) == ALLOW}


# Docker's present default (moby/profiles) allows these; Debian's profile is older than most of them, and has refused
# vmsplice(2) and io_pgetevents(2) since.
SINCE = set(
    "vmsplice io_pgetevents io_pgetevents_time64 uretprobe quotactl_fd futex_waitv set_mempolicy_home_node cachestat "
    "fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr "
    "lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat".split()
)
SINCE_WITH = {"bpf": mask("CAP_BPF"), "perf_event_open": mask("CAP_PERFMON")}


@pytest.mark.parametrize("capabilities", [0, USUAL, *(1 << number for number in range(len(CAPABILITIES))), EVERY])
def test_the_default_allows_nothing_that_the_fields_profile_refuses(shipped: Path, capabilities: int) -> None:
    ours, theirs = (load_profile(name, capabilities, arch="x86_64") for name in ("default", shipped))
    assert ours is not None
    assert theirs is not None
    machines = Machine(ours.code), Machine(theirs.code)
    audit = mask("CAP_AUDIT_WRITE")
    samples = [(value,) * 6 for value in (0, 1, 2, 3, 8, 16, 17, 38, 40, 0x11, 0x2_0000, 0x2_0008, 1 << 28, EVERY_BIT)]
    for arch in ARCHES:
        for name, number in numbers(arch).items():
            mine, other = (allowed_of(machine, arch, number, samples) for machine in machines)
            if (
                name not in SINCE
                and not SINCE_WITH.get(name, 0) & capabilities
                and (name != "socket" or capabilities & audit)
            ):
                assert mine <= other, (arch, name)


# --- against libseccomp -----------------------------------------------------------------------------------------------


def by_libseccomp(profile: Profile) -> Machine:
    """The filter that libseccomp makes of a profile, as runc asks it to."""
    library = pytest.importorskip("pyseccomp")
    made = library.SyscallFilter(profile.default)
    for arch in profile.architectures[1:]:
        made.add_arch(AUDIT[arch])
    made.set_attr(library.Attr.CTL_OPTIMIZE, 2)
    words = {
        Compare.EQUAL: library.EQ,
        Compare.NOT_EQUAL: library.NE,
        Compare.LESS: library.LT,
        Compare.LESS_OR_EQUAL: library.LE,
        Compare.GREATER: library.GT,
        Compare.GREATER_OR_EQUAL: library.GE,
    }
    for rule in profile.rules:
        arguments = [
            library.Arg(one.argument, library.MASKED_EQ, one.mask, one.value)
            if one.mask != EVERY_BIT
            else library.Arg(one.argument, words[one.compare], one.value)
            for one in rule.conditions
        ]
        for name in rule.names:
            number = library.resolve_syscall(library.Arch.NATIVE, name)
            if number != -1 and rule.action != profile.default:
                made.add_rule(rule.action, number, *arguments)
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return Machine(file.read())


def unknown_to_libseccomp() -> set[str]:
    library = pytest.importorskip("pyseccomp")
    return {name for name in every_name() if library.resolve_syscall(library.Arch.X86_64, name) == -1}


def newest_of_libseccomp() -> int:
    """The last call of x86-64 that this libseccomp knows."""
    library = pytest.importorskip("pyseccomp")
    known = numbers("x86_64")
    return max(number for name, number in known.items() if library.resolve_syscall(library.Arch.X86_64, name) == number)


# What one instruction set asks by way of another call (ipc(2), socketcall(2)) libseccomp lets through with it; a number
# of its own is what we look at.
MULTIPLEXED = {"socketcall", "ipc"}


def compare(profile: Profile) -> tuple[int, int]:
    """Hold both filters to each other; how long they are."""
    ours, theirs = Machine(bpf.assemble(profile)), by_libseccomp(profile)
    samples = telling(profile)[:60]
    conditional = {name for rule in profile.rules if rule.conditions for name in rule.names}
    unknown, newest = unknown_to_libseccomp(), newest_of_libseccomp()
    for arch in profile.architectures:
        # Of a 32-bit call the kernel sees 32 bits, and libseccomp looks at no others.
        mine = [tuple(value & (0xFFFF_FFFF if arch == "x86" else EVERY_BIT) for value in one) for one in samples]
        names = {number: name for name, number in numbers(arch).items()}
        named = {names[number] for number in names} & {name for rule in profile.rules for name in rule.names}
        top = min(newest, max(numbers(arch)[name] for name in named))
        for number in range(top + 1):
            name = names.get(number, "")
            if name in MULTIPLEXED | unknown:
                continue
            for arguments in mine if name in conditional else mine[:1]:
                got = ours.verdict(AUDIT[arch], number, arguments)
                assert got == theirs.verdict(AUDIT[arch], number, arguments), (arch, name or number, arguments)
    return len(ours), len(theirs)


@pytest.mark.skipif("x86_64" not in COMPANIONS, reason="of x86-64")
@pytest.mark.parametrize("capabilities", [0, USUAL, EVERY])
def test_the_default_is_what_libseccomp_makes_of_it_and_a_quarter_as_long(capabilities: int) -> None:
    ours, theirs = compare(default_profile(capabilities, "x86_64"))
    assert ours * 3 < theirs


@pytest.mark.parametrize("capabilities", [0, USUAL, EVERY])
def test_the_fields_profile_is_what_libseccomp_makes_of_it(shipped: Path, capabilities: int) -> None:
    from runtime.seccomp.reader import Host, read_profile

    compare(read_profile(shipped.read_text(), str(shipped), Host("x86_64", (6, 1), capabilities)))


def test_every_number_is_libseccomps(shipped: Path) -> None:
    library = pytest.importorskip("pyseccomp")
    arches = {"x86_64": library.Arch.X86_64, "x86": library.Arch.X86, "aarch64": library.Arch.AARCH64}
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    for arch, theirs in arches.items():
        for name, number in numbers(arch).items():
            found = resolve(ctypes.c_uint32(theirs), name.encode())
            assert found in (number, -1) or found < -1, (arch, name)  # below -1: known, but of another architecture
    assert json.loads(shipped.read_text())["defaultAction"] == "SCMP_ACT_ERRNO"
