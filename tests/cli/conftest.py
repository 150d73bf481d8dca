"""The command, and a busybox to run it on."""

from pathlib import Path

import pytest
from command import Pysup


@pytest.fixture
def pysup(image: Path, tmp_path: Path) -> Pysup:
    return Pysup(image.parent, tmp_path)
