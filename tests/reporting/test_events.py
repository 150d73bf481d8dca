"""What the supervisor says, as text and as JSON. Pure."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import structlog

from supervisor.reporting.events import SENTENCES, Events, LogFormat, TextEvents, forms, json_events, sentence
from supervisor.streams.lines import RESET, JsonLines, Layout, TextLines, colour_of

PLAIN = TextEvents(Layout(width=5, colour=False))
COLOURED = TextEvents(Layout(width=5, colour=True))


def said(render: Callable[..., bytes], say: Callable[[Events], None]) -> bytes:
    written: list[bytes] = []
    say(Events(written.append, render, clock=lambda: 1_700_000_000.0))
    return b"".join(written)


def test_an_event_of_a_container_is_a_line_of_pysup_that_names_it() -> None:
    line = said(PLAIN, lambda events: events.emit("started", container="web.1", pid=4242))
    assert line == b"pysup | web.1: started (pid 4242)\n"


def test_an_event_of_the_stack_names_no_container() -> None:
    assert said(PLAIN, lambda events: events.emit("stack_up", count=3)) == b"pysup | all 3 containers are up\n"
    assert said(PLAIN, lambda events: events.emit("stack_up", count=1)) == b"pysup | all containers are up\n"
    assert said(PLAIN, lambda events: events.emit("watching", files=1)) == b"pysup | watching the file of the spec\n"


def test_coloured_by_container_and_level() -> None:
    line = said(COLOURED, lambda events: events.emit("exited", container="web.1", level="warning", exit_status=1))
    assert line == (b"\x1b[32mpysup | \x1b[0m\x1b[96mweb.1\x1b[0m: \x1b[33mexited with status 1\x1b[0m\n")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"event": "exited", "exit_status": 3}, "exited with status 3"),
        ({"event": "exited", "signal": "SIGKILL"}, "killed by SIGKILL"),
        ({"event": "exited"}, "exited"),
        ({"event": "restarting", "delay_s": 0.1034}, "restarting in 0.103 s"),
        ({"event": "restarting", "delay_s": None}, "restarting"),
        ({"event": "restarting", "delay_s": 1.5, "retry": 2}, "restarting in 1.5 s (retry 2)"),
        ({"event": "restarting", "reason": "db was restarted"}, "restarting: db was restarted"),
        ({"event": "exited", "exit_status": 137, "signal": "SIGKILL", "oom": True}, "killed by SIGKILL, out of memory"),
        ({"event": "exited", "exit_status": 1, "oom": True}, "exited with status 1, out of memory"),
        ({"event": "ready", "after_s": 0.0512}, "ready after 0.0512 s"),
        (
            {"event": "not_ready", "timeout_s": 5.0, "finding": "connection refused"},
            "not ready within 5 s: connection refused",
        ),
        ({"event": "not_ready", "timeout_s": 5.0, "finding": ""}, "not ready within 5 s"),
        ({"event": "timed_out", "timeout_s": 2.5}, "not done within 2.5 s"),
        ({"event": "unhealthy", "finding": "status 503"}, "unhealthy: status 503"),
        ({"event": "unhealthy", "finding": ""}, "unhealthy"),
        ({"event": "status", "status": "loading"}, "says: loading"),
        ({"event": "gave_up", "reason": "exited with status 1"}, "failed: exited with status 1"),
        ({"event": "dependency_skipped", "reason": "db failed"}, "starting although db failed"),
        ({"event": "stop_command_failed", "error": "exited with status 2"}, "stop command: exited with status 2"),
        (
            {"event": "stuck", "after_s": 10.0, "why": "state D in nfs_wait"},
            "still there 10 s after SIGKILL: state D in nfs_wait; not waiting for it any more",
        ),
        ({"event": "aborting"}, "ended, so all others are stopped"),
        ({"event": "start_failed", "error": "step 3:\nno such file"}, "could not start: step 3:\\nno such file"),
        ({"event": "unheard_of", "container": "db", "level": "info", "n": 1, "why": "x"}, "unheard_of n=1 why=x"),
    ],
)
def test_the_words_of_an_event(fields: dict[str, object], words: str) -> None:
    assert sentence(fields) == words


@pytest.mark.parametrize("event", SENTENCES)
def test_every_known_event_can_be_said_whatever_its_fields(event: str) -> None:
    assert sentence({"event": event})


def test_json_has_the_time_first_then_level_event_container_and_fields() -> None:
    line = said(json_events, lambda events: events.emit("exited", container="web.1", exit_status=1, pid=7))
    assert line == (
        b'{"timestamp":"2023-11-14T22:13:20.000000Z","level":"info","event":"exited","container":"web.1",'
        b'"exit_status":1,"pid":7}\n'
    )


def test_json_leaves_the_container_out_where_there_is_none() -> None:
    line = said(json_events, lambda events: events.emit("stack_done", level="warning"))
    assert line == b'{"timestamp":"2023-11-14T22:13:20.000000Z","level":"warning","event":"stack_done"}\n'


def test_the_last_output_is_quoted_on_lines_of_its_own() -> None:
    def say(events: Events) -> None:
        events.emit("gave_up", container="web", level="error", reason="killed", last_lines=("one", "two {pid}"))

    assert said(PLAIN, say) == (
        b"pysup | web: failed: killed\npysup | web: last output: one\npysup | web: last output: two {pid}\n"
    )
    assert json.loads(said(json_events, say))["last_lines"] == ["one", "two {pid}"]


def test_each_line_of_a_quotation_is_coloured_as_its_event() -> None:
    lines = said(COLOURED, lambda events: events.emit("gave_up", container="web", level="error", last_lines=["x"]))
    head = f"{colour_of('pysup')}pysup | {RESET}{colour_of('web')}web{RESET}: "
    assert lines.decode() == f"{head}\x1b[31mfailed{RESET}\n{head}\x1b[31mlast output: x{RESET}\n"


HOSTILE = "a\r\n\x1b[2J\x9b31m\x7f\u2028\u202e{pid}%s\udcff b"


@pytest.mark.parametrize("form", [PLAIN, json_events], ids=["text", "json"])
@pytest.mark.parametrize("event", [*SENTENCES, "unheard_of"])
def test_nothing_that_an_event_says_breaks_its_line_or_is_obeyed_by_a_terminal(
    event: str, form: Callable[..., bytes]
) -> None:
    names = {name for template in SENTENCES.get(event, ()) for _, name, _, _ in Formatter().parse(template) if name}
    fields: dict[str, Any] = dict.fromkeys(names | {"other"}, HOSTILE)
    written = said(form, lambda events: events.emit(event, container="web", last_lines=[HOSTILE], **fields))
    lines = written.decode().split("\n")
    assert lines.pop() == ""
    assert len(lines) == (2 if form is PLAIN else 1)
    assert all(map(str.isprintable, lines))


class State(StrEnum):
    DEAD = "dead"


def test_json_takes_states_and_paths() -> None:
    line = said(json_events, lambda events: events.emit("swept", state=State.DEAD, what=Path("/var")))
    assert line.endswith(b'"event":"swept","state":"dead","what":"/var"}\n')


def test_text_that_is_not_unicode_is_still_said() -> None:
    path = b"/\xff".decode(errors="surrogateescape")
    assert said(PLAIN, lambda events: events.emit("swept", what=path)).endswith(b"left: /\\udcff\n")


def test_what_is_below_the_level_is_not_said() -> None:
    written: list[bytes] = []
    events = Events(written.append, PLAIN, level="warning")
    events.emit("started", container="web.1", pid=1)
    events.emit("gave_up", container="web.1", level="error", reason="killed by signal 9", retries=5)
    assert written == [b"pysup | web.1: given up after retry 5: killed by signal 9\n"]


def test_structlogs_own_configuration_is_left_alone() -> None:
    before = structlog.get_config()
    said(PLAIN, lambda events: events.emit("stopped", container="db"))
    assert structlog.get_config() == before
    assert not structlog.is_configured()


def test_the_log_format_decides_both_forms() -> None:
    layout = Layout(width=5, colour=False)
    assert [type(form) for form in forms(LogFormat.TEXT, layout)] == [TextLines, TextEvents]
    lines, events = forms(LogFormat.JSON, layout)
    assert isinstance(lines, JsonLines)
    assert events is json_events
