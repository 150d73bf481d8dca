"""A reload of a running stack: its spec is read again, and what differs is changed, step by step.

One at a time, in a task of its own: whoever asked may go away meanwhile. What differs difference.py says, waves.py the
steps from there, performer.py does them. What follows when a container that was started anew does not come up
(waiting.py) is its `update.on_failure`: all goes back to what it was, or what has been done stays and the next reload
goes on from there.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio
import anyio.abc

from runtime.errors import PysupError
from supervisor.commands import Reloaded
from supervisor.entry import Compiled, Entry, Reading, Scale
from supervisor.errors import ConflictError, StackError
from supervisor.processes.helper import HelperError
from supervisor.reload.changes import Changes, NetworkChange
from supervisor.reload.difference import compared, compared_logs, compared_networks, difference
from supervisor.reload.house import House
from supervisor.reload.performer import Failure, Outcome, Performer
from supervisor.reload.report import as_data, render
from supervisor.reload.waiting import Waiting
from supervisor.reload.waves import waves
from supervisor.stack.tree import Emit, Stack

LINES_MAX = 50  # of a difference, and of a spec's faults, that are told as events

Read = Callable[[Mapping[str, Scale]], Awaitable[Reading]]


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
        self._waiting = Waiting(stack)
        self._performer = Performer(stack, house, self._waiting, emit)
        self.listeners: list[Callable[[tuple[str, ...]], None]] = []  # told which files a spec was read from

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
        self._asked.set()
        self._waiting.hurry()

    async def run(self) -> None:
        """Do what is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            while self._requests:
                request = self._requests.pop(0)
                if not self._requests:
                    self._waiting.take_time()
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
        others = self._house.unmanaged() | self._performer.beside
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
        _check_scales_only(self._current.stack, reading.stack, networks)
        _check_alike([each for each in old if each.group in numbers], [each for each in new if each.group in numbers])
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
        self._house.change_networks(reading.stack.networks, reading.stack.entries)
        self._house.limit_logs(reading.stack.logs)
        outcome = await self._performer.perform(waves(changes, self._next()))
        if self._waiting.may_go_on() and any(each.wants_rollback for each in outcome.failures):
            return told.failed(await self._roll_back(outcome.failures[0], before, reading.stack))
        await self._house.tidy_networks()
        self._current = reading
        self._stack.arrange(entry.id for entry in reading.stack.entries)
        return self._over(told, outcome)

    def _over(self, told: Reloaded, outcome: Outcome) -> Reloaded:
        """It was not rolled back: what has become of it."""
        left = outcome.left
        if outcome.failures:
            first = outcome.failures[0]
            self._emit("reload_paused", first.id, {"reason": first.why, "left": left})
            rest = f"{_steps(left)} left: pysup reload goes on from there" if left else "nothing is left to do"
            return told.failed(f"{first.id} did not come up: {first.why}; {rest}")
        if left:
            return told.failed(self._interrupted(left))
        self._emit("reloaded", None, {"changes": told.text.splitlines()[-1]})
        return told

    async def _roll_back(self, first: Failure, before: Sequence[Entry], reached: Compiled) -> str:
        """From what was reached of another stack to what there was before; says how it went."""
        self._emit("rolling_back", first.id, {"reason": first.why})
        networks = compared_networks(reached.networks, self._current.stack.networks)
        self._house.change_networks(self._current.stack.networks, before)
        self._house.limit_logs(self._current.stack.logs)
        outcome = await self._performer.undo(waves(compared(self._there, before, networks), self._next()))
        await self._house.tidy_networks()
        self._stack.arrange(entry.id for entry in before)
        for each in outcome.failures:
            self._emit("rollback_failed", each.id, {"reason": each.why})
        if outcome.left:
            end = f"on the way back, {self._interrupted(outcome.left)}"
        else:
            self._emit("rolled_back", first.id, {"reason": first.why})
            end = "all is what it was before"
        also = "".join(f"; {each.id} did not come up then either: {each.why}" for each in outcome.failures)
        return f"{first.id} did not come up: {first.why}; {end}{also}"

    def _interrupted(self, left: int) -> str:
        """Somebody is in a hurry, and so many steps were not begun: tells it, and says why."""
        why = "the stack is being stopped" if self._stack.is_stopping else "another reload was asked for"
        self._emit("reload_interrupted", None, {"reason": why, "left": left})
        return f"{why}: {_steps(left)} left"

    def _tell_difference(self, text: str) -> None:
        lines = text.splitlines()[:-1]
        for line in lines[:LINES_MAX]:
            self._emit("difference", None, {"text": line})
        if len(lines) > LINES_MAX:
            self._emit("difference", None, {"text": f"and {len(lines) - LINES_MAX} lines more"})

    def _next(self) -> int:
        self._generation += 1
        return self._generation


def _steps(left: int) -> str:
    return "1 step is" if left == 1 else f"{left} steps are"


def _told(changes: Changes) -> Reloaded:
    return Reloaded(render(changes), not changes.is_empty, as_data(changes))


def _check_scales_only(old: Compiled, new: Compiled, networks: Sequence[NetworkChange]) -> None:
    for each in networks:
        if each.is_other:
            raise ConflictError(f"network {each.name} has changed in the file: pysup reload first")
    for changed in compared_logs(old.logs, new.logs):
        raise ConflictError(f"logs of the stack have changed in the file ({changed}): pysup reload first")


def _check_alike(old: Sequence[Entry], new: Sequence[Entry]) -> None:
    """Replicas that are there before and after."""
    inside = compared(old, new)
    for change in (*inside.replaced, *inside.adapted):
        if change.fields:
            raise ConflictError(f"{change.new.id} has changed in the file ({change.fields[0]}): pysup reload first")
