"""What logs on disk cost: bytes a second through a pipe, cut, stamped and written, or moved raw, against `cat`.

Ours go all the way that a stack in the background has: the reader of all pipes, the writer's buffer and its thread.
All read the same bytes from the same kind of pipe and write them to a file on the same disk. The rate is per second of
processor time of whoever reads and writes (the pipe's writer is not counted), so that it is a core's. What is read
counts, not what stamps add to it.
"""

import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import truediv
from pathlib import Path
from statistics import median

import anyio
from rich.console import Console

from supervisor.control.desk import Keeping
from supervisor.logs.policy import Driver, LogPolicy
from supervisor.logs.writer import LogWriter
from supervisor.streams.console import Console as BackConsole
from supervisor.streams.output import Output
from supervisor.up import Unseen
from tests.bench.report import Figure

STAMPED_MIN_MBS = 200
RAW_MIN_MBS = 1000
MEMORY_MAX_MIB = 40  # that a flood may add: the writer's buffer, what is stamped at once, and the pipes'

FLOOD_BYTES = 1 << 30
ROUNDS = 3
CROWD = 100
CROWD_BYTES = 8 << 20  # of each
LINE = b"x" * 99 + b"\n"
POLICY = LogPolicy(max_size_bytes=64 << 20, max_files=4)

# A process of its own writes, so that its time is not ours.
_SOURCE = "import os, sys\nblock = {line!r} * 655\nfor _ in range({blocks}): os.write(1, block)"


def of_logs(console: Console, work: Path) -> list[Figure]:
    """The figures of logs that have an aim."""
    console.log("logs: cat, stamped, raw")
    rates: dict[str, list[float]] = {"cat": [], "stamped": [], "raw": []}
    for _ in range(ROUNDS):
        rates["cat"].append(_cat(work / "log"))
        rates["stamped"].append(_through(work / "logs", Driver.FILE))
        rates["raw"].append(_through(work / "logs", Driver.RAW))
    cat, stamped, raw = map(median, rates.values())
    to_cat = {name: median(map(truediv, rates[name], rates["cat"])) for name in rates}  # of the same round
    console.log(f"logs: {CROWD} containers at full speed")
    lost, added_mib, rate = _crowd(work / "logs")
    return [
        Figure("logs, stamped", stamped, "MB/s", STAMPED_MIN_MBS, at_least=True, note="of processor time"),
        Figure("logs, raw", raw, "MB/s", RAW_MIN_MBS, at_least=True, note="the same"),
        Figure("cat to a file", cat, "MB/s", note="the same"),
        Figure("logs, stamped / cat", to_cat["stamped"]),
        Figure("logs, raw / cat", to_cat["raw"]),
        Figure(f"logs: lines lost with {CROWD} containers at full speed", lost, "", 0, note=f"{rate:.0f} MB/s"),
        Figure("logs: memory that they add", added_mib, "MiB", MEMORY_MAX_MIB),
    ]


@contextmanager
def _source(total_bytes: int, count: int = 1, *, keeps: bool = True) -> Iterator[list[int]]:
    """Pipes that processes fill with so many bytes each. `keeps`: whether the caller leaves it to us to close them."""
    block_bytes = len(LINE) * 655
    program = _SOURCE.format(line=LINE, blocks=total_bytes // block_bytes)
    pipes = [os.pipe() for _ in range(count)]
    children = list[subprocess.Popen[bytes]]()
    for _, sink in pipes:
        children.append(subprocess.Popen([sys.executable, "-ISc", program], stdout=sink))
        os.close(sink)
    try:
        yield [source for source, _ in pipes]
    finally:
        for child, (source, _) in zip(children, pipes, strict=True):
            if keeps:
                os.close(source)
            child.wait()


def _whole(total_bytes: int) -> int:
    return total_bytes // (len(LINE) * 655) * 655


def _cat(target: Path) -> float:
    with _source(FLOOD_BYTES) as (source,), target.open("wb") as file:
        cat = subprocess.Popen(["cat"], stdin=source, stdout=file)
        _, status, usage = os.wait4(cat.pid, 0)
        cat.returncode = os.waitstatus_to_exitcode(status)
    target.unlink()
    return _whole(FLOOD_BYTES) * len(LINE) / 1e6 / (usage.ru_utime + usage.ru_stime)


def _through(directory: Path, driver: Driver) -> float:
    policy = LogPolicy(driver, POLICY.max_size_bytes, POLICY.max_files)
    with _source(FLOOD_BYTES, keeps=False) as sources:
        before = resource.getrusage(resource.RUSAGE_SELF)
        anyio.run(_log, directory, policy, sources)
        after = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _whole(FLOOD_BYTES) * len(LINE) / 1e6 / spent_s


async def _log(directory: Path, policy: LogPolicy, sources: list[int]) -> list[int]:
    """Read all to their ends into logs, which are removed again; returns how many lines each has kept."""
    names = [f"c.{number}" for number in range(len(sources))]
    null = os.open(os.devnull, os.O_WRONLY)
    async with BackConsole(null) as console, LogWriter(directory, _ignore) as writer:
        for name in names:
            writer.open(name, policy)
        with Output(console, Unseen(), on_gone=_never, on_lost=_never, keeper=Keeping(writer)) as output:
            captures = [output.attach(name, source, None) for name, source in zip(names, sources, strict=True)]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(output.run)
                for capture in captures:
                    await capture.drain(math.inf)
                tasks.cancel_scope.cancel()
    os.close(null)
    kept = [_count(directory / name) for name in names]
    shutil.rmtree(directory)
    return kept


def _count(log: Path) -> int:
    lines = 0
    for path in log.rglob("*.log"):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                lines += block.count(b"\n")
    return lines


def _never(what: object) -> None:
    raise AssertionError(what)


def _ignore(event: str, *, container: str, level: str, **fields: object) -> None:
    pass


def _crowd(directory: Path) -> tuple[float, float, float]:
    """Lines lost, MiB of memory added, and MB/s by the clock, of many at full speed."""
    policy = LogPolicy(max_size_bytes=CROWD_BYTES, max_files=4)
    Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): the peak begins anew
    before_kib = _status_kib("VmRSS")
    begun = time.perf_counter()
    with _source(CROWD_BYTES, CROWD, keeps=False) as sources:
        kept = anyio.run(_log, directory, policy, sources)
    rate = CROWD * CROWD_BYTES / 1e6 / (time.perf_counter() - begun)
    return CROWD * _whole(CROWD_BYTES) - sum(kept), (_status_kib("VmHWM") - before_kib) / 1024, rate


def _status_kib(name: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0])
