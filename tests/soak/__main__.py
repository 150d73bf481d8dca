"""`python -m tests.soak [SECONDS] [CONTAINERS] [SEED]`: random faults over a stack, and every promise checked.

The same seed gives the same stack and the same faults in the same order; their moments depend on the machine.
"""

import heapq
import itertools
import json
import os
import random
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support")]

from rootfs import make_busybox  # noqa: E402 (once they can be found)

from tests.soak.faults import FAULTS, STALL, End, Fault  # noqa: E402 (once they can be found)
from tests.soak.population import stack  # noqa: E402 (once they can be found)
from tests.soak.watch import BrokenPromiseError, Watch  # noqa: E402 (once they can be found)

PAUSE_S = 0.4  # between two faults, on average
LOOK_S = 1.0
QUIET_S = 20.0  # every so often nothing is done for this long, and then memory and descriptors are compared
STORM_S = 60.0
UP_S = 120.0  # the longest until all has started once
END_S = 120.0
LAST_WORDS_S = 5.0


class Soak:
    """One run."""

    def __init__(self, process: subprocess.Popen[bytes], state: Path, dice: random.Random) -> None:
        self.process = process
        self.watch = Watch(process.pid, state)
        self.dice = dice
        self.done: Counter[str] = Counter()
        self._rest = b""
        self._ends: list[tuple[float, int, End]] = []
        self._order = itertools.count()
        self._stalled_until = 0.0

    def run(self, seconds: float, containers: int) -> None:
        """Faults and looks for `seconds`; then the end."""
        self._until(lambda: len(self.watch.lives) >= containers, UP_S)
        began = next_fault = next_look = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            quiet = (now - began) % (STORM_S + QUIET_S) > STORM_S
            if now >= next_fault and not quiet:
                self._begin(now)
                next_fault = now + self.dice.expovariate(1 / PAUSE_S)
            if now >= next_look:
                next_look = now + LOOK_S
                self._look(now - began)
            self._end_due(now)
            if not self._read(0.05):
                self.watch.broken("it has ended by itself: see its standard error")

    def _look(self, age_s: float) -> None:
        if self._ends or self._stalled_until:
            return  # a fault is under way: the figures would be its own
        self.watch.look()
        if age_s % (STORM_S + QUIET_S) > STORM_S + QUIET_S - 2 * LOOK_S:
            self.watch.check_flat()
            if age_s < 2 * (STORM_S + QUIET_S):
                self.watch.settle()
            memory, descriptors = self.watch.figures
            seen = f"{self.watch.lines} lines, {memory >> 20} MiB, {descriptors} descriptors"
            say(f"{age_s:6.0f} s: {seen}, {dict(self.done)}")

    def _begin(self, now: float) -> None:
        every = (*FAULTS, STALL)
        fault: Fault = self.dice.choices(every, [each.weight for each in every])[0]
        self.done[fault.name] += 1
        lasts_s = self.dice.uniform(*fault.lasts_s)
        if fault is STALL:
            self._stalled_until = now + lasts_s
        elif (end := fault.begin(self.watch, self.dice)) is not None:
            heapq.heappush(self._ends, (now + lasts_s, next(self._order), end))

    def _end_due(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            heapq.heappop(self._ends)[2]()
        if self._stalled_until <= now:
            self._stalled_until = 0.0

    def _read(self, limit_s: float) -> bool:
        """Take what pysup has written; False at its end."""
        if self._stalled_until:
            time.sleep(limit_s)
            return True
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], limit_s)[0]:
            return True
        chunk = os.read(self.process.stdout.fileno(), 1 << 20)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self.watch.take(line)
        return bool(chunk)

    def _until(self, done: Callable[[], bool], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not done():
            if time.monotonic() > deadline or not self._read(0.1):
                self.watch.broken(f"not all was up within {limit_s:.0f} s: {len(self.watch.lives)}")

    def end(self) -> None:
        """Stop it, as a user would; nothing may be left."""
        while self._ends:
            self._end_due(self._ends[0][0])
        self._stalled_until = 0.0
        self.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + END_S
        while self._read(0.1):
            if time.monotonic() > deadline:
                self.watch.broken(f"it did not end within {END_S:.0f} s")
        self.process.wait(10)
        if pids := self.watch.live_pids():
            self.watch.broken(f"runs whose end was not told: {pids[:5]}")
        if left := [path for path in self.watch.state.glob("stacks/*/*") if path.name != "logs"]:
            self.watch.broken(f"left behind: {left}")


def say(text: str) -> None:
    sys.stderr.write(f"soak: {text}\n")


def main(seconds: float, containers: int, seed: int) -> int:
    """0 if every promise was kept."""
    say(f"{containers} containers, {seconds:.0f} s, seed {seed}")
    dice = random.Random(seed)
    place = Path(tempfile.mkdtemp(prefix="pysup-soak."))
    make_busybox(place / "images/busybox")
    spec = stack(containers, dice)
    (place / "stack.yaml").write_text(json.dumps(spec))
    count = len(spec["containers"])
    argv = [sys.executable, "-m", "supervisor", "up", "--log-format", "json", "--state", str(place / "state")]
    with (
        open(place / "stderr", "wb") as errors,
        subprocess.Popen(
            [*argv, "stack.yaml"],
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process,
    ):
        soak = Soak(process, place / "state", dice)
        try:
            soak.run(seconds, count)
            soak.end()
        except BrokenPromiseError as error:
            with suppress(subprocess.TimeoutExpired):  # it may be about to say why
                process.communicate(timeout=LAST_WORDS_S)
            say(f"BROKEN with seed {seed}: {error}\n{(place / 'stderr').read_text()}")
            return 1
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
    said = (place / "stderr").read_text()
    if said:
        say(f"BROKEN with seed {seed}: standard error: {said}")
        return 1
    shutil.rmtree(place)
    runs = sum(life.runs for life in soak.watch.lives.values())
    say(f"all promises kept: {soak.watch.lines} lines, {runs} runs, {dict(soak.done)}")
    return 0


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]] + [1800.0, 300.0, float(secrets.randbelow(1 << 32))][
        len(sys.argv) - 1 :
    ]
    sys.exit(main(given[0], int(given[1]), int(given[2])))
