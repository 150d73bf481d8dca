"""The memory of what happened: a bounded ring of events, which any number of callers read, each at his own pace.

One task takes them from the stack. A reader holds nothing but the number of the event that is next for him, so a
thousand slow ones cost no more than one; whom the ring has overtaken is told how much he lost.
"""

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

import anyio

from supervisor.api import limits
from supervisor.commands import Commands, Happening, View
from supervisor.errors import NoSuchContainerError


@dataclass(frozen=True, slots=True)
class Subject:
    """What was known of an event's container."""

    key: str
    image: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event, and its container as it was then."""

    happening: Happening
    subject: Subject | None


class Ring:
    """The last events."""

    def __init__(self, commands: Commands, labels: Callable[[str, View], Mapping[str, str]]) -> None:
        self._commands = commands
        self._labels = labels
        self._entries: deque[Entry] = deque(maxlen=limits.HAPPENINGS_KEPT)
        self._count = 0  # of all there ever were
        self._over = False  # nothing more will happen
        self._woken = anyio.Event()
        self._subjects: dict[str, Subject] = {}  # of containers that were removed it is the last that is known

    async def run(self) -> None:
        """Take events from the stack, to its end or until cancelled."""
        async for happening in self._commands.happenings():
            self.put(happening)
        self._over = True
        self._wake()

    def put(self, happening: Happening) -> None:
        """One more."""
        self._entries.append(Entry(happening, self._subject(happening)))
        self._count += 1
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = anyio.Event()

    def _subject(self, happening: Happening) -> Subject | None:
        name = happening.container
        if name is None:
            if happening.event == "lost":  # perhaps the end of somebody
                self._forget()
            return None
        try:
            view = self._commands.find(name)
        except NoSuchContainerError:
            return self._gone(name, happening)
        if view.id != name:  # it is gone, and another's name begins alike
            return self._gone(name, happening)
        self._subjects[name] = found = Subject(view.key, view.image, self._labels(self._commands.name, view))
        return found

    def _gone(self, name: str, happening: Happening) -> Subject | None:
        """It was removed before all that happened to it was heard of: that it was removed is the last of it."""
        return self._subjects.pop(name, None) if happening.event == "removed" else self._subjects.get(name)

    def _forget(self) -> None:
        known = {view.id for view in self._commands.views()}
        self._subjects = {name: subject for name, subject in self._subjects.items() if name in known}

    def place(self, *, past: bool) -> int:
        """Where to begin to read: with all that are still known, or with what comes from now on."""
        return self._count - (len(self._entries) if past else 0)

    async def read(self, following: int, *, follow: bool) -> AsyncGenerator[Entry, None]:
        """From a `place` on, to the last that there is, or will ever be. An event `lost` counts what is missing."""
        end = None if follow else self._count
        while end is None or following < end:
            oldest = self._count - len(self._entries)
            if following < oldest:
                at = self._entries[0].happening.at
                yield Entry(Happening(at, "lost", None, {"count": oldest - following}), None)
                following = oldest
            elif following < self._count:
                following += 1
                yield self._entries[following - 1 - oldest]
            elif self._over:
                return
            else:
                await self._woken.wait()
