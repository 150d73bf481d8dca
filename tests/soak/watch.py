"""What must hold all the time: seen in the events, and in what the kernel knows of the supervisor."""

import json
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEPT = 30  # events of a container, shown when something is wrong
ZOMBIE_MAX_S = 10.0
DOWN_MAX_S = 120.0  # a container that is always restarted may be down this long: backoff, a dependency, a stall
SLACK_BYTES = 6 << 20
GROWTH = 1.15


class BrokenPromiseError(AssertionError):
    """An invariant did not hold."""


@dataclass
class Life:
    """What was seen of one container."""

    pid: int | None = None
    line: int = -1  # the number of the last one of this run
    runs: int = 0
    since: float = field(default_factory=time.monotonic)  # it started, or ended
    final: bool = False
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))


class Watch:
    """Reads every line that pysup writes, and holds it to its word."""

    def __init__(self, pid: int, state: Path) -> None:
        self.pid = pid
        self.lives: dict[str, Life] = {}
        self.lines = 0
        self.counts: dict[str, int] = {}
        self.state = state
        self._zombies: dict[int, float] = {}
        self._mounts = _mounts()
        self._base: tuple[int, int] | None = None
        self.figures: tuple[int, int] = (0, 0)

    def live_pids(self) -> list[int]:
        """Of containers, as far as was told."""
        return [life.pid for life in self.lives.values() if life.pid is not None]

    # --- events ------------------------------------------------------------------------------------------------------

    def take(self, line: bytes) -> None:
        """One line of pysup's own output."""
        event = json.loads(line)
        name = event.get("container")
        self.counts[event["event"]] = self.counts.get(event["event"], 0) + 1
        if name is None:
            return
        life = self.lives.setdefault(name, Life())
        life.recent.append(line.decode(errors="replace").rstrip())
        if event["event"] == "output":
            self._output(name, life, event)
        else:
            self._event(name, life, event)

    def _output(self, name: str, life: Life, event: Mapping[str, Any]) -> None:
        self.lines += 1
        if event["stream"] != "stdout":
            return
        number = int(event["line"].split()[0])
        if number == 0:
            life.line = 0
            return
        if number != life.line + 1:
            self.broken(f"line {number} came after line {life.line}", name)
        life.line = number

    def _event(self, name: str, life: Life, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "started":
                if life.pid is not None:
                    self.broken(f"a second run, beside pid {life.pid}", name)
                life.pid, life.since, life.final = event["pid"], time.monotonic(), False
                life.runs += 1
            case "exited":
                if life.pid is None:
                    self.broken("the end of a run that never started", name)
                life.pid, life.since = None, time.monotonic()
            case "gave_up" | "dependency_failed" | "stuck" | "left_behind" | "output_lost":
                self.broken(f"{event}", name)

    # --- the kernel's side -------------------------------------------------------------------------------------------

    def look(self) -> None:
        """At the supervisor and what is around it, now."""
        now = time.monotonic()
        if _mounts() != self._mounts:
            self.broken("the host's mounts have changed")
        self._look_for_zombies(now)
        left = {path.name for path in (self.state / "stacks/soak/runs").glob("*")}
        if extra := left - set(self.lives):
            self.broken(f"directories of nobody: {sorted(extra)[:5]}")
        for name, life in self.lives.items():
            if life.pid is None and not life.final and now - life.since > DOWN_MAX_S:
                self.broken(f"down for more than {DOWN_MAX_S:.0f} s", name)
        self.figures = _resident_bytes(self.pid), len(os.listdir(f"/proc/{self.pid}/fd"))

    def _look_for_zombies(self, now: float) -> None:
        zombies = {pid for pid in _children(self.pid) if _state_of(pid) == "Z"}
        self._zombies = {pid: self._zombies.get(pid, now) for pid in zombies}
        for pid, since in self._zombies.items():
            if now - since > ZOMBIE_MAX_S:
                self.broken(f"child {pid} has not been reaped for {ZOMBIE_MAX_S:.0f} s")

    def settle(self) -> None:
        """From here on memory and descriptors must stay flat."""
        self._base = self.figures

    def check_flat(self) -> None:
        """Are they? Called where no fault is under way."""
        if self._base is None:
            return
        memory, descriptors = self.figures
        if memory > self._base[0] * GROWTH + SLACK_BYTES:
            self.broken(f"memory grew from {self._base[0] >> 10} to {memory >> 10} KiB")
        if descriptors > self._base[1] * GROWTH + 64:
            self.broken(f"descriptors grew from {self._base[1]} to {descriptors}")

    def broken(self, what: str, name: str | None = None) -> None:
        """Say what was promised and did not hold, with what was last seen."""
        recent = "" if name is None else "\n  " + "\n  ".join(self.lives[name].recent)
        raise BrokenPromiseError(f"{name + ': ' if name else ''}{what}{recent}")


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
