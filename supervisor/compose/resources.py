"""What a service may use: Compose's many keys for it, and those of `deploy`, in one `limits`."""

from collections.abc import Callable, Mapping

from supervisor.compose import dollar
from supervisor.compose.scalars import nothing
from supervisor.compose.services import Keys, Service
from supervisor.spec.faults import Wrong, unexpected
from supervisor.spec.kinds import size, whole
from supervisor.spec.tree import Map, Plain, Seq

Rule = Callable[[Service, object], Keys] | str

UNLIMITED = "-1"
PERIOD_US = 100_000  # Docker's, and the kernel's
SHARES = 1024  # what a weight of 100 is in version 1's words
SHARES_MAX = 262_144
_IO = {
    "device_read_bps": "rbps",
    "device_write_bps": "wbps",
    "device_read_iops": "riops",
    "device_write_iops": "wiops",
}
_NO_RESERVATION = "a reservation is a scheduler's: nothing is kept free for a container here"


def _limit(key: str) -> Rule:
    """As it is; numbers may be in quotes in Compose. 0 and -1: none."""

    def rule(_service: Service, value: object) -> Keys:
        if nothing(value) or value in (UNLIMITED, "0"):
            return {}
        return {"limits": {key: Plain(value) if isinstance(value, str) else value}}

    return rule


def _cpuset(_service: Service, value: object) -> Keys:
    return {} if nothing(value) else {"limits": {"cpuset": value}}


def _memswap(service: Service, value: object) -> Keys:
    """Memory and swap together, there; `swap` is besides the memory."""
    memory = service.found("mem_limit")
    if nothing(value) or value in (UNLIMITED, "0"):
        return {}
    if memory is None:
        raise Wrong("is without mem_limit", "that beside it")
    if dollar.has(value) or dollar.has(memory):
        raise Wrong("holds a variable: it is memory and swap together", "swap, besides the memory, in limits")
    swap = size(value) - size(memory)
    if swap < 0:
        raise Wrong("is below mem_limit", "memory and swap together")
    return {"limits": {"swap": swap}}


def _shares(service: Service, value: object) -> Keys:
    if nothing(value) or value == "0":
        return {}
    weight = round(whole(value, 2, SHARES_MAX) * 100 / SHARES)
    service.notes.changed(service.loc("cpu_shares"), "is a weight here: 100 is what 1024 is there", key=False)
    return {"limits": {"cpu_weight": min(10_000, max(1, weight))}}


def _quota(service: Service, value: object) -> Keys:
    if nothing(value) or value in (UNLIMITED, "0"):
        return {}
    period = service.found("cpu_period")
    period_us = PERIOD_US if nothing(period) else whole(period, 1000, 1_000_000)
    return {"limits": {"cpus": whole(value, 1000, 1_000_000_000) / period_us}}


def _period(service: Service, value: object) -> Keys:
    if not nothing(value) and nothing(service.found("cpu_quota")):
        raise Wrong("is without cpu_quota", "cpus")
    return {}


def _blkio(service: Service, value: object) -> Keys:
    devices: dict[str, dict[str, object]] = {}
    for key, entries in _mapping(value).items() if not nothing(value) else ():
        if key not in _IO:
            service.notes.dropped(service.loc("blkio_config", key), "there are rates of devices, and no weights")
            continue
        for entry in entries if isinstance(entries, Seq) else ():
            one = _mapping(entry)
            device = devices.setdefault(str(one.get("path")), {"device": one.get("path")})
            rate = one.get("rate")
            device[_IO[key]] = Plain(rate) if isinstance(rate, str) else rate
    return {"limits": {"io": list(devices.values())}} if devices else {}


def _mapping(value: object) -> Map:
    if not isinstance(value, Map):
        raise unexpected(value, "a mapping")
    return value


def deployed(service: Service, value: object) -> Keys:
    """`deploy.resources`."""
    result: dict[str, object] = {}
    for key, entries in _mapping(value).items() if not nothing(value) else ():
        loc = service.loc("deploy", "resources", key)
        if key != "limits":
            service.notes.dropped(loc, _NO_RESERVATION)
            continue
        for name, limit in _mapping(entries).items() if entries is not None else ():
            rule = _DEPLOYED.get(name)
            if rule is None or isinstance(rule, str):
                service.notes.dropped((*loc, name), "there are limits of cpus, memory and pids")
            else:
                limits = rule(service, limit).get("limits", {})
                result |= limits if isinstance(limits, dict) else {}
    return {"limits": result} if result else {}


_DEPLOYED: Mapping[str, Rule] = {"cpus": _limit("cpus"), "memory": _limit("memory"), "pids": _limit("pids")}
_NO_REAL_TIME = "real-time scheduling needs a kernel that gives it to cgroups: few do"

RULES: dict[str, Rule] = {
    "blkio_config": _blkio,
    "cgroup_parent": "all containers of a stack are in a cgroup of its own: start pysup where they are to be",
    "cpu_period": _period,
    "cpu_quota": _quota,
    "cpu_rt_period": _NO_REAL_TIME,
    "cpu_rt_runtime": _NO_REAL_TIME,
    "cpu_shares": _shares,
    "cpus": _limit("cpus"),
    "cpuset": _cpuset,
    "mem_limit": _limit("memory"),
    "mem_reservation": f"{_NO_RESERVATION}; limits.memory_high slows down who takes more",
    "mem_swappiness": "cgroup v2 has no swappiness: limits.swap bounds what is swapped",
    "memswap_limit": _memswap,
    "oom_kill_disable": "a container out of memory would hang instead: cgroup v2 has no such switch",
    "oom_score_adj": "a limit of memory holds within the container: the host's choice is its own",
    "pids_limit": _limit("pids"),
}
