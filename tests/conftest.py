"""What all tests share: their surroundings, when kernel tests may run, that they leave nothing behind, and an image."""

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from command import Pysup
from descriptors import held
from rootfs import make_busybox

from runtime.errors import PysupError
from supervisor.state.home import Home, clear

MUST = os.environ.get("PYSUP_KERNEL") == "must"
KEPT = (
    "PATH",
    "TMPDIR",
    "VIRTUAL_ENV",
    "PYTEST_",
    "PYSUP_KERNEL",
    "PYSUP_PATIENCE_S",
    "PYSUP_DOCKER",
    "PYSUP_SEED",
    "SEED",
)
SET = {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "TERM": "xterm"}
TEMPORARY_MAX = 40  # the length of a directory in which sockets still have paths that fit (unix(7))
DESCRIPTORS = 20000  # the kernel's runner in a test's own process has up to 1,000 runs
IGNORED_BY_NOBODY = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)


def _settle() -> None:
    """Whoever starts the tests, from wherever: they find the same variables, umask, limits and ways of signals."""
    for name in os.environ:
        if not name.startswith(KEPT):
            del os.environ[name]
    os.environ.update(SET)
    if len(tempfile.gettempdir()) > TEMPORARY_MAX:
        os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in IGNORED_BY_NOBODY:  # as nohup(1), or a shell that starts something in the background, leaves them
        signal.signal(number, signal.SIG_DFL)


_settle()


def _missing() -> str | None:
    """What a kernel test needs and this machine lacks."""
    if os.geteuid() != 0:
        return "not root"
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        return "the kernel has no overlayfs"
    if shutil.which("busybox") is None:
        return "no busybox (Debian: busybox-static)"
    return None


def pytest_configure() -> None:
    """Threads inherit this: one that trio makes and keeps would take SIGCHLD from a reaper's signalfd(2)."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip kernel tests where they can't run; with PYSUP_KERNEL=must that is an error instead."""
    missing = _missing()
    if missing is None:
        return
    if MUST:
        raise pytest.UsageError(f"PYSUP_KERNEL=must, but {missing}")
    for item in items:
        if "kernel" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=missing))


def _children() -> set[int]:
    found: set[int] = set()
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # an idle thread has ended, without any
            found.update(map(int, children.read_text(encoding="ascii").split()))
    return found


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Descriptors, mounts and children are the same before and after each kernel test."""
    if request.node.get_closest_marker("kernel") is None:
        yield
        return
    before = held(), _mounts(), _children()
    yield
    after = held(), _mounts(), _children()
    assert after[0] == before[0], "descriptors left open, or closed"
    assert after[1] == before[1], "mounts left in the host's namespace"
    assert after[2] == before[2], "children left"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of busybox, without /proc, /dev and /sys."""
    return make_busybox(tmp_path_factory.mktemp("images") / "busybox")


@pytest.fixture(scope="session", autouse=True)
def _stacks_are_swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests end many a supervisor by SIGKILL, and its cgroups stay until the next start of its stack, or this."""
    yield
    for stacks in tmp_path_factory.getbasetemp().rglob("stacks"):
        for path in stacks.iterdir():
            with suppress(PysupError, OSError):  # some states are damaged on purpose
                clear(Home(path))


@pytest.fixture
def pysup(image: Path, tmp_path: Path) -> Pysup:
    """The command, with a state of its own and that image."""
    return Pysup(image.parent, tmp_path)
