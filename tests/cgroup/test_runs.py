"""Containers in their cgroups: from before the first instruction to after the last trace."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from cgroups import HOST
from real import Containers, containers, until
from waiting import PATIENCE_S

from runtime.cgroup.limits import IoLimit, Limits
from runtime.devices import check
from runtime.errors import CgroupError, LaunchError
from runtime.mounts import Device
from runtime.status import Signaled
from supervisor.core.checks import Exec, Verdict
from supervisor.kernel import KernelRun
from supervisor.stack.runner import Run
from supervisor.state import cgroups

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.kernel,
    pytest.mark.skipif(HOST.processes is None, reason="no writable cgroups"),
]
MIB = 1 << 20


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
async def made(state: Path, image: Path) -> AsyncIterator[Containers]:
    """A runner; at its end neither the branch nor the note of it may be there."""
    async with containers(state, image) as entered:
        directories = (state / cgroups.NOTE).read_text().splitlines()
        assert directories
        yield entered
    assert not any(os.path.exists(directory) for directory in directories)
    assert not (state / cgroups.NOTE).exists()


async def status_of(run: Run) -> object:
    with anyio.fail_after(PATIENCE_S):
        return await run.ended()


def directory(run: KernelRun, index: int = 0) -> str:
    assert run._cgroup is not None
    return run._cgroup.directory(index)


TRY = "head -c1 /dev/z | wc -c; true >>/dev/z && echo written; mknod /dev/m c 1 5; head -c1 /dev/m | wc -c"


@pytest.mark.skipif(HOST.unified is None, reason="no cgroup of version 2")
@pytest.mark.parametrize(
    ("permissions", "shown"), [("rwm", "1\nwritten\n"), ("rw", "1\nwritten\n"), ("r", "1\n"), ("wm", "0\nwritten\n")]
)
async def test_a_device_is_only_what_it_was_given_for(made: Containers, permissions: str, shown: str) -> None:
    """Root with all of its capabilities is held to it, and so is what is run in the container; the mode is 0666."""
    devices = (Device("/dev/zero", "/dev/z", permissions),)
    run = await made.start(devices=devices)
    verdict = await run.check(Exec(("sh", "-c", f"({TRY}) 2>/dev/null; true")), PATIENCE_S)
    assert verdict == Verdict(passed=True, detail=f"{shown}0")
    await made.end(run)


def test_one_that_can_not_be_held_to_it_is_told() -> None:
    device = Device("/dev/zero", "/dev/z", "r")
    with pytest.raises(CgroupError, match=r"^c: devices: that one is only read.*cgroups of version 2"):
        check("c", [device], held=False)
    check("c", [device], held=True)
    check("c", [replace(device, permissions="wr")], held=False)


@pytest.mark.parametrize("init", [False, True])
async def test_a_container_is_in_its_cgroup_and_sees_nothing_above(made: Containers, *, init: bool) -> None:
    run = await made.start(
        "sh", "-c", "while read line; do echo $line; done < /proc/self/cgroup; exec sleep 1000", init=init
    )
    await until(lambda: b"0::" in b"".join(made.written))
    assert run._cgroup is not None
    assert run.pid in run._cgroup.members()
    assert len(run._cgroup.members()) == 1 + init
    await made.end(run)
    assert not any(os.path.exists(directory(run, index)) for index in run._cgroup.own)
    written = b"".join(made.written)
    assert b"0::/\n" in written
    assert b"pysup" not in written


@pytest.mark.skipif(HOST.of("memory") is None, reason="no memory controller")
@pytest.mark.parametrize("init", [False, True])
async def test_out_of_memory_is_told(made: Containers, *, init: bool) -> None:
    hog = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    run = await made.start(*hog, limits=Limits(memory_bytes=16 * MIB), init=init)
    status = await status_of(run)
    made._ended.append(run)
    assert init or status == Signaled(9)
    assert run.oom


async def test_another_death_is_not_taken_for_it(made: Containers) -> None:
    run = await made.start()
    await made.end(run)
    assert not run.oom


async def test_a_frozen_container_dies_when_it_is_killed(made: Containers) -> None:
    run = await made.start("sh", "-c", "sleep 1000 & echo up; wait")
    assert run._cgroup is not None
    run._cgroup.freeze()
    await made.end(run)


async def test_checks_are_in_a_cgroup_inside_and_are_killed_with_all_they_started(made: Containers) -> None:
    run = await made.start(memory_bytes=4 * MIB)
    assert await run.check(Exec(("true",)), PATIENCE_S) == Verdict(passed=True)
    for script in (
        "setsid sleep 1000 & setsid sleep 1001 & exec sleep 1000",
        "setsid sh -c 'sleep 1000 & wait' & wait",
    ):
        verdict = await run.check(Exec(("sh", "-c", script)), 0.2)
        assert verdict == Verdict(passed=False, detail="killed after 0.2 s")
        await until(lambda: run._cgroup is not None and run._cgroup.members() == [run.pid])  # called off on its way in
    await until(lambda: not [name for name in os.listdir(directory(run)) if name.startswith("exec.")])


async def test_what_can_not_be_limited_does_not_start(made: Containers) -> None:
    memory = HOST.of("memory")
    if memory is None or memory.version == 2:
        pytest.skip("it can be limited")
    with pytest.raises(LaunchError, match=r"^c0: limits\.memory_high: this host has memory in cgroup v1, which has no"):
        await made.start(limits=Limits(memory_high_bytes=MIB))


async def test_a_value_that_the_kernel_refuses_is_named(made: Containers) -> None:
    if HOST.of("io") is None:
        pytest.skip("no io")
    with pytest.raises(LaunchError, match=r"^c0: set limits\.io: write 0:0 .+ to \S+: "):
        await made.start(limits=Limits(io=(IoLimit(device="0:0", rbps=1000),)))


async def test_a_processor_that_is_not_there_is_named_before_anything_starts(made: Containers) -> None:
    if HOST.of("cpuset") is None:
        pytest.skip("no cpuset")
    with pytest.raises(LaunchError, match=r"^c0: limits\.cpuset: there is no processor 9999: there are [0-9,-]+$"):
        await made.start(limits=Limits(cpuset="0,9999"))


@pytest.mark.parametrize("key", ["memory_high", "cpuset"])
async def test_with_best_effort_the_other_limits_hold(made: Containers, key: str) -> None:
    if HOST.of("pids") is None or (key == "memory_high" and (memory := HOST.of("memory")) and memory.version == 2):
        pytest.skip("no pids, or memory_high can be had")
    best = {
        "memory_high": Limits(memory_high_bytes=MIB, pids=77, best_effort=True),
        "cpuset": Limits(cpuset="9999", pids=77, best_effort=True),
    }[key]
    run = await made.start(limits=best)
    assert run.figures().pids_max == 77
    assert list(made.runner.unmet(best)) == [key]
    await made.end(run)


@pytest.mark.parametrize("by", ["us", "others"])
async def test_a_frozen_container_can_be_stopped_whoever_froze_it(made: Containers, by: str) -> None:
    run = await made.start("sh", "-c", "trap 'exit 3' TERM; echo up; while :; do read line; done", init=True)
    await until(lambda: b"up" in b"".join(made.written))
    cgroup = run.insist_on_cgroup()
    if by == "us":
        run.freeze()
    else:
        cgroup.freeze()
    await until(lambda: cgroup.frozen)
    run.signal(15)
    run.thaw()
    assert not cgroup.frozen
    await made.finish(run)
    run.thaw()
