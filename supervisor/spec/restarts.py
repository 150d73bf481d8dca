"""Text to what becomes of a container that has ended: `restart`, `restart_on`, `success_codes`."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from supervisor.core.policy import RestartOn, RestartPolicy
from supervisor.spec import limits
from supervisor.spec.faults import Wrong, together, unexpected
from supervisor.spec.kinds import boolean, each, keyed, listed, mapped, seconds, whole
from supervisor.spec.terms import Restart
from supervisor.spec.values import stop_signal

CODE_MAX = 255  # of exit statuses: _exit(2)
RANGE_PATTERN = "([0-9]{1,3})(?: ?- ?([0-9]{1,3}))?"
RETRIES_MAX = 10**limits.RETRIES_MAX_DIGITS - 1

_RANGE = re.compile(RANGE_PATTERN, re.ASCII)
_RETRIES = re.compile(rf"on-failure:([1-9][0-9]{{0,{limits.RETRIES_MAX_DIGITS - 1}}})")
_POLICIES = [policy.value for policy in RestartPolicy]


def restart(value: object) -> Restart:
    """A policy, `on-failure:N` for at most N restarts in a row, or a mapping of all that can be said."""
    if isinstance(value, Restart):
        return value
    if isinstance(value, Mapping):
        return _with_limits(value)
    return _policy(value, "no, on-failure, on-failure:N (at least 1), always or unless-stopped")


def _policy(value: object, expected: str) -> Restart:
    if isinstance(value, str):
        if value in _POLICIES:
            return Restart(RestartPolicy(str(value)))
        if found := _RETRIES.fullmatch(value):
            return Restart(RestartPolicy.ON_FAILURE, int(found[1]))
    wrong = unexpected(value, expected, _POLICIES)
    wrong.word = wrong.word.partition(":")[0]
    raise wrong


def _with_limits(entries: Mapping[str, object]) -> Restart:
    given = keyed(entries, _LIMITS)
    if "policy" not in given:
        raise Wrong("is without a policy", "{policy: …, max_retries: …, max_restarts: …, window_s: …}")
    policy: Restart = given["policy"]
    if "max_retries" in given and policy.policy is not RestartPolicy.ON_FAILURE:
        raise together([Wrong(f"has no meaning with policy: {policy}", "policy: on-failure").within("max_retries")])
    if policy.policy is RestartPolicy.NO and (idle := given.keys() & {"max_restarts", "window_s"}):
        wrong = Wrong("has no meaning with policy: no", "another policy")
        raise together([wrong.within(min(idle))])
    return Restart(**{"max_retries": policy.max_retries, **given, "policy": policy.policy})


_LIMITS: Mapping[str, Callable[[object], object]] = {
    "policy": partial(_policy, expected="no, on-failure, always or unless-stopped"),
    "max_retries": partial(whole, low=1, high=RETRIES_MAX),
    "max_restarts": partial(whole, low=1, high=RETRIES_MAX),
    "window_s": partial(seconds, low=limits.CHECK_MIN_S, high=limits.WAIT_MAX_S),
}


def retries(value: object) -> int | None:
    return None if value is None else whole(value, 0, RETRIES_MAX)


def restart_on(value: object) -> RestartOn | None:
    """The ends after which a restart makes sense; null: all."""
    if value is None or isinstance(value, RestartOn):
        return value
    expected = "{exit_codes: [1, 3-5], signals: [SIGSEGV], oom: true}"
    result = RestartOn(**keyed(mapped(value, expected), _ENDS))
    if result == RestartOn():
        raise Wrong("names no end", expected)
    return result


def _signals(value: object) -> frozenset[int]:
    return frozenset(each(listed(value, "a list of signals, such as [SIGSEGV]"), stop_signal))


def success_codes(value: object) -> frozenset[int]:
    """A number, a range, or a list of them; at least one."""
    found = codes(value)
    if not found:
        raise Wrong("names no exit status", "0, or a list such as [0, 143]")
    return found


def codes(value: object) -> frozenset[int]:
    """Exit statuses: a number, a range, or a list of them."""
    if isinstance(value, frozenset | set):
        return frozenset(whole(code, 0, CODE_MAX) for code in value)
    return frozenset(code for low, high in ranges(value, 0, CODE_MAX) for code in range(low, high + 1))


def ranges(value: object, low: int, high: int) -> list[tuple[int, int]]:
    """Numbers and ranges such as `200-399`; one, or a list of them."""
    expected = f"a number from {low} to {high}, a range such as {low}-{high}, or a list of them"
    if not isinstance(value, list | tuple):
        return [_range(value, low, high, expected)]
    if len(value) > limits.CODES_MAX:
        raise Wrong("is too long", f"at most {limits.CODES_MAX} of them")
    return each(enumerate(value), partial(_range, low=low, high=high, expected=expected))


def _range(value: object, low: int, high: int, expected: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if found is None:
        raise unexpected(value, expected)
    first, last = int(found[1]), int(found[2] or found[1])
    if not low <= first <= last <= high:
        raise unexpected(value, expected)
    return first, last


def written(numbers: Iterable[int]) -> list[int | str]:
    """The opposite of `codes`: numbers, and ranges of three and more."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return [each for low, high in spans for each in _span(low, high)]


def _span(low: int, high: int) -> list[int | str]:
    return [f"{low}-{high}"] if high > low + 1 else list(range(low, high + 1))


_ENDS: Mapping[str, Callable[[object], object]] = {"exit_codes": codes, "signals": _signals, "oom": boolean}
