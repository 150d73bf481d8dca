"""Variables, from Compose's terms to a spec's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.compose.dollar import carried, split
from supervisor.spec.faults import Wrong

TEXTS = st.lists(st.sampled_from([*"$${}:-?+ 'A1_", "${A", "${A}", "${A:-", "$$"])).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain } text", "plain } text"),
        ("$A and ${B}", "${A:-} and ${B:-}"),
        ("${A:-x}${A-x}${A:?x}${A?x}${A:+x}${A+x}", "${A:-x}${A-x}${A:?x}${A?x}${A:+x}${A+x}"),
        ("${A:-${B}} ${C:-$D-${E:-f}}", "${A:-${B:-}} ${C:-${D:-}-${E:-f}}"),
        ("$$A $${B}", "$$A $${B}"),
        ("costs 5$ or $5, $(date)", "costs 5$$ or $$5, $$(date)"),
        ("${A/b/c}", "$${A/b/c}"),
        ("${A:-no end", "$${A:-no end"),
    ],
)
def test_a_variable_that_is_not_set_stays_empty(text: str, expected: str) -> None:
    assert carried(text) == expected


@given(TEXTS)
def test_what_was_carried_is_carried_again_unchanged(text: str) -> None:
    assert carried(carried(text)) == carried(text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run --all 'a b'", ["run", "--all", "a b"]),
        ("run ${A:-a b} c", ["run", "${A:-a b}", "c"]),
        ('run "${A:-a ${B:-b c}} d" $$e', ["run", "${A:-a ${B:-b c}} d", "$$e"]),
        ("} run ${A}} }", ["}", "run", "${A}}", "}"]),
    ],
)
def test_a_variable_is_part_of_its_word(line: str, expected: list[str]) -> None:
    assert split(line) == expected


def letters(text: str) -> str:
    """Without what a split takes away."""
    return "".join(text.replace("'", "").split())


@given(TEXTS)
def test_any_line_is_split_or_wrong(line: str) -> None:
    try:
        words = split(line)
    except Wrong:
        return
    assert letters("".join(words)) == letters(line)
