"""A run on the real kernel: signals, limits, checks, commands inside, and an end that leaves nothing of it behind."""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import anyio

from runtime import spawn, streams
from runtime.cgroup.figures import Figures
from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import Limits
from runtime.config import ContainerConfig
from runtime.enter import build_entry
from runtime.errors import CgroupError, LaunchError
from runtime.idmap import Ids
from runtime.lower import lower_plan
from runtime.plan import Plan
from runtime.status import Status
from runtime.streams import Streams
from supervisor.aside import aside
from supervisor.commands import Execution
from supervisor.core.checks import Exec, File, Log, Notify, Probe, Tcp, Verdict
from supervisor.errors import ConflictError
from supervisor.kernel import probes
from supervisor.kernel.execution import Command, config_for, set_size
from supervisor.kernel.means import Means, insist
from supervisor.kernel.namespaces import Own
from supervisor.kernel.process import Process
from supervisor.kernel.senses import Senses
from supervisor.processes.launchers import ReplyError
from supervisor.processes.reaper import Exit
from supervisor.processes.uproot import below, kill_cgroup
from supervisor.streams.output import Hearer

MEMBERS_MAX = 4096  # looked for, of one container
ENDED = Verdict(passed=False, detail="the container has ended")

Remove = Callable[[Cgroup | None], Awaitable[None]]


class KernelRun:
    """A container that runs, or ran."""

    __slots__ = (
        "_callback",
        "_capture",
        "_care",
        "_cgroup",
        "_checks",
        "_config",
        "_doomed",
        "_ended",
        "_killed",
        "_means",
        "_mouth",
        "_own",
        "_pidfd",
        "_remove",
        "_watch",
        "_writers",
        "oom",
        "pid",
        "stdin",
        "terminal",
    )

    def __init__(
        self,
        process: Process,
        config: ContainerConfig,
        cgroup: Cgroup | None,
        own: Own | None,
        means: Means,
        senses: Senses,
        remove: Remove,
    ) -> None:
        self.oom = False
        self.pid = process.pid
        self._pidfd = process.pidfd
        self._ended = process.ended
        self._doomed = False  # SIGKILL was sent to it
        self._config = config
        self._cgroup = cgroup
        self._own = own
        self._means = means
        self._capture = senses.capture
        self._watch = senses.watch
        self._mouth = senses.mouth
        self._remove = remove
        self.stdin = senses.stdin  # what can be written to its standard input, or terminal
        self.terminal = senses.terminal
        self._writers: set[anyio.CancelScope] = set()  # who waits for room in it
        self._callback: Callable[[], None] | None = None
        self._checks: tuple[anyio.CancelScope, ...] = ()
        self._care: probes.Care | None = None  # made by the first command
        self._killed = 0  # of its processes, for want of memory, as far as it was told
        self._watch_memory()
        self._ended.call(self._exited)

    def signal(self, number: int) -> None:
        """pidfd_send_signal(2); killing the first process kills all of the container (pid_namespaces(7)), unless that
        one is stuck or frozen: so its cgroup is killed too.
        """
        if self._pidfd is not None:
            self._doomed = self._doomed or number == signal.SIGKILL
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            if number == signal.SIGKILL and self._cgroup is not None:
                self._kill(self._cgroup)

    def _kill(self, cgroup: Cgroup) -> None:
        """At once, or where there are no descriptors for it, when there are."""
        try:
            cgroup.kill()
        except OSError:
            self._means.pool.begin(kill_cgroup, cgroup)

    # --- what it may use ---------------------------------------------------------------------------------------------

    def _watch_memory(self) -> None:
        """Those that can run out of it are watched. Without a descriptor for that, it is known at the end."""
        limits = self._config.limits
        if self._cgroup is not None and (limits.memory_bytes is not None or limits.oom_kill_group):
            with suppress(OSError):
                self._means.memory.add(self._cgroup, self._look_for_kills)

    def _look_for_kills(self) -> bool:
        """Tell of processes that the kernel has killed for want of memory; were there any?"""
        try:
            killed = 0 if self._cgroup is None else self._cgroup.oom_kills()
        except OSError:  # out of descriptors: it is not known
            return False
        if self._cgroup is None or killed <= self._killed:
            return False
        processes, self._killed = killed - self._killed, killed
        if self._ended.status is None and self._config.limits.oom_kill_group:
            self._kill(self._cgroup)  # where the kernel has done it, nobody is left
        self._means.tell("out_of_memory", self._config.id, {"processes": processes})
        return True

    async def limit(self, limits: Limits) -> None:
        """Have other limits while it runs. CgroupError if the host can't enforce them."""
        before, cgroup = self._config.limits, self.insist_on_cgroup()
        changed, resets = self._means.branch.changed(cgroup, before, limits)
        try:
            # A limit of memory below what is used makes the write wait until enough was given back.
            await aside(cgroup.change, changed, resets)
            self._config = replace(self._config, limits=limits)
        except OSError as error:
            with suppress(OSError, CgroupError):  # what was written before is taken back
                back, resets = self._means.branch.changed(changed, limits, before)
                await aside(changed.change, back, resets)
            raise CgroupError(f"write {error.filename}: {error.strerror}") from error
        finally:
            self._means.memory.remove(cgroup)
            self._cgroup = changed
            if self._ended.status is None:
                self._watch_memory()

    async def _limit(self, limits: Limits) -> None:
        try:
            await self.limit(limits)
        except CgroupError as error:
            if self._ended.status is None:
                self._means.tell("not_limited", self._config.id, {"error": str(error)})

    def apply(self, config: ContainerConfig) -> None:
        """See `Run.apply`."""
        if config.limits != self._config.limits and self._ended.status is None:
            self._means.tasks.start_soon(self._limit, config.limits)
            config = replace(config, limits=self._config.limits)
        self._config = (
            config if self._config.directory == config.directory else replace(config, directory=self._config.directory)
        )

    def rename(self, container: str) -> None:
        """See `Run.rename`. Its directory and its cgroup are known to it alone, and keep their names."""
        if self._capture is not None:
            self._capture.container = container

    def root(self) -> int:
        """A descriptor of its root directory. ConflictError if it has ended: then its pid may be another's."""
        with suppress(OSError):
            if self._ended.status is None:
                return os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        raise ConflictError(f"{self._config.id} has ended")

    @property
    def directory(self) -> str:
        """Where its upper is."""
        return self._config.directory

    def on_exit(self, callback: Callable[[], None]) -> None:
        """See `Run.on_exit`."""
        self._callback = callback
        if self._ended.status is not None:
            callback()

    def _exited(self) -> None:
        self._means.networks.stopped(self._config.place)
        for check in self._checks:
            check.cancel()
        if self._callback is not None:
            self._callback()

    async def ended(self) -> Status:
        """See `Run.ended`."""
        status = await self._ended.wait()
        self._release()
        self._look_for_kills()
        self.oom = self._killed > 0
        if self._cgroup is not None:
            self._means.memory.remove(self._cgroup)
        if self._mouth is not None:
            self._mouth.finish()
        if self._capture is not None:
            await self._capture.drain()
        await self._remove(self._cgroup)
        if self._own is not None:
            self._means.namespaces.give(self._config.id, self._own)
            self._own = None
        return status

    @property
    def ids(self) -> Ids | None:
        """Its own, if it has such."""
        return None if self._own is None else self._own.ids

    def _release(self) -> None:
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        self.close_stdin()

    async def room(self) -> None:
        """Until its standard input takes more, or is closed. Many may wait.

        The loop knows one who waits by his descriptor: each waits on one of his own, and closes it himself.
        """
        if self.stdin is None:
            return
        own = os.dup(self.stdin)
        try:
            with anyio.CancelScope() as scope:
                self._writers.add(scope)
                await anyio.wait_writable(own)
        finally:
            self._writers.discard(scope)
            os.close(own)

    def close_stdin(self) -> None:
        """It reads its end of file, once it has read all else; of a terminal, this is its end."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None
        for scope in self._writers:
            scope.cancel()

    def resize(self, rows: int, columns: int) -> None:
        """Of its terminal; who has none has no size."""
        if self.terminal and self.stdin is not None:
            set_size(self.stdin, rows, columns)

    def listen(self, listener: Hearer) -> None:
        """Have all that it writes from now on, as it comes."""
        if self._capture is not None:
            self._capture.listeners += (listener,)

    def unlisten(self, listener: Hearer) -> None:
        """No more."""
        if self._capture is not None:
            self._capture.listeners = tuple(each for each in self._capture.listeners if each is not listener)

    def freeze(self) -> None:
        """See `Run.freeze`."""
        self.insist_on_cgroup().freeze()

    def thaw(self) -> None:
        """See `Run.thaw`."""
        if self._cgroup is not None:
            with suppress(OSError):  # it is gone
                self._cgroup.thaw()

    def is_frozen(self) -> bool:
        """See `Run.is_frozen`."""
        try:
            return self._cgroup is not None and self._cgroup.frozen
        except OSError:  # it is gone, or we are out of descriptors
            return False

    def figures(self) -> Figures:
        """What it uses. CgroupError where it has no cgroup."""
        return self.insist_on_cgroup().figures()

    def members(self) -> list[int]:
        """The pids of its processes, on the host; without a cgroup, of process 1 and what is below it."""
        if self._cgroup is not None:
            return self._cgroup.members()
        return [self.pid, *below(self.pid, MEMBERS_MAX)]

    def insist_on_cgroup(self) -> Cgroup:
        """CgroupError where it has none."""
        if self._cgroup is None:
            raise CgroupError(f"{self._config.id} has no cgroup: this host offers none that pysup can use")
        return self._cgroup

    def hold(self, *, back: bool) -> None:
        """Read nothing more of what it writes, so that it waits; or go on."""
        if self._capture is None:
            return
        if back:
            self._capture.held = True
        else:
            self._capture.begin()

    def tail(self) -> tuple[str, ...]:
        """See `Run.tail`."""
        return self._capture.tail() if self._capture is not None else ()

    def hang(self) -> str:
        """See `Run.hang`."""
        return probes.hang_of(self.pid)

    # --- checks ------------------------------------------------------------------------------------------------------

    async def check(self, probe: Probe, timeout_s: float) -> Verdict:
        """See `Run.check`."""
        if self._pidfd is None or self._is_dead():
            return ENDED
        with anyio.CancelScope() as check:
            self._checks += (check,)
            try:
                return await self._try(probe, timeout_s, self._pidfd)
            finally:
                self._checks = tuple(other for other in self._checks if other is not check)
        return ENDED

    async def _try(self, probe: Probe, timeout_s: float, pidfd: int) -> Verdict:
        match probe:
            case Exec(argv):
                verdict = await self._command(argv, timeout_s, pidfd)
                return ENDED if not verdict.passed and self._is_dead() else verdict
            case File(path):
                return probes.exists(self.pid, path)
            case Log() | Notify():
                return self._recall()
        with anyio.move_on_after(timeout_s):
            make = partial(self._means.door.socket, pidfd, self._config.network)
            return await (probes.accepts(make, probe.port) if isinstance(probe, Tcp) else probes.answers(make, probe))
        return Verdict(passed=False, detail=f"no answer within {timeout_s:g} s")

    def _is_dead(self) -> bool:
        """Or as good as dead: what runs in it is killed before its process 1 is seen to end (pid_namespaces(7))."""
        return self._doomed or self._ended.status is not None or probes.is_exiting(self.pid)

    async def _command(self, argv: tuple[str, ...], timeout_s: float, pidfd: int) -> Verdict:
        care = self._care = self._care or probes.Care()
        cgroup = None if self._cgroup is None else self._cgroup.inside(f"exec.{next(self._means.numbers)}")
        entry = build_entry(self._config, argv, init=care.look(self.pid), cgroup=cgroup, ids=self.ids)
        begin = partial(self._enter, entry, pidfd)
        try:
            return await probes.command(begin, entry.owner, self.pid, timeout_s, care, cgroup)
        finally:
            self._leave(cgroup)

    def _leave(self, cgroup: Cgroup | None) -> None:
        """Remove a command's cgroup. If the kernel holds somebody in it, it goes with the container's."""
        with suppress(OSError):
            if cgroup is not None and not cgroup.members():
                self._means.pool.discard(cgroup)

    async def _enter(self, entry: Plan, pidfd: int, streams: tuple[int, ...]) -> tuple[int, Exit]:
        program = lower_plan(entry)
        spaces = () if self._own is None else (self._own.user,)
        before = (*streams, pidfd, *spaces)
        try:
            return await insist(partial(self._means.pool.enter, entry, program, before, self.pid))
        except ReplyError as error:
            raise spawn.launch_error(entry, error.reply.call, error.reply.error) from error

    async def execute(self, execution: Execution, *, stdin: bool) -> Command:
        """Run a command inside for an operator, who closes it. LaunchError."""
        if self._pidfd is None or self._is_dead():
            raise LaunchError(ENDED.detail, container=self._config.id)
        config = config_for(self._config, execution)
        cgroup = None if self._cgroup is None else self._cgroup.inside("")
        entry = build_entry(
            config, execution.argv, terminal=execution.terminal, keeps_orphans=False, cgroup=cgroup, ids=self.ids
        )
        try:
            made = self._execution_streams(entry, terminal=execution.terminal, stdin=stdin)
        except OSError as error:
            raise LaunchError(f"make its streams: {spawn.advise(error)}", container=entry.id) from error
        try:
            pid, ended = await self._enter(entry, self._pidfd, made.theirs)
        except BaseException:
            made.close()
            raise
        made.close_theirs()
        return Command(pid, ended, made, self.pid)

    def _execution_streams(self, entry: Plan, *, terminal: bool, stdin: bool) -> Streams:
        if terminal:
            return streams.terminal_inside(self.pid, entry.owner)
        return streams.conversing(entry.owner, stdin=stdin)

    def _recall(self) -> Verdict:
        """Has a line matched since the last time? Of all others that are heard of, nothing is known here."""
        if self._watch is None:
            return Verdict(passed=False, detail="is heard of, not tried")
        matched, self._watch.matched = self._watch.matched, False
        if self._watch.given_up:
            return Verdict(passed=False, detail="its pattern took too long: no line is looked at any more")
        return Verdict(matched, "" if matched else "no line matched")
