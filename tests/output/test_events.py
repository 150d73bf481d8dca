"""What the supervisor says, as text and as JSON. Pure."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import pytest
import structlog

from supervisor.events import SENTENCES, Events, LogFormat, TextEvents, forms, json_events, sentence
from supervisor.lines import JsonLines, Layout, TextLines

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
    events.emit("gave_up", container="web.1", level="error", retries=5)
    assert written == [b"pysup | web.1: given up after 5 retries\n"]


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
