"""Runs on the real kernel: a plan, its streams, a launcher's clone, the reaper's status, and nothing left behind."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from runtime import spawn, streams
from runtime.build import build_plan
from runtime.cgroup.branch import Branch
from runtime.cgroup.figures import Figures
from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import NO_LIMITS, Limits
from runtime.config import ContainerConfig, Network
from runtime.enter import Door, build_entry
from runtime.errors import CgroupError, LauncherLostError, LaunchError
from runtime.idmap import Ids
from runtime.lower import lower_plan
from runtime.plan import Plan
from runtime.status import Status
from runtime.streams import Streams
from runtime.volumes import Pinned, needs_pinning
from supervisor import cgroups, probes
from supervisor.checks import Exec, File, Log, Notice, Notify, Probe, Tcp, Verdict
from supervisor.commands import Execution
from supervisor.execution import Command, config_for, set_size
from supervisor.helper import consult
from supervisor.ids import Blocks
from supervisor.launchers import LauncherPool, ReplyError
from supervisor.memory import MemoryWatch
from supervisor.namespaces import Hold, Namespaces, Own
from supervisor.network.ends import Connections
from supervisor.network.stack import Connect, Networks, none
from supervisor.notify import Listener, Mouth
from supervisor.output import Capture, Output, Watch
from supervisor.output import Listener as Hearer
from supervisor.policy import Policy
from supervisor.reaper import Exit, Reaper
from supervisor.runner import Heard
from supervisor.uproot import below, kill_cgroup

MEMBERS_MAX = 4096  # looked for, of one container
TRIES_MAX = 3  # what a launcher died over is tried again by another
ENDED = Verdict(passed=False, detail="the container has ended")

MakeStreams = Callable[[Plan], Streams]
Remove = Callable[[Cgroup | None], Awaitable[None]]
Result = TypeVar("Result")
Complain = Callable[[str, str], None]  # (container, what could not be cleaned)
Tell = Callable[[str, str, Mapping[str, object]], None]  # (event, container, fields)


@dataclass(frozen=True, slots=True)
class Means:
    """What all runs of a runner share."""

    pool: LauncherPool
    branch: Branch
    door: Door
    listener: Listener
    namespaces: Namespaces
    networks: Networks
    reaper: Reaper
    memory: MemoryWatch
    tasks: anyio.abc.TaskGroup  # for what must not be waited for
    tell: Tell
    numbers: Iterator[int] = field(default_factory=count)  # of commands in containers


class KernelRun:
    """A container that runs, or ran."""

    __slots__ = (
        "_callback",
        "_capture",
        "_care",
        "_cgroup",
        "_checks",
        "_config",
        "_ended",
        "_frozen",
        "_killed",
        "_means",
        "_mouth",
        "_own",
        "_pidfd",
        "_remove",
        "_watch",
        "oom",
        "pid",
        "stdin",
        "terminal",
    )

    def __init__(
        self,
        process: "Process",
        config: ContainerConfig,
        cgroup: Cgroup | None,
        own: Own | None,
        means: Means,
        senses: "Senses",
        remove: Remove,
    ) -> None:
        self.oom = False
        self.pid = process.pid
        self._pidfd = process.pidfd
        self._ended = process.ended
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
        self._callback: Callable[[], None] | None = None
        self._checks: tuple[anyio.CancelScope, ...] = ()
        self._care: probes.Care | None = None  # made by the first command
        self._frozen = False
        self._killed = 0  # of its processes, for want of memory, as far as it was told
        self._watch_memory()
        self._ended.call(self._exited)

    def signal(self, number: int) -> None:
        """pidfd_send_signal(2); killing the first process kills all of the container (pid_namespaces(7)), unless that
        one is stuck or frozen: so its cgroup is killed too.
        """
        if self._pidfd is not None:
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
        before, cgroup = self._config.limits, self._controlled()
        changed, resets = self._means.branch.changed(cgroup, before, limits)
        try:
            # A limit of memory below what is used makes the write wait until enough was given back.
            await anyio.to_thread.run_sync(cgroup.change, changed, resets)
            self._config = replace(self._config, limits=limits)
        except OSError as error:
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

    def close_stdin(self) -> None:
        """It reads its end of file, once it has read all else; of a terminal, this is its end."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

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

    def freeze(self, *, frozen: bool) -> None:
        """All of its processes stop where they are, or go on. CgroupError where it has no cgroup."""
        if frozen:
            self._controlled().freeze()
        else:
            self._controlled().thaw()
        self._frozen = frozen

    @property
    def frozen(self) -> bool:
        """Was it told to stop where it is?"""
        return self._frozen

    def thaw(self) -> None:
        """See `Run.thaw`."""
        if self._frozen:
            with suppress(OSError, CgroupError):  # it is gone
                self.freeze(frozen=False)

    def figures(self) -> Figures:
        """What it uses. CgroupError where it has no cgroup."""
        return self._controlled().figures()

    def members(self) -> list[int]:
        """The pids of its processes, on the host; without a cgroup, of process 1 and what is below it."""
        if self._cgroup is not None:
            return self._cgroup.members()
        return [self.pid, *below(self.pid, MEMBERS_MAX)]

    def _controlled(self) -> Cgroup:
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
        return self._ended.status is not None or probes.is_exiting(self.pid)

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
        image = lower_plan(entry).image
        places = () if entry.cgroup is None else entry.cgroup.descriptors
        spaces = () if self._own is None else (self._own.user,)
        descriptors = (*streams, pidfd, *spaces, *places)
        try:
            return await _insist(partial(self._means.pool.enter, entry, image, descriptors, self.pid))
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
        return Verdict(matched, "" if matched else "no line matched")


@dataclass(frozen=True, slots=True)
class Process:
    """Process 1 of a container, our child."""

    pid: int
    pidfd: int | None  # None: it had been reaped by then
    ended: Exit

    @classmethod
    async def of(cls, pid: int, ended: Exit) -> "Process":
        """With a pidfd. If we have no descriptor for that, it must not live: OSError."""
        try:
            # Until it is reaped the pid can't be another process's; if it has been, there is nothing to signal.
            return cls(pid, os.pidfd_open(pid) if ended.status is None else None, ended)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await ended.wait()
            raise


@dataclass(slots=True)
class Senses:
    """By what a run is heard, from before its start."""

    capture: Capture | None = None
    watch: Watch | None = None  # of a health check
    mouth: Mouth | None = None
    stdin: int | None = None  # what can be written to
    terminal: bool = False

    def begin(self) -> None:
        """It has started: hear it."""
        if self.mouth is not None:
            self.mouth.begin()
        if self.capture is not None:
            self.capture.begin()

    def close(self) -> None:
        """No run came of it."""
        if self.mouth is not None:
            self.mouth.close()
        if self.capture is not None:
            self.capture.close()
        if self.stdin is not None:
            os.close(self.stdin)


class KernelRunner:
    """Starts containers through the launchers. `streams` makes a run's standard streams; pipes among them go to
    `output`.
    """

    def __init__(self, means: Means, streams: MakeStreams, output: Output | None, complain: Complain) -> None:
        self._means = means
        self._streams = streams
        self._output = output
        self._complain = complain

    async def attach(self, path: str) -> None:
        """Show a directory of the host to the launchers: an image that was not known when they began."""
        await self._means.pool.show(path)

    def connections(self, container: str) -> Connections:
        """Where it is in the stack's networks."""
        return self._means.networks.connections(container)

    def leave(self, container: str) -> None:
        """A container has left the stack for good: its network goes, and the ids that were its own."""
        self._means.networks.give_up(container)
        self._means.namespaces.forget(container)

    async def consult(self, module: str, question: object) -> Any:
        """Have another interpreter answer a question: see helper.py."""
        return await consult(self._means.reaper, module, question)

    def unmet(self, limits: Limits) -> Mapping[str, str]:
        """By their keys, the limits that are left out, as best effort has it, and why."""
        return self._means.branch.unmet(limits)

    async def start(self, config: ContainerConfig, policy: Policy, heard: Heard) -> KernelRun:
        """See `Runner.start`."""
        own = pinned = None
        try:
            if config.userns is not None:
                alone = config.network in (Network.NONE, Network.BRIDGE)
                own = await self._means.namespaces.take(config.id, config.userns, network=alone)
            config, joined = await self._means.networks.prepare(config, None if own is None else own.network)
            pinned = await _pinned(config)
            cgroup = self._means.branch.cgroup(config.place, config.limits)
            found, ids = None if pinned is None else pinned.found, None if own is None else own.ids
            plan = build_plan(config, cgroup, found, ids)
            start = partial(self._try, config, plan, pinned, own, policy, heard)
            return await _insist(partial(start, joined=() if joined is None else (joined,)))
        except BaseException as error:
            if own is not None:
                self._means.namespaces.give(config.id, own)
            if isinstance(error, CgroupError):
                raise LaunchError(str(error), container=config.id) from error
            raise
        finally:
            if pinned is not None:
                pinned.close()

    async def _try(
        self,
        config: ContainerConfig,
        plan: Plan,
        pinned: Pinned | None,
        own: Own | None,
        policy: Policy,
        heard: Heard,
        *,
        joined: tuple[int, ...],
    ) -> KernelRun:
        made, senses = None, Senses()
        spaces = () if own is None else own.descriptors()
        mounts: list[int] = []
        try:
            if pinned is not None:
                mounts = pinned.copies(None if own is None else own.user)
            made = self._streams(plan)
            places = () if plan.cgroup is None else plan.cgroup.descriptors
            descriptors = (*self._listen(senses, config, made, policy, heard), *joined, *spaces, *mounts, *places)
            process = await Process.of(*await self._means.pool.start(plan, lower_plan(plan).image, descriptors))
        except BaseException as error:
            senses.close()
            if made is not None:
                made.close()
            with anyio.CancelScope(shield=True):
                await self._remove(plan.id, _temporary(plan), plan.cgroup)
            if isinstance(error, ReplyError):
                raise spawn.launch_error(plan, error.reply.call, error.reply.error) from error
            if isinstance(error, OSError):
                what = "make its pipes" if made is not None or not mounts else "copy its mounts"
                raise LaunchError(f"{what}: {spawn.advise(error)}", container=plan.id) from error
            raise
        finally:
            for each in mounts:
                os.close(each)
        made.close_theirs()
        # The run does not hold the plan: for thousands of idle containers that would be most of their memory.
        remove = partial(self._remove, plan.id, _temporary(plan))
        senses.begin()
        self._means.networks.started(config.place)
        return KernelRun(process, config, plan.cgroup, own, self._means, senses, remove)

    def _listen(
        self, senses: Senses, config: ContainerConfig, made: Streams, policy: Policy, heard: Heard
    ) -> tuple[int, ...]:
        """Make what it is to be heard by; returns the descriptors for its start."""
        if self._output is not None:
            watches = []
            if policy.ready is not None and isinstance(policy.ready.probe, Log):
                watches.append(Watch(policy.ready.probe.pattern, partial(heard, Notice(ready=True))))
            if policy.health is not None and isinstance(policy.health.probe, Log):
                senses.watch = Watch(policy.health.probe.pattern)
                watches.append(senses.watch)
            senses.capture = self._attach(self._output, config.id, made, tuple(watches))
            senses.terminal = made.terminal is not None
            senses.stdin, made.stdin, made.terminal = made.terminal if senses.terminal else made.stdin, None, None
        if not config.notify:
            return made.theirs
        senses.mouth = self._means.listener.open(heard)
        return (*made.theirs, senses.mouth.mount)

    @staticmethod
    def _attach(output: Output, container: str, made: Streams, watches: tuple[Watch, ...]) -> Capture:
        """What it writes is the output's from here."""
        if made.terminal is not None:
            return output.attach(container, os.dup(made.terminal), None, watches, held=True)
        assert made.stdout is not None
        pipes, made.stdout, made.stderr = (made.stdout, made.stderr), None, None
        return output.attach(container, *pipes, watches, held=True)

    async def _remove(self, container: str, directory: str | None, cgroup: Cgroup | None) -> None:
        """Remove what a run that has ended has on disk, and its cgroup. What can't be is complained of, and left to the
        next sweep.
        """
        try:
            await _insist(partial(self._means.pool.remove, directory, cgroup))
        except (OSError, LaunchError) as error:
            self._complain(container, f"left behind: {error}")


async def _pinned(config: ContainerConfig) -> Pinned | None:
    """Its sources, opened in a thread: a disk or a server that is slow holds up nobody else. None: it has none."""
    if not needs_pinning(config):
        return None
    return await to_thread.run_sync(Pinned, config)


async def _insist(attempt: Callable[[], Awaitable[Result]]) -> Result:
    for _ in range(TRIES_MAX - 1):
        with suppress(LauncherLostError):
            return await attempt()
    return await attempt()


def _temporary(plan: Plan) -> str | None:
    """The directory that goes with the run."""
    return None if plan.keep else plan.directory


def _untold(_event: str, _container: str, _fields: Mapping[str, object]) -> None:
    """Nobody is there to be told."""


@asynccontextmanager
async def kernel(
    state: Path,
    paths: Sequence[str],
    make: MakeStreams,
    output: Output | None,
    complain: Complain,
    size: int | None = None,
    connect: Connect = none,
    configs: Iterable[ContainerConfig] = (),
    tell: Tell = _untold,
) -> AsyncIterator[KernelRunner]:
    """A runner on the real kernel with its reaper, launchers, cgroups and networks, while the context lasts.

    `configs` are known to be run: CgroupError if the limits of one can't be enforced.
    """
    wanted = {each.limits: each.id for each in configs if each.limits != NO_LIMITS}
    reaper = Reaper()
    pool = LauncherPool(state, reaper, size)
    for path in paths:
        pool.attach(path)
    with (
        cgroups.branch(state, wanted) as branch,
        closing(Door()) as door,
        closing(Listener(state)) as listener,
        closing(MemoryWatch()) as memory,
        closing(Namespaces(_holder(pool), Blocks(state))) as namespaces,
    ):
        async with anyio.create_task_group() as tasks:
            await tasks.start(reaper.run)
            tasks.start_soon(listener.run)
            await tasks.start(memory.run)
            async with connect() as networks, anyio.create_task_group() as launchers:
                await launchers.start(pool.run)
                means = Means(pool, branch, door, listener, namespaces, networks, reaper, memory, tasks, tell)
                yield KernelRunner(means, make, output, complain)
                await namespaces.settle()
                launchers.cancel_scope.cancel()
            tasks.cancel_scope.cancel()


def _holder(pool: LauncherPool) -> Hold:
    """A launcher that dies over it is no end: the next one is asked."""
    return lambda pipe, flags: _insist(partial(pool.hold, pipe, flags))
