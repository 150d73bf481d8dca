"""All containers of a stack: in what order they start, restart and stop, and when it is over.

The containers that one entry of the spec stands for are a group; dependencies hold between groups, at every start of
every member. A group counts which of its members meet which condition, so that a change costs the same with one replica
and with thousands. Containers start as soon as their dependencies are met, as many at once as the limiter lets; they
stop when nobody who depends on them is left.
"""

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import anyio
import anyio.abc

from supervisor.core.checks import Verdict
from supervisor.core.policy import Dependency
from supervisor.core.states import (
    FINAL,
    LIVE,
    DependenciesMet,
    DependencyFailed,
    Event,
    Kill,
    Phase,
    Report,
    Restart,
    Start,
    Stop,
)
from supervisor.entry import Entry
from supervisor.stack.group import COMING_BACK, Group, Standing, standing_of
from supervisor.stack.runner import Runner
from supervisor.stack.service import Service, Surroundings

CHECKS_MAX = 32  # under way at once: after a stall, or with thousands of containers, all may be due together

Emit = Callable[[str, str | None, Mapping[str, object]], None]  # event, container, fields


@dataclass(frozen=True, slots=True)
class Summary:
    """How it ended: what failed (container, why), in the spec's order."""

    failed: tuple[tuple[str, str], ...]


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
        abort_on_exit: bool = False,
        decisive: str | None = None,
        stay: bool = False,
    ) -> None:
        self._runner = runner
        self._emit = emit
        self._starts_max = starts_max
        self._chance = chance
        self._abort_on_exit = abort_on_exit
        self._decisive = decisive  # the group whose end is always a reason for that
        self._stay = stay  # also when all are final: until it is told to stop
        self._stopping = False
        self._groups: dict[str, Group] = {}
        self._services: dict[str, Service] = {}
        self._standings: dict[str, Standing] = {}
        self._live = 0
        self._final = anyio.Event()
        self._around: Surroundings | None = None  # while it runs
        self.leaving: set[Service] = set()  # whose end is no reason to stop all others
        self.checked: Callable[[Verdict], None] = _ignore
        self.listeners: list[Callable[[Service], None]] = []  # told of every change of a phase, or of health
        self._changes_under_way = 0
        self._not_yet_up: set[str] = set()
        for entry in entries:
            self._put(entry, counts=True)
        self._link()

    @property
    def services(self) -> list[Service]:
        """All containers, in the spec's order; later ones after them."""
        return list(self._services.values())

    def service(self, id_: str) -> Service:
        """KeyError if there is none."""
        return self._services[id_]

    def has(self, name: str) -> bool:
        """Is there a container, or an entry of a spec, of that name?"""
        return name in self._services or (name in self._groups and bool(self._groups[name].services))

    @property
    def is_stopping(self) -> bool:
        """Has it been told to?"""
        return self._stopping

    # --- changes while it runs ----------------------------------------------------------------------------------------

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Something is about to be added, or started again: it is not over before that."""
        self._changes_under_way += 1
        try:
            yield
        finally:
            self._changes_under_way -= 1
            self._end_if_over()

    def add(self, entry: Entry, *, counts: bool = True) -> Service:
        """One more container, while the stack runs. It is down until it is started. `counts`: the stack is not up
        before this one is, too.
        """
        assert self._around is not None
        known = self._groups.get(entry.group)
        was_final = known is None or known.is_final
        service = self._put(entry, counts=counts and bool(self._not_yet_up))
        group = self._groups[entry.group]
        if known is None or group.depends_on != entry.depends_on:
            group.depends_on = entry.depends_on
            self._link()
        else:
            self._count_need(group, was_final=was_final)
            self._reconsider(group)
        group.stopping = group.stopping or self._stopping
        self._around.tasks.start_soon(service.run, self._around)
        return service

    def remove(self, id_: str) -> None:
        """Forget a container that is final, or was never started. Those that depend on it are not asked."""
        service = self._services.pop(id_)
        assert service.is_final or service.state.phase is Phase.CREATED
        group = self._groups[service.entry.group]
        was_final = group.is_final
        group.drop(service, self._standings.pop(id_))
        self._count_need(group, was_final=was_final)
        self._live -= not service.is_final
        if group.services or group.dependents:
            self._reconsider(group)
        else:
            self._forget(group)
        service.retire()
        self._count_up(id_)
        self._end_if_over()

    def rewire(self, depends_on: Mapping[str, Mapping[str, Dependency]], coming: Collection[str] = ()) -> None:
        """Who depends on whom from now on, by groups; who is not named depends on nobody. `coming` have no members yet:
        whoever needs them waits until they have.
        """
        for name in coming:
            self._groups.setdefault(name, Group(name, {}))
        for group in self._groups.values():
            group.is_coming = group.name in coming and not group.services
            needs = depends_on.get(group.name, {})
            if group.depends_on != needs:
                group.depends_on = needs
                for service in group.services:
                    service.depend(needs)
        self._link()
        for service in self.services:
            if service.state.phase is Phase.WAITING:
                self._admit(service)

    def rename(self, id_: str, entry: Entry) -> Service:
        """A container is another entry of its group from now on; a run that it has goes on."""
        service = self._services[id_]
        assert entry.id not in self._services
        self._services = {(entry.id if name == id_ else name): each for name, each in self._services.items()}
        self._standings[entry.id] = self._standings.pop(id_)
        if id_ in self._not_yet_up:
            self._not_yet_up = self._not_yet_up - {id_} | {entry.id}
        service.adapt(entry)
        return service

    def exchange(self, id_: str, other: str) -> None:
        """Two containers take each other's ids and groups: who has depended on the one depends on the other. Whoever is
        to restart along is restarted.
        """
        one, two = self._services[id_], self._services[other]
        group, aside = self._groups[one.entry.group], self._groups[two.entry.group]
        was_final = group.is_final, aside.is_final
        for service, home in ((one, group), (two, aside)):
            home.drop(service, self._standings[service.entry.id])
        entry = one.entry
        one.entry = replace(entry, id=two.entry.id, group=two.entry.group)
        two.entry = replace(two.entry, id=entry.id, group=entry.group)
        for service, home in ((one, aside), (two, group)):
            self._services[service.entry.id] = service
            self._standings[service.entry.id] = standing_of(service.state)
            home.add(service, self._standings[service.entry.id])
        for home, before in zip((group, aside), was_final, strict=True):
            self._count_need(home, was_final=before)
            self._reconsider(home)
        self._restart_dependents(group, two)
        if two.state.is_up:
            self._count_up(id_)

    def arrange(self, order: Iterable[str]) -> None:
        """List containers in this order; others after them."""
        first = {name: self._services[name] for name in order if name in self._services}
        self._services = {**first, **self._services}

    def waits_in_vain(self, service: Service) -> str | None:
        """Does a container wait for one that somebody has stopped, or that waits for such a one? Its name."""
        if service.state.phase is not Phase.WAITING:
            return None
        for name, need in self._groups[service.entry.group].depends_on.items():
            group = self._groups[name]
            if need.timeout_s is not None or group.meets(need.condition) or group.lost[need.condition]:
                continue
            for other in group.services:
                if other.is_final and not other.state.wanted_up:
                    return other.entry.id
                if (stopped := self.waits_in_vain(other)) is not None:
                    return stopped
        return None

    def _reconsider(self, group: Group) -> None:
        """It has other members: that may be what others have waited for."""
        self._weigh(group)
        self._release_dependents(group)
        if group.is_final:
            for name in group.depends_on:
                self._stop_if_unneeded(self._groups[name])

    def _forget(self, group: Group) -> None:
        del self._groups[group.name]
        for name in group.depends_on:
            other = self._groups[name]
            other.dependents.remove(group)
            if not (other.services or other.dependents):
                del self._groups[name]
            else:
                self._stop_if_unneeded(other)

    def _link(self) -> None:
        """Note from both sides who depends on whom. A group without members is there only if somebody depends on it."""
        while True:
            needed = {name for group in self._groups.values() for name in group.depends_on}
            idle = [group for group in self._groups.values() if not group.services and group.name not in needed]
            if not idle:
                break
            for group in idle:
                del self._groups[group.name]
        for group in self._groups.values():
            group.dependents, group.held_by = [], set()
        for group in list(self._groups.values()):
            for name in group.depends_on:  # one without replicas is there too: it is met at once
                self._groups.setdefault(name, Group(name, {})).dependents.append(group)
        for group in self._groups.values():
            self._weigh(group)
            group.needed_by = sum(not dependent.is_final for dependent in group.dependents)

    def _put(self, entry: Entry, *, counts: bool) -> Service:
        group = self._groups.setdefault(entry.group, Group(entry.group, entry.depends_on))
        self._services[entry.id] = service = Service(entry)
        self._standings[entry.id] = standing = standing_of(service.state)
        group.add(service, standing)
        self._live += 1
        if counts:
            self._not_yet_up.add(entry.id)
        return service

    # --- its life -----------------------------------------------------------------------------------------------------

    async def run(self) -> Summary:
        """Start everything, and see it through."""
        async with anyio.create_task_group() as tasks:
            self._around = around = Surroundings(
                runner=self._runner,
                starts=anyio.Semaphore(self._starts_max),
                checks=anyio.Semaphore(CHECKS_MAX),
                tasks=tasks,
                tell=self._tell,
                changed=self._changed,
                gate=self._gate,
                chance=self._chance,
                checked=self.checked,
            )
            for service in self.services:
                tasks.start_soon(service.run, around)
            for group in self._groups.values():
                if not group.stopping:  # it may have been asked before
                    group.post(Start())
            self._end_if_over()
            await self._final.wait()
            tasks.cancel_scope.cancel()
        return Summary(
            tuple((each.entry.id, each.state.failure) for each in self.services if each.state.failure is not None)
        )

    def stop(self) -> None:
        """Everything is wanted down, dependents before what they depend on."""
        self._stopping = True
        for group in self._groups.values():
            group.stopping = True
        for group in self._groups.values():
            self._stop_if_unneeded(group)
        self._end_if_over()

    def kill(self) -> None:
        """Everything is wanted down at once."""
        self._stopping = True
        for group in self._groups.values():
            group.stopping = True
            group.post(Kill())
        self._end_if_over()

    # --- order -------------------------------------------------------------------------------------------------------

    def _changed(self, service: Service) -> None:
        name, group = service.entry.id, self._groups[service.entry.group]
        before, after = self._standings[name], standing_of(service.state)
        self._standings[name] = after
        was_final = group.is_final
        matters = group.moved(service, before, after)
        self._count_need(group, was_final=was_final)
        if after.phase is Phase.WAITING:
            self._admit(service)
        if after.phase in COMING_BACK and before.phase in LIVE:
            self._restart_dependents(group, service)
        if matters:
            self._weigh(group)
            self._release_dependents(group)
        if after.is_up:
            self._count_up(name)
        self._live += (before.phase in FINAL) - (after.phase in FINAL)
        for listener in self.listeners:
            listener(service)
        if after.phase in FINAL:
            self._see_out(group, service)

    def _gate(self, service: Service) -> Event | None:
        """May it start now? None: not yet."""
        skipped = []
        now, since = anyio.current_time(), service.state.since
        unmet = False
        for name, dependency in self._groups[service.entry.group].depends_on.items():
            other = self._groups[name]
            if other.meets(dependency.condition):
                continue
            why = other.hopeless(dependency.condition)
            if why is None and dependency.timeout_s is not None and now >= since + dependency.timeout_s:
                why = f"{name} was not {dependency.condition} within {dependency.timeout_s:g} s"
            if why is None:
                unmet = True
            elif dependency.required:
                return DependencyFailed(why)
            else:
                skipped.append(why)
        return None if unmet else DependenciesMet(tuple(skipped))

    def _admit(self, service: Service) -> None:
        if (answer := self._gate(service)) is not None:
            service.post(answer)

    def _weigh(self, group: Group) -> None:
        """Who is held by a group? So that one group's 1,000 changes are not 1,000 another's looks."""
        for dependent in group.dependents:
            need = dependent.depends_on[group.name]
            if need.timeout_s is None and not (group.meets(need.condition) or group.lost[need.condition]):
                dependent.held_by.add(group.name)
            else:
                dependent.held_by.discard(group.name)

    def _release_dependents(self, group: Group) -> None:
        for dependent in group.dependents:
            need = dependent.depends_on[group.name]
            failed = need.required and group.lost[need.condition]
            if dependent.phases[Phase.WAITING] and (failed or not dependent.held_by):
                for service in dependent.services:
                    if service.state.phase is Phase.WAITING:
                        self._admit(service)

    def _restart_dependents(self, group: Group, service: Service) -> None:
        for dependent in group.dependents:
            if dependent.depends_on[group.name].restart:
                dependent.post(Restart(f"{service.entry.id} was restarted"), LIVE | {Phase.STARTING})

    def _see_out(self, group: Group, service: Service) -> None:
        """It has ended for good: that may have been what others waited for to stop."""
        if group.is_final:
            for name in group.depends_on:
                self._stop_if_unneeded(self._groups[name])
        if self._aborts(group, service):
            self._emit("aborting", service.entry.id, {})
            self.stop()
        self._end_if_over()

    def _aborts(self, group: Group, service: Service) -> bool:
        """Is its end a reason to stop all others? Not if it has completed what somebody waits for to begin."""
        if not self._abort_on_exit or group.stopping or service in self.leaving:
            return False
        return group.name == self._decisive or not (service.state.completed and group.is_awaited)

    def _end_if_over(self) -> None:
        """Who is told to stop meanwhile is not over before the change has seen it, either."""
        if self._live or self._around is None or self._changes_under_way:
            return
        if self._stopping or not self._stay:
            self._final.set()

    def _count_need(self, group: Group, *, was_final: bool) -> None:
        for name in group.depends_on if group.is_final is not was_final else ():
            self._groups[name].needed_by += 1 if was_final else -1

    def _stop_if_unneeded(self, group: Group) -> None:
        if group.stopping and not group.needed_by:
            group.post(Stop())

    # --- words -------------------------------------------------------------------------------------------------------

    def _tell(self, container: str, report: Report) -> None:
        self._emit(report.kind, container, report.fields)

    def _count_up(self, name: str) -> None:
        """It is up, or nobody waits for that any more."""
        if not self._not_yet_up:
            return
        self._not_yet_up.discard(name)
        if not self._not_yet_up:
            self._emit("stack_up", None, {"count": len(self._standings)})


def _ignore(_verdict: Verdict) -> None:
    """Nobody counts."""
