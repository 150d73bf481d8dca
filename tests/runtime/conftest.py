"""A container to make plans of: nothing of it is ever started here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.config import ContainerConfig
from runtime.users import User

MakeConfig = Callable[..., ContainerConfig]


@pytest.fixture
def config(tmp_path: Path) -> MakeConfig:
    """Makes a configuration; fields may be given by name."""
    base = ContainerConfig(
        id="c",
        lowers=(str(tmp_path),),
        directory="/state/c",
        argv=("prog", "argument"),
        user=User(0, 0, (0,), "root", "/root"),
        hostname="box",
    )

    def make(**changes: object) -> ContainerConfig:
        return replace(base, **changes)  # type: ignore[arg-type]  # a test names the fields it means

    return make
