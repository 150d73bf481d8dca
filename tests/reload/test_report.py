"""The difference of two stacks as people and programs are told it."""

import json
from dataclasses import replace

from stage import entries, one

from supervisor.reload.changes import Field
from supervisor.reload.difference import compared
from supervisor.reload.report import as_data, render


def test_people_read_what_happens_to_whom_and_why() -> None:
    old = [one("db"), one("old"), one("web")]
    new = [one("db", restart="always"), one("new"), one("web", config={"argv": ("y", "z")})]
    assert render(compared(old, new)) == (
        "+ new: new\n"
        "- old: removed\n"
        "~ web: replaced (cmd: x -> y z)\n"
        "= db: goes on running (restart: no -> always)\n"
        "1 new, 1 removed, 1 replaced, 1 changed without a restart\n"
    )


def test_replicas_of_which_the_same_is_to_be_said_share_a_line() -> None:
    old = entries("web", replicas=2000)
    new = [replace(entry, config=replace(entry.config, argv=("y",))) for entry in old]
    assert render(compared(old, new)) == (
        "~ web.1, web.2 … web.2000 (2000 containers): replaced (cmd: x -> y)\n2000 replaced\n"
    )


def test_values_of_a_file_do_not_reach_the_terminal_as_orders() -> None:
    text = render(compared([one("web")], [one("web", config={"argv": ("\x1b[31m\n" + "y" * 500,)})]))
    assert "\x1b" not in text
    assert text.count("\n") == 2
    assert len(text) < 200


def test_programs_get_whole_values() -> None:
    old, new = [one("web"), one("old")], [one("web", config={"argv": ("y" * 500,)}), one("new")]
    assert json.loads(json.dumps(as_data(compared(old, new)))) == {
        "logs": [],
        "added": ["new"],
        "removed": ["old"],
        "renamed": [],
        "replaced": [{"id": "web", "fields": [{"name": "cmd", "before": "x", "after": "y" * 500}]}],
        "adapted": [],
        "unchanged": 0,
        "networks": [],
    }


def test_two_long_texts_are_shown_where_they_differ() -> None:
    script = "x" * 500
    before, after = str(Field("cmd", f"{script}1", f"{script}2")).split(" -> ")
    assert (before[-1], after[-1]) == ("1", "2")
    assert len(before) < 100
