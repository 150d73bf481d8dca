"""Patterns that are looked for in output: what matches, and that none takes longer than it may, whatever the line."""

import time

import pytest

from supervisor.streams.watch import SEARCH_MAX_S, SLOW_MAX, Watch

ENDLESS = [("(a+)+$", b"a" * 64 + b"!\n"), ("(a|aa)+$", b"a" * 64 + b"!\n"), ("(.*a){20}b", b"xa" * 1000 + b"\n")]


class Calls:
    """How often it was called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_a_line_that_matches_is_found_once() -> None:
    found, slow = Calls(), Calls()
    watch = Watch("^ready$", found, slow)
    assert not watch.see(b"not ready\nnor now\n")
    assert watch.see(b"early\nready\n")
    assert (found.count, slow.count) == (1, 0)


@pytest.mark.parametrize(("pattern", "line"), ENDLESS)
def test_a_search_without_end_is_ended_and_told_once(pattern: str, line: bytes) -> None:
    found, slow = Calls(), Calls()
    watch = Watch(pattern, found, slow)
    began = time.process_time()
    assert not watch.see(line)
    assert not watch.see(line)
    assert time.process_time() - began < 20 * SEARCH_MAX_S
    assert (found.count, slow.count) == (0, 1)


def test_what_comes_after_a_search_that_took_too_long_is_looked_at() -> None:
    found = Calls()
    watch = Watch("(a+)+$", found)
    assert not watch.see(b"a" * 64 + b"!\n")
    assert watch.see(b"aaa\n")
    assert found.count == 1


def test_who_makes_every_search_too_long_is_given_up() -> None:
    watch = Watch("(a+)+$")
    for _ in range(SLOW_MAX - 1):
        assert not watch.see(b"a" * 64 + b"!\n")
        assert not watch.given_up
    assert watch.see(b"a" * 64 + b"!\n")
    assert watch.given_up
