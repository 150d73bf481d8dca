"""Any stack, any behaviour, stopped or killed at any moment: what holds in all of them."""

from dataclasses import dataclass

from fake import NEVER, FakeRunner, Script, What
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stage import COMPLETED, STARTED, Play, entries, on_virtual_clock, play

from runtime.errors import LaunchError
from runtime.status import Exited, Signaled
from supervisor.entry import Entry
from supervisor.states import FINAL, Phase

SIGKILL = 9
SLACK_S = 1e-6
ENDS_S = 60.0  # when every stack is stopped that has not ended by itself: far beyond all other times


@dataclass(frozen=True)
class Case:
    """A stack, how its containers behave, and what is asked of it when."""

    entries: tuple[Entry, ...]
    scripts: dict[str, list[Script]]
    stop_s: float
    kill_s: float
    starts_max: int

    def kill_time_s(self, group: str) -> float:
        """The longest that a member takes from SIGKILL to the last trace gone, a start under way included."""
        return max(script.start_s + script.dies_s + script.buried_s for script in self.scripts[group])

    def stop_time_s(self, group: str) -> float:
        """The same from its stop signal."""
        grace_s = max((entry.policy.stop_grace_s for entry in self.entries if entry.group == group), default=0)
        return grace_s + self.kill_time_s(group)

    def members(self, group: str) -> list[str]:
        return [entry.id for entry in self.entries if entry.group == group]


moments = st.sampled_from([0.0, 0.01, 0.5, 1.0, 1.5, 3.0, 8.0, 20.0]) | st.floats(0, 30)
ends = st.sampled_from([Exited(0), Exited(0), Exited(1), Signaled(11)])
# Time passes in every run, for a container that restarts at once would never let it.
scripts = st.builds(
    Script,
    start_s=st.sampled_from([0.2, 0.5, 2.0]),
    error=st.sampled_from([None, None, None, LaunchError("mount overlay: no such device")]),
    runs_s=st.sampled_from([0.0, 0.3, 5.0, NEVER, NEVER]),
    status=ends,
    stops_s=st.sampled_from([0.0, 0.5, 4.0, None]),
    dies_s=st.sampled_from([0.0, 0.5]),
    buried_s=st.sampled_from([0.0, 0.0, 0.7]),
) | st.builds(Script, start_s=st.just(0.2), early=st.just(True), status=ends)
policies = st.fixed_dictionaries(
    {
        "restart": st.sampled_from(["no", "on-failure", "always"]),
        "max_retries": st.sampled_from([None, 0, 2]),
        "initial_s": st.sampled_from([0.0, 0.1, 1.0]),
        "max_s": st.sampled_from([1.0, 10.0]),
        "reset_after_s": st.sampled_from([1.0, 10.0]),
        "stop_grace_s": st.sampled_from([0.0, 1.0, 5.0]),
    }
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    names = [f"c{number}" for number in range(draw(st.integers(1, 6)))]
    stack = []
    for number, name in enumerate(names):
        needs = draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=3)) if number else []
        conditions = {need: draw(st.sampled_from([STARTED, STARTED, COMPLETED])) for need in needs}
        replicas = draw(st.sampled_from([1, 1, 1, 0, 2, 3]))
        stack.append(entries(name, replicas=replicas, conditions=conditions, **draw(policies)))
    order = draw(st.permutations(stack))
    stop_s = draw(moments | st.just(ENDS_S))
    return Case(
        entries=tuple(entry for group in order for entry in group),
        scripts={name: draw(st.lists(scripts, min_size=1, max_size=3)) for name in names},
        stop_s=stop_s,
        kill_s=stop_s + draw(moments) if draw(st.booleans()) else ENDS_S * 2,
        starts_max=draw(st.sampled_from([1, 2, 64])),
    )


def perform(case: Case) -> Play:
    """Play it. The fake asserts on its own that no container has two live runs, and that none is left."""
    cues = [(case.stop_s, "stop"), (case.kill_s, "kill")]
    seen: Play = on_virtual_clock(play, case.entries, case.scripts, cues, starts_max=case.starts_max)
    return seen


any_case = given(cases())
thoroughly = settings(max_examples=300, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])


@thoroughly
@any_case
def test_any_stack_keeps_its_promises(case: Case) -> None:
    seen = perform(case)
    every_container_is_final(seen)
    it_ends_in_time(case, seen)
    the_limiter_is_respected(case, seen)
    dependencies_start_first(case, seen)
    dependents_stop_first(case, seen)
    nothing_is_started_in_vain(case, seen)
    the_summary_is_true(seen)


def every_container_is_final(seen: Play) -> None:
    assert all(service.state.phase in FINAL for service in seen.stack.services)


def it_ends_in_time(case: Case, seen: Play) -> None:
    """One group after the other at worst, each with its grace period; after a kill all at the same time."""
    assert seen.ended_s <= case.stop_s + sum(map(case.stop_time_s, case.scripts)) + SLACK_S
    assert seen.ended_s <= case.kill_s + max(map(case.kill_time_s, case.scripts)) + SLACK_S


def the_limiter_is_respected(case: Case, seen: Play) -> None:
    assert seen.runner.starting_max <= case.starts_max


def dependencies_start_first(case: Case, seen: Play) -> None:
    for entry in case.entries:
        for start_s in seen.times(entry.id, "start")[:1]:
            for need, condition in entry.depends_on.items():
                what: What = "started" if condition is STARTED else "buried"
                for member in case.members(need):
                    assert min(seen.times(member, what)) <= start_s + SLACK_S


def dependents_stop_first(case: Case, seen: Play) -> None:
    """A container gets no stop signal before everyone who depends on it is gone for good."""
    for entry in case.entries:
        for need in entry.depends_on:
            gone_s = max(seen.times(entry.id, "buried"), default=0)
            for member in case.members(need):
                stopped_s = [call.at_s for call in seen.calls if call.container == member and call.what == "signal"]
                assert all(at_s >= min(gone_s, case.kill_s) - SLACK_S for at_s in stopped_s)


def nothing_is_started_in_vain(case: Case, seen: Play) -> None:
    """After a kill nothing starts; after a stop only what dependents still need."""
    needed = {need for entry in case.entries for need in entry.depends_on}
    for call in seen.calls:
        if call.what == "start":
            assert call.at_s <= case.kill_s + SLACK_S
            group = call.container.split(".")[0]
            assert group in needed or call.at_s <= case.stop_s + SLACK_S


def the_summary_is_true(seen: Play) -> None:
    failed = {service.entry.id for service in seen.stack.services if service.state.phase is Phase.FAILED}
    assert set(seen.failed) == failed
    assert all(seen.failed.values())


def test_the_fake_refuses_a_second_live_run() -> None:
    """The promise above that the fake itself holds up, seen to be able to fail."""

    async def two_runs() -> None:
        (entry,) = entries("web")
        async with FakeRunner() as runner:
            await runner.start(entry.config)
            await runner.start(entry.config)

    try:
        on_virtual_clock(two_runs)
    except BaseException as error:  # noqa: BLE001 (on the way out it may be wrapped in groups)
        assert "has a live run" in str(getattr(error, "exceptions", [error])[0])
    else:
        raise AssertionError("two live runs passed")
