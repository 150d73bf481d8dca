"""One container over all its runs: feeds events to its machine, performs the actions that come back.

One task, one mailbox, one deadline. Everything that can happen to a container (its process was reaped, a check was
tried, a time has come, its dependencies are met, the stack stops) is an event in the mailbox; what to do about it is
the machine's decision alone. What takes its time (a check, the stop command) is a task of its own, at most one at a
time, which ends with the run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import anyio
import anyio.abc
import anyio.lowlevel

from runtime.errors import LaunchError, PysupError
from supervisor.core.checks import Exec, Notice, Probe, Verdict
from supervisor.core.machine import step
from supervisor.core.moves import SIGKILL
from supervisor.core.policy import Dependency
from supervisor.core.states import (
    ALIVE,
    FINAL,
    Action,
    Adapt,
    Ask,
    Check,
    Checked,
    Deferred,
    DependenciesMet,
    Due,
    Ended,
    Event,
    Freeze,
    Frozen,
    Heard,
    Kill,
    Launch,
    Phase,
    Quiesce,
    Quiesced,
    Report,
    Restart,
    Signal,
    Started,
    StartFailed,
    State,
    Stop,
    Thaw,
    Unpause,
)
from supervisor.entry import Entry
from supervisor.stack.runner import Run, Runner

# We were late for a deadline by more than this: stopped, suspended, or starved. What happened meanwhile is heard first.
LATE_S = 0.5
CATCH_UP_S = 0.05

CALLS_OFF = Stop | Kill | Restart  # a start that waits for its turn
RUN_OVER = Ended | StartFailed | Deferred  # there is no run any more, nor a launch under way


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all services of a stack share."""

    runner: Runner
    starts: anyio.Semaphore  # how many may be under way at once
    checks: anyio.Semaphore
    tasks: anyio.abc.TaskGroup
    tell: Callable[[str, Report], None]
    changed: Callable[["Service"], None]  # something about its state that others may care for
    gate: Callable[["Service"], Event | None]  # may it start? None: not yet
    chance: Callable[[], float]  # uniform in [0, 1)
    checked: Callable[[Verdict], None]  # a ready or health check was tried


class Service:
    """A supervised container. `post` events to it; `run` is its task."""

    __slots__ = (
        "_around",
        "_mailbox",
        "_met",
        "_overheard",
        "_queue",
        "_run",
        "_side",
        "_tail",
        "_woken",
        "coming",
        "entry",
        "joining",
        "state",
    )

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.coming: Entry | None = None  # what it is to run as, once the run that there is has ended
        self.state = State(entry.policy)
        self._around: Surroundings
        self._mailbox: list[Event] = []  # a deque takes 700 bytes even if it is empty
        self._woken: anyio.Event | None = None  # made while the task sleeps
        self._queue: anyio.CancelScope | None = None  # while it waits for its turn to start
        self._met: DependenciesMet | None = None  # what the start that is under way was let in by
        self._overheard: list[Event] | None = None  # what a run says before its start is answered
        self._run: Run | None = None
        self._side: _Side | None = None
        self._tail: tuple[str, ...] = ()
        self.joining: tuple[Callable[[Run], None], ...] = ()  # called with the next run before it is read from

    @property
    def current(self) -> Run | None:
        """The run that there is."""
        return self._run

    @property
    def is_final(self) -> bool:
        """Is there nothing more to do unless it is told to?"""
        return self.state.phase in FINAL

    def post(self, event: Event) -> None:
        """Have the machine see an event, in order."""
        self._mailbox.append(event)
        if self._woken is not None:
            self._woken.set()
        if self._queue is not None and isinstance(event, CALLS_OFF):
            self._queue.cancel()

    def signal(self, number: int) -> None:
        """Send a signal to its first process, for nobody's reasons but the operator's."""
        if self._run is not None:
            self._run.signal(number)

    async def seen(self, event: Event) -> None:
        """Post an event, and return once the machine has seen it."""
        mark = _Mark()
        self.post(event)
        self.post(mark)
        await mark.reached.wait()

    def succeed(self, entry: Entry) -> None:
        """The next run is to be this. A run that there is, or a launch under way, ends as what it is."""
        if self.state.phase in ALIVE:
            self.coming = entry
        else:
            self.coming, self.entry = None, entry
            self.post(Adapt(entry.policy))

    def adapt(self, entry: Entry) -> None:
        """It is this from now on: nothing in it asks for another run."""
        if self.coming is not None:
            self.coming = entry
            return
        self.entry = entry
        self.post(Adapt(entry.policy))
        if self._run is not None:
            self._run.apply(entry.config)

    def depend(self, depends_on: Mapping[str, Dependency]) -> None:
        """Its group depends on others now."""
        self.entry = replace(self.entry, depends_on=depends_on)
        if self.coming is not None:
            self.coming = replace(self.coming, depends_on=depends_on)

    def retire(self) -> None:
        """Have `run` return. There must be no run any more."""
        self.post(_RETIRED)

    async def run(self, around: Surroundings) -> None:
        """Live until cancelled, or retired; then nothing of a run is left either, unless the kernel holds it."""
        self._around = around
        try:
            while (event := await self._next()) is not _RETIRED:
                await self._handle(event)
        finally:
            with anyio.CancelScope(shield=True):
                await self._end_side()
                if self._run is not None and (self.state.phase is not Phase.STUCK or _REAPED in self._mailbox):
                    self._run.signal(SIGKILL)
                    await self._run.ended()

    # --- events ------------------------------------------------------------------------------------------------------

    async def _next(self) -> Event:
        while not self._mailbox:
            due_at, self._woken = self.state.due_at, anyio.Event()
            if due_at is None:  # most of the time: no scope, which costs an idle container its memory
                await self._woken.wait()
            elif await self._is_due(due_at, self._woken):
                return Frozen() if self._stands_still() else Due()
            self._woken = None
        event = self._mailbox.pop(0)
        if isinstance(event, _Mark):
            event.reached.set()
            return await self._next()
        return await self._bury() if event is _REAPED else event

    async def _is_due(self, due_at: float, woken: anyio.Event) -> bool:
        """Wait to be woken; has the time come before?"""
        with anyio.CancelScope(deadline=due_at) as patience:
            await woken.wait()
        if not patience.cancelled_caught or self._mailbox:
            return False
        if anyio.current_time() - due_at > LATE_S:
            await anyio.sleep(CATCH_UP_S)
        return not self._mailbox

    def _stands_still(self) -> bool:
        """Has somebody frozen what serves, or is about to? What is to end goes on before."""
        serves = self._run is not None and self.state.phase in {Phase.ACTIVATING, Phase.RUNNING}
        return serves and self._run is not None and self._run.is_frozen()

    async def _bury(self) -> Event:
        """Its process was reaped: see the run through to the last trace of it."""
        assert self._run is not None
        await self._end_side()
        with anyio.CancelScope(shield=True):
            status = await self._run.ended()
        self._tail, oom = self._run.tail(), self._run.oom
        self._run = None
        await anyio.lowlevel.checkpoint_if_cancelled()  # then nobody is to hear of it, nor to start it again
        return Ended(status, oom=oom)

    async def _handle(self, event: Event) -> None:
        if self.coming is not None and isinstance(event, RUN_OVER):
            self._become(self.coming)
        before = self.state
        if isinstance(event, Quiesced) and self._is_quiescing:
            self._side = None
        if isinstance(event, DependenciesMet):
            self._met = event
        self.state, actions = step(before, event, anyio.current_time(), self._around.chance())
        if self._side is not None and self._side.of is not self.state.phase:
            self._side.scope.cancel()
        for report in actions:
            if isinstance(report, Report):
                self._around.tell(self.entry.id, self._completed(report))
        if isinstance(event, Ended):
            self._tail = ()
        # Others know before anything is waited for: none of them may start by what is no more.
        if self.state.phase is not before.phase or self.state.health is not before.health:
            self._around.changed(self)
        for action in actions:
            await self._perform(action)

    def _become(self, entry: Entry) -> None:
        """What follows a run is its successor's business: nothing is held against that."""
        self.coming, self.entry = None, entry
        self.state = replace(self.state, policy=entry.policy, retries=0, recent=(), told=None)

    # --- actions -----------------------------------------------------------------------------------------------------

    async def _perform(self, action: Action) -> None:
        match action:
            case Report():
                pass  # told already
            case Signal(number):
                if self._run is not None:
                    self._run.signal(number)
                    self._run.thaw()
            case Freeze():
                await self._freeze()
            case Thaw():
                if self._run is not None:
                    self._run.thaw()
            case Check(probe, timeout_s):
                await self._begin_side(probe, timeout_s, _checked)
            case Quiesce(argv, timeout_s):
                if self._run is not None:
                    self._run.thaw()
                await self._begin_side(Exec(argv), timeout_s, _quiesced)
            case Ask():
                if (answer := self._around.gate(self)) is not None:
                    self._mailbox.append(answer)
            case Launch():
                await self._launch()

    async def _freeze(self) -> None:
        """No check is under way then: what runs in a frozen container can't be ended."""
        await self._end_side()
        try:
            if self._run is not None:
                self._run.freeze()
        except (OSError, PysupError) as error:
            self._around.tell(self.entry.id, Report("not_paused", {"error": str(error)}))
            self._mailbox.append(Unpause())

    @property
    def _is_quiescing(self) -> bool:
        """Has its stop command been begun, and not been answered yet?"""
        return self._side is not None and self._side.of is Phase.STOPPING

    def _completed(self, report: Report) -> Report:
        """With what only the run knows."""
        if report.kind == "stuck" and self._run is not None:
            return Report(report.kind, {**report.fields, "why": self._run.hang()})
        if report.kind == "killing" and self._is_quiescing:
            return Report(report.kind, {**report.fields, "why": "its stop command has not ended"})
        if report.kind == "gave_up" and self._tail:
            return Report(report.kind, {**report.fields, "last_lines": self._tail})
        return report

    async def _launch(self) -> None:
        self._overheard = []
        # In the order in which things happened: a stop while it started comes before the answer, which comes before
        # what the run has said.
        self._mailbox.append(await self._start())
        self._mailbox += self._overheard
        self._overheard = None
        if self._run is not None:
            self._run.on_exit(self._reaped)
            joining, self.joining = self.joining, ()
            for join in joining:
                join(self._run)

    async def _start(self) -> Event:
        """Wait for a turn, and start. A stop or restart meanwhile calls it off, and so does a change of what is met."""
        with anyio.CancelScope() as self._queue:
            if any(isinstance(event, CALLS_OFF) for event in self._mailbox):
                self._queue.cancel()
            await self._around.starts.acquire()
        called_off, self._queue = self._queue.cancelled_caught, None
        if called_off:
            return Deferred()
        try:
            if self._around.gate(self) != self._met:
                return Deferred()
            self._run = await self._around.runner.start(self.entry.config, self.entry.policy, self._hear)
        except LaunchError as error:
            return StartFailed(error.detail, error.exit_status)
        except PysupError as error:
            return StartFailed(str(error), error.exit_status)
        finally:
            self._around.starts.release()
        return Started(self._run.pid)

    def _hear(self, notice: Notice) -> None:
        if self._overheard is not None:
            self._overheard.append(Heard(notice))
        else:
            self.post(Heard(notice))

    def _reaped(self) -> None:
        self.post(_REAPED)

    # --- what takes its time -----------------------------------------------------------------------------------------

    async def _begin_side(self, probe: Probe, timeout_s: float, answer: Callable[[Verdict], Event]) -> None:
        """Try a probe beside everything else, and post what came of it."""
        await self._end_side()  # one that is not wanted any more may linger
        self._side = _Side(self.state.phase)
        self._around.tasks.start_soon(self._try, self._side, probe, timeout_s, answer)

    async def _end_side(self) -> None:
        if self._side is not None:
            self._side.scope.cancel()
            await self._side.done.wait()
            self._side = None

    async def _try(self, side: "_Side", probe: Probe, timeout_s: float, answer: Callable[[Verdict], Event]) -> None:
        assert self._run is not None
        try:
            with side.scope:
                async with self._around.checks:
                    verdict = await self._look(self._run, probe, timeout_s)
                if answer is _checked and not verdict.passed and self._run is not None and self._run.is_frozen():
                    self.post(Frozen())
                    return
                if answer is _checked:
                    self._around.checked(verdict)
                self.post(answer(verdict))
        finally:
            side.done.set()

    @staticmethod
    async def _look(run: Run, probe: Probe, timeout_s: float) -> Verdict:
        """One try; another if its time ran out while we were not there to see the answer."""
        began = anyio.current_time()
        verdict = await run.check(probe, timeout_s)
        if not verdict.passed and anyio.current_time() - began > timeout_s + LATE_S:
            return await run.check(probe, timeout_s)
        return verdict


class _Side:
    """A try under way. It is meant for one phase: when that is over, so is the try."""

    __slots__ = ("done", "of", "scope")

    def __init__(self, of: Phase) -> None:
        self.of = of
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()


def _checked(verdict: Verdict) -> Event:
    return Checked(verdict.passed, verdict.detail)


def _quiesced(verdict: Verdict) -> Event:
    return Quiesced("" if verdict.passed else verdict.detail or "it failed")


class _Reaped(Due):
    """A word in the mailbox for the service alone: the machine hears of it when all traces are gone."""


_REAPED = _Reaped()


class _Mark(Due):
    """A word for the service alone: all that was posted before it has been seen."""

    def __init__(self) -> None:
        object.__setattr__(self, "reached", anyio.Event())

    reached: anyio.Event


class _Retired(Due):
    """A word for the service alone: nobody needs it any more."""


_RETIRED = _Retired()
