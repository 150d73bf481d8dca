"""What the protections cost: a launch without any, with each, with all that are on by default; and crun with the same.

Unguarded is: every capability, nothing masked, no filter, no cgroup. The namespaces and mounts are the same in all.
"""

import os
import shutil
from functools import partial
from pathlib import Path

from rich.console import Console

from runtime.cgroup.branch import Branch
from runtime.cgroup.hierarchies import discover
from supervisor.processes import launchers as pool
from tests.bench import launches, native, peers
from tests.bench.contenders import CORES, WORKERS, Contender
from tests.bench.measure import Sample, result
from tests.bench.report import Figure, Rounds
from tests.bench.subject import Guard, Place, lowered

UNGUARDED, GUARDED = "unguarded", "guarded"
COST_MAX = 1.2
IN_FLIGHT = (1, 2 * CORES)


def compare(console: Console, work: Path, rounds: int, runs: int) -> Rounds:
    """All of them in turn, with the upper layer in memory: of the fastest launch, the cost is the largest share."""
    place = Place(work / "images/bench", work / "state", "memory")
    compared: Rounds = {}
    with Branch(discover(), f"bench-{os.getpid()}") as branch:
        everyone = {**_ours(branch), **_crun(work, work / "merged")}
        for in_flight in IN_FLIGHT:
            console.log(f"protections, {in_flight} in flight")
            samples: dict[str, list[Sample]] = {name: [] for name in everyone}
            for _ in range(rounds):
                for name, contender in everyone.items():
                    samples[name].append(contender(place, runs, in_flight))
            compared["memory", in_flight] = {name: result(made) for name, made in samples.items()}
    return compared


def figures(compared: Rounds) -> list[Figure]:
    """How many times longer a guarded launch takes: ours, and crun's."""
    made = []
    for (_, in_flight), results in compared.items():
        for who, limit in (("launchers", COST_MAX), ("crun", None)):
            pair = [results.get(f"{who}, {kind}") for kind in (GUARDED, UNGUARDED)]
            if pair[0] and pair[1]:
                cost = pair[0].exit_ms / pair[1].exit_ms if in_flight == 1 else pair[1].rate / pair[0].rate
                made.append(Figure(f"{who}: {GUARDED} / {UNGUARDED}, {in_flight} in flight", cost, limit=limit))
    return made


def _ours(branch: Branch) -> dict[str, Contender]:
    guards = {
        UNGUARDED: Guard(masks=False),
        "masks, capabilities": Guard(),
        "seccomp": Guard(masks=False, seccomp=True),
        "cgroup": Guard(masks=False, branch=branch),
        GUARDED: Guard(seccomp=True, branch=branch),
    }
    return {f"launchers, {name}": partial(_launch, guard) for name, guard in guards.items()}


def _launch(guard: Guard, place: Place, runs: int, in_flight: int) -> Sample:
    made = [lowered(place, number, guard=guard) for number in range(runs)]
    with launches.launchers(place, pool.LAUNCHERS) as through:
        return launches.sample(through, runs, in_flight, made.__getitem__)


def _crun(work: Path, merged: Path) -> dict[str, Contender]:
    crun = shutil.which("crun")
    if crun is None:
        return {}
    kinds = {UNGUARDED: (peers.unguarded, "disabled"), GUARDED: (peers.guarded, "cgroupfs")}
    made: dict[str, Contender] = {}
    for name, (configure, manager) in kinds.items():
        bundle = peers.make_bundle(work / f"bundle-{name}", merged, configure)
        command = [crun, "--root", str(work / "run"), "--log", "/dev/null", f"--cgroup-manager={manager}"]
        made[f"crun, {name}"] = partial(_peer, [*command, "run", "--bundle", str(bundle), "@"], merged)
    return made


def _peer(command: list[str], merged: Path, place: Place, runs: int, in_flight: int) -> Sample:
    return native.peer(command, place, merged, runs, in_flight, WORKERS)
