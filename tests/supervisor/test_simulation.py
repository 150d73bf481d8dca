"""Any stack, any behaviour, stopped or killed at any moment: what holds in all of them, in thousands of random ones.

A seed decides all of it; a failing one is shrunk and printed as a test. `SEED=17` plays that one alone, `SEEDS=100000`
plays so many, instead of those that are played otherwise.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import scenario as scenario_module
from fake import FakeRunner
from scenario import Scenario, code, draw, shrink
from simulation import failure, first_failure, kind, moves, story
from stage import Play, entries, in_order, on_virtual_clock

from runtime import status
from supervisor.core import checks, policy
from supervisor.core.states import DependenciesMet
from supervisor.stack.tree import Stack

CHECKOUT = Path(__file__).resolve().parents[2]
SEEDS = int(os.environ.get("SEEDS", "10000"))
SEED = os.environ.get("SEED")
PROCESSES = min(2, os.cpu_count() or 1) if SEED is None else 1
MOVES_NEED = 5_000  # seeds, before all that can happen must have happened
# Nobody starts a container again, stops one before it was started, or reloads, in a stack that runs on its own.
OF_USERS = {
    ("activating", "Adapt", "running"),
    ("activating", "Adapt", "stopping"),
    ("created", "Stop", "exited"),
    ("created", "Kill", "exited"),
    *((phase, "Start", "waiting") for phase in ("backoff", "exited", "failed")),
}


def simulation(first: int, count: int, stride: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests/support'}"}
    command = [sys.executable, "-m", "simulation", *map(str, (first, count, stride))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_any_stack_keeps_its_promises() -> None:
    """In processes of their own, side by side: a run of each seed is the same wherever it is played."""
    first, count = (0, SEEDS) if SEED is None else (int(SEED), 1)
    sides = [simulation(first + side, count - side, PROCESSES) for side in range(PROCESSES)]
    told = [(*side.communicate(), side.returncode) for side in sides]
    errors = [error for _, error, status in told if status]
    assert not errors, "\n".join(errors)
    seen = {tuple(line.split()) for out, _, _ in told for line in out.splitlines()}
    declared = {(str(before), event, str(after)) for before, event, after in moves()}
    assert seen <= declared | {(phase, event, phase) for phase, event, _ in seen}
    if count >= MOVES_NEED:
        assert declared - seen <= OF_USERS, "declared, but never seen"


# --- that it can fail -------------------------------------------------------------------------------------------------


def history(scenario: Scenario) -> Play:
    in_order(scenario.order)
    seen: Play = on_virtual_clock(scenario.play)
    return seen


def test_a_seed_is_the_same_stack_and_the_same_history_every_time() -> None:
    for seed in range(20):
        assert repr(history(draw(seed)).history) == repr(history(draw(seed)).history)


def test_a_scenario_is_printed_as_what_makes_it() -> None:
    names = {**vars(checks), **vars(policy), **vars(status), **vars(scenario_module)}
    for seed in range(50):
        shown = code(draw(seed))
        assert code(eval(shown, names)) == shown


def test_a_failing_scenario_is_made_as_small_as_it_gets() -> None:
    """Take for a failure that c1 is started twice."""

    def fails(scenario: Scenario) -> bool:
        return len(history(scenario).times("c1", "start")) > 1

    seed = next(seed for seed in range(100) if len(draw(seed).parts) > 3 and fails(draw(seed)))
    (part,) = shrink(draw(seed), fails).parts
    assert part.name == "c1"
    assert len(part.policy) <= 2


def test_a_broken_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may start is not looked at: the first hundred seeds tell."""
    monkeypatch.setattr(Stack, "_gate", lambda _self, _service: DependenciesMet())
    found = {kind(error) for seed in range(100) if (error := failure(draw(seed))) is not None}
    assert "conditions_hold_at_every_start" in found


def test_a_failing_seed_is_told_as_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "_gate", lambda _self, _service: DependenciesMet())
    found = first_failure(range(100))
    assert found is not None
    told = story(*found)
    assert f"def test_seed_{found[0]}() -> None:" in told
    assert told.count("Part(") == 2


def test_the_fake_refuses_a_second_live_run() -> None:
    async def two_runs() -> None:
        (entry,) = entries("web")
        async with FakeRunner() as runner:
            await runner.start(entry.config, entry.policy, lambda _: None)
            with pytest.raises(AssertionError, match="has a live run"):
                await runner.start(entry.config, entry.policy, lambda _: None)
            runner.live.clear()

    on_virtual_clock(two_runs)
