"""What is counted, and what a scrape of it says: read back with the library's own parser."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from fake import SIGKILL, FakeRunner, Script, broken
from prometheus_client.parser import text_string_to_metric_families
from stage import entries, on_virtual_clock

from runtime.errors import LaunchError
from supervisor.core.checks import Verdict
from supervisor.core.states import HealthStatus, Phase, State
from supervisor.reporting.metrics import LAUNCH_BUCKETS_S, Histogram, Metrics, Sources, Timed, cause_of

Samples = dict[tuple[str, ...], float]  # name, and the values of its labels
CONTAINERS = 2000


def state(phase: Phase, **fields: Any) -> State:
    (entry,) = entries("any")
    return replace(State(entry.policy), phase=phase, **fields)


def metrics(*states: tuple[str, State], sources: Callable[..., Sources] = Sources) -> Metrics:
    return Metrics("shop", _unheard, sources(lambda: states))


def _unheard(_event: str, _container: str | None, _fields: Mapping[str, object]) -> None:
    """Nobody listens."""


def tell(found: Metrics, *events: tuple[str, dict[str, object]]) -> None:
    for event, fields in events:
        found(event, "web", fields)


def scraped(found: Metrics) -> Samples:
    page = anyio.run(found.scrape)
    assert page.content_type.startswith("text/plain")
    families = text_string_to_metric_families(page.body.decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_events_are_counted_and_handed_on() -> None:
    seen = []
    found = Metrics("shop", lambda event, container, _: seen.append((event, container)), Sources(list))
    tell(found, ("started", {}), ("started", {}), ("start_failed", {}), ("restarting", {}), ("healthy", {}))
    samples = scraped(found)
    assert samples["pysup_starts_total",] == 2
    assert samples["pysup_start_failures_total",] == 1
    assert samples["pysup_restarts_total",] == 1
    assert seen == [(event, "web") for event in ("started", "started", "start_failed", "restarting", "healthy")]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"exit_status": 0}, ("exited", "0")),
        ({"exit_status": 3, "ran_s": 1.0}, ("exited", "3")),
        ({"exit_status": 143, "signal": 15}, ("signaled", "SIGTERM")),
        ({"exit_status": 163, "signal": 35}, ("signaled", "35")),
        ({"exit_status": 137, "signal": 9, "oom": True}, ("oom", "SIGKILL")),
        ({"exit_status": 1, "oom": True}, ("oom", "1")),
    ],
)
def test_exits_are_counted_by_cause(fields: dict[str, object], cause: tuple[str, str]) -> None:
    found = metrics()
    tell(found, ("exited", fields), ("exited", fields))
    assert cause_of(fields) == cause
    assert scraped(found)["pysup_exits_total", *cause] == 2


def test_gauges_are_read_when_someone_asks() -> None:
    states = {"web": state(Phase.ACTIVATING), "db": state(Phase.RUNNING, health=HealthStatus.HEALTHY)}
    found = Metrics("shop", _unheard, Sources(states.items))
    before = scraped(found)
    states["web"] = state(Phase.RUNNING, restarts=4)
    after = scraped(found)
    assert (before["pysup_containers", "activating"], after["pysup_containers", "activating"]) == (1, 0)
    assert (before["pysup_containers_up",], after["pysup_containers_up",]) == (1, 2)
    assert (before["pysup_container_up", "web"], after["pysup_container_up", "web"]) == (0, 1)
    assert after["pysup_container_restarts_total", "web"] == 4
    assert after["pysup_containers_health", "healthy"] == 1


def test_losses_and_checks_are_counted() -> None:
    found = metrics(sources=partial(Sources, log_bytes=lambda: 1 << 40, log_lines_dropped=lambda: 7))
    tell(found, ("output_lost", {"lines": 3}), ("output_lost", {"lines": 4}))
    for passed in (True, True, False):
        found.checked(Verdict(passed))
    samples = scraped(found)
    assert samples["pysup_console_dropped_lines_total",] == 7
    assert samples["pysup_log_dropped_lines_total",] == 7
    assert samples["pysup_log_bytes_total",] == 1 << 40
    assert (samples["pysup_checks_total", "passed"], samples["pysup_checks_total", "failed"]) == (2, 1)


def test_the_supervisor_tells_of_itself() -> None:
    samples = scraped(metrics())
    assert samples["process_resident_memory_bytes",] > 1 << 20
    assert 3 <= samples["process_open_fds",] <= samples["process_max_fds",]
    assert samples["process_cpu_seconds_total",] > 0
    assert samples["pysup_loop_lag_seconds",] >= 0


def test_a_container_has_two_series_and_no_more() -> None:
    few = scraped(metrics(("only", state(Phase.RUNNING))))
    many = scraped(metrics(*((f"web.{number}", state(Phase.RUNNING)) for number in range(CONTAINERS))))
    assert len(many) - len(few) == 2 * (CONTAINERS - 1)


def test_names_that_the_format_must_escape_come_back_as_they_were() -> None:
    name = 'a"b\\c\nd'
    assert scraped(metrics((name, state(Phase.RUNNING))))["pysup_container_up", name] == 1


def test_two_stacks_share_no_figures() -> None:
    one, other = metrics(), metrics()
    tell(one, ("started", {}))
    assert (scraped(one)["pysup_starts_total",], scraped(other)["pysup_starts_total",]) == (1, 0)


def test_a_histogram_counts_each_time_in_all_ranges_that_hold_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for took_s in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(took_s)
    assert histogram.cumulated() == [("1.0", 2), ("2.0", 3), ("+Inf", 4)]
    assert histogram.sum_s == 12


def test_launches_are_timed_and_failed_ones_left_out() -> None:
    found = metrics()
    scripts = {"web": Script(start_s=0.03), "bad": replace(broken(), start_s=5)}

    async def scenario() -> None:
        (web,), (bad,) = entries("web"), entries("bad")
        async with FakeRunner(scripts) as fake:
            runner = Timed(fake, found.launches.observe)
            run = await runner.start(web.config, web.policy, lambda _notice: None)
            run.signal(SIGKILL)
            await run.ended()
            with pytest.raises(LaunchError):
                await runner.start(bad.config, bad.policy, lambda _notice: None)

    on_virtual_clock(scenario)
    samples = scraped(found)
    assert samples["pysup_launch_seconds_count",] == 1
    assert samples["pysup_launch_seconds_sum",] == pytest.approx(0.03)
    assert samples["pysup_launch_seconds_bucket", "0.025"] == 0
    assert samples["pysup_launch_seconds_bucket", "0.05"] == 1
    assert len(LAUNCH_BUCKETS_S) + 1 == sum(key[0] == "pysup_launch_seconds_bucket" for key in samples)


def test_a_stack_that_nobody_measures_does_not_carry_the_library() -> None:
    code = "import supervisor.reporting.metrics, sys; print('prometheus_client' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "False\n"
