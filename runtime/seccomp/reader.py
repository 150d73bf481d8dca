"""Reads a seccomp profile: the OCI runtime specification's form (`linux.seccomp`, alone or in a config.json) and
Docker's, which adds rules that hold for some capabilities, architectures or kernels only, and maps of architectures.

Whatever is not understood is a fault with its line: a profile that means less than it says is worse than none. That
goes for misspelt keys and, where the default lets calls through, for calls that nobody knows. Where the default
refuses them, unknown calls in a list of permitted ones do no harm: profiles are written for many kernels.
"""

import errno
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from runtime.capabilities import CAPABILITIES
from runtime.errors import SeccompError
from runtime.linux import kernel_version
from runtime.seccomp import profile
from runtime.seccomp.calls import COMPANIONS, every_name
from runtime.seccomp.lines import Path, line_of
from runtime.seccomp.profile import ARGUMENTS, DATA, EVERY_BIT, Compare, Condition, Profile, Rule

BYTES_MAX = 1 << 20

_ACTIONS = {
    "SCMP_ACT_KILL": profile.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": profile.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": profile.KILL_PROCESS,
    "SCMP_ACT_TRAP": profile.TRAP,
    "SCMP_ACT_ERRNO": profile.ERRNO,
    "SCMP_ACT_TRACE": profile.TRACE,
    "SCMP_ACT_LOG": profile.LOG,
    "SCMP_ACT_ALLOW": profile.ALLOW,
}
_COMPARES = {
    "SCMP_CMP_EQ": Compare.EQUAL,
    "SCMP_CMP_NE": Compare.NOT_EQUAL,
    "SCMP_CMP_LT": Compare.LESS,
    "SCMP_CMP_LE": Compare.LESS_OR_EQUAL,
    "SCMP_CMP_GT": Compare.GREATER,
    "SCMP_CMP_GE": Compare.GREATER_OR_EQUAL,
}
_MASKED = "SCMP_CMP_MASKED_EQ"
# seccomp(2). Those of threads and of listeners change nothing where there is one thread and no listener.
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0,
}
# Those of ours, as the OCI has it and as Docker does; the others of the OCI's are of other machines.
_ARCHITECTURES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "x86", "SCMP_ARCH_AARCH64": "aarch64"}
_ARCHITECTURE = re.compile("SCMP_ARCH_[A-Z0-9_]+")
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_KERNEL = re.compile(r"(\d+)\.(\d+)")

_TOP = {"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "syscalls", "flags", "comment"}
_RULE = {"names", "name", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}
_WHEN = {"caps", "arches", "minKernel"}

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Host:
    """Whom the profile is for."""

    arch: str
    kernel: tuple[int, int]
    capabilities: int


def read_profile(text: str, place: str, host: Host) -> Profile:
    """The profile for this host. SeccompError with `place` and the line of what is wrong."""
    return _Reader(text, place, host).read()


class _Reader:
    def __init__(self, text: str, place: str, host: Host) -> None:
        self._text = text
        self._place = place
        self._host = host
        self._base: Path = ()

    def read(self) -> Profile:
        top = self._root()
        self._only(top, _TOP, ())
        default = self._action(top, "defaultAction", ("defaultErrno", "defaultErrnoRet"), ())
        rules = [
            rule
            for index, one in enumerate(self._list(top, "syscalls", ()))
            for rule in self._rules(one, index, default)
        ]
        flags = 0
        for index, name in enumerate(self._list(top, "flags", ())):
            flags |= self._known(_FLAGS, name, "flag", ("flags", index))
        return Profile(default, self._architectures(top), tuple(rules), flags)

    def _root(self) -> Mapping[str, object]:
        if len(self._text) > BYTES_MAX:
            raise SeccompError(f"{self._place}: too long: {BYTES_MAX} bytes at most")
        try:
            top = json.loads(self._text)
        except json.JSONDecodeError as error:
            raise SeccompError(f"{self._place}:{error.lineno}: not JSON: {error.msg.lower()}") from error
        except (RecursionError, ValueError) as error:
            raise SeccompError(f"{self._place}: not JSON that one can read: {error}") from error
        if isinstance(top, dict) and "linux" in top:  # a whole config.json
            top = self._object(top["linux"], ("linux",))
            if "seccomp" not in top:
                raise self._fault("has no seccomp", ("linux",))
            self._base, top = ("linux", "seccomp"), top["seccomp"]
        return self._object(top, ())

    # --- architectures ---

    def _architectures(self, top: Mapping[str, object]) -> tuple[str, ...]:
        """The machine's own is always there; of the others, those it can run."""
        if "architectures" in top and "archMap" in top:
            raise self._fault("has both architectures and archMap; leave one out", ("archMap",))
        named = [
            self._architecture(one, ("architectures", index))
            for index, one in enumerate(self._list(top, "architectures", ()))
        ]
        for index, entry in enumerate(self._list(top, "archMap", ())):
            named += self._mapped(entry, ("archMap", index))
        wanted = [arch for arch in COMPANIONS[self._host.arch] if arch in named]
        return (self._host.arch, *wanted)

    def _mapped(self, entry: object, path: Path) -> list[str | None]:
        found = self._object(entry, path)
        self._only(found, {"architecture", "subArchitectures"}, path)
        own = self._architecture(found.get("architecture"), path)
        others = [
            self._architecture(one, (*path, "subArchitectures", index))
            for index, one in enumerate(self._list(found, "subArchitectures", path))
        ]
        return others if own == self._host.arch else []

    def _architecture(self, name: object, path: Path) -> str | None:
        if not isinstance(name, str) or not _ARCHITECTURE.fullmatch(name):
            raise self._fault(f"{name!r} is no architecture: SCMP_ARCH_…", path)
        return _ARCHITECTURES.get(name)

    # --- rules ---

    def _rules(self, one: object, index: int, default: int) -> Iterator[Rule]:
        path: Path = ("syscalls", index)
        rule = self._object(one, path)
        self._only(rule, _RULE, path)
        action = self._action(rule, "action", ("errno", "errnoRet"), path)
        names = self._names(rule, path)
        if profile.lets_through(default):
            self._known_calls(names, path)
        conditions = tuple(
            self._condition(arg, (*path, "args", number)) for number, arg in enumerate(self._list(rule, "args", path))
        )
        if not self._holds(rule, path):
            return
        if len({condition.argument for condition in conditions}) < len(conditions):
            # As runc and crun do: libseccomp takes an argument once only, so each condition is a rule of its own.
            yield from (Rule(names, action, (condition,)) for condition in conditions)
        else:
            yield Rule(names, action, conditions)

    def _names(self, rule: Mapping[str, object], path: Path) -> tuple[str, ...]:
        if ("name" in rule) == ("names" in rule):
            raise self._fault("needs either name or names", path)
        names = [rule["name"]] if "name" in rule else self._list(rule, "names", path)
        for name in names:
            if not isinstance(name, str):
                raise self._fault(f"{name!r} is no system call's name", path)
        return tuple(map(str, names))

    def _known_calls(self, names: tuple[str, ...], path: Path) -> None:
        for name in names:
            if name not in every_name():
                raise self._fault(f"no system call is named {name}, and the default would let it through", path)

    def _condition(self, arg: object, path: Path) -> Condition:
        found = self._object(arg, path)
        self._only(found, {"index", "value", "valueTwo", "op"}, path)
        argument = self._number(found, "index", ARGUMENTS - 1, path)
        value = self._number(found, "value", EVERY_BIT, path)
        if found.get("op") == _MASKED:
            return Condition(argument, Compare.EQUAL, self._number(found, "valueTwo", EVERY_BIT, path, 0), value)
        return Condition(argument, self._known(_COMPARES, found.get("op"), "comparison", path), value)

    def _holds(self, rule: Mapping[str, object], path: Path) -> bool:
        """Docker's rule: what is excluded by any of its conditions is out, what is included must meet all."""
        return all(self._when(rule, "includes", path)) and not any(self._when(rule, "excludes", path))

    def _when(self, rule: Mapping[str, object], key: str, path: Path) -> list[bool]:
        """For every condition, whether this host meets it."""
        if rule.get(key) is None:
            return []
        path = (*path, key)
        when = self._object(rule[key], path)
        self._only(when, _WHEN, path)
        met = [self._has(name, (*path, "caps", number)) for number, name in enumerate(self._list(when, "caps", path))]
        if arches := self._list(when, "arches", path):
            met.append(_GO_NAMES[self._host.arch] in arches)
        if when.get("minKernel"):
            met.append(self._host.kernel >= self._kernel(when["minKernel"], path))
        return met

    def _has(self, name: object, path: Path) -> bool:
        if name not in CAPABILITIES:
            raise self._fault(f"{name!r} is no capability", path)
        return bool(self._host.capabilities >> CAPABILITIES.index(str(name)) & 1)

    def _kernel(self, version: object, path: Path) -> tuple[int, int]:
        if not isinstance(version, str) or not _KERNEL.fullmatch(version):
            raise self._fault(f"minKernel {version!r} is not as in 4.8", path)
        return kernel_version(version)

    # --- actions ---

    def _action(self, found: Mapping[str, object], key: str, codes: tuple[str, str], path: Path) -> int:
        name = found.get(key)
        if name == "SCMP_ACT_NOTIFY":
            raise self._fault("SCMP_ACT_NOTIFY needs a process that listens, which containers here do not have", path)
        action = self._known(_ACTIONS, name, key, path)
        if action not in (profile.ERRNO, profile.TRACE):
            return action
        by_name, by_number = codes
        if found.get(by_name):
            return action | self._errno(found[by_name], path)
        return action | self._number(found, by_number, DATA, path, errno.EPERM)

    def _errno(self, name: object, path: Path) -> int:
        code = getattr(errno, name, None) if isinstance(name, str) and name.startswith("E") else None
        if not isinstance(code, int):
            raise self._fault(f"{name!r} is no errno", path)
        return code

    # --- JSON ---

    def _known(self, table: Mapping[str, Value], name: object, what: str, path: Path) -> Value:
        if not isinstance(name, str) or name not in table:
            raise self._fault(f"{what} {name!r} is none of {', '.join(table)}", path)
        return table[name]

    def _object(self, found: object, path: Path) -> Mapping[str, object]:
        if not isinstance(found, dict):
            raise self._fault("is not an object", path)
        return found

    def _list(self, found: Mapping[str, object], key: str, path: Path) -> list[object]:
        """An array; one that is missing or null is empty."""
        value = found.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._fault("is not an array", (*path, key))
        return value

    def _number(
        self, found: Mapping[str, object], key: str, largest: int, path: Path, default: int | None = None
    ) -> int:
        value = found.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
            raise self._fault(f"{key} {value!r} is no number from 0 to {largest}", path)
        return value

    def _only(self, found: Mapping[str, object], keys: set[str], path: Path) -> None:
        for key in found:
            if key not in keys:
                raise self._fault(f"unknown key; known are {', '.join(sorted(keys))}", (*path, key))

    def _fault(self, wrong: str, path: Path) -> SeccompError:
        path = (*self._base, *path)
        shown = "".join(f".{part}" if str(part).isidentifier() else f"[{part!r}]" for part in path).lstrip(".")
        where = f"{self._place}:{line_of(self._text, path)}: "
        return SeccompError(where + (f"{shown}: {wrong}" if shown else wrong))
