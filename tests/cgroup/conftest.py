"""Cgroups of this test's own, on whatever hierarchies the host has, and processes that live in them."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count

import pytest
from cgroups import HOST, KINDS, Start, join, offered

from runtime.cgroup.branch import Branch, sweep
from runtime.cgroup.group import Cgroup

MUST = os.environ.get("PYSUP_KERNEL") == "must"
_numbers = count(1)


@pytest.fixture
def name() -> str:
    """Of a branch that no other test has, and none that was killed has left."""
    return f"test-{secrets.token_hex(4)}-{next(_numbers)}"


@pytest.fixture
def branch(name: str, request: pytest.FixtureRequest) -> Iterator[Branch]:
    """A branch on the host's hierarchies, or as the test asks for on some of them; nothing of it is left."""
    kind = getattr(request, "param", "host")
    if not offered(kind):
        pytest.skip(f"this host has no cgroups of {kind}")
    host = KINDS[kind](HOST)
    if host.processes is None or not host.processes.writable:
        assert not MUST, "PYSUP_KERNEL=must, but no writable cgroups of this kind"
        pytest.skip("no writable cgroups of this kind")
    made = Branch(host, name)
    try:
        yield made
    finally:
        left = [path for path in made.directories() if os.path.isdir(path) and len(os.listdir(path)) == 0]
        sweep(made.directories())
        made.remove()
        assert [path for path in made.directories() if os.path.exists(path)] == left == []


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a command in a cgroup; it is killed and reaped at the end."""
    with ExitStack() as stack:

        def begin(cgroup: Cgroup, *argv: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                argv,
                preexec_fn=lambda: join(cgroup),  # noqa: PLW1509 (no other thread takes locks here)
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(_end, process)
            return process

        yield begin


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    process.communicate()
