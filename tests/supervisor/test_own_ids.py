"""Ids of their own, as the supervisor gives them: each container some, for as long as it is there."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from real import APP, Containers, containers

from runtime.config import Network
from runtime.errors import LaunchError
from runtime.idmap import AUTO, BLOCK, Extent, Ids, block
from runtime.userns import creating_as
from supervisor.api import tarball
from supervisor.commands import Execution
from supervisor.core.checks import Exec, File, Notify, Tcp, Verdict
from supervisor.kernel import KernelRun
from supervisor.state.ids import FIRST

pytestmark = [pytest.mark.anyio, pytest.mark.kernel]

PASSED = Verdict(passed=True)
TIMEOUT_S = 20.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "stacks" / "s"
    path.mkdir(parents=True)
    return path


@pytest.fixture
async def made(state: Path, image: Path) -> AsyncIterator[Containers]:
    async with containers(state, image) as entered:
        yield entered
    assert not (state / "ids").exists()


def users_of(run: KernelRun) -> str:
    return os.readlink(f"/proc/{run.pid}/ns/user")


async def test_no_two_have_the_same(made: Containers) -> None:
    runs = [await made.start(userns=AUTO) for _ in range(20)]
    ids = [run.ids for run in runs]
    assert len(set(map(str, ids))) == 20
    assert len(set(map(users_of, runs))) == 20
    for run in runs:
        assert run.ids is not None
        first = run.ids.uid[0].outside
        assert (first - FIRST) % BLOCK == 0
        assert os.stat(f"/proc/{run.pid}/root/etc").st_uid == first


async def test_a_restart_has_the_same_and_who_leaves_gives_it_to_others(made: Containers) -> None:
    first = await made.start(id="a", userns=AUTO, network=Network.NONE)
    before = users_of(first), os.readlink(f"/proc/{first.pid}/ns/net"), str(first.ids)
    await made.end(first)
    again = await made.start(id="a", userns=AUTO, network=Network.NONE)
    assert (users_of(again), os.readlink(f"/proc/{again.pid}/ns/net"), str(again.ids)) == before
    await made.end(again)
    assert str((await made.start(id="b", userns=AUTO)).ids) != before[2]
    made.runner.leave("a")
    assert str((await made.start(id="c", userns=AUTO)).ids) == before[2]


async def test_it_may_change_between_runs(made: Containers) -> None:
    wanted = Ids((Extent(0, 700_000, 2000),), (Extent(0, 800_000, 2000),))
    for userns in (AUTO, wanted, None, block(1 << 30), AUTO):
        run = await made.start(id="a", userns=userns)
        uid = os.stat(f"/proc/{run.pid}").st_uid
        assert uid == (0 if run.ids is None else run.ids.outside(0, 0)[0])
        await made.end(run)


async def test_checks_and_commands_work(made: Containers) -> None:
    script = "while :; do nc -l -p 80 </dev/null >/dev/null; done"
    run = await made.start("sh", "-c", script, userns=AUTO, network=Network.NONE, ready=Notify(), notify=True)
    with anyio.fail_after(TIMEOUT_S):
        while not (await run.check(Tcp(80), 1.0)).passed:
            await anyio.lowlevel.checkpoint()
    assert await run.check(Exec(("sh", "-c", "touch /tmp/x && [ $(stat -c %u /tmp/x) = 0 ]")), TIMEOUT_S) == PASSED
    assert await run.check(File("/tmp/x"), TIMEOUT_S) == PASSED
    assert await run.check(Exec(("sh", "-c", "test -S /dev/notify && test -w /dev/notify")), TIMEOUT_S) == PASSED


@pytest.mark.parametrize("user", [None, "1000:1000"])
async def test_an_operators_command_is_somebody_of_the_containers(made: Containers, user: str | None) -> None:
    run = await made.start(userns=AUTO)
    execution = Execution(argv=("sh", "-c", "id -u; exec sleep 1000"), user=user)
    command = await run.execute(execution, stdin=False)
    assert run.ids is not None
    with anyio.fail_after(TIMEOUT_S):
        await anyio.wait_readable(command.stdout)
    inside = 0 if user is None else 1000
    assert os.read(command.stdout, 100) == b"%d\n" % inside
    assert os.stat(f"/proc/{command.pid}").st_uid == run.ids.outside(inside, 0)[0]
    await command.aclose()


async def test_files_go_in_and_out_with_the_ids_of_inside(made: Containers, state: Path) -> None:
    run = await made.start(userns=AUTO, memory_bytes=None, user=APP)
    root = os.open(f"/proc/{run.pid}/root", os.O_PATH | os.O_DIRECTORY)
    source = io.BytesIO()
    with tarfile.open(fileobj=source, mode="w") as tar:
        for name, owner in (("mine", 1000), ("roots", 0)):
            header = tarfile.TarInfo(name)
            header.uid = header.gid = owner
            tar.addfile(header)
    source.seek(0)
    with creating_as(run.ids):
        tarball.unpack(root, "/tmp", source, tarball.Manner(ids=run.ids))
    directory = next(state.glob("c*/upper/tmp"))
    assert {path.name: path.stat().st_uid for path in directory.iterdir()} == {"mine": 1000, "roots": 0}
    out = io.BytesIO()
    tarball.pack(root, "/tmp", out, run.ids)
    os.close(root)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert {member.name: member.uid for member in tar} == {"tmp": 0, "tmp/mine": 1000, "tmp/roots": 0}
    assert os.stat(state).st_uid == os.getuid(), "who unpacks is himself again"
    (state / "new").touch()
    assert (state / "new").stat().st_uid == 0


async def test_maps_that_the_kernel_does_not_take_are_told(made: Containers) -> None:
    with pytest.raises(LaunchError, match="make its user namespace: the kernel does not take its ids"):
        await made.start(userns=Ids((Extent(0, 5, 10), Extent(3, 100, 1)), (Extent(0, 5, 10),)))
