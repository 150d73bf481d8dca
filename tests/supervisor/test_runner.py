"""The contract of a runner: the same cases for the fake and for the kernel, on both loops."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from fake import CRASH, DONE, FOREVER, FakeRunner, broken

from runtime import streams
from runtime.config import ContainerConfig
from runtime.errors import LaunchError
from runtime.plan import Plan
from runtime.status import Exited, Signaled
from runtime.users import User
from supervisor.core.checks import Notice
from supervisor.core.policy import Policy
from supervisor.kernel import KernelRunner, kernel
from supervisor.processes.launchers import ANSWER_S, LAUNCHERS
from supervisor.stack.runner import Run, Runner
from supervisor.state import cgroups

pytestmark = pytest.mark.anyio

COMMANDS = {
    "done": ("true",),
    "crash": ("false",),
    "forever": ("sleep", "1000"),
    "broken": ("nosuch",),
}
SCRIPTS = {
    "done": DONE,
    "crash": CRASH,
    "forever": FOREVER,
    "broken": broken("execute nosuch: not found"),
}


def left(state: Path) -> list[str]:
    """What is on disk, but for the note of the cgroups, which stays while the runner does."""
    return [path.name for path in state.iterdir() if path.name != cgroups.NOTE]


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which runner; a mark tells the fixtures that watch over kernel tests."""
    return str(request.param)


@asynccontextmanager
async def runner(kind: str, state: Path, image: Path) -> AsyncIterator[Runner]:
    if kind == "fake":
        scripts = {f"{name}-{number}": script for name, script in SCRIPTS.items() for number in range(300)}
        async with FakeRunner({**SCRIPTS, **scripts}) as fake:
            yield fake
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        async with kernel(state, [str(image)], partial(_to_null, null), None, _complain) as real:
            yield real
    finally:
        os.close(null)


def _to_null(null: int, plan: Plan) -> streams.Streams:
    del plan
    return streams.Streams((null, null, null), ())


def _complain(container: str, what: str) -> None:
    raise AssertionError(f"{container}: {what}")


def config(name: str, state: Path, image: Path) -> ContainerConfig:
    """A container whose name says what it does."""
    return ContainerConfig(
        id=name,
        lowers=(str(image),),
        directory=str(state / name),
        argv=COMMANDS[name.partition("-")[0]],
        env=(("PATH", "/bin"),),
        user=User(0, 0, (0,), "root", "/"),
        hostname=name,
    )


async def begin(made: Runner, wanted: ContainerConfig) -> Run:
    """Start one that nothing is expected of."""
    return await made.start(wanted, Policy(), _unheard)


def _unheard(notice: Notice) -> None:
    raise AssertionError(notice)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.mark.parametrize(("name", "status"), [("done", Exited(0)), ("crash", Exited(1))])
async def test_a_run_ends_with_its_status_and_leaves_nothing(
    kind: str, state: Path, image: Path, name: str, status: Exited
) -> None:
    async with runner(kind, state, image) as made:
        run = await begin(made, config(name, state, image))
        assert await run.ended() == status
        assert left(state) == []


async def test_a_start_that_fails_names_the_step_and_leaves_nothing(kind: str, state: Path, image: Path) -> None:
    async with runner(kind, state, image) as made:
        with pytest.raises(LaunchError, match="execute nosuch: not found"):
            await begin(made, config("broken", state, image))
        assert left(state) == []


async def test_a_signal_ends_it(kind: str, state: Path, image: Path) -> None:
    async with runner(kind, state, image) as made:
        run = await begin(made, config("forever", state, image))
        run.signal(signal.SIGKILL)
        assert await run.ended() == Signaled(signal.SIGKILL)


async def test_who_waits_for_the_exit_is_called_once(kind: str, state: Path, image: Path) -> None:
    calls: list[int] = []
    async with runner(kind, state, image) as made:
        run = await begin(made, config("forever", state, image))
        run.on_exit(lambda: calls.append(1))
        assert calls == []
        run.signal(signal.SIGKILL)
        await run.ended()
        assert calls == [1]


async def test_a_signal_after_the_end_is_no_error(kind: str, state: Path, image: Path) -> None:
    async with runner(kind, state, image) as made:
        run = await begin(made, config("done", state, image))
        await run.ended()
        run.signal(signal.SIGTERM)


async def test_hundreds_at_a_time(kind: str, state: Path, image: Path) -> None:
    statuses = []

    async def one(made: Runner, number: int) -> None:
        run = await begin(made, config(f"crash-{number}", state, image))
        statuses.append(await run.ended())

    async with runner(kind, state, image) as made:
        async with anyio.create_task_group() as tasks:
            for number in range(300):
                tasks.start_soon(one, made, number)
        assert statuses == [Exited(1)] * 300
        assert left(state) == []


@pytest.mark.kernel
async def test_1000_that_die_in_the_same_instant_lose_and_leave_nothing(state: Path, image: Path) -> None:
    ended: list[object] = []
    async with runner("kernel", state, image) as made:
        runs = [await begin(made, config(f"forever-{number}", state, image)) for number in range(1000)]
        # No turn of the loop in between: when it looks again, all of them are dead.
        for run in runs:
            run.signal(signal.SIGKILL)

        async def one(number: int) -> None:
            ended.append(await runs[number].ended())

        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(one, number)
    assert ended == [Signaled(signal.SIGKILL)] * 1000
    assert left(state) == []


@pytest.mark.kernel
async def test_what_fails_at_once_waits_for_no_launcher_that_is_being_made(state: Path, image: Path) -> None:
    began = anyio.current_time()
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with runner("kernel", state, image):
            raise OSError("there is no room for a socket")
    assert anyio.current_time() - began < ANSWER_S / 2


@pytest.mark.kernel
@pytest.mark.parametrize("victims", [1, LAUNCHERS])
async def test_launchers_killed_while_they_start_containers_lose_none(state: Path, image: Path, victims: int) -> None:
    statuses: list[object] = []

    async def one(made: Runner, number: int) -> None:
        run = await begin(made, config(f"done-{number}", state, image))
        statuses.append(await run.ended())
        if number in (40, 90):
            kill_launchers(made, victims)

    async with runner("kernel", state, image) as made, anyio.create_task_group() as tasks:
        for number in range(150):
            tasks.start_soon(one, made, number)
    assert statuses == [Exited(0)] * 150
    assert left(state) == []


def kill_launchers(made: Runner, victims: int) -> None:
    """No turn of the loop until they are dead: one that still takes what was lost with another would be a try of it."""
    assert isinstance(made, KernelRunner)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    pids = [pid for pid in made._means.pool.pids if str(pid) in children][:victims]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
