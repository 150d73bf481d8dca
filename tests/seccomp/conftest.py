"""A profile of the field: the one that Debian ships for Podman, in Docker's form. And an image to try filters in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Driver
from probing import make_probing

SHIPPED = Path("/usr/share/containers/seccomp.json")


@pytest.fixture(scope="session")
def shipped() -> Path:
    """Of Debian's golang-github-containers-common."""
    if not SHIPPED.exists():
        if os.environ.get("PYSUP_KERNEL") == "must":
            raise pytest.UsageError(f"no {SHIPPED} (Debian: golang-github-containers-common)")
        pytest.skip(f"no {SHIPPED} (Debian: golang-github-containers-common)")
    return SHIPPED


@pytest.fixture(scope="session")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with a program that makes any system call."""
    return make_probing(tmp_path_factory.mktemp("images") / "probing")


@pytest.fixture(params=["native", "python"])
def driver(tmp_path: Path, probing: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A launcher to start containers of that image by, with both loops."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with Driver(state, probing, in_python=request.param == "python") as made:
        yield made
