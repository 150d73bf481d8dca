"""What one container does next when it starts and when it ends, told case by case: a `Life` is driven through events,
and says what was asked of it.
"""

import pytest
from life import AT_ONCE, CRASH, FAILURES, RESTARTING, Life, crashed, created, policy, running, starting

from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import Notify, Ready
from supervisor.core.machine import IllegalEventError, step
from supervisor.core.policy import Backoff, RestartOn, RestartPolicy
from supervisor.core.states import (
    Ask,
    Deferred,
    DependenciesMet,
    DependencyFailed,
    Ended,
    Event,
    Launch,
    Phase,
    Restart,
    Start,
    Started,
    StartFailed,
    State,
    Stop,
)

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


# --- what can't happen ------------------------------------------------------------------------------------------------


def test_a_second_answer_to_one_launch_is_illegal() -> None:
    with pytest.raises(IllegalEventError, match="Started can't happen while running"):
        running(policy()).on(Started(43))


def test_an_end_without_a_run_is_illegal() -> None:
    with pytest.raises(IllegalEventError, match="Ended can't happen while backoff"):
        crashed(policy(RestartPolicy.ALWAYS)).on(Ended(Exited(0)))
