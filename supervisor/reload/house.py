"""Who else keeps account of a stack's containers, as a reload speaks to them: networks, logs, the desk."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from supervisor.entry import Entry, StackNetwork
from supervisor.logs.policy import LogLimit


class House(Protocol):
    """What else keeps account of a stack's containers."""

    def unmanaged(self) -> frozenset[str]:
        """Those that no spec knows."""
        ...

    def amended(self, entry: Entry) -> Entry:
        """What the file says of a container, but for what an operator has changed of it."""
        ...

    def enrol(self, entry: Entry, *, beside: bool) -> None:
        """A container is about to join the stack; `beside`: for a while, as a second run of another."""
        ...

    def strike(self, name: str) -> None:
        """It has left."""
        ...

    def rename(self, name: str, entry: Entry) -> None:
        """It has another name."""
        ...

    def exchange(self, name: str, other: str) -> None:
        """The two have exchanged their names."""
        ...

    async def hand_over(self, name: str, other: str) -> None:
        """The name and the ports of the first are those of the second run, which was called `other` until now."""
        ...

    def change(self, entry: Entry) -> None:
        """It looks different from now on."""
        ...

    def change_networks(self, networks: Sequence[StackNetwork], entries: Iterable[Entry]) -> None:
        """The stack is about to have other networks, and to be these."""
        ...

    async def tidy_networks(self) -> None:
        """It is: who does not run leaves the network where it was."""
        ...

    def limit_logs(self, limit: LogLimit) -> None:
        """Of all of them together."""
        ...

    async def show(self, entry: Entry) -> None:
        """Let it be started: its image is known to the launchers. OSError."""
        ...
