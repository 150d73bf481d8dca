"""A short soak, so that the long one does not rot."""

import subprocess
import sys

import pytest
from command import ROOT

pytestmark = pytest.mark.kernel

SEED = 20261124


def test_every_promise_is_kept_for_some_seconds() -> None:
    soak = [sys.executable, "-m", "tests.soak", "12", "30", str(SEED)]
    done = subprocess.run(soak, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
