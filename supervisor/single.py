"""One container in the foreground: `pysup run`. No restart, no prefix: its streams are ours, or its terminal is.

Its exit status is the command's, 128+n for signal n. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on; after SIGTERM
or SIGHUP it has its grace period, and any second signal kills it.
"""

import os
import signal
from pathlib import Path

import anyio
import anyio.abc

from runtime import streams
from runtime.config import ContainerConfig
from runtime.plan import Plan
from runtime.status import Status
from runtime.streams import Streams
from supervisor import terminal
from supervisor.console import Console
from supervisor.kernel import Complain, KernelRun, kernel

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGTERM, signal.SIGHUP)
LAST_WORD_S = 2.0  # the longest to wait for the terminal's end of file after the container's end
AGAIN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # the second of these kills


async def run_single(config: ContainerConfig, state: Path, stop_grace_s: float, complain: Complain) -> Status:
    """Run the container to its end. LaunchError if it could not be started."""
    return await (_in_terminal if config.terminal else _in_foreground)(config, state, stop_grace_s, complain)


async def _in_foreground(config: ContainerConfig, state: Path, stop_grace_s: float, complain: Complain) -> Status:
    async with (
        kernel(state, [*config.lowers], lambda _: streams.inherited(), None, complain, 1) as runner,
        anyio.create_task_group() as tasks,
    ):
        run = await runner.start(config)
        await tasks.start(_forward_signals, run, stop_grace_s)
        status = await run.ended()
        tasks.cancel_scope.cancel()
    return status


async def _in_terminal(config: ContainerConfig, state: Path, stop_grace_s: float, complain: Complain) -> Status:
    masters: list[int] = []

    def make(plan: Plan) -> Streams:
        made = streams.terminal(plan.owner)
        assert made.terminal is not None
        terminal.copy_size(0, made.terminal)
        masters.append(made.terminal)
        return made

    async with kernel(state, [*config.lowers], make, None, complain, 1) as runner, Console(1) as console:
        run = await runner.start(config)
        master = masters[-1]
        try:
            with terminal.raw_mode() as saved:
                async with anyio.create_task_group() as tasks:
                    await tasks.start(_forward_signals, run, stop_grace_s)
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


async def _relay_output(master: int, console: Console, done: anyio.Event) -> None:
    await terminal.relay_output(master, console)
    done.set()


async def _forward_signals(
    run: KernelRun, stop_grace_s: float, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Pass signals on; bring an end about where one was asked for."""
    asked = False
    with anyio.open_signal_receiver(*FORWARDED) as received:
        task_status.started()
        async with anyio.create_task_group() as tasks:
            async for number in received:
                if number in AGAIN and asked:
                    run.signal(signal.SIGKILL)
                asked = asked or number in AGAIN
                run.signal(number)
                if number in ENDING:
                    tasks.start_soon(_kill_after, run, stop_grace_s)


async def _kill_after(run: KernelRun, grace_s: float) -> None:
    await anyio.sleep(grace_s)
    run.signal(signal.SIGKILL)
