"""Limits that an operator changes while a container runs: to the kernel, and over reloads."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cgroups import HOST
from command import Live, Pysup, script

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


class Stage:
    """A stack of `web`, and an operator who asks it."""

    def __init__(self, pysup: Pysup, run: Path) -> None:
        self.pysup = pysup
        self.run = run
        self.client = Client(str(run / "stack/pysup.sock"))

    def write(self, **more: object) -> str:
        usual = {"cmd": script(LOOP), "stop_grace_s": 5}
        return self.pysup.stack({"id": "web", **usual, **more}, {"id": "other", **usual})  # which keeps the stack going

    def update(self, id_: str = "web", **body: object) -> None:
        assert self.client.post(f"/containers/{id_}/update", body) == {"Warnings": []}

    def shown(self, id_: str = "web") -> Any:
        return self.client.get(f"/containers/{id_}/json")

    def reload(self) -> str:
        told = self.client.post("/pysup/reload", {})
        return str(told["text"]) if told["changed"] else "nothing"

    def held(self, controller: str, id_: str = "web") -> str:
        """By the kernel."""
        hierarchy = HOST.of(controller)
        assert hierarchy is not None
        for line in Path(f"/proc/{self.shown(id_)['State']['Pid']}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") if hierarchy.version == 1 else not controllers:
                file = FILES[controller][hierarchy.version]
                place = Path(hierarchy.own, "pysup", path.partition("/pysup/")[2])
                return (place / file).read_text().split()[0]
        raise AssertionError(controller)


@pytest.fixture
def stage(tmp_path: Path, image: Path) -> Iterator[Stage]:
    run = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    pysup = Pysup(image.parent, tmp_path)
    yield Stage(pysup, run)
    assert pysup.left() == []
    shutil.rmtree(run, ignore_errors=True)


@contextmanager
def up(stage: Stage, file: str) -> Iterator[Live]:
    with stage.pysup.live("up", "--run", str(stage.run), file) as live:
        live.sees("containers are up")
        yield live
        live.signal(signal.SIGTERM)
        assert live.ends() == 0, live.text


def test_an_update_holds_at_once_over_restarts_and_over_reloads_until_the_file_says_otherwise(stage: Stage) -> None:
    with up(stage, stage.write(limits={"memory": "64m", "pids": 50})):
        pid = stage.shown()["State"]["Pid"]
        stage.update(Memory=96 * MIB, NanoCpus=500_000_000)
        assert (stage.held("memory"), stage.held("pids"), stage.held("cpu")) == (str(96 * MIB), "50", "50000")
        host = stage.shown()["HostConfig"]
        assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (96 * MIB, 50, 500_000_000)
        assert stage.reload() == "nothing"
        stage.client.post("/containers/web/restart", t=5)
        assert stage.held("memory") == str(96 * MIB)
        stage.write(limits={"memory": "64m", "pids": 50}, env={"A": "1"})
        assert "env.A" in stage.reload()
        assert (stage.held("memory"), stage.shown()["State"]["Pid"] == pid) == (str(96 * MIB), False)
        stage.write(limits={"memory": "48m", "pids": 50}, env={"A": "1"})
        assert "limits.memory: 100663296 -> 50331648" in stage.reload()
        assert (stage.held("memory"), stage.shown()["HostConfig"]["NanoCpus"]) == (str(48 * MIB), 0)
        stage.write(limits={"memory": "64m", "pids": 50}, env={"A": "1"})
        stage.reload()
        assert stage.held("memory") == str(64 * MIB)  # what was changed does not come back


def test_limits_go_up_and_down_and_away(stage: Stage) -> None:
    with up(stage, stage.write(limits={"memory": "64m", "swap": "0", "pids": 50, "cpus": 1})):
        stage.update(Memory=128 * MIB, MemorySwap=128 * MIB)
        stage.update(Memory=32 * MIB, MemorySwap=-1)
        stage.update(PidsLimit=-1, CpuQuota=-1)
        assert (stage.held("memory"), stage.held("pids")) == (str(32 * MIB), "max")
        assert stage.held("cpu") in {"-1", "max"}


def test_one_that_does_not_run_has_them_when_it_starts(stage: Stage) -> None:
    with up(stage, stage.write()):
        stage.client.post("/containers/web/stop", t=5)
        stage.update(PidsLimit=17)
        assert stage.shown()["State"]["Status"] == "exited"
        stage.client.post("/containers/web/start")
        assert stage.held("pids") == "17"


def test_what_the_host_can_not_enforce_changes_nothing(stage: Stage) -> None:
    if HOST.of("cpuset") is None:
        pytest.skip("no cpuset")
    with up(stage, stage.write(limits={"pids": 50})):
        far = max(os.sched_getaffinity(0)) + 1000
        with pytest.raises(CommandError, match=r"web: limits\.cpuset: there is no processor"):
            stage.update(CpusetCpus=str(far), PidsLimit=60)
        assert stage.held("pids") == "50"
        assert stage.shown()["HostConfig"]["PidsLimit"] == 50
        stage.client.post("/containers/web/stop", t=5)
        with pytest.raises(CommandError, match="there is no processor"):
            stage.update(CpusetCpus=str(far))
        stage.client.post("/containers/web/start")


def test_a_restart_policy_is_another_from_now_on(stage: Stage) -> None:
    with up(stage, stage.write()) as live:
        stage.update(RestartPolicy={"Name": "always"})
        assert stage.shown()["HostConfig"]["RestartPolicy"]["Name"] == "always"
        os.kill(stage.shown()["State"]["Pid"], signal.SIGKILL)
        live.sees("restarting")
        assert stage.reload() == "nothing"
        stage.write(restart="on-failure")
        assert "restart: always -> on-failure" in stage.reload()


def test_one_of_the_api_alone_is_changed_too(stage: Stage) -> None:
    with up(stage, stage.write()):
        body = {"Image": "busybox", "Cmd": script(LOOP)}
        stage.client.post("/containers/create", body, name="own")
        stage.client.post("/containers/own/start")
        stage.update("own", PidsLimit=21)
        assert stage.held("pids", "own") == "21"
        stage.reload()
        assert stage.held("pids", "own") == "21"
        stage.client.delete("/containers/own", force=True)
