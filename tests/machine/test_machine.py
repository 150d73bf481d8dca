"""What one container does next, told case by case: a `Life` is driven through events, and says what was asked of it."""

from dataclasses import dataclass, field
from signal import SIGKILL, SIGQUIT, SIGTERM

import pytest

from runtime.status import Exited, Signaled, Status
from supervisor.states import (
    DependenciesMet,
    DependencyFailed,
    Due,
    Ended,
    Event,
    IllegalEventError,
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

BACKOFF = Backoff(initial_s=1.0, max_s=5.0, factor=2.0, jitter=0.0, reset_after_s=10.0)
AT_ONCE = Backoff(initial_s=0.0, reset_after_s=10.0)
RESTARTING = [RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED]
CRASH = Exited(1)
FAILURES = [CRASH, Exited(255), Signaled(SIGKILL), Signaled(SIGTERM)]


def policy(
    restart: RestartPolicy = RestartPolicy.NO, max_retries: int | None = None, backoff: Backoff = BACKOFF
) -> Policy:
    return Policy(restart, max_retries, backoff, stop_signal=SIGQUIT, stop_grace_s=3.0)


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

    def at_deadline(self) -> "Life":
        assert self.state.deadline is not None
        return self.after(self.state.deadline - self.now, Due())

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
    assert life.at_deadline().did == [Launch()]


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
    life.at_deadline()
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
    assert (life.phase, life.did, life.state.deadline) == (Phase.STARTING, [Launch()], None)
    assert life.kinds[2:] == ["exited", "restarting", "starting"]
    assert life.fields("restarting") == [{"delay_s": 0.0, "retry": 1}]


def test_waits_grow_while_it_keeps_crashing() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS))
    for _ in range(4):
        life.at_deadline().on(Started(43)).after(0.5, Ended(Exited(1)))
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
    life.at_deadline().on(Started(43)).after(0.5, Ended(Exited(1)))
    life.at_deadline().on(Started(44)).after(ran_s, Ended(Exited(1)))
    assert life.fields("restarting")[-1]["delay_s"] == expected


def test_a_run_that_began_at_0_by_the_clock_is_measured_too() -> None:
    life = running(policy(RestartPolicy.ALWAYS))
    assert life.state.started_at == 0.0
    assert life.after(12.0, Ended(Exited(1))).fields("exited")[0]["ran_s"] == 12.0


def test_stability_is_measured_from_the_exec_of_the_last_run() -> None:
    life = crashed(policy(RestartPolicy.ALWAYS)).at_deadline()
    life.after(60.0, Started(43)).after(0.5, Ended(Exited(1)))  # a launch of a minute is no stable run
    assert life.fields("restarting")[-1]["retry"] == 2


def test_on_failure_2_gives_up_after_2_restarts() -> None:
    life = crashed(policy(RestartPolicy.ON_FAILURE, max_retries=2))
    for _ in range(2):
        life.at_deadline().on(Started(43)).after(0.5, Ended(Exited(1)))
    assert (life.phase, life.did, life.state.restarts) == (Phase.FAILED, [], 2)
    assert life.fields("gave_up") == [{"reason": "exited with status 1", "retries": 2}]


def test_a_stable_run_gives_all_retries_back() -> None:
    life = crashed(policy(RestartPolicy.ON_FAILURE, max_retries=1))
    life.at_deadline().on(Started(43)).after(10.0, Ended(Exited(1)))
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
    assert life.at_deadline().on(StartFailed("no space", 125)).state.deadline == 1.0 + 2.0


def test_failed_starts_use_up_retries() -> None:
    life = starting(policy(RestartPolicy.ON_FAILURE, max_retries=1)).on(StartFailed("no space"))
    life.at_deadline().on(StartFailed("no space"))
    assert (life.phase, life.state.failure) == (Phase.FAILED, "no space")


def test_the_same_start_error_is_told_once_in_a_row() -> None:
    life = starting(policy(RestartPolicy.ALWAYS)).on(StartFailed("no space"))
    life.at_deadline().on(StartFailed("no space"))
    assert life.fields("start_failed") == [{"error": "no space", "exit_status": 125}]
    life.at_deadline().on(StartFailed("no memory"))
    assert [fields["error"] for fields in life.fields("start_failed")] == ["no space", "no memory"]


def test_a_start_error_is_told_again_after_a_run() -> None:
    life = starting(policy(RestartPolicy.ALWAYS)).on(StartFailed("no space"))
    life.at_deadline().on(Started(42), Ended(Exited(1))).at_deadline().on(StartFailed("no space"))
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
    life = running(policy()).on(Stop()).at_deadline()
    assert (life.phase, life.did, life.state.deadline) == (Phase.KILLING, [Signal(SIGKILL)], None)
    assert life.fields("killing") == [{"grace_s": 3.0}]
    assert life.on(Ended(Signaled(SIGKILL))).phase is Phase.EXITED


def test_kill_gives_no_grace_period() -> None:
    life = running(policy()).on(Kill())
    assert (life.phase, life.did, life.state.deadline) == (Phase.KILLING, [Signal(SIGKILL)], None)


def test_kill_cuts_the_grace_period_short_and_does_not_claim_that_it_passed() -> None:
    life = running(policy()).on(Stop()).after(1.0, Kill())
    assert (life.phase, life.did, life.state.deadline) == (Phase.KILLING, [Signal(SIGKILL)], None)
    assert life.fields("killing") == [{}]


@pytest.mark.parametrize("again", [Stop(), Start()])
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
def test_a_stop_while_starting_ends_with_a_start_that_fails(event: Event) -> None:
    life = starting(policy(RestartPolicy.ALWAYS, backoff=AT_ONCE)).on(event).on(StartFailed("no space"))
    assert (life.phase, life.did, life.state.failure) == (Phase.EXITED, [], None)


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
    life.on(Started(43), Ended(Exited(1)))
    assert life.phase is Phase.FAILED
    life.on(Start(), DependenciesMet(), Started(44), Ended(Exited(1)))
    assert (life.phase, life.state.failure, life.did) == (Phase.STARTING, None, [Launch()])


def test_start_after_a_failed_dependency_waits_for_it_again() -> None:
    life = created(policy()).on(Start(), DependencyFailed("db failed"), Start())
    assert (life.phase, life.state.failure) == (Phase.WAITING, None)


# --- what can't happen ------------------------------------------------------------------------------------------------


def test_a_second_answer_to_one_launch_is_illegal() -> None:
    with pytest.raises(IllegalEventError, match="Started can't happen while running"):
        running(policy()).on(Started(43))


def test_an_end_without_a_run_is_illegal() -> None:
    with pytest.raises(IllegalEventError, match="Ended can't happen while backoff"):
        crashed(policy(RestartPolicy.ALWAYS)).on(Ended(Exited(0)))
