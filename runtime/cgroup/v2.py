"""Version 2: limits, figures and control in its words. Documentation/admin-guide/cgroup-v2.rst."""

from collections.abc import Iterator

from runtime.cgroup.figures import Pressure, pressure
from runtime.cgroup.files import entries, number, read, times, write
from runtime.cgroup.limits import PERIOD_US, IoLimit, Limits, Setting, device_number, quota_us


def settings(limits: Limits) -> Iterator[Setting]:
    """Every limit that was given."""
    plain = {
        "memory": ("memory.max", limits.memory_bytes),
        "memory_high": ("memory.high", limits.memory_high_bytes),
        "swap": ("memory.swap.max", limits.swap_bytes),
        "cpu_weight": ("cpu.weight", limits.cpu_weight),
        "cpuset": ("cpuset.cpus", limits.cpuset),
        "pids": ("pids.max", limits.pids),
    }
    for key, (file, value) in plain.items():
        if value is not None:
            yield Setting(key, file, str(value))
    if limits.oom_kill_group:
        yield Setting("oom", "memory.oom.group", "1")
    if limits.cpus is not None:
        yield Setting("cpus", "cpu.max", f"{quota_us(limits.cpus)} {PERIOD_US}")
    for one in limits.io:
        yield Setting("io", "io.max", f"{device_number(one.device)} {_rates(one)}")


def resets(limits: Limits) -> Iterator[Setting]:
    """What takes these limits away: the values of a new cgroup."""
    files = {
        "memory": ("memory_bytes", "memory.max", "max"),
        "memory_high": ("memory_high_bytes", "memory.high", "max"),
        "swap": ("swap_bytes", "memory.swap.max", "max"),
        "cpus": ("cpus", "cpu.max", f"max {PERIOD_US}"),
        "cpu_weight": ("cpu_weight", "cpu.weight", "100"),
        "pids": ("pids", "pids.max", "max"),
    }
    for key, (field, file, value) in files.items():
        if getattr(limits, field) is not None:
            yield Setting(key, file, value)
    if limits.oom_kill_group:
        yield Setting("oom", "memory.oom.group", "0")
    for one in limits.io:
        yield Setting("io", "io.max", f"{device_number(one.device)} {_rates(IoLimit(device=one.device))}")


def _rates(one: IoLimit) -> str:
    rates = {"rbps": one.rbps, "wbps": one.wbps, "riops": one.riops, "wiops": one.wiops}
    return " ".join(f"{name}={'max' if value is None else value}" for name, value in rates.items())


def figures(directory: str, controllers: frozenset[str]) -> dict[str, int | None]:
    """By their names in `Figures`. The processor's are kept whether the controller is there or not."""
    cpu = entries(f"{directory}/cpu.stat")
    found = {
        "cpu_ns": times(1000, cpu.get("usage_usec")),
        "cpu_user_ns": times(1000, cpu.get("user_usec")),
        "cpu_system_ns": times(1000, cpu.get("system_usec")),
    }
    if "cpu" in controllers:
        found["cpu_throttled_ns"] = times(1000, cpu.get("throttled_usec"))
        found["cpu_throttled_periods"] = cpu.get("nr_throttled")
    if "memory" in controllers:
        found |= _memory(directory)
    if "pids" in controllers:
        found |= {"pids": number(f"{directory}/pids.current"), "pids_max": number(f"{directory}/pids.max")}
    return found | _io(directory) if "io" in controllers else found


def _memory(directory: str) -> dict[str, int | None]:
    return {
        "memory_bytes": number(f"{directory}/memory.current"),
        "memory_inactive_file_bytes": entries(f"{directory}/memory.stat").get("inactive_file"),
        "memory_peak_bytes": number(f"{directory}/memory.peak"),  # Linux 5.19
        "memory_max_bytes": number(f"{directory}/memory.max"),
        "swap_bytes": number(f"{directory}/memory.swap.current"),
        "oom_kills": oom_kills(directory),
    }


_IO = {"rbytes": "io_read_bytes", "wbytes": "io_written_bytes", "rios": "io_reads", "wios": "io_writes"}


def _io(directory: str) -> dict[str, int | None]:
    """Lines `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`, one a device."""
    found: dict[str, int | None] = dict.fromkeys(_IO.values(), 0)
    for line in read(f"{directory}/io.stat").decode("ascii").splitlines():
        for field in line.split()[1:]:
            name, _, value = field.partition("=")
            if name in _IO:
                found[_IO[name]] = (found[_IO[name]] or 0) + int(value)
    return found


def pressures(directory: str) -> dict[str, Pressure]:
    """Of the resources whose pressure this kernel keeps: it does for every cgroup, without controllers too."""
    found = {name: pressure(f"{directory}/{name}.pressure") for name in ("cpu", "memory", "io")}
    return {name: one for name, one in found.items() if one is not None}


def oom_kills(directory: str) -> int | None:
    """How many processes in it, and in cgroups below it, were killed for want of memory."""
    return entries(f"{directory}/memory.events").get("oom_kill")


def enable(directory: str, controllers: frozenset[str]) -> None:
    """Let the cgroups below this one use these controllers. OSError: EBUSY while it has processes itself."""
    missing = controllers - enabled(directory)
    if missing:
        write(f"{directory}/cgroup.subtree_control", " ".join(f"+{one}" for one in sorted(missing)))


def enabled(directory: str) -> frozenset[str]:
    """What the cgroups below this one may use."""
    return frozenset(read(f"{directory}/cgroup.subtree_control").decode("ascii").split())
