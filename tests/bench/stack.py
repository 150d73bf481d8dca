"""`pysup up` from outside: what a whole stack costs, idle or busy, and how soon what died is back.

The command is started as a user would, on a spec made for the purpose; everything is read from /proc. A container is a
child of the supervisor that runs busybox; every other child is a launcher. What can't be had is `Missing`, with why.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.launches import SLEEP
from tests.bench.measure import Sample, machine_busy_s, own_cpu_s
from tests.bench.subject import TRUE, Place

ROOT = Path(__file__).parents[2]
WAIT_S = 120.0


class Missing(Exception):  # noqa: N818 (a figure is missing; nothing is wrong with the benchmark)
    """Why a figure could not be had."""


def command(place: Place, spec: Path) -> list[str]:
    """`pysup up` on this spec."""
    where = ["--images", str(place.image.parent), "--state", str(place.state.parent / "stacks")]
    return [sys.executable, "-m", "supervisor", "up", *where, str(spec)]


def write_spec(place: Place, replicas: int, argv: tuple[str, ...], **more: object) -> Path:
    """A stack of one entry, so many times (JSON is YAML)."""
    entry = {"id": "c", "image": place.image.name, "cmd": list(argv), "replicas": replicas, "storage": place.storage}
    spec = place.state.parent / "bench.yaml"
    spec.write_text(
        json.dumps({"name": "bench", "containers": [{**entry, "restart": "no", "stop_signal": "SIGKILL", **more}]})
    )
    return spec


# --- one-shots ------------------------------------------------------------------------------------------------------


def one_shots(place: Place, runs: int, in_flight: int = 0) -> Sample:
    """`pysup up` on so many one-shots, less what it takes on one alone; the supervisor limits those in flight."""
    del in_flight
    alone, all_of_them = _up(place, 1), _up(place, runs)
    wall, cpu, busy = (total - one for total, one in zip(all_of_them, alone, strict=True))
    return Sample(runs - 1, wall, cpu, busy, (wall / (runs - 1) * 1e6,))


def _up(place: Place, runs: int) -> tuple[float, float, float]:
    spec = write_spec(place, runs, TRUE)
    cpu, busy, begun = own_cpu_s(), machine_busy_s(), time.perf_counter()
    ended = subprocess.run(command(place, spec), cwd=ROOT, capture_output=True, timeout=WAIT_S, check=False)
    wall = time.perf_counter() - begun
    if ended.returncode:
        raise Missing(_last_line(ended.stderr) or f"pysup up ended with {ended.returncode}")
    return wall, own_cpu_s() - cpu, machine_busy_s() - busy


def _last_line(text: bytes) -> str:
    return text.decode(errors="replace").strip().rpartition("\n")[2]


# --- idle stacks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that is up."""

    pid: int

    def children(self) -> dict[int, str]:
        """Children by pid, with what they execute (proc_pid_task(5))."""
        found = {}
        for listing in Path(f"/proc/{self.pid}/task").glob("*/children"):
            for pid in listing.read_text().split():
                found[int(pid)] = _read(f"/proc/{pid}/comm").strip()
        return found

    def containers(self) -> set[int]:
        return {pid for pid, name in self.children().items() if name == TRUE[0]}

    def own(self) -> list[int]:
        """The supervisor and its launchers."""
        return [self.pid, *(pid for pid, name in self.children().items() if name != TRUE[0])]

    def memory_kib(self) -> int:
        """What all of pysup's own processes hold, shared pages in proportion (PSS; proc_pid_smaps(5))."""
        return sum(_number(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in self.own())

    def wakeups(self) -> int:
        """How often any thread of them was scheduled away so far: while idle, once a wake-up."""
        tasks = [task for pid in self.own() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(_number(f"{task}/status", "voluntary_ctxt_switches:") for task in tasks)


@contextmanager
def running(place: Place, replicas: int, **more: object) -> Iterator[Running]:
    """A stack of sleepers, all of them up, for the length of a block."""
    spec = write_spec(place, replicas, SLEEP, **more)
    log = place.state.parent / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command(place, spec), cwd=ROOT, stdout=output, stderr=output)
    up = Running(process.pid)
    try:
        _wait(lambda: len(up.containers()) == replicas, process, log)
        yield up
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        if process.poll() is not None:
            raise Missing(_last_line(log.read_bytes()) or f"pysup up ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise Missing(f"pysup up had not started everything after {WAIT_S:.0f} s")
        time.sleep(0.02)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:  # it ended meanwhile
        return ""


def _number(path: str, name: str) -> int:
    return next((int(line.split()[1]) for line in _read(path).splitlines() if line.startswith(name)), 0)


def restarts_ms(place: Place, count: int) -> list[float]:
    """SIGKILL to the next run's execve, in milliseconds, of a container that restarts without backoff."""
    took = []
    with running(place, 1, restart="always", backoff={"initial_s": 0}) as up:
        for _ in range(count):
            (pid,) = up.containers()
            begun = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            while not up.containers() - {pid}:
                if time.perf_counter() - begun > WAIT_S:
                    raise Missing("a killed container did not come back")
                time.sleep(100e-6)
            took.append((time.perf_counter() - begun) * 1e3)
    return took


# --- the command itself ---------------------------------------------------------------------------------------------


def version_ms(count: int) -> tuple[float, float]:
    """Milliseconds of `pysup --version` and of the bare interpreter, interleaved medians."""
    script = Path(sys.executable).parent / "pysup"
    version = [str(script)] if script.exists() else [sys.executable, "-m", "supervisor"]
    bare = [sys.executable, "-I", "-S", "-c", "pass"]
    pairs = [(_timed([*version, "--version"]), _timed(bare)) for _ in range(count)]
    ours, theirs = zip(*pairs, strict=True)
    return median(ours) * 1e3, median(theirs) * 1e3


def _timed(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun
