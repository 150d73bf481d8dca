"""`docker update`: what is asked of the stack."""

from typing import Any

import docker
import docker.errors
import pytest
from served import Stage

from runtime.cgroup.limits import IoLimit, Limits
from supervisor.api.errors import RefusedError
from supervisor.api.update import translated
from supervisor.core.policy import RestartPolicy
from supervisor.errors import CommandError

MIB = 1 << 20
HELD = Limits(memory_bytes=64 * MIB, swap_bytes=32 * MIB, cpus=2.0, cpu_weight=50, cpuset="0", pids=9)
NOTHING: dict[str, Any] = {
    "Memory": 0, "MemorySwap": 0, "NanoCpus": 0, "CpuQuota": 0, "CpuPeriod": 0, "CpuShares": 0, "CpusetCpus": "",
    "PidsLimit": None, "BlkioWeight": 0, "KernelMemory": 0, "Devices": None,
    "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, {}),
        ({"Memory": 80 * MIB}, {"memory_bytes": 80 * MIB, "swap_bytes": 16 * MIB}),
        ({"Memory": 80 * MIB, "MemorySwap": -1}, {"memory_bytes": 80 * MIB, "swap_bytes": None}),
        ({"MemorySwap": 64 * MIB}, {"swap_bytes": 0}),
        ({"NanoCpus": 500_000_000}, {"cpus": 0.5}),
        ({"CpuQuota": -1}, {"cpus": None}),
        ({"CpuPeriod": 50_000}, {"cpus": 4.0}),
        ({"CpuQuota": 50_000, "CpuPeriod": 50_000}, {"cpus": 1.0}),
        ({"CpuShares": 1024}, {"cpu_weight": 100}),
        ({"CpusetCpus": "0-1"}, {"cpuset": "0-1"}),
        ({"PidsLimit": 7}, {"pids": 7}),
        ({"PidsLimit": -1}, {"pids": None}),
        ({"PidsLimit": 0}, {"pids": None}),
        ({"BlkioDeviceReadBps": [{"Path": "8:0", "Rate": 5}]}, {"io": (IoLimit(device="8:0", rbps=5),)}),
    ],
)
def test_what_is_not_said_stays(body: dict[str, Any], wanted: dict[str, Any]) -> None:
    held = {name: getattr(HELD, name) for name in HELD.__slots__}
    assert translated({**NOTHING, **body}, HELD) == (Limits(**{**held, **wanted}), None)


@pytest.mark.parametrize(
    "body",
    [
        {"Memory": 128 * MIB},  # beyond that of memory and swap together
        {"Memory": -1},
        {"NanoCpus": -1},
        {"NanoCpus": 1, "CpuQuota": 1},
        {"CpusetCpus": "0-"},
        {"CpuShares": -1},
        {"PidsLimit": "7"},
        {"RestartPolicy": {"Name": "sometimes"}},
        {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}},
    ],
)
def test_what_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        translated(body, HELD)


def test_update_asks_for_what_was_said(engine: docker.DockerClient, stage: Stage) -> None:
    container = engine.containers.get("web.1")
    answer = container.update(mem_limit="64m", restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
    assert answer == {"Warnings": []}
    wanted = Limits(memory_bytes=64 * MIB), (RestartPolicy.ON_FAILURE, 2)
    assert stage.commands.asked[-1] == ("update", "web.1", *wanted)
    with pytest.raises(docker.errors.APIError, match="BlkioWeight is not offered by pysup"):
        container.update(blkio_weight=300)
    with pytest.raises(docker.errors.NotFound):
        engine.api.update_container("nosuch", mem_limit="64m")


def test_one_that_is_removed_when_it_ends_is_not_restarted(stage: Stage) -> None:
    stage.do(stage.commands.put, "web.1", auto_remove=True)
    with pytest.raises(CommandError, match="AutoRemove is enabled"):
        stage.client.post("/containers/web.1/update", {"RestartPolicy": {"Name": "always"}})
    stage.client.post("/containers/web.1/update", {"RestartPolicy": {"Name": "no"}})
