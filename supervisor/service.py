"""One container over all its runs: feeds events to its machine, performs the actions that come back.

One task, one mailbox, one deadline. Everything that can happen to a container (its process was reaped, a timer is due,
its dependencies are met, the stack stops) is an event in the mailbox; what to do about it is the machine's decision
alone.
"""

import math
from collections.abc import Callable

import anyio

from runtime.errors import LaunchError, PysupError
from supervisor.entry import Entry
from supervisor.machine import (
    FINAL,
    SIGKILL,
    Action,
    Due,
    Ended,
    Event,
    Kill,
    Launch,
    Report,
    Signal,
    Started,
    StartFailed,
    State,
    Stop,
    step,
)
from supervisor.runner import Run, Runner

Chance = Callable[[], float]  # uniform in [0, 1)

Changed = Callable[["Service"], None]
Tell = Callable[[str, Report], None]


class Service:
    """A supervised container. `post` events to it; `run` is its task."""

    __slots__ = (
        "_chance",
        "_changed",
        "_limiter",
        "_mailbox",
        "_queue",
        "_run",
        "_runner",
        "_tell",
        "_woken",
        "entry",
        "state",
    )

    def __init__(
        self, entry: Entry, runner: Runner, limiter: anyio.Semaphore, *, tell: Tell, changed: Changed, chance: Chance
    ) -> None:
        self.entry = entry
        self.state = State(entry.policy)
        self._runner = runner
        self._limiter = limiter
        self._tell = tell
        self._changed = changed
        self._chance = chance
        self._mailbox: list[Event] = []  # a deque takes 700 bytes even if it is empty
        self._woken: anyio.Event | None = None  # made while the task sleeps
        self._queue: anyio.CancelScope | None = None  # while it waits for its turn to start
        self._run: Run | None = None

    @property
    def is_final(self) -> bool:
        """Is there nothing more to do unless it is told to?"""
        return self.state.phase in FINAL

    def post(self, event: Event) -> None:
        """Have the machine see an event, in order."""
        self._mailbox.append(event)
        if self._woken is not None:
            self._woken.set()
        if self._queue is not None and isinstance(event, Stop | Kill):
            self._queue.cancel()

    async def run(self) -> None:
        """Live until cancelled; then nothing of a run is left either."""
        try:
            while True:
                await self._handle(await self._next())
        finally:
            if self._run is not None:
                self._run.signal(SIGKILL)
                with anyio.CancelScope(shield=True):
                    await self._run.ended()

    async def _next(self) -> Event:
        while not self._mailbox:
            self._woken = anyio.Event()
            deadline = math.inf if self.state.deadline is None else self.state.deadline
            with anyio.CancelScope(deadline=deadline) as patience:
                await self._woken.wait()
            self._woken = None
            if patience.cancelled_caught and not self._mailbox:
                return Due()
        event = self._mailbox.pop(0)
        return await self._bury() if event is _REAPED else event

    async def _bury(self) -> Event:
        """Its process was reaped: see the run through to the last trace of it."""
        assert self._run is not None
        status = await self._run.ended()
        self._run = None
        return Ended(status)

    async def _handle(self, event: Event) -> None:
        before = self.state.phase
        self.state, actions = step(self.state, event, anyio.current_time(), self._chance())
        for action in actions:
            await self._perform(action)
        if self.state.phase is not before:
            self._changed(self)

    async def _perform(self, action: Action) -> None:
        match action:
            case Report():
                self._tell(self.entry.id, action)
            case Signal(number):
                if self._run is not None:
                    self._run.signal(number)
            case Launch():
                # In the order in which things happened: a stop while it started comes before the answer.
                self._mailbox.append(await self._launch())
                if self._run is not None:
                    self._run.on_exit(self._reaped)

    async def _launch(self) -> Event:
        """Wait for a turn, and start. A stop while it waits calls it off."""
        with anyio.CancelScope() as self._queue:
            if any(isinstance(event, Stop | Kill) for event in self._mailbox):
                self._queue.cancel()
            await self._limiter.acquire()
        called_off, self._queue = self._queue.cancelled_caught, None
        if called_off:
            return StartFailed("called off")
        try:
            self._run = await self._runner.start(self.entry.config)
        except LaunchError as error:
            return StartFailed(error.detail, error.exit_status)
        except PysupError as error:
            return StartFailed(str(error), error.exit_status)
        finally:
            self._limiter.release()
        return Started(self._run.pid)

    def _reaped(self) -> None:
        self.post(_REAPED)


class _Reaped(Due):
    """A word in the mailbox for the service alone: the machine hears of it when all traces are gone."""


_REAPED = _Reaped()
