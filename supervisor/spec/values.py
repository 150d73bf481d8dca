"""What the user wrote, to values: a small function per field, which raises `Wrong` or several at once, no more.

Text from a file is read as its field means it; a Python value of the right type, from a spec made in code, passes. What
may be written in more than one way is written in the way people know from Docker, and where they and YAML disagree,
people win: `umask: 022` is octal, `storage_size: 64m` is 64 MiB, and `user: 1000:1000` is no number to the base 60.
"""

import re
import shlex
import signal
from collections.abc import Callable, Mapping
from functools import partial

from runtime.build import RLIMITS
from runtime.capabilities import CAPABILITIES
from runtime.users import ID_MAX
from supervisor.core.policy import Condition, Dependency
from supervisor.entry import OnFailure, Order, OutputForm, Update
from supervisor.logs.policy import Driver, LogLimit, LogPolicy, Overflow
from supervisor.spec import later, limits
from supervisor.spec.faults import Wrong, quoted, shown, together, unexpected, unknown
from supervisor.spec.kinds import (
    TRUTHS,
    T,
    absolute,
    boolean,
    choice,
    each,
    keyed,
    listed,
    mapped,
    matching,
    only_keys,
    pairs,
    replica_text,
    seconds,
    size,
    some_text,
    storage_size,
    text,
    time_limit,
    whole,
)
from supervisor.spec.tree import Plain

UNLIMITED = -1
ALL_CAPABILITIES = "ALL"
CAPABILITY_PREFIX = "CAP_"
BARE_CAPABILITIES = (ALL_CAPABILITIES, *(name.removeprefix(CAPABILITY_PREFIX) for name in CAPABILITIES))
ID_PATTERN = "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}"
NAME_PATTERN = "[a-z0-9][a-z0-9_.-]{0,62}"
HOSTNAME_PATTERN = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
USER_PATTERN = r"[^-+:\s][^:\s]*(:[^-+:\s][^:\s]*)?"
UMASK_PATTERN = r"(?:0[oO]?)?([0-7]{1,3})"
_UMASK = re.compile(UMASK_PATTERN)
_USER = re.compile(USER_PATTERN)
_HOSTNAME = re.compile(HOSTNAME_PATTERN)
_REAL_TIME = re.compile(r"SIGRT(MIN|MAX)(?:([+-])([0-9]{1,2}))?")


def name(value: object) -> str:
    return matching(value, re.compile(NAME_PATTERN), "up to 63 of a-z 0-9 _ . -, the first one a letter or digit")


def identifier(value: object) -> str:
    return matching(value, re.compile(ID_PATTERN), "up to 63 of a-z A-Z 0-9 _ . -, the first one a letter or digit")


def image(value: object) -> str:
    return some_text(value, "the name of an image")


def command(value: object) -> tuple[str, ...]:
    """A list of arguments, or a string that is split as a shell would split it. No shell ever sees it."""
    expected = "a list of arguments, or a string"
    words = _split(replica_text(value)) if isinstance(value, str) else each(listed(value, expected), replica_text)
    if not words:
        raise Wrong("is without a program", expected)
    if not words[0]:
        raise Wrong("is without a program: its first word is empty", expected)
    return tuple(words)


def stop_command(value: object) -> tuple[str, ...]:
    return command(value) if value else ()


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:  # "No closing quotation", "No escaped character"
        raise Wrong(f"can't be split: {str(error).lower()}", "balanced quotes, or a list of arguments") from None


def environment(value: object) -> dict[str, str]:
    """A mapping, or a list of `NAME=value`; values stay as they were written. Nothing is taken from the host."""
    expected = "a mapping of names to values, or a list of NAME=value"
    if isinstance(value, Mapping):
        return dict(each(pairs(value), _variable))
    taken: dict[str, str] = {}
    each(listed(value, expected), lambda entry: _take(taken, _variable(_assignment(entry))))
    return taken


def _assignment(entry: object) -> tuple[str, str]:
    variable, equals, value = replica_text(entry, "NAME=value").partition("=")
    if not equals:
        raise unexpected(entry, "NAME=value: nothing is taken from the host's environment")
    return variable, value


def _variable(entry: tuple[str, object]) -> tuple[str, str]:
    variable, value = entry
    text(variable)
    if not variable or "=" in variable:
        what = f"variable name {quoted(variable)} is not valid"
        raise Wrong(what, "a name that is not empty, without =", at_key=True)
    if value is None:
        raise unexpected(value, 'a value; "" is the empty one')
    return variable, replica_text(value)


def _take(taken: dict[str, T], entry: tuple[str, T]) -> None:
    key, value = entry
    if key in taken:
        raise Wrong(f"gives {quoted(key)} a second time", "each once", at_key=True)
    taken[key] = value


def workdir(value: object) -> str | None:
    expected = "an absolute path in the container"
    if value is None:
        return None
    return absolute(value, expected)


def user(value: object) -> str | None:
    expected = "uid[:gid] or name[:group]"
    if value is None:
        return None
    found = matching(value, _USER, expected)
    for part in found.split(":"):
        if part.isdecimal() and (len(part) > len(str(ID_MAX)) or int(part) > ID_MAX):
            raise unexpected(value, f"{expected} with ids from 0 to {ID_MAX}")
    return found


def hostname(value: object) -> str | None:
    """A name as RFC 1123 has it, no longer than the kernel takes."""
    expected = f"a host name: letters, digits, - and ., at most {limits.HOSTNAME_MAX_CHARS} of them"
    if value is None:
        return None
    found = replica_text(value, expected)
    some = later.sample(found)
    if not _HOSTNAME.fullmatch(some) or len(some) > limits.HOSTNAME_MAX_CHARS:
        raise Wrong(f"is {shown(found)}", expected)
    return found


def stop_signal(value: object) -> int:
    """A signal's name with or without SIG, real-time ones as RTMIN+n and RTMAX-n, or its number."""
    last = int(signal.SIGRTMAX)
    if isinstance(value, str) and not value.isdecimal():
        return _signal(value, f"a signal such as SIGTERM, USR1 or SIGRTMIN+3, or a number from 1 to {last}")
    return whole(Plain(value) if isinstance(value, str) else value, 1, last, "a signal's name, or its number")


def _signal(value: str, expected: str) -> int:
    word = "SIG" + value.upper().removeprefix("SIG")
    if word in signal.Signals.__members__:
        return int(signal.Signals[word])
    if found := _REAL_TIME.fullmatch(word):
        base = signal.SIGRTMIN if found[1] == "MIN" else signal.SIGRTMAX
        number = base + int((found[2] or "+") + (found[3] or "0"))
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return int(number)
    raise Wrong(f"is {shown(value)}", expected, word=word, words=signal.Signals.__members__)


_CONDITIONS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}  # Compose's


def dependencies(value: object) -> dict[str, Dependency]:
    """A list of ids, or a mapping of ids to what is needed of each."""
    expected = f"a list of ids, or a mapping of ids to {_NEED_EXPECTED}"
    if isinstance(value, Mapping):
        return dict(each(pairs(value), lambda pair: (pair[0], dependency(pair[1]))))
    taken: dict[str, Dependency] = {}
    each(listed(value, expected), lambda entry: _take(taken, (some_text(entry, "a container's id"), Dependency())))
    return taken


_NEED_EXPECTED = "{condition: …, restart: …, required: …, timeout_s: …}"


def dependency(value: object) -> Dependency:
    if isinstance(value, Dependency):
        return value
    if isinstance(value, Condition):
        return Dependency(value)
    return Dependency(**keyed({} if value is None else mapped(value, _NEED_EXPECTED), _NEED))


def _condition(value: object) -> Condition:
    try:
        return choice(value, Condition)
    except Wrong as wrong:
        wrong.word = _CONDITIONS.get(wrong.word, wrong.word)
        raise


_NEED: dict[str, Callable[[object], object]] = {
    "condition": _condition,
    "restart": boolean,
    "required": boolean,
    "timeout_s": time_limit,
}


def replicas(value: object) -> int:
    return whole(value, 0, limits.REPLICAS_MAX)


def capabilities(value: object) -> tuple[str, ...]:
    """Names in any case, with or without CAP_, and ALL; as the kernel writes them."""
    names = each(listed(value, "a list of capabilities, such as [NET_ADMIN]"), _capability)
    return tuple(dict.fromkeys(names))


def _capability(value: object) -> str:
    word = text(value, "a capability").upper().removeprefix(CAPABILITY_PREFIX)
    if word == ALL_CAPABILITIES:
        return word
    if CAPABILITY_PREFIX + word not in CAPABILITIES:
        expected = "a capability, such as NET_ADMIN, or ALL"
        raise Wrong(f"is {shown(value)}", expected, word=word, words=BARE_CAPABILITIES)
    return CAPABILITY_PREFIX + word


SECCOMP_EXPECTED = "default, unconfined, or the path of a profile"


def seccomp(value: object) -> str:
    """A word, a path, or (from Docker's clients) a profile itself. What is in it is looked at when it is compiled."""
    return some_text(value, SECCOMP_EXPECTED)


def umask(value: object) -> int:
    """Always octal digits, as the shell has them: `22`, `022`, `0022` and `0o22` are one and the same."""
    if isinstance(value, int) and not isinstance(value, bool):
        return whole(value, 0, 0o777)
    found = _UMASK.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise unexpected(value, "octal digits from 000 to 777, such as 022")
    return int(found[1], 8)


def ulimits(value: object) -> dict[str, tuple[int, int]]:
    """The kernel's names, in any case, with or without RLIMIT_, to one limit or to {soft, hard}: getrlimit(2)."""
    taken: dict[str, tuple[int, int]] = {}
    each(pairs(mapped(value, "a mapping, such as {nofile: 1024}")), lambda pair: _take(taken, _ulimit(pair)))
    return taken


def _ulimit(entry: tuple[str, object]) -> tuple[str, tuple[int, int]]:
    key, value = entry
    word = key.lower().removeprefix("rlimit_")
    if word not in RLIMITS:
        raise unknown("limit", word, RLIMITS)
    soft, hard = _bounds(value)
    if word == "nofile" and UNLIMITED != soft < limits.DESCRIPTORS_MIN:
        raise Wrong(f"is {soft}", f"at least {limits.DESCRIPTORS_MIN}: without a descriptor it can't be started")
    if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
        raise Wrong("has its soft limit above its hard one", "soft at most hard")
    return word, (soft, hard)


def _bounds(value: object) -> tuple[int, int]:
    if isinstance(value, tuple) and len(value) == 2:
        return _limit(value[0]), _limit(value[1])
    if isinstance(value, str) and value.count(":") == 1:  # as on Docker's command line
        soft, _, hard = value.partition(":")
        return _limit(Plain(soft)), _limit(Plain(hard))
    if not isinstance(value, Mapping):
        limit = _limit(value)
        return limit, limit
    only_keys(value, ("soft", "hard"))
    return _bound(value, "soft"), _bound(value, "hard")


def _bound(value: Mapping[str, object], which: str) -> int:
    if which not in value:
        raise Wrong(f"is without its {which} limit", "{soft: …, hard: …}")
    try:
        return _limit(value[which])
    except Wrong as wrong:
        raise wrong.within(which) from None


def _limit(value: object) -> int:
    if isinstance(value, str) and value.lower() in ("unlimited", "-1"):
        return UNLIMITED
    if value == UNLIMITED:
        return UNLIMITED
    try:
        return whole(value, 0, limits.RLIMIT_MAX)
    except Wrong:
        raise unexpected(value, f"a whole number from 0 to {limits.RLIMIT_MAX}, or unlimited", ["unlimited"]) from None


_OUTPUT_EXPECTED = "{prefix: …, timestamps: …}"


def output(value: object) -> OutputForm:
    if isinstance(value, OutputForm):
        return value
    return OutputForm(**keyed(mapped(value, _OUTPUT_EXPECTED), {"prefix": _prefix, "timestamps": boolean}))


def _prefix(value: object) -> str | None:
    """True: the container's name; false: none; else a text of one's own."""
    if isinstance(value, bool) or (isinstance(value, Plain) and value in TRUTHS):
        return None if boolean(value) else ""
    expected = f"true, false, or a text of at most {limits.PREFIX_MAX_CHARS} characters on one line"
    found = replica_text(value, expected)
    some = later.sample(found)
    if not some.isprintable() or len(some) > limits.PREFIX_MAX_CHARS:
        raise Wrong(f"is {shown(found)}", expected)
    return found


_UPDATE_EXPECTED = "{order: …, parallel: …, on_failure: …, monitor_s: …}"


def update(value: object) -> Update:
    """How a reload replaces it."""
    if isinstance(value, Update):
        return value
    return Update(
        **keyed(
            mapped(value, _UPDATE_EXPECTED),
            {
                "order": partial(choice, kinds=Order),
                "parallel": partial(whole, low=0, high=limits.REPLICAS_MAX),
                "on_failure": partial(choice, kinds=OnFailure),
                "monitor_s": partial(seconds, high=limits.CHECK_MAX_S),
            },
        )
    )


_LOGS_EXPECTED = "{driver: …, max_size: …, max_files: …, compress: …, overflow: …}"


def logs(value: object) -> LogPolicy:
    """How a container's output is kept."""
    if isinstance(value, LogPolicy):
        return value
    given = keyed(
        mapped(value, _LOGS_EXPECTED),
        {
            "driver": partial(choice, kinds=Driver),
            "max_size": size,
            "max_files": partial(whole, low=1, high=limits.LOG_FILES_MAX),
            "compress": boolean,
            "overflow": partial(choice, kinds=Overflow),
        },
    )
    policy = LogPolicy(**{_LOGS_FIELDS.get(name, name): each for name, each in given.items()})
    if policy.driver is Driver.RAW and policy.overflow is Overflow.DROP:
        wrong = Wrong("is drop beside driver: raw, whose lines nobody counts", "block, or driver: file")
        raise together([wrong.within("overflow")])
    return policy


_LOGS_FIELDS = {"max_size": "max_size_bytes"}


def logs_of_stack(value: object) -> LogLimit:
    """The limit that all logs share."""
    if isinstance(value, LogLimit):
        return value
    given = keyed(mapped(value, "{max_total: …}"), {"max_total": storage_size})
    return LogLimit(given.get("max_total"))
