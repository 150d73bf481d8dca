"""The stack: containers of several kinds, whose output counts its own lines."""

import random
from collections.abc import Callable, Iterator
from typing import Any

Container = dict[str, Any]

COUNT = 'n=0; say() { echo "$n $*"; n=$((n+1)); }; '
QUICK = {"initial_s": 0.1, "max_s": 2}


def stack(count: int, dice: random.Random) -> dict[str, Any]:
    """A spec of about `count` containers."""
    return {
        "name": "soak",
        "defaults": {"image": "busybox", "restart": "always", "backoff": QUICK, "stop_grace_s": 2},
        "containers": list(_containers(count, dice)),
    }


def _containers(count: int, dice: random.Random) -> Iterator[Container]:
    number = 0
    while number < count:
        for container in dice.choices(KINDS, WEIGHTS)[0](f"c{number:03}", dice):
            container["cmd"] = ["sh", "-c", (COUNT + str(container["cmd"])).replace("$", "$$")]
            yield container
            number += 1


def steady(name: str, _dice: random.Random) -> list[Container]:
    """Writes a line now and then."""
    return [{"id": name, "cmd": "while :; do say steady; sleep 1; done"}]


def crashing(name: str, dice: random.Random) -> list[Container]:
    """Ends with a failure, again and again."""
    return [{"id": name, "cmd": f"say up; sleep {dice.uniform(0.1, 4):.1f}; say down; exit {dice.randrange(1, 200)}"}]


def flooding(name: str, dice: random.Random) -> list[Container]:
    """Writes thousands of lines at once."""
    lines = dice.randrange(1000, 5000)
    return [
        {
            "id": name,
            "cmd": f"while :; do i=0; while [ $i -lt {lines} ]; do say xxxxxxxxxxxx; i=$((i+1)); done; sleep 8; done",
        }
    ]


def deaf(name: str, _dice: random.Random) -> list[Container]:
    """Ignores the signal that asks it to stop."""
    return [{"id": name, "cmd": "trap '' TERM; while :; do say deaf; sleep 1; done"}]


def forking(name: str, _dice: random.Random) -> list[Container]:
    """Has grandchildren, and orphans that its init reaps."""
    work = "while :; do (sleep 0.3 & sleep 0.2) & say forked; sleep 1; done"
    return [{"id": name, "init": True, "cmd": work}]


def flapping(name: str, dice: random.Random) -> list[Container]:
    """Is healthy for some seconds, then not; looked at by a file or by a command."""
    probe: Container = dice.choice([{"file": "/tmp/ok"}, {"exec": ["test", "-e", "/tmp/ok"]}])
    well_s = dice.uniform(2, 15)
    health = {**probe, "interval_s": 0.5, "start_interval_s": 0.2, "retries": 2, "timeout_s": 2, "start_period_s": 5}
    work = f"touch /tmp/ok; say well; sleep {well_s:.1f}; rm /tmp/ok; say sick; while :; do sleep 1; done"
    return [{"id": name, "cmd": work, "health": health, "storage": "memory", "storage_size": "1m"}]


def serving(name: str, _dice: random.Random) -> list[Container]:
    """Listens in a network of its own, and is ready when it does; one that depends on it is restarted with it."""
    server = {
        "id": name,
        "network": "none",
        "cmd": "say up; while :; do nc -l -p 80 </dev/null >/dev/null; say served; done",
        "ready": {"tcp": 80, "timeout_s": 20},
        "health": {"tcp": 80, "interval_s": 2, "timeout_s": 2, "retries": 3},
    }
    needs = {name: {"condition": "ready", "restart": True}}
    return [server, {"id": f"{name}-user", "cmd": "while :; do say used; sleep 1; done", "depends_on": needs}]


def saying(name: str, dice: random.Random) -> list[Container]:
    """Says when it is ready; another waits until it is healthy."""
    late_s = dice.uniform(0, 1)
    work = f"sleep {late_s:.1f}; say ready to serve; while :; do sleep 5; say on; done"
    server = {"id": name, "cmd": work, "ready": {"log": "ready to serve", "timeout_s": 20}}
    waiter = {"id": f"{name}-waiter", "cmd": "say go; sleep 3; exit 0", "depends_on": {name: {"condition": "ready"}}}
    return [server, waiter]


Kind = Callable[[str, random.Random], list[Container]]
KINDS: list[Kind] = [steady, crashing, flooding, deaf, forking, flapping, serving, saying]
WEIGHTS = [6, 3, 1, 2, 2, 3, 2, 2]
