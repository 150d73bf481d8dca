"""A supervisor killed at random moments, again and again: `python crashes.py IMAGES KILLS SEED PLACE`.

It is process 1 of a pid namespace, so what outlives a supervisor is its child, and /proc shows all there is. Everything
is loaded and compiled once; each supervisor is a fork of that, so a start takes as long as its system calls do. A story
is one to five kills (so a sweep is killed, too), perhaps damage to what is on disk, and then a start that must come
up, tell what it swept, and leave nothing at its end: no process, mount, cgroup, directory or socket.
"""

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from runtime.cgroup.branch import Branch
from runtime.cgroup.hierarchies import discover
from supervisor import spec
from supervisor import up as supervise
from supervisor.api import server, shelf  # noqa: F401 (loaded before the first fork, as is all else)
from supervisor.compile.compiler import Images, compile_stack
from supervisor.compile.workshop import ApiWorkshop  # noqa: F401 (the same)
from supervisor.entry import Compiled, Reading
from supervisor.reporting.events import LogFormat
from supervisor.state import cgroups
from supervisor.state import home as state
from supervisor.streams.lines import layout_for

LIMIT_S = 60
UP = "all 5 containers are up"
MOMENT_MAX_S = 0.25  # a supervisor is killed within the time that a whole life takes here and now, or this
LATE = 0.3  # of the last ones of a story are killed at any moment of a life, where that is longer

SLEEP = {"cmd": ["sleep", "1000"], "stop_signal": "SIGKILL"}
STACK = {
    "defaults": {"image": "busybox", "restart": "always", "backoff": {"initial_s": 0}},
    "containers": [
        {"id": "sleep", "replicas": 2, **SLEEP},
        {"id": "crash", "cmd": ["sh", "-c", "mkdir -p /a/b; echo x > /a/b/c; exit 1"]},
        {"id": "init", "init": True, "user": "1000", "storage": "memory", **SLEEP},
        {
            "id": "checked",
            "depends_on": ["init"],
            "ready": {"exec": ["true"]},
            "health": {"exec": ["true"], "interval_s": 0.02, "start_interval_s": 0.02},
            **SLEEP,
        },
    ],
}


@dataclass(frozen=True)
class World:
    """Where it happens."""

    place: Path
    stack: Compiled
    names: frozenset[str]  # of mounts, before anything began

    @property
    def home(self) -> state.Home:
        return state.Home.of_stack(self.place / "state", name_of(self.place))

    @property
    def run(self) -> Path:
        return self.place / "run"

    def supervisor(self, output: int) -> int:
        """Fork one; its pid."""
        if pid := os.fork():
            return pid
        try:
            layout = layout_for(
                [entry.id for entry in self.stack.entries], {}, colour=False, timestamps=False, prefixes=True
            )
            manner = supervise.Manner(8, shows_lines=False, stays=True, console=output, run_directory=self.run)
            look = supervise.Look(LogFormat.TEXT, layout)
            os._exit(anyio.run(supervise.up, Reading(self.stack), self.home, look, manner).exit_status)
        except BaseException as error:  # noqa: BLE001 (said here, as it can't be in the parent)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(99)

    def killed(self, after_s: float) -> None:
        """One that is killed at a moment."""
        pid = self.supervisor(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        time.sleep(after_s)  # the subject here: there is no event that a random moment waits for
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def whole(self) -> str:
        """One that comes up, and is stopped: what it said."""
        shown, output = os.pipe2(os.O_CLOEXEC)
        pid = self.supervisor(output)
        os.close(output)
        text, end = "", time.monotonic() + LIMIT_S
        while UP not in text:
            assert select.select([shown], [], [], max(0, end - time.monotonic()))[0], f"it does not come up: {text}"
            chunk = os.read(shown, 1 << 16)
            assert chunk, f"it did not come up: {text}"
            text += chunk.decode()
        os.kill(pid, signal.SIGTERM)
        with open(shown, encoding="utf-8") as file:
            text += file.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text
        return text

    def check(self) -> None:
        """Nothing is left."""
        reap()
        processes = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
        assert not processes, [Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in processes]
        assert mounts() == self.names
        left = [
            path
            for path in (*self.place.rglob("*"),)
            if path not in {self.place / "state", self.place / "state/stacks"}
        ]
        assert not left, left
        assert not [each for each in branches(self.home) if os.path.exists(each)]


def name_of(place: Path) -> str:
    """Of a stack, and no other place's: cgroups that others have, or an earlier run that was killed, are none of it."""
    return f"tiny{place.stat().st_ino:x}"


def reap() -> None:
    """What was others' child, and has ended."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            assert time.monotonic() < end, "something outlives its supervisor"
            select.select([], [], [], 0.001)


def mounts() -> frozenset[str]:
    return frozenset(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines())


def branches(home: state.Home) -> Iterable[str]:
    """The directories that any home of this name could have had."""
    for directory in Branch(discover(), f"{home.path.name}-").directories():
        yield from map(str, Path(directory).parent.glob(f"{home.path.name}-*-*"))


def damages(world: World) -> list[Callable[[random.Random], None]]:
    """What a crash of the whole machine may make of the files."""
    lock, note = world.home.path / "lock", world.home.path / cgroups.NOTE

    def truncated(path: Path, chance: random.Random) -> None:
        if path.exists():
            os.truncate(path, chance.randrange(path.stat().st_size + 1))

    def garbage(path: Path, chance: random.Random) -> None:
        if path.exists():
            path.write_bytes(chance.randbytes(chance.randrange(1, 200)))

    def gone(path: Path, _chance: random.Random) -> None:
        path.unlink(missing_ok=True)

    def rebooted(_chance: random.Random) -> None:
        """/run is empty, and all else is as it was."""
        shutil.rmtree(world.run, ignore_errors=True)

    def nothing(_chance: random.Random) -> None: ...

    files = [partial(damage, path) for path in (lock, note) for damage in (truncated, garbage, gone)]
    return [*files, rebooted, *([nothing] * 4)]


def main() -> None:
    images, kills, seed, place = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    file = place / "stack.json"
    file.write_text(json.dumps({"name": name_of(place), **STACK}))
    compiled = compile_stack(spec.load([file], None), Images((images,)), place / "state")
    file.unlink()
    world = World(place, compiled, mounts())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    chance = random.Random(seed)
    done = told = 0
    begun = time.monotonic()
    world.whole()
    life_s = time.monotonic() - begun
    while done < kills:
        moments = [MOMENT_MAX_S] * chance.randrange(1, 6)
        if chance.random() < LATE:
            moments[-1] = life_s
        for moment_s in moments:
            world.killed(chance.uniform(0, min(moment_s, life_s)))
            done += 1
        chance.choice(damages(world))(chance)
        left = state.left(world.home) if world.home.path.exists() else None
        text = world.whole()
        if left is not None and (left.runs or left.cgroups):
            assert "swept what an earlier run left: " in text, (left, text)
            told += 1
        world.check()
    print(f"{done} kills, {told} sweeps told")


if __name__ == "__main__":
    main()
