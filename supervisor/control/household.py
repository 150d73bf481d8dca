"""What a reload changes beside the stack: who is known by which name, whose lines go where and look how.

Containers come, leave and change their names; what is kept of each of them goes with it.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from runtime.config import ContainerConfig
from supervisor.control.board import Board
from supervisor.control.chronicle import Chronicle
from supervisor.entry import Entry, StackNetwork, other_name
from supervisor.errors import StackError
from supervisor.logs.policy import LogLimit
from supervisor.logs.writer import LogWriter
from supervisor.stack.tree import Stack
from supervisor.streams.lines import Layout


class Launching(Protocol):
    """What has to know of containers that come and go."""

    async def attach(self, path: str) -> None:
        """Show a directory to the launchers."""
        ...

    def change_networks(self, networks: Iterable[StackNetwork], configs: Iterable[ContainerConfig]) -> None:
        """The stack has other networks from now on."""
        ...

    async def tidy_networks(self) -> None:
        """Who does not run leaves where it was."""
        ...

    def rename(self, container: str, config: ContainerConfig) -> None:
        """A container is called otherwise from now on."""
        ...

    async def hand_over(self, container: str, place: str) -> None:
        """The second run of a container is what others know by its name."""
        ...

    def leave(self, container: str) -> None:
        """A container has left the stack for good."""
        ...


class Household:
    """See `House`."""

    def __init__(
        self, stack: Stack, board: Board, chronicle: Chronicle, logs: LogWriter, layout: Layout, runner: Launching
    ) -> None:
        self._stack = stack
        self._board = board
        self._chronicle = chronicle
        self._logs = logs
        self._layout = layout
        self._runner = runner

    def unmanaged(self) -> frozenset[str]:
        """See `House.unmanaged`."""
        records = self._chronicle.records.items()
        return frozenset(name for id_, record in records if not record.managed for name in (id_, record.name))

    def amended(self, entry: Entry) -> Entry:
        """See `House.amended`."""
        record = self._chronicle.records.get(entry.id) or self._chronicle.records.get(other_name(entry))
        return entry if record is None or record.amendment is None else record.amendment.applied(entry)

    def enrol(self, entry: Entry, *, beside: bool) -> None:
        """See `House.enrol`. What a second run writes is the container's."""
        self._chronicle.record(entry.id, self._board.name)
        if not beside:
            self.change(entry)
        self._chronicle("created", entry.id, {"image": entry.image})

    def strike(self, name: str) -> None:
        """See `House.strike`."""
        self._runner.leave(name)
        self._logs.remove(name)
        self._chronicle("removed", name, {})
        del self._chronicle.records[name]
        self._board.wake()

    def rename(self, name: str, entry: Entry) -> None:
        """See `House.rename`."""
        service = self._stack.service(name)
        if service.entry.config.keep:
            _change_places(Path(service.entry.config.directory), Path(entry.config.directory))
        self._logs.rename(name, entry.id)
        self._runner.rename(name, entry.config)
        self.change(entry)
        if service.current is not None:
            service.current.rename(entry.id)
        self._chronicle.move(name, entry.id)
        self._hold(entry)

    def exchange(self, name: str, other: str) -> None:
        """See `House.exchange`."""
        self._chronicle.exchange(name, other)

    async def hand_over(self, name: str, other: str) -> None:
        """See `House.hand_over`."""
        await self._runner.hand_over(name, other)

    def change(self, entry: Entry) -> None:
        """See `House.change`."""
        self._logs.open(entry.id, entry.logs)
        self._layout.admit(entry.id, entry.output)
        self._hold(entry)

    def _hold(self, entry: Entry) -> None:
        """What was changed of it is over where the file has had the last word."""
        record = self._chronicle.records.get(entry.id)
        if record is not None and record.amendment is not None:
            record.amendment = record.amendment.left_by(entry)

    def change_networks(self, networks: Sequence[StackNetwork], entries: Iterable[Entry]) -> None:
        """See `House.change_networks`."""
        self._runner.change_networks(networks, [entry.config for entry in entries])

    async def tidy_networks(self) -> None:
        """See `House.tidy_networks`."""
        await self._runner.tidy_networks()

    def limit_logs(self, limit: LogLimit) -> None:
        """See `House.limit_logs`."""
        self._logs.limit(limit.max_total_bytes)

    async def show(self, entry: Entry) -> None:
        """See `House.show`."""
        for lower in entry.config.lowers:
            await self._runner.attach(lower)


def _change_places(kept: Path, to: Path) -> None:
    """What is kept under a name is under another from now on, and what an earlier container of that name has kept is
    where it was. A run that is there holds the directories themselves, not their names. StackError.
    """
    aside = to.with_name(f"{to.name}~")  # no container's
    try:
        if not kept.exists():
            return
        with suppress(FileNotFoundError):
            to.rename(aside)
        kept.rename(to)
        with suppress(FileNotFoundError):
            aside.rename(kept)
    except OSError as error:
        raise StackError(f"can't rename {kept} to {to}: {error.strerror}") from error
