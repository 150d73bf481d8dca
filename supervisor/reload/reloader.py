"""A reload of a running stack: its spec is read again, and what differs is changed, step by step.

One at a time, in a task of its own: whoever asked may go away meanwhile. What is to be done difference.py decides; here
it is done to the stack, and waited for. A container that was started anew is up when its checks say so; one that has
none must go on for `update.monitor_s`. It has failed when its run ends by itself before that, is not ready in time,
or not healthy. What then follows is its `update.on_failure`: all goes back to what it was, or what has been done stays
and the next reload goes on from there.

What an operator has stopped stays stopped: its entry is another, its run is none. What waits for one that is stopped is
not waited for. Another reload, or the end of the stack, ends the waiting; the step that is under way is brought to an
end where it would leave a run too many.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio
import anyio.abc

from runtime.errors import PysupError
from runtime.status import describe
from supervisor.commands import Reloaded
from supervisor.core.states import ALIVE, Ending, HealthStatus, Phase, Restart, Start, Stop
from supervisor.entry import Entry, OnFailure, Reading, Scale, StackNetwork
from supervisor.errors import ConflictError, StackError
from supervisor.logs.policy import LogLimit
from supervisor.processes.helper import HelperError
from supervisor.reload.difference import (
    Adapt,
    Add,
    Changes,
    NetworkChange,
    Remove,
    Rename,
    Replace,
    Rewire,
    Step,
    Wave,
    as_data,
    compared,
    compared_logs,
    compared_networks,
    difference,
    plan,
    render,
)
from supervisor.stack.service import Service
from supervisor.stack.tree import Emit, Stack

LINES_MAX = 50  # of a difference, and of a spec's faults, that are told as events
CHANGED = "its configuration has changed"

Finish = Callable[[], Awaitable[str | None]]  # waits for a step to be done; why it has failed, or None


Read = Callable[[Mapping[str, Scale]], Awaitable[Reading]]


class House(Protocol):
    """What else keeps account of a stack's containers."""

    def unmanaged(self) -> frozenset[str]:
        """Those that no spec knows."""
        ...

    def amended(self, entry: Entry) -> Entry:
        """What the file says of a container, but for what an operator has changed of it."""
        ...

    def enrol(self, entry: Entry, *, beside: bool) -> None:
        """A container is about to join the stack; `beside`: for a while, as a second run of another."""
        ...

    def strike(self, name: str) -> None:
        """It has left."""
        ...

    def rename(self, name: str, entry: Entry) -> None:
        """It has another name."""
        ...

    def exchange(self, name: str, other: str) -> None:
        """The two have exchanged their names."""
        ...

    async def hand_over(self, name: str, other: str) -> None:
        """The name and the ports of the first are those of the second run, which was called `other` until now."""
        ...

    def change(self, entry: Entry) -> None:
        """It looks different from now on."""
        ...

    def change_networks(self, networks: Sequence[StackNetwork], entries: Iterable[Entry]) -> None:
        """The stack is about to have other networks, and to be these."""
        ...

    async def tidy_networks(self) -> None:
        """It is: who does not run leaves the network where it was."""
        ...

    def limit_logs(self, limit: LogLimit) -> None:
        """Of all of them together."""
        ...

    async def show(self, entry: Entry) -> None:
        """Let it be started: its image is known to the launchers. OSError."""
        ...


@dataclass(slots=True)
class _Request:
    """Somebody wants a reload; `why` in words. `scales`: and nothing else is to change."""

    why: str
    scales: Mapping[str, int] | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    result: Reloaded | None = None
    error: PysupError | None = None


class Reloader:
    """Reloads a stack. `run` is its task."""

    def __init__(self, stack: Stack, house: House, emit: Emit, first: Reading, read: Read) -> None:
        self._stack = stack
        self._house = house
        self._emit = emit
        self._read = read
        self._current = first
        self._requests: list[_Request] = []
        self._asked = anyio.Event()
        self._generation = 0
        self._rollbacks: Mapping[str, bool] = {}  # by id, of those that are started anew: is all to go back then?
        self._beside: set[str] = set()  # ids of second runs
        self._watched: dict[Service, anyio.Event] = {}
        self._hoping: set[Service] = set()  # of these, those that are to come up
        self._hurry = False  # somebody waits for this reload to be over
        self._stopped: set[str] = set()  # removed in this reload, and stopped by an operator before
        self.listeners: list[Callable[[tuple[str, ...]], None]] = []  # told which files a spec was read from
        stack.listeners.append(self._changed)

    # --- asked for ----------------------------------------------------------------------------------------------------

    async def reload(self, why: str) -> Reloaded:
        """Read the spec again, and change what differs. PysupError if that can't be; then nothing has changed."""
        return await self._order(_Request(why))

    async def scale(self, numbers: Mapping[str, int], why: str) -> Reloaded:
        """Run other numbers of replicas, and change nothing else. PysupError as above."""
        return await self._order(_Request(why, dict(numbers)))

    async def preview(self) -> Reloaded:
        """What a reload would change."""
        reading = self._amended(await self._read(self._current.scales))
        return _told(self._difference(reading))

    def hint(self, why: str) -> None:
        """Reload when there is time for it. What can't be is told as an event."""
        if not any(each.why == why and each.scales is None for each in self._requests):
            self._enqueue(_Request(why))

    async def _order(self, request: _Request) -> Reloaded:
        self._enqueue(request)
        await request.done.wait()
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    def _enqueue(self, request: _Request) -> None:
        self._requests.append(request)
        self._hurry = True
        self._asked.set()
        self._wake_all()

    async def run(self) -> None:
        """Do what is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            while self._requests:
                request = self._requests.pop(0)
                self._hurry = bool(self._requests)
                try:
                    request.result = await self._serve(request)
                except PysupError as error:
                    request.error = error
                    self._refuse(error)
                finally:
                    request.done.set()
            self._asked = anyio.Event()

    async def _serve(self, request: _Request) -> Reloaded:
        self._emit("reloading", None, {"why": request.why})
        if self._stack.is_stopping:
            raise ConflictError("the stack is being stopped")
        scales = dict(self._current.scales) | {name: Scale(n) for name, n in (request.scales or {}).items()}
        reading = await self._heard(scales)
        changes = self._difference(reading) if request.scales is None else self._scaling(reading, request.scales)
        for entry in (*changes.added, *(each.new for each in changes.replaced)):
            await self._shown(entry)
        with self._stack.changing():
            return await self._change(changes, reading)

    async def _heard(self, scales: Mapping[str, Scale]) -> Reading:
        try:
            reading = await self._read(scales)
        except HelperError as error:
            self._tell_files(error.found)
            raise
        self._tell_files(reading.files)
        return self._amended(reading)

    def _amended(self, reading: Reading) -> Reading:
        entries = tuple(map(self._house.amended, reading.stack.entries))
        return replace(reading, stack=replace(reading.stack, entries=entries))

    def _tell_files(self, files: tuple[str, ...]) -> None:
        for listener in self.listeners:
            listener(files)

    async def _shown(self, entry: Entry) -> None:
        try:
            await self._house.show(entry)
        except OSError as error:
            raise StackError(f"{entry.id}: {error.filename}: {error.strerror}") from error

    def _refuse(self, error: PysupError) -> None:
        for line in str(error).splitlines()[:LINES_MAX]:
            self._emit("reload_refused", None, {"error": line})

    # --- what differs -------------------------------------------------------------------------------------------------

    @property
    def _there(self) -> list[Entry]:
        """What the containers of the spec are, or are about to be."""
        others = self._house.unmanaged() | self._beside
        return [each.coming or each.entry for each in self._stack.services if each.entry.id not in others]

    def _difference(self, reading: Reading) -> Changes:
        before = self._current.stack
        changes = difference(replace(before, entries=tuple(self._there)), reading.stack)
        self._check_names(changes)
        return changes

    def _scaling(self, reading: Reading, numbers: Mapping[str, int]) -> Changes:
        """Of these groups only how many they are. ConflictError if the file has changed in more than that."""
        for name in numbers:
            if name not in reading.replicas:
                raise StackError(f"{name} is not among the containers that were started")
        old, new = self._there, reading.stack.entries
        networks = compared_networks(self._current.stack.networks, reading.stack.networks)
        for each in networks:
            if each.old is not None and each.new is not None:
                raise ConflictError(f"network {each.name} has changed in the file: pysup reload first")
        for field_ in compared_logs(self._current.stack.logs, reading.stack.logs):
            raise ConflictError(f"logs of the stack have changed in the file ({field_}): pysup reload first")
        inside = compared(
            [each for each in old if each.group in numbers], [each for each in new if each.group in numbers]
        )
        for change in (*inside.replaced, *inside.adapted):
            if change.fields:
                raise ConflictError(f"{change.new.id} has changed in the file ({change.fields[0]}): pysup reload first")
        others = {each.id: each for each in old if each.group not in numbers}
        wanted = [each if each.group in numbers else others.pop(each.id, None) for each in new]
        changes = compared(old, [*(each for each in wanted if each is not None), *others.values()], networks)
        self._check_names(changes)
        return changes

    def _check_names(self, changes: Changes) -> None:
        taken = self._house.unmanaged()
        for entry in (*changes.added, *(each.new for each in changes.renamed)):
            for name in (entry.id, entry.group):
                if name in taken:
                    raise ConflictError(f"{name} is the name of a container made through the API: remove that first")

    # --- done ---------------------------------------------------------------------------------------------------------

    async def _change(self, changes: Changes, reading: Reading) -> Reloaded:
        before = self._there
        told = _told(changes)
        if not changes.is_empty:
            self._tell_difference(told.text)
        self._stopped = set()
        self._house.change_networks(reading.stack.networks, reading.stack.entries)
        self._house.limit_logs(reading.stack.logs)
        failures, left = await self._carry_out(plan(changes, self._next()))
        if failures and self._may_go_on() and self._wants_rollback(failures):
            return told.failed(await self._roll_back(failures, before, changes.networks))
        await self._house.tidy_networks()
        self._current = reading
        self._stack.arrange(entry.id for entry in reading.stack.entries)
        if failures:
            name, why = failures[0]
            self._emit("reload_paused", name, {"reason": why, "left": left})
            rest = f"{left} steps are left: pysup reload goes on with them" if left else "nothing is left to do"
            return told.failed(f"{name} did not come up: {why}; {rest}")
        if left:
            why = "the stack is being stopped" if self._stack.is_stopping else "another reload was asked for"
            self._emit("reload_interrupted", None, {"reason": why, "left": left})
            return told.failed(f"{why}: {left} steps are left")
        self._emit("reloaded", None, {"changes": told.text.splitlines()[-1]})
        return told

    async def _roll_back(
        self, failures: Sequence[tuple[str, str]], before: Sequence[Entry], networks: Iterable[NetworkChange]
    ) -> str:
        name, why = failures[0]
        self._emit("rolling_back", name, {"reason": why})
        back = tuple(NetworkChange(each.new, each.old) for each in networks)
        self._house.change_networks(self._current.stack.networks, before)
        self._house.limit_logs(self._current.stack.logs)
        again, left = await self._carry_out(plan(compared(self._there, before, back), self._next()), through=True)
        await self._house.tidy_networks()
        self._stack.arrange(entry.id for entry in before)
        for other, reason in again:
            self._emit("rollback_failed", other, {"reason": reason})
        if left:
            self._emit("reload_interrupted", None, {"reason": "it was rolled back", "left": left})
        else:
            self._emit("rolled_back", name, {"reason": why})
        also = "".join(f"; {other} did not come up then either: {reason}" for other, reason in again)
        return f"{name} did not come up: {why}; all is what it was before{also}"

    def _wants_rollback(self, failures: Iterable[tuple[str, str]]) -> bool:
        return any(self._rollbacks[name] for name, _ in failures)

    def _tell_difference(self, text: str) -> None:
        lines = text.splitlines()[:-1]
        for line in lines[:LINES_MAX]:
            self._emit("difference", None, {"text": line})
        if len(lines) > LINES_MAX:
            self._emit("difference", None, {"text": f"and {len(lines) - LINES_MAX} lines more"})

    def _next(self) -> int:
        self._generation += 1
        return self._generation

    def _may_go_on(self) -> bool:
        return not (self._hurry or self._stack.is_stopping)

    async def _carry_out(self, waves: Sequence[Wave], *, through: bool = False) -> tuple[list[tuple[str, str]], int]:
        """What has failed, and how many steps were not begun. `through`: go on after a failure."""
        coming = {step.new.group for wave in waves for step in wave if isinstance(step, Add)}
        self._rollbacks = {
            step.new.id: step.new.update.on_failure is OnFailure.ROLLBACK
            for wave in waves
            for step in wave
            if isinstance(step, Add | Replace)
        }
        failures: list[tuple[str, str]] = []
        for number, wave in enumerate(waves):
            if (failures and not through) or not self._may_go_on():
                return failures, sum(map(len, waves[number:]))
            failures += await self._do(wave, coming)
        return failures, 0

    async def _do(self, wave: Wave, coming: Iterable[str]) -> list[tuple[str, str]]:
        """All of a wave are begun before any of them can go on: a group has all its members at once."""
        failures: list[tuple[str, str]] = []
        finishes = [(step, self._begin(step, coming)) for step in wave]

        async def see_through(step: Step, finish: Finish) -> None:
            if (why := await finish()) is not None and isinstance(step, Add | Replace):
                failures.append((step.new.id, why))

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
                return lambda: self._comes_up(service)
            case Replace(new, _, beside):
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
            await self._change_of(service)
            if service.state.wanted_up and not service.is_final:
                await service.seen(Stop())
        self._stack.leaving.discard(service)
        name = service.entry.id
        self._stack.remove(name)
        self._beside.discard(name)
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
                await self._change_of(service)
        finally:
            self._stack.leaving.discard(service)
        if service.state.phase is Phase.STUCK:
            return service.state.failure
        if service.state.wanted_up and service.state.phase in {Phase.BACKOFF, Phase.EXITED, Phase.FAILED}:
            await service.seen(Start())
        return await self._comes_up(service)

    async def _start_first(self, old: Service, new: Entry, beside: Entry) -> str | None:
        if not self._may_go_on():
            return None
        self._house.enrol(beside, beside=True)
        self._beside.add(beside.id)
        second = self._stack.add(beside, counts=False)
        self._stack.leaving.add(second)
        await second.seen(Start())
        why = await self._comes_up(second)
        self._stack.leaving.discard(second)
        if why is None and (waits_for := self._stack.waits_in_vain(second)) is not None:
            why = f"it waits for {waits_for}, which is stopped"
        if why is not None or not self._may_go_on() or not (old.state.wanted_up and second.state.is_up):
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

    # --- waited for ---------------------------------------------------------------------------------------------------

    async def _comes_up(self, service: Service) -> str | None:
        """Wait until a container that is started is up: None, also if it is not waited for. Else why it is not."""
        policy, before = service.entry.policy, service.state.retries
        shows = policy.ready is not None or policy.health is not None
        steady_at = math.inf
        while True:
            if (why := _failure(service, before)) is not None:
                return why
            state = service.state
            if state.is_up and (shows or state.completed):
                return None
            if state.is_up and steady_at == math.inf:
                steady_at = anyio.current_time() + service.entry.update.monitor_s
            elif not state.is_up:
                steady_at = math.inf
            if anyio.current_time() >= steady_at or not self._is_worth_waiting(service):
                return None
            self._hoping.add(service)
            await self._change_of(service, steady_at)

    def _is_worth_waiting(self, service: Service) -> bool:
        stopped = service.is_final and not service.state.wanted_up
        return self._may_go_on() and not stopped and self._stack.waits_in_vain(service) is None

    async def _change_of(self, service: Service, until: float = math.inf) -> None:
        changed = self._watched[service] = anyio.Event()
        try:
            with anyio.CancelScope(deadline=until):
                await changed.wait()
        finally:
            self._hoping.discard(service)
            del self._watched[service]

    def _changed(self, service: Service) -> None:
        if (event := self._watched.get(service)) is not None:
            event.set()
        if service.is_final and not service.state.wanted_up:
            self._wake_all()  # somebody may wait for it in vain

    def _wake_all(self) -> None:
        """All who wait for something to come up."""
        for service in self._hoping:
            self._watched[service].set()


def _failure(service: Service, retries: int) -> str | None:
    """Why a container that was started anew, after so many retries of what it was, has failed; if it has."""
    state = service.state
    if state.phase in {Phase.FAILED, Phase.STUCK}:
        return state.failure
    if state.health is HealthStatus.UNHEALTHY:
        return f"unhealthy: {state.finding}" if state.finding else "unhealthy"
    if state.phase in {Phase.STOPPING, Phase.KILLING}:
        return state.reason if state.ending in {Ending.JUDGED, Ending.RETRIED, Ending.GIVEN_UP} else None
    if state.retries > retries:
        return state.told or (describe(state.status) if state.status is not None else "it has ended")
    return None


def _told(changes: Changes) -> Reloaded:
    return Reloaded(render(changes), not changes.is_empty, as_data(changes))
