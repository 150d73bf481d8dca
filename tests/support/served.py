"""A served control socket, as tests hold it: the loop's thread, the stack that is not there, and ways to ask."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal
from fake_commands import FakeCommands, view

from supervisor.client import Client
from supervisor.core.states import Phase


@dataclass
class Stage:
    """A served stack. What touches `commands` from a test goes through `do`, into its loop."""

    portal: BlockingPortal
    commands: FakeCommands
    socket: Path
    root: Path  # of all containers
    images: Path
    leave: anyio.Event
    complaints: list[str] = field(default_factory=list)

    def do(self, call: Any, *arguments: Any, **named: Any) -> Any:
        def work() -> Any:
            return call(*arguments, **named)

        return self.portal.call(work)

    def end(self) -> None:
        """The stack has ended."""

        def work() -> None:
            self.commands.close()
            self.leave.set()

        self.portal.call(work)

    @property
    def client(self) -> Client:
        return Client(str(self.socket))


def populated(place: Path) -> FakeCommands:
    """web.1 and web.2 run, db is healthy, job has ended, and late has not begun."""
    (place / "root").mkdir()
    (place / "images/base/bin").mkdir(parents=True)
    (place / "images/base/bin/sh").write_bytes(b"#" * 1000)
    base = str(place / "images/base")
    views = [
        view("web.1"),
        view("web.2"),
        view("job", phase=Phase.EXITED, exit_status=3, finished_at=1_700_000_000.0, pid=None, wanted_up=False),
        view("late", phase=Phase.WAITING, started_at=None, pid=None),
        view("term", tty=True, open_stdin=True),
    ]
    for each in views:
        object.__setattr__(each.config, "lowers", (base,))
    return FakeCommands("demo", views, place / "root")
