"""`pysup up`: order, output, ends and faults of a stack, as its user sees them."""

import base64
import json
import re
import signal
import socket

import pytest
from command import Pysup, script
from waiting import PATIENCE_S

pytestmark = pytest.mark.kernel

OBEDIENT = "trap 'echo leaving; exit 0' TERM; echo up; while :; do sleep 0.05; done"
DEAF = "trap '' TERM; echo up; while :; do sleep 0.05; done"


def told(out: str, what: str) -> list[str]:
    """The containers that pysup says this of, in order."""
    return re.findall(rf"^pysup +\| ([\w.]+): {what}", out, re.MULTILINE)


def lines_of(container: str, out: str) -> list[str]:
    """What a container wrote."""
    return re.findall(rf"^{re.escape(container)} +[|+!] (.*)$", out, re.MULTILINE)


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_one_shots_alone_end_with_0(pysup: Pysup) -> None:
    ended = pysup("up", pysup.stack({"id": "a", "cmd": script("echo one")}, {"id": "b", "cmd": "true"}))
    assert (ended.status, ended.err, ended.out.splitlines()[-1]) == (0, "", "pysup | all containers are done")
    assert pysup.left() == []


def test_a_failing_one_shot_ends_it_with_1_and_is_named(pysup: Pysup) -> None:
    ended = pysup("up", pysup.stack({"id": "good", "cmd": "true"}, {"id": "bad", "cmd": "false"}))
    assert (ended.status, ended.out.splitlines()[-1]) == (1, "pysup | all containers are done; failed: bad")


def test_what_depends_on_a_failure_is_not_started_and_named_too(pysup: Pysup) -> None:
    after = {"id": "after", "cmd": "true", "depends_on": {"bad": {"condition": "completed"}}}
    ended = pysup("up", pysup.stack(after, {"id": "bad", "cmd": "false"}))
    assert (ended.status, told(ended.out, "not started, as bad failed")) == (1, ["after"])
    assert ended.out.splitlines()[-1] == "pysup | all containers are done; failed: after, bad"


def test_a_start_that_fails_says_the_step_and_what_to_do(pysup: Pysup) -> None:
    ended = pysup("up", pysup.stack({"id": "a", "cmd": "nonesuch"}))
    assert ended.status == 1
    assert told(ended.out, "could not start: execute nonesuch: not found in the image: check cmd and PATH") == ["a"]
    assert ended.err == ""


def test_a_failure_is_tried_again_as_the_policy_says(pysup: Pysup) -> None:
    backoff = {"initial_s": 0, "max_s": 0}
    ended = pysup("up", pysup.stack({"id": "a", "cmd": "false", "restart": "on-failure:2", "backoff": backoff}))
    assert (ended.status, len(told(ended.out, "started")), told(ended.out, "given up")) == (1, 3, ["a"])


# --- order ------------------------------------------------------------------------------------------------------------


def test_dependencies_start_first_and_stop_last(pysup: Pysup) -> None:
    stack = pysup.stack(
        {"id": "front", "cmd": script(OBEDIENT), "depends_on": ["back"]},
        {"id": "back", "cmd": script(OBEDIENT), "depends_on": {"setup": {"condition": "completed"}}},
        {"id": "setup", "cmd": script("echo set up")},
    )
    with pysup.live("up", stack) as live:
        live.sees("all 3 containers are up")
        live.sees("front | up")
        live.sees("back  | up")
        live.signal(signal.SIGTERM)
        assert live.ends() == 0
    assert told(live.text, "started") == ["setup", "back", "front"]
    assert live.text.index("setup: exited") < live.text.index("back: started")
    assert told(live.text, "stopped") == ["front", "back"]
    assert live.text.index("front: stopped") < live.text.index("back: stopping")


def test_a_service_answers_who_depends_on_it(pysup: Pysup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ask = f"until wget -q -O - http://127.0.0.1:{port}/answer; do sleep 0.05; done"
    stack = pysup.stack(
        {"id": "web", "cmd": script(f"echo 42 > /answer; exec httpd -f -p 127.0.0.1:{port} -h /"), "init": True},
        {"id": "client", "cmd": script(ask), "depends_on": ["web"]},
    )
    with pysup.live("up", stack) as live:
        live.sees("client: exited with status 0")
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert "42" in lines_of("client", live.text)


# --- output -----------------------------------------------------------------------------------------------------------


def test_prefixes_are_aligned_and_no_colour_without_a_terminal(pysup: Pysup) -> None:
    ended = pysup("up", pysup.stack({"id": "a", "cmd": script("echo x")}, {"id": "longer-name", "cmd": "true"}))
    assert {line.index(" | ") for line in ended.out.splitlines()} == {len("longer-name")}
    assert "\x1b" not in ended.out


def test_colour_may_be_asked_for(pysup: Pysup) -> None:
    assert "\x1b[" in pysup("up", "--ansi", "always", pysup.stack({"id": "a", "cmd": "true"}), NO_COLOR="1").out


def test_all_lines_come_before_the_report_of_the_end_and_the_last_without_a_newline_too(pysup: Pysup) -> None:
    ended = pysup("up", pysup.stack({"id": "a", "cmd": script("seq 5000; printf last")}))
    assert lines_of("a", ended.out) == [*map(str, range(1, 5001)), "last"]
    assert ended.out.index("a     | last\n") < ended.out.index("a: exited")


def test_both_streams_are_shown(pysup: Pysup) -> None:
    ended = pysup("up", pysup.stack({"id": "a", "cmd": script("echo out; echo err >&2")}))
    assert sorted(lines_of("a", ended.out)) == ["err", "out"]


def test_lines_of_many_writers_are_whole(pysup: Pysup) -> None:
    loop = 'i=0; while [ $$i -lt 200 ]; do echo "$$HOSTNAME-$$HOSTNAME-$$HOSTNAME"; i=$$((i+1)); done'
    ended = pysup("up", pysup.stack({"id": "w", "cmd": script(loop), "replicas": 4}))
    for name in ("w.1", "w.2", "w.3", "w.4"):
        assert lines_of(name, ended.out) == [f"{name}-{name}-{name}"] * 200


def test_bytes_that_are_not_utf_8_survive(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script(r"printf 'x\377\376y\n'")})
    assert b"a     | x\xff\xfey\n" in pysup.raw("up", stack).stdout
    events = map(json.loads, pysup.raw("up", "--log-format", "json", stack).stdout.splitlines())
    (encoded,) = [event["line_base64"] for event in events if event["event"] == "output"]
    assert base64.b64decode(encoded) == b"x\xff\xfey"


def test_json_is_an_object_per_line_and_event(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script("echo hi; exit 3")})
    events = [json.loads(line) for line in pysup("up", "--log-format", "json", stack).out.splitlines()]
    assert {event["event"] for event in events} == {"started", "stack_up", "output", "exited", "gave_up", "stack_done"}
    assert all({"timestamp", "level", "event"} <= set(event) for event in events)
    by_name = {event["event"]: event for event in events}
    assert (by_name["output"]["container"], by_name["output"]["line"]) == ("a", "hi")
    assert by_name["exited"]["exit_status"] == 3
    assert set(by_name["stack_done"]["failed"]) == {"a"}


def test_who_floods_does_not_hold_up_a_sibling(pysup: Pysup) -> None:
    """The sibling's lines come through while the flood is far from its end, which there is none of."""
    stack = pysup.stack({"id": "flood", "cmd": "yes"}, {"id": "calm", "cmd": script("seq 20; exec sleep 1000")})
    with pysup.live("up", stack) as live:
        live.sees("calm  | 20\n")
        live.signal(signal.SIGINT)
        live.sees("calm: stopping")
        live.signal(signal.SIGINT)
        assert live.ends() == 1
    assert lines_of("calm", live.text) == list(map(str, range(1, 21)))


# --- options ----------------------------------------------------------------------------------------------------------


def test_scale_overrides_the_spec(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script("echo $PYSUP_REPLICA")}, {"id": "b", "cmd": "true"})
    ended = pysup("up", "--scale", "a=3", "--scale", "b=0", stack)
    assert (ended.status, sorted(told(ended.out, "started"))) == (0, ["a.1", "a.2", "a.3"])
    assert [lines_of(f"a.{number}", ended.out) for number in (1, 2, 3)] == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize(
    ("scale", "complaint"),
    [
        ("nonesuch=2", 'have no "nonesuch" to scale'),
        ("a=99999", "is 99999, expected a whole number from 0 to"),
        ("a=x", "--scale a=x: expected ID=N"),
        ("a", "--scale a: expected ID=N"),
        ("a=-1", "--scale a=-1: expected ID=N"),
    ],
)
def test_a_bad_scale_starts_nothing(pysup: Pysup, scale: str, complaint: str) -> None:
    ended = pysup("up", "--scale", scale, pysup.stack({"id": "a", "cmd": "true"}))
    assert (ended.status, complaint in ended.complaint) == (125, True)


def test_verbose_tells_of_every_attempt(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": "true"})
    assert [told(pysup("up", *options, stack).out, "starting") for options in ((), ("-v",))] == [[], ["a"]]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--parallel", "0"), "invalid value for '--parallel'"),
        (("--log-format", "xml"), "invalid value for '--log-format'"),
        (("--ansi", "maybe"), "invalid value for '--ansi'"),
    ],
)
def test_a_bad_option_starts_nothing(pysup: Pysup, options: tuple[str, ...], complaint: str) -> None:
    ended = pysup("up", *options, pysup.stack({"id": "a", "cmd": "true"}))
    assert (ended.status, ended.complaint.startswith(complaint)) == (125, True)


@pytest.mark.parametrize("run", ["/proc/nosuch", "/dev/null", "y" * 120])
def test_where_no_socket_can_be_made_nothing_starts_and_nothing_hangs(pysup: Pysup, run: str) -> None:
    ended = pysup("up", "--run", run, pysup.stack({"id": "a", "cmd": "true"}))
    assert (ended.status, ended.out) == (125, "")
    assert (
        ": the directory of the control socket can't be made: " in ended.complaint or ": too long " in ended.complaint
    )
    assert len(ended.err.splitlines()) == 1
    assert pysup.left() == []


def test_a_dry_run_shows_order_and_steps_starts_nothing_and_needs_no_root(pysup: Pysup) -> None:
    stack = pysup.stack(
        {"id": "a", "cmd": "true", "depends_on": ["b"], "replicas": 2}, {"id": "b", "cmd": "one two", "user": "7"}
    )
    ended = pysup.as_nobody("up", "--dry-run", stack)
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line for line in lines if line[:1].isdigit()] == ["1. b", "2. a (2 replicas)"]
    steps = [line.strip() for line in lines[lines.index("   b") : lines.index("2. a (2 replicas)")]]
    assert {"mount /proc", "become user 7:0", "execute one"} <= set(steps)
    assert not pysup.state.exists()


# --- stopping it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_it_and_that_is_no_failure(pysup: Pysup, number: signal.Signals) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": script(OBEDIENT), "restart": "always"})) as live:
        live.sees("a     | up")
        live.signal(number)
        assert live.ends() == 0
    assert (
        live.lines[-5:]
        == [
            f"pysup | stopping on {number.name}; once more kills",
            "pysup | a: stopping (SIGTERM)",
            "a     | leaving",
            "pysup | a: exited with status 0",
            "pysup | a: stopped",
            "pysup | stopped",
        ][-5:]
    )
    assert pysup.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_kills(pysup: Pysup, number: signal.Signals) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": script(DEAF), "stop_grace_s": 1000})) as live:
        live.sees("a     | up")
        live.signal(number)
        live.sees("a: stopping (SIGTERM)")
        live.signal(number)
        assert live.ends() == 1
    assert f"killing on {number.name}" in live.text
    assert told(live.text, "killed by SIGKILL") == ["a"]
    assert pysup.left() == []


def test_who_does_not_stop_in_time_is_killed(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": script(DEAF), "stop_grace_s": "50ms"})) as live:
        live.sees("a     | up")
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert told(live.text, "killing: still there after 0.05 s") == ["a"]


def test_a_stop_ends_the_wait_for_a_restart(pysup: Pysup) -> None:
    backoff = {"initial_s": 1000, "max_s": 1000}
    stack = pysup.stack({"id": "a", "cmd": "false", "restart": "always", "backoff": backoff})
    with pysup.live("up", stack) as live:
        live.sees("a: restarting in")
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert told(live.text, "stopped") == ["a"]


def test_a_stack_whose_output_nobody_reads_is_stopped(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script("trap 'exit 0' TERM; while :; do echo more; sleep 0.01; done")})
    with pysup.live("up", stack) as live:
        live.sees("more")
        assert live.process.stdout is not None
        live.process.stdout.close()
        assert live.process.wait(PATIENCE_S) == 0
    assert pysup.left() == []


def test_a_stack_runs_once_at_a_time(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script(OBEDIENT)})
    with pysup.live("up", stack) as live:
        live.sees("a     | up")
        again = pysup("up", stack)
        assert again.status == 125
        assert again.complaint.startswith(f"stack is already running under pid {live.process.pid}")
        assert again.complaint.endswith("`pysup reload -s stack` changes it, `pysup down -s stack` stops it")
        live.signal(signal.SIGINT)
        assert live.ends() == 0


def test_what_a_killed_pysup_left_is_swept(pysup: Pysup) -> None:
    """And what it ran has ended with it."""
    stack = pysup.stack({"id": "a", "cmd": script(DEAF)})
    with pysup.live("up", stack) as live:
        live.sees("a     | up")
        live.signal(signal.SIGKILL)
        live.ends()
    ended = pysup("up", pysup.stack({"id": "b", "cmd": "true"}))
    assert ended.out.startswith("pysup | swept what an earlier run left: ")
    assert (ended.status, pysup.left()) == (0, [])


# --- what is wrong ----------------------------------------------------------------------------------------------------

FAULTY = """\
name: faulty
containers:
  - id: a
    image: nonesuch
    cmd: [true]
    restart: alway
  - id: a
    image: busybox
    cmd: x
    dependson: [b]
"""


def test_all_faults_of_a_spec_are_told_with_their_places(pysup: Pysup) -> None:
    (pysup.directory / "faulty.yaml").write_text(FAULTY)
    ended = pysup("up", "faulty.yaml")
    assert (ended.status, ended.out) == (125, "")
    assert [" ".join(line.split(" ")[:3]) for line in ended.err.splitlines()] == [
        "pysup: faulty.yaml:4:12: containers[0].image:",
        "pysup: faulty.yaml:6:14: containers[0].restart:",
        "pysup: faulty.yaml:7:9: containers[1].id:",
        "pysup: faulty.yaml:10:5: containers[1].dependson:",
    ]
    assert not pysup.state.exists()


def test_an_unknown_user_is_told_with_its_place(pysup: Pysup) -> None:
    (pysup.directory / "s.yaml").write_text("containers:\n- id: a\n  image: busybox\n  cmd: x\n  user: hugo\n")
    ended = pysup("up", "s.yaml")
    assert ended.status == 125
    assert ended.complaint.startswith("s.yaml:5:9: containers[0].user: user 'hugo' is not in")


@pytest.mark.parametrize("name", ["nonesuch.yaml", "/", "/dev/null"])
def test_a_file_that_is_none(pysup: Pysup, name: str) -> None:
    ended = pysup("up", name)
    assert (ended.status, ended.complaint.startswith(name)) == (125, True)


def test_who_is_not_root_is_told_so(pysup: Pysup) -> None:
    ended = pysup.as_nobody("up", pysup.stack({"id": "a", "cmd": "true"}))
    assert (ended.status, "needs root" in ended.complaint) == (125, True)
