"""What a stack does at which second, in virtual time: checks, stops, limits, a supervisor that was away, thousands."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from fake import CRASH, DONE, FOREVER, NEVER, STUBBORN, FakeRunner, Script
from stage import (
    COMPLETED,
    LOOKED_AT,
    Play,
    entries,
    on_stage,
    on_virtual_clock,
    play,
)

from runtime.status import Exited
from supervisor.core.checks import Health, Notify, Ready, Verdict
from supervisor.core.moves import STUCK_S
from supervisor.core.policy import Condition, Dependency
from supervisor.core.states import Event
from supervisor.entry import Entry
from supervisor.stack.service import Service
from supervisor.stack.tree import CHECKS_MAX, Stack

SIGTERM, SIGKILL = 15, 9


# --- exact times, in virtual time only --------------------------------------------------------------------------------


def test_a_crash_loop_of_a_year_stays_within_its_limit() -> None:
    year_s = 365 * 24 * 3600.0
    web = entries("web", restart="always", initial_s=0.1, max_s=36000)
    seen: Play = on_virtual_clock(play, web, {"web": CRASH}, [(year_s, "stop")])
    starts = seen.times("web", "start")
    assert max(map(float.__sub__, starts[1:], starts)) == pytest.approx(36000)
    assert seen.ended_s == pytest.approx(year_s)


def test_chance_spreads_restarts_that_would_come_together() -> None:
    chances = iter([step / 1000 for step in range(1000)])
    web = entries("web", replicas=20, restart="always", initial_s=10, jitter=0.5)
    seen: Play = on_virtual_clock(
        partial(play, chance=lambda: next(chances)), web, {"web": [CRASH, FOREVER]}, [(60, "stop")]
    )
    again = [seen.times(f"web.{number}", "start")[1] for number in range(1, 21)]
    assert len(set(again)) == 20
    assert all(5 <= at_s <= 15 for at_s in again)


def test_an_idle_stack_sets_no_timer() -> None:
    async def next_deadline() -> float:
        async with FakeRunner() as runner, anyio.create_task_group() as tasks:
            stack = Stack(entries("web", replicas=50), runner, lambda *_: None, starts_max=8)
            tasks.start_soon(stack.run)
            with anyio.move_on_after(10):
                await anyio.sleep_forever()
            deadline = trio.lowlevel.current_statistics().seconds_to_next_deadline
            stack.kill()
            while runner.live:
                await anyio.lowlevel.checkpoint()
        return deadline

    assert on_virtual_clock(next_deadline) == math.inf


# --- health -----------------------------------------------------------------------------------------------------------


def test_an_unhealthy_container_is_restarted_and_so_are_its_dependents() -> None:
    healthy = Dependency(Condition.HEALTHY, restart=True)
    stack = [*entries("web", conditions={"db": healthy}), *entries("db", health=LOOKED_AT, initial_s=1)]
    seen = on_stage(stack, {"db": [Script(sick_s=10), FOREVER]}, [(60, "stop")])
    assert seen.events("db")[:6] == ["starting", "started", "healthy", "unhealthy", "stopping", "exited"]
    unhealthy_s = next(each.at_s for each in seen.told if each.event == "unhealthy")
    assert seen.times("db", "start") == [0.0, unhealthy_s + 1]
    assert seen.times("web", "start") == [0.5, unhealthy_s + 1.5]
    assert seen.summary.failed == ()


def test_checks_of_one_container_never_overlap_however_slow_they_are() -> None:
    health = replace(LOOKED_AT, interval_s=0.1, timeout_s=60.0)
    seen = on_stage(entries("db", health=health), {"db": Script(check_s=5)}, [(60, "stop")])
    assert seen.runner.checking_max == 1
    assert len(seen.containers("check")) == 12


def test_of_thousands_only_so_many_are_checked_at_once() -> None:
    seen = on_stage(entries("db", replicas=500, health=LOOKED_AT), {"db": Script(check_s=0.1)}, [(3, "stop")])
    assert seen.runner.checking_max == CHECKS_MAX
    assert set(seen.containers("check")) == {f"db.{number}" for number in range(1, 501)}


def test_a_check_ends_with_its_run() -> None:
    seen = on_stage(entries("db", health=replace(LOOKED_AT, timeout_s=60.0)), {"db": Script(check_s=50, runs_s=3)})
    assert seen.ended_s == 3.0


# --- stop -------------------------------------------------------------------------------------------------------------


def test_the_stop_command_comes_first_and_the_stop_signal_when_it_is_done() -> None:
    seen = on_stage(entries("db", stop_cmd=("quit",)), {"db": Script(command_s=3)}, [(1, "stop")])
    assert (seen.times("db", "command"), seen.times("db", "signal", SIGTERM)) == ([1.0], [4.0])


def test_a_stop_command_that_hangs_costs_no_more_than_the_grace_period() -> None:
    hanging = replace(STUBBORN, command_s=NEVER)  # at its end the stop signal may come first, of which nothing follows
    seen = on_stage(entries("db", stop_cmd=("quit",), stop_grace_s=5), {"db": hanging}, [(1, "stop")])
    assert seen.signals("db")[-1] == SIGKILL
    assert seen.ended_s == 6.0
    told = "its stop command has not ended" in seen.fields("db", "killing").values()
    assert told is (seen.signals("db") == [SIGKILL])  # or that it has failed was told before


def test_a_stop_command_that_has_ended_is_not_to_blame() -> None:
    seen = on_stage(entries("db", stop_cmd=("quit",), stop_grace_s=5), {"db": STUBBORN}, [(1, "stop")])
    assert seen.signals("db") == [SIGTERM, SIGKILL]
    assert seen.fields("db", "killing") == {"grace_s": 5}


def test_a_stop_command_that_fails_is_told_and_the_signal_sent() -> None:
    script = Script(command=Verdict(passed=False, detail="exit status 1"))
    seen = on_stage(entries("db", stop_cmd=("quit",)), {"db": script}, [(1, "stop")])
    assert seen.fields("db", "stop_command_failed") == {"error": "exit status 1"}
    assert seen.signals("db") == [SIGTERM]


def test_the_stuck_block_neither_those_they_need_nor_the_end() -> None:
    stack = [*entries("web", "db"), *entries("db"), *entries("other")]
    stuck = replace(STUBBORN, dies_s=NEVER)
    seen = on_stage(stack, {"web": stuck}, [(1, "stop")])
    assert seen.times("other", "buried") == [1.0]
    assert seen.times("db", "signal", SIGTERM) == [1 + 10 + STUCK_S]
    assert seen.failed == {"web": "killed, but the kernel does not let go of it"}
    assert seen.fields("web", "stuck") == {"after_s": STUCK_S, "why": "state D"}


def test_the_stuck_fail_those_who_wait_for_them() -> None:
    db = entries("db", timeout_s=1, restart="always", stop_grace_s=1)
    stack = [*db, *entries("web", conditions={"db": COMPLETED})]
    seen = on_stage(stack, {"db": replace(STUBBORN, dies_s=NEVER)}, [(60, "stop")])
    assert seen.failed["web"] == "not started: db does not end, though it was killed"
    assert seen.ended_s == 1 + 1 + STUCK_S


def test_the_burial_of_one_that_came_free_is_seen_through() -> None:
    """Web is stuck from 11 on, ends at 12, and its last trace is gone at 15; all others are done at 13."""
    stack = [*entries("web", stop_grace_s=0), *entries("other", stop_grace_s=60)]
    stuck = replace(STUBBORN, dies_s=STUCK_S + 1, buried_s=3)
    seen = on_stage(stack, {"web": stuck, "other": Script(stops_s=12)}, [(1, "stop")])
    assert seen.times("web", "buried") == [15.0]


def test_a_stack_may_end_with_the_first_that_does() -> None:
    stack = [*entries("web", "db"), *entries("db"), *entries("job")]
    seen = on_stage(stack, {"job": Script(runs_s=3, status=Exited(4))}, abort_on_exit=True)
    assert (seen.ended_s, list(seen.failed)) == (3.0, ["job"])
    assert seen.events("job")[-1] == "aborting"
    assert seen.containers("buried") == ["job", "web", "db"]


def test_what_others_wait_for_to_complete_may_end_though_any_end_is_to_end_all() -> None:
    stack = [*entries("job"), *entries("web", conditions={"job": Dependency(Condition.COMPLETED)})]
    seen = on_stage(stack, {"job": Script(runs_s=3), "web": Script(runs_s=4)}, abort_on_exit=True)
    assert (seen.ended_s, seen.failed) == (7, {})
    assert [name for name in ("job", "web") if "aborting" in seen.events(name)] == ["web"]
    seen = on_stage(stack, {"job": Script(runs_s=3, status=Exited(4)), "web": Script()}, abort_on_exit=True)
    assert (seen.ended_s, list(seen.failed)) == (3, ["job", "web"])


def test_a_restart_is_no_end_for_which_a_stack_ends() -> None:
    seen = on_stage(entries("web", restart="always"), {"web": Script(runs_s=3)}, [(20, "stop")], abort_on_exit=True)
    assert seen.ended_s == 20.0
    assert "aborting" not in seen.events("web")


# --- limits of runs and restarts --------------------------------------------------------------------------------------


def test_a_one_shot_that_takes_too_long_is_ended_and_tried_again() -> None:
    job = entries("job", restart="on-failure", max_retries=1, timeout_s=5, initial_s=1)
    seen = on_stage(job, {"job": [FOREVER, DONE]})
    assert (seen.times("job", "start"), seen.failed) == ([0.0, 6.0], {})
    assert seen.fields("job", "timed_out") == {"timeout_s": 5}


def test_too_many_restarts_in_a_while_are_a_failure_told_once_with_the_last_lines() -> None:
    web = entries("web", restart="always", max_restarts=3, window_s=60, initial_s=0)
    seen = on_stage(web, {"web": Script(runs_s=1, tail=("out of luck",))})
    assert len(seen.times("web", "start")) == 4
    assert seen.events("web").count("gave_up") == 1
    assert seen.fields("web", "gave_up")["last_lines"] == ("out of luck",)


def test_all_is_up_when_all_are_ready_and_healthy() -> None:
    stack = [*entries("a", ready=Ready(Notify(), timeout_s=60.0)), *entries("b", health=LOOKED_AT), *entries("c")]
    seen = on_stage(stack, {"a": Script(serves_s=7), "c": DONE}, [("stack_up", "stop")])
    assert seen.ended_s == 7.0


# --- when the supervisor was away -------------------------------------------------------------------------------------


def away(all_entries: Iterable[Entry], scripts: Mapping[str, Script], *, at_s: float, for_s: float) -> Play:
    """The clock jumps: the supervisor was stopped, or the machine suspended."""
    played: list[Play] = []

    async def play_and_jump() -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(jump, clock)
            played.append(await play(all_entries, scripts, [(at_s + for_s + 100, "stop")]))

    async def jump(clock: trio.testing.MockClock) -> None:
        await anyio.sleep(at_s)
        clock.jump(for_s)

    on_virtual_clock(play_and_jump)
    return played[0]


def test_an_hour_away_is_followed_by_no_storm_of_checks() -> None:
    health = replace(LOOKED_AT, interval_s=10.0)
    seen = away(entries("db", replicas=100, health=health), {}, at_s=25, for_s=3600)
    soon = [call for call in seen.calls if call.what == "check" and 3625 <= call.at_s < 3635]
    assert len(soon) == 100
    assert "unhealthy" not in seen.events("db.1")


def test_a_check_that_was_under_way_is_tried_again_before_it_counts() -> None:
    health = replace(LOOKED_AT, interval_s=10.0, timeout_s=2.0)
    seen = away(entries("db", health=health), {"db": Script(check_s=1)}, at_s=11.8, for_s=3600)
    assert "unhealthy" not in seen.events("db")


def test_who_spoke_while_we_were_away_is_not_taken_for_silent() -> None:
    watched = Health(Notify(), watchdog_s=5.0)
    seen = away(entries("db", health=watched), {"db": Script(alive_s=1)}, at_s=25.5, for_s=3600)
    assert "unhealthy" not in seen.events("db")


def test_who_stopped_while_we_were_away_is_not_killed() -> None:
    db = entries("db", timeout_s=20, stop_grace_s=10)
    seen = away(db, {"db": Script(stops_s=8)}, at_s=25, for_s=3600)
    assert seen.signals("db") == [SIGTERM]


# --- thousands --------------------------------------------------------------------------------------------------------


def looks(all_entries: list[Entry], scripts: Mapping[str, Script]) -> int:
    """How many looks it takes to see who may start."""
    count = 0

    class Counting(Stack):
        def _gate(self, service: Service) -> Event | None:
            nonlocal count
            count += 1
            return super()._gate(service)

    async def run() -> None:
        async with FakeRunner(scripts) as runner:
            await Counting(all_entries, runner, lambda *_: None, starts_max=64).run()

    on_virtual_clock(run)
    return count


@pytest.mark.parametrize("limit", [Dependency(Condition.COMPLETED), Dependency(Condition.COMPLETED, timeout_s=1000.0)])
def test_1000_that_wait_for_1000_look_at_them_a_few_times_each(limit: Dependency) -> None:
    stack = [*entries("job", replicas=1000), *entries("web", conditions={"job": limit}, replicas=1000)]
    assert looks(stack, {"job": Script(start_s=0.1, runs_s=1), "web": DONE}) <= 5 * 2000


def test_1000_that_can_do_without_1000_look_at_them_a_few_times_each() -> None:
    stack = [
        *entries("job", replicas=1000),
        *entries("slow"),
        *entries("web", conditions={"job": replace(COMPLETED, required=False), "slow": COMPLETED}, replicas=1000),
    ]
    failing = Script(start_s=0.1, runs_s=1, status=Exited(1))
    assert looks(stack, {"job": failing, "slow": Script(runs_s=99), "web": DONE}) <= 5 * 2001


def test_entries_of_their_own_cost_no_more_than_replicas() -> None:
    names = [f"job{number}" for number in range(100)]
    stack = [entry for name in names for entry in entries(name)]
    for number in range(100):
        stack += entries(f"web{number}", conditions=dict.fromkeys(names, COMPLETED))
    done = {f"web{number}": DONE for number in range(100)}
    assert looks(stack, {**dict.fromkeys(names, Script(start_s=0.1, runs_s=1)), **done}) <= 5 * 200
