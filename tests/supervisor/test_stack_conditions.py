"""Who waits for whom, how long, and what follows a restart, in virtual time."""

from dataclasses import replace

import pytest
from fake import CRASH, DONE, FOREVER, NEVER, Call, Script, broken
from stage import HEALTHY, LOOKED_AT, READY, Scripts, entries, in_order, on_stage

from runtime.status import Exited
from supervisor.core.checks import Log, Notify, Ready, Tcp
from supervisor.core.policy import Condition, Dependency

# --- conditions -------------------------------------------------------------------------------------------------------


PORT = Ready(Tcp(80), timeout_s=60.0)


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
    crashes: Scripts = {
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
