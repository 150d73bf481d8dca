"""When the containers of a stack start, stop and are started again: in virtual time, and in real time on asyncio.

Times are in units: seconds on the virtual clock, where they are exact; hundredths in real time, where a thing may be
late but never early.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import anyio
import anyio.lowlevel
import pytest
from fake import CRASH, DONE, FOREVER, STUBBORN, FakeRunner, Script, broken
from stage import COMPLETED, Cue, Play, entries, play, virtual_clock

from runtime.status import Exited, Signaled
from supervisor.core.states import Phase
from supervisor.entry import Entry
from supervisor.stack.tree import Stack

pytestmark = pytest.mark.anyio

REAL_UNIT_S = 0.02
TIMES_OF_SCRIPT = ("start_s", "runs_s", "stops_s", "dies_s", "buried_s")
SIGTERM, SIGKILL = 15, 9
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
    seen = await play_in(entries("web", replicas=20), {"web": Script(stops_s=5)}, [(1, "stop")])
    ends = [call.what for call in seen.calls if call.what in {"signal", "buried"}]
    assert ends == ["signal"] * 20 + ["buried"] * 20


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
    scripts = {"web": replace(STUBBORN, dies_s=unit_s), "slow": Script(start_s=30 * unit_s)}
    up = {"db", *(f"web.{number}" for number in range(1, 6))}
    async with FakeRunner(scripts) as runner:
        stack = Stack(stack_entries, runner, lambda *_: None, starts_max=3)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stack.run)
            while not runner.live.keys() >= up:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert runner.live == {}
    assert {call.container for call in runner.calls if call.what == "buried"} == {*up, "slow"}


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
