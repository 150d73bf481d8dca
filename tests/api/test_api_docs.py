"""docs/api.md is what it says: each call that is offered, with a test that there is."""

import re
from pathlib import Path

import pytest

from supervisor.api.http import Request
from supervisor.api.routes import NOT_OFFERED, OFFERED, ROUTES
from supervisor.api.routing import Route

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs/api.md"
ROW = re.compile(r"^\| ([A-Z]+ /\S*) \|.*\| (test_\w+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    return ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_the_page_lists_what_is_offered() -> None:
    assert [call for call, _ in rows()] == [f"{route.method} {route.template}" for route in OFFERED]


@pytest.mark.parametrize(("call", "test"), rows())
def test_each_call_is_held_by_a_test(call: str, test: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_api_*.py"))
    assert f"def {test}(" in sources, call


def test_no_two_calls_are_the_same() -> None:
    calls = [(each.method, each.template) for each in OFFERED] + [(each.method, each.template) for each in NOT_OFFERED]
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("route", OFFERED, ids=[f"{each.method} {each.template}" for each in OFFERED])
def test_each_call_is_found(route: Route) -> None:
    path = re.sub(r"\{[^}]+\}", "x", route.template)

    def no_body() -> None:
        raise AssertionError

    request = Request(route.method, f"/v1.44{path}", {}, {}, no_body)  # type: ignore[arg-type]  # nobody reads it
    found = ROUTES.match(request)
    assert (found.handler, found.version) == (route.handler, (1, 44))
