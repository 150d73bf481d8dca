"""A command that an operator runs in a container: its streams are his, and it ends when it likes, or when he goes."""

import os
import signal
import struct
import termios
from contextlib import suppress
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

from runtime import security, users
from runtime.config import ContainerConfig
from runtime.streams import Streams
from supervisor.commands import Execution
from supervisor.processes.reaper import Exit
from supervisor.processes.uproot import uproot


def config_for(config: ContainerConfig, execution: Execution) -> ContainerConfig:
    """The container's own configuration, with what the operator wants otherwise. UserError for an unknown user."""
    changes: dict[str, object] = {
        "env": tuple((dict(config.env) | dict(execution.env)).items()),
        "workdir": execution.workdir or config.workdir,
        "terminal": execution.terminal,
    }
    if execution.user is not None:
        changes = {**changes, "user": users.lookup(Path(config.lowers[0]), execution.user)}
    if execution.privileged:
        changes = {**changes, "capabilities": security.capability_mask((), (), privileged=True), "privileged": True}
    return replace(config, **changes)  # type: ignore[arg-type]  # its own fields


class Command:
    """See `Executed`. With a terminal, standard input and output are its master."""

    def __init__(self, pid: int, ended: Exit, streams: Streams, init: int) -> None:
        self.pid = pid
        self._ended = ended
        self._init = init
        self._terminal = streams.terminal
        out = streams.stdout if streams.terminal is None else streams.terminal
        assert out is not None
        self.stdin = streams.stdin if streams.terminal is None else streams.terminal
        self.stdout = out
        self.stderr = streams.stderr

    def signal(self, number: int) -> None:
        """To the command itself. No error if it has ended."""
        if self._ended.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)  # our own child, not reaped: its pid can't be another's

    def resize(self, rows: int, columns: int) -> None:
        """Of its terminal; who has none has no size."""
        if self._terminal is not None:
            set_size(self._terminal, rows, columns)

    async def ended(self) -> int:
        """Its exit status, once it was reaped."""
        return (await self._ended.wait()).exit_status

    async def aclose(self) -> None:
        """Kill it if it still runs, and close its streams."""
        try:
            if self._ended.status is None:
                self.signal(signal.SIGHUP)
                await uproot(self.pid, self._ended, self._init)
        finally:
            for descriptor in {self.stdin, self.stdout, self.stderr}:
                if descriptor is not None:
                    os.close(descriptor)
            self.stdin = self.stderr = None


def set_size(master: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ(2const): the kernel tells the job in the foreground."""
    with suppress(OSError):
        ioctl(master, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))
