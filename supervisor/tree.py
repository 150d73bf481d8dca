"""All containers of a stack: in what order they start and stop, and when it is over.

The containers that one entry of the spec stands for are a group; dependencies hold between groups. A group counts what
has become of its members, so that a change costs the same with one replica and with thousands. Containers start as soon
as their dependencies are met, as many at once as the limiter lets; they stop when nobody who depends on them is left.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import anyio
import anyio.abc

from supervisor.entry import Entry
from supervisor.machine import (
    FINAL,
    DependenciesMet,
    DependencyFailed,
    Event,
    Kill,
    Phase,
    Report,
    Start,
    Stop,
    succeeded,
)
from supervisor.policy import Condition
from supervisor.runner import Runner
from supervisor.service import Service

Emit = Callable[[str, str | None, Mapping[str, object]], None]  # event, container, fields


@dataclass(frozen=True, slots=True)
class Summary:
    """How it ended: what failed (container, why), in the spec's order."""

    failed: tuple[tuple[str, str], ...]


class Group:
    """The replicas of one entry, and what they depend on."""

    def __init__(self, name: str, depends_on: Mapping[str, Condition]) -> None:
        self.name = name
        self.depends_on = depends_on
        self.dependents: list[Group] = []
        self.services: list[Service] = []
        self.phases: Counter[Phase] = Counter()
        self.started: set[str] = set()  # who has run, at least once
        self.released = False  # its members were told that they may start, or never can
        self.stopping = False
        self.failure: str | None = None  # of the first member that failed: what dependents are told

    def add(self, service: Service) -> None:
        self.services.append(service)
        self.phases[service.state.phase] += 1

    def moved(self, service: Service, before: Phase) -> bool:
        """A member changed its phase. True when it runs for the first time."""
        phase = service.state.phase
        self.phases[before] -= 1
        self.phases[phase] += 1
        if phase is Phase.FAILED and self.failure is None:
            self.failure = f"{service.entry.id} failed"
        if phase is not Phase.RUNNING or service.entry.id in self.started:
            return False
        self.started.add(service.entry.id)
        return True

    def meets(self, condition: Condition) -> bool:
        """Do all members meet a dependent's condition?"""
        if condition is Condition.STARTED:
            return len(self.started) == len(self.services)
        return self.phases[Phase.EXITED] == len(self.services) and all(map(_completed, self.services))

    @property
    def is_final(self) -> bool:
        return self.phases[Phase.EXITED] + self.phases[Phase.FAILED] == len(self.services)

    def post(self, event: Event) -> None:
        """To every member."""
        for service in self.services:
            service.post(event)


def _completed(service: Service) -> bool:
    """Did it end by itself, with success? One that was stopped is no longer wanted up."""
    return service.state.wanted_up and succeeded(service.state.status)


class Stack:
    """The task group of all services. `run` returns when all of them are final."""

    def __init__(
        self,
        entries: Iterable[Entry],
        runner: Runner,
        emit: Emit,
        *,
        starts_max: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._emit = emit
        self._groups: dict[str, Group] = {}
        self._phases: dict[str, Phase] = {}
        self._final = anyio.Event()
        limiter = anyio.Semaphore(starts_max)
        tell, changed = self._tell, self._changed  # one bound method for all services
        for entry in entries:
            group = self._groups.setdefault(entry.group, Group(entry.group, entry.depends_on))
            service = Service(entry, runner, limiter, tell=tell, changed=changed, chance=chance)
            group.add(service)
            self._phases[entry.id] = service.state.phase
        for group in list(self._groups.values()):
            for name in group.depends_on:  # one without replicas is there too: it is met at once
                self._groups.setdefault(name, Group(name, {})).dependents.append(group)
        self._live = self._not_yet_up = len(self._phases)

    @property
    def services(self) -> list[Service]:
        """All containers, in the spec's order."""
        return [service for group in self._groups.values() for service in group.services]

    async def run(self) -> Summary:
        """Start everything, and see it through."""
        async with anyio.create_task_group() as tasks:
            for service in self.services:
                tasks.start_soon(service.run)
            for group in self._groups.values():
                if not group.stopping:  # it may have been asked before
                    group.post(Start())
            for group in self._groups.values():
                self._release(group)
            if self.services:
                await self._final.wait()
            tasks.cancel_scope.cancel()
        return Summary(
            tuple(
                (each.entry.id, each.state.failure or "") for each in self.services if each.state.phase is Phase.FAILED
            )
        )

    def stop(self) -> None:
        """Everything is wanted down, dependents before what they depend on."""
        for group in self._groups.values():
            self._stop(group)

    def kill(self) -> None:
        """Everything is wanted down at once."""
        for group in self._groups.values():
            group.stopping = True
            group.post(Kill())

    # --- order -------------------------------------------------------------------------------------------------------

    def _changed(self, service: Service) -> None:
        group, before = self._groups[service.entry.group], self._phases[service.entry.id]
        self._phases[service.entry.id] = service.state.phase
        first_time_up = group.moved(service, before)
        for dependent in group.dependents:
            self._release(dependent)
        if first_time_up:
            self._count_up()
        self._live += (before in FINAL) - service.is_final
        if group.is_final:
            for name in group.depends_on:
                self._stop_if_unneeded(self._groups[name])
        if not self._live:
            self._final.set()

    def _release(self, group: Group) -> None:
        """Tell a group that its dependencies are met, or never will be; once."""
        if group.released:
            return
        dependencies = [(self._groups[name], condition) for name, condition in group.depends_on.items()]
        chain = next((other.failure for other, _ in dependencies if other.failure), None)
        if chain is not None:
            group.released = True
            group.failure = f"{group.name} was not started, as {chain}"
            group.post(DependencyFailed(chain))
        elif all(other.meets(condition) for other, condition in dependencies):
            group.released = True
            group.post(DependenciesMet())

    def _stop(self, group: Group) -> None:
        """Wanted down: now, or when its dependents are."""
        group.stopping = True
        self._stop_if_unneeded(group)

    def _stop_if_unneeded(self, group: Group) -> None:
        if group.stopping and all(dependent.is_final for dependent in group.dependents):
            group.post(Stop())

    # --- words -------------------------------------------------------------------------------------------------------

    def _tell(self, container: str, report: Report) -> None:
        self._emit(report.kind, container, report.fields)

    def _count_up(self) -> None:
        self._not_yet_up -= 1
        if not self._not_yet_up:
            self._emit("stack_up", None, {"count": len(self._phases)})
