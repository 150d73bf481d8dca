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
    bare, connected, again = json.loads(told)
    return [
        Figure("network namespace, by the bare system call", bare, "ms"),
        Figure("container connected to a network, beyond that", connected - bare, "ms", ADDED_MAX_MS),
        Figure("the same at a restart", again, "ms"),
    ]


async def _measure(runs: int) -> tuple[float, float, float]:
    home, bare, connected, again = namespace.opened(), [], [], []
    with tempfile.TemporaryDirectory() as state:
        where = Path(state) / "stacks" / "bench"
        where.mkdir(parents=True)
        configs = [_config(f"c{number}", where) for number in range(runs)]
        wanted = [StackNetwork("default", ipv6=True)]
        async with networks(where, "bench", wanted, configs, lambda *_: None) as made:
            for config in configs:
                begun = time.perf_counter()
                os.close(namespace.make(home))
                between = time.perf_counter()
                await made.prepare(config)
                done = time.perf_counter()
                await made.prepare(config)
                bare.append(between - begun)
                connected.append(done - between)
                again.append(time.perf_counter() - done)
    os.close(home)
    return tuple(median(each) * 1e3 for each in (bare, connected, again))  # type: ignore[return-value]  # three


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
