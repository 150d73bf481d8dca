"""One image with everything in it, made once; and a way to run a program in one."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.from_host import create
from runtime.images.lookup import Image

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    directory = tmp_path_factory.mktemp("base")
    yield create("base", directory / "images", tools=True, python=True)
    shutil.rmtree(directory)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "images"
    shutil.rmtree(tmp_path / "images", ignore_errors=True)


@pytest.fixture
def run_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run argv in an image: chroot with a /proc, in namespaces that end with the program, as a user if one is given."""

    def run(image: Image, *argv: str, user: str = "0:0") -> subprocess.CompletedProcess[str]:
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={image.path}/proc"]
        return subprocess.run(
            [*unshare, "chroot", f"--userspec={user}", str(image.path), *argv],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def umask_077() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)
