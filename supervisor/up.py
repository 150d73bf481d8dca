"""One stack in the foreground, from lock to last line: what `pysup up` does once its arguments are known to be right.

The parts are nested so that each outlives what needs it: the console takes the last events, the output reader the last
lines of runs, the reaper the launchers' own ends. Signals ask the stack to stop (the first) or to be killed (the
second); nothing here decides what a container does.

SIGHUP means two things. Sent by somebody, as by `systemctl reload`, it asks for a reload. The kernel sends it, too,
when the terminal goes away that pysup was started at (a window is closed, a connection lost): then nobody sees the
stack any more, and it is stopped, as ever. The two are told apart by whether there is a terminal still. Whoever was
started to ignore it (nohup(1)) goes on when the terminal goes.
"""

import gc
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.abc

from runtime import spawn, streams
from runtime.cgroup.limits import path_of
from runtime.plan import Plan
from runtime.streams import Streams
from supervisor.compile.workshop import ApiWorkshop
from supervisor.control.board import Board
from supervisor.control.desk import SOCKET, Keeping, Shown, Told, keeping, serving, speaking
from supervisor.control.household import Household
from supervisor.entry import Compiled, Entry, Reading, Scale
from supervisor.kernel import KernelRunner, kernel
from supervisor.logs.policy import Driver
from supervisor.logs.writer import LogWriter
from supervisor.network.stack import networks
from supervisor.reload.reloader import Reloader
from supervisor.reporting.crowds import Crowds
from supervisor.reporting.events import Events, Level, LogFormat, Speaker, forms
from supervisor.reporting.metrics import Timed
from supervisor.stack.arrival import Arrival
from supervisor.stack.tree import Emit, Stack, Summary
from supervisor.state.home import Home, Left, locked
from supervisor.streams.console import Console, ConsoleGoneError
from supervisor.streams.lines import Layout, Piece, Stream
from supervisor.streams.output import Output

# Objects made, less those that went, from one look for unreachable cycles to the next. Python's 700 are soon made by a
# few starts, which leave no cycles: to look so often was a tenth of what a start costs us.
OBJECTS_BETWEEN_LOOKS = 10_000

NAMES_MAX = 20  # of failed containers, in the last line
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What a stack that goes well has little need of, and what must not be overlooked; all else is information.
_LEVELS: Mapping[str, Level] = {
    "starting": "debug",
    "status": "debug",
    "start_failed": "error",
    "gave_up": "error",
    "dependency_failed": "error",
    "stuck": "error",
    "not_enforced": "warning",
    "not_limited": "warning",
    "not_ready": "warning",
    "out_of_memory": "warning",
    "timed_out": "warning",
    "pattern_slow": "warning",
    "frozen": "warning",
    "unhealthy": "warning",
    "dependency_skipped": "warning",
    "stop_command_failed": "warning",
    "killing": "warning",
    "aborting": "warning",
    "systemd_deaf": "warning",
    "internal_error": "error",
    "created": "debug",
    "signalled": "debug",
    "removed": "debug",
    "not_paused": "warning",
    "left_behind": "warning",
    "output_lost": "warning",
    "log_failed": "warning",
    "log_lost": "warning",
    "log_repaired": "warning",
    "log_unkept": "warning",
    "swept": "warning",
    "forwarding_enabled": "warning",
    "descriptors_scarce": "warning",
    "reload_refused": "error",
    "reload_paused": "error",
    "rolling_back": "error",
    "rollback_failed": "error",
    "reload_interrupted": "warning",
    "watch_failed": "warning",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stack ended. `killed` where a second signal forced it; `decisive`: the exit status that was asked for."""

    summary: Summary
    killed: bool
    decisive: int | None = None

    @property
    def exit_status(self) -> int:
        """0, or 1 where something failed or had to be killed; or that of `--exit-code-from`."""
        return int(bool(self.summary.failed) or self.killed) if self.decisive is None else self.decisive


@dataclass(frozen=True, slots=True)
class Look:
    """How output looks."""

    log_format: LogFormat
    layout: Layout
    level: Level = "info"


@dataclass(frozen=True, slots=True)
class Manner:
    """How a stack is run. `tell` is called once: with `wait`, when all of it is up (True), or it is clear that it won't
    be; else when supervision has begun.
    """

    starts_max: int
    abort_on_exit: bool = False
    exit_code_from: str | None = None  # an id of the spec; of its replicas the first that failed
    tell: Callable[[bool], None] | None = None
    wait: bool = False
    shows_lines: bool = True  # else events only
    console: int = 1  # the descriptor that all is written to
    stays: bool = False  # also when all containers are done, until it is stopped
    run_directory: Path | None = None  # where the control socket is; None: there is none
    socket_group: int | None = None  # who may use it, besides its owner
    images: tuple[Path, ...] = ()  # where the API looks for images
    again: "Again | None" = None  # how the spec can be read again
    watch: bool = False  # and when it changes, it is


@dataclass(frozen=True, slots=True)
class Again:
    """How the spec is read again: a module of ours (processes/helper.py), and what it is to be asked."""

    module: str
    question: object


async def up(first: Reading, home: Home, look: Look, manner: Manner) -> Outcome:
    """Run the stack until it is over. StackError if it runs already."""
    gc.set_threshold(OBJECTS_BETWEEN_LOOKS)
    with locked(home) as swept:
        async with Console(manner.console) as console:
            events = Events(console.write, forms(look.log_format, look.layout)[1], level=look.level)
            is_text = look.log_format is LogFormat.TEXT
            crowds = Crowds(events, look.level)
            with speaking(first.stack.name, crowds if is_text else events, look.level, structured=is_text) as speaker:
                try:
                    return await _supervise(first, home, swept, console, speaker, crowds, look, manner)
                finally:
                    crowds.flush()


async def _supervise(
    first: Reading,
    home: Home,
    swept: Left | None,
    console: Console,
    events: Speaker,
    crowds: Crowds,
    look: Look,
    manner: Manner,
) -> Outcome:
    stack = first.stack
    told = Told(stack.name, partial(_emit, events))
    emit = told.emit
    if swept is not None:
        emit("swept", None, {"what": str(swept)})
    _tell_scarce(len(stack.entries), emit)
    control = Control(emit)
    async with keeping(home.logs, emit, stack) as logs:
        told.logs = logs
        _tell_unkept(emit, stack.entries if manner.stays else ())
        shown = Shown(forms(look.log_format, look.layout)[0], logs) if manner.shows_lines else Unseen()
        lost = partial(_lost, emit)
        with (
            closing(told),
            _null() as null,
            Output(console, shown, on_gone=control.nobody_reads, on_lost=lost, keeper=Keeping(logs)) as output,
        ):
            async with _runner(stack, home, null, output, emit) as runner, anyio.create_task_group() as tasks:
                _tell_unmet(stack, runner, emit)
                tree = _tree(stack, runner, told, manner)
                board = _board(stack, home, tree, runner, told, logs, control, manner)
                if manner.again is not None:
                    household = Household(tree, board, told.chronicle, logs, look.layout, runner)
                    read = partial(_read_again, runner, manner.again)
                    board.reloads = control.reloader = reloader = Reloader(tree, household, emit, first, read)
                    tasks.start_soon(reloader.run)
                    if manner.watch:
                        tasks.start_soon(_watch, reloader, first.files, emit)
                tasks.start_soon(output.run)
                tasks.start_soon(crowds.run)
                told.begin(tasks)
                await tasks.start(control.heed_signals)
                async with _socket(manner, stack.name, board, emit):
                    _promise(manner, tree, console, crowds, tasks)
                    summary = await tree.run()
                board.forget_passing()
                tasks.cancel_scope.cancel()
    _tell_kept(emit, tree)
    _tell_end(emit, summary, interrupted=control.asked > 0)
    decisive = None if manner.exit_code_from is None else _exit_status_of(tree, manner.exit_code_from)
    return Outcome(summary, killed=control.asked > 1, decisive=decisive)


def _runner(
    stack: Compiled, home: Home, null: int, output: Output, emit: Emit
) -> AbstractAsyncContextManager[KernelRunner]:
    """What runs its containers."""
    configs = [entry.config for entry in stack.entries]
    lowers = sorted({lower for config in configs for lower in config.lowers})
    make, complain = partial(_pipes, null), partial(_left_behind, emit)
    connect = partial(networks, home.path, stack.name, stack.networks, configs, emit)
    return kernel(home.path, lowers, make, output, complain, len(configs), connect, configs=configs, tell=emit)


def _tree(stack: Compiled, runner: KernelRunner, told: Told, manner: Manner) -> Stack:
    """Its services."""
    tree = told.stack = Stack(
        stack.entries,
        Timed(runner, told.metrics.launches.observe),
        told.emit,
        starts_max=manner.starts_max,
        chance=random.random,
        abort_on_exit=manner.abort_on_exit,
        decisive=manner.exit_code_from,
        stay=manner.stays,
    )
    tree.checked = told.metrics.checked
    return tree


def _board(
    stack: Compiled,
    home: Home,
    tree: Stack,
    runner: KernelRunner,
    told: Told,
    logs: LogWriter,
    control: "Control",
    manner: Manner,
) -> Board:
    """What others may ask of it."""
    control.stack = tree
    networked = bool(stack.networks)
    workshop = ApiWorkshop(
        home, manner.images, runner.attach, logs, runner.leave, runner.uppers.discard, networked=networked
    )
    return Board(stack.name, tree, told.chronicle, told.metrics, logs, workshop, control.request, runner)


def _promise(manner: Manner, tree: Stack, console: Console, crowds: Crowds, tasks: anyio.abc.TaskGroup) -> None:
    """See to it that whoever started us is told."""
    if manner.tell is None:
        return
    tell = partial(_afterwards, console, crowds, manner.tell)
    if manner.wait:
        tasks.start_soon(Arrival(tree, tell).run)
    else:
        tell(True)


def _tell_scarce(containers: int, emit: Emit) -> None:
    """Once, before each container beyond the limit fails by itself. Not refused: they may not all run at a time."""
    needed, limit = containers * spawn.DESCRIPTORS_EACH + spawn.DESCRIPTORS_SPARE, spawn.descriptor_limit()
    if needed > limit:
        emit("descriptors_scarce", None, {"containers": containers, "needed": needed, "limit": limit})


def _tell_unmet(stack: Compiled, runner: KernelRunner, emit: Emit) -> None:
    """The limits that do not hold, as the user would rather have it than an error; of replicas once."""
    limited = {entry.group: entry.config.limits for entry in stack.entries if entry.config.limits.best_effort}
    for group, limits in limited.items():
        for key, why in runner.unmet(limits).items():
            emit("not_enforced", group, {"key": path_of(key), "why": why})


async def _read_again(runner: KernelRunner, again: Again, scales: Mapping[str, Scale]) -> Reading:
    found: Reading = await runner.consult(again.module, (again.question, scales))
    return found


async def _watch(reloader: Reloader, files: tuple[str, ...], emit: Emit) -> None:
    """Reload when one of the spec's files has changed."""
    from supervisor.reload.watch import Watcher  # noqa: PLC0415 (most stacks are not watched)

    watcher = Watcher(
        partial(reloader.hint, "its files have changed"), lambda error: emit("watch_failed", None, {"error": error})
    )
    with closing(watcher):
        reloader.listeners.append(watcher.watch)
        watcher.watch(files)
        emit("watching", None, {"files": len(files)})
        await watcher.run()


def _socket(manner: Manner, name: str, board: Board, emit: Emit) -> AbstractAsyncContextManager[None]:
    if manner.run_directory is None:
        return nullcontext()
    complain = partial(_complain, emit)
    return serving(manner.run_directory / name / SOCKET, board, manner.images, complain, manner.socket_group)


def _complain(emit: Emit, what: str) -> None:
    emit("internal_error", None, {"error": what})


def _exit_status_of(stack: Stack, group: str) -> int:
    """Of one container; of several replicas the first that is not 0. One that never ran: 125, as it failed to."""
    statuses = [service.state.status for service in stack.services if service.entry.group == group]
    return next((code for status in statuses if (code := 125 if status is None else status.exit_status)), 0)


def _afterwards(console: Console, crowds: Crowds, tell: Callable[[bool], None], up: bool) -> None:
    """Not before what was said until now has been read: afterwards our output is nobody's."""
    crowds.flush()
    console.afterwards(partial(tell, up))


class Control:
    """What asks the stack to stop: signals, and an output that nobody reads any more. And what asks it to reload."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._terminal = _has_terminal()
        self._ignores_hangups = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self.asked = 0
        self.stack: Stack | None = None
        self.reloader: Reloader | None = None

    async def heed_signals(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """The first signal stops, the second kills; SIGHUP: see above."""
        with anyio.open_signal_receiver(*ASKING) as received:
            task_status.started()
            async for number in received:
                if number != signal.SIGHUP:
                    self.ask(number.name)
                elif self._terminal and not _has_terminal():
                    self._hang_up()
                else:
                    self._reload()

    def _hang_up(self) -> None:
        """Nobody reads the output then either: together they ask once."""
        if not self._ignores_hangups and not self.asked:
            self.ask("SIGHUP")

    def _reload(self) -> None:
        if self.reloader is None:
            self.ask("SIGHUP")
        else:
            self.reloader.hint("SIGHUP")

    def nobody_reads(self, error: ConsoleGoneError) -> None:
        """`pysup up | head`: a stack whose output is lost is stopped, not left running unseen."""
        if not self.asked:
            self.ask(str(error))

    def request(self) -> None:
        """Of an operator, or of two who don't know of each other: it stops, however often."""
        if not self.asked:
            self.ask("an operator's request")

    def ask(self, why: str) -> None:
        """The first time stops, the second kills."""
        self.asked += 1
        assert self.stack is not None
        if self.asked == 1:
            self._emit("interrupted", None, {"signal": why})
            self.stack.stop()
        else:
            self._emit("forced", None, {"signal": why})
            self.stack.kill()


def _has_terminal() -> bool:
    """Is there a terminal that controls us (tty(4))?"""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def _null() -> Iterator[int]:
    """The standard input of all containers."""
    descriptor = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Unseen:
    """The form of lines that are not shown."""

    def __call__(self, container: str, stream: Stream, piece: Piece) -> bytes:  # noqa: ARG002 (LineForm's signature)
        return b""


def _lost(emit: Emit, lines: int) -> None:
    emit("output_lost", None, {"lines": lines})


def _pipes(null: int, plan: Plan) -> Streams:
    if plan.terminal:
        return streams.terminal(plan.owner, plan.tty_gid)
    return streams.conversing(plan.owner, stdin=True) if plan.stdin else streams.pipes(null, plan.owner)


def _emit(events: Speaker, event: str, container: str | None, fields: Mapping[str, object]) -> None:
    events.emit(event, container=container, level=_LEVELS.get(event, "info"), **_readable(fields))


def _readable(fields: Mapping[str, object]) -> dict[str, object]:
    """Signals by name: people and programs alike look for SIGTERM, not for 15."""
    readable = dict(fields)
    if isinstance(number := readable.get("signal"), int):
        readable["signal"] = signal.Signals(number).name if number in _NAMED_SIGNALS else f"signal {number}"
    return readable


_NAMED_SIGNALS = frozenset(map(int, signal.Signals))


def _left_behind(emit: Emit, container: str, what: str) -> None:
    emit("left_behind", container, {"error": what})


def _tell_unkept(emit: Emit, entries: Iterable[Entry]) -> None:
    """In the background there is no standard output for objects to be read on."""
    for entry in entries:
        if entry.logs.driver is Driver.STDOUT_JSON:
            emit("log_unkept", entry.id, {})


def _tell_kept(emit: Emit, tree: Stack) -> None:
    for entry in (service.entry for service in tree.services):
        if entry.config.keep:
            emit("kept", entry.id, {"path": f"{entry.config.directory}/upper"})


def _tell_end(emit: Emit, summary: Summary, *, interrupted: bool) -> None:
    fields: dict[str, object] = {}
    if summary.failed:
        fields = {"names": _shortened([name for name, _ in summary.failed]), "failed": dict(summary.failed)}
    emit("stack_stopped" if interrupted else "stack_done", None, fields)


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
