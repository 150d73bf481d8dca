"""What a container's network costs at its first start: what the kernel takes for a namespace, and what we add to it.

A process of its own, in a network namespace of its own, takes turns: a namespace made by the bare system call, and a
container connected as a stack connects it (a namespace, a pair of interfaces in a bridge, addresses of both kinds,
routes, a name), through the thread that it is done in. Later starts of the same container take neither.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import anyio

from runtime.config import Attachment, ContainerConfig, Network
from runtime.network import namespace
from runtime.users import User
from supervisor.entry import StackNetwork
from supervisor.network.stack import networks
from tests.bench.report import Figure

ADDED_MAX_MS = 1.5
ROOT = Path(__file__).parents[2]
USER = User(0, 0, (0,), "root", "/root")


def figures(runs: int) -> list[Figure]:
    """Medians, measured apart."""
    command = ["unshare", "--net", sys.executable, "-m", "tests.bench.networks", str(runs)]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    (bare, connected, again), (bare_cpu, connected_cpu, _) = json.loads(told)
    return [
        Figure("network namespace, by the bare system call", bare, "ms"),
        Figure("container connected to a network, beyond that", connected - bare, "ms", ADDED_MAX_MS),
        Figure("the same in processor time, whatever else runs", connected_cpu - bare_cpu, "ms", ADDED_MAX_MS),
        Figure("container connected to a network at a restart", again, "ms"),
    ]


async def _measure(runs: int) -> list[list[float]]:
    """Medians of what takes how long, by the clock and in processor time of all our threads."""
    home, marks = namespace.opened(), []
    spare: list[int] = []  # closed afterwards: the kernel's clean-up, beside us, has the lock that all networks share
    with tempfile.TemporaryDirectory() as state:
        where = Path(state) / "stacks" / "bench"
        where.mkdir(parents=True)
        configs = [_config(f"c{number}", where) for number in range(runs)]
        wanted = [StackNetwork("default", ipv6=True)]
        async with networks(where, "bench", wanted, configs, lambda *_: None) as made:
            for config in configs:
                marks.append([_now()])
                spare.append(namespace.make(home))
                marks[-1].append(_now())
                await made.prepare(config)
                marks[-1].append(_now())
                await made.prepare(config)
                marks[-1].append(_now())
    for descriptor in (*spare, home):
        os.close(descriptor)
    return [
        [median(each[part + 1][clock] - each[part][clock] for each in marks) * 1e3 for part in range(3)]
        for clock in range(2)
    ]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _config(name: str, where: Path) -> ContainerConfig:
    return ContainerConfig(
        id=name,
        lowers=("/",),
        directory=f"{where}/runs/{name}",
        argv=("true",),
        user=USER,
        hostname=name,
        network=Network.BRIDGE,
        attachments=(Attachment("default"),),
    )


if __name__ == "__main__":
    print(json.dumps(anyio.run(_measure, int(sys.argv[1]))))
