"""A runner without a kernel: each container plays a script. It holds its caller to the contract of `Runner`.

It asserts what must hold in every test: no container ever has two live runs, a run's end is awaited by one task and
taken once, and nothing is signalled that was never started. All calls are recorded, with their times.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import TracebackType
from typing import Literal, NamedTuple, Self

import anyio
import anyio.abc

from runtime.config import ContainerConfig
from runtime.errors import LaunchError
from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import HEARD, Exec, Notice, Probe, Verdict
from supervisor.core.moves import STUCK_S
from supervisor.core.policy import Policy
from supervisor.stack.runner import Heard

SIGKILL = 9
NEVER = math.inf
PASSED = Verdict(passed=True)


@dataclass(frozen=True)
class Script:
    """What becomes of one run."""

    start_s: float = 0.0  # from the call to execve
    error: Exception | None = None  # no execve, but this
    runs_s: float = NEVER  # until it ends by itself
    status: Status = field(default_factory=partial(Exited, 0))  # then
    stops_s: float | None = 0.0  # from any signal but SIGKILL to its end; None: it ignores them
    stopped: Status | None = None  # then; None: killed by that signal
    dies_s: float = 0.0  # from SIGKILL to its end
    buried_s: float = 0.0  # from its end to the last trace gone
    early: bool = False  # it has ended before `start` returns
    serves_s: float = 0.0  # from execve until checks of it pass, or it says that it is ready
    sick_s: float = NEVER  # from execve until checks of it fail, and it is silent
    well_s: float = NEVER  # from execve until they pass again
    alive_s: float = 0.0  # how often it says that it is alive; 0: never
    says: tuple[tuple[float, Notice], ...] = ()  # from execve; at 0: before `start` returns
    check_s: float = 0.0  # how long a check takes
    command: Verdict = PASSED  # what comes of a command run inside that is not its check
    command_s: float = 0.0
    tail: tuple[str, ...] = ()


FOREVER = Script()
STUBBORN = Script(stops_s=None)
DONE = Script(runs_s=0)
CRASH = Script(runs_s=0, status=Exited(1))


def broken(why: str = "mount overlay: no such device") -> Script:
    """A container that can't be started."""
    return Script(error=LaunchError(why))


What = Literal[
    "start",
    "started",
    "refused",
    "signal",
    "frozen",
    "thawed",
    "check",
    "checked",
    "command",
    "commanded",
    "alive",
    "applied",
    "ended",
    "buried",
]
CALLS_MAX = 500_000  # then it goes round and round


class Call(NamedTuple):
    """Something that was asked of the runner, or happened there."""

    at_s: float
    container: str
    what: What
    number: int = 0  # of a signal; 1 of a check that has passed, and of a container that says that it is well


class FakeRunner:
    """Plays scripts. A container's runs take its scripts in order, and the last one from then on."""

    def __init__(self, scripts: Mapping[str, Script | Sequence[Script]] | None = None) -> None:
        self._scripts = {} if scripts is None else scripts
        self._starts: dict[str, int] = {}
        self._pids = count(1000)
        self._tasks: anyio.abc.TaskGroup
        self._began_s = 0.0
        self.calls: list[Call] = []
        self.history: list[object] = []  # these calls, and whatever else others put in between
        self.starting: set[str] = set()
        self.starting_max = 0
        self.live: dict[str, FakeRun] = {}
        self.checking: set[str] = set()
        self.checking_max = 0

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._began_s = anyio.current_time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(kind, error, trace)
        assert not self.starting, f"starts left behind: {sorted(self.starting)}"
        left = sorted(name for name, run in self.live.items() if not run.is_stuck)
        assert not left, f"runs left behind: {left}"
        assert not self.checking, f"checks left behind: {sorted(self.checking)}"

    @property
    def now_s(self) -> float:
        """Since the beginning."""
        return anyio.current_time() - self._began_s

    def let_go(self) -> None:
        """End all runs, even those that nothing ends: so that a stack that hangs can be torn down."""
        for run in self.live.values():
            run.end()

    def note(self, container: str, what: What, number: int = 0) -> None:
        self.calls.append(call := Call(self.now_s, container, what, number))
        self.history.append(call)
        assert len(self.calls) <= CALLS_MAX, "this never ends"

    async def start(self, config: ContainerConfig, policy: Policy, heard: Heard) -> "FakeRun":
        """See `Runner.start`. Not to be cancelled, like the real one: a clone can't be called back."""
        name = config.place  # its id, but where two runs of one container take turns
        assert name not in self.live, f"{name} has a live run"
        assert name not in self.starting, f"{name} is being started"
        script = self._script(name)
        self.note(name, "start")
        self.starting.add(name)
        self.starting_max = max(self.starting_max, len(self.starting))
        with anyio.CancelScope(shield=True):
            await anyio.sleep(script.start_s)
        self.starting.discard(name)
        if script.error is not None:
            self.note(name, "refused")
            raise script.error
        return self._started(name, script, policy, heard)

    def _script(self, container: str) -> Script:
        container = container.partition("+")[0]
        nth = self._starts.get(container, 0)
        self._starts[container] = nth + 1
        scripts = self._scripts.get(container, self._scripts.get(container.partition(".")[0], FOREVER))
        return scripts if isinstance(scripts, Script) else scripts[min(nth, len(scripts) - 1)]

    def _started(self, container: str, script: Script, policy: Policy, heard: Heard) -> "FakeRun":
        self.live[container] = run = FakeRun(self, container, next(self._pids), script, policy)
        self.note(container, "started")
        if script.early:
            run.end()
        else:
            self._tasks.start_soon(run.live)
            run.speak(heard, self._tasks)
        return run


class FakeRun:
    """One run of a script."""

    def __init__(self, runner: FakeRunner, container: str, pid: int, script: Script, policy: Policy) -> None:
        self.pid = pid
        self.oom = False
        self._runner = runner
        self._container = container
        self._script = script
        self._policy = policy
        self._status = script.status  # what it will be
        self._began_s = anyio.current_time()
        self._life = anyio.CancelScope(deadline=self._began_s + script.runs_s)
        self._reaped = anyio.Event()
        self._callback: Callable[[], None] | None = None
        self._awaited = False
        self._frozen_s: float | None = None  # since when
        self._left_s = NEVER  # of its life, while it is frozen
        self._thawed = anyio.Event()
        self._stood_s = 0.0  # how long it was frozen, in all
        self._pending: list[int] = []  # signals that it sees when it goes on

    def freeze(self) -> None:
        """See `Run.freeze`."""
        assert self._container not in self._runner.checking, f"{self._container} is frozen with a check in it"
        if self._frozen_s is None and not self._reaped.is_set():
            self._runner.note(self._container, "frozen")
            now_s = anyio.current_time()
            self._frozen_s, self._thawed = now_s, anyio.Event()
            self._left_s, self._life.deadline = self._life.deadline - now_s, NEVER

    def thaw(self) -> None:
        """See `Run.thaw`."""
        if self._frozen_s is None or self._reaped.is_set():
            return
        self._runner.note(self._container, "thawed")
        now_s = anyio.current_time()
        self._stood_s += now_s - self._frozen_s
        self._frozen_s = None
        self._life.deadline = min(self._life.deadline, now_s + self._left_s)
        self._thawed.set()
        pending, self._pending = self._pending, []
        for number in pending:
            self._heed(number)

    def is_frozen(self) -> bool:
        """See `Run.is_frozen`."""
        return self._frozen_s is not None

    @property
    def is_stuck(self) -> bool:
        """Does not even SIGKILL end it, as far as anyone waits?"""
        return self._script.dies_s > STUCK_S

    async def live(self) -> None:
        with self._life:
            await anyio.sleep_forever()
        if self._life.cancelled_caught:
            self.end()

    def end(self) -> None:
        if self._reaped.is_set():
            return
        self._runner.note(self._container, "ended")
        self._reaped.set()
        if self._callback is not None:
            self._callback()

    def speak(self, heard: Heard, tasks: anyio.abc.TaskGroup) -> None:
        """Say what the script says, when it says it."""
        script, ready = self._script, self._policy.ready
        says = list(script.says)
        if ready is not None and isinstance(ready.probe, HEARD) and script.serves_s < NEVER:
            says.append((script.serves_s, Notice(ready=True)))
        for at_s, notice in says:
            if at_s:
                tasks.start_soon(self._say_later, at_s, heard, notice)
            else:
                self._say(heard, notice)
        if script.alive_s:
            tasks.start_soon(self._say_often, heard)

    def _say(self, heard: Heard, notice: Notice) -> None:
        if notice.alive is not None:
            self._runner.note(self._container, "alive", int(notice.alive))
        heard(notice)

    async def _say_later(self, at_s: float, heard: Heard, notice: Notice) -> None:
        await anyio.sleep(at_s)
        await self._goes_on()
        if not self._reaped.is_set():
            self._say(heard, notice)

    async def _say_often(self, heard: Heard) -> None:
        while not self._reaped.is_set():
            if self._serves():
                self._say(heard, Notice(alive=True))
            await anyio.sleep(self._script.alive_s)
            await self._goes_on()

    async def _goes_on(self) -> None:
        while self._frozen_s is not None:
            await self._thawed.wait()

    def _serves(self) -> bool:
        age_s, script = anyio.current_time() - self._began_s - self._stood_s, self._script
        return not self._reaped.is_set() and script.serves_s <= age_s and not script.sick_s <= age_s < script.well_s

    async def check(self, probe: Probe, timeout_s: float) -> Verdict:
        """See `Run.check`."""
        name = self._container
        assert name not in self._runner.checking, f"{name}: two checks at once"
        assert self._frozen_s is None, f"{name} is looked at while it is frozen"
        stop_cmd = isinstance(probe, Exec) and probe.argv == self._policy.stop_cmd
        takes_s = self._script.command_s if stop_cmd else self._script.check_s
        self._runner.note(name, "command" if stop_cmd else "check")
        self._runner.checking.add(name)
        self._runner.checking_max = max(self._runner.checking_max, len(self._runner.checking))
        try:
            with anyio.move_on_after(timeout_s) as patience:
                await anyio.sleep(takes_s)
        finally:
            self._runner.checking.discard(name)
        if patience.cancelled_caught:
            verdict = Verdict(passed=False, detail=f"no answer within {timeout_s:g} s")
        else:
            verdict = self._script.command if stop_cmd else Verdict(self._serves())
        self._runner.note(name, "commanded" if stop_cmd else "checked", int(verdict.passed))
        return verdict

    def tail(self) -> tuple[str, ...]:
        """See `Run.tail`."""
        return self._script.tail

    def hang(self) -> str:
        """See `Run.hang`."""
        return "state D"

    def signal(self, number: int) -> None:
        """See `Run.signal`."""
        self._runner.note(self._container, "signal", number)
        if self._frozen_s is not None and number != SIGKILL:
            self._pending.append(number)
        else:
            self._heed(number)

    def _heed(self, number: int) -> None:
        wait_s = self._script.dies_s if number == SIGKILL else self._script.stops_s
        if wait_s is None:
            return
        end = anyio.current_time() + wait_s
        if end < self._life.deadline:
            self._life.deadline, self._status = end, self._end_by(number)

    def _end_by(self, number: int) -> Status:
        heeded = None if number == SIGKILL else self._script.stopped
        return heeded or Signaled(number)

    def apply(self, config: ContainerConfig) -> None:
        """See `Run.apply`."""
        self._runner.note(config.place, "applied")

    def rename(self, container: str) -> None:
        """See `Run.rename`."""

    def on_exit(self, callback: Callable[[], None]) -> None:
        """See `Run.on_exit`."""
        assert self._callback is None, "one callback per run"
        self._callback = callback
        if self._reaped.is_set():
            callback()

    async def ended(self) -> Status:
        """See `Run.ended`."""
        assert self._runner.live.get(self._container) is self, f"{self._container}: its end was taken before"
        assert not self._awaited, f"{self._container}: two tasks await its end"
        self._awaited = True
        try:
            await self._reaped.wait()
            await anyio.sleep(self._script.buried_s)
        finally:
            self._awaited = False
        self._runner.note(self._container, "buried")
        del self._runner.live[self._container]
        return self._status
