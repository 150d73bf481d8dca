"""The control socket of a stack that runs, with real containers: docker-py, and the docker command where it is."""

import gc
import io
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from command import ENVIRONMENT, Live, Pysup, script
from screen import at_terminal
from waiting import until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # docker-py leaves sockets to the garbage collector
]

DOCKER = os.environ.get("PYSUP_DOCKER") or shutil.which("docker")
LIMIT_S = 30
LOOP = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"

needs_docker = pytest.mark.skipif(DOCKER is None, reason="no docker command")


@dataclass(frozen=True)
class Served:
    """A stack in the foreground, and its socket."""

    pysup: Pysup
    live: Live
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / "stack/pysup.sock"

    @property
    def environ(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.socket}", "HOME": str(self.run), "DOCKER_CONFIG": str(self.run)}

    def docker(self, *argv: str, stdin: str = "") -> tuple[int, str, str]:
        assert DOCKER is not None
        done = subprocess.run(
            [DOCKER, *argv],
            input=stdin,
            env={**ENVIRONMENT, **self.environ},
            text=True,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def pysup_says(self, *words: str) -> str:
        argv = [sys.executable, "-m", "supervisor", *words]
        env = {**ENVIRONMENT, "PYSUP_RUN": str(self.run)}
        done = subprocess.run(argv, env=env, text=True, capture_output=True, timeout=LIMIT_S, check=True)
        return done.stdout


@pytest.fixture(scope="module")
def served(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests here; what a test makes, it removes."""
    pysup = Pysup(image.parent, tmp_path_factory.mktemp("live"))
    run = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    entry = {"cmd": script(LOOP), "restart": "always", "stop_grace_s": 5}
    spec = pysup.stack({"id": "db", **entry}, {"id": "web", "depends_on": {"db": {"restart": True}}, **entry})
    with pysup.live("up", "--run", str(run), "--socket-group", "12", spec) as live:
        live.sees("all 2 containers are up")
        yield Served(pysup, live, run)
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert "Traceback" not in live.text
    assert "internal error" not in live.text
    assert pysup.left() == []
    shutil.rmtree(run, ignore_errors=True)


@pytest.fixture
def engine(served: Served) -> Iterator[docker.DockerClient]:
    with closing(docker.DockerClient(base_url=f"unix://{served.socket}", version="auto", timeout=LIMIT_S)) as client:
        yield client
    gc.collect()


# --- who may ---------------------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_and_the_groups(served: Served) -> None:
    found = served.socket.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, 12)


def test_a_group_that_is_not_there_is_told(served: Served, tmp_path: Path) -> None:
    pysup = Pysup(served.pysup.images, tmp_path)
    spec = pysup.stack({"id": "a", "cmd": ["true"]})
    assert pysup("up", "--socket-group", "nosuch", spec).complaint == (
        "--socket-group nosuch: there is no such group on this host"
    )


# --- docker-py -------------------------------------------------------------------------------------------------------


def test_a_containers_life(served: Served, engine: docker.DockerClient) -> None:
    made = engine.containers.run("busybox", ["sh", "-c", "echo hello; echo oops >&2; exit 3"], detach=True, name="job")
    assert made.wait()["StatusCode"] == 3
    assert (made.logs(stdout=True, stderr=False), made.logs(stdout=False, stderr=True)) == (b"hello\n", b"oops\n")
    assert "job" not in served.pysup_says("ps", "-q")
    made.rename("jobs")
    made.reload()
    assert (made.name, made.status, made.attrs["State"]["ExitCode"]) == ("jobs", "exited", 3)
    with pytest.raises(docker.errors.APIError, match="the name job is taken"):
        engine.containers.create("busybox", ["true"], name="job")
    made.start()
    assert made.wait()["StatusCode"] == 3
    assert made.logs(stderr=False) == b"hello\nhello\n"
    made.remove()
    assert [each.name for each in engine.containers.list(all=True)] == ["web", "db"]


def test_dockers_restart_policies_hold(engine: docker.DockerClient) -> None:
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    made = engine.containers.run("busybox", ["false"], detach=True, restart_policy=policy)
    assert made.wait()["StatusCode"] == 1
    made.reload()
    assert made.attrs["RestartCount"] == 2
    made.remove()
    kept = engine.containers.run("busybox", script(LOOP), detach=True, restart_policy={"Name": "always"})
    before = kept.attrs["State"]["StartedAt"]

    def is_another() -> bool:
        kept.reload()
        return bool(kept.status == "running" and kept.attrs["State"]["StartedAt"] != before)

    kept.exec_run(["kill", "-KILL", "-1"])  # what its process 1 does not see
    kept.kill("TERM")  # it ends by itself, so it comes back
    until(is_another)
    kept.stop(timeout=1)
    kept.reload()
    assert kept.status == "exited"
    kept.remove()


def test_what_is_stopped_stays_so_when_its_dependency_restarts(served: Served, engine: docker.DockerClient) -> None:
    web, db = engine.containers.get("web"), engine.containers.get("db")
    web.stop(timeout=1)
    db.restart(timeout=1)
    until(lambda: engine.containers.get("db").status == "running")
    assert engine.containers.get("web").status == "exited"
    assert served.pysup_says("ps", "-q") == "db\n"
    web.start()
    assert engine.containers.get("web").status == "running"


def test_what_is_inside(engine: docker.DockerClient) -> None:
    web = engine.containers.get("web")
    done = web.exec_run(
        ["sh", "-c", "echo $A; pwd; id -u; echo e >&2"], environment={"A": "1"}, workdir="/tmp", user="7:8", demux=True
    )
    assert (done.exit_code, done.output) == (0, (b"1\n/tmp\n7\n", b"e\n"))
    done = web.exec_run(["nosuch"])
    assert done.exit_code == 127
    assert b"execute nosuch: not found in the image" in done.output
    assert any("sleep" in row[-1] or "sh" in row[-1] for row in web.top()["Processes"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    assert web.put_archive("/tmp", data.getvalue())
    assert {"Path": "/tmp/file", "Kind": 1} in web.diff()
    pieces, what = web.get_archive("/tmp/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        file = tar.extractfile("file")
        assert file is not None
        assert file.read() == b"data"
    assert what["size"] == 4
    figures = web.stats(stream=False)
    assert figures["pids_stats"]["current"] >= 1
    assert figures["memory_stats"]["usage"] > 0


def test_one_attaches_before_the_start_and_all_arrives(engine: docker.DockerClient) -> None:
    made = engine.containers.create("busybox", ["cat"], stdin_open=True)
    line = made.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    line._sock.sendall(b"typed\n")
    line._sock.shutdown(socket.SHUT_WR)
    made.start()
    assert made.wait()["StatusCode"] == 0
    assert line.read(14) == b"\x01\0\0\0\0\0\0\x06typed\n"
    line.close()
    made.remove()


def test_what_a_container_has_said_is_read_though_it_is_removed(engine: docker.DockerClient) -> None:
    said = [engine.containers.run("busybox", ["echo", "well"], remove=True) for _ in range(30)]
    assert said == [b"well\n"] * 30


def _said(engine: docker.DockerClient) -> bytes:
    """What a container has said by its end."""
    made = engine.containers.run("busybox", ["echo", "well"], detach=True)
    made.wait()
    said: bytes = made.logs()
    made.remove()
    return said


def test_who_closes_its_input_harms_nobody_who_waits_for_room_in_it(engine: docker.DockerClient) -> None:
    made = engine.containers.create("busybox", ["sleep", "1000"], stdin_open=True)
    made.start()
    lines = [made.attach_socket(params={"stdin": 1, "stream": 1}) for _ in range(3)]
    for line in lines[:2]:
        line._sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            line._sock.sendall(b"y" * (8 << 20))
    lines[2]._sock.shutdown(socket.SHUT_WR)
    for _ in range(2):  # what it had as its number, others have now
        assert _said(engine) == b"well\n"
    for line in lines:
        line.close()
    for _ in range(2):
        assert _said(engine) == b"well\n"
    made.remove(force=True)


def test_a_pause_holds(engine: docker.DockerClient) -> None:
    web = engine.containers.get("web")
    web.pause()
    web.reload()
    assert web.status == "paused"
    with pytest.raises(docker.errors.APIError, match="unpause the container before exec"):
        web.exec_run("true")
    web.unpause()
    assert web.exec_run("true").exit_code == 0


def test_200_callers_at_once_are_all_served(engine: docker.DockerClient, served: Served) -> None:
    answers: list[str] = []

    def ask() -> None:
        with closing(docker.APIClient(base_url=f"unix://{served.socket}", version="1.44", timeout=LIMIT_S)) as client:
            answers.append(client.inspect_container("web")["State"]["Status"])

    callers = [threading.Thread(target=ask) for _ in range(200)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert answers == ["running"] * 200
    assert engine.containers.get("web").exec_run("true").exit_code == 0


# --- the docker command ----------------------------------------------------------------------------------------------


@needs_docker
def test_docker_run_tells_output_and_status(served: Served) -> None:
    assert served.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 9") == (
        9,
        "out\n",
        "err\n",
    )
    assert served.docker("run", "-i", "--rm", "busybox", "cat", stdin="typed\n")[:2] == (0, "typed\n")
    assert served.docker("run", "--rm", "busybox", "nosuch")[0] == 127
    assert served.docker("run", "--rm", "busybox", "/etc")[0] == 126
    assert served.docker("ps", "-aq", "--filter", "ancestor=busybox", "--filter", "status=exited") == (0, "", "")


@needs_docker
def test_docker_exec_of_what_is_not_there_says_so(served: Served) -> None:
    status, _, complaint = served.docker("exec", "web", "nosuch")
    assert status == 127
    assert "execute nosuch: not found in the image" in complaint


@needs_docker
def test_a_shell_of_docker_run(served: Served) -> None:
    assert DOCKER is not None
    with at_terminal(
        [DOCKER, "run", "-it", "--name", "shell", "busybox", "sh"], served.run, **served.environ
    ) as screen:
        screen.sees("# ")
        screen.type("tty; stty size\n")
        screen.sees("24 80")
        screen.type('sh -c \'trap "echo cau""ght; exit" INT; echo star""ted; while :; do sleep 0.05; done\'\n')
        screen.sees("started")
        screen.type("\x03")
        screen.sees("caught")
        screen.type("\x10\x11")  # leaves
        assert screen.ends() == 0
        assert screen.settings() == screen.settings_before
    assert served.docker("inspect", "-f", "{{.State.Status}}", "shell")[1] == "running\n"
    with at_terminal([DOCKER, "attach", "shell"], served.run, **served.environ) as screen:
        screen.resize(30, 100)
        screen.type("\n")
        screen.sees("# ")
        screen.type("stty size; exit 6\n")
        screen.sees("30 100")
        assert screen.ends() == 6
        assert screen.settings() == screen.settings_before
    assert served.docker("rm", "shell")[0] == 0


@needs_docker
def test_docker_follows_logs_and_events(served: Served, engine: docker.DockerClient) -> None:
    talk = script("for i in 1 2 3; do echo $i; sleep 0.1; done")
    assert served.docker("run", "-d", "--name", "talker", "busybox", *talk)[0] == 0
    assert served.docker("logs", "-f", "talker")[1] == "1\n2\n3\n"
    told = engine.events(decode=True, since=int(time.time()) - 60, filters={"container": "talker"})
    assert [next(told)["Action"] for _ in range(3)] == ["create", "start", "die"]
    told.close()
    assert served.docker("rm", "talker")[0] == 0


@needs_docker
def test_docker_cp_stats_and_system(served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("data")
    assert served.docker("cp", str(tmp_path / "file"), "web:/tmp/copied")[0] == 0
    assert served.docker("exec", "web", "cat", "/tmp/copied")[1] == "data"
    assert served.docker("cp", "web:/tmp/copied", str(tmp_path / "back"))[0] == 0
    assert (tmp_path / "back").read_text() == "data"
    assert "iB / " in served.docker("stats", "--no-stream", "web")[1]
    for words in (("version",), ("info",), ("images",), ("system", "df", "-v"), ("top", "web"), ("diff", "web")):
        assert served.docker(*words)[0] == 0, words
