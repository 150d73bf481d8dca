"""Docker's words for what a container may use: of a request to `limits`, and of limits to an inspection. Pure."""

from collections.abc import Iterable
from typing import Any

from runtime.cgroup.limits import PERIOD_US, IoLimit, Limits
from supervisor.api.errors import bad
from supervisor.api.fields import Fields

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
    """Of a HostConfig, or of an update. 0 and -1 are none."""
    memory = host.number("Memory")
    found: dict[str, object] = {
        "memory": memory,
        "cpus": _cpus(host),
        "cpu_weight": min(10_000, max(1, round(shares * 100 / SHARES))) if (shares := host.number("CpuShares")) else 0,
        "cpuset": host.text("CpusetCpus"),
        "pids": max(0, host.number("PidsLimit")),
        "io": list(_devices(host)),
    }
    asked = {key: value for key, value in found.items() if value}
    if (both := host.number("MemorySwap")) > 0:
        if both < memory or not memory:
            raise bad("Minimum memoryswap limit should be larger than memory limit, which must be given")
        asked["swap"] = both - memory
    return asked


def _cpus(host: Fields) -> float:
    nano, quota = host.number("NanoCpus"), host.number("CpuQuota")
    if nano and quota > 0:
        raise bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    return nano / 1e9 if nano else max(0, quota) / (host.number("CpuPeriod") or PERIOD_US)


def _devices(host: Fields) -> Iterable[dict[str, object]]:
    devices: dict[str, dict[str, object]] = {}
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
