"""What an operator changes of a container, and how long it holds."""

from dataclasses import replace

from stage import entries

from runtime.cgroup.limits import Limits
from supervisor.core.policy import RestartPolicy
from supervisor.entry import Entry
from supervisor.reload.amendment import Amendment, amend

ONCE = (RestartPolicy.ON_FAILURE, 1)
SMALL, LARGE, HUGE = (Limits(memory_bytes=size << 20) for size in (64, 128, 256))


def filed(limits: Limits = SMALL) -> Entry:
    (entry,) = entries("web")
    return replace(entry, config=replace(entry.config, limits=limits))


def changed(file: Entry) -> Amendment:
    return Amendment.of(file, amend(file, LARGE, ONCE))


def test_what_was_changed_holds_while_the_file_says_what_it_said() -> None:
    found = changed(filed()).applied(filed())
    assert found == amend(filed(), LARGE, ONCE)


def test_the_file_has_the_last_word_on_what_it_says_anew() -> None:
    found = changed(filed()).applied(filed(HUGE))
    assert (found.config.limits, found.policy.restart, found.policy.max_retries) == (HUGE, *ONCE)


def test_what_the_file_had_the_last_word_on_does_not_come_back() -> None:
    left = changed(filed()).left_by(amend(filed(HUGE), restarts=ONCE))
    found = left.applied(filed())
    assert (found.config.limits, found.policy.restart) == (SMALL, ONCE[0])


def test_two_changes_are_one() -> None:
    first = amend(filed(), LARGE)
    both = Amendment.of(first, amend(first, HUGE), Amendment.of(filed(), first))
    assert both.applied(filed()).config.limits == HUGE
