"""How a container is stopped, killed and restarted when somebody asks for it, told case by case."""

from signal import SIGKILL, SIGQUIT

import pytest
from life import AT_ONCE, CRASH, crashed, created, policy, running, starting

from runtime.status import Exited, Signaled, Status
from supervisor.core.checks import Notice
from supervisor.core.moves import STUCK_S
from supervisor.core.policy import RestartPolicy
from supervisor.core.states import (
    Deferred,
    DependenciesMet,
    DependencyFailed,
    Ended,
    Event,
    Heard,
    Kill,
    Phase,
    Quiesce,
    Quiesced,
    Restart,
    Signal,
    Start,
    Started,
    StartFailed,
    Stop,
)

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
