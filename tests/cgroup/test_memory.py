"""Memory that runs out, and limits that change, while a container lives."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from cgroups import HOST
from real import Containers, containers, until
from waiting import PATIENCE_S

from runtime.cgroup.limits import Limits
from runtime.errors import CgroupError
from runtime.status import Signaled
from supervisor.kernel import KernelRun

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.kernel,
    pytest.mark.skipif(HOST.of("memory") is None or HOST.of("pids") is None, reason="no memory or pids controller"),
]
MIB = 1 << 20
LIMITED = Limits(memory_bytes=16 * MIB)
CHILD_HOG = "dd if=/dev/zero of=/dev/null bs=64M count=1; echo lived on; exec sleep 1000"


@pytest.fixture
async def made(tmp_path: Path, image: Path) -> AsyncIterator[Containers]:
    (tmp_path / "state").mkdir()
    async with containers(tmp_path / "state", image) as entered:
        yield entered


async def ended(made: Containers, run: KernelRun) -> object:
    made._ended.append(run)
    with anyio.fail_after(PATIENCE_S):
        return await run.ended()


async def test_a_kill_that_the_container_survives_is_told_while_it_lives(made: Containers) -> None:
    run = await made.start("sh", "-c", CHILD_HOG, limits=LIMITED)
    await until(lambda: b"lived on" in b"".join(made.written) and bool(made.events))
    assert made.events == [("out_of_memory", "c0", {"processes": 1})]
    run.signal(9)
    assert await ended(made, run) == Signaled(9)
    assert run.oom
    assert len(made.events) == 1, "each kill is told once"


async def test_the_kill_of_the_only_process_is_told_once(made: Containers) -> None:
    run = await made.start("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", limits=LIMITED)
    assert await ended(made, run) == Signaled(9)
    assert made.events == [("out_of_memory", "c0", {"processes": 1})]


@pytest.mark.parametrize("init", [False, True])
async def test_kill_group_leaves_nobody(made: Containers, *, init: bool) -> None:
    limits = replace(LIMITED, oom_kill_group=True)
    run = await made.start("sh", "-c", CHILD_HOG, limits=limits, init=init)
    assert await ended(made, run) == Signaled(9)
    assert run.oom
    memory = HOST.of("memory")
    assert memory is not None
    assert b"lived on" not in b"".join(made.written) or memory.version == 1


async def test_limits_change_while_it_runs(made: Containers) -> None:
    run = await made.start(limits=Limits(pids=50))
    assert (run.figures().pids_max, run.figures().memory_max_bytes) != (50, 64 * MIB)
    await run.limit(Limits(pids=60, memory_bytes=64 * MIB))
    assert (run.figures().pids_max, run.figures().memory_max_bytes) == (60, 64 * MIB)
    await run.limit(Limits(memory_bytes=32 * MIB))
    assert (run.figures().pids_max, run.figures().memory_max_bytes) == (None, 32 * MIB)
    await run.limit(Limits())
    assert run.figures().memory_max_bytes is None
    await made.end(run)


@pytest.mark.skipif(HOST.of("cpuset") is None, reason="no cpuset")
async def test_a_limit_of_a_hierarchy_that_it_was_not_in_holds_for_all_of_it(made: Containers) -> None:
    run = await made.start("sh", "-c", "sleep 1000 & echo up; wait")
    await until(lambda: b"up" in b"".join(made.written))
    assert len(os.sched_getaffinity(run.pid)) == len(os.sched_getaffinity(0))
    await run.limit(Limits(cpuset="0"))
    assert [os.sched_getaffinity(pid) for pid in run.members()] == [{0}, {0}]
    await run.limit(Limits())
    assert [os.sched_getaffinity(pid) for pid in run.members()] == [os.sched_getaffinity(0)] * 2
    await made.end(run)
    assert run._cgroup is not None
    assert not any(os.path.exists(run._cgroup.directory(index)) for index in run._cgroup.own)


async def test_a_reload_changes_them_and_what_can_not_be_is_told(made: Containers) -> None:
    run = await made.start()
    run.apply(made.config(limits=Limits(pids=44)))
    await until(lambda: run.figures().pids_max == 44)
    run.apply(made.config(limits=Limits(cpuset="9999")))
    await until(lambda: bool(made.events))
    ((event, _, fields),) = made.events
    assert event == "not_limited"
    assert str(fields["error"]).startswith("limits.cpuset: ")
    with pytest.raises(CgroupError, match="cpuset"):
        await run.limit(Limits(cpuset="9999"))
    assert run.figures().pids_max == 44
    await made.end(run)
