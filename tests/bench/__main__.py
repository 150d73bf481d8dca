"""`make bench`: what a container costs, against the floor and against the peers, and whether the aims are met.

Every contender runs in every round, one after the other, so that a noisy neighbour is everybody's; figures are medians over the
rounds, and the ratios are what to look at. Needs root, and installs the Debian packages it compares with, where they lack.

    python -m bench [--quick] [--json FILE] [--only launches|figures|profile] [--dir DIRECTORY]

`profile` shows where a launch's time goes instead: the microseconds of each step, and the page faults of launcher and child.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from bench import contenders, figures, native, peers, profile, report
from bench.measure import Result, Sample, result
from bench.stack import Missing
from bench.subject import Place, make_image

PACKAGES = {**peers.PACKAGES, "busybox": "busybox-static", "cc": "gcc"}
SLOW = {"runc": 4}  # a fourth of the runs, so that a round is not all its


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    runs: int  # a round, with one in flight
    crowd: int  # a round, with more
    idle: tuple[int, ...]  # sizes of idle stacks


QUICK = Scale(rounds=2, runs=30, crowd=96, idle=(100, 1000))
WHOLE = Scale(rounds=7, runs=100, crowd=320, idle=(100, 1000, 2000))
IN_FLIGHT = (1, 8, 64)
STORAGES = ("disk", "memory")


def install() -> None:
    """The peers, busybox and a compiler, where they lack and the host is a Debian."""
    lacking = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if lacking and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *lacking], check=False)
    if not (shutil.which("cc") and shutil.which("busybox")):
        sys.exit("bench: needs a C compiler and a static busybox")


@contextmanager
def workshop(parent: Path) -> Iterator[Path]:
    """A directory for everything that is made, removed at the end."""
    work = Path(tempfile.mkdtemp(prefix="pysup-bench-", dir=parent))
    try:
        make_image(work / "images/bench", Path(shutil.which("busybox") or "busybox"))
        for name in ("state", "stacks", "merged", "run"):
            (work / name).mkdir(mode=0o700)
        yield work
    finally:
        shutil.rmtree(work)


def compare(console: Console, work: Path, scale: Scale) -> report.Rounds:
    """All contenders, storages and numbers in flight."""
    everyone = contenders.contenders(work, work / "merged")
    compared = {}
    for storage in STORAGES:
        place = Place(work / "images/bench", work / "state", storage)
        for in_flight in IN_FLIGHT:
            console.log(f"{storage}, {in_flight} in flight")
            compared[storage, in_flight] = _rounds(console, everyone, place, in_flight, scale)
    return compared


def _rounds(
    console: Console, everyone: dict[str, contenders.Contender], place: Place, in_flight: int, scale: Scale
) -> dict[str, Result]:
    samples: dict[str, list[Sample]] = {}
    runs = scale.runs if in_flight == 1 else scale.crowd
    taking_part = {name: one for name, one in everyone.items() if name != contenders.UP or in_flight == max(IN_FLIGHT)}
    for _ in range(scale.rounds):
        for name, contender in list(taking_part.items()):
            try:
                samples.setdefault(name, []).append(contender(place, runs // SLOW.get(name, 1), in_flight))
            except Missing as reason:
                console.log(f"{name} is missing: {reason}")
                del taking_part[name]
    return {name: result(rounds) for name, rounds in samples.items() if rounds}


def write_json(path: Path, rounds: report.Rounds, made: list[report.Figure]) -> None:
    """Everything that was printed, for a machine."""
    launches = [
        {"storage": storage, "in_flight": in_flight, "contender": name, **asdict(one)}
        for (storage, in_flight), results in rounds.items()
        for name, one in results.items()
    ]
    about = {"kernel": platform.release(), "cores": contenders.CORES, "python": platform.python_version()}
    document = {"machine": about, "launches": launches, "figures": [figure.row() for figure in made]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="What a container costs, against the floor and the peers."
    )
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--only", choices=("launches", "figures", "profile"), help="a part of it")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on the disk to be measured (/var/tmp)")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, and write."""
    options = parse(sys.argv[1:])
    if os.geteuid():
        sys.exit("bench: needs root")
    install()
    native.build()
    scale, console = QUICK if options.quick else WHOLE, Console()
    with workshop(options.dir) as work:
        if options.only == "profile":
            profile.show(console, work, scale.crowd)
            return
        rounds = compare(console, work, scale) if options.only != "figures" else {}
        report.print_rounds(console, rounds)
        made = figures.of_rounds(rounds)
        if options.only != "launches":
            made += figures.of_stacks(console, work, scale.idle)
    report.print_figures(console, made)
    for note in peers.NOTES:
        console.print(f"* {note}", style="dim")
    if options.json:
        write_json(options.json, rounds, made)


if __name__ == "__main__":
    main()
