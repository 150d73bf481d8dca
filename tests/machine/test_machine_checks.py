"""Whether a container is ready and healthy, and what follows from that, told case by case."""

from signal import SIGKILL, SIGQUIT
from typing import Any

import pytest
from life import AT_ONCE, CRASH, Life, crashed, policy, running, starting

from runtime.status import Exited, Signaled
from supervisor.core.checks import Health, Log, Notice, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.moves import FROZEN_LOOK_S
from supervisor.core.policy import Backoff, RestartPolicy
from supervisor.core.states import (
    Adapt,
    Check,
    Checked,
    Ended,
    Event,
    Freeze,
    Frozen,
    HealthStatus,
    Heard,
    Pause,
    Phase,
    Restart,
    Signal,
    Started,
    Stop,
    Thaw,
    Unpause,
)

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
    assert life.when_due().fields("not_ready") == [{"timeout_s": 8.0, "finding": ""}]  # not the 4 s of its spec


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


def test_restarts_for_bad_health_are_limited_too() -> None:
    life = running(policy(max_restarts=1, backoff=AT_ONCE, health=health(start_period_s=0, retries=1)))
    checked(life, SICK).on(Ended(Exited(0))).again().on(Started(43))
    assert checked(life, SICK).on(Ended(Exited(0))).phase is Phase.FAILED


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


# --- frozen by others -------------------------------------------------------------------------------------------------


def test_what_others_have_frozen_is_looked_at_until_it_goes_on_and_not_checked() -> None:
    life = checked(running(policy(health=health())), WELL).after(10.0, Frozen())
    for _ in range(100):
        assert (life.did, life.state.due_at) == ([], life.now + FROZEN_LOOK_S)
        life.after(FROZEN_LOOK_S, Frozen())
    assert life.when_due().did == []
    assert (life.state.paused_at, life.state.failing, life.state.due_at) == (None, 0, life.now + 10.0)
    assert life.kinds[-2:] == ["frozen", "unpaused"]


def test_a_check_of_what_others_have_frozen_does_not_count() -> None:
    life = checked(running(policy(health=health())), WELL, SICK).when_due().on(Frozen()).when_due()
    assert (life.state.failing, life.state.due_at) == (1, life.now + 10.0)


def test_who_is_silent_because_others_have_frozen_it_is_not_unhealthy() -> None:
    life = watched().on(ALIVE).after(5.0, Frozen()).when_due()
    assert (life.phase, life.state.due_at) == (Phase.RUNNING, life.now + 5.0)


def test_no_time_runs_out_for_what_others_have_frozen() -> None:
    life = running(policy(ready=SAYS)).after(4.0, Frozen()).when_due()
    assert (life.phase, life.state.due_at) == (Phase.ACTIVATING, life.now + 4.0)
    life = running(policy(timeout_s=4.0)).after(4.0, Frozen()).when_due()
    assert (life.phase, life.state.due_at) == (Phase.RUNNING, life.now + FROZEN_LOOK_S)
    assert life.when_due().phase is Phase.STOPPING


def test_what_others_have_frozen_may_be_paused_too_and_is_then_not_looked_at() -> None:
    life = running(policy(health=health())).after(1.0, Frozen()).after(1.0, Pause())
    assert (life.did, life.state.due_at, life.state.paused_at) == ([Freeze()], None, 1.0)
    assert life.on(Frozen()).state.due_at is None
    assert (life.on(Unpause()).did, life.state.paused_at) == ([Thaw()], None)


def test_what_others_have_frozen_is_stopped_as_any_other() -> None:
    life = running(policy(health=health())).after(1.0, Frozen(), Stop())
    assert (life.phase, life.did, life.state.due_at) == (Phase.STOPPING, [Signal(SIGQUIT)], life.now + 3.0)
