"""What systemd is told of a stack: sd_notify(3), the other way round than kernel/notify.py, which listens.

Nothing here waits. Whatever could not be sent is owed, and goes with the next word: a later value takes the place of
an earlier one. That systemd can't be told is said once and disturbs nothing.

* READY=1 when all is up, or when something has failed for good: else systemd would end, for want of that word, what
  runs well beside it. STATUS= tells which of the two it is.
* STATUS= counts the containers, at most once in STATUS_EVERY_S, however many change; while none does, nothing wakes.
* STOPPING=1 comes with EXTEND_TIMEOUT_USEC=, the longest that this stop may take: the unit may be older than the
  grace periods of the stack.
* WATCHDOG=1 is sent twice as often as asked for, if it is: the one periodic wake-up that pysup has.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Self

import anyio

from supervisor.core.moves import STUCK_S
from supervisor.core.states import Phase
from supervisor.entry import Entry
from supervisor.stack.tree import Emit

STATUS_EVERY_S = 1.0
SETTLED = frozenset({"stack_up", "gave_up", "dependency_failed"})  # after these there is nothing to wait for
ENDING = frozenset({"interrupted", "aborting", "stack_done", "stack_stopped"})

RELOADED = frozenset(
    {"reloaded", "reload_refused", "reload_paused", "reload_interrupted", "rolled_back"}
)  # a reload is over, one way or another

# In the order in which one reads them.
_WORDS: Mapping[str, frozenset[Phase]] = {
    "running": frozenset({Phase.RUNNING}),
    "starting": frozenset({Phase.CREATED, Phase.WAITING, Phase.STARTING, Phase.ACTIVATING}),
    "restarting": frozenset({Phase.BACKOFF}),
    "stopping": frozenset({Phase.STOPPING, Phase.KILLING}),
    "done": frozenset({Phase.EXITED}),
    "failed": frozenset({Phase.FAILED}),
    "stuck": frozenset({Phase.STUCK}),
}


def counts(phases: Iterable[Phase]) -> str:
    """A stack in words: `12 running, 1 failed`."""
    number = Counter(phases)
    sums = {word: sum(number[phase] for phase in group) for word, group in _WORDS.items()}
    return ", ".join(f"{count} {word}" for word, count in sums.items() if count) or "no containers"


def stop_s(entries: Iterable[Entry]) -> float:
    """The longest that a stop may take: dependents end before what they depend on, and the slowest of a group counts.

    Whoever outlives its grace period is killed, and STUCK_S later nobody waits for it any more.
    """
    takes_s: dict[str, float] = {}
    needs: dict[str, Iterable[str]] = {}
    for entry in entries:
        takes_s[entry.group] = max(takes_s.get(entry.group, 0.0), entry.policy.stop_grace_s + STUCK_S)
        needs[entry.group] = entry.depends_on
    ways_s: dict[str, float] = {}  # from each group down to where nothing is needed any more
    for group in TopologicalSorter(needs).static_order():  # there are no cycles: the spec was checked
        below_s = max((ways_s[need] for need in needs.get(group, ())), default=0.0)
        ways_s[group] = takes_s[group] + below_s if group in takes_s else 0.0
    return max(ways_s.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class Address:
    """Where systemd listens, and how often it wants to hear that we live."""

    path: str  # of a socket; `@`: an abstract one
    watchdog_s: float | None = None

    @classmethod
    def of(cls, env: Mapping[str, str], pid: int) -> Self | None:
        """As a service's environment has it (sd_notify(3), sd_watchdog_enabled(3)). None: nobody listens."""
        path = env.get("NOTIFY_SOCKET", "")
        if not path.startswith(("/", "@")) or len(path) == 1:
            return None
        usec = env.get("WATCHDOG_USEC", "")
        ours = env.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(path, int(usec) / 1e6 if ours and usec.isascii() and usec.isdigit() and int(usec) else None)


class Mouth:
    """The socket to systemd. OSError only from `send`."""

    def __init__(self, path: str) -> None:
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def send(self, message: bytes) -> None:
        """BlockingIOError where it does not listen fast enough."""
        self._socket.sendto(message, self._address)

    def close(self) -> None:
        self._socket.close()


class Notifier:
    """Hears all that is told of a stack, and tells systemd what of it matters to it. An `Emit`.

    `status` gives the line for STATUS=, `stop_takes_s` how long a stop may take; `run` and `watch` are its tasks.
    """

    def __init__(
        self,
        emit: Emit,
        send: Callable[[bytes], None],
        status: Callable[[], str],
        stop_takes_s: Callable[[], float],
    ) -> None:
        self._emit = emit
        self._send = send
        self._status = status
        self._stop_takes_s = stop_takes_s
        self._owed: dict[str, str] = {}
        self._told: str | None = None  # the last status
        self._complained = False
        self._ready = self._stopping = self._reloading = False
        self._changed = anyio.Event()

    def __call__(self, event: str, container: str | None, fields: Mapping[str, object]) -> None:
        """An event of the stack."""
        self._emit(event, container, fields)
        self._changed.set()
        if event in SETTLED:
            self.ready()
        elif event == "reloading":
            self.reloading()
        elif event in RELOADED:
            self.reloaded()
        elif event in ENDING:
            self.stopping()

    def ready(self) -> None:
        """The stack is up. A stack that was started in the background tells who it is: systemd knows its parent."""
        if not self._ready and not self._stopping:
            self._ready = True
            self._tell(READY="1", MAINPID=str(os.getpid()), STATUS=self._new_status())

    def stopping(self) -> None:
        """The stack is being stopped, for whatever reason."""
        if not self._stopping:
            self._stopping = True
            self._tell(STOPPING="1", EXTEND_TIMEOUT_USEC=_usec(self._stop_takes_s()), STATUS=self._new_status())

    def reloading(self) -> None:
        """The spec is being read again; systemd waits for `reloaded`. Before it is told that all is up, that is what
        it waits for.
        """
        if not self._ready or self._stopping:
            return
        self._reloading = True
        self._forget("READY")
        self._tell(RELOADING="1", MONOTONIC_USEC=_usec(time.clock_gettime(time.CLOCK_MONOTONIC)))

    def reloaded(self) -> None:
        """The reload is over, or was refused."""
        if not self._reloading:
            return
        self._reloading = False
        self._forget("RELOADING", "MONOTONIC_USEC")
        self._tell(READY="1", STATUS=self._new_status())

    async def run(self) -> None:
        """Keep STATUS= true, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            before = self._told
            if (now := self._new_status()) != before:
                self._tell(STATUS=now)
            await anyio.sleep(STATUS_EVERY_S)

    async def watch(self, watchdog_s: float) -> None:
        """Say that we live, until cancelled."""
        while True:
            self._tell(WATCHDOG="1")
            await anyio.sleep(watchdog_s / 2)

    def _new_status(self) -> str:
        self._told = self._status()
        return self._told

    def _forget(self, *names: str) -> None:
        """What is not true any more is not owed either."""
        for name in names:
            self._owed.pop(name, None)

    def _tell(self, **words: str) -> None:
        self._owed |= words
        try:
            self._send("".join(f"{name}={value}\n" for name, value in self._owed.items()).encode())
        except OSError as error:
            self._complain(error)
        else:
            self._owed.clear()

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._emit("systemd_deaf", None, {"error": f"systemd can't be told how we are: {error.strerror}"})


def _usec(time_s: float) -> str:
    return str(int(time_s * 1e6))
