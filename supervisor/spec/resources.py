"""Text to what a container may use: `limits`."""

import re
from collections.abc import Callable, Mapping
from functools import partial

from runtime.cgroup.limits import CPUSET_PATTERN, IoLimit, Limits
from supervisor.spec.faults import Wrong, together, unexpected
from supervisor.spec.kinds import each, keyed, listed, mapped, matching, number, size, some_text, whole

CPUS_MIN, CPUS_MAX = 0.01, 10_000.0
WEIGHT_MAX = 10_000
PIDS_MAX = 1 << 22  # PID_MAX_LIMIT: proc_sys_kernel(5)
RATE_MAX = (1 << 63) - 1

_CPUSET = re.compile(CPUSET_PATTERN, re.ASCII)
_EXPECTED = "a mapping, such as {memory: 256MiB, cpus: 1.5, pids: 100}"
_IO_EXPECTED = "{device: /dev/sda, rbps: …, wbps: …, riops: …, wiops: …}"


def limits(value: object) -> Limits:
    """What is not said is not limited."""
    if isinstance(value, Limits):
        return value
    given = keyed(mapped(value, _EXPECTED), _KEYS)
    made = Limits(**{_FIELDS.get(key, key): entry for key, entry in given.items() if entry is not None})
    high, most = made.memory_high_bytes, made.memory_bytes
    if high is not None and most is not None and high > most:
        raise together([Wrong("is above memory", "at most what memory says").within("memory_high")])
    return made


_FIELDS = {"memory": "memory_bytes", "memory_high": "memory_high_bytes", "swap": "swap_bytes"}


def _cpuset(value: object) -> str:
    expected = "numbers of processors, such as 0-3,8"
    found = matching(str(value) if isinstance(value, int) else value, _CPUSET, expected)
    for span in found.split(","):
        low, _, high = span.partition("-")
        if high and int(low) > int(high):
            raise unexpected(value, expected)
    return found


def _io(value: object) -> tuple[IoLimit, ...]:
    found = tuple(each(listed(value, f"a list of {_IO_EXPECTED}"), _io_limit))
    if doubles := {one.device for one in found if [other.device for other in found].count(one.device) > 1}:
        raise Wrong(f"names {min(doubles)} twice", "each device once")
    return found


def _io_limit(value: object) -> IoLimit:
    if isinstance(value, IoLimit):
        return value
    given = keyed(mapped(value, _IO_EXPECTED), _IO_KEYS)
    if "device" not in given or len(given) == 1:
        raise Wrong("is without " + ("a rate" if "device" in given else "a device"), _IO_EXPECTED)
    return IoLimit(**given)


def _device(value: object) -> str:
    return some_text(value, "a block device, such as /dev/sda or 8:0")


def _optional(parse: Callable[[object], object]) -> Callable[[object], object]:
    """Null: unlimited, whatever the defaults say."""
    return lambda value: None if value is None else parse(value)


_OPTIONAL_KEYS: Mapping[str, Callable[[object], object]] = {
    "memory": size,
    "memory_high": size,
    "swap": partial(size, low="0"),
    "cpus": partial(number, low=CPUS_MIN, high=CPUS_MAX, expected=f"processors from {CPUS_MIN:g} to {CPUS_MAX:.0f}"),
    "cpu_weight": partial(whole, low=1, high=WEIGHT_MAX),
    "cpuset": _cpuset,
    "pids": partial(whole, low=1, high=PIDS_MAX),
    "io": _io,
}
_KEYS = {key: _optional(parse) for key, parse in _OPTIONAL_KEYS.items()}
_IO_KEYS: Mapping[str, Callable[[object], object]] = {
    "device": _device,
    "rbps": partial(size, low="1"),
    "wbps": partial(size, low="1"),
    "riops": partial(whole, low=1, high=RATE_MAX),
    "wiops": partial(whole, low=1, high=RATE_MAX),
}


def written(given: Limits) -> dict[str, object]:
    """The opposite: what was said, in YAML's own types."""
    found = {key: getattr(given, _FIELDS.get(key, key)) for key in _KEYS}
    said: dict[str, object] = {key: entry for key, entry in found.items() if entry not in (None, ())}
    if given.io:
        said["io"] = [{key: getattr(one, key) for key in _IO_KEYS if getattr(one, key) is not None} for one in given.io]
    return said
