"""An image of one static program, and a driver of the runtime on it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Driver

APPLETS = (
    "sh ash cat chmod cp cut dd df echo env false find grep head hostname id kill ln ls mkdir mknod mount mv nc ping "
    "ps pwd readlink rm rmdir seq sleep sort stat tail test touch tr true tty umount uname wc which wget httpd "
    "ifconfig ip stty"
).split()


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of busybox, without /proc, /dev and /sys."""
    root = tmp_path_factory.mktemp("images") / "busybox"
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for name in APPLETS:
        os.symlink("busybox", root / "bin" / name)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nvideo:x:44:app\n")
    return root


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
