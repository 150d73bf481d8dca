"""What the tests of logs share: writers whose thread is gone afterwards."""

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from logbook import Told, Writing, written

from supervisor.logs import writer


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "pysup logs":
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.fixture(autouse=True)
def readers_are_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written is on disk when it is read, however slow that is."""
    monkeypatch.setattr(writer, "FLUSH_MAX_S", 60)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def writing(tmp_path: Path, told: Told) -> Writing:
    """Makes writers for `tmp_path/logs`, with a limit for all of them if one is given."""
    return partial(written, tmp_path / "logs", told)
