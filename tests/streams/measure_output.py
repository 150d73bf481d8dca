"""Figures of the output path, by hand: `python tests/streams/measure_output.py`. Needs no root."""

import gc
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel

from supervisor.reporting.events import Events, TextEvents, json_events
from supervisor.streams.console import Console
from supervisor.streams.lines import JsonLines, LineForm, TextLines, layout_for
from supervisor.streams.output import Capture, Output

FLOOD_BYTES = 512 * 1024 * 1024
IDLE = 1_000
EVENTS = 20_000
LAYOUT = layout_for(["web.1"], colour=True)
TEXT = TextLines(LAYOUT, time.time)
STAMPED = TextLines(replace(LAYOUT, timestamps=True), time.time)


def ignore(_news: object) -> None:
    pass


def write_all(fd: int, block: bytes, blocks: int) -> None:
    for _ in range(blocks):
        os.write(fd, block)
    os.close(fd)


async def flood(form: LineForm, total_bytes: int) -> None:
    block = (b"x" * 79 + b"\n") * 4096
    null = os.open("/dev/null", os.O_WRONLY)
    started, cpu = time.perf_counter(), time.process_time()
    async with Console(null) as console:
        with Output(console, form, on_gone=ignore, on_lost=ignore) as output:
            (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe()
            os.close(write_err)
            blocks = total_bytes // len(block)
            threading.Thread(target=write_all, args=(write_out, block, blocks), daemon=True).start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run)
                await output.attach("web.1", read_out, read_err).drain(limit_s=60)
                tasks.cancel_scope.cancel()
    os.close(null)
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    mb = blocks * len(block) / 1e6
    print(f"{type(form).__name__}: {mb / elapsed:.0f} MB/s, {mb / cpu:.0f} MB per second of processor")


async def idle() -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    async with Console(null) as console:
        with Output(console, TEXT, on_gone=ignore, on_lost=ignore) as output:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run)
                await anyio.lowlevel.checkpoint()
                pipes = [(os.pipe(), os.pipe()) for _ in range(IDLE)]
                gc.collect()
                tracemalloc.start()
                captures: list[Capture] = [
                    output.attach(f"web.{n}", out[0], err[0]) for n, (out, err) in enumerate(pipes)
                ]
                for out, err in pipes:
                    os.write(out[1], b"hello\n")
                    os.write(err[1], b"hello\n")
                for _ in range(IDLE):
                    await anyio.lowlevel.checkpoint()
                gc.collect()
                print(f"idle: {tracemalloc.get_traced_memory()[0] / len(captures):.0f} bytes per container")
                tracemalloc.stop()
                tasks.cancel_scope.cancel()
    for out, err in pipes:
        os.close(out[1])
        os.close(err[1])
    os.close(null)


def events(name: str, build: Callable[[Callable[[bytes], None]], Events]) -> None:
    ours = build(ignore)
    started = time.perf_counter()
    for n in range(EVENTS):
        ours.emit("exited", container="web.1", level="warning", exit_status=1, pid=n)
    print(f"{name} event: {(time.perf_counter() - started) / EVENTS * 1e6:.1f} us")


if __name__ == "__main__":
    print(Path("/proc/cpuinfo").read_text().count("processor\t"), "processors")
    for backend in ("asyncio", "trio"):
        print(backend)
        anyio.run(flood, TEXT, FLOOD_BYTES, backend=backend)
        anyio.run(flood, STAMPED, FLOOD_BYTES, backend=backend)
        anyio.run(flood, JsonLines(time.time), FLOOD_BYTES // 8, backend=backend)
        anyio.run(idle, backend=backend)
    events("text", lambda write: Events(write, TextEvents(LAYOUT)))
    events("json", lambda write: Events(write, json_events))
