"""Logs outlive their stack, however it ended; and what each driver makes of them, as the user sees it."""

import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Ended, Pysup, script
from waiting import PATIENCE_S, until

pytestmark = pytest.mark.kernel

NOTE = "pysup: stack stack does not run: this is what its containers wrote\n"
SPEAKERS = (
    {"id": "a", "cmd": script("echo one; echo two >&2; printf three")},
    {"id": "b", "cmd": script("echo four"), "depends_on": {"a": {"condition": "completed"}}},
)
ALL = ["a     | one", "a     | three", "a     ! two", "b     | four"]


def logs(pysup: Pysup, *arguments: str) -> Ended:
    return pysup("logs", "--state", str(pysup.state), *arguments)


def gc(pysup: Pysup, *arguments: str) -> str:
    return pysup("gc", "--state", str(pysup.state), "--logs", *arguments).out


def test_what_a_stack_wrote_is_read_when_it_has_ended(pysup: Pysup) -> None:
    assert pysup("up", pysup.stack(*SPEAKERS)).status == 0
    shown = logs(pysup)
    assert (shown.status, shown.err, sorted(shown.out.splitlines())) == (0, NOTE, sorted(ALL))
    assert shown.out.splitlines()[-1] == ALL[-1]
    assert logs(pysup, "--stack", "stack", "b").out == "b     | four\n"
    assert logs(pysup, "-f", "-n", "1", "--no-log-prefix", "b").out == "four\n"
    assert logs(pysup, "-n", "0").out == ""
    assert len(logs(pysup, "--since", "1h").out.splitlines()) == 4
    assert logs(pysup, "--until", "1h").out == ""
    assert logs(pysup, "c").err == NOTE + "pysup: c: no such container; there are a, b\n"
    assert logs(pysup, "--since", "yesterday").err.startswith(NOTE + "pysup: since: 'yesterday' is not a time")


def test_the_next_run_goes_on_with_the_logs(pysup: Pysup) -> None:
    stack = pysup.stack(SPEAKERS[0])
    for _ in range(2):
        assert pysup("up", stack).status == 0
    assert sorted(logs(pysup, "--no-log-prefix").out.splitlines()) == ["one", "one", "three", "three", "two", "two"]


def test_after_a_crash_one_sees_what_happened(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": script("echo up; exec sleep 1000")})) as live:
        live.sees("a     | up")
        kept = pysup.state / "stacks/stack/logs/a/0.log"
        until(lambda: kept.exists() and kept.read_bytes().endswith(b"up\n"))
        live.signal(signal.SIGKILL)
        live.process.wait(PATIENCE_S)
    assert logs(pysup) == Ended(0, "a     | up\n", NOTE)


def test_logs_go_when_one_says_so(pysup: Pysup) -> None:
    assert pysup("up", pysup.stack(*SPEAKERS)).status == 0
    assert gc(pysup, "-n") == "stack stack: would remove its logs, 8 KiB\n"
    assert json.loads(gc(pysup, "-n", "--json"))[0]["log_bytes"] == 8192
    assert gc(pysup) == "stack stack: removed its logs, 8 KiB\n"
    assert list((pysup.state / "stacks").iterdir()) == []
    assert logs(pysup).complaint.startswith("which stack? no stack runs")
    assert gc(pysup) == "nothing is left of any killed supervisor\n"


def test_logs_of_what_runs_stay(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": script("echo up; exec sleep 1000")})) as live:
        live.sees("a     | up")
        assert gc(pysup) == "nothing is left of any killed supervisor\n"


def test_each_driver_keeps_what_it_should(pysup: Pysup) -> None:
    stack = pysup.stack(
        {"id": "raw", "cmd": script("echo raw"), "logs": {"driver": "raw"}},
        {"id": "none", "cmd": script("echo none"), "logs": {"driver": "none"}},
        {"id": "json", "cmd": script("echo json"), "logs": {"driver": "stdout-json"}},
    )
    ended = pysup("up", stack)
    assert logs(pysup).out == "raw   | raw\n"
    assert "none  | none" in ended.out.splitlines()
    assert [json.loads(line)["line"] for line in ended.out.splitlines() if line.startswith("{")] == ["json"]
    assert "raw   | raw" not in ended.out
    kept = pysup.state / "stacks/stack/logs"
    assert sorted(path.relative_to(kept) for path in kept.rglob("*.log")) == [Path("raw/stdout/0.log")]


def test_all_logs_of_a_stack_have_a_limit(pysup: Pysup) -> None:
    flood = script("yes | head -c 400000 | tr -d '\\n' | fold -w 999")
    spec = json.loads(Path(pysup.stack(*({"id": name, "cmd": flood} for name in "abc"))).read_text())
    spec["logs"] = {"max_total": "256k"}
    spec["defaults"]["logs"] = {"max_size": "64k", "max_files": 100}
    (pysup.directory / "stack.yaml").write_text(json.dumps(spec))
    assert pysup("up", "stack.yaml").status == 0
    kept = [path.stat().st_size for path in (pysup.state / "stacks/stack/logs").rglob("*.log")]
    assert 128 << 10 < sum(kept) <= 256 << 10


@pytest.fixture
def run() -> Iterator[Path]:
    """Where control sockets are: short, as a socket's path must be."""
    path = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)  # the last supervisor has removed it


def test_who_follows_sees_each_line_once_over_rotation_compression_and_restarts(pysup: Pysup, run: Path) -> None:
    """A container writes five megabytes in two runs; its files hold 64 KiB and are compressed meanwhile."""
    flood = script("cat /proc/uptime >> /runs; seq 1 50000; test $$(wc -l < /runs) = 2")
    stack = pysup.stack(
        {
            "id": "a",
            "cmd": flood,
            "keep": True,
            "restart": "on-failure",
            "backoff": {"initial_s": 0.1},
            "logs": {"max_size": "64k", "max_files": 100, "compress": True},
        },
        {"id": "b", "cmd": ["sleep", "1000"], "stop_signal": "SIGKILL"},
    )
    with pysup.live("up", "--run", str(run), "--no-log-prefix", stack) as live:
        live.sees("started")
        shown = pysup("logs", "--run", str(run), "-f", "--no-log-prefix", "a").out.split()
        assert [int(line) for line in shown] == [*range(1, 50_001)] * 2
        assert pysup("logs", "--run", str(run), "--no-log-prefix", "a").out.split() == shown
        live.signal(signal.SIGTERM)
        assert live.ends() == 0
    assert logs(pysup, "--no-log-prefix", "a").out.split() == shown
    kept = [path.name for path in (pysup.state / "stacks/stack/logs/a").iterdir()]
    assert len(kept) > 60
    assert sum(name.endswith(".gz") for name in kept) > 50
