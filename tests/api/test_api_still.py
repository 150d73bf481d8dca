"""Files of containers that do not run: `docker cp`, `docker diff` and `docker export`, on the real kernel."""

import gc
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import docker.errors
import pytest
from command import ENVIRONMENT, Pysup, script
from docker.models.containers import Container

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # docker-py leaves sockets to the garbage collector
]

DOCKER = os.environ.get("PYSUP_DOCKER") or shutil.which("docker")
LIMIT_S = 30
SLEEP = {"cmd": ["sleep", "1000"], "stop_grace_s": 0}

needs_docker = pytest.mark.skipif(DOCKER is None, reason="no docker command")


@pytest.fixture(scope="module")
def run(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the socket of a stack is. What a test makes in it, it removes."""
    pysup = Pysup(image.parent, tmp_path_factory.mktemp("still"))
    run = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    spec = pysup.stack(
        {"id": "plain", **SLEEP},
        {"id": "kept", "keep": True, **SLEEP},
        {"id": "light", "storage": "memory", **SLEEP},
        {"id": "own", "keep": True, "userns": "auto", **SLEEP},
    )
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    with pysup.live("up", "--run", str(run), spec) as live:
        live.sees("all 4 containers are up")
        yield run
        assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == mounts
        deadline = time.monotonic() + LIMIT_S
        while [each.name for each in (pysup.state / "stacks/stack/runs").iterdir()] != ["plain"]:
            assert time.monotonic() < deadline  # what was removed goes by and by
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert "Traceback" not in live.text
    assert "internal error" not in live.text
    assert not (pysup.state / "stacks/stack/runs").exists()
    shutil.rmtree(run, ignore_errors=True)


@pytest.fixture
def engine(run: Path) -> Iterator[docker.DockerClient]:
    socket = f"unix://{run}/stack/pysup.sock"
    with closing(docker.DockerClient(base_url=socket, version="auto", timeout=LIMIT_S)) as client:
        yield client
    gc.collect()


@pytest.fixture
def made(engine: docker.DockerClient) -> Iterator[list[Container]]:
    """Containers that are to go, before `engine` is closed."""
    del engine
    containers: list[Container] = []
    yield containers
    for each in containers:
        each.remove(force=True)


def archive(name: str, data: bytes, **more: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        for field, value in more.items():
            setattr(header, field, value)
        tar.addfile(header, io.BytesIO(data))
    return out.getvalue()


def members(pieces: Iterator[bytes]) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {member.name: member for member in tar}


def read(container: Container, path: str) -> bytes:
    pieces, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        (member,) = tar
        file = tar.extractfile(member)
        assert file is not None
        return file.read()


def stopped(engine: docker.DockerClient, name: str) -> Container:
    container = engine.containers.get(name)
    container.stop(timeout=0)
    return container


def test_what_is_copied_into_a_created_one_is_there_when_it_starts(
    engine: docker.DockerClient, made: list[Container]
) -> None:
    job = engine.containers.create("busybox", script("cat /etc/conf; echo more >> /etc/conf"), name="job")
    made.append(job)
    assert job.diff() == []
    assert job.put_archive("/etc", archive("conf", b"first\n"))
    assert read(job, "/etc/conf") == b"first\n"
    assert {"Path": "/etc/conf", "Kind": 1} in job.diff()
    for _ in range(2):  # as in Docker what it has written is there again
        job.start()
        assert job.wait()["StatusCode"] == 0
    assert job.logs() == b"first\nfirst\nmore\n"
    assert read(job, "/etc/conf") == b"first\nmore\nmore\n"


def test_what_one_leaves_is_copied_out_and_gone_with_it(
    engine: docker.DockerClient, made: list[Container], run: Path
) -> None:
    del run
    job = engine.containers.create("busybox", script("mkdir /out; echo done > /out/result; rm -r /bin"), name="job")
    job.start()
    job.wait()
    assert read(job, "/out/result") == b"done\n"
    assert {"Path": "/bin", "Kind": 2} in job.diff()
    with pytest.raises(docker.errors.NotFound, match="Could not find the file /bin"):
        job.get_archive("/bin")
    job.remove()
    again = engine.containers.create("busybox", ["true"], name="job")
    made.append(again)
    assert again.diff() == []
    with pytest.raises(docker.errors.NotFound):
        again.get_archive("/out/result")


def test_one_that_is_to_be_removed_at_its_end_takes_files_too(engine: docker.DockerClient) -> None:
    job = engine.containers.create("busybox", ["cat", "/conf"], name="job", auto_remove=True)
    job.put_archive("/", archive("conf", b"hello\n"))
    lines = job.attach(stream=True, logs=True)
    job.start()
    assert b"".join(lines) == b"hello\n"
    deadline = time.monotonic() + LIMIT_S
    while engine.containers.list(all=True, filters={"name": "job"}, ignore_removed=True):
        assert time.monotonic() < deadline


def test_volumes_are_there(engine: docker.DockerClient, made: list[Container], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_bytes(b"on the host")
    binds = {str(tmp_path / "data"): {"bind": "/srv/data", "mode": "rw"}, "vol": {"bind": "/vol", "mode": "rw"}}
    one = engine.containers.create("busybox", ["cat", "/vol/new"], volumes=binds)
    made.append(one)
    assert read(one, "/srv/data/file") == b"on the host"
    assert one.put_archive("/srv/data", archive("new", b"from inside"))
    assert (tmp_path / "data/new").read_bytes() == b"from inside"
    assert one.put_archive("/vol", archive("new", b"in a volume"))
    one.start()
    one.wait()
    assert one.logs() == b"in a volume\n"
    assert one.diff() == []  # neither is its own
    volume = engine.volumes.get("vol")
    readonly = {str(tmp_path / "data"): {"bind": "/data", "mode": "ro"}}
    other = engine.containers.create("busybox", ["true"], volumes=readonly)
    made.append(other)
    with pytest.raises(docker.errors.APIError, match="Read-only file system"):
        other.put_archive("/data", archive("worse", b""))
    one.remove()
    made.remove(one)
    volume.remove()


def test_a_volume_without_a_name_goes_with_its_container(engine: docker.DockerClient) -> None:
    def create(**more: object) -> tuple[Container, str]:
        one = engine.containers.create("busybox", script("ls /data; echo x > /data/new"), volumes=["/data"], **more)
        (mount,) = one.attrs["Mounts"]
        return one, mount["Name"]

    one, volume = create(name="job")
    for _ in range(2):
        one.start()
        one.wait()
    assert one.logs() == b"new\n"  # the second time
    one.remove()
    assert [each.name for each in engine.volumes.list()] == [volume]
    again, other = create(name="job")
    assert other != volume
    again.start()
    again.wait()
    assert again.logs() == b""
    again.remove(v=True)
    passing, _ = create(auto_remove=True)
    passing.start()
    deadline = time.monotonic() + LIMIT_S
    while passing.id in {each.id for each in engine.containers.list(all=True, ignore_removed=True)}:
        assert time.monotonic() < deadline
    assert engine.volumes.prune()["VolumesDeleted"] == [volume]
    assert engine.volumes.list() == []


def test_a_volume_without_a_name_stays_for_another(engine: docker.DockerClient, made: list[Container]) -> None:
    volume = engine.volumes.create()
    one, other = (
        engine.containers.create("busybox", ["true"], volumes={volume.name: {"bind": "/data"}}) for _ in range(2)
    )
    made.append(other)
    one.remove(v=True)
    assert [each.name for each in engine.volumes.list()] == [volume.name]
    other.remove(v=True)
    made.remove(other)
    assert engine.volumes.list() == []


def test_a_root_that_is_read_only_takes_nothing(engine: docker.DockerClient, made: list[Container]) -> None:
    one = engine.containers.create("busybox", ["true"], read_only=True)
    made.append(one)
    with pytest.raises(docker.errors.APIError, match="Read-only file system"):
        one.put_archive("/etc", archive("conf", b""))
    assert "etc" in members(one.export())


def test_no_link_of_it_leads_out(engine: docker.DockerClient, made: list[Container], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's")
    one = engine.containers.create("busybox", script(f"ln -s {tmp_path} /way; ln -s /proc/self/root /out"))
    made.append(one)
    one.start()
    one.wait()
    for path in ("/way/secret", f"/out{tmp_path}/secret", f"/../..{tmp_path}/secret"):
        with pytest.raises(docker.errors.APIError):
            one.get_archive(path)
    with pytest.raises(docker.errors.APIError):
        one.put_archive("/way", archive("planted", b""))
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_what_a_container_of_the_spec_keeps_can_be_changed_while_it_is_stopped(engine: docker.DockerClient) -> None:
    kept = stopped(engine, "kept")
    kept.put_archive("/", archive("planted", b"now"))
    kept.start()
    assert kept.exec_run(["cat", "/planted"]).output == b"now"
    kept.exec_run(["rm", "/planted"])
    kept.stop(timeout=0)
    assert "/planted" not in {each["Path"] for each in kept.diff()}
    kept.start()


def test_with_ids_of_its_own_files_are_its_roots(engine: docker.DockerClient) -> None:
    own = engine.containers.get("own")
    own.exec_run(["sh", "-c", "echo x > /theirs; chown 7:8 /theirs; mkdir -m 700 /dir"])
    own.stop(timeout=0)
    assert own.put_archive("/dir", archive("mine", b"x", uid=5, gid=6))
    pieces, _ = own.get_archive("/dir")
    found = members(pieces)
    assert {name: (each.uid, each.gid) for name, each in found.items()} == {"dir": (0, 0), "dir/mine": (5, 6)}
    whole = members(own.export())
    assert (whole["theirs"].uid, whole["theirs"].gid) == (7, 8)
    own.start()
    assert own.exec_run(["stat", "-c", "%u:%g", "/dir/mine", "/theirs", "/dir"]).output == b"5:6\n7:8\n0:0\n"


@pytest.mark.parametrize(("name", "why"), [("plain", "went with its run"), ("light", "was in memory")])
def test_what_has_gone_is_said_to_have_gone(engine: docker.DockerClient, name: str, why: str) -> None:
    one = stopped(engine, name)
    for ask in (lambda: one.get_archive("/etc"), lambda: b"".join(one.export()), one.diff):
        with pytest.raises(docker.errors.APIError, match=why) as refusal:
            ask()
        assert refusal.value.status_code == 409
    with pytest.raises(docker.errors.APIError, match="`keep: true` lets it go on"):
        one.put_archive("/", archive("lost", b""))
    one.start()


def test_an_export_is_all_of_it_and_nothing_that_is_mounted(
    engine: docker.DockerClient, made: list[Container], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    binds = {str(tmp_path): {"bind": "/data", "mode": "rw"}}
    one = engine.containers.create("busybox", script("echo x > /made; exec sleep 1000"), volumes=binds)
    made.append(one)
    one.start()
    while one.exec_run(["test", "-s", "/made"]).exit_code != 0:
        pass
    running = members(one.export())
    one.stop(timeout=0)
    still = members(one.export())
    assert {"made", "bin/busybox", "data"} <= running.keys()
    assert running.keys() == still.keys()
    assert not any(name.startswith(("data/", "proc/", "dev/", "sys/")) for name in still)


def test_a_start_waits_for_who_copies_into_it(engine: docker.DockerClient, made: list[Container]) -> None:
    one = engine.containers.create("busybox", ["cat", "/conf"])
    made.append(one)
    begun, go_on = threading.Event(), threading.Event()
    data = archive("conf", b"all of it")

    def pieces() -> Iterator[bytes]:
        yield data[:600]
        begun.set()
        assert go_on.wait(LIMIT_S)
        yield data[600:]

    copying = threading.Thread(target=lambda: one.put_archive("/", pieces()))
    copying.start()
    assert begun.wait(LIMIT_S)
    starting = threading.Thread(target=one.start)
    starting.start()
    go_on.set()
    starting.join(LIMIT_S)
    copying.join(LIMIT_S)
    one.wait()
    assert one.logs() == b"all of it\n"


def command_line(run: Path, home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    assert DOCKER is not None
    environ = {**ENVIRONMENT, "DOCKER_HOST": f"unix://{run}/stack/pysup.sock", "HOME": str(home)}
    return subprocess.run([DOCKER, *argv], env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@needs_docker
def test_docker_cp_says_what_is_gone(run: Path, engine: docker.DockerClient, tmp_path: Path) -> None:
    plain = stopped(engine, "plain")
    (tmp_path / "file").touch()
    for words, why in (
        ((str(tmp_path / "file"), "plain:/etc/"), "`keep: true` lets it go on"),
        (("plain:/etc/file", str(tmp_path)), "went with its run"),
    ):
        done = command_line(run, tmp_path, "cp", *words)
        assert done.returncode == 1
        assert why in done.stderr
    plain.start()


@needs_docker
def test_docker_create_cp_start(run: Path, tmp_path: Path) -> None:
    def cli(*argv: str) -> str:
        done = command_line(run, tmp_path, *argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("by cp\n")
    cli("create", "--name", "job", "busybox", "sh", "-c", "cat /in/file; echo back > /in/back")
    cli("cp", str(tmp_path / "in"), "job:/in")
    assert cli("start", "-a", "job") == "by cp\n"
    cli("cp", "job:/in/back", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "back\n"
    assert "A /in/back\n" in cli("diff", "job")
    cli("export", "-o", str(tmp_path / "all.tar"), "job")
    with tarfile.open(tmp_path / "all.tar") as tar:
        assert "in/back" in tar.getnames()
    cli("rm", "job")
