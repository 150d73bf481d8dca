"""Figures of a running stack, as Prometheus reads them.

What happens is counted as it is told (`Metrics` is an `Emit`), in plain numbers; what is, is looked at when someone
asks. prometheus-client, which writes the format, takes 3 MiB: it is loaded with the first scrape, so a stack that
nobody measures carries none of it. Nothing is global, its registry least of all.

Sums have labels with few values: phases, exit statuses, signals. A container has two series of its own, and no more,
whatever their number: whether it is up, and how often it was restarted.

Loop lag is looked at when someone asks, too: a thread or a timer that looks all the time would wake an idle stack.
A scrape of 2,000 containers keeps the loop for some 20 ms.
"""

import resource
import signal
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from runtime.config import ContainerConfig
from supervisor import __version__
from supervisor.commands import Page
from supervisor.core.checks import Verdict
from supervisor.core.policy import Policy
from supervisor.core.states import HealthStatus, Phase, State
from supervisor.stack.runner import Heard, Run, Runner
from supervisor.stack.tree import Emit

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from prometheus_client.registry import CollectorRegistry

LAUNCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

# Events that are counted as they come.
_COUNTED = frozenset({"started", "start_failed", "restarting", "unhealthy", "stuck", "killing"})

Collect = Callable[[], Iterator["Metric"]]
Values = Iterable[tuple[tuple[str, ...], float]]  # the labels' values, in their order, and the figure


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look for what is."""

    states: Callable[[], Iterable[tuple[str, State]]]  # of all containers, by id
    log_bytes: Callable[[], int] = int  # written to logs since the start
    log_lines_dropped: Callable[[], int] = int  # meant for logs, but lost


class Histogram:
    """How often a time was in which range. `counts` has one more entry than `bounds_s`: what is above all of them."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, took_s: float) -> None:
        self.counts[bisect_left(self.bounds_s, took_s)] += 1
        self.sum_s += took_s

    def cumulated(self) -> list[tuple[str, float]]:
        """As Prometheus wants it: how many took as long as this at most."""
        total, found = 0, []
        for bound, count in zip([*map(repr, self.bounds_s), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Metrics:
    """Counts what is told of a stack, and hands it on. An `Emit`."""

    def __init__(self, stack: str, emit: Emit, sources: Sources) -> None:
        self._stack = stack
        self._emit = emit
        self._sources = sources
        self._registry: CollectorRegistry | None = None
        self._lag_s = 0.0
        self.events: Counter[str] = Counter()
        self.exits: Counter[tuple[str, str]] = Counter()  # (cause, status or signal)
        self.checks: Counter[str] = Counter()
        self.console_lines_dropped = 0
        self.launches = Histogram(LAUNCH_BUCKETS_S)

    def __call__(self, event: str, container: str | None, fields: Mapping[str, object]) -> None:
        """An event of the stack."""
        self._emit(event, container, fields)
        if event in _COUNTED:
            self.events[event] += 1
        elif event == "exited":
            self.exits[cause_of(fields)] += 1
        elif event == "output_lost" and isinstance(lines := fields.get("lines"), int):
            self.console_lines_dropped += lines

    def checked(self, verdict: Verdict) -> None:
        """A ready or health check has been tried."""
        self.checks["passed" if verdict.passed else "failed"] += 1

    async def scrape(self) -> Page:
        """All figures, now."""
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest  # noqa: PLC0415 (3 MiB)

        self._lag_s = await lag_s()
        if self._registry is None:
            self._registry = _registry(self._collect)
        return Page(CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry))

    def _collect(self) -> Iterator["Metric"]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 (loaded with the first scrape)

        info = GaugeMetricFamily("pysup_info", "What runs here; always 1.", labels=["stack", "version"])
        info.add_metric([self._stack, __version__], 1)
        yield info
        yield from self._counted()
        yield from _standing(list(self._sources.states()))
        yield from self._logged()
        yield from self._process()

    def _counted(self) -> Iterator["Metric"]:
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 (loaded with the first scrape)

        events = self.events
        yield _counter("pysup_starts", "Runs that came to execute their command.", events["started"])
        yield _counter("pysup_start_failures", "Starts of which no run came.", events["start_failed"])
        yield _counter("pysup_restarts", "Restarts, for whatever reason.", events["restarting"])
        yield _counter("pysup_kills", "Runs that had to be killed, or were to be.", events["killing"])
        yield _counter("pysup_stuck", "Killed runs that the kernel did not let go of.", events["stuck"])
        yield _counters("pysup_exits", "Runs that ended, by cause.", ("cause", "status"), self.exits.items())
        yield _counter("pysup_unhealthy", "Times that a container became unhealthy.", events["unhealthy"])
        checks = [((result,), self.checks[result]) for result in ("passed", "failed")]
        yield _counters("pysup_checks", "Ready and health checks tried.", ("result",), checks)
        launch = HistogramMetricFamily("pysup_launch_seconds", "From the request to execve, waits for a turn left out.")
        launch.add_metric([], self.launches.cumulated(), self.launches.sum_s)
        yield launch

    def _logged(self) -> Iterator["Metric"]:
        sources = self._sources
        yield _counter("pysup_log_bytes", "Written to logs.", sources.log_bytes())
        yield _counter("pysup_log_dropped_lines", "Lines meant for logs, but lost.", sources.log_lines_dropped())
        yield _counter(
            "pysup_console_dropped_lines",
            "Lines that our standard output was too slow for.",
            self.console_lines_dropped,
        )

    def _process(self) -> Iterator["Metric"]:
        """With the names that Prometheus has for every program's."""
        yield _gauge("pysup_loop_lag_seconds", "How long a task that could go on waited for its turn.", self._lag_s)
        yield _counter("process_cpu_seconds", "Time of our own on the processor.", time.process_time())
        yield _gauge("process_resident_memory_bytes", "Our own, shared pages included.", resident_bytes())
        yield _gauge("process_open_fds", "Descriptors.", len(list(Path("/proc/self/fd").iterdir())) - 1)
        yield _gauge("process_max_fds", "Their limit.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])


class Timed:
    """A runner that tells how long each start took."""

    def __init__(self, runner: Runner, observe: Callable[[float], None]) -> None:
        self._runner = runner
        self._observe = observe

    async def start(self, config: ContainerConfig, policy: Policy, heard: Heard) -> Run:
        """See `Runner.start`. One that fails is not counted: how long that took says nothing of a launch."""
        began = anyio.current_time()
        run = await self._runner.start(config, policy, heard)
        self._observe(anyio.current_time() - began)
        return run


def cause_of(fields: Mapping[str, object]) -> tuple[str, str]:
    """Of an end, by its event's fields: how it came about, and with which status or signal."""
    if not isinstance(number := fields.get("signal"), int):
        return "oom" if fields.get("oom") else "exited", str(fields.get("exit_status"))
    name = signal.Signals(number).name if number in _NAMED_SIGNALS else str(number)
    return "oom" if fields.get("oom") else "signaled", name


_NAMED_SIGNALS = frozenset(map(int, signal.Signals))


async def lag_s() -> float:
    """How long the loop is busy with others before it is our turn."""
    began = time.perf_counter()
    await anyio.lowlevel.checkpoint()
    return time.perf_counter() - began


def resident_bytes() -> int:
    """proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()


def _standing(states: Sequence[tuple[str, State]]) -> Iterator["Metric"]:
    phases = Counter(state.phase for _, state in states)
    by_phase = [((phase.value,), phases[phase]) for phase in Phase]
    yield _gauges("pysup_containers", "Containers, by what they are doing.", ("phase",), by_phase)
    health = Counter(state.health for _, state in states)
    by_health = [((status.value,), health[status]) for status in HealthStatus]
    yield _gauges("pysup_containers_health", "Containers with a health check, by its result.", ("health",), by_health)
    up = [((name,), float(state.is_up)) for name, state in states]
    yield _gauge(
        "pysup_containers_up", "Containers that serve, or have done their work.", sum(value for _, value in up)
    )
    yield _gauges("pysup_container_up", "Whether it serves, or has done its work.", ("container",), up)
    restarts = [((name,), state.restarts) for name, state in states]
    yield _counters("pysup_container_restarts", "How often it was restarted.", ("container",), restarts)


def _counter(name: str, text: str, value: float) -> "Metric":
    return _counters(name, text, (), [((), value)])


def _gauge(name: str, text: str, value: float) -> "Metric":
    return _gauges(name, text, (), [((), value)])


def _counters(name: str, text: str, labels: tuple[str, ...], values: Values) -> "Metric":
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 (loaded with the first scrape)

    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _gauges(name: str, text: str, labels: tuple[str, ...], values: Values) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 (loaded with the first scrape)

    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def _registry(collect: Collect) -> "CollectorRegistry":
    from prometheus_client.registry import Collector, CollectorRegistry  # noqa: PLC0415 (loaded with the first scrape)

    class Ours(Collector):
        def collect(self) -> Iterator["Metric"]:
            return collect()

    registry = CollectorRegistry()
    registry.register(Ours())
    return registry
