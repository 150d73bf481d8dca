"""`make bench`: what a container costs, against the floor and against the peers, and whether the aims are met.

Every contender runs in every round, one after the other, so that a noisy neighbour is everybody's; figures are medians
over the rounds, and the ratios are what to look at. Needs root; installs the Debian packages that it compares with.

    python -m tests.bench [--quick] [--json FILE] [--only PART] [--dir DIRECTORY]

The parts are launches, guard, figures, networks, operator, logs and profile.

The disk is a fresh ext4 in a sparse file, mounted in a mount namespace of the benchmark's own, so that its figures
depend on neither the age nor the options of the host's file system. (An ext4 without a journal, as some virtual
machines have, gets slower with every inode deleted in the last minutes: fs/ext4/ialloc.c, recently_deleted.)

`profile` shows where a launch's time goes instead: microseconds of each step, page faults of launcher and child.
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

from runtime import linux
from tests.bench import contenders, figures, guard, logs, native, networks, operating, peers, profile, report
from tests.bench.measure import Result, Sample, result
from tests.bench.stack import Missing
from tests.bench.subject import Place, make_image

PACKAGES = {**peers.PACKAGES, "busybox": "busybox-static", "cc": "gcc", "mkfs.ext4": "e2fsprogs"}
DISK_BYTES = 8 << 30  # sparse
SHARES = {"runc": 0.25, contenders.UP: 4}  # of the runs: not to take all of a round, or to have enough to measure


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
PARTS = ("launches", "guard", "figures", "networks", "operator", "profile")


def install() -> None:
    """The peers, busybox and a compiler, where they lack and the host is a Debian."""
    lacking = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if lacking and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *lacking], check=False)
    if needed := [program for program in ("busybox", "cc", "mkfs.ext4") if not shutil.which(program)]:
        sys.exit(f"bench: not found: {', '.join(needed)}")


def leave_mounts() -> None:
    """A mount namespace of our own: what is mounted here is never seen outside, and goes when we go."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)


@contextmanager
def workshop(parent: Path) -> Iterator[Path]:
    """A directory on a new ext4 for everything that is made, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pysup-bench-", dir=parent) as made:
        disk, work = Path(made, "disk"), Path(made, "work")
        work.mkdir()
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
        subprocess.run(["mount", "-o", "loop", disk, work], check=True)
        try:
            make_image(work / "images/bench", Path(shutil.which("busybox") or "busybox"))
            for name in ("state", "stacks", "merged", "run"):
                (work / name).mkdir(mode=0o700)
            yield work
        finally:
            linux.umount2(str(work), linux.MNT_DETACH)


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
                samples.setdefault(name, []).append(contender(place, int(runs * SHARES.get(name, 1)), in_flight))
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
    parser.add_argument(
        "--only",
        choices=("launches", "guard", "figures", "networks", "operator", "logs", "profile"),
        help="a part of it",
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="where the disk's file is made (/var/tmp)")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print, and write."""
    options = parse(sys.argv[1:])
    if os.geteuid():
        sys.exit("bench: needs root")
    leave_mounts()
    install()
    native.build()
    scale, console = QUICK if options.quick else WHOLE, Console()
    with workshop(options.dir) as work:
        if options.only == "profile":
            profile.show(console, work, scale.crowd)
            return
        rounds = compare(console, work, scale) if options.only in (None, "launches") else {}
        guarded = guard.compare(console, work, scale.rounds, scale.crowd) if options.only in (None, "guard") else {}
        for compared in (rounds, guarded):
            report.print_rounds(console, compared)
        made = [*figures.of_rounds(rounds), *guard.figures(guarded)]
        if options.only in (None, "figures"):
            made += figures.of_stacks(console, work, scale.idle)
        if options.only in (None, "networks"):
            made += networks.figures(scale.runs)
        if options.only in (None, "operator"):
            made += operating.of_operator(console, work, quick=options.quick)
        if options.only in (None, "logs"):
            made += logs.of_logs(console, work)
    report.print_figures(console, made)
    for note in peers.NOTES:
        console.print(f"* {note}", style="dim")
    if options.json:
        write_json(options.json, rounds, made)


if __name__ == "__main__":
    main()
