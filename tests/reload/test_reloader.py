"""Reloads of a stack that runs, on a virtual clock: what is changed and in which order, and what never is.

After whatever sequence of reloads, stops and scales, what the stack has counted is what there is.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import anyio
import pytest
from fake import CRASH, FakeRunner, Script
from hypothesis import Phase as Phase_
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import HEALTHY, READY, entries, on_virtual_clock

from runtime.errors import PysupError
from supervisor.commands import Reloaded
from supervisor.core.checks import Health, Ready, Tcp
from supervisor.core.policy import Condition, Dependency, RestartPolicy
from supervisor.core.states import FINAL, Phase, Start, Stop
from supervisor.entry import Compiled, Entry, OnFailure, Order, Reading, Scale, StackNetwork, Update
from supervisor.errors import ConflictError, SpecError
from supervisor.logs.policy import UNLIMITED, LogLimit
from supervisor.reload.amendment import Amendment, amend
from supervisor.reload.reloader import Reloader
from supervisor.stack.group import standing_of
from supervisor.stack.tree import Stack

ALWAYS = RestartPolicy.ALWAYS  # one that has failed for good would be a reason to pause, or to go back
PATIENT = settings(deadline=None, max_examples=40, phases=[Phase_.explicit, Phase_.generate])
STOP_SLOWLY = Script(stops_s=1.0)
READY_CHECK = Ready(Tcp(80), timeout_s=5.0)


class House:
    """See `reloading.House`: it only remembers."""

    def __init__(self) -> None:
        self.others: set[str] = set()
        self.said: list[tuple[str, str]] = []
        self.amendments: dict[str, Amendment] = {}
        self.limits: list[int | None] = []  # of all logs

    def amended(self, entry: Entry) -> Entry:
        return self.amendments[entry.id].applied(entry) if entry.id in self.amendments else entry

    def unmanaged(self) -> frozenset[str]:
        return frozenset(self.others)

    def enrol(self, entry: Entry, *, beside: bool) -> None:
        self.said.append(("beside" if beside else "enrol", entry.id))

    def strike(self, name: str) -> None:
        self.said.append(("strike", name))

    def rename(self, name: str, entry: Entry) -> None:
        self.said.append(("rename", f"{name} {entry.id}"))

    def exchange(self, name: str, other: str) -> None:
        self.said.append(("exchange", f"{name} {other}"))

    async def hand_over(self, name: str, other: str) -> None:
        self.said.append(("hand over", f"{name} {other}"))

    def change(self, entry: Entry) -> None:
        self.said.append(("change", entry.id))

    def change_networks(self, networks: Sequence[StackNetwork], entries: Iterable[Entry]) -> None:
        del networks, entries

    def limit_logs(self, limit: LogLimit) -> None:
        self.limits.append(limit.max_total_bytes)

    async def tidy_networks(self) -> None:
        pass

    async def show(self, entry: Entry) -> None:
        del entry


@dataclass
class Theatre:
    """A stack that runs, and who reloads it. `file` is what the spec says."""

    stack: Stack
    runner: FakeRunner
    reloader: Reloader
    house: House
    file: list[Entry]
    logs: LogLimit = UNLIMITED
    fault: PysupError | None = None
    told: list[tuple[str, str | None, Mapping[str, object]]] = field(default_factory=list)

    async def reload(self, file: Sequence[Entry] | None = None) -> Reloaded:
        self.file = self.file if file is None else list(file)
        return await self.reloader.reload("a test")

    def phases(self) -> dict[str, str]:
        return {each.entry.id: str(each.state.phase) for each in self.stack.services}

    def events(self, container: str | None = None) -> list[str]:
        return [event for event, name, _ in self.told if name == container]

    def happened(self, what: str) -> list[str]:
        return [call.container for call in self.runner.calls if call.what == what]


Act = Callable[[Theatre], Awaitable[None]]


async def perform(
    file: Sequence[Entry],
    act: Act,
    scripts: Mapping[str, Script | Sequence[Script]] | None = None,
    *,
    stay: bool = True,
    abort_on_exit: bool = False,
) -> None:
    """A stack comes up, `act` follows, and it is stopped."""

    async def read(scales: Mapping[str, Scale]) -> Reading:
        if theatre.fault is not None:
            raise theatre.fault
        replicas = Counter(each.group for each in theatre.file)
        held = {name: each for name, each in scales.items() if each.instead_of in {None, replicas[name]}}
        found = [scaled for entry in groups(theatre.file) for scaled in many(entry, held)]
        told = {name: Scale(each.number, replicas[name]) for name, each in held.items()}
        return Reading(Compiled("s", tuple(found), theatre.logs), dict(replicas), told)

    def emit(event: str, container: str | None, fields: Mapping[str, object]) -> None:
        theatre.told.append((event, container, fields))

    async with FakeRunner(scripts) as runner, anyio.create_task_group() as tasks:
        stack = Stack(file, runner, emit, starts_max=64, chance=lambda: 0.5, abort_on_exit=abort_on_exit, stay=stay)
        replicas = Counter(each.group for each in file)
        reloader = Reloader(stack, house := House(), emit, Reading(Compiled("s", tuple(file)), dict(replicas)), read)
        theatre = Theatre(stack, runner, reloader, house, list(file))
        tasks.start_soon(stack.run)
        tasks.start_soon(reloader.run)
        await anyio.sleep(10)
        await act(theatre)
        is_consistent(stack)
        stack.stop()
        await anyio.sleep(100)
        assert all(each.state.phase in FINAL for each in stack.services)
        tasks.cancel_scope.cancel()


def groups(file: Sequence[Entry]) -> list[list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for each in file:
        found.setdefault(each.group, []).append(each)
    return list(found.values())


def many(group: list[Entry], scales: Mapping[str, Scale]) -> list[Entry]:
    """As many as are wanted, named as the spec names them."""
    name = group[0].group
    if name not in scales:
        return group
    number = scales[name].number
    ids = [name] if number == 1 else [f"{name}.{each + 1}" for each in range(number)]
    like = group[0]
    return [
        replace(like, id=id_, config=replace(like.config, id=id_, directory=f"/r/{id_}", hostname=id_)) for id_ in ids
    ]


def is_consistent(stack: Stack) -> None:
    """What was counted is what there is."""
    for service in stack.services:
        name = service.entry.id
        assert stack._services[name] is service
        assert stack._standings[name] is standing_of(service.state)
        assert service in stack._groups[service.entry.group].services
    assert stack._live == sum(not each.is_final for each in stack.services)
    assert sum(len(group.services) for group in stack._groups.values()) == len(stack.services)
    for name, group in stack._groups.items():
        assert group.name == name
        standings = [standing_of(each.state) for each in group.services]
        assert +group.phases == Counter(each.phase for each in standings)
        assert +group.met == Counter(condition for each in standings for condition in each.met)
        for condition in Condition:
            lost = {each for each in group.services if condition in standing_of(each.state).lost}
            assert set(group.lost[condition]) == lost
        dependents = [each for each in stack._groups.values() if name in each.depends_on]
        assert sorted(each.name for each in group.dependents) == sorted(each.name for each in dependents)
        assert group.needed_by == sum(not each.is_final for each in dependents)
        held = {
            other
            for other, need in group.depends_on.items()
            if need.timeout_s is None
            and not (stack._groups[other].meets(need.condition) or stack._groups[other].lost[need.condition])
        }
        assert group.held_by == held
        assert group.services or group.dependents
        assert all(each.entry.depends_on == group.depends_on for each in group.services)


def play(file: Sequence[Entry], act: Act, scripts: Mapping[str, Any] | None = None, **how: bool) -> None:
    on_virtual_clock(partial(perform, file, act, scripts, **how))


def one(name: str, *after: str, argv: str = "x", update: Update | None = None, **more: Any) -> Entry:
    (entry,) = entries(name, *after, **more)
    return replace(entry, config=replace(entry.config, argv=(argv,)), update=update or Update())


ROLLBACK = Update(on_failure=OnFailure.ROLLBACK)
START_FIRST = Update(Order.START_FIRST)


# --- one reload -------------------------------------------------------------------------------------------------------


def test_new_ones_start_removed_ones_stop_and_the_rest_goes_on() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload([one("db"), one("new", "db")])
        assert theatre.phases() == {"db": "running", "new": "running"}
        assert theatre.happened("start") == ["db", "old", "new"]
        assert answer.text == "+ new: new\n- old: removed\n1 new, 1 removed, 1 unchanged\n"
        assert answer.failure is None
        assert theatre.house.said == [("strike", "old"), ("enrol", "new")]
        assert theatre.events()[-1] == "reloaded"

    play([one("db"), one("old", "db")], act)


def test_dependents_are_removed_before_what_they_need() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("new")])
        assert theatre.happened("buried") == ["web", "db"]

    play([one("db"), one("web", "db"), one("new")], act, {"web": STOP_SLOWLY})


def test_what_has_changed_is_stopped_and_then_started_dependencies_first() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("db", argv="y"), one("web", "db", argv="y")])
        names = [(call.what, call.container) for call in theatre.runner.calls if call.what in {"start", "buried"}]
        assert names[2:] == [("buried", "db"), ("start", "db"), ("buried", "web"), ("start", "web")]
        assert theatre.phases() == {"db": "running", "web": "running"}
        assert [each.entry.config.argv for each in theatre.stack.services] == [("y",), ("y",)]

    play([one("db"), one("web", "db")], act, {"db": STOP_SLOWLY})


def test_the_old_run_is_stopped_as_it_was_configured() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("web", argv="y", stop_signal=10)])
        assert [call.number for call in theatre.runner.calls if call.what == "signal"] == [2]

    play([one("web", stop_signal=2)], act)


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2), (0, 5)])
def test_so_many_replicas_are_replaced_at_a_time(parallel: int, most: int) -> None:
    def five(argv: str) -> list[Entry]:
        update = Update(parallel=parallel)
        return [
            replace(each, config=replace(each.config, argv=(argv,)), update=update)
            for each in entries("web", replicas=5)
        ]

    async def act(theatre: Theatre) -> None:
        down, worst = 0, 0
        before = len(theatre.runner.calls)
        await theatre.reload(five("y"))
        for call in theatre.runner.calls[before:]:
            down += {"ended": 1, "started": -1}.get(call.what, 0)
            worst = max(worst, down)
        assert worst == most

    play(five("x"), act, {"web": Script(start_s=0.5)})


def test_policy_and_dependencies_are_swapped_while_it_runs() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload([one("db"), one("web", "db", restart="always", timeout_s=100.0)])
        assert sorted(theatre.happened("start")) == ["db", "web"]
        assert "= web: goes on running (" in answer.text
        theatre.runner.live["web"].end()
        await anyio.sleep(5)
        assert theatre.phases()["web"] == "running"

    play([one("db"), one("web")], act)


def test_a_new_dependency_is_waited_for_even_before_it_is_there() -> None:
    """Should `web` crash while the reload removes something else."""

    async def act(theatre: Theatre) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(theatre.reload, [one("web", "db", restart="always"), one("db")])
            await anyio.sleep(2)
            theatre.runner.live["web"].end()
            await anyio.sleep(3)
            assert theatre.phases()["web"] == "waiting"
        assert theatre.phases() == {"web": "running", "db": "running"}

    play([one("web", restart="always"), one("slow")], act, {"slow": Script(stops_s=8.0)})


@pytest.mark.parametrize("update", [Update(), START_FIRST])
def test_who_is_to_restart_along_with_a_replaced_one_is(update: Update) -> None:
    needs = {"db": Dependency(Condition.STARTED, restart=True)}

    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("db", argv="y", update=update), one("web", conditions=needs)])
        await anyio.sleep(1)
        assert theatre.happened("start").count("web") == 2

    play([one("db"), one("web", conditions=needs)], act)


def test_nothing_happens_where_nothing_has_changed() -> None:
    async def act(theatre: Theatre) -> None:
        answer = await theatre.reload()
        assert (answer.changed, answer.text) == (False, "1 unchanged\n")
        assert theatre.happened("start") == ["web"]

    play([one("web")], act)


def test_a_preview_changes_nothing() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.file = [one("web", argv="y")]
        assert (await theatre.reloader.preview()).text == "~ web: replaced (cmd: x -> y)\n1 replaced\n"
        assert theatre.happened("start") == ["web"]
        assert theatre.events()[-1] == "stack_up"

    play([one("web")], act)


def test_a_faulty_spec_changes_nothing_and_each_fault_is_told() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.fault = SpecError(["a.yaml:1:1: bad", "a.yaml:2:1: worse"])
        with pytest.raises(SpecError):
            await theatre.reload([])
        theatre.reloader.hint("SIGHUP")
        await anyio.sleep(1)
        faults = [fields["error"] for event, _, fields in theatre.told if event == "reload_refused"]
        assert faults == ["a.yaml:1:1: bad", "a.yaml:2:1: worse"] * 2
        assert theatre.phases() == {"web": "running"}

    play([one("web")], act)


def test_the_stack_does_not_end_between_its_last_container_and_the_next_one() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("new")])
        await anyio.sleep(1)
        assert theatre.phases() == {"new": "running"}

    play([one("old")], act, stay=False)


def test_a_completed_one_whose_configuration_has_changed_runs_again() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("job", argv="y"), one("web")])
        assert theatre.happened("start").count("job") == 2

    play([one("job"), one("web")], act, {"job": Script(runs_s=1)})


def test_who_leaves_or_is_replaced_does_not_end_a_stack_that_ends_with_the_first() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reload([one("db", argv="y", update=START_FIRST), one("web", argv="y"), one("new")])
        await anyio.sleep(1)
        assert set(theatre.phases().values()) == {"running"}
        theatre.runner.live["new"].end()
        await anyio.sleep(1)
        assert set(theatre.phases().values()) == {"exited"}

    play([one("db"), one("web"), one("old")], act, abort_on_exit=True)


# --- what is stopped, and what is not ours ----------------------------------------------------------------------------


def test_what_the_operator_stopped_stays_stopped() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.stack.service("web").post(Stop())
        await anyio.sleep(1)
        await theatre.reload([one("web", argv="y"), one("lb", "web", argv="y"), one("api", argv="y")])
        assert theatre.phases() == {"web": "exited", "lb": "waiting", "api": "running"}
        theatre.stack.service("web").post(Start())
        await anyio.sleep(1)
        assert theatre.phases() == {"web": "running", "lb": "running", "api": "running"}
        assert theatre.stack.service("web").entry.config.argv == ("y",)

    play([one("web"), one("lb", "web"), one("api")], act)


def test_one_that_takes_the_place_of_a_stopped_one_stays_down_too() -> None:
    """Its name is in its command, so it can't just be renamed."""

    async def act(theatre: Theatre) -> None:
        theatre.stack.service("web").post(Stop())
        await anyio.sleep(1)
        several = [replace(each, config=replace(each.config, argv=(each.id,))) for each in entries("web", replicas=2)]
        await theatre.reload(several)
        assert theatre.phases() == {"web.1": "exited", "web.2": "running"}

    play([one("web")], act)


def test_what_was_made_through_the_api_is_untouched_and_its_name_is_taken() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.house.others.add("guest")
        theatre.stack.add(one("guest"), counts=False).post(Start())
        await theatre.reload([one("new")])
        assert theatre.phases() == {"new": "running", "guest": "running"}
        with pytest.raises(ConflictError, match="guest is the name of a container made through the API"):
            await theatre.reload([one("new"), one("guest")])
        assert theatre.happened("start").count("guest") == 1

    play([one("web")], act)


# --- failures ---------------------------------------------------------------------------------------------------------

BREAKS: list[tuple[str, Mapping[str, Any], Script]] = [
    ("it can't be started", {}, Script(error=PysupError("no such file"))),
    ("it ends at once", {"restart": "always"}, CRASH),
    ("it is not ready in time", {"ready": READY_CHECK, "restart": "always"}, Script(serves_s=99)),
    ("it is not healthy", {"health": Health(Tcp(80), retries=1, start_period_s=0)}, Script(sick_s=0.0)),
]
FINE = Script()


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
            "db did not come up: exited with status 1; 1 steps are left: pysup reload goes on with them"
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
        assert first[0].failure == "another reload was asked for: 1 steps are left"
        assert answer.failure is None
        assert [each.entry.config.argv for each in theatre.stack.services] == [("z",), ("y",)]

    play([one("web"), one("lb", "web")], act, {"web": [FINE, Script(serves_s=9e9), FINE]})


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


# --- scale ------------------------------------------------------------------------------------------------------------


def test_scaling_adds_and_removes_and_renames_without_a_restart() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reloader.scale({"web": 3}, "a test")
        assert theatre.phases() == {"web.1": "running", "web.2": "running", "web.3": "running", "db": "running"}
        await theatre.reloader.scale({"web": 1}, "a test")
        assert theatre.phases() == {"web": "running", "db": "running"}
        assert sorted(theatre.happened("start")) == ["db", "web", "web.2", "web.3"]
        await theatre.reloader.scale({"web": 0}, "a test")
        assert theatre.phases() == {"db": "running"}

    play([one("web"), one("db")], act)


def test_a_scale_holds_over_reloads_until_the_file_has_another_number() -> None:
    async def act(theatre: Theatre) -> None:
        await theatre.reloader.scale({"web": 3}, "a test")
        await theatre.reload([one("web"), one("db", argv="y")])
        assert len(theatre.phases()) == 4
        await theatre.reload([*entries("web", replicas=2), one("db", argv="y")])
        assert theatre.phases() == {"web.1": "running", "web.2": "running", "db": "running"}

    play([one("web"), one("db")], act)


def test_what_an_operator_has_changed_is_no_difference_until_the_file_has_another_word_on_it() -> None:
    async def act(theatre: Theatre) -> None:
        before, after = one("b"), amend(one("b"), restarts=(ALWAYS, None))
        theatre.house.amendments["b"] = Amendment.of(before, after)
        theatre.stack.service("b").adapt(after)
        assert not (await theatre.reload()).changed
        assert not (await theatre.reloader.scale({"a": 1}, "a test")).changed
        other = one("b", restart=RestartPolicy.ON_FAILURE)
        assert (await theatre.reload([one("a"), other])).changed
        assert theatre.stack.service("b").entry.policy.restart is RestartPolicy.ON_FAILURE

    play([one("a"), one("b")], act)


def test_scaling_changes_nothing_else() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.file = [one("web"), one("db", argv="y"), one("new")]
        await theatre.reloader.scale({"web": 2}, "a test")
        assert theatre.phases() == {"web.1": "running", "web.2": "running", "db": "running"}
        assert theatre.stack.service("db").entry.config.argv == ("x",)
        theatre.file = [one("web", argv="y"), one("db")]
        with pytest.raises(ConflictError, match=r"web.1 has changed in the file \(cmd: x -> y\): pysup reload first"):
            await theatre.reloader.scale({"web": 3}, "a test")

    play([one("web"), one("db")], act)


def test_another_limit_of_all_logs_holds_from_then_on() -> None:
    async def act(theatre: Theatre) -> None:
        theatre.logs = LogLimit(1 << 20)
        with pytest.raises(ConflictError, match=r"logs of the stack have changed in the file .*: pysup reload first"):
            await theatre.reloader.scale({"web": 2}, "a test")
        assert theatre.house.limits == []
        told = await theatre.reload()
        assert told.text == "= logs of the stack: max_total: none -> 1048576\n1 unchanged\n"
        assert theatre.house.limits == [1 << 20]
        assert not (await theatre.reload()).changes["logs"]
        theatre.logs = UNLIMITED
        await theatre.reload([one("web", argv="y", update=ROLLBACK)])
        assert theatre.house.limits[-2:] == [None, 1 << 20]
        theatre.logs = LogLimit(1 << 20)
        assert (await theatre.reload([one("web")])).text == "1 unchanged\n"

    play([one("web")], act, {"web": [FINE, CRASH, FINE]})


# --- any sequence -----------------------------------------------------------------------------------------------------

CONDITIONS = st.sampled_from([Dependency(), READY, HEALTHY, Dependency(restart=True), Dependency(required=False)])


class File(list[Entry]):
    """In short, when it is told."""

    def __repr__(self) -> str:
        shown = (f"{each.id}({' '.join(each.depends_on)}) {each.config.argv[0]} {each.update.order}" for each in self)
        return f"[{', '.join(shown)}]"


@st.composite
def files(draw: st.DrawFn) -> File:
    """A stack of a few groups, each depending on some with a lesser letter, all of which serve sooner or later."""
    found: list[Entry] = []
    for name in sorted(draw(st.sets(st.sampled_from("abcde"), min_size=1))):
        below = sorted({each.group for each in found})
        update = Update(draw(st.sampled_from(Order)), draw(st.integers(0, 2)), draw(st.sampled_from(OnFailure)))
        group = entries(
            name,
            replicas=draw(st.integers(1, 3)),
            conditions=draw(st.dictionaries(st.sampled_from(below), CONDITIONS) if below else st.just({})),
            restart=draw(st.sampled_from(["no", "always"])),
            health=draw(st.just(Health(Tcp(80), start_interval_s=1.0))),
            ready=draw(st.sampled_from([None, READY_CHECK])),
        )
        argv = (draw(st.sampled_from("xy")),)
        found += [replace(each, config=replace(each.config, argv=argv), update=update) for each in group]
    return File(found)


SLOW = {name: Script(start_s=0.2, serves_s=0.5, stops_s=0.3) for name in "abcde"}
WISHES = st.lists(
    st.tuples(files(), st.sampled_from(["", "stop", "crash", "scale"]), st.randoms()), min_size=1, max_size=4
)


@PATIENT
@given(files(), WISHES)
def test_after_any_reloads_there_is_what_the_file_says_and_what_was_counted(
    first: File, wishes: list[tuple[File, str, Any]]
) -> None:
    async def act(theatre: Theatre) -> None:
        for file, then, some in wishes:
            await theatre.reload(file)
            await anyio.sleep(5)
            is_consistent(theatre.stack)
            service = some.choice(theatre.stack.services)
            if then == "stop" and len(service.entry.id) == 1:
                service.post(Stop())
            elif then == "crash" and service.current is not None and service.entry.policy.restart is ALWAYS:
                service.current.end()
            elif then == "scale":
                await theatre.reloader.scale({service.entry.group: some.randint(1, 3)}, "a test")
            await anyio.sleep(5)
            is_consistent(theatre.stack)
        if stopped := [each for each in theatre.stack.services if not each.state.wanted_up]:
            for each in stopped:  # who waits for it does not come up, and stays as it was
                each.post(Start())
            await theatre.reload()
            await anyio.sleep(30)
        answer = await theatre.reload()
        await anyio.sleep(30)
        assert not answer.changed, answer.text
        wanted = {each.group for each in theatre.file}
        assert {each.entry.group for each in theatre.stack.services} == wanted
        for service in theatre.stack.services:
            assert service.coming is None
            like = next(each for each in theatre.file if each.group == service.entry.group)
            assert service.entry.config.argv == like.config.argv
            assert service.entry.depends_on == like.depends_on
            assert service.state.policy == service.entry.policy == like.policy
            assert service.state.phase not in {Phase.CREATED, Phase.STARTING, Phase.ACTIVATING, Phase.STOPPING}

    play(first, act, SLOW)


@PATIENT
@given(files(), st.lists(files(), min_size=2, max_size=4), st.lists(st.floats(0, 3), min_size=4, max_size=4))
def test_reloads_that_overtake_each_other_come_to_the_same(
    first: File, wishes: list[File], pauses: list[float]
) -> None:
    async def act(theatre: Theatre) -> None:
        for file, pause_s in zip(wishes, pauses, strict=False):
            theatre.file = file
            theatre.reloader.hint(f"{pause_s}")
            await anyio.sleep(pause_s)
        await theatre.reload()
        await anyio.sleep(30)
        is_consistent(theatre.stack)
        assert not (await theatre.reloader.preview()).changed
        assert {each.entry.group for each in theatre.stack.services} == {each.group for each in wishes[-1]}

    play(first, act, SLOW)
