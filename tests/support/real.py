"""A runner on the real kernel with the output of its containers, for tests of what runs are asked while they live."""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
from waiting import PATIENCE_S

from runtime import security, streams
from runtime.config import ContainerConfig
from runtime.plan import Plan
from runtime.users import User
from supervisor.core.checks import Health, Notice, Probe, Ready
from supervisor.core.policy import Policy
from supervisor.kernel import KernelRun, KernelRunner, kernel
from supervisor.streams.console import Console
from supervisor.streams.lines import Piece, Stream
from supervisor.streams.output import Output

ROOT = User(0, 0, (0,), "root", "/root")
APP = User(1000, 1000, (1000, 44), "app", "/home/app")
FOREVER = ("sh", "-c", "echo up; exec sleep 1000")


@dataclass
class Told:
    """What a run has said, in order."""

    notices: list[Notice] = field(default_factory=list)
    changed: anyio.Event = field(default_factory=anyio.Event)

    def __call__(self, notice: Notice) -> None:
        self.notices.append(notice)
        self.changed.set()

    async def until(self, notice: Notice) -> None:
        """It has been said, now or before."""
        with anyio.fail_after(PATIENCE_S):
            while notice not in self.notices:
                self.changed = anyio.Event()
                await self.changed.wait()


class Containers:
    """Starts containers of the test image, and ends them."""

    def __init__(
        self,
        runner: KernelRunner,
        state: Path,
        image: Path,
        written: list[bytes],
        events: list[tuple[str, str, Mapping[str, object]]],
    ) -> None:
        self.runner = runner
        self.state = state
        self.image = image
        self.written = written
        self.events = events
        self._runs: list[KernelRun] = []
        self._ended: list[KernelRun] = []

    def config(self, *argv: str, **changes: object) -> ContainerConfig:
        base = ContainerConfig(
            id=f"c{len(self._runs)}",
            lowers=(str(self.image),),
            directory=str(self.state / f"c{len(self._runs)}"),
            argv=argv or FOREVER,
            env=(("PATH", "/bin"),),
            user=ROOT,
            hostname="c",
            memory_bytes=1 << 20,
            capabilities=security.capability_mask((), (), privileged=False),
        )
        return replace(base, **changes)  # type: ignore[arg-type]  # a test names the fields it means

    async def start(
        self,
        *argv: str,
        ready: Probe | None = None,
        health: Probe | None = None,
        told: Told | None = None,
        **changes: object,
    ) -> KernelRun:
        policy = Policy(
            ready=None if ready is None else Ready(ready), health=None if health is None else Health(health)
        )
        run = await self.runner.start(self.config(*argv, **changes), policy, told or Told())
        self._runs.append(run)
        return run

    async def end(self, run: KernelRun) -> None:
        """Kill it."""
        run.signal(9)
        await self.finish(run)

    async def finish(self, run: KernelRun) -> None:
        """Wait for its end."""
        with anyio.fail_after(PATIENCE_S):
            await run.ended()
        self._ended.append(run)

    async def end_all(self) -> None:
        with anyio.CancelScope(shield=True):
            for run in self._runs:
                if run not in self._ended:
                    await self.end(run)


@asynccontextmanager
async def containers(state: Path, image: Path) -> AsyncIterator[Containers]:
    """A runner; everything it started is ended, and nothing may be left of it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    written: list[bytes] = []
    events: list[tuple[str, str, Mapping[str, object]]] = []

    def tell(event: str, container: str, fields: Mapping[str, object]) -> None:
        events.append((event, container, fields))

    def form(container: str, stream: Stream, piece: Piece) -> bytes:
        del container, stream
        written.append(piece.lines)
        return piece.lines

    try:
        async with Console(null) as console, anyio.create_task_group() as tasks:
            with Output(console, form, on_gone=_unexpected, on_lost=_unexpected) as output:
                tasks.start_soon(output.run)
                async with kernel(
                    state, [str(image)], partial(_pipes, null), output, _complain, 1, tell=tell
                ) as runner:
                    made = Containers(runner, state, image, written, events)
                    try:
                        yield made
                    finally:
                        await made.end_all()
                tasks.cancel_scope.cancel()
    finally:
        os.close(null)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells: look again at each turn of the loop."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await anyio.lowlevel.checkpoint()


def _unexpected(what: object) -> None:
    raise AssertionError(what)


def _pipes(null: int, plan: Plan) -> streams.Streams:
    return streams.pipes(null, plan.owner)


def _complain(container: str, what: str) -> None:
    raise AssertionError(f"{container}: {what}")
