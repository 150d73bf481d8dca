"""Drivers of the runtime, on images of: one static program, busybox to set traps in, a program that probes, Python."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Driver
from probing import make_probing
from rootfs import make_busybox

from runtime.images.from_host import create


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(params=["native", "python"])
def driver(state: Path, image: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A launcher to start containers by: each contract case runs with both loops."""
    with Driver(state, image, in_python=request.param == "python") as made:
        yield made


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An image of busybox to put traps into."""
    return make_busybox(tmp_path / "mine")


@pytest.fixture(params=["native", "python"])
def trapped(mine: Path, state: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A driver of that image."""
    with Driver(state, mine, in_python=request.param == "python") as made:
        yield made


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_probing(tmp_path_factory.mktemp("images") / "probing")


@pytest.fixture
def prober(probing: Path, state: Path) -> Iterator[Driver]:
    """A driver of an image with a program that makes any system call."""
    with Driver(state, probing) as made:
        yield made


@pytest.fixture(scope="module")
def pythonic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(create("python", tmp_path_factory.mktemp("images"), ["sh"], python=True).path)


@pytest.fixture
def snake(pythonic: Path, state: Path) -> Iterator[Driver]:
    """A driver of an image with Python."""
    with Driver(state, pythonic) as made:
        yield made
