"""Limits of a whole stack: from the file to the kernel, to what an operator sees of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cgroups import HOST
from command import Pysup, script

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(HOST.of("memory") is None, reason="no memory controller"),
]
HOG = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]


@pytest.fixture
def pysup(tmp_path: Path, image: Path) -> Iterator[Pysup]:
    made = Pysup(image.parent, tmp_path)
    yield made
    assert made.left() == []


def test_out_of_memory_is_an_end_that_restart_on_knows(pysup: Pysup) -> None:
    file = pysup.stack(
        {
            "id": "hog",
            "cmd": HOG,
            "limits": {"memory": "16m"},
            "restart": "on-failure:1",
            "restart_on": {"oom": True},
            "backoff": {"initial_s": 0.01},
        },
        {"id": "other", "cmd": script("kill -9 $$$$"), "restart": "always", "restart_on": {"oom": True}},
    )
    ended = pysup("up", file, "--log-format", "json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    told = [each["event"] for each in events if each.get("container") == "hog" and "event" in each]
    assert told.count("out_of_memory") == told.count("exited") == 2
    assert told.count("restarting") == 1
    assert all(each.get("oom") for each in events if each.get("event") == "exited" and each["container"] == "hog")
    assert not [each for each in events if each.get("event") == "restarting" and each["container"] == "other"]


def test_a_limit_that_can_not_be_held_starts_nothing(pysup: Pysup) -> None:
    cpus = max(os.sched_getaffinity(0)) + 1000
    bad = {"id": "bad", "cmd": ["true"], "limits": {"cpuset": str(cpus)}}
    if HOST.of("cpuset") is None:
        pytest.skip("no cpuset")
    ended = pysup("up", pysup.stack({"id": "good", "cmd": ["true"]}, bad))
    assert ended.status == 125
    assert "containers[1].limits.cpuset: there is no processor" in ended.err
    assert "started" not in ended.out
    ended = pysup("up", pysup.stack({"id": "good", "cmd": ["true"]}, {**bad, "enforce": "best-effort"}))
    assert ended.status == 0
    assert "bad: limits.cpuset does not hold: there is no processor" in ended.out
