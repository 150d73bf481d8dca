"""When a container is restarted, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.policy import Backoff, Policy, RestartPolicy, delay_s, is_stable, restarts

NO_CHANCE = 0.5  # the middle of [0, 1): as if there were no jitter
STEADY = Backoff(initial_s=0.1, max_s=30.0, factor=2.0, jitter=0.0)
MANY = 10**6


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    """All that a spec may ask for."""
    initial_s = draw(st.floats(0, 100))
    return Backoff(
        initial_s=initial_s,
        max_s=draw(st.floats(initial_s, 365 * 86_400.0)),
        factor=draw(st.one_of(st.floats(1, 10), st.floats(1, allow_infinity=False))),
        jitter=draw(st.floats(0, 1)),
    )


CHANCES = st.floats(0, 1, exclude_max=True)
RETRIES = st.integers(1, MANY)


@pytest.mark.parametrize(("failed", "expected"), [(True, False), (False, False)])
def test_no_never_restarts(failed: bool, expected: bool) -> None:
    assert restarts(Policy(RestartPolicy.NO), failed=failed, retries=0) is expected


@pytest.mark.parametrize(("failed", "expected"), [(True, True), (False, False)])
def test_on_failure_restarts_what_failed(failed: bool, expected: bool) -> None:
    assert restarts(Policy(RestartPolicy.ON_FAILURE), failed=failed, retries=MANY) is expected


@pytest.mark.parametrize("policy", [RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED])
@pytest.mark.parametrize("failed", [True, False])
def test_always_restarts_whatever_the_end(policy: RestartPolicy, failed: bool) -> None:
    assert restarts(Policy(policy), failed=failed, retries=MANY)


@pytest.mark.parametrize(("retries", "expected"), [(0, True), (2, True), (3, False), (4, False)])
def test_on_failure_3_restarts_3_times_in_a_row(retries: int, expected: bool) -> None:
    policy = Policy(RestartPolicy.ON_FAILURE, max_retries=3)
    assert restarts(policy, failed=True, retries=retries) is expected


def test_waits_grow_by_the_factor_up_to_the_longest() -> None:
    waits = [delay_s(STEADY, retry, NO_CHANCE) for retry in range(1, 12)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_a_factor_of_1_keeps_the_wait() -> None:
    steady = Backoff(initial_s=0.3, factor=1.0, jitter=0.0)
    assert {delay_s(steady, retry, NO_CHANCE) for retry in (1, 2, 1000, MANY)} == {0.3}


@pytest.mark.parametrize("retry", [1, 2, MANY])
def test_an_initial_wait_of_0_never_grows(retry: int) -> None:
    assert delay_s(Backoff(initial_s=0.0), retry, NO_CHANCE) == 0.0


@pytest.mark.parametrize("retry", [1025, 10_000, MANY])
def test_waits_do_not_overflow(retry: int) -> None:
    assert delay_s(STEADY, retry, NO_CHANCE) == 30.0


def test_a_tiny_initial_wait_does_not_overflow_either() -> None:
    tiny = Backoff(initial_s=1e-320, max_s=3e7, jitter=0.0)
    assert 0 < delay_s(tiny, 1088, NO_CHANCE) <= 3e7


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_jitter_moves_a_wait_to_both_sides(chance: float, expected: float) -> None:
    assert delay_s(Backoff(initial_s=1.0, jitter=0.25), 1, chance) == expected


def test_jitter_moves_the_longest_wait_down_only() -> None:
    backoff = Backoff(initial_s=30.0, max_s=30.0, jitter=0.5)
    assert delay_s(backoff, 5, 0.0) == 15.0
    assert delay_s(backoff, 5, 0.99) == 30.0


@given(backoffs(), RETRIES, CHANCES)
def test_a_wait_is_never_negative_nor_over_the_longest(backoff: Backoff, retry: int, chance: float) -> None:
    assert 0 <= delay_s(backoff, retry, chance) <= backoff.max_s


@given(backoffs(), RETRIES, CHANCES)
def test_a_wait_is_never_shorter_than_the_one_before(backoff: Backoff, retry: int, chance: float) -> None:
    assert delay_s(backoff, retry, chance) <= delay_s(backoff, retry + 1, chance)


@pytest.mark.parametrize(("ran_s", "expected"), [(0.0, False), (9.99, False), (10.0, True), (11.0, True)])
def test_a_run_is_stable_from_its_reset_time_on(ran_s: float, expected: bool) -> None:
    assert is_stable(Backoff(reset_after_s=10.0), ran_s) is expected
