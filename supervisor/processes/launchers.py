"""The launchers, one more than cores: who gets which request, and what happens when one dies.

A request goes to the launcher with the fewest in flight. When a launcher dies, children it cloned may exist whose pid
never reached us: they are found among our own children (nobody else can reap them, so their pids are safe), killed and
reaped, and only then do its unanswered requests fail (LauncherLostError), so that a retry never meets a stray at work.

One that does not answer for ANSWER_S is taken for dead: it is killed and another takes its place, whether the kernel
lets it end or not, so that what waits behind it is not lost with it.

Where there are no descriptors or no memory for another just then, as containers are using them all, starts wait until
there are, for SCARCE_S.
"""

import errno
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.abc
import anyio.lowlevel

from runtime import pidfd
from runtime.assemble import Program
from runtime.cgroup.group import Cgroup
from runtime.enter import Passage
from runtime.errors import LauncherLostError, LaunchError
from runtime.launcher import ENTRIES_MAX
from runtime.plan import Plan
from runtime.spawn import REQUESTS_MAX, Launcher, Reply, advise
from supervisor.processes.reaper import Exit, Reaper
from supervisor.processes.uproot import end_command

if TYPE_CHECKING:
    import socket

# One more than cores: a launcher waits while its child has not executed yet, and a slow file system holds up no other.
LAUNCHERS = len(os.sched_getaffinity(0)) + 1
REVIVALS_MAX = 5  # launchers that die one after the other without answering anything: then something is wrong for good

ANSWER_S = 120.0  # the longest a launcher may take to answer
STRAYS_S = 5.0  # the longest to wait for the end of strays: who is stuck in the kernel ends when that lets it
FAILED_S = 5.0  # the longest who did not get to execute may take to end
FAREWELL_S = 5.0  # the longest it may take to end after its socket was closed
SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
SCARCE_S = 60.0  # the longest to wait for what another launcher takes
SCARCE_EVERY_S = 0.1  # nobody tells when there is some: look again

T = TypeVar("T")


class Pending:
    """A request under way."""

    __slots__ = ("answered", "exit", "is_start", "number", "passage", "reply")

    def __init__(self, *, is_start: bool, passage: Passage | None = None) -> None:
        self.is_start = is_start
        self.passage = passage
        self.number = 0
        self.answered = anyio.Event()
        self.reply: Reply | None = None
        self.exit: Exit | None = None


class Seat:
    """A place for a launcher, and what the present one has not answered yet."""

    def __init__(self, launcher: Launcher, ended: Exit) -> None:
        self.launcher = launcher
        self.ended = ended
        self.pending: dict[int, Pending] = {}


class LauncherPool:
    """Requests to any of the launchers, at most `size` of them. `run()` must be running."""

    def __init__(self, state: Path, reaper: Reaper, size: int | None = None) -> None:
        self._state = str(state)
        self._reaper = reaper
        self._size = min(size or LAUNCHERS, LAUNCHERS)
        self._seats: list[Seat] = []
        self._attached: list[str] = []
        self._numbers = count(1)
        self._room = anyio.Semaphore(self._size * REQUESTS_MAX // 2, fast_acquire=True)
        self._doors = anyio.Semaphore(ENTRIES_MAX)  # whom a container keeps waiting, keeps none waiting but these
        self._broken = 0
        self._mended = anyio.Event()
        self._mended.set()
        self._strays = anyio.Lock()
        self._deaths = 0
        self._ended = False
        self._tasks: anyio.abc.TaskGroup

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the launchers; at cancellation they are told to end, and reaped."""
        self._seats = [self._seat()]
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._listen, self._seats[0])
                task_status.started()
                # Cancelled meanwhile, it ends when all are there: else nobody would hear of one that is under way.
                self._tasks.cancel_scope.shield = True
                while len(self._seats) < self._size:
                    self._seats.append(seat := await self._another())
                    self._tasks.start_soon(self._listen, seat)
                self._tasks.cancel_scope.shield = False
        finally:
            await self._end()

    async def _end(self) -> None:
        self._ended = True
        self._mended.set()
        for seat in self._seats:
            seat.launcher.close()
            for pending in seat.pending.values():
                pending.answered.set()
        with anyio.move_on_after(FAREWELL_S, shield=True):
            for seat in self._seats:
                await seat.ended.wait()

    @property
    def pids(self) -> list[int]:
        """Of the launchers that serve now."""
        return [seat.launcher.pid for seat in self._seats]

    def attach(self, path: str) -> None:
        """Show a directory of the host to the launchers, those to come included. Before `run()` starts."""
        if path not in self._attached:
            self._attached.append(path)

    async def show(self, path: str) -> None:
        """The same while `run()` runs. OSError if it can't be shown.

        To each of them: those that were forked share one mount namespace, and see it twice, which does no harm.
        """
        if path in self._attached:
            return
        self._attached.append(path)
        for seat in list(self._seats):
            number, pending = next(self._numbers), Pending(is_start=False)
            seat.pending[number] = pending
            try:
                seat.launcher.attach(number, path)
            except LauncherLostError:  # its successor is shown all of them
                del seat.pending[number]
                continue
            await pending.answered.wait()
            if pending.reply is not None and pending.reply.error:
                raise OSError(pending.reply.error, os.strerror(pending.reply.error), path)

    def _seat(self) -> Seat:
        launcher = Launcher.spawn(self._state)
        seat = Seat(launcher, self._reaper.claim(launcher.pid))
        self._furnish(seat)
        return seat

    async def _another(self) -> Seat:
        """A launcher forked from the first, whose memory and mounts it shares."""
        controls: list[socket.socket] = []
        pending = await self._request(lambda seat, number: controls.append(seat.launcher.fork(number)), start=True)
        if pending.reply is None or pending.exit is None:
            for control in controls:
                control.close()
            return self._seat()
        return Seat(Launcher(pending.reply.pid, controls[-1]), pending.exit)

    def _furnish(self, seat: Seat) -> None:
        for path in (self._state, *self._attached):
            number = next(self._numbers)
            seat.pending[number] = Pending(is_start=False)
            seat.launcher.attach(number, path)

    # --- requests ----------------------------------------------------------------------------------------------------

    async def start(self, plan: Plan, image: bytes, descriptors: Sequence[int]) -> tuple[int, Exit]:
        """Start a container: its pid and its end.

        ReplyError if it did not reach execve; after LauncherLostError another try is in order.
        """

        def send(seat: Seat, number: int) -> None:
            seat.launcher.start(number, plan, image, descriptors)

        return await self._started(plan, await self._request(send, start=True))

    async def enter(self, entry: Plan, program: Program, descriptors: Sequence[int], init: int) -> tuple[int, Exit]:
        """The same for a command in a container whose process 1 is `init`; `descriptors` are its streams and
        namespaces. May be cancelled: what was begun then is ended once it is known.
        """

        def send(seat: Seat, number: int) -> None:
            seat.launcher.enter(number, entry, program.image, (*descriptors, *passage.descriptors))

        async with self._doors:
            passage = _passage(entry, program)
            pending = Pending(is_start=True, passage=passage)
            try:
                seat = await self._submit(send, pending)
            finally:
                passage.close()
            try:
                await self._answer(seat, pending)
            except anyio.get_cancelled_exc_class():
                with suppress(LauncherLostError, BlockingIOError):  # then it comes by itself, if later
                    seat.launcher.cancel(pending.number)
                self._tasks.start_soon(self._call_off, seat, pending, init, entry)
                raise
        return await self._started(entry, pending)

    async def _call_off(self, seat: Seat, pending: Pending, init: int, entry: Plan) -> None:
        """See a command to its end that nobody waits for any more."""
        with suppress(LaunchError, OSError):
            await self._answer(seat, pending)
            while pending.reply is not None and pending.exit is not None:
                await end_command(pending.reply.pid, pending.exit, init, entry.cgroup, kept=entry.init)
                if not self._follow(pending):
                    break
            await self.remove(None, entry.cgroup)

    async def _started(self, plan: Plan, pending: Pending) -> tuple[int, Exit]:
        reply, ended = pending.reply, pending.exit
        if reply is None:
            raise LauncherLostError("the launcher died while it started the process", container=plan.id)
        if ended is not None and reply.error:
            await _end_failed(reply.pid, ended)
            if self._follow(pending):
                return await self._started(plan, pending)
        if ended is None or reply.error:
            raise ReplyError(reply)
        return reply.pid, ended

    async def hold(self, pipe: int, flags: int) -> tuple[int, Exit]:
        """A process in new namespaces, which ends when the other end of the pipe is closed. OSError."""
        pending = await self._request(lambda seat, number: seat.launcher.hold(number, pipe, flags), start=True)
        reply, ended = pending.reply, pending.exit
        if reply is None:
            raise LauncherLostError("the launcher died while it made namespaces")
        if reply.error or ended is None:
            raise OSError(reply.error, os.strerror(reply.error), "clone3")
        return reply.pid, ended

    async def remove(self, path: str | None, cgroup: Cgroup | None = None) -> None:
        """Remove a container's directory, and its cgroup, in which nobody lives. OSError if they can't be."""
        if path is None and cgroup is None:
            return
        what = path or (cgroup.path if cgroup is not None else "")
        pending = await self._request(lambda seat, number: seat.launcher.remove(number, path, cgroup))
        if pending.reply is None:
            raise LauncherLostError(f"the launcher died while it removed {what}")
        if pending.reply.error:
            raise OSError(pending.reply.error, os.strerror(pending.reply.error), what)

    def discard(self, cgroup: Cgroup) -> None:
        """Remove a cgroup when there is time for it: who asks waits for no launcher, which may hang."""
        self.begin(self._discard, cgroup)

    def begin(self, work: Callable[[Cgroup], Coroutine[Any, Any, None]], cgroup: Cgroup) -> None:
        """Have something done with a cgroup that nobody waits for."""
        self._tasks.start_soon(work, cgroup)

    async def _discard(self, cgroup: Cgroup) -> None:
        with suppress(OSError, LaunchError):
            await self.remove(None, cgroup)

    async def _request(self, send: Callable[[Seat, int], None], *, start: bool = False) -> Pending:
        async with self._room:
            pending = Pending(is_start=start)
            seat = await self._submit(send, pending)
            # Shielded: a clone can't be called back, and who else would own its child?
            await self._answer(seat, pending, shield=True)
            return pending

    async def _answer(self, seat: Seat, pending: Pending, *, shield: bool = False) -> None:
        launcher = seat.launcher
        with anyio.move_on_after(ANSWER_S, shield=shield):
            await pending.answered.wait()
            return
        self._abandon(seat, launcher)
        pending.answered.set()
        raise LaunchError(f"launcher {launcher.pid} has not answered for {ANSWER_S:g} s: is a file system stuck?")

    def _abandon(self, seat: Seat, launcher: Launcher) -> None:
        """Give up a launcher, unless that was done: it ends when the kernel lets it, and its seat gets another now."""
        if seat.launcher is launcher:
            if seat.ended.status is None:
                _kill(launcher.pid)
            launcher.hang_up()

    async def _submit(self, send: Callable[[Seat, int], None], pending: Pending) -> Seat:
        while True:
            # An event that is set yields all the same, and then a launcher may be found dead: look first.
            while self._broken and not self._ended:
                await self._mended.wait()
            if self._ended:
                raise LauncherLostError("the launchers have ended")
            seat = min(self._seats, key=lambda seat: len(seat.pending))
            number = pending.number = next(self._numbers)
            seat.pending[number] = pending
            try:
                send(seat, number)
            except BlockingIOError:
                del seat.pending[number]
                await anyio.wait_writable(seat.launcher)
                continue
            except LauncherLostError:  # never sent, so no try of a request; the end of file is about to be read
                del seat.pending[number]
                await anyio.lowlevel.checkpoint()
                continue
            except BaseException:
                del seat.pending[number]
                raise
            return seat

    # --- replies and deaths ------------------------------------------------------------------------------------------

    async def _listen(self, seat: Seat) -> None:
        while True:
            await anyio.wait_readable(seat.launcher)
            try:
                for reply in seat.launcher.receive():
                    self._settle(seat, reply)
            except LauncherLostError:
                await self._revive(seat)

    def _settle(self, seat: Seat, reply: Reply) -> None:
        self._deaths = 0
        pending = seat.pending.pop(reply.number)
        pending.reply = reply
        if reply.pid:
            pending.exit = self._reaper.claim(reply.pid)
            self._follow(pending)
        pending.answered.set()

    def _follow(self, pending: Pending) -> bool:
        """Has whom the launcher cloned, to enter apart, made another of our children? Then it is about that one."""
        reply = pending.reply
        if reply is None or pending.passage is None or (inside := pending.passage.pid(reply.pid)) == reply.pid:
            return False
        pending.reply, pending.exit = reply._replace(pid=inside), self._reaper.claim(inside)
        return True

    async def _revive(self, seat: Seat) -> None:
        self._deaths += 1
        if self._deaths > REVIVALS_MAX:
            raise LaunchError(f"{self._deaths} launchers died, one after the other: see their messages above")
        self._broken += 1
        if self._broken == 1:
            self._mended = anyio.Event()
        lost, seat.pending = seat.pending, {}
        try:
            await self._others_answered(seat)
            async with self._strays:
                await self._kill_strays()
            seat.launcher.close()
            await _when_not_scarce(lambda: self._replace(seat))
        finally:
            for pending in lost.values():
                pending.answered.set()
        self._broken -= 1
        if not self._broken:
            self._mended.set()

    def _replace(self, seat: Seat) -> None:
        """Another launcher in its place."""
        launcher = Launcher.spawn(self._state)
        seat.ended, seat.pending = self._reaper.claim(launcher.pid), {}
        try:
            seat.launcher = launcher
            self._furnish(seat)
        except OSError:
            launcher.close()
            raise

    async def _others_answered(self, seat: Seat) -> None:
        """A start that another launcher is about to answer must not be taken for a stray."""
        starts = [p for other in self._seats if other is not seat for p in other.pending.values() if p.is_start]
        for pending in starts:
            await pending.answered.wait()

    async def _kill_strays(self) -> None:
        with anyio.move_on_after(STRAYS_S):
            while ends := await _when_not_scarce(self._killed_strays):  # who dies may just have made another
                for ended in ends:
                    await ended.wait()
        self._reaper.forget_unclaimed()

    def _killed_strays(self) -> list[Exit]:
        self._reaper.drain()
        strays = [pid for pid in _children() if not self._reaper.knows(pid)]
        for pid in strays:
            _kill(pid)
        return [self._reaper.claim(pid) for pid in strays]


class ReplyError(LaunchError):
    """A launcher's reply that says no; the caller knows the plan and can name the step."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"call {reply.call} failed with errno {reply.error}")
        self.reply = reply


async def _end_failed(pid: int, ended: Exit) -> None:
    """It ends by itself, unless somebody in the container whom it entered keeps it from that."""
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(FAILED_S):
            await ended.wait()
        if ended.status is None:
            _kill(pid)
        await ended.wait()


def _passage(entry: Plan, program: Program) -> Passage:
    try:
        return Passage(entry, program)
    except OSError as error:
        raise LaunchError(f"make what enters it: {advise(error)}", container=entry.id) from error


async def _when_not_scarce(work: Callable[[], T]) -> T:
    """Do it once there are the descriptors and the memory. LaunchError if that does not come to pass."""
    deadline_s = anyio.current_time() + SCARCE_S
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno not in SCARCE:
                raise
            if anyio.current_time() > deadline_s:
                raise LaunchError(f"no launcher could be started for {SCARCE_S:g} s: {advise(error)}") from error
        await anyio.sleep(SCARCE_EVERY_S)


def _kill(pid: int) -> None:
    """A child that we have not reaped: its pid can't be another's."""
    descriptor = pidfd.opened(pid)
    if descriptor is None:
        return
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    os.close(descriptor)


def _children() -> list[int]:
    """Of this process's main thread, which started the launchers: proc_tid_children(5)."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]
