"""Docker's words for what a container may use: of a request to `limits`, and of limits to an inspection. Pure."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from runtime.cgroup.limits import CPUSET_PATTERN, PERIOD_US, IoLimit, Limits
from supervisor.api.errors import bad
from supervisor.api.fields import Fields

MEMORY_MIN_BYTES = 6 << 20  # Docker's: with less nothing starts
SHARES = 1024  # what a weight of 100 is there
_RATES = {
    "BlkioDeviceReadBps": "rbps",
    "BlkioDeviceWriteBps": "wbps",
    "BlkioDeviceReadIOps": "riops",
    "BlkioDeviceWriteIOps": "wiops",
}
KNOWN = frozenset(
    {"Memory", "MemorySwap", "NanoCpus", "CpuPeriod", "CpuQuota", "CpuShares", "CpusetCpus", "PidsLimit", *_RATES}
)


def keys(host: Fields) -> dict[str, object]:
    """Of a HostConfig. 0 and -1 are none."""
    memory = _memory(host)
    found: dict[str, object] = {
        "memory": memory,
        "cpus": _cpus(host),
        "cpu_weight": _weight(host),
        "cpuset": _cpuset(host),
        "pids": max(0, host.number("PidsLimit")),
        "io": list(_devices(host)),
    }
    asked = {key: value for key, value in found.items() if value}
    if (both := host.number("MemorySwap")) > 0:
        if both < memory or not memory:
            raise bad("Minimum memoryswap limit should be larger than memory limit, which must be given")
        asked["swap"] = both - memory
    return asked


def updated(before: Limits, host: Fields) -> Limits:
    """What an update makes of limits: 0, "" and null leave one as it is; -1 takes it away, where Docker has that."""
    memory, io = _memory(host) or before.memory_bytes, tuple(IoLimit(**each) for each in _devices(host))
    return replace(
        before,
        memory_bytes=memory,
        swap_bytes=_swap(before, memory, host.number("MemorySwap")),
        cpus=_updated_cpus(before.cpus, host),
        cpu_weight=_weight(host) or before.cpu_weight,
        cpuset=_cpuset(host) or before.cpuset,
        pids=before.pids if host.values.get("PidsLimit") is None else max(0, host.number("PidsLimit")) or None,
        io=io or before.io,
    )


def _swap(before: Limits, memory: int | None, both: int) -> int | None:
    """Docker's limit is that of memory and swap together, and stays where it is while that of memory moves."""
    if both < 0 or (both == 0 and before.swap_bytes is None):
        return None
    together = both or (before.memory_bytes or 0) + (before.swap_bytes or 0)
    if memory is None:
        raise bad("You should always set the Memory limit when using Memoryswap limit")
    if together < memory:
        raise bad(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    return together - memory


def _updated_cpus(before: float | None, host: Fields) -> float | None:
    """A period alone leaves the quota as it is."""
    nano, quota, period = host.number("NanoCpus"), host.number("CpuQuota"), host.number("CpuPeriod")
    if quota < 0:
        return None
    if period > 0 and not (nano or quota) and before is not None:
        return before * PERIOD_US / period
    return _cpus(host) or before


def _memory(host: Fields) -> int:
    memory = _some("Memory", host)
    if 0 < memory < MEMORY_MIN_BYTES:
        raise bad("Minimum memory limit allowed is 6MB")
    return memory


def _some(name: str, host: Fields) -> int:
    if (found := host.number(name)) < 0:
        raise bad(f"invalid {name}: {found}: it can't be below 0")
    return found


def _weight(host: Fields) -> int:
    shares = _some("CpuShares", host)
    return min(10_000, max(1, round(shares * 100 / SHARES))) if shares else 0


def _cpuset(host: Fields) -> str:
    if (text := host.text("CpusetCpus")) and not re.fullmatch(CPUSET_PATTERN, text, re.ASCII):
        raise bad(f"Invalid value {text[:100]} for cpuset cpus: numbers of processors are expected, such as 0-3,8")
    return text


def _cpus(host: Fields) -> float:
    nano, quota = _some("NanoCpus", host), host.number("CpuQuota")
    if nano and quota > 0:
        raise bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    return nano / 1e9 if nano else max(0, quota) / (_some("CpuPeriod", host) or PERIOD_US)


def _devices(host: Fields) -> Iterable[dict[str, Any]]:
    devices: dict[str, dict[str, Any]] = {}
    for name, key in _RATES.items():
        for each in host.each(name):
            path = each.text("Path")
            devices.setdefault(path, {"device": path})[key] = each.number("Rate")
    return devices.values()


def shape(limits: Limits) -> dict[str, Any]:
    """In an inspection's HostConfig."""
    memory, swap = limits.memory_bytes or 0, limits.swap_bytes
    weight = limits.cpu_weight
    return {
        "Memory": memory,
        "MemorySwap": 0 if not memory else -1 if swap is None else memory + swap,
        "NanoCpus": 0 if limits.cpus is None else round(limits.cpus * 1e9),
        "CpuShares": 0 if weight is None else max(2, round(weight * SHARES / 100)),
        "CpusetCpus": limits.cpuset or "",
        "PidsLimit": limits.pids,
        **{name: _rated(limits.io, key) for name, key in _RATES.items()},
    }


def _rated(devices: Iterable[IoLimit], key: str) -> list[dict[str, object]] | None:
    found = [(one.device, getattr(one, key)) for one in devices]
    return [{"Path": device, "Rate": rate} for device, rate in found if rate is not None] or None
