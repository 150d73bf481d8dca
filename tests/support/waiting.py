"""Waiting, in a test with no loop of its own, for what another thread or process does."""

import os
import select
import time
from collections.abc import Callable

PATIENCE_S = float(os.environ.get("PYSUP_PATIENCE_S", "60"))  # what is far too long even where all is slow


def until(done: Callable[[], object], limit_s: float = PATIENCE_S) -> None:
    """Look again and again; it is a failure when it has not come within that time."""
    end = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < end, f"it did not come within {limit_s} s"
        select.select([], [], [], 0.005)
