"""Limits in Docker's words."""

import pytest

from runtime.cgroup.limits import IoLimit, Limits
from supervisor.api.errors import RefusedError
from supervisor.api.fields import Fields
from supervisor.api.resources import keys, shape
from supervisor.spec.resources import limits

MIB = 1 << 20


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ({}, Limits()),
        ({"Memory": 0, "MemorySwap": -1, "PidsLimit": -1, "NanoCpus": 0, "CpusetCpus": ""}, Limits()),
        ({"Memory": 64 * MIB, "MemorySwap": 96 * MIB}, Limits(memory_bytes=64 * MIB, swap_bytes=32 * MIB)),
        ({"NanoCpus": 1_500_000_000, "PidsLimit": 9}, Limits(cpus=1.5, pids=9)),
        ({"CpuShares": 512, "CpusetCpus": "0-1"}, Limits(cpu_weight=50, cpuset="0-1")),
        (
            {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}]},
            Limits(io=(IoLimit(device="/dev/sda", rbps=5),)),
        ),
    ],
)
def test_they_become_limits_and_are_shown_again(host: dict[str, object], wanted: Limits) -> None:
    found = limits(dict(keys(Fields(host)).items()))
    assert found == wanted
    assert {key: shape(found)[key] or value for key, value in host.items() if value not in (0, -1)} == {
        key: value for key, value in host.items() if value not in (0, -1)
    }


def test_a_quota_is_a_number_of_processors() -> None:
    assert keys(Fields({"CpuQuota": 50_000})) == {"cpus": 0.5}
    assert keys(Fields({"CpuQuota": 50_000, "CpuPeriod": 25_000})) == {"cpus": 2.0}


@pytest.mark.parametrize("host", [{"MemorySwap": 5}, {"Memory": 9, "MemorySwap": 5}, {"NanoCpus": 1, "CpuQuota": 1}])
def test_what_contradicts_itself_is_refused(host: dict[str, object]) -> None:
    with pytest.raises(RefusedError):
        keys(Fields(host))
