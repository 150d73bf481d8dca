"""The command, for tests of a whole supervisor."""

from pathlib import Path

import pytest
from command import Pysup


@pytest.fixture
def pysup(image: Path, tmp_path: Path) -> Pysup:
    return Pysup(image.parent, tmp_path)
