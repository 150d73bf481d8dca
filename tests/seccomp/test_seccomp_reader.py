"""Profiles in files: both forms mean what they mean elsewhere, and what is wrong is told with its line. Pure."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bpf_machine import Machine
from hypothesis import given
from hypothesis import strategies as st

from runtime.capabilities import CAPABILITIES
from runtime.errors import SeccompError
from runtime.linux import kernel_version
from runtime.seccomp.calls import AUDIT, numbers
from runtime.seccomp.lines import line_of
from runtime.seccomp.load import load_profile, parse_profile
from runtime.seccomp.profile import ALLOW, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP, errno_action

EPERM = errno_action(errno.EPERM)
ADMIN = 1 << CAPABILITIES.index("CAP_SYS_ADMIN")


def machine(profile: Mapping[str, object], capabilities: int = 0, kernel: str = "6.1.0-1-amd64") -> Machine:
    filtered = parse_profile(json.dumps(profile, indent=1), "p.json", capabilities, arch="x86_64", kernel=kernel)
    return Machine(filtered.code)


def verdict(profile: Mapping[str, object], name: str, *arguments: int, arch: str = "x86_64", **host: Any) -> int:
    made = machine(profile, **host)
    return made.verdict(AUDIT[arch], numbers(arch)[name], arguments)


def refusing(*rules: Mapping[str, object], **more: object) -> dict[str, object]:
    """A profile that allows but what is said."""
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


def allowing(*rules: Mapping[str, object], **more: object) -> dict[str, object]:
    """A profile that refuses but what is said; the last call makes all others older than it."""
    last = {"names": ["mseal"], "action": "SCMP_ACT_ALLOW"}
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [*rules, last], **more}


ALLOWED = {"names": ["mount", "acct"], "action": "SCMP_ACT_ALLOW"}


def test_the_ocis_form() -> None:
    profile = allowing(ALLOWED, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_S390X"])
    assert verdict(profile, "mount") == verdict(profile, "acct", arch="x86") == ALLOW
    assert verdict(profile, "umount2") == EPERM


def test_the_ocis_form_in_a_whole_config_json() -> None:
    whole = {"ociVersion": "1.0.2", "process": {}, "linux": {"namespaces": [], "seccomp": allowing(ALLOWED)}}
    assert verdict(whole, "mount") == ALLOW
    wrong = {"linux": {"seccomp": {"defaultAction": "X"}}}
    with pytest.raises(SeccompError, match=r"^p\.json:\d+: linux\.seccomp: defaultAction 'X' is none of SCMP_ACT_KILL"):
        machine(wrong)
    with pytest.raises(SeccompError, match=r"^p\.json:2: linux: has no seccomp$"):
        machine({"linux": {}})


def test_only_the_machines_own_calls_are_made_unless_others_are_named() -> None:
    assert verdict(allowing(ALLOWED), "mount", arch="x86") == KILL_PROCESS
    mapped = [
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ]
    assert verdict(allowing(ALLOWED, archMap=mapped), "mount", arch="x86") == ALLOW
    assert verdict(allowing(ALLOWED, archMap=mapped[:1]), "mount", arch="x86") == KILL_PROCESS


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("SCMP_ACT_KILL", KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
        ("SCMP_ACT_TRAP", TRAP),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", TRACE | errno.EPERM),
        ("SCMP_ACT_LOG", LOG),
        ("SCMP_ACT_ALLOW", ALLOW),
    ],
)
def test_actions(action: str, expected: int) -> None:
    assert verdict(refusing({"names": ["acct"], "action": action}), "acct") == expected
    assert verdict({"defaultAction": action, "syscalls": [{"names": ["mseal"], "action": action}]}, "acct") == expected


@pytest.mark.parametrize(
    ("codes", "expected"), [({"errnoRet": 22}, 22), ({"errno": "ENOSYS"}, 38), ({"errnoRet": 1, "errno": "EINVAL"}, 22)]
)
def test_errors_by_number_and_by_name(codes: dict[str, object], expected: int) -> None:
    rule = {"names": ["acct"], "action": "SCMP_ACT_ERRNO", **codes}
    assert verdict(refusing(rule), "acct") == errno_action(expected)


def test_the_defaults_error() -> None:
    assert verdict(allowing(defaultErrnoRet=13), "acct") == errno_action(errno.EACCES)
    assert verdict(allowing(defaultErrno="EINVAL", defaultErrnoRet=13), "acct") == errno_action(errno.EINVAL)


def test_calls_newer_than_all_that_are_named_are_not_there() -> None:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["clone3"], "action": "SCMP_ACT_ALLOW"}]}
    assert verdict(profile, "close_range") == errno_action(errno.ENOSYS)
    assert verdict(profile, "mount") == EPERM
    assert verdict({**profile, "defaultAction": "SCMP_ACT_KILL_PROCESS"}, "close_range") == KILL_PROCESS


@pytest.mark.parametrize(
    ("op", "value", "two", "holds", "fails"),
    [
        ("SCMP_CMP_EQ", 5, 0, [5], [4, 6, 5 | 1 << 32]),
        ("SCMP_CMP_NE", 5, 0, [4, 5 | 1 << 32], [5]),
        ("SCMP_CMP_LT", 1 << 32, 0, [0, (1 << 32) - 1], [1 << 32, 1 << 63]),
        ("SCMP_CMP_LE", 1 << 32, 0, [0, 1 << 32], [(1 << 32) + 1]),
        ("SCMP_CMP_GE", 5, 0, [5, 1 << 32], [4]),
        ("SCMP_CMP_GT", 5, 0, [6, 1 << 32], [5]),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, [0x20, 0x2F, 0x120], [0x30, 0]),
    ],
)
def test_conditions(op: str, value: int, two: int, holds: list[int], fails: list[int]) -> None:
    arg = {"index": 1, "value": value, "valueTwo": two, "op": op}
    profile = allowing({"names": ["acct"], "action": "SCMP_ACT_ALLOW", "args": [arg]})
    assert [verdict(profile, "acct", 0, argument) for argument in holds] == [ALLOW] * len(holds)
    assert [verdict(profile, "acct", 0, argument) for argument in fails] == [EPERM] * len(fails)


def test_all_conditions_must_hold_but_two_of_one_argument_are_two_rules() -> None:
    first, second = ({"index": index, "value": 1, "op": "SCMP_CMP_EQ"} for index in (0, 1))
    profile = allowing({"names": ["acct"], "action": "SCMP_ACT_ALLOW", "args": [first, second]})
    assert [verdict(profile, "acct", *args) for args in ((1, 1), (1, 0), (0, 1))] == [ALLOW, EPERM, EPERM]
    third = {"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}
    profile = allowing({"names": ["acct"], "action": "SCMP_ACT_ALLOW", "args": [first, third]})
    assert [verdict(profile, "acct", value) for value in (1, 7, 8)] == [ALLOW, ALLOW, EPERM]


@pytest.mark.parametrize(
    ("when", "host", "holds"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, {"capabilities": ADMIN}, True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, {}, False),
        ({"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}}, {"capabilities": ADMIN}, False),
        ({"excludes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, {"capabilities": ADMIN}, False),
        ({"excludes": {"caps": ["CAP_CHOWN"]}}, {"capabilities": ADMIN}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, {}, True),
        ({"includes": {"arches": ["s390x"]}}, {}, False),
        ({"excludes": {"arches": ["amd64"]}}, {}, False),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "4.8.0"}, True),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "4.7.99-x"}, False),
        ({"includes": {"minKernel": "4.8"}}, {"kernel": "10.1"}, True),
        ({"excludes": {"minKernel": "4.8"}}, {"kernel": "4.8"}, False),
        ({"includes": {"arches": ["amd64"], "caps": ["CAP_CHOWN"]}}, {}, False),
        ({"includes": {}, "excludes": None}, {}, True),
    ],
)
def test_rules_that_hold_for_some_hosts_only(when: dict[str, object], host: dict[str, Any], *, holds: bool) -> None:
    profile = allowing({"names": ["acct"], "action": "SCMP_ACT_ALLOW", **when})
    assert verdict(profile, "acct", **host) == (ALLOW if holds else EPERM)


def test_dockers_old_form_has_one_name_a_rule() -> None:
    assert verdict(allowing({"name": "acct", "action": "SCMP_ACT_ALLOW", "args": []}), "acct") == ALLOW


def test_unknown_calls_do_no_harm_where_the_default_refuses_them() -> None:
    assert verdict(allowing({"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}), "acct") == EPERM


def test_flags_are_passed_on() -> None:
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]
    assert parse_profile(json.dumps(refusing(flags=flags)), "p", 0, arch="x86_64").flags == 6


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ({"names": ["acct"]}, r"6: syscalls\[1\]: action None is none of SCMP_ACT_KILL, "),
        ({"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}, r"6: syscalls\[1\]: SCMP_ACT_NOTIFY needs a process"),
        ({"names": ["acct"], "action": "ALLOW"}, r"6: syscalls\[1\]: action 'ALLOW' is none of"),
        ({"action": "SCMP_ACT_ALLOW"}, r"6: syscalls\[1\]: needs either name or names"),
        ({"names": [1], "action": "SCMP_ACT_ALLOW"}, r"6: syscalls\[1\]: 1 is no system call's name"),
        ({"names": "acct", "action": "SCMP_ACT_ALLOW"}, r"6: syscalls\[1\]\.names: is not an array"),
        ({"names": ["acc"], "action": "SCMP_ACT_ERRNO"}, r"6: syscalls\[1\]: no system call is named acc, and"),
        (
            {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "exclude": {}},
            r"6: syscalls\[1\]\.exclude: unknown key; known",
        ),
        (
            {"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": -1},
            r"6: syscalls\[1\]: errnoRet -1 is no number from",
        ),
        ({"names": ["a"], "action": "SCMP_ACT_ERRNO", "errno": "EXX"}, r"6: syscalls\[1\]: 'EXX' is no errno"),
        (
            {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]},
            r"6: syscalls\[1\]\.args\[0\]: index 6 is no number from 0 to 5",
        ),
        (
            {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 1, "op": "EQ"}]},
            r"6: syscalls\[1\]\.args\[0\]: comparison 'EQ' is none of SCMP_CMP_EQ",
        ),
        (
            {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["SYS_ADMIN"]}},
            r"6: syscalls\[1\]\.includes\.caps\[0\]: 'SYS_ADMIN' is no capability",
        ),
        (
            {"names": ["acct"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}},
            r"6: syscalls\[1\]\.includes: minKernel 'new' is not as in 4\.8",
        ),
        ([], r"6: syscalls\[1\]: is not an object"),
    ],
)
def test_faults_name_their_line_and_place(rule: object, wrong: str) -> None:
    ok = json.dumps({"names": ["acct"], "action": "SCMP_ACT_ERRNO"})
    text = f'{{\n "defaultAction": "SCMP_ACT_ALLOW",\n "syscalls":\n [\n  {ok},\n  {json.dumps(rule)}\n ]\n}}\n'
    with pytest.raises(SeccompError, match=rf"^p\.json:{wrong}") as raised:
        parse_profile(text, "p.json", 0, arch="x86_64")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", r"^p:1: not JSON: expecting value"),
        ("{\n\n,}", r"^p:3: not JSON: "),
        ("[]", r"^p:1: is not an object"),
        ("[" * 100_000, r"^p: not JSON that one can read"),
        ("{}", r"^p:1: defaultAction None is none of"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}', r"^p:1: flags\[0\]: flag 'X' is none of"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW",\n"architectures": ["x86"]}',
            r"^p:2: architectures\[0\]: 'x86' is no arch",
        ),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": ""}', r"^p:1: listenerPath: unknown key"),
        (" " * (1 << 20) + "{}", r"^p: too long"),
    ],
)
def test_what_is_no_profile(text: str, wrong: str) -> None:
    with pytest.raises(SeccompError, match=wrong):
        parse_profile(text, "p", 0, arch="x86_64")


def test_both_ways_to_name_architectures_are_one_too_many() -> None:
    profile = refusing(architectures=["SCMP_ARCH_X86_64"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}])
    with pytest.raises(SeccompError, match="has both architectures and archMap; leave one out"):
        machine(profile)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(SeccompError, match=r"^seccomp profile .*/gone: no such file or directory$"):
        load_profile(tmp_path / "gone", 0)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(SeccompError, match=r"^seccomp profile .*/binary: not UTF-8: "):
        load_profile(tmp_path / "binary", 0)


def test_what_can_be_named() -> None:
    assert load_profile("unconfined", 0, arch="riscv64") is None
    assert load_profile("default", 5, arch="x86_64") is load_profile("default", 5, arch="x86_64")
    with pytest.raises(SeccompError, match="no seccomp filters for riscv64: only for x86_64, aarch64"):
        load_profile("default", 0, arch="riscv64")


def test_kernel_versions() -> None:
    assert kernel_version("6.18.44-x") == (6, 18)
    with pytest.raises(ValueError, match="no kernel's release: x"):
        kernel_version("x")


Json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=15,
)


@given(Json, st.sampled_from([None, 0, 1, 3]))
def test_any_json_is_read_or_refused_in_one_line(value: object, indent: int | None) -> None:
    refused = refusing(value)  # type: ignore[arg-type]  # anything that JSON can say
    for profile in (value, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": value}, refused):
        try:
            parse_profile(json.dumps(profile, indent=indent), "p", 0, arch="x86_64")
        except SeccompError as error:
            assert str(error).startswith("p:")
            assert len(str(error).splitlines()) == 1


@given(Json, st.integers(0, 3))
def test_a_line_is_where_the_value_begins(value: object, indent: int) -> None:
    text = json.dumps({"before": value, "list": [value, value, {"here": 1}]}, indent=indent)
    at = text.rindex('"here"')
    assert line_of(text, ("list", 2, "here")) == text.count("\n", 0, at) + 1
