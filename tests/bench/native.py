"""The two C programs: built when they changed, and run for one round."""

import json
import subprocess
from pathlib import Path

from tests.bench.measure import Sample
from tests.bench.subject import Place, lowered, write_programs

HERE = Path(__file__).parent
BUILD = HERE / ".build"


def build() -> None:
    """Compile floor.c and peers.c into .build/."""
    BUILD.mkdir(exist_ok=True)
    for name in ("floor", "peers"):
        program, sources = BUILD / name, (HERE / f"{name}.c", HERE / "pool.h")
        if program.exists() and program.stat().st_mtime > max(source.stat().st_mtime for source in sources):
            continue
        subprocess.run(["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-o", program, sources[0]], check=True)


def floor(mode: str, place: Place, runs: int, in_flight: int, workers: int) -> Sample:
    """One round of floor.c over the programs that the launchers would get; `mode` is "fork" or "vfork"."""
    return _sample(_run_floor(mode, place, runs, in_flight, workers)[0])


def profile(place: Place, runs: int) -> list[float]:
    """Microseconds of each call of the program, one run at a time."""
    spent: list[float] = json.loads(_run_floor("profile", place, runs, 1, 1)[1])
    return spent


def _run_floor(mode: str, place: Place, runs: int, in_flight: int, workers: int) -> list[bytes]:
    programs = place.state.parent / "programs"
    write_programs(programs, [lowered(place, number) for number in range(runs)])
    counts = [str(number) for number in (runs, in_flight, workers)]
    return _output([BUILD / "floor", mode, *counts, programs, place.state, place.image])


def peer(command: list[str], place: Place, merged: Path, runs: int, in_flight: int, workers: int) -> Sample:
    """One round of peers.c with a peer's command."""
    counts = [str(number) for number in (runs, in_flight, workers)]
    where = [place.state, place.image, merged, place.state.parent / "run"]
    return _sample(_output([BUILD / "peers", *counts, place.storage, *where, *command])[0])


def _output(command: list[str | Path]) -> list[bytes]:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()


def _sample(line: bytes) -> Sample:
    made = json.loads(line)
    execs = tuple(made.get("exec_us", ()))
    return Sample(made["runs"], made["wall_s"], made["cpu_s"], made["busy_s"], tuple(made["exit_us"]), execs)
