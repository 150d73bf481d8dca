"""What is done in a thread, where there can't be one more: that is a start that fails, and no end of others."""

import threading
from pathlib import Path

import anyio
import pytest
from real import containers

from runtime.errors import LaunchError
from runtime.mounts import Bind
from supervisor.aside import aside


def none_left(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_it_is_an_error_of_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        assert await aside(lambda: 1) == 1
        with pytest.raises(RuntimeError, match="ours"):
            await aside(fail)

    async def without() -> None:
        with pytest.raises(OSError, match="temporarily unavailable"):
            await aside(lambda: 1)

    def fail() -> None:
        raise RuntimeError("ours")

    anyio.run(main)
    monkeypatch.setattr(threading.Thread, "start", none_left)
    anyio.run(without)  # asyncio's threads are each loop's own: there is none that waits for work


@pytest.mark.kernel
def test_a_container_whose_volumes_can_not_be_opened_for_want_of_a_thread_does_not_start(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with containers(tmp_path, image) as stage:
            monkeypatch.setattr(threading.Thread, "start", none_left)
            with pytest.raises(LaunchError, match="open its volumes: "):
                await stage.start(mounts=(Bind(source=str(tmp_path), target="/data"),))
            monkeypatch.undo()
            await stage.end(await stage.start(mounts=(Bind(source=str(tmp_path), target="/data"),)))

    anyio.run(main)
