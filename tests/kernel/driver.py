"""Drives the runtime without the supervisor: one launcher, one container at a time, everything awaited by blocking."""

import os
import select
import signal
from contextlib import contextmanager
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from runtime import security, spawn, streams
from runtime.build import build_plan
from runtime.child import FAILED
from runtime.config import ContainerConfig
from runtime.errors import LaunchError
from runtime.lower import lower_plan
from runtime.status import Exited, Status, from_waitid
from runtime.users import User

ROOT = User(0, 0, (0,), "root", "/root")
PATIENCE_S = 30


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
        self.launcher = spawn.Launcher(str(state))
        self._number = 0
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for path in (state, image):
            self.launcher.attach(self._next(), str(path))
            assert self.reply().error == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.launcher.close()
        os.close(self._null)
        os.waitpid(self.launcher.pid, 0)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def reply(self) -> spawn.Reply:
        """The next reply."""
        assert select.select([self.launcher], [], [], PATIENCE_S)[0], "no reply"
        (reply,) = self.launcher.receive()
        return reply

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

    def run_config(self, config: ContainerConfig, spoil: Callable[[bytes], bytes] = bytes) -> Result:
        """The same for a whole configuration; `spoil` may change the encoded program."""
        with self.started(config, spoil) as (pid, made):
            stdout, stderr = _read(made.stdout), _read(made.stderr)
            return Result(wait(pid), stdout, stderr)

    @contextmanager
    def started(
        self, config: ContainerConfig, spoil: Callable[[bytes], bytes] = bytes
    ) -> Iterator[tuple[int, streams.Streams]]:
        """A container that reached execve; the block must wait for its end. Its directory is removed afterwards."""
        plan = build_plan(config)
        made = streams.pipes(self._null, plan.owner)
        try:
            image = spoil(lower_plan(plan).image)
            self.launcher.start(self._next(), plan, image, made.theirs, in_python=self.in_python)
            made.close_theirs()
            reply = self.reply()
            if reply.error:
                if reply.pid:
                    assert wait(reply.pid) == Exited(FAILED)
                raise spawn.launch_error(plan, reply.call, reply.error)
            yield reply.pid, made
        finally:
            made.close()
            if plan.directory and not plan.keep:
                self.launcher.remove(self._next(), plan.directory)
                assert self.reply().error == 0


def _read(descriptor: int | None) -> str:
    assert descriptor is not None
    os.set_blocking(descriptor, True)
    chunks = []
    while chunk := os.read(descriptor, 65536):
        chunks.append(chunk)
    return b"".join(chunks).decode()


def wait(pid: int) -> Status:
    """Reap it."""
    result = os.waitid(os.P_PID, pid, os.WEXITED)
    assert result is not None
    return from_waitid(result.si_code, result.si_status)


def kill(pid: int) -> None:
    """SIGKILL to a child of ours."""
    os.kill(pid, signal.SIGKILL)


__all__ = ["Driver", "LaunchError", "Result", "kill", "wait"]
