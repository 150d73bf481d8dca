"""Version 1: the same limits and figures in its words. Documentation/admin-guide/cgroup-v1/.

It has no `memory_high` (its soft limit is a hint that the kernel seldom follows). It does not kill a whole cgroup when
memory runs out: the supervisor does, on the kernel's word (oom.py).
"""

from collections.abc import Iterator

from runtime.cgroup.files import entries, number, read, times, write
from runtime.cgroup.limits import PERIOD_US, IoLimit, Limits, Setting, device_number, quota_us

SHARES = 1024  # what version 2 calls a weight of 100: so the kernel itself converts (kernel/sched/core.c)
USER_HZ_NS = 10_000_000  # cpuacct.stat counts hundredths of a second


_NONE = "which has no such limit: boot it with systemd.unified_cgroup_hierarchy=1, or leave the limit out"


def lacking(limits: Limits) -> dict[str, str]:
    """Why a key can't be had."""
    found = {"memory_high": _NONE}
    if limits.memory_bytes is None:
        found["swap"] = "which limits memory and swap together: give limits.memory too"
    return found


def settings(limits: Limits) -> Iterator[Setting]:
    """Every limit that there is one for, in the order in which the kernel takes them."""
    yield from _memory_settings(limits)
    if limits.cpus is not None:
        yield Setting("cpus", "cpu.cfs_period_us", str(PERIOD_US))
        yield Setting("cpus", "cpu.cfs_quota_us", str(quota_us(limits.cpus)))
    if limits.cpu_weight is not None:
        yield Setting("cpu_weight", "cpu.shares", str(max(2, round(limits.cpu_weight * SHARES / 100))))
    if limits.cpuset is not None:
        yield Setting("cpuset", "cpuset.cpus", limits.cpuset)
    if limits.pids is not None:
        yield Setting("pids", "pids.max", str(limits.pids))
    for one in limits.io:
        yield from _io_settings(one)


def resets(limits: Limits) -> Iterator[Setting]:
    """What takes these limits away: the values of a new cgroup. That of memory and swap together goes first."""
    if limits.swap_bytes is not None:
        yield Setting("swap", "memory.memsw.limit_in_bytes", "-1")
    if limits.memory_bytes is not None:
        yield Setting("memory", "memory.limit_in_bytes", "-1")
    if limits.cpus is not None:
        yield Setting("cpus", "cpu.cfs_quota_us", "-1")
    if limits.cpu_weight is not None:
        yield Setting("cpu_weight", "cpu.shares", str(SHARES))
    if limits.pids is not None:
        yield Setting("pids", "pids.max", "max")
    for one in limits.io:
        yield from _io_settings(IoLimit(device=one.device, rbps=0, wbps=0, riops=0, wiops=0))  # 0 is none


def _memory_settings(limits: Limits) -> Iterator[Setting]:
    """The limit of memory and swap together is never below that of memory: so it goes first, and comes back last."""
    if limits.memory_bytes is None:
        return
    if limits.swap_bytes is not None:
        yield Setting("swap", "memory.memsw.limit_in_bytes", "-1")
    yield Setting("memory", "memory.limit_in_bytes", str(limits.memory_bytes))
    if limits.swap_bytes is not None:
        yield Setting("swap", "memory.memsw.limit_in_bytes", str(limits.memory_bytes + limits.swap_bytes))


def _io_settings(one: IoLimit) -> Iterator[Setting]:
    device = device_number(one.device)
    rates = {"read_bps": one.rbps, "write_bps": one.wbps, "read_iops": one.riops, "write_iops": one.wiops}
    for name, value in rates.items():
        if value is not None:
            yield Setting("io", f"blkio.throttle.{name}_device", f"{device} {value}")


def figures(directory: str, controllers: frozenset[str]) -> dict[str, int | None]:
    """By their names in `Figures`, of those controllers that live in this hierarchy."""
    found: dict[str, int | None] = {}
    for controller, reader in _READERS.items():
        if controller in controllers:
            found |= reader(directory)
    return found


def _memory(directory: str) -> dict[str, int | None]:
    memory = number(f"{directory}/memory.usage_in_bytes")
    with_swap = number(f"{directory}/memory.memsw.usage_in_bytes")
    return {
        "memory_bytes": memory,
        "memory_inactive_file_bytes": entries(f"{directory}/memory.stat").get("total_inactive_file"),
        "memory_peak_bytes": number(f"{directory}/memory.max_usage_in_bytes"),
        "memory_max_bytes": number(f"{directory}/memory.limit_in_bytes"),
        "swap_bytes": None if memory is None or with_swap is None else max(0, with_swap - memory),
        "oom_kills": oom_kills(directory),
    }


def _cpu(directory: str) -> dict[str, int | None]:
    found = entries(f"{directory}/cpu.stat")
    return {"cpu_throttled_ns": found.get("throttled_time"), "cpu_throttled_periods": found.get("nr_throttled")}


def _cpuacct(directory: str) -> dict[str, int | None]:
    ticks = entries(f"{directory}/cpuacct.stat")
    return {
        "cpu_ns": number(f"{directory}/cpuacct.usage"),
        "cpu_user_ns": times(USER_HZ_NS, ticks.get("user")),
        "cpu_system_ns": times(USER_HZ_NS, ticks.get("system")),
    }


def _pids(directory: str) -> dict[str, int | None]:
    return {"pids": number(f"{directory}/pids.current"), "pids_max": number(f"{directory}/pids.max")}


def _io(directory: str) -> dict[str, int | None]:
    read_bytes, written_bytes = _operations(f"{directory}/blkio.throttle.io_service_bytes_recursive")
    reads, writes = _operations(f"{directory}/blkio.throttle.io_serviced_recursive")
    return {"io_read_bytes": read_bytes, "io_written_bytes": written_bytes, "io_reads": reads, "io_writes": writes}


def _operations(path: str) -> tuple[int, int]:
    """(read, written) of lines `8:0 Read 42`, `8:0 Write 42` and others, all devices together."""
    words = [line.split() for line in read(path).decode("ascii").splitlines()]
    read_sum, written_sum = (sum(int(w[2]) for w in words if w[1:2] == [kind]) for kind in ("Read", "Write"))
    return read_sum, written_sum


_READERS = {"memory": _memory, "cpu": _cpu, "cpuacct": _cpuacct, "pids": _pids, "io": _io}


def oom_kills(directory: str) -> int | None:
    """How many processes in it were killed for want of memory."""
    return entries(f"{directory}/memory.oom_control").get("oom_kill")


def ran_full(directory: str) -> bool:
    """Has it met its limit of memory?"""
    return bool(number(f"{directory}/memory.failcnt"))


def fill_cpuset(directory: str) -> None:
    """A new cpuset is empty, and takes no process before it has processors and memory: it gets its parent's, and so do
    those made in it.
    """
    parent = directory.rpartition("/")[0]
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{directory}/{name}").strip():
            write(f"{directory}/{name}", read(f"{parent}/{name}").decode("ascii").strip())
    write(f"{directory}/cgroup.clone_children", "1")
