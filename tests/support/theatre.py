"""A stack that runs on a virtual clock, and reloads of it: what the file says, what was told, and what was counted."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from fake import FakeRunner, Script
from stage import on_virtual_clock

from runtime.errors import PysupError
from supervisor.commands import Reloaded
from supervisor.core.checks import Ready, Tcp
from supervisor.core.policy import Condition
from supervisor.core.states import FINAL
from supervisor.entry import Compiled, Entry, OnFailure, Order, Reading, Scale, StackNetwork, Update
from supervisor.logs.policy import UNLIMITED, LogLimit
from supervisor.reload.reloader import Reloader
from supervisor.stack.group import standing_of
from supervisor.stack.tree import Stack

if TYPE_CHECKING:
    from supervisor.reload.amendment import Amendment

STOP_SLOWLY = Script(stops_s=1.0)
FINE = Script()
ROLLBACK = Update(on_failure=OnFailure.ROLLBACK)
START_FIRST = Update(Order.START_FIRST)
READY_CHECK = Ready(Tcp(80), timeout_s=5.0)


class House:
    """See reload/house.py: it only remembers."""

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
