"""Does the steps of a reload to a running stack, wave by wave.

What an operator has stopped stays stopped: its entry is another, its run is none. The step that is under way when
somebody is in a hurry is brought to an end where it would leave a run too many.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import anyio

from supervisor.core.states import ALIVE, Phase, Restart, Start, Stop
from supervisor.entry import Entry, OnFailure
from supervisor.reload.house import House
from supervisor.reload.waiting import Waiting
from supervisor.reload.waves import Adapt, Add, Remove, Rename, Replace, Rewire, Step, Wave
from supervisor.stack.service import Service
from supervisor.stack.tree import Emit, Stack

CHANGED = "its configuration has changed"

Finish = Callable[[], Awaitable[str | None]]  # waits for a step to be done; why it has failed, or None


@dataclass(frozen=True, slots=True)
class Failure:
    """A container did not come up."""

    id: str
    why: str
    wants_rollback: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has failed, and how many steps were not begun."""

    failures: Sequence[Failure]
    left: int


class Performer:
    """See above. `beside`: ids of second runs, while there are some."""

    def __init__(self, stack: Stack, house: House, waiting: Waiting, emit: Emit) -> None:
        self._stack = stack
        self._house = house
        self._waiting = waiting
        self._emit = emit
        self._stopped: set[str] = set()  # removed in this reload, and stopped by an operator before
        self.beside: set[str] = set()

    async def perform(self, waves: Sequence[Wave]) -> Outcome:
        """Until something fails, or somebody is in a hurry."""
        self._stopped = set()
        return await self._carry_out(waves, through=False)

    async def undo(self, waves: Sequence[Wave]) -> Outcome:
        """The way back, whatever fails on it."""
        return await self._carry_out(waves, through=True)

    async def _carry_out(self, waves: Sequence[Wave], *, through: bool) -> Outcome:
        coming = {step.new.group for wave in waves for step in wave if isinstance(step, Add)}
        failures: list[Failure] = []
        for number, wave in enumerate(waves):
            if (failures and not through) or not self._waiting.may_go_on():
                return Outcome(failures, sum(map(len, waves[number:])))
            failures += await self._do(wave, coming)
        return Outcome(failures, 0)

    async def _do(self, wave: Wave, coming: Iterable[str]) -> list[Failure]:
        """All of a wave are begun before any of them can go on: a group has all its members at once."""
        failures: list[Failure] = []
        finishes = [(step, self._begin(step, coming)) for step in wave]

        async def see_through(step: Step, finish: Finish) -> None:
            if (why := await finish()) is not None and isinstance(step, Add | Replace):
                failures.append(Failure(step.new.id, why, step.new.update.on_failure is OnFailure.ROLLBACK))

        async with anyio.create_task_group() as tasks:
            for step, finish in finishes:
                if finish is not None:
                    tasks.start_soon(see_through, step, finish)
        return failures

    def _begin(self, step: Step, coming: Iterable[str]) -> Finish | None:
        match step:
            case Rewire(depends_on):
                self._stack.rewire(depends_on, [name for name in coming if not self._stack.has(name)])
            case Rename(name, new):
                self._house.rename(name, new)
                self._stack.rename(name, new)
                self._emit("renamed", new.id, {"from": name})
            case Adapt(new):
                self._house.change(new)
                self._stack.service(new.id).adapt(new)
            case Remove(name):
                return lambda: self._remove(self._stack.service(name))
            case Add(new, succeeds):
                self._house.enrol(new, beside=False)
                service = self._stack.add(new)
                if succeeds in self._stopped:
                    service.post(Stop())
                    return None
                service.post(Start())
                return lambda: self._waiting.comes_up(service)
            case Replace(new, beside):
                service = self._stack.service(new.id)
                if beside is not None and service.state.wanted_up and service.state.phase in ALIVE:
                    return lambda: self._start_first(service, new, beside)
                return lambda: self._stop_first(service, new)
        return None

    async def _remove(self, service: Service) -> None:
        """With all traces, when it has ended. An operator who starts it meanwhile comes too late."""
        if not service.state.wanted_up and service.state.phase is not Phase.CREATED:
            self._stopped.add(service.entry.id)
        self._stack.leaving.add(service)
        await service.seen(Stop())
        while not service.is_final:
            await self._waiting.change_of(service)
            if service.state.wanted_up and not service.is_final:
                await service.seen(Stop())
        self._stack.leaving.discard(service)
        name = service.entry.id
        self._stack.remove(name)
        self.beside.discard(name)
        self._house.strike(name)

    async def _stop_first(self, service: Service, new: Entry) -> str | None:
        self._house.change(new)
        service.succeed(new)
        if not service.state.wanted_up:
            return None
        self._stack.leaving.add(service)
        try:
            await service.seen(Restart(CHANGED))
            while service.coming is not None and service.state.phase is not Phase.STUCK:
                await self._waiting.change_of(service)
        finally:
            self._stack.leaving.discard(service)
        if service.state.phase is Phase.STUCK:
            return service.state.failure
        if service.state.wanted_up and service.state.phase in {Phase.BACKOFF, Phase.EXITED, Phase.FAILED}:
            await service.seen(Start())
        return await self._waiting.comes_up(service)

    async def _start_first(self, old: Service, new: Entry, beside: Entry) -> str | None:
        if not self._waiting.may_go_on():
            return None
        self._house.enrol(beside, beside=True)
        self.beside.add(beside.id)
        second = self._stack.add(beside, counts=False)
        self._stack.leaving.add(second)
        await second.seen(Start())
        why = await self._waiting.comes_up(second)
        self._stack.leaving.discard(second)
        if why is None and (waits_for := self._stack.waits_in_vain(second)) is not None:
            why = f"it waits for {waits_for}, which is stopped"
        if why is not None or not self._waiting.may_go_on() or not (old.state.wanted_up and second.state.is_up):
            await self._remove(second)
            if not old.state.wanted_up:
                old.succeed(new)
            return why
        self._stack.exchange(new.id, beside.id)
        self._house.exchange(new.id, beside.id)
        self._house.change(new)
        await self._house.hand_over(new.id, beside.id)
        await self._remove(old)
        second.adapt(new)
        return None
