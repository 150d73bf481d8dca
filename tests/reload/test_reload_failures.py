"""What follows when a container does not come up after a reload, or is waited for no more; start-first, which
waits for it while the old run serves.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fake import CRASH, Script
from stage import READY, one
from theatre import FINE, READY_CHECK, START_FIRST, Theatre, play

from runtime.errors import PysupError
from supervisor.core.checks import Health, Ready, Tcp
from supervisor.entry import OnFailure, Order, Update

if TYPE_CHECKING:
    from supervisor.commands import Reloaded

# --- failures ---------------------------------------------------------------------------------------------------------

BREAKS: list[tuple[str, Mapping[str, Any], Script]] = [
    ("it can't be started", {}, Script(error=PysupError("no such file"))),
    ("it ends at once", {"restart": "always"}, CRASH),
    ("it is not ready in time", {"ready": READY_CHECK, "restart": "always"}, Script(serves_s=99)),
    ("it is not healthy", {"health": Health(Tcp(80), retries=1, start_period_s=0)}, Script(sick_s=0.0)),
]


@pytest.mark.parametrize(("how", "policy", "script"), BREAKS, ids=[how for how, _, _ in BREAKS])
@pytest.mark.parametrize("order", Order)
def test_a_replaced_one_that_fails_brings_all_back(
    how: str, policy: Mapping[str, Any], script: Script, order: Order
) -> None:
    del how
    update = Update(order, on_failure=OnFailure.ROLLBACK)

    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload(
            [one("new"), one("db", argv="y"), one("web", "db", argv="y", update=update, **policy)]
        )
        await anyio.sleep(1)
        assert answer.failure is not None
        assert answer.failure.startswith("web did not come up: ")
        assert theatre.phases() == {"db": "running", "web": "running", "old": "running"}
        assert [each.entry.config.argv for each in theatre.stack.services] == [("x",)] * 3
        assert [event for event in theatre.events("web") if "roll" in event] == ["rolling_back", "rolled_back"]
        if order is Order.START_FIRST:
            assert theatre.happened("start").count("web") == 1  # it was never stopped

    old = [one("db"), one("web", "db", update=update, **policy), one("old")]
    play(old, act, {"web": [FINE, script, FINE]})


def test_a_reload_that_pauses_leaves_the_rest_and_the_next_one_goes_on() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload([one("db", argv="y"), one("web", "db", argv="y")])
        assert answer.failure == (
            "db did not come up: exited with status 1; 1 step is left: pysup reload goes on from there"
        )
        assert theatre.phases() == {"db": "failed", "web": "running"}
        assert theatre.stack.service("web").entry.config.argv == ("x",)
        answer = await theatre.reload([one("db", argv="z"), one("web", "db", argv="y")])
        assert answer.failure is None
        assert theatre.phases() == {"db": "running", "web": "running"}
        assert theatre.stack.service("web").entry.config.argv == ("y",)

    play([one("db"), one("web", "db")], act, {"db": [FINE, CRASH, FINE]})


def test_one_without_a_check_is_up_when_it_has_gone_on_for_a_while() -> None:
    update = Update(monitor_s=5.0, on_failure=OnFailure.ROLLBACK)

    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload([one("web", argv="y", update=update, restart="always")])
        assert answer.failure is not None
        assert theatre.stack.service("web").entry.config.argv == ("x",)

    play([one("web", restart="always")], act, {"web": [FINE, Script(runs_s=4.0), FINE]})


def test_another_reload_ends_the_waiting_of_the_first() -> None:
    async def act(theatre: Theatre) -> None:
        never = one("web", argv="y", ready=Ready(Tcp(80), timeout_s=10_000.0))
        first: list[Reloaded] = []

        async def reload() -> None:
            first.append(await theatre.reload([never, one("lb", "web", argv="y")]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reload)
            await anyio.sleep(5)
            answer = await theatre.reload([one("web", argv="z"), one("lb", "web", argv="y")])
        assert first[0].failure == "another reload was asked for: 1 step is left"
        assert answer.failure is None
        assert [each.entry.config.argv for each in theatre.stack.services] == [("z",), ("y",)]

    play([one("web"), one("lb", "web")], act, {"web": [FINE, Script(serves_s=9e9), FINE]})


def test_another_reload_interrupts_the_way_back_and_is_no_claim_that_all_is_as_before() -> None:
    update = Update(on_failure=OnFailure.ROLLBACK)

    async def act(theatre: Theatre) -> None:
        first: list[Reloaded] = []

        async def reload() -> None:
            new = [one("db", argv="y"), one("web", "db", argv="y", update=update), one("lb", "web", argv="y")]
            first.append(await theatre.reload(new))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reload)
            await anyio.sleep(3)
            assert theatre.events("web")[-1] == "rolling_back"  # db stops slowly
            answer = await theatre.reload([one("db", argv="z"), one("web", "db", argv="z"), one("lb", "web", argv="z")])
        assert first[0].failure == (
            "web did not come up: exited with status 1; on the way back, another reload was asked for: 1 step is left"
        )
        assert "rolled_back" not in theatre.events("web")
        assert answer.failure is None
        assert [each.entry.config.argv for each in theatre.stack.services] == [("z",)] * 3

    old = [one("db"), one("web", "db", update=update), one("lb", "web")]
    play(old, act, {"db": [FINE, Script(stops_s=5.0), FINE], "web": [FINE, CRASH, FINE]})


def test_a_stack_that_is_stopped_during_a_reload_stops() -> None:
    async def act(theatre: Theatre) -> None:
        async with anyio.create_task_group() as tasks:
            new = [one("web", argv="y", ready=Ready(Tcp(80), timeout_s=10_000.0)), one("more")]
            tasks.start_soon(theatre.reload, new)
            await anyio.sleep(3)
            theatre.stack.stop()
        await anyio.sleep(20)
        assert set(theatre.phases().values()) == {"exited"}

    play([one("web")], act, {"web": [FINE, Script(serves_s=9e9)]}, stay=False)


# --- start-first ------------------------------------------------------------------------------------------------------


def test_start_first_is_never_without_a_run() -> None:
    async def act(theatre: Theatre) -> None:
        before = len(theatre.runner.calls)
        await theatre.reload([one("web", argv="y", ready=READY_CHECK, update=START_FIRST, restart="always")])
        seen = [
            (each.what, each.container) for each in theatre.runner.calls[before:] if each.what in {"started", "ended"}
        ]
        assert seen == [("started", "web+1"), ("ended", "web")]
        (service,) = theatre.stack.services
        assert (service.entry.id, service.entry.group, service.entry.config.directory) == ("web", "web", "/r/web")
        assert theatre.house.said == [
            ("beside", "web+1"),
            ("exchange", "web web+1"),
            ("change", "web"),
            ("hand over", "web web+1"),
            ("strike", "web+1"),
        ]
        theatre.runner.live["web+1"].end()
        await anyio.sleep(5)
        assert theatre.happened("started")[-1] == "web"

    play([one("web", ready=READY_CHECK, restart="always")], act, {"web": Script(serves_s=2.0, stops_s=1.0)})


def test_dependents_never_see_that_one_run_takes_the_place_of_another() -> None:
    needs = {"web": READY}

    async def act(theatre: Theatre) -> None:
        async with anyio.create_task_group() as tasks:
            new = one("web", argv="y", ready=READY_CHECK, update=START_FIRST)
            tasks.start_soon(theatre.reload, [new, lb])
            for _ in range(8):
                await anyio.sleep(0.5)
                theatre.runner.live["lb"].end()
                await anyio.sleep(0.3)
                assert theatre.phases()["lb"] == "running"

    lb = one("lb", conditions=needs, restart="always", initial_s=0.1, max_s=0.1)
    old = [one("web", ready=READY_CHECK), lb]
    new = {"web": Script(serves_s=2.0, stops_s=1.0)}
    play(old, act, new)
