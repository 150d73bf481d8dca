"""A stack without containers, for tests of its control socket: `Commands` on plain data.

What is asked for is done at once and told as the real one tells it. Commands are executed for real, as processes of
the test's own with a directory of their own; a container's root and upper are directories of the test too.
"""

import fcntl
import hashlib
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from runtime.cgroup.limits import Limits
from runtime.config import ContainerConfig
from runtime.errors import ImageError, PysupError
from runtime.users import User
from supervisor.commands import (
    Attached,
    Commands,
    Executed,
    Execution,
    Figures,
    Files,
    Happening,
    LogLine,
    Page,
    Reloaded,
    View,
)
from supervisor.core.policy import Policy, Restarts
from supervisor.core.states import LIVE, Phase
from supervisor.errors import CommandError, ConflictError, NoSuchContainerError
from supervisor.kernel.uppers import Running
from supervisor.network.ends import Laid
from supervisor.streams.lines import Stream

ROOT = User(0, 0, (0,), "root", "/root")


def view(name: str, **changes: object) -> View:
    """A container that runs."""
    config = ContainerConfig(
        id=name,
        lowers=("/images/base",),
        directory=f"/run/{name}",
        argv=("sleep", "1000"),
        env=(("A", "1"),),
        user=ROOT,
        hostname=name,
    )
    usual = View(
        id=name,
        key=hashlib.sha256(name.encode()).hexdigest(),
        group=name.partition(".")[0],
        image="base",
        config=config,
        policy=Policy(),
        phase=Phase.RUNNING,
        paused=False,
        wanted_up=True,
        health=None,
        failing=0,
        finding="",
        said=None,
        pid=4242,
        exit_status=None,
        oom=False,
        failure=None,
        restarts=0,
        created_at=time.time() - 100,
        started_at=time.time() - 90,
        finished_at=None,
        managed=True,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # View's fields


@dataclass
class Process:
    """See `Executed`: a process of the test's own."""

    popen: subprocess.Popen[bytes]
    pid: int
    stdin: int | None
    stdout: int
    stderr: int | None
    closed: bool = False
    owned: set[int] = field(default_factory=set)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.stdout, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def ended(self) -> int:
        if self.popen.poll() is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                await anyio.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        code = self.popen.wait()
        return 128 - code if code < 0 else code

    async def aclose(self) -> None:
        self.closed = True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        for descriptor in {self.stdin, self.stdout, self.stderr} - {None}:
            assert descriptor is not None
            os.close(descriptor)


def spawn(execution: Execution, directory: Path, *, stdin: bool) -> Process:
    env = {"PATH": os.environ["PATH"], **dict(execution.env)}
    if execution.terminal:
        master, slave = pty.openpty()
        popen = subprocess.Popen(
            execution.argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (a controlling terminal)
        )
        os.close(slave)
        os.set_blocking(master, False)
        return Process(popen, popen.pid, master, master, None)
    theirs, ours = os.pipe()
    out, their_out = os.pipe()
    error, their_error = os.pipe()
    popen = subprocess.Popen(
        execution.argv,
        stdin=theirs if stdin else subprocess.DEVNULL,
        stdout=their_out,
        stderr=their_error,
        cwd=directory,
        env=env,
        start_new_session=True,
    )
    for descriptor in (theirs, their_out, their_error):
        os.close(descriptor)
    if not stdin:
        os.close(ours)
    for descriptor in (ours, out, error) if stdin else (out, error):
        os.set_blocking(descriptor, False)
    return Process(popen, popen.pid, ours if stdin else None, out, error)


class Echo:
    """See `Attached`: a container that repeats what it hears, and ends with its input."""

    def __init__(self) -> None:
        self.said: list[tuple[Stream, bytes]] = []
        self.heard = b""
        self.changed = anyio.Event()
        self.over = False

    def say(self, stream: Stream, data: bytes) -> None:
        self.said.append((stream, data))
        self.tell()

    def tell(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    async def receive(self) -> tuple[Stream, bytes] | None:
        while not self.said:
            if self.over:
                return None
            await self.changed.wait()
        return self.said.pop(0)

    async def send(self, data: bytes) -> None:
        self.heard += data
        self.say(Stream.STDOUT, data)

    async def send_eof(self) -> None:
        self.over = True
        self.tell()


class FakeCommands:
    """See `Commands`. Everything that was asked is in `asked`."""

    def __init__(self, name: str, views: Sequence[View], directory: Path) -> None:
        self.name = name
        self.known = {each.id: each for each in views}
        self.directory = directory  # of what containers can see
        self.asked: list[tuple[object, ...]] = []
        self.lines: dict[str, list[LogLine]] = {}
        self.echoes: dict[str, Echo] = {}
        self.executed: list[Process] = []
        self.down = False
        self.over = False
        self.images = {"base"}
        self.fault: Exception | None = None  # what `views` raises: a bug of ours
        self.refusal: PysupError | None = None  # of a reload
        self._changed = anyio.Event()
        self._told: list[Happening] = []

    def tell(self, event: str, container: str | None, **fields: object) -> None:
        self._told.append(Happening(time.time(), event, container, fields))
        self.change()

    def close(self) -> None:
        """Nothing more will happen."""
        self.over = True
        for echo in self.echoes.values():
            echo.over = True
            echo.tell()
        self.change()

    def change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def put(self, id_: str, **changes: object) -> None:
        self.known[id_] = replace(self.known[id_], **changes)  # type: ignore[arg-type]  # View's fields
        self.change()

    def write(self, id_: str, stream: Stream, text: bytes, *, at_ns: int | None = None, partial: bool = False) -> None:
        line = LogLine(time.time_ns() if at_ns is None else at_ns, stream, text, partial)
        self.lines.setdefault(id_, []).append(line)
        self.change()

    def views(self) -> Sequence[View]:
        if self.fault is not None:
            raise self.fault
        return list(self.known.values())

    def find(self, reference: str) -> View:
        if reference in self.known:
            return self.known[reference]
        found = [
            each for each in self.known.values() if each.id.startswith(reference) or each.key.startswith(reference)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise NoSuchContainerError(f"{reference} is ambiguous")
        raise NoSuchContainerError(f"no such container: {reference}")

    async def start(self, id_: str) -> None:
        self.asked.append(("start", id_))
        now = time.time()
        self.put(id_, phase=Phase.RUNNING, wanted_up=True, pid=4242, started_at=now, finished_at=None, exit_status=None)
        self.tell("started", id_, pid=4242)

    def end(self, id_: str, status: int, *, oom: bool = False) -> None:
        """Its run ends."""
        self.put(id_, phase=Phase.EXITED, pid=None, exit_status=status, finished_at=time.time(), oom=oom, paused=False)
        self.tell("exited", id_, exit_status=status, ran_s=1.5, **({"oom": True} if oom else {}))
        if id_ in self.echoes:
            self.echoes[id_].over = True
            self.echoes[id_].tell()
        if self.known[id_].auto_remove:
            del self.known[id_]
            self.tell("removed", id_)

    async def stop(self, id_: str, grace_s: float | None = None) -> None:
        self.asked.append(("stop", id_, grace_s))
        self.put(id_, wanted_up=False)
        if self.known[id_].phase in LIVE:
            self.tell("stopping", id_, signal=15)
            self.end(id_, 143)
        if id_ in self.known:
            self.tell("stopped", id_)

    async def restart(self, id_: str, grace_s: float | None = None) -> None:
        self.asked.append(("restart", id_, grace_s))
        self.put(id_, restarts=self.known[id_].restarts + 1)
        await self.start(id_)

    def kill(self, id_: str, number: int) -> None:
        self.asked.append(("kill", id_, number))
        self.tell("signalled", id_, signal=number)
        if number == signal.SIGKILL:
            self.end(id_, 137)

    async def pause(self, id_: str) -> None:
        self.put(id_, paused=True)
        self.tell("paused", id_)

    async def unpause(self, id_: str) -> None:
        self.put(id_, paused=False)
        self.tell("unpaused", id_)

    async def wait(self, id_: str, condition: str = "not-running") -> int:
        self.asked.append(("wait", id_, condition))
        first = self.known[id_]
        while True:
            now = self.known.get(id_)
            if now is None:
                return self.last_status(id_)
            ended = (
                now.phase not in LIVE
                if condition == "not-running"
                else now.finished_at not in {None, first.finished_at}
            )
            if ended and condition != "removed":
                return now.exit_status or 0
            if self.over:
                raise ConflictError(f"the stack {self.name} has ended")
            await self._changed.wait()

    def last_status(self, id_: str) -> int:
        ends = [each for each in self._told if each.container == id_ and each.event == "exited"]
        status = ends[-1].fields["exit_status"] if ends else 0
        assert isinstance(status, int)
        return status

    async def create(
        self,
        id_: str,
        image: str,
        config: Mapping[str, object],
        labels: Mapping[str, str],
        *,
        auto_remove: bool,
        tty: bool,
        stdin: bool,
    ) -> View:
        self.asked.append(("create", id_, image, config, labels, auto_remove, tty, stdin))
        if id_ in self.known:
            raise ConflictError(f'Conflict. The container name "/{id_}" is already in use')
        if image.removesuffix(":latest") not in self.images:
            raise ImageError(f"image {image} is not in /images")
        made = view(id_, phase=Phase.CREATED, wanted_up=False, started_at=None, pid=None, managed=False, tty=tty)
        made = replace(made, auto_remove=auto_remove, open_stdin=stdin, labels=labels, created_at=time.time())
        self.known[id_] = made
        self.tell("created", id_)
        return made

    async def remove(self, id_: str, *, force: bool = False, volumes: bool = False) -> None:
        self.asked.append(("remove", id_, force, volumes))
        if self.known[id_].managed:
            raise ConflictError(f"{id_} is in the stack's file: remove it there")
        if self.known[id_].phase in LIVE:
            self.end(id_, 137)
        self.known.pop(id_, None)
        self.tell("removed", id_)

    async def rename(self, id_: str, to: str) -> None:
        if to in self.known:
            raise ConflictError(f"{to} is there already")
        self.known[to] = replace(self.known.pop(id_), id=to)
        self.tell("renamed", to, **{"from": id_})

    async def update(self, id_: str, limits: Limits | None, restarts: Restarts | None) -> None:
        self.asked.append(("update", id_, limits, restarts))
        self.tell("updated", id_)

    async def happenings(self) -> AsyncIterator[Happening]:
        place = len(self._told)
        while place < len(self._told) or not self.over:
            while place < len(self._told):
                place += 1
                yield self._told[place - 1]
            if not self.over:
                await self._changed.wait()

    def reading(self, id_: str) -> AbstractContextManager[None]:
        self.asked.append(("reading", id_))
        return nullcontext()

    async def logs(
        self,
        id_: str,
        *,
        follow: bool = False,
        since: float | None = None,
        until: float | None = None,
        last: int | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        self.asked.append(("logs", id_, follow, since, until, last))
        lines = self.lines.setdefault(id_, [])
        place = 0 if last is None else max(0, len(lines) - last)
        while True:
            while place < len(lines):
                place += 1
                at = lines[place - 1].at_ns / 1e9
                if (since is None or at >= since) and (until is None or at < until):
                    yield lines[place - 1]
            if not follow or self.known[id_].phase not in LIVE:
                return
            await self._changed.wait()

    @asynccontextmanager
    async def attach(self, id_: str, *, stdin: bool) -> AsyncIterator[Attached]:
        self.asked.append(("attach", id_, stdin))
        echo = self.echoes.setdefault(id_, Echo())
        yield echo
        self.asked.append(("detached", id_))

    def resize(self, id_: str, rows: int, columns: int) -> None:
        self.asked.append(("resize", id_, rows, columns))

    async def execute(self, id_: str, execution: Execution, *, stdin: bool) -> Executed:
        self.asked.append(("execute", id_, execution, stdin))
        try:
            process = spawn(execution, self.directory, stdin=stdin)
        except OSError as error:
            raise CommandError(f"{id_}: {execution.argv[0]}: {error.strerror}") from error
        self.executed.append(process)
        return process

    async def figures(self, id_: str) -> Figures:
        self.asked.append(("figures", id_))
        return Figures(memory_bytes=10 << 20, memory_max_bytes=64 << 20, cpu_ns=time.monotonic_ns() // 10, pids=3)

    async def processes(self, id_: str) -> Sequence[tuple[int, Mapping[str, str]]]:
        self.asked.append(("processes", id_))
        shown = {
            "pid": "4242",
            "user": "root",
            "ppid": "1",
            "started": "10:00",
            "time": "00:00:01",
            "cmd": "sleep 1000",
        }
        return [(4242, {**shown, "comm": "sleep"})]

    @asynccontextmanager
    async def files(
        self, id_: str, *, write: bool = False, volumes: bool = True, or_image: bool = False
    ) -> AsyncIterator[Files]:
        self.asked.append(("files", id_, write, volumes, or_image))
        if self.known[id_].phase not in LIVE:
            raise ConflictError(f"{id_} is not running: it has no files now")
        root = os.open(self.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Running(root, self.known[id_].ids)
        finally:
            os.close(root)

    def upper(self, id_: str) -> int | None:
        place = self.directory.parent / "uppers" / id_
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if place.is_dir() else None

    def networks(self) -> Sequence[Laid]:
        return (Laid("back", "pysup-b", ("10.1.0.0/24", "fd00::/64"), ("10.1.0.1/24", "fd00::1/64"), True, True),)

    def volumes(self) -> Path:
        return self.directory.parent / "volumes"

    async def scrape(self) -> Page:
        return Page("text/plain; version=0.0.4", b"up 1\n")

    async def reload(self, *, dry: bool = False) -> Reloaded:
        if self.refusal is not None:
            raise self.refusal
        self.asked.append(("reload", dry))
        return Reloaded("+ new: new\n1 new\n", changed=True, changes={"added": ["new"]})

    async def scale(self, numbers: Mapping[str, int]) -> Reloaded:
        self.asked.append(("scale", dict(numbers)))
        return Reloaded("2 unchanged\n", changed=False, changes={}, failure="web.3 did not come up: it has ended")

    async def stop_all(self) -> None:
        self.down = True


if TYPE_CHECKING:
    _IT_IS_A_STACK: type[Commands] = FakeCommands
