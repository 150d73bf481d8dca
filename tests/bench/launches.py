"""Launches through pysup's launchers, driven by a loop that does nothing else: what `runtime` alone can do.

One thread, no event loop library: it keeps a number of runs in flight, spread over the launchers, waits on one epoll
for replies and for SIGCHLD, reaps, and asks for the removal of each run's directory. A run ends when that is done.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from runtime import spawn
from tests.bench.measure import Sample, machine_busy_s, own_cpu_s
from tests.bench.subject import Lowered, Place, lowered

SLEEP = ("busybox", "sleep", "1000000")
IDLE_FROM = 1_000_000  # the numbers of idle containers


class Launchers:
    """A set of launchers and the runs that are in flight through them."""

    def __init__(self, place: Place, count: int) -> None:
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._place = place
        self._epoll = select.epoll()
        self.launchers = [spawn.Launcher.spawn(str(place.state)) for _ in range(count)]
        self._signals, wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = wakeup
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._epoll.register(self._signals, select.EPOLLIN)
        for launcher in self.launchers:
            self._epoll.register(launcher, select.EPOLLIN)
            for path in (place.state, place.image):
                launcher.attach(0, str(path))
                self.only_reply(launcher)

    def close(self) -> None:
        """Let the launchers end, and reap them."""
        signal.set_wakeup_fd(-1)
        for launcher in self.launchers:
            launcher.close()
        for launcher in self.launchers:
            os.waitpid(launcher.pid, 0)
        self._epoll.close()
        for descriptor in (self._null, self._signals, self._wakeup):
            os.close(descriptor)

    def only_reply(self, launcher: spawn.Launcher) -> spawn.Reply:
        while True:
            select.select([launcher], [], [])
            for reply in launcher.receive():
                return reply

    # --- one at a time ----------------------------------------------------------------------------------------------

    def start(self, number: int, made: Lowered, launcher: spawn.Launcher) -> None:
        """Ask for one run; the reply comes when it has executed its command."""
        places = () if made.plan.cgroup is None else made.plan.cgroup.descriptors
        launcher.start(number, made.plan, made.image, (self._null, self._null, 2, *places))

    def one(self, made: Lowered) -> tuple[float, float]:
        """Run one container alone; returns the seconds to execve and to its reap."""
        begun = time.perf_counter()
        pid = self.begin(made)
        executed = time.perf_counter()
        reaped(pid, os.waitpid(pid, 0)[1])
        ended = time.perf_counter()
        self.remove(made, self.launchers[0])
        return executed - begun, ended - begun

    def begin(self, made: Lowered) -> int:
        """Start one container and wait until it executes its command; returns its pid."""
        self.start(0, made, self.launchers[0])
        reply = self.only_reply(self.launchers[0])
        check(made, reply)
        return reply.pid

    def remove(self, made: Lowered, launcher: spawn.Launcher) -> None:
        """Remove its directory, and wait for that."""
        if made.leaves_something:
            launcher.remove(0, made.plan.directory, made.plan.cgroup)
            removed(self.only_reply(launcher))

    # --- many -------------------------------------------------------------------------------------------------------

    def many(self, count: int, in_flight: int, make: Callable[[int], Lowered]) -> list[float]:
        """Run `count` containers, `in_flight` at a time; returns the seconds from request to reap of each."""
        flights = _Flights(self, count, in_flight, make)
        while flights.left:
            flights.fill()
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._signals:
                    os.read(self._signals, 4096)
                    flights.reap()
                else:
                    flights.replies(descriptor)
        return flights.took


class _Flights:
    """The bookkeeping of `many`."""

    def __init__(self, launchers: Launchers, count: int, in_flight: int, make: Callable[[int], Lowered]) -> None:
        self.left = count
        self.took = [0.0] * count
        self._launchers = launchers
        self._by_descriptor = {launcher.fileno(): launcher for launcher in launchers.launchers}
        self._waiting = iter(range(count))
        self._room = in_flight
        self._make = make
        self._made: dict[int, Lowered] = {}
        self._pids: dict[int, int] = {}
        self._ended: dict[int, int] = {}  # reaped before the launcher's reply told whose process it was
        self._removing: set[int] = set()
        self._pending = dict.fromkeys(self._by_descriptor, 0)

    def _idlest(self) -> int:
        return min(self._pending, key=self._pending.__getitem__)

    def fill(self) -> None:
        """Start runs while there is room for them, and for requests in a launcher's socket."""
        while self._room and self._pending[descriptor := self._idlest()] < spawn.REQUESTS_MAX:
            number = next(self._waiting, None)
            if number is None:
                return
            self.took[number] = -time.perf_counter()
            self._made[number] = made = self._make(number)
            self._launchers.start(number, made, self._by_descriptor[descriptor])
            self._pending[descriptor] += 1
            self._room -= 1

    def replies(self, descriptor: int) -> None:
        for reply in self._by_descriptor[descriptor].receive():
            self._pending[descriptor] -= 1
            if reply.number in self._removing:
                removed(reply)
                self._removing.discard(reply.number)
                self._done()
                continue
            check(self._made[reply.number], reply)
            if reply.pid in self._ended:
                self._end(reply.number, reply.pid, self._ended.pop(reply.pid))
            else:
                self._pids[reply.pid] = reply.number

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._pids.pop(pid, None)
            if number is None:
                self._ended[pid] = status
            else:
                self._end(number, pid, status)

    def _end(self, number: int, pid: int, status: int) -> None:
        self.took[number] += time.perf_counter()
        made = self._made.pop(number)
        reaped(pid, status)
        if not made.leaves_something:
            self._done()
            return
        descriptor = self._idlest()
        self._by_descriptor[descriptor].remove(number, made.plan.directory, made.plan.cgroup)
        self._removing.add(number)
        self._pending[descriptor] += 1

    def _done(self) -> None:
        self.left -= 1
        self._room += 1


def check(made: Lowered, reply: spawn.Reply) -> None:
    """Raise if a step failed."""
    if reply.error:
        raise spawn.launch_error(made.plan, reply.call, reply.error)


def removed(reply: spawn.Reply) -> None:
    """Raise if a directory could not be removed."""
    if reply.error:
        raise OSError(reply.error, os.strerror(reply.error))


def reaped(pid: int, status: int) -> None:
    """A run of the benchmark that fails spoils every figure."""
    if status:
        raise RuntimeError(f"process {pid} ended with wait status {status:#x}")


@contextmanager
def launchers(place: Place, count: int) -> Iterator[Launchers]:
    """Launchers for the length of a block."""
    made = Launchers(place, count)
    try:
        yield made
    finally:
        made.close()


def launcher_cpu_s(pid: int) -> float:
    """Processor time of a launcher so far: the first number of /proc/PID/schedstat, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def sample(through: Launchers, count: int, in_flight: int, make: Callable[[int], Lowered]) -> Sample:
    """One round: `count` runs, `in_flight` at a time."""
    pids = [launcher.pid for launcher in through.launchers]
    cpu, busy = own_cpu_s() + sum(map(launcher_cpu_s, pids)), machine_busy_s()
    begun = time.perf_counter()
    if in_flight == 1:
        took = [through.one(make(number)) for number in range(count)]
    else:
        took = [(0.0, seconds) for seconds in through.many(count, in_flight, make)]
    wall = time.perf_counter() - begun
    cpu, busy = own_cpu_s() + sum(map(launcher_cpu_s, pids)) - cpu, machine_busy_s() - busy
    exec_us = tuple(executed * 1e6 for executed, _ in took) if in_flight == 1 else ()
    return Sample(count, wall, cpu, busy, tuple(exited * 1e6 for _, exited in took), exec_us)


class Idle:
    """Containers that sleep until the end of a block, for others to be started among."""

    def __init__(self, through: Launchers, place: Place) -> None:
        self._through = through
        self._place = place
        self._pids: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)

    def grow(self, size: int) -> None:
        """Start sleepers until there are `size`."""
        for number in range(len(self._pids), size):
            made = lowered(self._place, IDLE_FROM + number, SLEEP)
            self._pids.append(self._through.begin(made))
