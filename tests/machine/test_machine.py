"""What one container does next, told case by case: a `Life` is driven through events, and says what was asked of it."""

from dataclasses import dataclass, field
from signal import SIGKILL, SIGQUIT, SIGTERM
from typing import Any

import pytest

from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import Health, Log, Notice, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.machine import IllegalEventError, step
from supervisor.core.moves import STUCK_S
from supervisor.core.policy import Backoff, Policy, RestartOn, RestartPolicy
from supervisor.core.states import (
    Adapt,
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
    HealthStatus,
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

BACKOFF = Backoff(initial_s=1.0, max_s=5.0, factor=2.0, jitter=0.0, reset_after_s=10.0)
AT_ONCE = Backoff(initial_s=0.0, reset_after_s=10.0)
RESTARTING = [RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED]
CRASH = Exited(1)
FAILURES = [CRASH, Exited(255), Signaled(SIGKILL), Signaled(SIGTERM)]


def policy(
    restart: RestartPolicy = RestartPolicy.NO, max_retries: int | None = None, backoff: Backoff = BACKOFF, **more: Any
) -> Policy:
    return Policy(
        restart, max_retries=max_retries, backoff=backoff, **{"stop_signal": SIGQUIT, "stop_grace_s": 3.0, **more}
    )


@dataclass
class Life:
    """A machine, its clock, and what it asked for: `did` at the last event, `told` in all."""

    state: State
    now: float = 0.0
    did: list[object] = field(default_factory=list)
    told: list[Report] = field(default_factory=list)

    def on(self, *events: Event) -> "Life":
        for event in events:
            self.state, actions = step(self.state, event, self.now)
            self.did = [action for action in actions if not isinstance(action, Report)]
            self.told += [action for action in actions if isinstance(action, Report)]
        return self

    def after(self, seconds: float, *events: Event) -> "Life":
        self.now += seconds
        return self.on(*events)

    def when_due(self) -> "Life":
        assert self.state.due_at is not None
        return self.after(self.state.due_at - self.now, Due())

    def again(self) -> "Life":
        """Until it is launched once more."""
        if self.phase is Phase.BACKOFF:
            self.when_due()
        return self.on(DependenciesMet())

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def kinds(self) -> list[str]:
        return [report.kind for report in self.told]

    def fields(self, kind: str) -> list[dict[str, object]]:
        return [report.fields for report in self.told if report.kind == kind]


def created(policy: Policy) -> Life:
    return Life(State(policy))


def starting(policy: Policy) -> Life:
    return created(policy).on(Start(), DependenciesMet())


def running(policy: Policy) -> Life:
    return starting(policy).on(Started(42))


def crashed(policy: Policy, status: Status = CRASH) -> Life:
    return running(policy).after(0.5, Ended(status))


# --- start ------------------------------------------------------------------------------------------------------------


def test_nothing_happens_before_start() -> None:
    life = created(policy())
    assert (life.phase, life.state.deadline) == (Phase.CREATED, None)


def test_start_waits_for_dependencies() -> None:
    life = created(policy()).on(Start())
    assert (life.phase, life.did) == (Phase.WAITING, [])


def test_dependencies_met_before_start_launch_nothing() -> None:
    life = created(policy()).on(DependenciesMet())
    assert (life.phase, life.did) == (Phase.CREATED, [])


def test_it_is_launched_when_its_dependencies_are_met() -> None:
    life = starting(policy())
    assert (life.phase, life.did, life.kinds) == (Phase.STARTING, [Launch()], ["starting"])


def test_it_runs_once_its_command_was_executed() -> None:
    life = running(policy())
    assert (life.phase, life.state.pid, life.did) == (Phase.RUNNING, 42, [])
    assert life.fields("started") == [{"pid": 42}]


def test_a_failed_dependency_fails_it_and_is_named() -> None:
    life = created(policy(RestartPolicy.ALWAYS)).on(Start(), DependencyFailed("db failed"))
    assert (life.phase, life.did, life.kinds) == (Phase.FAILED, [], ["dependency_failed"])
    assert "db failed" in (life.state.failure or "")


@pytest.mark.parametrize("news", [DependenciesMet(), DependencyFailed("db failed")])
def test_news_of_dependencies_do_not_touch_a_running_container(news: Event) -> None:
    life = running(policy()).on(news)
    assert (life.phase, life.did, life.kinds) == (Phase.RUNNING, [], ["starting", "started"])


# --- the end of a run, and restart ------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [RestartPolicy.NO, RestartPolicy.ON_FAILURE])
def test_success_is_final(restart: RestartPolicy) -> None:
    life = crashed(policy(restart), Exited(0))
    assert (life.phase, life.did, life.state.failure) == (Phase.EXITED, [], None)
    assert life.kinds[2:] == ["exited"]


@pytest.mark.parametrize("restart", [RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED])
def test_always_restarts_what_succeeded(restart: RestartPolicy) -> None:
    life = crashed(policy(restart), Exited(0))
    assert (life.phase, life.did) == (Phase.BACKOFF, [])
    assert life.again().did == [Launch()]


@pytest.mark.parametrize("status", FAILURES)
def test_failure_is_final_without_a_restart_policy(status: Status) -> None:
    life = crashed(policy(), status)
    assert (life.phase, life.state.status, life.did) == (Phase.FAILED, status, [])
    assert life.kinds[2:] == ["exited", "gave_up"]


@pytest.mark.parametrize("restart", RESTARTING)
@pytest.mark.parametrize("status", FAILURES)
def test_failure_is_restarted_after_a_wait(restart: RestartPolicy, status: Status) -> None:
    life = crashed(policy(restart), status)
    assert (life.phase, life.did, life.state.deadline) == (Phase.BACKOFF, [], life.now + 1.0)
    life.again()
    assert (life.phase, life.did, life.state.deadline) == (Phase.STARTING, [Launch()], None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Exited(3), {"exit_status": 3, "ran_s": 0.5}),
        (Signaled(9), {"exit_status": 137, "ran_s": 0.5, "signal": 9}),
    ],
)
def test_the_end_of_a_run_is_told_with_status_and_duration(status: Status, expected: dict[str, object]) -> None:
    assert crashed(policy(), status).fields("exited") == [expected]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Exited(3), "exited with status 3"),
        (Signaled(11), "killed by signal 11"),
        (Signaled(11, core_dumped=True), "killed by signal 11, core dumped"),
    ],
)
def test_the_failure_says_how_the_run_ended(status: Status, words: str) -> None:
    assert crashed(policy(), status).state.failure == words


def test_initial_0_restarts_at_once_without_a_deadline() -> None:
    life = crashed(policy(RestartPolicy.ON_FAILURE, backoff=AT_ONCE))
    assert (life.phase, life.did, life.state.deadline) == (Phase.WAITING, [], None)
    assert life.kinds[2:] == ["exited", "restarting"]
    assert life.fields("restarting") == [{"delay_s": 0.0, "retry": 1}]


def test_waits_grow_while_it_keeps_crashing() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS))
    for _ in range(4):
        life.again().on(Started(43)).after(0.5, Ended(Exited(1)))
    assert life.fields("restarting") == [
        {"delay_s": wait, "retry": retry} for retry, wait in enumerate((1.0, 2.0, 4.0, 5.0, 5.0), start=1)
    ]


def test_chance_makes_the_jitter() -> None:
    wild = policy(RestartPolicy.ALWAYS, backoff=Backoff(initial_s=1.0, jitter=0.5))
    after, _ = step(running(wild).state, Ended(Exited(1)), 1.0, chance=0.0)
    assert after.deadline == 1.5


@pytest.mark.parametrize(("ran_s", "expected"), [(9.9, 4.0), (10.0, 1.0)])
def test_restart_backoff_resets_after_stable_run(ran_s: float, expected: float) -> None:
    life = crashed(policy(RestartPolicy.ALWAYS))
    life.again().on(Started(43)).after(0.5, Ended(Exited(1)))
    life.again().on(Started(44)).after(ran_s, Ended(Exited(1)))
    assert life.fields("restarting")[-1]["delay_s"] == expected


def test_a_run_that_began_at_0_by_the_clock_is_measured_too() -> None:
    life = running(policy(RestartPolicy.ALWAYS))
    assert life.state.started_at == 0.0
    assert life.after(12.0, Ended(Exited(1))).fields("exited")[0]["ran_s"] == 12.0


def test_stability_is_measured_from_the_exec_of_the_last_run() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS)).again()
    life.after(60.0, Started(43)).after(0.5, Ended(Exited(1)))  # a launch of a minute is no stable run
    assert life.fields("restarting")[-1]["retry"] == 2


def test_on_failure_2_gives_up_after_2_restarts() -> None:
    life = crashed(policy(RestartPolicy.ON_FAILURE, max_retries=2))
    for _ in range(2):
        life.again().on(Started(43)).after(0.5, Ended(Exited(1)))
    assert (life.phase, life.did, life.state.restarts) == (Phase.FAILED, [], 2)
    assert life.fields("gave_up") == [{"reason": "exited with status 1", "retries": 2}]


def test_a_stable_run_gives_all_retries_back() -> None:
    life = crashed(policy(RestartPolicy.ON_FAILURE, max_retries=1))
    life.again().on(Started(43)).after(10.0, Ended(Exited(1)))
    assert (life.phase, life.state.restarts) == (Phase.BACKOFF, 2)


# --- failed starts ----------------------------------------------------------------------------------------------------


def test_a_failed_start_is_final_without_a_restart_policy() -> None:
    life = starting(policy()).on(StartFailed("exec: not found", 127))
    assert (life.phase, life.state.failure, life.state.status) == (Phase.FAILED, "exec: not found", Exited(127))
    assert life.kinds[1:] == ["start_failed", "gave_up"]


@pytest.mark.parametrize("restart", RESTARTING)
def test_a_failed_start_is_tried_again_like_a_failed_run(restart: RestartPolicy) -> None:
    life = starting(policy(restart)).on(StartFailed("no space", 125))
    assert (life.phase, life.state.deadline) == (Phase.BACKOFF, 1.0)
    assert life.again().on(StartFailed("no space", 125)).state.deadline == 1.0 + 2.0


def test_failed_starts_use_up_retries() -> None:
    life = starting(policy(RestartPolicy.ON_FAILURE, max_retries=1)).on(StartFailed("no space"))
    life.again().on(StartFailed("no space"))
    assert (life.phase, life.state.failure) == (Phase.FAILED, "no space")


def test_the_same_start_error_is_told_once_in_a_row() -> None:
    life = starting(policy(RestartPolicy.ALWAYS)).on(StartFailed("no space"))
    life.again().on(StartFailed("no space"))
    assert life.fields("start_failed") == [{"error": "no space", "exit_status": 125}]
    life.again().on(StartFailed("no memory"))
    assert [fields["error"] for fields in life.fields("start_failed")] == ["no space", "no memory"]


def test_a_start_error_is_told_again_after_a_run() -> None:
    life = starting(policy(RestartPolicy.ALWAYS)).on(StartFailed("no space"))
    life.again().on(Started(42), Ended(Exited(1))).again().on(StartFailed("no space"))
    assert len(life.fields("start_failed")) == 2


# --- stop and kill ----------------------------------------------------------------------------------------------------


def test_stop_sends_the_stop_signal_and_gives_its_grace_period() -> None:
    life = running(policy()).after(2.0, Stop())
    assert (life.phase, life.did, life.state.deadline) == (Phase.STOPPING, [Signal(SIGQUIT)], 5.0)
    assert life.fields("stopping") == [{"signal": SIGQUIT}]


@pytest.mark.parametrize("status", [Exited(0), Exited(1), Signaled(SIGQUIT)])
@pytest.mark.parametrize("restart", list(RestartPolicy))
def test_what_was_stopped_stays_down_whatever_its_status(restart: RestartPolicy, status: Status) -> None:
    life = running(policy(restart, backoff=AT_ONCE)).on(Stop()).after(1.0, Ended(status))
    assert (life.phase, life.did, life.state.deadline, life.state.failure) == (Phase.EXITED, [], None, None)
    assert (life.state.status, life.state.pid, life.state.wanted_up) == (status, None, False)
    assert life.kinds[2:] == ["stopping", "exited", "stopped"]


def test_the_grace_period_ends_with_sigkill() -> None:
    life = running(policy()).on(Stop()).when_due()
    assert (life.phase, life.did, life.state.deadline) == (Phase.KILLING, [Signal(SIGKILL)], 3.0 + STUCK_S)
    assert life.fields("killing") == [{"grace_s": 3.0}]
    assert life.on(Ended(Signaled(SIGKILL))).phase is Phase.EXITED


def test_kill_gives_no_grace_period() -> None:
    life = running(policy()).on(Kill())
    assert (life.phase, life.did, life.state.deadline) == (Phase.KILLING, [Signal(SIGKILL)], life.now + STUCK_S)


def test_kill_cuts_the_grace_period_short_and_does_not_claim_that_it_passed() -> None:
    life = running(policy()).on(Stop()).after(1.0, Kill())
    assert (life.phase, life.did, life.state.deadline) == (Phase.KILLING, [Signal(SIGKILL)], life.now + STUCK_S)
    assert life.fields("killing") == [{}]


@pytest.mark.parametrize("again", [Stop(), Start(), Restart("db was restarted")])
def test_a_second_word_does_not_prolong_the_grace_period(again: Event) -> None:
    life = running(policy()).on(Stop()).after(1.0, again)
    assert (life.phase, life.did, life.state.deadline) == (Phase.STOPPING, [], 3.0)


@pytest.mark.parametrize("again", [Stop(), Kill()])
def test_sigkill_is_sent_once(again: Event) -> None:
    life = running(policy()).on(Kill(), again)
    assert (life.phase, life.did) == (Phase.KILLING, [])


@pytest.mark.parametrize("event", [Stop(), Kill()])
def test_a_launch_is_not_called_back(event: Event) -> None:
    life = starting(policy()).on(event)
    assert (life.phase, life.did, life.state.wanted_up) == (Phase.STARTING, [], False)


def test_a_stop_while_starting_proceeds_when_the_command_runs() -> None:
    life = starting(policy()).on(Stop()).after(1.0, Started(42))
    assert (life.phase, life.did, life.state.deadline) == (Phase.STOPPING, [Signal(SIGQUIT)], 1.0 + 3.0)
    assert life.kinds[1:] == ["started", "stopping"]


@pytest.mark.parametrize("words", [(Kill(),), (Stop(), Kill()), (Kill(), Stop())])
def test_a_kill_while_starting_proceeds_when_the_command_runs(words: tuple[Event, ...]) -> None:
    life = starting(policy()).on(*words).on(Started(42))
    assert (life.phase, life.did) == (Phase.KILLING, [Signal(SIGKILL)])


@pytest.mark.parametrize("event", [Stop(), Kill()])
def test_a_stop_while_starting_ends_with_a_start_that_fails_and_the_error_is_told(event: Event) -> None:
    life = starting(policy(RestartPolicy.ALWAYS, backoff=AT_ONCE)).on(event).on(StartFailed("no space"))
    assert (life.phase, life.did, life.state.failure) == (Phase.EXITED, [], None)
    assert life.kinds[1:] == ["start_failed", "stopped"]


@pytest.mark.parametrize("event", [Stop(), Kill()])
@pytest.mark.parametrize("before", [(), (Start(),)])
def test_a_stop_before_the_launch_is_final_at_once(before: tuple[Event, ...], event: Event) -> None:
    life = created(policy()).on(*before).on(event)
    assert (life.phase, life.did, life.kinds) == (Phase.EXITED, [], ["stopped"])
    assert life.on(DependenciesMet()).phase is Phase.EXITED


@pytest.mark.parametrize("event", [Stop(), Kill()])
def test_a_stop_ends_the_wait_for_a_restart(event: Event) -> None:
    life = crashed(policy(RestartPolicy.ALWAYS)).on(event)
    assert (life.phase, life.did, life.state.deadline) == (Phase.EXITED, [], None)


# --- again ------------------------------------------------------------------------------------------------------------


def test_start_after_a_stop_begins_anew() -> None:
    life = running(policy()).on(Stop(), Ended(Exited(0)), Start())
    assert (life.phase, life.state.wanted_up, life.state.status) == (Phase.WAITING, True, None)
    assert life.on(DependenciesMet(), Started(43)).phase is Phase.RUNNING


def test_start_after_a_kill_gives_grace_again() -> None:
    life = running(policy()).on(Kill(), Ended(Signaled(SIGKILL)), Start(), DependenciesMet(), Stop(), Started(43))
    assert (life.phase, life.did) == (Phase.STOPPING, [Signal(SIGQUIT)])


def test_start_after_giving_up_has_all_retries_again() -> None:
    life = crashed(policy(RestartPolicy.ON_FAILURE, max_retries=1, backoff=AT_ONCE))
    life.again().on(Started(43), Ended(Exited(1)))
    assert life.phase is Phase.FAILED
    life.on(Start(), DependenciesMet(), Started(44), Ended(Exited(1)))
    assert (life.phase, life.state.failure) == (Phase.WAITING, None)


def test_start_after_a_failed_dependency_waits_for_it_again() -> None:
    life = created(policy()).on(Start(), DependencyFailed("db failed"), Start())
    assert (life.phase, life.state.failure) == (Phase.WAITING, None)


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_what_it_does_without_is_told_before_it_starts() -> None:
    life = created(policy()).on(Start(), DependenciesMet(("cache failed",)))
    assert life.kinds == ["dependency_skipped", "starting"]
    assert life.fields("dependency_skipped") == [{"reason": "cache failed"}]


def test_a_wait_is_looked_at_again_when_it_may_have_been_long_enough() -> None:
    life = Life(State(policy(waits_s=(2.0, 5.0))), now=100.0).on(Start())
    assert life.when_due().did == [Ask()]
    assert life.now == 102.0
    assert life.when_due().did == [Ask()]
    assert (life.now, life.state.due_at) == (105.0, None)


def test_every_start_waits_for_dependencies_not_only_the_first() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS, waits_s=(2.0,))).when_due()
    assert (life.phase, life.did, life.state.due_at) == (Phase.WAITING, [], life.now + 2.0)
    assert life.on(DependencyFailed("db failed")).phase is Phase.FAILED
    assert life.state.failure == "not started: db failed"


def test_one_whose_dependency_went_while_it_queued_waits_again_and_no_longer_than_before() -> None:
    life = created(policy(waits_s=(2.0,))).on(Start()).after(1.0, DependenciesMet(), Deferred())
    assert (life.phase, life.state.due_at) == (Phase.WAITING, 2.0)
    assert life.on(DependenciesMet()).did == [Launch()]


def test_a_stop_while_it_queued_needs_no_launch() -> None:
    life = starting(policy()).on(Stop(), Deferred())
    assert (life.phase, life.kinds[1:]) == (Phase.EXITED, ["stopped"])


# --- ready ------------------------------------------------------------------------------------------------------------

PORT, SAYS = Ready(Tcp(80), timeout_s=4.0), Ready(Notify(), timeout_s=4.0)


def test_it_is_activating_until_its_ready_check_passes() -> None:
    life = running(policy(ready=PORT)).when_due()
    assert (life.phase, life.did) == (Phase.ACTIVATING, [Check(Tcp(80), 4.0)])
    life.after(0.5, Checked(passed=True))
    assert (life.phase, life.state.due_at) == (Phase.RUNNING, None)
    assert life.fields("ready") == [{"after_s": 0.52}]


def test_tries_come_at_twice_the_pause_each_time_up_to_a_second() -> None:
    life = running(policy(ready=Ready(Tcp(80), timeout_s=60.0)))
    pauses = []
    for _ in range(9):
        before = life.now
        pauses.append(round(life.when_due().now - before, 3))
        life.on(Checked(passed=False))
    assert pauses == [0.02, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]


def test_no_second_try_while_one_is_under_way() -> None:
    life = running(policy(ready=PORT)).when_due()
    assert life.state.due_at == 4.0


@pytest.mark.parametrize("probe", [Notify(), Log("up")])
def test_what_is_heard_of_is_not_tried(probe: Notify | Log) -> None:
    life = running(policy(ready=Ready(probe, timeout_s=4.0)))
    assert life.state.due_at == 4.0
    assert life.on(Heard(Notice(ready=True))).phase is Phase.RUNNING


def test_ready_that_is_said_where_it_is_tried_means_nothing() -> None:
    assert running(policy(ready=PORT)).on(Heard(Notice(ready=True))).phase is Phase.ACTIVATING


@pytest.mark.parametrize("restart", list(RestartPolicy))
def test_not_ready_in_time_is_a_failure_whatever_its_status(restart: RestartPolicy) -> None:
    life = running(policy(restart, ready=SAYS)).when_due()
    assert (life.phase, life.did) == (Phase.STOPPING, [Signal(SIGQUIT)])
    assert life.fields("not_ready") == [{"timeout_s": 4.0, "finding": ""}]
    life.on(Ended(Exited(0)))
    assert life.phase is (Phase.FAILED if restart is RestartPolicy.NO else Phase.BACKOFF)
    assert life.state.failure == ("not ready within 4 s" if restart is RestartPolicy.NO else None)


def test_the_last_finding_is_part_of_the_reason() -> None:
    life = running(policy(ready=PORT)).when_due().on(Checked(passed=False, detail="refused"))
    while life.phase is Phase.ACTIVATING:
        life.when_due()
    assert life.on(Ended(Exited(0))).state.failure == "not ready within 4 s (refused)"


def test_it_may_ask_for_more_time_but_never_for_less() -> None:
    life = running(policy(ready=SAYS)).after(3.0, Heard(Notice(extend_s=0.1)))
    assert life.state.due_at == 4.0
    assert life.on(Heard(Notice(extend_s=5.0))).state.due_at == 8.0


def test_what_it_says_of_itself_is_told_once() -> None:
    life = running(policy(ready=SAYS)).on(*[Heard(Notice(status="reading"))] * 2, Heard(Notice(status="done")))
    assert life.fields("status") == [{"status": "reading"}, {"status": "done"}]


def test_it_may_end_before_it_is_ready() -> None:
    assert running(policy(ready=SAYS)).on(Ended(Exited(0))).phase is Phase.EXITED


# --- health -----------------------------------------------------------------------------------------------------------

SICK, WELL = Checked(passed=False, detail="refused"), Checked(passed=True)


def health(on_unhealthy: OnUnhealthy = OnUnhealthy.RESTART, **more: Any) -> Health:
    fields = {"interval_s": 10.0, "timeout_s": 2.0, "retries": 2, "start_period_s": 3.0, "start_interval_s": 1.0}
    return Health(Tcp(80), on_unhealthy=on_unhealthy, **{**fields, **more})


def checked(life: Life, *answers: Checked) -> Life:
    for answer in answers:
        assert life.when_due().did == [Check(Tcp(80), 2.0)]
        life.on(answer)
    return life


def test_the_first_check_to_pass_makes_it_healthy_and_is_told_once() -> None:
    life = checked(running(policy(health=health())), WELL, WELL)
    assert (life.state.health, life.kinds[2:], life.now) == (HealthStatus.HEALTHY, ["healthy"], 11.0)


def test_checks_are_frequent_until_the_first_passes() -> None:
    life = checked(running(policy(health=health())), SICK, SICK)
    assert (life.now, life.state.due_at) == (2.0, 3.0)
    assert checked(life, WELL).state.due_at == 13.0


def test_failures_in_the_start_period_do_not_count() -> None:
    life = checked(running(policy(health=health())), SICK, SICK, SICK)
    assert (life.now, life.state.failing, life.phase) == (3.0, 1, Phase.RUNNING)
    assert checked(life, SICK).phase is Phase.STOPPING


def test_the_start_period_is_over_with_the_first_success() -> None:
    life = checked(running(policy(health=health(start_period_s=1000.0))), WELL, SICK, SICK)
    assert life.phase is Phase.STOPPING


def test_the_start_period_begins_when_it_is_ready() -> None:
    life = running(policy(ready=SAYS, health=health())).after(3.5, Heard(Notice(ready=True)))
    assert checked(life, SICK, SICK).state.failing == 0


def test_only_failures_in_a_row_count() -> None:
    life = checked(running(policy(health=health())), WELL, SICK, WELL, SICK, WELL, SICK)
    assert (life.state.health, life.phase) == (HealthStatus.HEALTHY, Phase.RUNNING)


@pytest.mark.parametrize("restart", list(RestartPolicy))
def test_unhealthy_is_restarted_whatever_the_policy_with_its_backoff(restart: RestartPolicy) -> None:
    life = checked(running(policy(restart, health=health(start_period_s=0))), SICK, SICK)
    assert (life.phase, life.did) == (Phase.STOPPING, [Signal(SIGQUIT)])
    assert life.fields("unhealthy") == [{"finding": "refused"}]
    life.on(Ended(Exited(0)))
    assert (life.phase, life.state.health, life.state.due_at) == (Phase.BACKOFF, None, life.now + 1.0)


def test_unhealthy_may_be_final() -> None:
    life = checked(running(policy(RestartPolicy.ALWAYS, health=health(OnUnhealthy.STOP))), WELL, SICK, SICK)
    assert life.on(Ended(Exited(0))).phase is Phase.FAILED
    assert life.state.failure == "unhealthy: refused"


def test_unhealthy_may_be_ignored_and_pass() -> None:
    life = checked(running(policy(health=health(OnUnhealthy.IGNORE))), WELL, SICK, SICK, SICK)
    assert (life.phase, life.state.health) == (Phase.RUNNING, HealthStatus.UNHEALTHY)
    checked(life, WELL)
    assert life.kinds[2:] == ["healthy", "unhealthy", "healthy"]


def test_a_stop_goes_before_what_was_to_follow_bad_health() -> None:
    life = checked(running(policy(health=health())), WELL, SICK, SICK).on(Stop(), Ended(Exited(0)))
    assert (life.phase, life.kinds[-1]) == (Phase.EXITED, "stopped")


def test_an_answer_that_comes_too_late_is_ignored() -> None:
    life = running(policy(health=health())).when_due().on(Stop(), SICK)
    assert (life.phase, life.did) == (Phase.STOPPING, [])


def watched(on_unhealthy: OnUnhealthy = OnUnhealthy.RESTART) -> Life:
    return running(policy(health=Health(Notify(), on_unhealthy=on_unhealthy, watchdog_s=5.0)))


ALIVE, TRIGGER = Heard(Notice(alive=True)), Heard(Notice(alive=False))


def test_one_that_speaks_often_enough_is_healthy() -> None:
    life = watched().after(4.0, ALIVE).after(4.0, ALIVE)
    assert (life.state.health, life.state.due_at) == (HealthStatus.HEALTHY, 13.0)


def test_one_that_is_silent_for_too_long_is_unhealthy() -> None:
    life = watched().after(4.0, ALIVE).when_due()
    assert (life.now, life.phase) == (9.0, Phase.STOPPING)
    assert life.fields("unhealthy") == [{"finding": "silent for 5 s (no WATCHDOG=1)"}]


def test_one_that_asks_for_it_is_unhealthy_at_once() -> None:
    life = watched().on(ALIVE, TRIGGER)
    assert life.phase is Phase.STOPPING
    assert life.fields("unhealthy") == [{"finding": "it reported a failure (WATCHDOG=trigger)"}]


def test_silence_that_is_ignored_is_told_once() -> None:
    life = watched(OnUnhealthy.IGNORE).when_due().when_due()
    assert (life.now, life.phase, life.kinds.count("unhealthy")) == (10.0, Phase.RUNNING, 1)


@pytest.mark.parametrize("notice", [Notice(alive=True), Notice(alive=False), Notice(ready=True)])
def test_a_watchdog_that_nobody_set_does_not_bark(notice: Notice) -> None:
    life = running(policy()).on(Heard(notice))
    assert (life.phase, life.state.health, life.did) == (Phase.RUNNING, None, [])


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ready", [None, Ready(Notify(), timeout_s=60.0)])
def test_a_run_that_takes_too_long_has_failed(ready: Ready | None) -> None:
    life = running(policy(timeout_s=7.0, ready=ready)).when_due()
    assert (life.now, life.phase, life.fields("timed_out")) == (7.0, Phase.STOPPING, [{"timeout_s": 7.0}])
    assert life.on(Ended(Exited(0))).state.failure == "not done within 7 s"


def test_a_run_that_takes_too_long_is_tried_again_as_the_policy_says() -> None:
    life = running(policy(RestartPolicy.ON_FAILURE, 1, timeout_s=7.0)).when_due().on(Ended(Exited(0)))
    assert life.phase is Phase.BACKOFF
    assert life.again().on(Started(43)).when_due().on(Ended(Exited(0))).phase is Phase.FAILED


def test_the_time_limit_is_of_each_run() -> None:
    life = running(policy(RestartPolicy.ALWAYS, timeout_s=7.0)).after(6.0, Ended(CRASH)).again().on(Started(43))
    assert life.state.due_at == life.now + 7.0


def test_restarts_within_the_window_are_limited_and_all_runs_count() -> None:
    limited = policy(RestartPolicy.ALWAYS, max_restarts=2, window_s=60.0, backoff=AT_ONCE)
    life = running(limited)
    for _ in range(2):
        life.after(20.0, Ended(Exited(0))).again().on(Started(43))
    assert life.after(19.0, Ended(Exited(0))).phase is Phase.FAILED
    assert life.state.failure == "exited with status 0; restarted 2 times within 60 s"


def test_restarts_before_the_window_are_forgotten() -> None:
    life = running(policy(RestartPolicy.ALWAYS, max_restarts=2, window_s=60.0, backoff=AT_ONCE))
    for _ in range(9):
        life.after(30.0, Ended(Exited(0))).again().on(Started(43))
    assert life.phase is Phase.RUNNING


def test_restarts_for_bad_health_are_limited_too() -> None:
    life = running(policy(max_restarts=1, backoff=AT_ONCE, health=health(start_period_s=0, retries=1)))
    checked(life, SICK).on(Ended(Exited(0))).again().on(Started(43))
    assert checked(life, SICK).on(Ended(Exited(0))).phase is Phase.FAILED


def test_a_restart_that_is_not_its_own_fault_counts_for_nothing() -> None:
    life = running(policy(max_restarts=1))
    for _ in range(5):
        life.on(Restart("db was restarted"), Ended(Exited(0)), DependenciesMet(), Started(43))
    assert (life.phase, life.state.restarts, life.state.retries, life.state.recent) == (Phase.RUNNING, 5, 0, ())


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Ended(Exited(75)), Phase.BACKOFF),
        (Ended(Exited(1)), Phase.FAILED),
        (Ended(Signaled(9)), Phase.FAILED),
        (Ended(Signaled(9), oom=True), Phase.BACKOFF),
        (Ended(Signaled(11)), Phase.BACKOFF),
        (Ended(Exited(0)), Phase.EXITED),
    ],
)
def test_restart_on_names_the_ends_that_are_worth_it(event: Event, expected: Phase) -> None:
    only = RestartOn(frozenset({75}), frozenset({11}), oom=True)
    assert running(policy(RestartPolicy.ALWAYS, restart_on=only)).on(event).phase is expected


@pytest.mark.parametrize(("code", "expected"), [(0, Phase.FAILED), (3, Phase.EXITED), (1, Phase.FAILED)])
def test_success_is_what_the_policy_says(code: int, expected: Phase) -> None:
    assert crashed(policy(success_codes=frozenset({3})), Exited(code)).phase is expected


# --- restarts asked for -----------------------------------------------------------------------------------------------


def test_a_restart_stops_it_and_starts_it_without_a_backoff() -> None:
    life = running(policy(RestartPolicy.NO)).on(Restart("db was restarted"))
    assert (life.phase, life.did) == (Phase.STOPPING, [Signal(SIGQUIT)])
    life.on(Ended(CRASH))
    assert (life.phase, life.fields("restarting")) == (Phase.WAITING, [{"reason": "db was restarted"}])


def test_a_restart_while_starting_proceeds_when_the_command_runs() -> None:
    life = starting(policy()).on(Restart("db was restarted"), Started(42))
    assert (life.phase, life.did) == (Phase.STOPPING, [Signal(SIGQUIT)])
    assert life.on(Ended(Exited(0))).phase is Phase.WAITING


@pytest.mark.parametrize("word", [Stop(), Kill()])
def test_a_stop_goes_before_a_restart_that_was_remembered(word: Event) -> None:
    life = starting(policy()).on(Restart("db was restarted"), word, Started(42), Ended(Signaled(SIGKILL)))
    assert (life.phase, life.state.wanted_up) == (Phase.EXITED, False)


def test_a_restart_that_was_remembered_is_done_with_a_start_that_fails_or_is_deferred() -> None:
    life = starting(policy()).on(Restart("db was restarted"), Deferred(), DependenciesMet(), Started(42))
    assert life.phase is Phase.RUNNING
    life = starting(policy(RestartPolicy.ALWAYS)).on(Restart("db was restarted"), StartFailed("no space"))
    assert life.again().on(Started(42)).phase is Phase.RUNNING


@pytest.mark.parametrize("word", [Stop(), Kill()])
def test_a_stop_goes_before_a_restart_under_way(word: Event) -> None:
    life = running(policy()).on(Restart("db was restarted"), word, Ended(Exited(0)))
    assert (life.phase, life.kinds[-1]) == (Phase.EXITED, "stopped")


@pytest.mark.parametrize("asked", [Stop(), Kill()])
def test_a_start_while_it_is_being_stopped_is_done_when_it_has_ended(asked: Event) -> None:
    life = running(policy()).on(asked, Start()).after(1.0, Ended(CRASH))
    assert (life.phase, life.state.wanted_up, life.state.failure) == (Phase.WAITING, True, None)
    assert life.on(DependenciesMet(), Started(43), Stop()).phase is Phase.STOPPING


def test_a_start_takes_a_stop_back_while_the_launch_is_under_way() -> None:
    assert starting(policy()).on(Kill(), Start(), Started(42)).phase is Phase.RUNNING


def test_a_start_while_it_waits_for_a_restart_is_at_once() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS)).on(Start())
    assert (life.phase, life.state.retries) == (Phase.WAITING, 0)


@pytest.mark.parametrize("event", [Stop(grace_s=1.0), Restart("asked for", grace_s=1.0)])
def test_a_stop_may_bring_its_own_grace_period(event: Event) -> None:
    life = running(policy()).on(event).when_due()
    assert (life.now, life.phase, life.fields("killing")) == (1.0, Phase.KILLING, [{"grace_s": 1.0}])


# --- the stop command, and the stuck ----------------------------------------------------------------------------------

QUIT = ("app", "quit")


@pytest.mark.parametrize(("error", "kinds"), [("", []), ("exit status 1", ["stop_command_failed"])])
def test_the_stop_command_comes_before_the_stop_signal(error: str, kinds: list[str]) -> None:
    life = running(policy(stop_cmd=QUIT)).on(Stop())
    assert (life.phase, life.did) == (Phase.STOPPING, [Quiesce(QUIT, 3.0)])
    life.after(1.0, Quiesced(error))
    assert (life.did, life.state.due_at, life.kinds[3:]) == ([Signal(SIGQUIT)], 3.0, kinds)


def test_the_grace_period_is_for_the_stop_command_too() -> None:
    life = running(policy(stop_cmd=QUIT)).on(Stop()).when_due()
    assert (life.now, life.phase, life.did) == (3.0, Phase.KILLING, [Signal(SIGKILL)])
    assert life.on(Quiesced()).did == []


def test_one_that_ends_by_its_stop_command_needs_no_signal() -> None:
    life = running(policy(stop_cmd=QUIT)).on(Stop(), Ended(Exited(0)))
    assert (life.phase, life.did) == (Phase.EXITED, [])


def test_it_may_ask_for_more_time_to_stop() -> None:
    life = running(policy()).on(Stop()).after(2.0, Heard(Notice(extend_s=9.0, status="flushing")))
    assert (life.state.due_at, life.kinds[-1]) == (11.0, "status")


def test_nobody_waits_for_a_run_that_the_kernel_does_not_let_go_of() -> None:
    life = running(policy()).on(Kill()).when_due()
    assert (life.now, life.phase, life.state.due_at) == (STUCK_S, Phase.STUCK, None)
    assert (life.kinds[-1], life.state.failure) == ("stuck", "killed, but the kernel does not let go of it")


def test_the_stuck_may_come_free_after_all() -> None:
    life = running(policy()).on(Kill()).when_due().after(500.0, Ended(Signaled(SIGKILL)))
    assert (life.phase, life.state.failure) == (Phase.EXITED, None)


def test_one_that_comes_free_goes_on_as_was_decided() -> None:
    life = running(policy()).on(Restart("db was restarted")).when_due().when_due()
    assert life.phase is Phase.STUCK
    assert life.on(Ended(Signaled(SIGKILL))).phase is Phase.WAITING


def test_a_start_of_the_stuck_waits_until_it_comes_free() -> None:
    life = running(policy()).on(Kill()).when_due().on(Start())
    assert (life.phase, life.did) == (Phase.STUCK, [])
    assert life.on(Ended(Signaled(SIGKILL))).phase is Phase.WAITING


# --- what can't happen ------------------------------------------------------------------------------------------------


def test_a_second_answer_to_one_launch_is_illegal() -> None:
    with pytest.raises(IllegalEventError, match="Started can't happen while running"):
        running(policy()).on(Started(43))


def test_an_end_without_a_run_is_illegal() -> None:
    with pytest.raises(IllegalEventError, match="Ended can't happen while backoff"):
        crashed(policy(RestartPolicy.ALWAYS)).on(Ended(Exited(0)))


# --- another policy ---------------------------------------------------------------------------------------------------


def test_the_next_end_is_judged_by_the_new_policy() -> None:
    assert running(policy()).on(Adapt(policy(RestartPolicy.ALWAYS)), Ended(CRASH)).phase is Phase.BACKOFF


def test_a_time_limit_counts_from_the_start_of_the_run() -> None:
    life = running(policy()).after(5.0, Adapt(policy(timeout_s=8.0)))
    assert life.state.due_at == 8.0
    assert life.on(Adapt(policy())).state.due_at is None


def test_a_backoff_is_no_longer_than_the_new_policy_allows() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS, backoff=Backoff(initial_s=100.0, max_s=100.0, jitter=0.0)))
    assert life.on(Adapt(policy(RestartPolicy.ALWAYS))).state.due_at == life.now + 5.0


def test_who_is_not_ready_is_tried_by_the_new_check_and_has_its_time_from_the_start() -> None:
    life = running(policy(ready=Ready(Tcp(80), timeout_s=60.0))).after(5.0, Adapt(policy(ready=Ready(Tcp(81), 20.0))))
    assert (life.phase, life.state.deadline) == (Phase.ACTIVATING, 20.0)
    assert life.when_due().did == [Check(Tcp(81), 10.0)]
    assert life.on(Adapt(policy())).phase is Phase.RUNNING


def test_a_line_that_nobody_has_looked_for_is_looked_for_by_a_new_run() -> None:
    life = running(policy(ready=Ready(Tcp(80)))).on(Adapt(policy(ready=Ready(Log("up")))))
    assert life.phase is Phase.STOPPING
    assert life.on(Ended(Exited(0))).phase is Phase.WAITING


def test_another_health_check_begins_anew_and_another_rhythm_keeps_what_was_found() -> None:
    health = Health(Tcp(80), interval_s=30.0, start_interval_s=1.0)
    life = running(policy(health=health)).when_due().on(Checked(passed=True))
    assert life.on(Adapt(policy(health=Health(Tcp(80), interval_s=5.0)))).state.health is HealthStatus.HEALTHY
    assert life.state.check_at == life.now + 5.0
    assert life.on(Adapt(policy(health=Health(Tcp(81))))).state.health is HealthStatus.STARTING
    assert life.on(Adapt(policy())).state.health is None


def test_an_answer_to_a_check_that_there_is_no_more_changes_nothing() -> None:
    life = running(policy(health=Health(Tcp(80)))).when_due().on(Adapt(policy()), Checked(passed=False))
    assert (life.phase, life.state.health, life.state.due_at) == (Phase.RUNNING, None, None)


# --- paused -----------------------------------------------------------------------------------------------------------


def test_nothing_of_a_paused_one_is_due_and_its_check_comes_after_a_whole_interval() -> None:
    life = checked(running(policy(health=health(), timeout_s=100.0)), WELL).after(4.0, Pause())
    assert (life.did, life.state.due_at, life.phase) == ([Freeze()], None, Phase.RUNNING)
    life.after(3600.0, Unpause())
    assert (life.did, life.state.check_at, life.state.limit_at) == ([Thaw()], life.now + 10.0, 3600.0 + 100.0)
    assert life.kinds[-2:] == ["paused", "unpaused"]


def test_a_check_that_a_pause_calls_off_does_not_count() -> None:
    life = checked(running(policy(health=health())), WELL, SICK).when_due().on(Pause()).after(60.0, Unpause())
    assert (life.state.failing, life.state.due_at) == (1, life.now + 10.0)


def test_the_start_period_and_the_time_to_become_ready_stand_still() -> None:
    life = running(policy(ready=Ready(Tcp(80), timeout_s=5.0))).after(4.0, Pause()).after(60.0, Unpause())
    assert (life.state.deadline, life.state.check_at) == (65.0, 64.02)
    life = running(policy(health=health())).after(1.0, Pause()).after(60.0, Unpause())
    assert checked(life, SICK).state.failing == 0  # 2 s of the 3 s


def test_a_watchdog_waits_afresh_for_one_that_was_paused() -> None:
    life = watched().on(ALIVE).after(4.9, Pause()).after(60.0, Unpause())
    assert life.state.due_at == life.now + 5.0


@pytest.mark.parametrize("event", [Stop(), Restart("asked for")])
def test_a_paused_one_is_stopped_as_any_other_with_its_whole_grace(event: Event) -> None:
    life = running(policy(timeout_s=9.0)).on(Pause()).after(60.0, event)
    assert (life.phase, life.did, life.state.due_at) == (Phase.STOPPING, [Signal(SIGQUIT)], 63.0)
    life.after(1.0, Ended(Exited(0)))
    assert life.fields("exited")[0]["ran_s"] == 1.0


def test_a_paused_one_that_ends_has_run_until_it_was_paused() -> None:
    life = running(policy(RestartPolicy.ALWAYS)).after(2.0, Pause()).after(60.0, Ended(Signaled(SIGKILL)))
    assert (life.fields("exited")[0]["ran_s"], life.phase) == (2.0, Phase.BACKOFF)
    assert life.again().on(Started(43)).state.paused_at is None


def test_another_policy_for_a_paused_one_counts_from_when_it_goes_on() -> None:
    life = running(policy()).after(2.0, Pause(), Adapt(policy(timeout_s=5.0, health=health())))
    assert life.state.due_at is None
    life.after(60.0, Unpause())
    assert (life.state.limit_at, life.state.check_at) == (65.0, 63.0)


def test_to_pause_twice_or_what_does_not_run_changes_nothing() -> None:
    life = running(policy()).on(Pause()).after(1.0, Pause())
    assert (life.did, life.state.paused_at) == ([], 0.0)
    assert life.on(Unpause(), Unpause()).did == []
    assert starting(policy()).on(Pause()).state.paused_at is None
