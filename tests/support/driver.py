"""Drives the runtime without the supervisor: one launcher, one container at a time, everything awaited by blocking."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
from family import children
from waiting import PATIENCE_S

from runtime import launcher, security, spawn, streams
from runtime.build import build_plan
from runtime.child import FAILED
from runtime.config import ContainerConfig, Network
from runtime.enter import Passage, build_entry
from runtime.errors import LaunchError
from runtime.lower import lower_plan
from runtime.plan import Plan
from runtime.status import Exited, Status, from_waitid
from runtime.users import User
from runtime.volumes import Pinned
from supervisor.kernel.namespaces import Namespaces, Own
from supervisor.processes.reaper import Exit
from supervisor.state.ids import Blocks

if TYPE_CHECKING:
    from runtime.idmap import Ids

ROOT = User(0, 0, (0,), "root", "/root")

Spoil = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Result:
    """How a run ended and what it wrote."""

    status: Status
    stdout: str
    stderr: str


class Driver:
    """A launcher and what is needed to start containers by it."""

    def __init__(self, state: Path, image: Path, *, in_python: bool = False) -> None:
        self.in_python = in_python
        self.state = state
        self.image = image
        self.launcher = spawn.Launcher.spawn(str(state))
        self._number = 0
        self._held: list[int] = []
        self._own: dict[tuple[Ids, bool], Own] = {}
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for path in (state, image):
            self.attach(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.launcher.close()
        os.close(self._null)
        for own in self._own.values():
            own.close()
        wait(self.launcher.pid)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def reply(self) -> spawn.Reply:
        """The next reply."""
        assert select.select([self.launcher], [], [], PATIENCE_S)[0], "no reply"
        (reply,) = self.launcher.receive()
        return reply

    def attach(self, path: Path) -> None:
        """Show a directory of the host to the launcher."""
        self.launcher.attach(self._next(), str(path))
        assert self.reply().error == 0

    def attach_mount(self, path: Path, mount: int) -> None:
        """Show a detached mount to the launcher, which nobody else will see."""
        self.launcher._send(launcher.ATTACH, self._next(), os.fsencode(path), (mount,))
        assert self.reply().error == 0

    def remove(self, path: str) -> None:
        """Remove a container's directory."""
        self.launcher.remove(self._next(), path)
        assert self.reply().error == 0

    def own(self, config: ContainerConfig) -> Own | None:
        """Its namespaces, if it has ids of its own."""
        if config.userns is None:
            return None
        key = config.userns, config.network is Network.NONE
        if key not in self._own:
            self._own[key] = anyio.run(
                partial(Namespaces(self._hold, Blocks(self.state)).take, "c", key[0], network=key[1])
            )
            wait(self._held.pop())
        return self._own[key]

    async def _hold(self, pipe: int, flags: int) -> tuple[int, Exit]:
        self.launcher.hold(self._next(), pipe, flags)
        reply = self.reply()
        if reply.error:
            raise OSError(reply.error, os.strerror(reply.error))
        self._held.append(reply.pid)
        return reply.pid, Exit()

    def config(self, *argv: str, **changes: object) -> ContainerConfig:
        """A container `c` of the test image; `changes` replace fields."""
        base = ContainerConfig(
            id="c",
            lowers=(str(self.image),),
            directory=str(self.state / "c"),
            argv=argv,
            env=(("PATH", "/bin"),),
            user=ROOT,
            hostname="c",
            capabilities=security.capability_mask((), (), privileged=False),
        )
        return replace(base, **changes)  # type: ignore[arg-type]  # a test names the fields it means

    def run(self, *argv: str, **changes: object) -> Result:
        """Run a container to its end. LaunchError if it does not start."""
        return self.run_config(self.config(*argv, **changes))

    def run_config(self, config: ContainerConfig, spoil: Spoil = bytes) -> Result:
        """The same for a whole configuration; `spoil` may change the encoded program."""
        with self.started(config, spoil) as (pid, made):
            stdout, stderr = read_all(made.stdout), read_all(made.stderr)
            return Result(wait(pid), stdout, stderr)

    @contextmanager
    def started(self, config: ContainerConfig, spoil: Spoil = bytes) -> Iterator[tuple[int, streams.Streams]]:
        """A container that reached execve; the block must wait for its end. Its directory is removed afterwards."""
        own = self.own(config)
        with Pinned(config) as pinned:
            plan = build_plan(config, found=pinned.found, ids=config.userns)
            mounts = pinned.copies(None if own is None else own.user)
        with self.requested(plan, spoil, more=(*(own.descriptors() if own else ()), *mounts)) as made:
            for mount in mounts:
                os.close(mount)
            pid = self.executed(plan, made)
            try:
                yield pid, made
            except BaseException:
                end(pid)
                raise

    def enter(self, config: ContainerConfig, pid: int, *argv: str) -> Result:
        """Run a command in a container that runs, to its end. LaunchError if it does not start."""
        pidfd = os.pidfd_open(pid)
        try:
            with self.entered(config, pidfd, argv) as (entered, made):
                said = read_all(made.stdout), read_all(made.stderr)
                return Result(wait(entered), *said)
        finally:
            os.close(pidfd)

    @contextmanager
    def entered(
        self, config: ContainerConfig, pidfd: int, argv: Sequence[str], *, spoil: Spoil = bytes, init: bool = False
    ) -> Iterator[tuple[int, streams.Streams]]:
        """A command that runs in a container: its pid and our ends of its streams."""
        own = self.own(config)
        entry = build_entry(config, argv, init=init, ids=config.userns)
        made = streams.pipes(self._null, entry.owner)
        try:
            before = (*made.theirs, pidfd, *(() if own is None else (own.user,)))
            passage = self.begin_entry(entry, before, spoil=spoil)
            made.close_theirs()
            reply = self.entered_by(passage)
            if reply.error:
                if reply.pid:
                    assert wait(reply.pid) == Exited(FAILED)
                raise spawn.launch_error(entry, reply.call, reply.error)
            yield reply.pid, made
        finally:
            made.close()

    def begin_entry(self, entry: Plan, before: Sequence[int], *, spoil: Spoil = bytes) -> Passage:
        """Ask for it; `before` are its streams and namespaces."""
        program = lower_plan(entry)
        program = replace(program, image=spoil(program.image))
        passage = Passage(entry, program)
        descriptors = (*before, *passage.descriptors)
        self.launcher.enter(self._next(), entry, program.image, descriptors, in_python=self.in_python)
        passage.close()
        return passage

    def entered_by(self, passage: Passage) -> spawn.Reply:
        """The reply, of who is in the container."""
        reply = self.reply()
        inside = passage.pid(reply.pid)
        passage.forget()
        if inside != reply.pid:
            assert wait(reply.pid) == Exited(0)
        return reply._replace(pid=inside)

    @contextmanager
    def requested(
        self, plan: Plan, spoil: Spoil = bytes, *, stdin: int | None = None, more: Sequence[int] = ()
    ) -> Iterator[streams.Streams]:
        """A start under way, whose reply the block must take; `more` are descriptors that go along."""
        if plan.terminal:
            made = streams.terminal(plan.owner, plan.tty_gid)
        else:
            made = streams.pipes(stdin or self._null, plan.owner)
        try:
            image = spoil(lower_plan(plan).image)
            self.launcher.start(self._next(), plan, image, (*made.theirs, *more), in_python=self.in_python)
            made.close_theirs()
            yield made
        finally:
            made.close()
            if plan.directory and not plan.keep:
                self.remove(plan.directory)

    def executed(self, plan: Plan, made: streams.Streams) -> int:
        """Take the reply: the pid. LaunchError if the command was not executed; then nothing is left running either."""
        reply = self.reply()
        if reply.error:
            if reply.pid:
                assert wait(reply.pid) == Exited(FAILED)
            assert [read_all(fd) for fd in (made.stdout, made.stderr) if fd is not None] in ([], ["", ""])
            raise spawn.launch_error(plan, reply.call, reply.error)
        return reply.pid


def read_all(descriptor: int | None) -> str:
    """Everything up to the end of file."""
    assert descriptor is not None
    chunks = []
    while chunk := _read(descriptor):
        chunks.append(chunk)
    return b"".join(chunks).decode()


def _read(descriptor: int) -> bytes:
    assert select.select([descriptor], [], [], PATIENCE_S)[0], "nothing came, and no end of file"
    return os.read(descriptor, 65536)


def read_until(descriptor: int | None, word: str) -> str:
    """Everything up to `word`, from a pipe or a terminal; bytes beyond it may be lost."""
    assert descriptor is not None
    text = b""
    while word.encode() not in text:
        assert select.select([descriptor], [], [], PATIENCE_S)[0], f"{word!r} did not come: {text!r}"
        chunk = os.read(descriptor, 65536)
        assert chunk, f"{word!r} did not come: {text!r}"
        text += chunk
    return text.decode()


def wait(pid: int) -> Status:
    """Reap it. One that lives too long is killed, and a failure."""
    pidfd = os.pidfd_open(pid)
    in_time = select.select([pidfd], [], [], PATIENCE_S)[0]
    if not in_time:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    result = os.waitid(os.P_PID, pid, os.WEXITED)
    assert in_time, f"{pid} lives on"
    assert result is not None
    return from_waitid(result.si_code, result.si_status)


def end(pid: int) -> None:
    """Kill and reap a child of ours, unless that was done."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        kill(pid)
        wait(pid)


def apart(script: str, *arguments: str, under: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Another Python that runs a script, which may import this module; `under` another command."""
    here = Path(__file__).resolve().parent
    env = {**os.environ, "PYTHONPATH": f"{here}:{here.parent.parent}"}
    command = [*under, sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_apart(script: str, *arguments: str, under: Sequence[str] = ()) -> str:
    """What such a script writes; it must succeed."""
    with apart(script, *arguments, under=under) as process:
        written, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        return written


def kill(pid: int) -> None:
    """SIGKILL to a child of ours."""
    os.kill(pid, signal.SIGKILL)


__all__ = [
    "Driver",
    "LaunchError",
    "Result",
    "Spoil",
    "apart",
    "children",
    "kill",
    "read_all",
    "read_until",
    "run_apart",
    "wait",
]


def python(driver: Driver, script: str, **changes: object) -> Result:
    """Run a script in a container of an image with Python, in memory."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return driver.run("python3", "-c", script, env=(("PATH", path),), memory_bytes=1 << 20, **changes)
