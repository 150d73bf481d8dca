"""The machine in a random world: runs that start or do not, crash, fall silent or linger, a clock, and users who change
their mind.

The world keeps its own account (is there a run? who asked for what? how many checks have failed?) and compares it with
what the machine does and says. What is to follow an end it has from the ledger.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger import AGAIN, ENDED_BY_ITSELF, GIVEN_UP, JUDGED, RETRIED, Account, Where, what_follows
from stage import entries

from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import Health, Notice, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.machine import step
from supervisor.core.moves import SIGKILL, STUCK_S
from supervisor.core.policy import Dependency, RestartOn, RestartPolicy, succeeded
from supervisor.core.states import (
    ALIVE,
    FINAL,
    Action,
    Ask,
    Check,
    Checked,
    Deferred,
    DependenciesMet,
    DependencyFailed,
    Due,
    Ended,
    Event,
    Freeze,
    Heard,
    Kill,
    Launch,
    Pause,
    Phase,
    Quiesce,
    Quiesced,
    Report,
    Restart,
    Signal,
    Start,
    Started,
    StartFailed,
    State,
    Stop,
    Thaw,
    Unpause,
)

STATUSES: st.SearchStrategy[Status] = st.one_of(
    st.just(Exited(0)), st.builds(Exited, st.integers(1, 255)), st.builds(Signaled, st.integers(1, 64))
)
SECONDS = st.floats(0, 20)
READY = st.sampled_from((None, None, Ready(Tcp(80), timeout_s=4.0), Ready(Notify(), timeout_s=4.0)))
HEALTH = st.none() | st.builds(
    Health,
    probe=st.just(Tcp(80)),
    interval_s=st.just(3.0),
    retries=st.integers(1, 3),
    start_period_s=st.sampled_from((0.0, 5.0)),
    on_unhealthy=st.sampled_from(OnUnhealthy),
)
WATCHDOG = st.builds(
    Health, probe=st.just(Notify()), watchdog_s=st.just(3.0), on_unhealthy=st.sampled_from(OnUnhealthy)
)
POLICIES = st.fixed_dictionaries(
    {
        "restart": st.sampled_from(RestartPolicy),
        "max_retries": st.none() | st.integers(1, 3),
        "max_restarts": st.none() | st.integers(1, 3),
        "restart_on": st.none() | st.just(RestartOn(frozenset({1, 2}), frozenset({9, 15}))),
        "success_codes": st.sampled_from((frozenset({0}), frozenset({0, 7}))),
        "initial_s": st.sampled_from((0.0, 0.1, 1.0)),
        "factor": st.sampled_from((1.0, 2.0)),
        "max_s": st.just(5.0),
        "timeout_s": st.sampled_from((None, None, 9.0)),
        "stop_grace_s": st.sampled_from((0.0, 3.0)),
        "stop_cmd": st.sampled_from(((), ("quit",))),
        "ready": READY,
        "health": HEALTH | WATCHDOG,
        "waits_s": st.sampled_from(((), (2.0, 5.0))),
    }
)


class Process(Enum):
    """What there is of the container, as the kernel would know it."""

    NONE = auto()
    LAUNCHING = auto()
    LIVE = auto()


class World(RuleBasedStateMachine):
    """Everything around one machine."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.process = Process.NONE
        self.wanted_up = False
        self.must_restart = False
        self.signals: list[int] = []  # of this run
        self.checking: Check | None = None
        self.quiescing = False
        self.ending = False
        self.frozen_s: float | None = None  # since when
        self.pid = 0

    @initialize(policy=POLICIES, now=st.sampled_from((0.0, 1000.0)))
    def create(self, policy: dict[str, Any], now: float) -> None:
        waits = {f"db{wait_s}": Dependency(timeout_s=wait_s) for wait_s in policy["waits_s"]}
        (entry,) = entries("web", conditions=waits, **{key: policy[key] for key in policy if key != "waits_s"})
        self.account = Account(entry, 0.0)
        self.state = State(entry.policy)
        self.now = now

    # --- what users and others ask for --------------------------------------------------------------------------------

    @rule()
    def start(self) -> None:
        anew = self.state.phase in {Phase.CREATED, Phase.BACKOFF, Phase.EXITED, Phase.FAILED}
        if self.ending and not self.wanted_up:
            self.account.cause = AGAIN
        self.wanted_up = True
        self.deliver(Start())
        if anew:
            self.account.retries, self.account.restarts_s = 0, []
            assert self.state.phase is Phase.WAITING

    @rule(event=st.sampled_from((Stop(), Stop(grace_s=1.0), Kill())))
    def bring_down(self, event: Event) -> None:
        over = self.state.phase in {Phase.EXITED, Phase.FAILED}
        self.deliver(event)
        self.wanted_up = self.wanted_up and over
        assert over or not self.state.wanted_up
        if self.process is Process.LIVE and isinstance(event, Kill):
            assert self.signals.count(SIGKILL) == 1

    @rule()
    def ask_for_a_restart(self) -> None:
        if self.process is Process.LAUNCHING:
            self.must_restart = True
        elif self.process is Process.LIVE and not self.ending:
            self.account.cause = AGAIN
        self.deliver(Restart("db was restarted"))

    @rule(seconds=SECONDS)
    def it_is_paused_for_a_while(self, seconds: float) -> None:
        """Nothing becomes due, whatever the time; what is left of all times is what was left of them."""
        before = self.state
        self.deliver(Pause())
        if self.frozen_s is None:
            assert self.state == before
            return
        assert self.state.due_at is None
        assert self.checking is None
        self.now += seconds

    @rule()
    def it_goes_on(self) -> None:
        before, since_s = self.state, self.frozen_s
        self.deliver(Unpause())
        assert self.frozen_s is None
        if since_s is None:
            assert self.state == before
            return
        stood_s = self.now - since_s
        for was, at in ((before.deadline, self.state.deadline), (before.limit_at, self.state.limit_at)):
            assert (was is None) is (at is None)
            assert was is None or at is None or abs(at - was - stood_s) < 1e-6
        for at in (self.state.check_at, self.state.watchdog_at):
            assert at is None or at > self.now

    def clock_goes_on(self) -> None:
        if self.frozen_s is not None:
            self.account.paused_s = self.frozen_s
            self.account.go_on(self.now)
            self.frozen_s = None

    @rule(event=st.sampled_from((DependenciesMet(), DependenciesMet(), DependencyFailed("db failed"))))
    def hear_of_dependencies(self, event: Event) -> None:
        self.deliver(event)

    # --- what becomes of a launch -------------------------------------------------------------------------------------

    @precondition(lambda self: self.process is Process.LAUNCHING)
    @rule()
    def the_launch_is_deferred(self) -> None:
        self.process, self.must_restart = Process.NONE, False
        self.deliver(Deferred())
        assert self.state.phase is (Phase.WAITING if self.wanted_up else Phase.EXITED)

    @precondition(lambda self: self.process is Process.LAUNCHING)
    @rule()
    def exec_happens(self) -> None:
        self.process, self.signals, self.ending = Process.LIVE, [], False
        self.account.begin(self.now)
        again, self.must_restart = self.must_restart and self.wanted_up, False
        if again:
            self.account.cause = AGAIN
        self.pid += 1
        reports = self.deliver(Started(self.pid))
        assert reports[0] == Report("started", {"pid": self.pid})
        assert self.ending is (again or not self.wanted_up)

    @precondition(lambda self: self.process is Process.LAUNCHING)
    @rule(restart=st.booleans(), words=st.lists(st.sampled_from((Start(), Stop(), Kill())), max_size=3))
    def words_come_while_it_is_launched(self, restart: bool, words: list[Event]) -> None:
        """All that was asked meanwhile shows when the run has ended: rare if left to chance."""
        if restart:
            self.ask_for_a_restart()
        for word in words:
            if isinstance(word, Start):
                self.start()
            else:
                self.bring_down(word)
        self.exec_happens()
        self.run_ends(Signaled(SIGKILL))

    @precondition(lambda self: self.process is Process.LAUNCHING)
    @rule(error=st.sampled_from(("no space", "no memory")))
    def start_fails(self, error: str) -> None:
        self.process, self.must_restart = Process.NONE, False
        self.account.where, self.account.cause, self.account.over = Where.REFUSED, ENDED_BY_ITSELF, (False, 125, None)
        told_before = self.state.told
        reports = self.deliver(StartFailed(error))
        assert (reports[0].kind == "start_failed") is (error != told_before)
        self.after_the_end(reports)

    # --- what becomes of a run ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.process is Process.LIVE)
    @rule(status=STATUSES)
    def run_ends(self, status: Status) -> None:
        self.process, self.checking, self.quiescing, self.ending = Process.NONE, None, False, False
        signal = status.signal if isinstance(status, Signaled) else None
        self.account.where = Where.DONE
        self.account.over = (succeeded(self.state.policy, status), status.exit_status, signal)
        ran_s = (self.now if self.frozen_s is None else self.frozen_s) - self.account.started_s
        self.frozen_s = None
        if ran_s >= self.state.policy.backoff.reset_after_s:
            self.account.retries = 0
        reports = self.deliver(Ended(status))
        assert reports[0].kind == "exited"
        assert reports[0].fields["exit_status"] == status.exit_status
        assert reports[0].fields["ran_s"] == round(ran_s, 3)
        self.after_the_end(reports)

    @precondition(lambda self: self.process is Process.LIVE)
    @rule(
        notice=st.builds(
            Notice,
            ready=st.booleans(),
            alive=st.sampled_from((None, True, False)),
            status=st.sampled_from((None, "busy")),
            extend_s=st.none() | SECONDS,
        )
    )
    def it_speaks(self, notice: Notice) -> None:
        due_at, phase = self.state.deadline, self.state.phase
        self.deliver(Heard(notice))
        if self.state.phase is phase and due_at is not None:
            assert self.state.deadline is not None
            assert self.state.deadline >= due_at

    @precondition(lambda self: self.checking is not None)
    @rule(passed=st.booleans())
    def a_check_is_answered(self, passed: bool) -> None:
        self.checking = None
        account, health, phase = self.account, self.state.policy.health, self.state.phase
        well = account.well
        fresh = self.state.ready_at is not None and well is None
        if phase is Phase.RUNNING and health is not None and self.state.ready_at is not None:
            early = fresh and self.now - self.state.ready_at < health.start_period_s
            account.failing = 0 if passed else account.failing + (not early)
        kinds = [report.kind for report in self.deliver(Checked(passed))]
        if phase is Phase.ACTIVATING:
            assert ("ready" in kinds) is passed
        elif health is not None:
            assert ("healthy" in kinds) is (passed and well is not True)
            sick = not passed and account.failing >= health.retries and well is not False
            assert ("unhealthy" in kinds) is sick
            account.well = True if passed else False if sick else well

    @precondition(lambda self: self.quiescing)
    @rule(error=st.sampled_from(("", "exit status 1")))
    def the_stop_command_ends(self, error: str) -> None:
        self.quiescing = False
        self.deliver(Quiesced(error))
        assert self.signals == [self.state.policy.stop_signal]

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """To the next time that something is due, at most."""
        due_at = self.state.due_at
        self.now = self.now + seconds if due_at is None else max(self.now, min(due_at, self.now + seconds))
        if due_at is not None and due_at <= self.now:
            self.deliver(Due())

    @precondition(lambda self: self.state.due_at is not None)
    @rule()
    def something_is_due(self) -> None:
        self.time_passes(1e9)

    @precondition(lambda self: self.state.phase in ALIVE)
    @rule(launch_s=SECONDS, stubborn=st.booleans())
    def a_stop_is_seen_through(self, launch_s: float, stubborn: bool) -> None:
        """The run may ignore its stop signal, and even SIGKILL: then it is not waited for any more."""
        self.bring_down(Stop())
        if self.process is Process.LAUNCHING:
            self.now += launch_s
            self.exec_happens()
        asked_at, deadline = self.now, self.state.deadline
        while stubborn and self.state.phase is not Phase.STUCK:
            self.something_is_due()
        assert self.now <= max(asked_at, deadline or asked_at) + STUCK_S
        self.run_ends(Signaled(SIGKILL))
        assert self.state.phase is Phase.EXITED

    # --- what it does -------------------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> list[Report]:
        before = self.state
        self.state, actions = step(before, event, self.now)
        reports = [action for action in actions if isinstance(action, Report)]
        for action in actions:
            self.perform(action)
        self.check_reports(before, actions, [report.kind for report in reports])
        return reports

    def perform(self, action: Action) -> None:
        match action:
            case Launch():
                assert self.process is Process.NONE, "a second run"
                assert self.wanted_up, "a launch of what is wanted down"
                self.process = Process.LAUNCHING
            case Signal(number):
                assert self.process is Process.LIVE, "a signal to nobody"
                assert number not in self.signals
                self.signals.append(number)
                self.clock_goes_on()
            case Freeze():
                assert self.process is Process.LIVE
                assert self.frozen_s is None
                self.frozen_s, self.checking = self.now, None
            case Thaw():
                assert self.frozen_s is not None
                self.clock_goes_on()
            case Check():
                assert self.process is Process.LIVE
                assert self.checking is None, "two checks at once"
                self.checking = action
            case Quiesce():
                assert self.process is Process.LIVE
                self.quiescing = True
                self.clock_goes_on()
            case Ask():
                assert self.state.phase is Phase.WAITING
            case Report():
                self.hear(action)

    def hear(self, report: Report) -> None:
        """Why a run is being ended."""
        health = self.state.policy.health
        if report.kind in {"timed_out", "not_ready"}:
            self.account.cause = JUDGED
        elif report.kind == "unhealthy" and health is not None:
            self.account.well = False
            follows = {OnUnhealthy.RESTART: RETRIED, OnUnhealthy.STOP: GIVEN_UP}
            self.account.cause = follows.get(health.on_unhealthy, self.account.cause)
        elif report.kind == "healthy":
            self.account.well = True
        elif report.kind in {"stopping", "killing"}:
            self.ending, self.checking = True, None
            self.quiescing = self.quiescing and report.kind == "stopping"
        elif report.kind == "ready":
            self.checking = None

    def check_reports(self, before: State, actions: Sequence[Action], kinds: list[str]) -> None:
        after = self.state.phase
        moved = after is not before.phase
        assert kinds.count("starting") == actions.count(Launch())
        assert ("stopping" in kinds) == (moved and after is Phase.STOPPING)
        assert ("killing" in kinds) == (moved and after is Phase.KILLING)
        assert ("stuck" in kinds) == (moved and after is Phase.STUCK)
        assert ("gave_up" in kinds or "dependency_failed" in kinds) == (moved and after is Phase.FAILED)

    def after_the_end(self, reports: list[Report]) -> None:
        followed = next((each for each in reports if each.kind in {"restarting", "gave_up", "stopped"}), None)
        if not self.wanted_up:
            assert followed == Report("stopped")
            return
        expected = what_follows(self.account, self.now)
        assert (followed and followed.kind) == expected
        if followed is not None and expected == "restarting":
            self.check_restart(followed.fields)
        elif expected is None:
            assert self.state.completed

    def check_restart(self, fields: dict[str, Any]) -> None:
        if self.account.cause is AGAIN:
            assert self.state.phase is Phase.WAITING
            return
        self.account.retries += 1
        self.account.restarts_s.append(self.now)
        backoff = self.state.policy.backoff
        delay_s = min(backoff.max_s, backoff.initial_s * backoff.factor ** (self.account.retries - 1))
        assert fields == {"retry": self.account.retries, "delay_s": delay_s}
        if delay_s:
            assert (self.state.phase, self.state.deadline) == (Phase.BACKOFF, self.now + delay_s)
        else:
            assert self.state.phase is Phase.WAITING

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def there_is_a_run_exactly_in_the_phases_that_have_one(self) -> None:
        assert (self.process is not Process.NONE) == (self.state.phase in ALIVE)
        assert (self.process is Process.LAUNCHING) == (self.state.phase is Phase.STARTING)

    @invariant()
    def it_wants_what_was_asked_for(self) -> None:
        assert self.state.wanted_up == self.wanted_up

    @invariant()
    def it_is_paused_exactly_while_it_is_frozen(self) -> None:
        assert self.state.paused_at == self.frozen_s

    @invariant()
    def nothing_final_has_a_time(self) -> None:
        assert self.state.phase not in FINAL or self.state.due_at is None

    @invariant()
    def the_reason_of_a_failure_is_known_exactly_while_it_lasts(self) -> None:
        assert (self.state.failure is not None) == (self.state.phase in {Phase.FAILED, Phase.STUCK})

    @invariant()
    def the_pid_is_that_of_the_live_run(self) -> None:
        assert self.state.pid == (self.pid if self.process is Process.LIVE else None)


World.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestMachineInARandomWorld = World.TestCase
