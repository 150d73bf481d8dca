"""Events as Docker tells them, and as we do; the stack as a whole."""

import json
import time
from typing import Any

import docker
import pytest
from served import Stage
from waiting import until

from runtime.errors import PysupError
from supervisor.api import limits
from supervisor.api.events import ACTIONS, shapes
from supervisor.api.ring import Entry, Subject
from supervisor.commands import Happening
from supervisor.errors import CommandError
from supervisor.processes.helper import HelperError

SUBJECT = Subject("ab" * 32, "base", {"l": "v"})


def shape(event: str, **fields: object) -> list[dict[str, Any]]:
    return shapes(Entry(Happening(12.5, event, "web", fields), SUBJECT))


def test_an_event_has_dockers_form() -> None:
    (told,) = shape("exited", exit_status=137, ran_s=2.5)
    assert told == {
        "status": "die",
        "id": SUBJECT.key,
        "from": "base",
        "Type": "container",
        "Action": "die",
        "Actor": {
            "ID": SUBJECT.key,
            "Attributes": {"l": "v", "image": "base", "name": "web", "exitCode": "137", "execDuration": "2"},
        },
        "scope": "local",
        "time": 12,
        "timeNano": 12_500_000_000,
    }


def test_out_of_memory_is_told() -> None:
    assert [told["Action"] for told in shape("out_of_memory", processes=1)] == ["oom"]


@pytest.mark.parametrize("event", [event for event in ACTIONS if not event.startswith("exec_")])
def test_each_event_has_its_action(event: str) -> None:
    assert shape(event)[-1]["Action"] == ACTIONS[event]


def test_details_are_text() -> None:
    assert shape("stopping", signal=15)[0]["Actor"]["Attributes"]["signal"] == "15"
    assert shape("killing")[0]["Actor"]["Attributes"]["signal"] == "9"
    assert shape("renamed", **{"from": "old"})[0]["Actor"]["Attributes"]["oldName"] == "old"
    (told,) = shape("exec_start", exec_id="x", command="ls -l")
    assert told["Action"] == "exec_start: ls -l"


def test_what_docker_does_not_know_is_left_out() -> None:
    assert shape("ready") == []
    assert shapes(Entry(Happening(1.0, "stack_up", None, {}), None)) == []


def test_events_of_a_life(engine: docker.DockerClient) -> None:
    events = engine.events(decode=True)
    made = engine.containers.create("base", "true", name="mine", labels={"a": "b"})
    made.start()
    made.pause()
    made.unpause()
    made.kill(signal="HUP")
    made.restart()
    made.stop()
    made.rename("other")
    made.remove()
    actions = []
    for event in events:
        actions.append(event["Action"])
        assert event["Actor"]["Attributes"]["a"] == "b"
        if event["Action"] == "destroy":
            break
    events.close()
    usual = ["create", "start", "pause", "unpause", "kill", "start", "kill", "die", "stop", "rename", "destroy"]
    assert actions == usual


def test_events_of_an_exec(engine: docker.DockerClient) -> None:
    events = engine.events(decode=True, filters={"event": ["exec_create", "exec_start", "exec_die"]})
    engine.containers.get("web.1").exec_run(["sh", "-c", "exit 4"])
    found = [next(events) for _ in range(3)]
    events.close()
    assert [each["Action"].partition(":")[0] for each in found] == ["exec_create", "exec_start", "exec_die"]
    assert found[2]["Actor"]["Attributes"]["exitCode"] == "4"


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 3),
        ({"container": "web.1"}, 2),
        ({"container": ["web.1", "job"]}, 3),
        ({"event": "health_status"}, 1),
        ({"event": "health_status: healthy"}, 1),
        ({"event": "start"}, 1),
        ({"type": "container"}, 3),
        ({"type": "network"}, 0),
        ({"image": "base"}, 3),
        ({"label": "com.docker.compose.service=web"}, 2),
    ],
)
def test_events_of_the_past_are_filtered(
    engine: docker.DockerClient, stage: Stage, filters: dict[str, Any], count: int
) -> None:
    start = time.time()
    stage.do(stage.commands.tell, "paused", "web.1")
    stage.do(stage.commands.tell, "healthy", "web.1")
    stage.do(stage.commands.tell, "started", "job")
    until_remembered(stage, 3)
    found = list(engine.events(decode=True, since=start - 1, until=time.time(), filters=filters))
    assert len(found) == count


def until_remembered(stage: Stage, count: int) -> None:
    until(lambda: len(told(stage)) >= count)


def told(stage: Stage) -> list[dict[str, Any]]:
    with stage.client.request("GET", "/pysup/events", {"since": "1h", "follow": 0}) as reply:
        return [json.loads(line) for line in reply.lines()]


def test_events_end_when_asked_to(engine: docker.DockerClient) -> None:
    assert list(engine.events(until=time.time() + 0.1)) == []


def test_our_events_are_all_of_them(stage: Stage) -> None:
    with stage.client.request("GET", "/pysup/events", {}) as reply:
        stage.do(stage.commands.tell, "stack_up", None, count=5)
        stage.do(stage.commands.tell, "ready", "web.1", after_s=0.5)
        lines = reply.lines()
        first, second = json.loads(next(lines)), json.loads(next(lines))
    assert (first["event"], first["container"], first["fields"]) == ("stack_up", None, {"count": 5})
    assert (second["event"], second["container"], second["fields"]) == ("ready", "web.1", {"after_s": 0.5})


def test_a_slow_listener_is_told_what_it_lost(stage: Stage) -> None:
    padding = "x" * 4096
    count = limits.HAPPENINGS_KEPT + 500
    with stage.client.request("GET", "/pysup/events", {}) as reply:
        for number in range(count):
            stage.do(stage.commands.tell, "status", "web.1", number=number, padding=padding)
        seen, lost = 0, 0
        for line in reply.lines():
            event = json.loads(line)
            lost += event["fields"]["count"] if event["event"] == "lost" else 0
            seen += event["event"] == "status"
            if seen + lost == count:
                break
    assert lost > 0
    assert event["fields"]["number"] == count - 1


def test_the_stack_as_a_whole(stage: Stage) -> None:
    shown = stage.client.get("/pysup/stack")
    assert shown["name"] == "demo"
    first = shown["containers"][0]
    assert (first["id"], first["phase"], first["config"]["argv"]) == ("web.1", "running", ["sleep", "1000"])
    assert first["policy"]["restart"] == "no"


def test_what_ps_shows(stage: Stage) -> None:
    shown = {each["id"]: each for each in stage.client.get("/pysup/ps")}
    assert list(shown) == ["web.1", "web.2", "job", "late", "term"]
    assert (shown["web.1"]["state"], shown["web.1"]["running"]) == ("running", True)
    assert (shown["job"]["exit_code"], shown["late"]["status"]) == (3, "Waiting for dependencies")


def test_the_stack_goes_down(stage: Stage) -> None:
    stage.client.post("/pysup/down")
    assert stage.commands.down


def test_a_reload_is_told_in_text_and_as_data(stage: Stage) -> None:
    shown = stage.client.post("/pysup/reload")
    assert shown == {"text": "+ new: new\n1 new\n", "changed": True, "changes": {"added": ["new"]}, "failure": None}
    stage.client.post("/pysup/reload", {"dry_run": True})
    assert stage.commands.asked == [("reload", False), ("reload", True)]


def test_a_faulty_spec_is_told_with_its_places(stage: Stage) -> None:
    stage.commands.refusal = HelperError("a.yaml:1:1: is empty\na.yaml:2:1: as well", 125, ())
    with pytest.raises(PysupError) as refused:
        stage.client.post("/pysup/reload")
    assert str(refused.value) == "a.yaml:1:1: is empty\na.yaml:2:1: as well"


def test_a_stack_is_scaled(stage: Stage) -> None:
    shown = stage.client.post("/pysup/scale", {"scales": {"web": 3, "job": 0}})
    assert shown["failure"] == "web.3 did not come up: it has ended"
    assert stage.commands.asked == [("scale", {"web": 3, "job": 0})]


@pytest.mark.parametrize("body", [{}, {"scales": {}}, {"scales": {"web": "3"}}, {"scales": {"web": True}}])
def test_a_scale_without_numbers_makes_no_sense(stage: Stage, body: object) -> None:
    with pytest.raises(PysupError, match="invalid JSON: "):
        stage.client.post("/pysup/scale", body)
    assert stage.commands.asked == []


def test_a_time_that_ends_before_it_begins_makes_no_sense(stage: Stage) -> None:
    with pytest.raises(CommandError, match=r"`since` time \(20\) cannot be after `until` time \(10\)"):
        stage.client.get("/events", since=20, until=10)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00", "9" * 200 + "h", "9" * 400 + "h"], ids=len)
def test_a_time_that_no_clock_shows_is_none(stage: Stage, time: str) -> None:
    with pytest.raises(CommandError, match="is not a time"):
        stage.client.get("/containers/web.1/logs", stdout=1, since=time)


def test_a_container_that_is_gone_before_its_end_is_heard_of_has_all_its_events(
    engine: docker.DockerClient, stage: Stage
) -> None:
    engine.containers.create("base", "true", name="mine", auto_remove=True).start()

    def end() -> None:  # at one go
        stage.commands.end("mine", 0)
        stage.commands.tell("started", "web.1")

    stage.do(end)
    told = engine.events(decode=True, filters={"container": "mine"}, since=1)
    assert [next(told)["Action"] for _ in range(4)] == ["create", "start", "die", "destroy"]
    told.close()
