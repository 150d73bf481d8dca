"""When the containers of a stack start, stop and are started again: in virtual time, and in real time on asyncio.

Times are in units: seconds on the virtual clock, where they are exact; hundredths in real time, where a thing may be
late but never early.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from fake import CRASH, DONE, FOREVER, NEVER, STUBBORN, Call, FakeRunner, Script, broken
from stage import COMPLETED, HEALTHY, READY, Cue, Play, entries, in_order, on_virtual_clock, play, virtual_clock

from runtime.status import Exited, Signaled
from supervisor.core.checks import Health, Log, Notify, Ready, Tcp, Verdict
from supervisor.core.moves import STUCK_S
from supervisor.core.policy import Condition, Dependency
from supervisor.core.states import Event, Phase
from supervisor.entry import Entry
from supervisor.stack.service import Service
from supervisor.stack.tree import CHECKS_MAX, Stack

pytestmark = pytest.mark.anyio

REAL_UNIT_S = 0.02
Scripts = Mapping[str, Script | Sequence[Script]]
TIMES_OF_SCRIPT = ("start_s", "runs_s", "stops_s", "dies_s", "buried_s")
SIGTERM, SIGKILL = 15, 9
HANGS_S = 10_000.0  # in virtual time
SECONDS_FOR_2000 = 20  # on a slow machine; a fraction of it on a quick one


@pytest.fixture(params=["virtual time", "real time"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "virtual time":
        return "trio", {"clock": virtual_clock()}
    return "asyncio", {}


class PlayIn(Protocol):
    """`play` with all times in units."""

    async def __call__(
        self,
        all_entries: Iterable[Entry],
        scripts: Mapping[str, Script | Sequence[Script]] | None = None,
        cues: Sequence[Cue] = (),
        *,
        starts_max: int = 64,
        abort_on_exit: bool = False,
    ) -> Play: ...


@pytest.fixture
def unit_s(anyio_backend_name: str) -> float:
    return 1.0 if anyio_backend_name == "trio" else REAL_UNIT_S


@pytest.fixture
def play_in(unit_s: float) -> PlayIn:
    async def play_in(
        all_entries: Iterable[Entry],
        scripts: Mapping[str, Script | Sequence[Script]] | None = None,
        cues: Sequence[Cue] = (),
        *,
        starts_max: int = 64,
        abort_on_exit: bool = False,
    ) -> Play:
        scaled = {name: _scaled(script, unit_s) for name, script in (scripts or {}).items()}
        with anyio.fail_after(60 * max(1, unit_s * 1000)):
            return await play(
                [_slowed(entry, unit_s) for entry in all_entries],
                scaled,
                [(at if isinstance(at, str) else at * unit_s, what) for at, what in cues],
                starts_max=starts_max,
                abort_on_exit=abort_on_exit,
            )

    return play_in


def _scaled(script: Script | Sequence[Script], unit_s: float) -> Script | Sequence[Script]:
    if not isinstance(script, Script):
        return [each for one in script if isinstance(each := _scaled(one, unit_s), Script)]
    times = {name: getattr(script, name) for name in TIMES_OF_SCRIPT}
    return replace(script, **{name: value * unit_s for name, value in times.items() if value})


def _slowed(entry: Entry, unit_s: float) -> Entry:
    policy, backoff = entry.policy, entry.policy.backoff
    waits = {name: getattr(backoff, name) * unit_s for name in ("initial_s", "max_s", "reset_after_s")}
    slowed = replace(policy, stop_grace_s=policy.stop_grace_s * unit_s, backoff=replace(backoff, **waits))
    return replace(entry, policy=slowed)


@pytest.fixture
def is_about(unit_s: float, anyio_backend_name: str) -> Any:
    """Is a time what it should be: exactly in virtual time, at least in real time."""

    def is_about(at_s: float, units: float) -> bool:
        if anyio_backend_name == "trio":
            return at_s == pytest.approx(units)
        return at_s >= units * unit_s - 0.001

    return is_about


# --- start ------------------------------------------------------------------------------------------------------------


async def test_a_container_starts_when_those_it_depends_on_have_started(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in(
        [*entries("web", "api"), *entries("api", "db"), *entries("db")],
        {"db": Script(start_s=3), "api": Script(start_s=2)},
        [(10, "stop")],
    )
    assert seen.containers("started") == ["db", "api", "web"]
    assert is_about(seen.times("api", "start")[0], 3)
    assert is_about(seen.times("web", "start")[0], 5)


async def test_a_container_may_wait_until_another_has_completed(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in(
        [*entries("web", conditions={"migrate": COMPLETED}), *entries("migrate")],
        {"migrate": Script(runs_s=4), "web": DONE},
    )
    assert is_about(seen.times("web", "start")[0], 4)
    assert seen.summary.failed == ()


async def test_completed_means_that_nothing_is_left_of_it(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in(
        [*entries("web", conditions={"migrate": COMPLETED}), *entries("migrate")],
        {"migrate": Script(runs_s=1, buried_s=2), "web": DONE},
    )
    assert is_about(seen.times("web", "start")[0], 3)


async def test_one_that_fails_at_first_completes_when_it_succeeds(play_in: PlayIn) -> None:
    migrate = entries("migrate", restart="on-failure", initial_s=1, factor=1)
    seen = await play_in(
        [*entries("web", conditions={"migrate": COMPLETED}), *migrate],
        {"migrate": [CRASH, CRASH, DONE], "web": DONE},
    )
    assert seen.containers("start") == ["migrate", "migrate", "migrate", "web"]


async def test_containers_start_side_by_side_as_far_as_dependencies_allow(play_in: PlayIn, is_about: Any) -> None:
    diamond = [*entries("top", "left", "right"), *entries("left", "base"), *entries("right", "base"), *entries("base")]
    seen = await play_in(diamond, {each: Script(start_s=2) for each in ("left", "right")}, [(10, "stop")])
    assert seen.runner.starting_max == 2
    assert is_about(seen.times("top", "start")[0], 2)


async def test_all_replicas_must_have_started_before_dependents_do(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in(
        [*entries("web", "db"), *entries("db", replicas=3)],
        {"db.1": Script(start_s=1), "db.2": Script(start_s=5), "db.3": Script(start_s=2)},
        [(10, "stop")],
    )
    assert is_about(seen.times("web", "start")[0], 5)


async def test_one_that_has_run_once_has_started_even_if_it_crashed_since(play_in: PlayIn) -> None:
    db = entries("db", replicas=2, restart="always", initial_s=1)
    seen = await play_in(
        [*entries("web", "db"), *db],
        {"db.1": [Script(runs_s=1, status=Exited(1)), FOREVER], "db.2": Script(start_s=5)},
        [(10, "stop")],
    )
    assert seen.containers("started").count("web") == 1


async def test_a_dependency_without_replicas_is_met(play_in: PlayIn) -> None:
    seen = await play_in([*entries("web", "db"), *entries("db", replicas=0)], {"web": DONE})
    assert seen.containers("started") == ["web"]


@pytest.mark.parametrize("starts_max", [1, 3])
async def test_never_more_starts_at_once_than_allowed_and_as_many(play_in: PlayIn, starts_max: int) -> None:
    seen = await play_in(entries("job", replicas=10), {"job": Script(start_s=1, runs_s=0)}, starts_max=starts_max)
    assert seen.runner.starting_max == starts_max
    assert len(seen.containers("buried")) == 10


async def test_one_that_fails_to_start_gives_its_turn_back(play_in: PlayIn) -> None:
    seen = await play_in(
        [*entries("bad", replicas=5), *entries("good")],
        {"bad": replace(broken(), start_s=1), "good": DONE},
        starts_max=1,
    )
    assert seen.containers("started") == ["good"]


async def test_all_up_is_told_once_when_every_container_has_started(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in(
        [*entries("a", replicas=2), *entries("b", restart="always", initial_s=1)],
        {"a": Script(start_s=4), "b": Script(runs_s=1)},
        [(9, "stop")],
    )
    (up,) = [each for each in seen.told if each.event == "stack_up"]
    assert is_about(up.at_s, 4)
    assert up.fields == {"count": 3}


async def test_a_run_that_has_ended_before_its_start_returned_is_an_end_like_any(play_in: PlayIn) -> None:
    early = Script(early=True, status=Exited(3))
    seen = await play_in(entries("job"), {"job": early})
    assert seen.failed == {"job": "exited with status 3"}
    assert seen.events("job") == ["starting", "started", "exited", "gave_up"]


# --- stop and kill ----------------------------------------------------------------------------------------------------


async def test_a_stop_goes_from_dependents_to_those_they_depend_on(play_in: PlayIn, is_about: Any) -> None:
    chain = [*entries("web", "api"), *entries("api", "db"), *entries("db")]
    seen = await play_in(chain, {"web": Script(stops_s=2), "api": Script(stops_s=3, buried_s=1)}, [(10, "stop")])
    assert seen.containers("buried") == ["web", "api", "db"]
    assert is_about(seen.times("api", "signal", SIGTERM)[0], 12)
    assert is_about(seen.times("db", "signal", SIGTERM)[0], 16)
    assert seen.summary.failed == ()


async def test_a_dependency_stops_only_after_all_replicas_of_all_dependents(play_in: PlayIn, is_about: Any) -> None:
    stack = [*entries("web", "db", replicas=3), *entries("cron", "db"), *entries("db")]
    seen = await play_in(stack, {"web.2": Script(stops_s=5), "cron": Script(stops_s=1)}, [(1, "stop")])
    assert is_about(seen.times("db", "signal", SIGTERM)[0], 6)


async def test_siblings_stop_side_by_side(play_in: PlayIn) -> None:
    seen = await play_in(entries("web", replicas=20), {"web": Script(stops_s=1)}, [(1, "stop")])
    ends = [call.at_s for call in seen.calls if call.what == "signal"]
    assert ends == pytest.approx([ends[0]] * 20, abs=REAL_UNIT_S)


async def test_one_that_ignores_its_stop_signal_is_killed_after_its_grace_period(
    play_in: PlayIn, is_about: Any
) -> None:
    seen = await play_in(entries("web", stop_grace_s=4, stop_signal=2), {"web": STUBBORN}, [(1, "stop")])
    assert seen.signals("web") == [2, SIGKILL]
    assert is_about(seen.times("web", "signal", SIGKILL)[0], 5)
    assert seen.summary.failed == ()


async def test_one_that_stops_in_time_is_not_killed(play_in: PlayIn) -> None:
    seen = await play_in(entries("web", stop_grace_s=40), {"web": Script(stops_s=1)}, [(1, "stop")])
    assert seen.signals("web") == [SIGTERM]


async def test_a_kill_is_for_all_at_once_whatever_they_depend_on(play_in: PlayIn, is_about: Any) -> None:
    chain = [*entries("web", "api"), *entries("api", "db"), *entries("db")]
    seen = await play_in(chain, dict.fromkeys(("web", "api", "db"), STUBBORN), [(3, "kill")])
    assert [seen.signals(each) for each in ("web", "api", "db")] == [[SIGKILL]] * 3
    assert all(is_about(seen.times(each, "signal", SIGKILL)[0], 3) for each in ("web", "api", "db"))


async def test_a_kill_cuts_a_stop_short(play_in: PlayIn, is_about: Any) -> None:
    stack = [*entries("web", "db", stop_grace_s=1000), *entries("db", stop_grace_s=1000)]
    seen = await play_in(stack, dict.fromkeys(("web", "db"), STUBBORN), [(1, "stop"), (3, "kill")])
    assert (seen.signals("web"), seen.signals("db")) == ([SIGTERM, SIGKILL], [SIGKILL])
    assert is_about(seen.ended_s, 3)


async def test_a_second_stop_is_ignored(play_in: PlayIn) -> None:
    seen = await play_in(entries("web"), {"web": Script(stops_s=2)}, [(1, "stop"), (2, "stop")])
    assert seen.signals("web") == [SIGTERM]


async def test_a_stop_before_it_runs_starts_nothing() -> None:
    async with FakeRunner() as runner:
        stack = Stack([*entries("web", "db"), *entries("db")], runner, lambda *_: None, starts_max=1)
        stack.stop()
        with anyio.fail_after(10):
            await stack.run()
    assert runner.calls == []


@pytest.mark.parametrize("what", ["stop", "kill"])
async def test_a_stop_while_it_waits_for_a_dependency_is_done_at_once(
    play_in: PlayIn, is_about: Any, what: str
) -> None:
    stack = [*entries("web", "db"), *entries("db")]
    seen = await play_in(stack, {"db": Script(start_s=5)}, [(2, what)])
    assert seen.containers("start") == ["db"]
    assert seen.events("web") == ["stopped"]
    assert is_about(next(each.at_s for each in seen.told if each.container == "web"), 2)
    assert seen.summary.failed == ()


@pytest.mark.parametrize("what", ["stop", "kill"])
async def test_a_stop_while_it_waits_to_be_started_again_is_done_at_once(
    play_in: PlayIn, is_about: Any, what: str
) -> None:
    seen = await play_in(entries("web", restart="always", initial_s=1000, max_s=1000), {"web": CRASH}, [(2, what)])
    assert is_about(seen.ended_s, 2)
    assert len(seen.times("web", "start")) == 1
    assert seen.summary.failed == ()


@pytest.mark.parametrize(("what", "number"), [("stop", SIGTERM), ("kill", SIGKILL)])
async def test_a_stop_while_it_starts_is_acted_on_when_it_has_started(
    play_in: PlayIn, is_about: Any, what: str, number: int
) -> None:
    seen = await play_in(entries("web", restart="always"), {"web": Script(start_s=5)}, [(2, what)])
    assert is_about(seen.times("web", "signal", number)[0], 5)
    assert seen.signals("web") == [number]
    assert seen.summary.failed == ()


@pytest.mark.parametrize("what", ["stop", "kill"])
@pytest.mark.parametrize("restart", ["no", "always"])
async def test_a_stop_while_it_waits_for_its_turn_calls_the_start_off(play_in: PlayIn, what: str, restart: str) -> None:
    seen = await play_in(
        entries("web", replicas=2, restart=restart), {"web": Script(start_s=5)}, [(2, what)], starts_max=1
    )
    (first,) = seen.containers("start")
    second = "web.2" if first == "web.1" else "web.1"
    assert seen.events(second) == ["starting", "stopped"]
    assert seen.summary.failed == ()


async def test_a_start_that_fails_after_a_stop_is_no_failure(play_in: PlayIn) -> None:
    seen = await play_in(entries("web"), {"web": replace(broken(), start_s=5)}, [(2, "stop")])
    assert seen.summary.failed == ()
    assert seen.events("web") == ["starting", "start_failed", "stopped"]


# --- ends -------------------------------------------------------------------------------------------------------------


async def test_a_stack_of_one_shots_ends_with_them(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in([*entries("a"), *entries("b")], {"a": Script(runs_s=3), "b": DONE})
    assert is_about(seen.ended_s, 3)
    assert seen.summary.failed == ()


async def test_the_summary_names_what_failed_and_why_in_the_order_of_the_file(play_in: PlayIn) -> None:
    seen = await play_in(
        [*entries("c"), *entries("b"), *entries("a"), *entries("d")],
        {
            "c": Script(runs_s=3, status=Signaled(11)),
            "b": DONE,
            "a": broken(),
            "d": Script(runs_s=1, status=Exited(7)),
        },
    )
    assert seen.summary.failed == (
        ("c", "killed by signal 11"),
        ("a", "mount overlay: no such device"),
        ("d", "exited with status 7"),
    )


async def test_a_failed_dependency_fails_its_dependents_with_the_chain_of_causes(play_in: PlayIn) -> None:
    seen = await play_in(
        [*entries("web", "api"), *entries("api", "cache"), *entries("cache", "db"), *entries("db")],
        {"db": broken()},
    )
    assert seen.containers("start") == ["db"]
    assert list(seen.failed) == ["web", "api", "cache", "db"]
    assert "api was not started, as cache was not started, as db failed" in seen.failed["web"]
    assert seen.fields("cache", "dependency_failed") == {"chain": "db failed"}


async def test_dependents_are_failed_at_once_not_when_the_rest_is_done(play_in: PlayIn, is_about: Any) -> None:
    seen = await play_in(
        [*entries("web", "db", "slow"), *entries("db"), *entries("slow")],
        {"db": Script(runs_s=1, status=Exited(1)), "slow": Script(start_s=9, runs_s=1)},
    )
    (failed,) = [each for each in seen.told if each.event == "dependency_failed"]
    assert is_about(failed.at_s, 1)
    assert failed.at_s < seen.ended_s


async def test_what_runs_already_is_not_failed_by_a_dependency_that_fails_later(play_in: PlayIn) -> None:
    seen = await play_in(
        [*entries("web", "db"), *entries("db")],
        {"db": Script(runs_s=2, status=Exited(1)), "web": Script(runs_s=5)},
    )
    assert list(seen.failed) == ["db"]


async def test_one_failed_replica_fails_the_dependents(play_in: PlayIn) -> None:
    seen = await play_in(
        [*entries("web", conditions={"job": COMPLETED}), *entries("job", replicas=3)],
        {"job": DONE, "job.2": CRASH},
    )
    assert list(seen.failed) == ["web", "job.2"]
    assert "job.2 failed" in seen.failed["web"]


async def test_a_stack_without_containers_ends_at_once(play_in: PlayIn) -> None:
    seen = await play_in([])
    assert (seen.summary.failed, seen.told) == ((), [])


# --- restart ----------------------------------------------------------------------------------------------------------


async def test_restarts_wait_as_the_backoff_says(play_in: PlayIn, is_about: Any) -> None:
    web = entries("web", restart="always", initial_s=1, max_s=5, factor=2)
    seen = await play_in(web, {"web": CRASH}, [(20, "stop")])
    expected = [0, 1, 3, 7, 12, 17]
    assert all(map(is_about, seen.times("web", "start"), expected))
    assert len(seen.times("web", "start")) <= len(expected)


async def test_a_stable_run_resets_the_backoff(play_in: PlayIn, is_about: Any) -> None:
    web = entries("web", restart="always", initial_s=1, max_s=100, factor=2, reset_after_s=10)
    crashes = [CRASH, CRASH, Script(runs_s=10, status=Exited(1)), FOREVER]
    seen = await play_in(web, {"web": crashes}, [(30, "stop")])
    assert all(map(is_about, seen.times("web", "start"), [0, 1, 3, 14]))


async def test_an_initial_wait_of_zero_restarts_at_once(play_in: PlayIn) -> None:
    web = entries("web", restart="always", initial_s=0)
    seen = await play_in(web, {"web": [Script(runs_s=2), FOREVER]}, [(9, "stop")])
    assert seen.times("web", "start")[1] - seen.times("web", "ended")[0] == pytest.approx(0, abs=REAL_UNIT_S)
    assert seen.events("web")[:6] == ["starting", "started", "exited", "restarting", "starting", "started"]


async def test_the_next_run_starts_only_when_nothing_is_left_of_the_last(play_in: PlayIn, is_about: Any) -> None:
    web = entries("web", restart="always", initial_s=0)
    seen = await play_in(web, {"web": [Script(runs_s=2, buried_s=3), FOREVER]}, [(9, "stop")])
    assert is_about(seen.times("web", "start")[1], 5)


async def test_on_failure_with_a_limit_gives_up_after_so_many_retries(play_in: PlayIn) -> None:
    web = entries("web", restart="on-failure", max_retries=3, initial_s=1)
    seen = await play_in(web, {"web": CRASH})
    assert len(seen.times("web", "start")) == 4
    assert seen.fields("web", "gave_up") == {"reason": "exited with status 1", "retries": 3}


async def test_a_start_that_fails_is_tried_again_as_the_policy_says(play_in: PlayIn) -> None:
    seen = await play_in(entries("web", restart="on-failure", initial_s=1), {"web": [broken(), broken(), DONE]})
    assert len(seen.times("web", "start")) == 3
    assert seen.events("web").count("start_failed") == 1
    assert seen.summary.failed == ()


async def test_a_crash_loop_does_not_disturb_its_siblings(play_in: PlayIn) -> None:
    loop = entries("loop", restart="always", initial_s=0.1, max_s=0.1)
    seen = await play_in([*loop, *entries("web", replicas=3)], {"loop": Script(start_s=0.1, runs_s=0)}, [(20, "stop")])
    assert len(seen.times("loop", "start")) >= 10
    assert [len(seen.times(f"web.{number}", "start")) for number in (1, 2, 3)] == [1, 1, 1]
    assert seen.events("web.1") == ["starting", "started", "stopping", "exited", "stopped"]


# --- many, and the worst ----------------------------------------------------------------------------------------------


async def test_2000_containers_start_run_and_stop_in_seconds(play_in: PlayIn) -> None:
    stack = [*entries("web", "db", replicas=1999), *entries("db")]
    began = time.process_time()
    seen = await play_in(stack, {"web": Script(start_s=0.01)}, [("stack_up", "stop")])
    assert time.process_time() - began < SECONDS_FOR_2000
    assert len(seen.containers("buried")) == 2000
    assert seen.containers("buried")[-1] == "db"


async def test_a_stack_that_is_cancelled_leaves_no_run(unit_s: float) -> None:
    stack_entries = [*entries("web", "db", replicas=5), *entries("db"), *entries("slow"), *entries("later", "slow")]
    scripts = {"web": replace(STUBBORN, dies_s=unit_s), "slow": Script(start_s=5 * unit_s)}
    async with FakeRunner(scripts) as runner:
        stack = Stack(stack_entries, runner, lambda *_: None, starts_max=3)
        with anyio.move_on_after(2 * unit_s) as patience:
            await stack.run()
    assert patience.cancelled_caught
    assert runner.live == {}
    assert {call.container for call in runner.calls if call.what == "buried"} == {
        "db", "slow", *(f"web.{number}" for number in range(1, 6))
    }  # fmt: skip


async def test_a_cancelled_stack_does_not_interrupt_a_burial(unit_s: float) -> None:
    async with FakeRunner({"web": Script(runs_s=0, buried_s=5 * unit_s)}) as runner:
        stack = Stack(entries("web"), runner, lambda *_: None, starts_max=1)
        with anyio.move_on_after(unit_s):
            await stack.run()
    assert [call.what for call in runner.calls][-1] == "buried"


async def test_a_bug_in_the_runner_tears_all_down_and_leaves_no_run() -> None:
    runner = FakeRunner({"bad": Script(start_s=REAL_UNIT_S, error=RuntimeError("a bug"))})
    stack = Stack([*entries("bad"), *entries("web", replicas=3)], runner, lambda *_: None, starts_max=8)
    with pytest.raises(BaseExceptionGroup) as raised:
        async with runner:
            await stack.run()
    assert raised.group_contains(RuntimeError, match="a bug")
    assert runner.live == {}


async def test_final_phases_say_what_became_of_each(play_in: PlayIn) -> None:
    seen = await play_in([*entries("a"), *entries("b"), *entries("c")], {"a": DONE, "b": CRASH}, [(3, "stop")])
    assert [service.state.phase for service in seen.stack.services] == [Phase.EXITED, Phase.FAILED, Phase.EXITED]


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


def on_stage(
    all_entries: Iterable[Entry],
    scripts: Mapping[str, Script | Sequence[Script]] | None = None,
    cues: Sequence[Cue] = (),
    **manner: Any,
) -> Play:
    """Play it in virtual time."""
    seen: Play = on_virtual_clock(partial(play, hangs_s=HANGS_S, **manner), all_entries, scripts, cues)
    return seen


# --- conditions -------------------------------------------------------------------------------------------------------

PORT = Ready(Tcp(80), timeout_s=60.0)
LOOKED_AT = Health(Tcp(80), interval_s=1.0, retries=1, start_period_s=0.0, start_interval_s=0.5)


def test_a_container_waits_until_another_is_ready() -> None:
    seen = on_stage(
        [*entries("web", conditions={"db": READY}), *entries("db", ready=PORT)],
        {"db": Script(start_s=1, serves_s=0.1)},
        [(9, "stop")],
    )
    assert seen.times("web", "start") == [pytest.approx(1.16)]  # the fourth try


@pytest.mark.parametrize("probe", [Log("ready"), Notify()])
def test_one_that_says_so_is_ready_at_that_moment_and_is_not_looked_at(probe: Log | Notify) -> None:
    db = entries("db", ready=Ready(probe, timeout_s=60.0))
    seen = on_stage([*entries("web", conditions={"db": READY}), *db], {"db": Script(serves_s=3)}, [(9, "stop")])
    assert seen.times("web", "start") == [3.0]
    assert seen.containers("check") == []


def test_all_replicas_must_be_ready() -> None:
    db = entries("db", replicas=3, ready=Ready(Notify(), timeout_s=60.0))
    seen = on_stage(
        [*entries("web", conditions={"db": READY}), *db],
        {"db.1": Script(serves_s=1), "db.2": Script(serves_s=7), "db.3": Script(serves_s=2)},
        [(9, "stop")],
    )
    assert seen.times("web", "start") == [7.0]


def test_a_container_waits_until_another_is_healthy() -> None:
    db = entries("db", health=LOOKED_AT)
    seen = on_stage([*entries("web", conditions={"db": HEALTHY}), *db], {}, [(9, "stop")])
    assert seen.times("web", "start") == [0.5]
    assert seen.events("db")[:3] == ["starting", "started", "healthy"]


@pytest.mark.parametrize("condition", [READY, HEALTHY])
def test_conditions_hold_at_every_start(condition: Dependency) -> None:
    """Web crashes while db is away: it waits for it, as at the first start."""
    db = entries("db", restart="always", initial_s=10, max_s=10, ready=PORT, health=LOOKED_AT)
    web = entries("web", restart="always", initial_s=1, conditions={"db": condition})
    crashes: Mapping[str, Sequence[Script]] = {
        "db": [Script(runs_s=5), FOREVER],
        "web": [Script(runs_s=6, status=Exited(1)), FOREVER],
    }
    seen = on_stage([*web, *db], crashes, [(30, "stop")])
    again = seen.times("db", "start")[1]
    assert again == 15.0
    assert seen.times("web", "start")[1] > again


@pytest.mark.parametrize("order", range(6))
def test_a_dependency_that_goes_while_a_container_queues_is_waited_for(order: int) -> None:
    """There is one turn at a time. The first has it until 10; db is there from 1 to 6, and then from 11 on."""
    stack = [*entries("db", restart="always", initial_s=5, max_s=5), *entries("web", "db", replicas=2)]
    scripts: Scripts = {"db": [Script(runs_s=5, start_s=1), FOREVER], "web": Script(start_s=9)}
    in_order(order)
    seen = on_stage(stack, scripts, [(30, "stop")], starts_max=1)
    assert sorted(seen.times(each, "start")[0] for each in ("web.1", "web.2")) == [1.0, 11.0]


@pytest.mark.parametrize("order", range(6))
def test_a_failure_while_a_container_queues_fails_it(order: int) -> None:
    stack = [*entries("db"), *entries("web", "db", replicas=2)]
    in_order(order)
    scripts: Scripts = {"db": Script(runs_s=2, status=Exited(1)), "web": Script(start_s=5)}
    seen = on_stage(stack, scripts, [(20, "stop")], starts_max=1)
    (second,) = {"web.1", "web.2"} - set(seen.containers("started"))
    assert seen.failed == {"db": "exited with status 1", second: "not started: db failed"}


def test_one_that_has_ended_will_not_be_ready_or_healthy() -> None:
    seen = on_stage([*entries("web", conditions={"db": HEALTHY}), *entries("db", health=LOOKED_AT)], {"db": DONE})
    assert seen.failed == {"web": "not started: db has ended, and so will not be ready or healthy"}


@pytest.mark.parametrize("order", range(6))
def test_nothing_starts_by_what_is_being_stopped_at_that_moment(order: int) -> None:
    """The turn of web.3 comes at 7, when db is ended for having run too long."""
    db = entries("db", timeout_s=6, stop_cmd=("quit",), health=replace(LOOKED_AT, interval_s=2.0))
    in_order(order)
    scripts: Scripts = {"db": Script(start_s=1, stops_s=1), "web": Script(start_s=3)}
    seen = on_stage([*db, *entries("web", "db", replicas=3)], scripts, [(20, "stop")], starts_max=1)
    stopping_at = seen.history.index(
        next(each for each in seen.told if (each.event, each.container) == ("stopping", "db"))
    )
    starts = [each for each in seen.history[stopping_at:] if isinstance(each, Call) and each.what == "start"]
    assert starts == []


# --- limits of a wait, and what is optional ---------------------------------------------------------------------------


def test_a_wait_has_a_limit_and_the_chain_says_so() -> None:
    chain = [
        *entries("web", "api"),
        *entries("api", conditions={"db": Dependency(Condition.READY, timeout_s=5.0)}),
        *entries("db", ready=PORT),
    ]
    seen = on_stage(chain, {"db": Script(serves_s=20)}, [(9, "stop")])
    assert seen.failed["api"] == "not started: db was not ready within 5 s"
    assert seen.failed["web"] == "not started: api was not started, as db was not ready within 5 s"
    assert {each.at_s for each in seen.told if each.event == "dependency_failed"} == {5.0}


@pytest.mark.parametrize("wait_s", [0.1, 0.2, 0.3, 0.7, 1.1, 1.3])
def test_a_wait_ends_whatever_the_clock_makes_of_its_fractions(wait_s: float) -> None:
    optional = Dependency(Condition.READY, required=False, timeout_s=wait_s)
    web = entries("web", conditions={"db": optional}, restart="always", initial_s=0.1, factor=1.0)
    seen = on_stage([*web, *entries("db", ready=PORT)], {"db": Script(serves_s=NEVER), "web": CRASH}, [(30, "stop")])
    assert len(seen.times("web", "start")) == pytest.approx(30 / (wait_s + 0.1), abs=2)


def test_what_is_optional_is_done_without_when_it_has_failed_and_that_is_told() -> None:
    web = entries("web", conditions={"cache": Dependency(required=False)})
    seen = on_stage([*web, *entries("cache")], {"cache": broken(), "web": DONE})
    assert seen.fields("web", "dependency_skipped") == {"reason": "cache failed"}
    assert list(seen.failed) == ["cache"]


def test_what_is_optional_is_done_without_when_it_takes_too_long() -> None:
    optional = Dependency(Condition.READY, required=False, timeout_s=3.0)
    seen = on_stage(
        [*entries("web", conditions={"cache": optional}), *entries("cache", ready=PORT)],
        {"cache": Script(serves_s=9), "web": DONE},
        [(20, "stop")],
    )
    assert seen.times("web", "start") == [3.0]
    assert seen.fields("web", "dependency_skipped") == {"reason": "cache was not ready within 3 s"}


def test_what_is_optional_is_waited_for_otherwise() -> None:
    optional = Dependency(Condition.READY, required=False)
    stack = [*entries("web", conditions={"cache": optional}), *entries("cache", ready=Ready(Notify(), timeout_s=60.0))]
    seen = on_stage(stack, {"cache": Script(serves_s=9), "web": DONE}, [(20, "stop")])
    assert seen.times("web", "start") == [9.0]
    assert "dependency_skipped" not in seen.events("web")


def test_nothing_is_skipped_in_silence() -> None:
    """Db fails while web, which can do without it, waits for its turn."""
    stack = [*entries("db"), *entries("slow", "db", replicas=3), *entries("web", conditions={"db": SKIPPABLE})]
    scripts = {"db": Script(runs_s=2, status=Exited(1)), "slow": Script(start_s=5)}
    for order in range(8):
        in_order(order)
        seen = on_stage(stack, scripts, [(40, "stop")], starts_max=1)
        (start_s,) = seen.times("web", "start")
        assert (start_s > 2) == ("dependency_skipped" in seen.events("web"))


SKIPPABLE = Dependency(required=False)


# --- restarts that go on ----------------------------------------------------------------------------------------------

FOLLOW = Dependency(Condition.READY, restart=True)


def test_a_restart_goes_on_to_dependents_and_theirs_in_order() -> None:
    ready = Ready(Notify(), timeout_s=60.0)
    stack = [
        *entries("web", conditions={"api": FOLLOW}),
        *entries("api", conditions={"db": FOLLOW}, ready=ready),
        *entries("db", restart="always", initial_s=1, ready=ready),
        *entries("other", conditions={"db": READY}),
    ]
    serving = Script(serves_s=2)
    seen = on_stage(stack, {"db": [replace(serving, runs_s=20), serving], "api": serving}, [(60, "stop")])
    assert seen.times("db", "start") == [0.0, 21.0]
    assert seen.times("api", "start") == [2.0, 23.0]
    assert seen.times("web", "start") == [4.0, 25.0]
    assert seen.times("other", "start") == [2.0]
    assert seen.fields("web", "restarting") == {"reason": "api was restarted"}
    assert seen.summary.failed == ()


def test_a_restart_of_one_replica_goes_on_to_all_dependents() -> None:
    stack = [*entries("web", conditions={"db": FOLLOW}, replicas=2), *entries("db", restart="always", replicas=2)]
    seen = on_stage(stack, {"db.1": [Script(runs_s=5), FOREVER]}, [(20, "stop")])
    assert [len(seen.times(each, "start")) for each in ("web.1", "web.2", "db.1", "db.2")] == [2, 2, 2, 1]


def test_one_that_queues_when_its_dependency_restarts_is_not_started_twice() -> None:
    """From 1 on, web does without db; its turn is at 20; db crashed at 6. What has not begun needs no restart."""
    optional = Dependency(restart=True, required=False, timeout_s=1.0)
    stack = [
        *entries("db", restart="always", initial_s=100, max_s=100),
        *entries("first"),
        *entries("slow", "first", replicas=2),
        *entries("web", conditions={"db": optional}),
    ]
    scripts = {"db": Script(start_s=5, runs_s=1), "first": Script(start_s=0.1), "slow": Script(start_s=19.9)}
    seen = on_stage(stack, scripts, [(60, "stop")], starts_max=2)
    assert seen.times("web", "start") == [20.0]


def test_a_kill_while_a_restart_is_remembered_is_final() -> None:
    stack = [*entries("db", restart="always", initial_s=0), *entries("web", conditions={"db": FOLLOW})]
    scripts: Scripts = {"db": [Script(runs_s=1), FOREVER], "web": Script(start_s=5)}
    seen = on_stage(stack, scripts, [(2, "kill")])
    assert (len(seen.times("web", "start")), seen.ended_s) == (1, 5.0)


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
    seen = on_stage(entries("db", stop_cmd=("quit",), stop_grace_s=5), {"db": Script(command_s=NEVER)}, [(1, "stop")])
    assert seen.signals("db")[-1] == SIGKILL
    assert seen.ended_s == 6.0


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
