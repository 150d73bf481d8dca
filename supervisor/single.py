"""One container in the foreground: `pysup run`. No restart, no prefix: its streams are ours, or its terminal is.

Its exit status is the command's, 128+n for signal n. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on; after SIGTERM
or SIGHUP it has its grace period, and any second signal kills it. Signals are received from before its start: none
finds us with a container and without a handler, or with the terminal in raw mode.
"""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from runtime import streams
from runtime.config import ContainerConfig
from runtime.plan import Plan
from runtime.status import Status
from runtime.streams import Streams
from supervisor.core.checks import Notice
from supervisor.core.policy import Policy
from supervisor.kernel import Complain, KernelRun, KernelRunner, MakeStreams, kernel
from supervisor.streams import terminal
from supervisor.streams.console import Console

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGTERM, signal.SIGHUP)
AGAIN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # the second of these kills
HINT_S = 1.0  # after which we say so
LAST_WORD_S = 2.0  # the longest to wait for the terminal's end of file after the container's end

Signals = AsyncIterator[signal.Signals]


@dataclass(frozen=True, slots=True)
class Single:
    """What is to run, and how."""

    config: ContainerConfig
    state: Path
    stop_grace_s: float
    complain: Complain


async def run_single(single: Single) -> Status:
    """Run the container to its end. LaunchError if it could not be started."""
    with anyio.open_signal_receiver(*FORWARDED) as signals:
        return await (_in_terminal if single.config.terminal else _in_foreground)(single, signals)


async def _in_foreground(single: Single, signals: Signals) -> Status:
    async with (
        _kernel(single, lambda _: streams.inherited()) as runner,
        _started(runner, single.config) as run,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_forward_signals, single, run, signals)
        status = await run.ended()
        tasks.cancel_scope.cancel()
    return status


async def _in_terminal(single: Single, signals: Signals) -> Status:
    masters: list[int] = []

    def make(plan: Plan) -> Streams:
        made = streams.terminal(plan.owner, plan.tty_gid)
        assert made.terminal is not None
        terminal.copy_size(0, made.terminal)
        masters.append(made.terminal)
        return made

    async with (
        _kernel(single, make) as runner,
        Console(1) as console,
        _started(runner, single.config) as run,
    ):
        master = masters[-1]
        try:
            with terminal.raw_mode() as saved:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_forward_signals, single, run, signals)
                    tasks.start_soon(terminal.follow_size, master)
                    tasks.start_soon(terminal.suspend_on_request, saved)
                    tasks.start_soon(terminal.relay_input, master)
                    last_word = anyio.Event()
                    tasks.start_soon(_relay_output, master, console, last_word)
                    status = await run.ended()
                    with anyio.move_on_after(LAST_WORD_S):
                        await last_word.wait()
                    tasks.cancel_scope.cancel()
                await console.aclose()
        finally:
            os.close(master)
    return status


def _kernel(single: Single, make: MakeStreams) -> AbstractAsyncContextManager[KernelRunner]:
    return kernel(single.state, [*single.config.lowers], make, None, single.complain, 1)


@asynccontextmanager
async def _started(runner: KernelRunner, config: ContainerConfig) -> AsyncIterator[KernelRun]:
    """The run; should we fail while it lives, nothing of it is left either."""
    run = await runner.start(config, Policy(), _unheard)
    try:
        yield run
    except BaseException:
        run.signal(signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await run.ended()
        raise


def _unheard(notice: Notice) -> None:
    """What a container in the foreground says by sd_notify(3) changes nothing."""


async def _relay_output(master: int, console: Console, done: anyio.Event) -> None:
    await terminal.relay_output(master, console)
    done.set()


async def _forward_signals(single: Single, run: KernelRun, signals: Signals) -> None:
    """Pass signals on; bring an end about where one was asked for."""
    asked = False
    async with anyio.create_task_group() as tasks:
        async for number in signals:
            if number in AGAIN and asked:
                run.signal(signal.SIGKILL)
            run.signal(number)
            if number in ENDING:
                tasks.start_soon(_kill_after, run, single.stop_grace_s)
            if number in AGAIN and not asked and not single.config.terminal:
                tasks.start_soon(_hint_after, single, number)
            asked = asked or number in AGAIN


async def _kill_after(run: KernelRun, grace_s: float) -> None:
    await anyio.sleep(grace_s)
    run.signal(signal.SIGKILL)


async def _hint_after(single: Single, number: signal.Signals) -> None:
    """Process 1 ignores what it has no handler for (pid_namespaces(7)): who does not know that waits in vain."""
    await anyio.sleep(HINT_S)
    single.complain(single.config.id, f"still there after {number.name}; once more kills")
