"""The docker command line, where it is installed. It never talks to a daemon but ours."""

import fcntl
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from served import Stage
from waiting import until

from runtime.cgroup.limits import Limits
from supervisor.core.policy import RestartPolicy
from supervisor.streams.lines import Stream

DOCKER = os.environ.get("PYSUP_DOCKER") or shutil.which("docker")
LIMIT_S = 30

pytestmark = pytest.mark.skipif(DOCKER is None, reason="no docker command")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environ(stage: Stage, tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{stage.socket}"}


@pytest.fixture
def docker(environ: dict[str, str]) -> Run:
    def run(*argv: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        assert DOCKER is not None
        done = subprocess.run(
            [DOCKER, *argv], input=stdin, env=environ, text=True, capture_output=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    return run


def begun(environ: dict[str, str], *argv: str) -> subprocess.Popen[bytes]:
    assert DOCKER is not None
    return subprocess.Popen([DOCKER, *argv], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def lines(process: subprocess.Popen[bytes], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().decode() for _ in range(count)]


def ended(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(LIMIT_S)
    assert process.stdout is not None
    process.stdout.close()


def test_ps(docker: Run) -> None:
    shown = docker("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout
    assert "web.1 Up About a minute\n" in shown
    assert "late Created\n" in shown
    assert docker("ps", "-q", "--no-trunc", "--filter", "name=job", "-a").stdout.strip()


def test_version_and_info(docker: Run) -> None:
    assert "pysup" in docker("version").stdout
    assert "Containers: 5" in docker("info").stdout


def test_inspect(docker: Run) -> None:
    assert (
        docker("inspect", "--format", "{{.State.Status}} {{.Config.Cmd}}", "web.1").stdout == "running [sleep 1000]\n"
    )


def test_up_and_down(docker: Run, stage: Stage) -> None:
    docker("pause", "web.1")
    docker("unpause", "web.1")
    docker("kill", "-s", "HUP", "web.1")
    docker("restart", "-t", "1", "web.1")
    docker("stop", "-t", "1", "web.1")
    docker("start", "web.1")
    docker("rename", "web.1", "one")
    assert [asked[0] for asked in stage.commands.asked] == ["kill", "restart", "start", "stop", "start"]


def test_wait_returns_the_status(docker: Run) -> None:
    assert docker("wait", "job").stdout == "3\n"


def test_logs(docker: Run, stage: Stage) -> None:
    stage.do(stage.commands.write, "web.1", Stream.STDOUT, b"out")
    stage.do(stage.commands.write, "web.1", Stream.STDERR, b"err")
    done = docker("logs", "web.1")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_logs_are_followed(environ: dict[str, str], stage: Stage) -> None:
    process = begun(environ, "logs", "-f", "--tail", "1", "web.1")
    until(lambda: any(asked[0] == "logs" for asked in stage.commands.asked))
    stage.do(stage.commands.write, "web.1", Stream.STDOUT, b"new")
    assert lines(process, 1) == ["new\n"]
    ended(process)


def test_exec(docker: Run) -> None:
    done = docker("exec", "-i", "-e", "A=1", "web.1", "sh", "-c", "cat; echo $A >&2; exit 3", stdin="in", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "1\n")


def test_exec_detached(docker: Run, stage: Stage) -> None:
    docker("exec", "-d", "web.1", "touch", "done")
    until((stage.root / "done").exists)
    until(lambda: stage.commands.executed[0].closed)


def test_exec_in_a_terminal(environ: dict[str, str]) -> None:
    status, shown = in_terminal(environ, ["exec", "-it", "web.1", "sh"], [("$ ", b"stty -echo; exit 5\n")])
    assert status == 5, shown


def in_terminal(environ: dict[str, str], argv: Sequence[str], talk: Sequence[tuple[str, bytes]]) -> tuple[int, str]:
    """What a command shows and returns that has a terminal: `talk` is what to wait for, and what to type then."""
    assert DOCKER is not None
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [DOCKER, *argv], env={**environ, "TERM": "xterm", "PS1": "$ "}, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = ""
    waiting = list(talk)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            shown += os.read(master, 10000).decode(errors="replace")
        except OSError:
            break
        if waiting and (waiting[0][0] in shown or "# " in shown):
            os.write(master, waiting.pop(0)[1])
    os.close(master)
    return process.wait(LIMIT_S), shown


def test_run_takes_a_container_from_create_to_remove(environ: dict[str, str], stage: Stage) -> None:
    process = begun(environ, "run", "--rm", "--name", "mine", "base", "true")
    until(lambda: ("start", "mine") in stage.commands.asked)
    stage.do(stage.commands.echoes["mine"].say, Stream.STDOUT, b"hello\n")
    assert lines(process, 1) == ["hello\n"]
    stage.do(stage.commands.end, "mine", 4)
    assert process.wait(LIMIT_S) == 4
    assert process.stdout is not None
    process.stdout.close()
    assert "mine" not in stage.commands.known


def test_run_in_a_terminal(environ: dict[str, str], stage: Stage) -> None:
    def answer() -> None:
        until(lambda: "mine" in stage.commands.echoes and b"ls" in stage.commands.echoes["mine"].heard)
        stage.do(stage.commands.end, "mine", 6)

    def greet() -> None:
        until(lambda: ("start", "mine") in stage.commands.asked)
        stage.do(stage.commands.echoes["mine"].say, Stream.STDOUT, b"$ ")
        answer()

    helper = threading.Thread(target=greet)
    helper.start()
    status, shown = in_terminal(environ, ["run", "-it", "--rm", "--name", "mine", "base", "sh"], [("$ ", b"ls\r")])
    helper.join()
    assert status == 6
    assert "ls" in shown
    assert any(asked[0] == "resize" for asked in stage.commands.asked)


def test_attach_is_left_by_its_keys(environ: dict[str, str], stage: Stage) -> None:
    def greet() -> None:
        until(lambda: "term" in stage.commands.echoes)
        stage.do(stage.commands.echoes["term"].say, Stream.STDOUT, b"$ ")

    helper = threading.Thread(target=greet)
    helper.start()
    in_terminal(environ, ["attach", "term"], [("$ ", b"\x10\x11")])
    helper.join()
    assert not stage.commands.echoes["term"].over


def test_create_and_rm(docker: Run, stage: Stage) -> None:
    docker("create", "--name", "mine", "--restart", "on-failure:2", "base", "true")
    docker("rm", "mine")
    assert "mine" not in stage.commands.known
    assert "is in the stack's file" in docker("rm", "job", check=False).stderr


def test_an_image_that_is_not_there_is_not_pulled(docker: Run) -> None:
    done = docker("run", "--rm", "other", "true", check=False)
    assert done.returncode == 125
    assert "pulling an image is not offered by pysup" in done.stderr


def test_stats(docker: Run) -> None:
    assert "10MiB / 64MiB" in docker("stats", "--no-stream", "web.1").stdout


def test_top_and_diff(docker: Run) -> None:
    assert "sleep 1000" in docker("top", "web.1").stdout
    assert docker("diff", "web.1").stdout == ""


def test_events(environ: dict[str, str], stage: Stage) -> None:
    process = begun(environ, "events", "--since", "1m", "--format", "{{.Action}} {{.Actor.Attributes.name}}")
    stage.do(stage.commands.tell, "started", "web.2", pid=1)
    assert lines(process, 1) == ["start web.2\n"]
    ended(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_cp_both_ways(docker: Run, stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("content")
    docker("cp", str(tmp_path / "dir"), "web.1:/")
    assert (stage.root / "dir/file").read_text() == "content"
    docker("cp", str(tmp_path / "dir/file"), "web.1:/dir/other")
    assert (stage.root / "dir/other").read_text() == "content"
    docker("cp", "web.1:/dir", str(tmp_path / "back"))
    assert (tmp_path / "back/other").read_text() == "content"
    docker("cp", "web.1:/dir/.", str(tmp_path / "again"))
    assert (tmp_path / "again/file").read_text() == "content"
    (stage.root / "link").symlink_to("/dir/file")
    docker("cp", "-L", "web.1:/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "content"


def test_images(docker: Run) -> None:
    assert "base" in docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout
    docker("tag", "base", "base:2")
    docker("rmi", "base:2")
    assert docker("image", "inspect", "--format", "{{.Size}}", "base").stdout == "1000\n"


def test_system_df(docker: Run) -> None:
    assert "Images" in docker("system", "df").stdout


def test_networks(docker: Run) -> None:
    assert docker("network", "ls", "--format", "{{.Name}} {{.Driver}}").stdout == "back bridge\nhost host\nnone null\n"
    subnet = docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "back").stdout
    assert subnet == "10.1.0.0/24\n"
    done = docker("network", "create", "mine", check=False)
    assert "making a network is not offered by pysup" in done.stderr


def test_inspect_of_nothing(docker: Run) -> None:
    done = docker("inspect", "nosuch", check=False)
    assert (done.returncode, done.stdout.strip()) == (1, "[]")
    assert "no such object: nosuch" in done.stderr.lower()


def test_volumes(docker: Run) -> None:
    docker("volume", "create", "data")
    assert docker("volume", "ls", "-q").stdout == "data\n"
    docker("volume", "prune", "-a", "-f")
    assert docker("volume", "ls", "-q").stdout == ""


def test_update(docker: Run, stage: Stage) -> None:
    docker("update", "--memory", "64m", "--pids-limit", "7", "--restart", "on-failure:3", "web.1")
    wanted = Limits(memory_bytes=64 << 20, pids=7), (RestartPolicy.ON_FAILURE, 3)
    assert stage.commands.asked[-1] == ("update", "web.1", *wanted)
    assert "BlkioWeight is not offered" in docker("update", "--blkio-weight", "300", "web.1", check=False).stderr
