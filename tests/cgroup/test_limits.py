"""Limits as writes to files, for each version; and what to do where a host can't hold them."""

import os
import re
from dataclasses import replace

import pytest

from runtime.cgroup import v1, v2
from runtime.cgroup.branch import directory_name, settings
from runtime.cgroup.hierarchies import Hierarchies, Hierarchy
from runtime.cgroup.limits import IoLimit, Limits, device_number, keys
from runtime.errors import CgroupError

ALL = Limits(
    memory_bytes=1 << 20,
    memory_high_bytes=1 << 19,
    swap_bytes=4096,
    cpus=1.5,
    cpu_weight=50,
    cpuset="0-1",
    pids=100,
    io=(IoLimit(device="7:0", rbps=1000, wiops=5), IoLimit(device="8:16", wbps=2000)),
    oom_kill_group=True,
)
BY_V1 = replace(ALL, memory_high_bytes=None)

V2 = Hierarchies((Hierarchy(2, frozenset({"cpu", "cpuset", "io", "memory", "pids"}), "/own", writable=True),))
BARE_V2 = Hierarchies((Hierarchy(2, frozenset(), "/own", writable=True),))
V1_NAMES = ("cpu", "cpuset", "io", "memory", "pids", "freezer")
V1 = Hierarchies(tuple(Hierarchy(1, frozenset({name}), f"/{name}", writable=True) for name in V1_NAMES))
MIXED = Hierarchies(
    (
        Hierarchy(2, frozenset({"pids", "io"}), "/unified", writable=True),
        Hierarchy(1, frozenset({"memory"}), "/memory", writable=True),
        Hierarchy(1, frozenset({"cpu", "cpuacct"}), "/cpu", writable=False),
    )
)


def test_version_2() -> None:
    assert [(one.file, one.value) for one in v2.settings(ALL)] == [
        ("memory.max", "1048576"),
        ("memory.high", "524288"),
        ("memory.swap.max", "4096"),
        ("cpu.weight", "50"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "100"),
        ("memory.oom.group", "1"),
        ("cpu.max", "150000 100000"),
        ("io.max", "7:0 rbps=1000 wbps=max riops=max wiops=5"),
        ("io.max", "8:16 rbps=max wbps=2000 riops=max wiops=max"),
    ]


def test_version_1() -> None:
    assert [(one.file, one.value) for one in v1.settings(BY_V1)] == [
        ("memory.memsw.limit_in_bytes", "-1"),
        ("memory.limit_in_bytes", "1048576"),
        ("memory.memsw.limit_in_bytes", "1052672"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
        ("cpu.shares", "512"),
        ("cpuset.cpus", "0-1"),
        ("pids.max", "100"),
        ("blkio.throttle.read_bps_device", "7:0 1000"),
        ("blkio.throttle.write_iops_device", "7:0 5"),
        ("blkio.throttle.write_bps_device", "8:16 2000"),
    ]


@pytest.mark.parametrize(("weight", "shares"), [(1, "10"), (100, "1024"), (10_000, "102400")])
def test_weights_are_to_each_other_as_in_version_2(weight: int, shares: str) -> None:
    assert [one.value for one in v1.settings(Limits(cpu_weight=weight))] == [shares]


def test_no_limits_are_no_writes() -> None:
    assert [*v1.settings(Limits()), *v2.settings(Limits()), *keys(Limits())] == []


def test_each_limit_has_a_setting_of_its_key() -> None:
    assert {one.key for one in v2.settings(ALL)} == {key for key, _ in keys(ALL)}
    assert {one.key for one in v1.settings(BY_V1)} == {key for key, _ in keys(BY_V1)} - {"oom"}, "that is ours to do"


def test_each_setting_goes_where_its_controller_lives() -> None:
    limits = Limits(memory_bytes=1 << 20, pids=5, io=(IoLimit(device="7:0", rbps=1),))
    where = {setting.file: hierarchy.own for hierarchy, setting in settings(MIXED, limits)}
    assert where == {"memory.limit_in_bytes": "/memory", "pids.max": "/unified", "io.max": "/unified"}


@pytest.mark.parametrize(
    ("host", "limits", "message"),
    [
        (V1, Limits(memory_high_bytes=1), "limits.memory_high: this host has memory in cgroup v1, which has no such"),
        (Hierarchies(()), Limits(oom_kill_group=True), "oom: this host offers no cgroup controller memory: enable and"),
        (V1, Limits(swap_bytes=1), "limits.swap: this host has memory in cgroup v1, which limits memory and swap tog"),
        (
            BARE_V2,
            Limits(pids=1),
            "limits.pids: /own was not given the cgroup controller pids: start pysup by systemd-",
        ),
        (MIXED, Limits(cpus=1), "limits.cpus: cgroup controller cpu is read-only here: mount /sys/fs/cgroup writable,"),
        (MIXED, Limits(cpuset="0"), "limits.cpuset: this host offers no cgroup controller cpuset: enable and mount it"),
        (Hierarchies(()), Limits(memory_bytes=1), "limits.memory: this host offers no cgroup controller memory: enab"),
    ],
)
def test_what_can_not_be_enforced_is_said_with_what_to_do(host: Hierarchies, limits: Limits, message: str) -> None:
    with pytest.raises(CgroupError, match=f"^{re.escape(message)}"):
        settings(host, limits)
    settings(V2, limits)


def test_devices() -> None:
    assert device_number("8:0") == "8:0"
    with pytest.raises(CgroupError, match=r"^device /dev/nowhere: No such file or directory$"):
        device_number("/dev/nowhere")
    with pytest.raises(CgroupError, match=r"^/dev/null is no block device: give the disk's, such as"):
        device_number("/dev/null")


def test_a_partition_is_no_disk() -> None:
    parts = [
        name
        for name in os.listdir("/sys/dev/block")
        if os.path.exists(f"/sys/dev/block/{name}/partition")
    ]  # fmt: skip
    if not parts:
        pytest.skip("no partitions here")
    with pytest.raises(CgroupError, match="is a partition: give the device of the whole disk"):
        device_number(parts[0])


@pytest.mark.parametrize(
    ("container", "directory"),
    [
        ("web", "web"),
        ("web.1", "web.1"),
        ("memory", "memory"),
        ("memory.1", "_memory.1"),
        ("cgroup.procs", "_cgroup.procs"),
        ("tasks", "_tasks"),
        ("_tasks", "__tasks"),
        ("release_agent", "_release_agent"),
    ],
)
def test_no_container_is_taken_for_a_control_file(container: str, directory: str) -> None:
    assert directory_name(container) == directory
