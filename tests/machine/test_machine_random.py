"""The machine in a random world: runs that start or do not, crash or linger, a clock, and users who change their mind.

The world keeps its own account (is there a run? how often was it restarted? who asked for what?) and compares it with
what the machine does and says.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime.status import Exited, Signaled, Status
from supervisor.states import (
    ALIVE,
    FINAL,
    SIGKILL,
    Action,
    DependenciesMet,
    DependencyFailed,
    Due,
    Ended,
    Event,
    Kill,
    Launch,
    Phase,
    Report,
    Signal,
    Start,
    Started,
    StartFailed,
    State,
    Stop,
    step,
)
from supervisor.policy import Backoff, Policy, RestartPolicy

STATUSES: st.SearchStrategy[Status] = st.one_of(
    st.just(Exited(0)), st.builds(Exited, st.integers(1, 255)), st.builds(Signaled, st.integers(1, 64))
)
SECONDS = st.floats(0, 20)
CHANCES = st.floats(0, 1, exclude_max=True)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    restart = draw(st.sampled_from(RestartPolicy))
    initial_s = draw(st.sampled_from((0.0, 0.1, 1.0)))
    return Policy(
        restart,
        draw(st.none() | st.integers(1, 3)) if restart is RestartPolicy.ON_FAILURE else None,
        Backoff(initial_s, max_s=5.0, factor=draw(st.sampled_from((1.0, 2.0))), jitter=0.5, reset_after_s=10.0),
        stop_grace_s=draw(st.sampled_from((0.0, 3.0))),
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
        self.started_at = 0.0
        self.wanted_up = False
        self.forced = False  # a kill was asked for
        self.retries = 0  # by our own count
        self.pid = 0
        self.kills = 0  # of this run
        self.chance = 0.5

    @initialize(policy=policies(), now=st.sampled_from((0.0, 1000.0)))
    def create(self, policy: Policy, now: float) -> None:
        self.state = State(policy)
        self.now = now

    # --- what may happen ----------------------------------------------------------------------------------------------

    @rule()
    def start(self) -> None:
        before = self.state.phase
        self.deliver(Start())
        if before is Phase.CREATED or before in FINAL:
            self.wanted_up, self.forced, self.retries = True, False, 0

    @rule(event=st.sampled_from((Stop(), Kill())))
    def bring_down(self, event: Event) -> None:
        self.wanted_up = False
        self.forced = self.forced or isinstance(event, Kill)
        self.deliver(event)
        if self.process is Process.LIVE and self.forced:
            assert self.kills == 1

    @rule(event=st.sampled_from((DependenciesMet(), DependenciesMet(), DependencyFailed("db failed"))))
    def news_of_dependencies(self, event: Event) -> None:
        self.deliver(event)

    @precondition(lambda self: self.process is Process.LAUNCHING)
    @rule()
    def exec_happens(self) -> None:
        self.process, self.started_at, self.kills = Process.LIVE, self.now, 0
        self.pid += 1
        reports = self.deliver(Started(self.pid))
        assert reports[0] == Report("started", {"pid": self.pid})
        expected = Phase.RUNNING if self.wanted_up else Phase.KILLING if self.forced else Phase.STOPPING
        assert (self.state.phase, self.kills) == (expected, int(expected is Phase.KILLING))

    @precondition(lambda self: self.process is Process.LAUNCHING)
    @rule(error=st.sampled_from(("no space", "no memory")), chance=CHANCES)
    def start_fails(self, error: str, chance: float) -> None:
        self.process, self.chance = Process.NONE, chance
        self.after_the_end(self.deliver(StartFailed(error)), failed=True)

    @precondition(lambda self: self.process is Process.LIVE)
    @rule(status=STATUSES, chance=CHANCES)
    def run_ends(self, status: Status, chance: float) -> None:
        self.process, self.chance = Process.NONE, chance
        if self.wanted_up and self.now - self.started_at >= self.state.policy.backoff.reset_after_s:
            self.retries = 0
        reports = self.deliver(Ended(status))
        assert reports[0].kind == "exited"
        assert reports[0].fields["exit_status"] == status.exit_status
        assert reports[0].fields["ran_s"] == round(self.now - self.started_at, 3)
        self.after_the_end(reports, failed=status != Exited(0))

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """To the next deadline at most: a deadline that has come is delivered."""
        until = self.now + seconds
        if self.state.deadline is None or self.state.deadline > until:
            self.now = until
            return
        self.now = max(self.now, self.state.deadline)
        self.deliver(Due())

    @precondition(lambda self: self.wanted_up and self.state.phase in {Phase.STARTING, Phase.RUNNING, Phase.BACKOFF})
    @rule(runs=st.lists(st.tuples(st.sampled_from((0.5, 10.0)), STATUSES, CHANCES), max_size=5))
    def runs_follow_one_another(self, runs: list[tuple[float, Status, float]]) -> None:
        """A crash loop, with a stable run here and there, that lasts: rare if left to chance."""
        self.comes_up()
        for ran_s, status, chance in runs:
            if self.process is Process.LIVE:
                self.now += ran_s
                self.run_ends(status, chance)
                self.comes_up()

    def comes_up(self) -> None:
        if self.state.phase is Phase.BACKOFF:
            self.time_passes(self.state.policy.backoff.max_s)
        if self.process is Process.LAUNCHING:
            self.exec_happens()

    @precondition(lambda self: self.state.phase in ALIVE)
    @rule(launch_s=SECONDS, stubborn=st.booleans(), impatient=st.booleans())
    def a_stop_is_seen_through(self, launch_s: float, stubborn: bool, impatient: bool) -> None:
        """The run may ignore the stop signal; only SIGKILL it can't. Users may ask for that sooner."""
        self.bring_down(Stop())
        if self.process is Process.LAUNCHING:
            self.now += launch_s
            self.exec_happens()
        asked_at = self.now
        if impatient:
            self.bring_down(Kill())
        elif stubborn and self.state.deadline is not None:
            self.now = self.state.deadline
            self.deliver(Due())
        assert self.kills == int(self.state.phase is Phase.KILLING)
        self.run_ends(Signaled(SIGKILL), 0.5)
        assert self.state.phase is Phase.EXITED
        assert self.now <= asked_at + self.state.policy.stop_grace_s

    # --- what it does -------------------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> list[Report]:
        before = self.state
        self.state, actions = step(before, event, self.now, self.chance)
        for action in actions:
            self.perform(action)
        reports = [action for action in actions if isinstance(action, Report)]
        self.check_move(before, event)
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
                self.kills += number == SIGKILL
                assert self.kills <= 1

    def check_move(self, before: State, event: Event) -> None:
        if before.phase in FINAL and not isinstance(event, Start):
            assert self.state == before
        if self.state.deadline is not None:
            assert self.state.deadline >= self.now or self.state.deadline == before.deadline

    def check_reports(self, before: State, actions: Sequence[Action], kinds: list[str]) -> None:
        after = self.state.phase
        moved = after is not before.phase
        assert kinds.count("starting") == actions.count(Launch())
        assert ("stopped" in kinds) == (moved and after is Phase.EXITED and not self.wanted_up)
        assert ("stopping" in kinds) == (moved and after is Phase.STOPPING)
        assert ("killing" in kinds) == (moved and after is Phase.KILLING)
        assert ("gave_up" in kinds or "dependency_failed" in kinds) == (moved and after is Phase.FAILED)

    def after_the_end(self, reports: list[Report], *, failed: bool) -> None:
        """What the policy says, written down a second time."""
        policy = self.state.policy
        restarted = [report.fields for report in reports if report.kind == "restarting"]
        used_up = policy.max_retries is not None and self.retries >= policy.max_retries
        always = policy.restart in {RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED}
        if not self.wanted_up:
            assert (self.state.phase, restarted) == (Phase.EXITED, [])
        elif always or (policy.restart is RestartPolicy.ON_FAILURE and failed and not used_up):
            self.retries += 1
            self.check_restart(restarted)
        else:
            assert (self.state.phase, restarted) == (Phase.FAILED if failed else Phase.EXITED, [])

    def check_restart(self, restarted: list[dict[str, Any]]) -> None:
        (fields,) = restarted
        backoff = self.state.policy.backoff
        middle_s = min(backoff.max_s, backoff.initial_s * backoff.factor ** (self.retries - 1))
        assert fields["retry"] == self.retries
        assert 0.5 * middle_s <= fields["delay_s"] <= min(backoff.max_s, 1.5 * middle_s)
        if fields["delay_s"]:
            assert (self.state.phase, self.state.deadline) == (Phase.BACKOFF, self.now + fields["delay_s"])
        else:
            assert (self.state.phase, self.process) == (Phase.STARTING, Process.LAUNCHING)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def there_is_a_run_exactly_in_the_phases_that_have_one(self) -> None:
        assert (self.process is not Process.NONE) == (self.state.phase in ALIVE)
        assert (self.process is Process.LAUNCHING) == (self.state.phase is Phase.STARTING)

    @invariant()
    def it_wants_what_was_asked_for(self) -> None:
        if self.state.phase is not Phase.EXITED:  # there a word changes nothing
            assert self.state.wanted_up == self.wanted_up or self.state.phase is Phase.FAILED

    @invariant()
    def it_has_a_deadline_exactly_while_it_waits_for_one(self) -> None:
        assert (self.state.deadline is not None) == (self.state.phase in {Phase.STOPPING, Phase.BACKOFF})

    @invariant()
    def the_reason_of_a_failure_is_known_exactly_while_it_lasts(self) -> None:
        assert (self.state.failure is not None) == (self.state.phase is Phase.FAILED)

    @invariant()
    def the_pid_is_that_of_the_live_run(self) -> None:
        assert self.state.pid == (self.pid if self.process is Process.LIVE else None)


World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestMachineInARandomWorld = World.TestCase
