"""A driver of the runtime, on the image of one static program."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Driver


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
