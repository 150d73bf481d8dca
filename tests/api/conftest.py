"""A control socket on each backend, in a thread of its own, with a stack that is not there."""

import gc
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import docker
import pytest
from anyio.from_thread import start_blocking_portal
from served import Stage, populated

from supervisor.api.server import serve
from supervisor.api.shelf import Folders


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a name that is short enough for a socket's path."""
    path = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def stage(place: Path, backend: str) -> Iterator[Stage]:
    with start_blocking_portal(backend) as portal:
        commands = portal.call(populated, place)
        leave = portal.call(anyio.Event)
        stage = Stage(portal, commands, place / "pysup.sock", place / "root", place / "images", leave)
        arguments = (stage.socket, commands, Folders([stage.images]), stage.complaints.append)
        future, _ = portal.start_task(partial(serve, *arguments, leave=leave))
        yield stage
        future.cancel()
    assert stage.complaints == []
    assert not stage.socket.exists()
    for process in commands.executed:
        assert process.closed


@pytest.fixture
def engine(stage: Stage) -> Iterator[docker.DockerClient]:
    """docker-py, which leaves sockets of streams to the garbage collector."""
    with closing(docker.DockerClient(base_url=f"unix://{stage.socket}", version="auto", timeout=20)) as client:
        yield client
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
