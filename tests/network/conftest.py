"""Stacks with networks, on a host of their own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from command import IMAGE, Pysup
from lan import Lan, lan
from netstack import Stack, stack_of

MISSING = [name for name in ("ip", "nft", "nsenter") if shutil.which(name) is None]


Up = Callable[..., Stack]


@pytest.fixture(scope="package", name="hosts")
def _hosts() -> Iterator[Lan]:
    if MISSING:
        pytest.fail(f"no {', '.join(MISSING)} (Debian: iproute2, nftables, util-linux)")
    with lan() as made:
        yield made


@pytest.fixture
def up(hosts: Lan, image: Path, tmp_path: Path) -> Iterator[Up]:
    """Brings a stack up on the host."""
    with ExitStack() as stacks:

        def up(*containers: dict[str, object], **spec: object) -> Stack:
            defaults = {"image": IMAGE, "cmd": ["sleep", "1000"], "init": True, "stop_grace_s": 5}
            whole = {"defaults": defaults, "containers": containers, **spec}
            return stacks.enter_context(stack_of(hosts, Pysup(image.parent, tmp_path), whole))

        yield up
