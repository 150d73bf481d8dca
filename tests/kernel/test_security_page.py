"""docs/security.md says of us what the probe finds."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command import ROOT

pytestmark = pytest.mark.kernel

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
OURS = ("pysup", "pysup, userns: auto")
CAPABILITY, CALLS = "capability", "system calls"
# What depends on the kernel: how many calls it has, which files of /proc there are to mask.
COUNTS = ("system calls refused", "mounts")

Table = dict[str, dict[str, str]]  # of each column: what its rows say


def tables(text: str) -> Iterator[tuple[str, Table]]:
    """Those of Markdown, each with what is above its rows' names."""
    lines = iter(text.splitlines())
    for line in lines:
        if not line.startswith("| "):
            continue
        first, *columns = cells(line)
        rows = []
        for row in lines:
            if not row.startswith("| "):
                break
            rows.append(cells(row))
        yield first, {name: {row[0]: row[1 + at] for row in rows[1:]} for at, name in enumerate(columns)}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


@cache
def found() -> dict[str, Table]:
    command = [sys.executable, "-m", "tests.compare", *OURS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return dict(tables(done.stdout))


def told() -> dict[str, Table]:
    return {name: table for name, table in tables(PAGE) if OURS[0] in table}


def refused(table: Table, column: str) -> set[str]:
    return {call for calls, said in table[column].items() if said == "refused" for call in calls.split(", ")}


@pytest.mark.parametrize("column", OURS)
def test_what_is_left_to_a_process_is_as_the_page_says(column: str) -> None:
    ours, page = found()[""][column], told()[""][column]
    assert {key: said for key, said in ours.items() if key not in COUNTS} == {
        key: said for key, said in page.items() if key not in COUNTS
    }


@pytest.mark.parametrize("column", OURS)
def test_the_capabilities_are_those_of_the_page(column: str) -> None:
    ours, page = found()[CAPABILITY][column], told()[CAPABILITY][column]
    assert {name for name, said in ours.items() if said} == {name for name, said in page.items() if said}


@pytest.mark.parametrize("column", OURS)
def test_the_calls_that_are_refused_are_those_of_the_page(column: str) -> None:
    """As far as both know them: a kernel has more calls than another."""
    ours, page = refused(found()[CALLS], column), refused(told()[CALLS], column)
    known = {call for calls in told()[CALLS][column] for call in calls.split(", ")}
    assert ours & known <= page
    assert len(ours & page) >= len(page) - 5, "an older kernel lacks a few"


def test_the_tests_that_it_names_are_there() -> None:
    named = {word for word in PAGE.replace("`", " ").split() if word.startswith("test_") and "." not in word}
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(ROOT / "tests").rglob("test_*.py"))
    assert {name for name in named if f"def {name.rstrip(',;')}" not in sources} == set()
    assert named
