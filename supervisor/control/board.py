"""The operator's side of a running stack: `Commands` on services, runs, logs and events.

Whatever is asked becomes an event of the container's machine, and what is answered is read from its state, and from the
chronicle.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import anyio

from runtime.cgroup.limits import Limits
from runtime.config import ContainerConfig
from runtime.errors import CgroupError
from runtime.mounts import Bind
from supervisor.commands import Executed, Execution, Figures, Files, Happening, LogLine, Page, Reloaded, View
from supervisor.control.attachment import Attachment
from supervisor.control.chronicle import Chronicle
from supervisor.core.moves import SIGKILL
from supervisor.core.policy import Restarts
from supervisor.core.states import FINAL, LIVE, Kill, Pause, Phase, Restart, Start, Stop, Unpause
from supervisor.entry import Entry
from supervisor.errors import ConflictError, NoSuchContainerError
from supervisor.kernel import KernelRun
from supervisor.kernel.uppers import Uppers, running
from supervisor.logs.writer import LogWriter
from supervisor.network.ends import Connections, Laid
from supervisor.processes.ps import describe_process
from supervisor.reload.amendment import Amendment, amend
from supervisor.reporting.metrics import Metrics
from supervisor.stack.runner import Run
from supervisor.stack.service import Service
from supervisor.stack.tree import Stack

_SAME_FIGURES = (
    *("memory_peak_bytes", "memory_inactive_file_bytes", "swap_bytes", "oom_kills", "cpu_user_ns", "cpu_system_ns"),
    *("cpu_throttled_ns", "cpu_throttled_periods", "pressure"),
)


class Workshop(Protocol):
    """Makes entries for containers that the spec does not know."""

    async def entry(self, id_: str, image: str, config: Mapping[str, object], *, tty: bool, stdin: bool) -> Entry:
        """SpecError, ImageError."""
        ...

    def forget(self, id_: str, volumes: Iterable[str]) -> None:
        """What it had on disk goes, and these volumes."""
        ...

    def volumes(self) -> Path:
        """Where they find those that they name."""
        ...


class Host(Protocol):
    """What only those know who start containers."""

    @property
    def uppers(self) -> Uppers:
        """What those have written that do not run."""
        ...

    def connections(self, container: str) -> Connections:
        """Where it is in the stack's networks."""
        ...

    def networks(self) -> tuple[Laid, ...]:
        """Those of the stack that there are."""
        ...

    def unmet(self, limits: Limits) -> Mapping[str, str]:
        """The limits that are left out, as best effort has it. CgroupError if others can't be enforced."""
        ...


class Reloads(Protocol):
    """Reads the spec again. See reload/reloader.py."""

    async def reload(self, why: str) -> Reloaded: ...
    async def scale(self, numbers: Mapping[str, int], why: str) -> Reloaded: ...
    async def preview(self) -> Reloaded: ...


class Board:
    """See `Commands`."""

    def __init__(
        self,
        name: str,
        stack: Stack,
        chronicle: Chronicle,
        metrics: Metrics,
        logs: LogWriter,
        workshop: Workshop,
        ask: Callable[[], None],
        host: Host,
    ) -> None:
        self.name = name
        self._host = host
        self._stack = stack
        self._chronicle = chronicle
        self._metrics = metrics
        self._ask = ask
        self._logs = logs
        self._workshop = workshop
        self._attached: dict[Service, tuple[Attachment, ...]] = {}
        self.reloads: Reloads | None = None  # None: nobody knows where the spec is
        self._over = False  # nothing more will change
        self._changes: anyio.Event | None = None  # made when somebody waits
        for service in stack.services:
            chronicle.record(service.entry.id, name)
        stack.listeners.append(self._changed)

    # --- what there is -----------------------------------------------------------------------------------------------

    def views(self) -> Sequence[View]:
        """See `Commands.views`."""
        return [self._view(service) for service in self._stack.services]

    def find(self, reference: str) -> View:
        """See `Commands.find`."""
        return self._view(self._service(reference))

    def _service(self, reference: str) -> Service:
        records = self._chronicle.records
        id_ = self._chronicle.renamed.get(reference, reference)
        if id_ in records and records[id_].name == reference:
            return self._stack.service(id_)
        near = {
            id_: record
            for id_, record in records.items()
            if record.name.startswith(reference) or record.key.startswith(reference)
        }
        if len(near) == 1 and reference:
            return self._stack.service(next(iter(near)))
        if near and reference:
            raise NoSuchContainerError(f"{reference} is ambiguous: {', '.join([e.name for e in near.values()][:5])}")
        raise NoSuchContainerError(f"no such container: {reference}")

    def _view(self, service: Service) -> View:
        entry, state = service.entry, service.state
        record = self._chronicle.records[entry.id]
        return View(
            id=record.name,
            key=record.key,
            group=entry.group,
            image=entry.image,
            config=entry.config,
            policy=entry.policy,
            phase=state.phase,
            paused=state.paused_at is not None,
            wanted_up=state.wanted_up,
            health=state.health,
            failing=state.failing,
            finding=state.finding,
            said=state.said,
            pid=state.pid,
            exit_status=None if state.status is None else state.status.exit_status,
            oom=record.oom,
            failure=state.failure,
            restarts=state.restarts,
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
            managed=record.managed,
            logs=entry.logs,
            lines_dropped=self._logs.lost_lines[entry.id],
            auto_remove=record.auto_remove,
            tty=entry.config.terminal,
            open_stdin=record.stdin,
            labels=record.labels,
            ids=None if entry.config.userns is None or service.current is None else _operated(service.current).ids,
            connections=self._host.connections(entry.id),
        )

    async def happenings(self) -> AsyncIterator[Happening]:
        """See `Commands.happenings`."""
        async for happening in self._chronicle.listen():
            yield happening

    # --- up and down -------------------------------------------------------------------------------------------------

    async def start(self, id_: str) -> None:
        """See `Commands.start`. Returns when it runs, or it is clear that it won't: ConflictError then."""
        service = self._service(id_)
        if service.state.wanted_up and service.state.phase in LIVE:
            return
        await service.seen(Start())
        await self._until(lambda: service.state.phase in LIVE | FINAL)
        if service.state.phase is Phase.FAILED:
            raise ConflictError(f"{id_}: {service.state.failure}")

    async def stop(self, id_: str, grace_s: float | None = None) -> None:
        """See `Commands.stop`."""
        service = self._service(id_)
        await service.seen(Stop(grace_s))
        await self._until(lambda: service.is_final)

    async def restart(self, id_: str, grace_s: float | None = None) -> None:
        """See `Commands.restart`. Returns when it runs again, or it is clear that it won't."""
        service = self._service(id_)
        if service.state.phase not in LIVE:
            await self.start(id_)
            return
        before = service.state.restarts
        await service.seen(Restart("asked for", grace_s))
        await self._until(lambda: service.is_final or (service.state.restarts > before and service.state.phase in LIVE))

    def kill(self, id_: str, number: int) -> None:
        """See `Commands.kill`."""
        service = self._service(id_)
        if service.state.phase not in LIVE:
            raise ConflictError(f"{id_} is not running")
        if number == SIGKILL:
            service.post(Kill())
        else:
            service.signal(number)
            self._chronicle("signalled", service.entry.id, {"signal": number})

    async def wait(self, id_: str, condition: str = "not-running") -> int:
        """See `Commands.wait`."""
        service = self._service(id_)
        before = self._chronicle.records[service.entry.id].finished_at

        def is_over() -> bool:
            record = self._chronicle.records.get(service.entry.id)
            if record is None:
                return True
            if condition == "next-exit":
                return record.finished_at not in {None, before}
            return condition == "not-running" and service.state.phase in FINAL | {Phase.CREATED}

        await self._until(is_over)
        return 0 if service.state.status is None else service.state.status.exit_status

    async def pause(self, id_: str) -> None:
        """See `Commands.pause`."""
        self._live_run(id_).insist_on_cgroup()
        service = self._service(id_)
        await service.seen(Pause())
        if service.state.paused_at is None:
            raise ConflictError(f"{id_} is being stopped")

    async def unpause(self, id_: str) -> None:
        """See `Commands.unpause`."""
        await self._service(id_).seen(Unpause())

    async def update(self, id_: str, limits: Limits | None, restarts: Restarts | None) -> None:
        """See `Commands.update`."""
        service = self._service(id_)
        if limits is not None:
            await self._limit(service, limits)
        entry, record = service.coming or service.entry, self._chronicle.records[service.entry.id]
        amended = amend(entry, limits, restarts)
        record.amendment = Amendment.of(entry, amended, record.amendment)
        service.adapt(amended)
        self._chronicle("updated", service.entry.id, {})

    async def _limit(self, service: Service, limits: Limits) -> None:
        """At once if it runs; else it must be possible for its next run."""
        run = service.current
        try:
            if run is None:
                self._host.unmet(limits)
            else:
                await _operated(run).limit(limits)
        except CgroupError as error:
            if service.current is run:  # else its run has ended meanwhile
                raise ConflictError(f"{service.entry.id}: {error}") from error

    async def stop_all(self) -> None:
        """See `Commands.stop_all`."""
        self._ask()

    async def scrape(self) -> Page:
        """See `Commands.scrape`."""
        return await self._metrics.scrape()

    # --- containers that the spec does not know ----------------------------------------------------------------------

    async def create(
        self,
        id_: str,
        image: str,
        config: Mapping[str, object],
        labels: Mapping[str, str],
        *,
        auto_remove: bool,
        tty: bool,
        stdin: bool,
    ) -> View:
        """See `Commands.create`."""
        self._check_free(id_)
        if self._stack.has(id_):
            raise ConflictError(f"the name {id_} is taken by the replicas of that name")
        entry = await self._workshop.entry(id_, image, config, tty=tty, stdin=stdin)
        self._chronicle.record(id_, self.name, managed=False, auto_remove=auto_remove, stdin=stdin, labels=labels)
        self._chronicle("created", id_, {"image": image})
        return self._view(self._stack.add(entry, counts=False))

    def _check_free(self, name: str) -> None:
        """Also of the name that one had before: its directory, host name and cgroup have that."""
        records = self._chronicle.records
        if (taken := records.get(self._chronicle.renamed.get(name, name))) is not None:
            before = "" if taken.name == name else f", which was made under it and is {taken.name} now"
            raise ConflictError(f"the name {name} is taken by container {taken.key[:12]}{before}")

    async def remove(self, id_: str, *, force: bool = False, volumes: bool = False) -> None:
        """See `Commands.remove`."""
        service = self._service(id_)
        name = service.entry.id
        if self._chronicle.records[name].managed:
            raise ConflictError(f"{name} is in the stack's file: take it out there, and reload")
        if service.state.phase not in FINAL | {Phase.CREATED}:
            if not force:
                raise ConflictError(f"{name} is running: stop it first, or force")
            await service.seen(Kill())
            await self._until(lambda: service.is_final)
        self._forget(name, volumes=volumes)

    def _forget(self, name: str, *, volumes: bool) -> None:
        config = self._stack.service(name).entry.config
        self._stack.remove(name)
        self._workshop.forget(name, self._nameless(config) if volumes else ())
        self._chronicle("removed", name, {})
        del self._chronicle.records[name]
        self._chronicle.renamed = {new: id_ for new, id_ in self._chronicle.renamed.items() if id_ != name}
        self.wake()

    def _nameless(self, config: ContainerConfig) -> frozenset[str]:
        """Its volumes that have no name, and that nobody else has."""
        others = (each.entry.config.mounts for each in self._stack.services if each.entry.config is not config)
        used = {each.volume for mounts in others for each in mounts if isinstance(each, Bind)}
        own = (each for each in config.mounts if isinstance(each, Bind) and each.is_nameless)
        return frozenset(each.volume for each in own) - used

    def forget_passing(self) -> None:
        """The stack has ended: nobody will ask again for what was written by those whom the spec does not know."""
        for name, record in self._chronicle.records.items():
            if not record.managed:
                self._workshop.forget(name, self._nameless(self._stack.service(name).entry.config))

    async def rename(self, id_: str, to: str) -> None:
        """See `Commands.rename`. Of what it is shown as: its directory, host name and cgroup stay as they are."""
        name = self._service(id_).entry.id
        record = self._chronicle.records[name]
        if record.managed:
            raise ConflictError(f"{name} is in the stack's file: rename it there, and reload")
        if to == record.name:
            raise ConflictError(f"{to} is its name already")
        if to != name:
            self._check_free(to)
        before, record.name = record.name, to
        self._chronicle.renamed.pop(before, None)
        if to != name:
            self._chronicle.renamed[to] = name
        self._chronicle("renamed", name, {"from": before})

    # --- the spec, read again ----------------------------------------------------------------------------------------

    async def reload(self, *, dry: bool = False) -> Reloaded:
        """See `Commands.reload`."""
        return await (self._reloader().preview() if dry else self._reloader().reload("an operator's request"))

    async def scale(self, numbers: Mapping[str, int]) -> Reloaded:
        """See `Commands.scale`."""
        return await self._reloader().scale(numbers, "an operator's request to scale")

    def _reloader(self) -> Reloads:
        if self.reloads is None:
            raise ConflictError(f"{self.name} was not started from a file that could be read again")
        return self.reloads

    # --- inside ------------------------------------------------------------------------------------------------------

    def reading(self, id_: str) -> AbstractContextManager[None]:
        """See `Commands.reading`."""
        return self._logs.reading(self._service(id_).entry.id)

    def logs(
        self,
        id_: str,
        *,
        follow: bool = False,
        since: float | None = None,
        until: float | None = None,
        last: int | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """See `Commands.logs`."""
        return self._logs.logs(self._service(id_).entry.id, follow=follow, since=since, until=until, last=last)

    @asynccontextmanager
    async def attach(self, id_: str, *, stdin: bool) -> AsyncIterator[Attachment]:
        """See `Commands.attach`."""
        service, attachment = self._service(id_), Attachment(stdin=stdin)

        def join(run: Run) -> None:
            attachment.join(_operated(run))

        if service.current is not None:
            join(service.current)
        else:
            service.joining += (join,)
        self._attached[service] = (*self._attached.get(service, ()), attachment)
        try:
            yield attachment
        finally:
            if others := tuple(each for each in self._attached[service] if each is not attachment):
                self._attached[service] = others
            else:
                del self._attached[service]
            service.joining = tuple(each for each in service.joining if each is not join)
            attachment.leave()

    def resize(self, id_: str, rows: int, columns: int) -> None:
        """See `Commands.resize`."""
        run = self._live_run(id_)
        if not run.terminal:
            raise ConflictError(f"{id_} has no terminal")
        run.resize(rows, columns)

    async def execute(self, id_: str, execution: Execution, *, stdin: bool) -> Executed:
        """See `Commands.execute`."""
        return await self._live_run(id_).execute(execution, stdin=stdin)

    async def figures(self, id_: str) -> Figures:
        """See `Commands.figures`."""
        found = self._live_run(id_).figures()
        return Figures(
            memory_bytes=found.memory_bytes,
            memory_max_bytes=found.memory_max_bytes,
            cpu_ns=found.cpu_ns,
            pids=found.pids,
            pids_max=found.pids_max,
            read_bytes=found.io_read_bytes,
            written_bytes=found.io_written_bytes,
            reads=found.io_reads,
            writes=found.io_writes,
            **{name: getattr(found, name) for name in _SAME_FIGURES},
        )

    async def processes(self, id_: str) -> Sequence[tuple[int, Mapping[str, str]]]:
        """See `Commands.processes`."""
        return [(pid, described) for pid in self._live_run(id_).members() if (described := describe_process(pid))]

    @asynccontextmanager
    async def files(
        self, id_: str, *, write: bool = False, volumes: bool = True, or_image: bool = False
    ) -> AsyncIterator[Files]:
        """See `Commands.files`."""
        service = self._service(id_)
        if service.current is None and not or_image:
            self._insist_on_files(service, write=write)
        async with self._host.uppers.held(service.entry.config) if write else nullcontext():
            if (run := service.current) is None:
                async with self._host.uppers.still(service.entry.config, write=write, volumes=volumes) as still:
                    yield still
            else:
                with running(_operated(run)) as found:
                    yield found

    def _insist_on_files(self, service: Service, *, write: bool) -> None:
        """What becomes of what is written is the spec's business."""
        name, config = service.entry.id, service.entry.config
        if config.keep or config.lasting:
            return
        if write:
            raise ConflictError(
                f"{name} does not run, and its next run begins with its image alone: `keep: true` lets it go on"
            )
        if config.memory_bytes is not None:
            raise ConflictError(f"{name} does not run, and what it had written was in memory (`storage: memory`)")
        if self._chronicle.records[name].started_at is not None:
            raise ConflictError(
                f"{name} does not run, and what it had written went with its run: with `keep: true` it stays"
            )

    def networks(self) -> Sequence[Laid]:
        """See `Commands.networks`."""
        return self._host.networks()

    def volumes(self) -> Path:
        """See `Commands.volumes`."""
        return self._workshop.volumes()

    def upper(self, id_: str) -> int | None:
        """See `Commands.upper`."""
        service = self._service(id_)
        config, run = service.entry.config, service.current
        if config.memory_bytes is not None:
            return None
        directory = config.directory if run is None else _operated(run).directory
        with suppress(FileNotFoundError):
            return os.open(f"{directory}/upper", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return None

    def _live_run(self, id_: str) -> KernelRun:
        service = self._service(id_)
        if service.current is None:
            raise ConflictError(f"{service.entry.id} is not running")
        return _operated(service.current)

    def wake(self) -> None:
        """Something has changed that somebody may wait for."""
        if self._changes is not None:
            self._changes.set()
            self._changes = None

    def close(self) -> None:
        """The stack has ended: so does all that waits for something of it."""
        self._over = True
        self._chronicle.end()
        for attachment in (each for joined in self._attached.values() for each in joined):
            attachment.end()
        self.wake()

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            if self._over:
                raise ConflictError(f"the stack {self.name} has ended")
            self._changes = self._changes or anyio.Event()
            await self._changes.wait()

    def _changed(self, service: Service) -> None:
        self.wake()
        name = service.entry.id
        if service.is_final:
            self._logs.end(name)
        elif service.state.phase is Phase.STARTING:
            self._logs.open(name, service.entry.logs)
        if service.current is not None:
            return
        for attachment in self._attached.get(service, ()):
            if attachment.has_joined or service.is_final:  # else it waits for the run that is to come
                attachment.end()
        record = self._chronicle.records.get(name)
        if record is not None and record.auto_remove and service.is_final:
            self._forget(name, volumes=True)


def _operated(run: Run) -> KernelRun:
    """Operators work on the real kernel."""
    assert isinstance(run, KernelRun)
    return run
