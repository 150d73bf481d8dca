"""Limits that an operator changes while a container runs: to the kernel, and over reloads."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cgroups import HOST
from command import Pysup, script
from waiting import until

from supervisor.client import Client
from supervisor.errors import CommandError

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(None in map(HOST.of, ("memory", "pids", "cpu")), reason="not all controllers"),
]
MIB = 1 << 20
LOOP = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"
FILES = {  # what holds a limit, by version
    "memory": {1: "memory.limit_in_bytes", 2: "memory.max"},
    "pids": {1: "pids.max", 2: "pids.max"},
    "cpu": {1: "cpu.cfs_quota_us", 2: "cpu.max"},
}


ENTRIES: dict[str, dict[str, Any]] = {  # a container for each test
    "web": {"limits": {"memory": "64m", "pids": 50}},
    "tight": {"limits": {"memory": "64m", "swap": "0", "pids": 50, "cpus": 1}},
    "idle": {},
    "plain": {"limits": {"pids": 50}},
    "frail": {},
}


class Stage:
    """A stack, and an operator who asks it."""

    def __init__(self, pysup: Pysup, run: Path) -> None:
        self.pysup = pysup
        self.run = run
        self.client = Client(str(run / "stack/pysup.sock"))
        self.entries = dict(ENTRIES)

    def write(self, id_: str = "", **keys: object) -> str:
        """The file, in which a container is another."""
        if id_:
            self.entries[id_] = keys
        usual = {"cmd": script(LOOP), "stop_grace_s": 5}
        return self.pysup.stack(*({"id": name, **usual, **more} for name, more in self.entries.items()))

    def update(self, id_: str, **body: object) -> None:
        assert self.client.post(f"/containers/{id_}/update", body) == {"Warnings": []}

    def shown(self, id_: str) -> Any:
        return self.client.get(f"/containers/{id_}/json")

    def pid(self, id_: str) -> int:
        return int(self.shown(id_)["State"]["Pid"])

    def reload(self) -> str:
        told = self.client.post("/pysup/reload", {})
        return str(told["text"]) if told["changed"] else "nothing"

    def held(self, controller: str, id_: str) -> str:
        """By the kernel."""
        hierarchy = HOST.of(controller)
        assert hierarchy is not None
        for line in Path(f"/proc/{self.pid(id_)}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") if hierarchy.version == 1 else not controllers:
                file = FILES[controller][hierarchy.version]
                place = Path(hierarchy.own, "pysup", path.partition("/pysup/")[2])
                return (place / file).read_text().split()[0]
        raise AssertionError(controller)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Iterator[Stage]:
    """One for all tests: each has a container of its own."""
    run = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    stage = Stage(Pysup(image.parent, tmp_path_factory.mktemp("updates")), run)
    with stage.pysup.live("up", "--run", str(run), stage.write()) as live:
        live.sees("containers are up")
        yield stage
        live.signal(signal.SIGTERM)
        assert live.ends() == 0, live.text
    assert stage.pysup.left() == []
    shutil.rmtree(run, ignore_errors=True)


def test_an_update_holds_at_once_over_restarts_and_over_reloads_until_the_file_says_otherwise(stage: Stage) -> None:
    pid = stage.pid("web")
    stage.update("web", Memory=96 * MIB, NanoCpus=500_000_000)
    held = [stage.held(each, "web") for each in ("memory", "pids", "cpu")]
    assert held == [str(96 * MIB), "50", "50000"]
    host = stage.shown("web")["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (96 * MIB, 50, 500_000_000)
    assert stage.pid("web") == pid
    assert stage.reload() == "nothing"
    stage.client.post("/containers/web/restart", t=5)
    assert stage.held("memory", "web") == str(96 * MIB)
    stage.write("web", limits={"memory": "64m", "pids": 50}, env={"A": "1"})
    assert "env.A" in stage.reload()
    assert stage.held("memory", "web") == str(96 * MIB)
    stage.write("web", limits={"memory": "48m", "pids": 50}, env={"A": "1"})
    assert "limits.memory: 100663296 -> 50331648" in stage.reload()
    until(lambda: stage.held("memory", "web") == str(48 * MIB))
    assert stage.shown("web")["HostConfig"]["NanoCpus"] == 0
    stage.write("web", limits={"memory": "64m", "pids": 50}, env={"A": "1"})
    stage.reload()
    until(lambda: stage.held("memory", "web") == str(64 * MIB))  # what was changed does not come back


def test_limits_go_up_and_down_and_away(stage: Stage) -> None:
    stage.update("tight", Memory=128 * MIB, MemorySwap=128 * MIB)
    stage.update("tight", Memory=32 * MIB, MemorySwap=-1)
    stage.update("tight", PidsLimit=-1, CpuQuota=-1)
    assert (stage.held("memory", "tight"), stage.held("pids", "tight")) == (str(32 * MIB), "max")
    assert stage.held("cpu", "tight") in {"-1", "max"}


def test_one_that_does_not_run_has_them_when_it_starts(stage: Stage) -> None:
    stage.client.post("/containers/idle/stop", t=5)
    stage.update("idle", PidsLimit=17)
    assert stage.shown("idle")["State"]["Status"] == "exited"
    stage.client.post("/containers/idle/start")
    assert stage.held("pids", "idle") == "17"


def test_what_the_host_can_not_enforce_changes_nothing(stage: Stage) -> None:
    if HOST.of("cpuset") is None:
        pytest.skip("no cpuset")
    far = max(os.sched_getaffinity(0)) + 1000
    with pytest.raises(CommandError, match=r"plain: limits\.cpuset: there is no processor"):
        stage.update("plain", CpusetCpus=str(far), PidsLimit=60)
    assert stage.held("pids", "plain") == "50"
    assert stage.shown("plain")["HostConfig"]["PidsLimit"] == 50
    stage.client.post("/containers/plain/stop", t=5)
    with pytest.raises(CommandError, match="there is no processor"):
        stage.update("plain", CpusetCpus=str(far))
    stage.client.post("/containers/plain/start")


def test_a_restart_policy_is_another_from_now_on(stage: Stage) -> None:
    stage.update("frail", RestartPolicy={"Name": "always"})
    assert stage.shown("frail")["HostConfig"]["RestartPolicy"]["Name"] == "always"
    os.kill(stage.pid("frail"), signal.SIGKILL)
    until(lambda: stage.shown("frail")["RestartCount"] > 0)
    assert stage.reload() == "nothing"
    stage.write("frail", restart="on-failure")
    assert "restart: always -> on-failure" in stage.reload()


def test_one_of_the_api_alone_is_changed_too(stage: Stage) -> None:
    body = {"Image": "busybox", "Cmd": script(LOOP)}
    stage.client.post("/containers/create", body, name="own")
    stage.client.post("/containers/own/start")
    stage.update("own", PidsLimit=21)
    assert stage.held("pids", "own") == "21"
    stage.reload()
    assert stage.held("pids", "own") == "21"
    stage.client.delete("/containers/own", force=True)
