"""Reload and scale as a user has them: `pysup up` on the real kernel, its files edited, and what becomes of it."""

import json
import os
import resource
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import IMAGE, Ended, Live, Pysup, script
from family import wakes
from screen import at_terminal
from waiting import PATIENCE_S, until

from supervisor.client import Client

pytestmark = pytest.mark.kernel

WAITING = script("trap 'exit 0' TERM; echo up $$HOSTNAME; while :; do sleep 0.02; done")
OTHER = script("trap 'exit 0' TERM; echo other $$HOSTNAME; while :; do sleep 0.02; done")
BROKEN = script("exit 3")
QUICK = {"monitor_s": 0.1}
IDLE_S = 1.0


@dataclass(frozen=True)
class Stage:
    """A stack file, and who edits it."""

    pysup: Pysup
    run: Path

    @property
    def file(self) -> Path:
        return self.pysup.directory / "s.json"

    def write(self, *containers: dict[str, Any], **more: object) -> None:
        entry = {"image": IMAGE, "cmd": WAITING, "stop_grace_s": 5, "update": QUICK}
        self.file.write_text(
            json.dumps({"name": "s", "containers": [{**entry, **each} for each in containers], **more})
        )

    def __call__(self, command: str, *words: str) -> Ended:
        return self.pysup(command, "--run", str(self.run), *words)

    @contextmanager
    def up(self, *options: str, **env: str) -> Iterator[Live]:
        prefix = ["env", *(f"{name}={value}" for name, value in env.items())]
        with self.pysup.live("up", "--run", str(self.run), *options, self.file.name, prefix=prefix) as live:
            live.sees("are up")
            yield live

    def listed(self) -> dict[str, dict[str, Any]]:
        return {each["id"]: each for each in Client(str(self.run / "s/pysup.sock")).get("/pysup/ps")}

    def pids(self) -> dict[str, int]:
        return {name: each["pid"] for name, each in self.listed().items()}

    def states(self) -> dict[str, str]:
        return {name: each["state"] for name, each in self.listed().items()}


@pytest.fixture
def stage(pysup: Pysup) -> Iterator[Stage]:
    run = Path(tempfile.mkdtemp(prefix="pysup-", dir="/tmp"))
    yield Stage(pysup, run)
    shutil.rmtree(run, ignore_errors=True)


def ends_well(stage: Stage, live: Live) -> None:
    live.signal(signal.SIGTERM)
    assert live.ends() == 0, live.text
    assert stage.pysup.left() == []


def test_what_differs_is_changed_and_nothing_else(stage: Stage) -> None:
    stage.write({"id": "db"}, {"id": "web", "depends_on": ["db"]}, {"id": "old"})
    with stage.up() as live:
        before = stage.pids()
        stage.write({"id": "db"}, {"id": "web", "depends_on": ["db"], "cmd": OTHER}, {"id": "a-new-one"})
        dry = stage("reload", "--dry-run")
        assert dry.out.splitlines()[:2] == ["+ a-new-one: new", "- old: removed"]
        assert stage.pids() == before
        assert stage("reload") == dry
        after = stage.pids()
        assert list(after) == ["db", "web", "a-new-one"]
        assert (after["db"] == before["db"], after["web"] == before["web"]) == (True, False)
        live.sees("web       | other web", after="a-new-one | up a-new-one")  # the column of names is wider now
        assert stage("logs", "a-new-one").out == "a-new-one | up a-new-one\n"
        assert stage("reload") == Ended(0, "nothing has changed\n")
        ends_well(stage, live)


def test_what_needs_no_new_run_is_changed_in_the_one_there_is(stage: Stage) -> None:
    stage.write({"id": "web"})
    with stage.up() as live:
        before = stage.pids()
        stage.write({"id": "web", "restart": "always", "output": {"prefix": "the web"}, "health": {"exec": ["true"]}})
        assert stage("reload").out.startswith("= web: goes on running (restart: no -> always, health.exec")
        assert stage.pids() == before
        os.kill(before["web"], signal.SIGKILL)
        live.sees("the web | up web")
        ends_well(stage, live)


def size_of(log: Path) -> int:
    """Of one that may be removed meanwhile."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def test_another_limit_of_all_logs_holds_at_once(stage: Stage) -> None:
    flood = script("trap 'exit 0' TERM; yes | head -c 400000 | fold -w 99; echo done; while :; do sleep 0.02; done")
    small = {"max_size": "64k", "max_files": 100}
    stage.write({"id": "web", "cmd": flood, "logs": small})
    kept = stage.pysup.state / "stacks/s/logs"
    with stage.up() as live:
        live.sees("| done")
        before = stage.pids()
        stage.write({"id": "web", "cmd": flood, "logs": small}, logs={"max_total": "128k"})
        assert stage("reload").out == "= logs of the stack: max_total: none -> 131072\n1 unchanged\n"
        until(lambda: sum(map(size_of, kept.rglob("*.log"))) <= 128 << 10)
        assert stage("logs", "-n", "1", "web").out.endswith("| done\n")
        assert stage.pids() == before
        ends_well(stage, live)


def test_a_faulty_file_changes_nothing_and_says_where(stage: Stage) -> None:
    stage.write({"id": "web"})
    with stage.up() as live:
        before = stage.pids()
        stage.write({"id": "web", "cmd": OTHER, "restart": "sometimes"}, {"id": "new"})
        ended = stage("reload")
        assert ended.status == 125
        assert ended.complaint.startswith("s.json:1:")
        assert 'containers[0].restart: is "sometimes"' in ended.complaint
        live.signal(signal.SIGHUP)
        live.sees("not reloaded: s.json:1:", after="reading the spec again: SIGHUP")
        assert stage.pids() == before
        ends_well(stage, live)


@pytest.mark.parametrize("absolute", [True, False])
def test_the_directory_that_it_was_started_in_may_be_gone(stage: Stage, absolute: bool) -> None:
    gone = stage.pysup.directory / "gone"
    gone.mkdir()
    stage.write({"id": "a"})
    file = str(stage.file) if absolute else f"../{stage.file.name}"
    inside = ("sh", "-c", 'cd gone && exec "$@"', "sh")
    with stage.pysup.live("up", "--run", str(stage.run), file, prefix=inside) as live:
        live.sees("are up")
        gone.rmdir()
        stage.write({"id": "a"}, {"id": "b"})
        done = stage("reload")
        assert (done.status, "is gone, and its paths begin there" in done.err) == (
            (0, False) if absolute else (125, True)
        )
        assert stage.states() == {"a": "running", **({"b": "running"} if absolute else {})}
        ends_well(stage, live)
    assert "internal error" not in live.text


def test_sighup_reloads_and_systemd_is_told(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(stage.run / "notify"))
        systemd.settimeout(PATIENCE_S)
        stage.write({"id": "web"})
        with stage.up(NOTIFY_SOCKET=str(stage.run / "notify")) as live:
            told = [systemd.recv(4096)]
            while b"READY=1" not in told[-1]:
                told.append(systemd.recv(4096))
            stage.write({"id": "web", "cmd": OTHER})
            live.signal(signal.SIGHUP)
            live.sees("reloaded: 1 replaced")
            while b"RELOADING=1" not in told[-1]:
                told.append(systemd.recv(4096))
            assert b"MONOTONIC_USEC=" in told[-1]
            while b"READY=1" not in told[-1]:
                told.append(systemd.recv(4096))
            ends_well(stage, live)


def test_a_terminal_that_hangs_up_stops_the_stack_and_sighup_alone_does_not(stage: Stage) -> None:
    stage.write({"id": "web"})
    argv = stage.pysup.argv("up", "--run", str(stage.run), stage.file.name)
    with at_terminal(argv, stage.pysup.directory) as screen:
        screen.sees("are up")
        screen.signal(signal.SIGHUP)
        screen.sees("reloaded: 1 unchanged")
        screen.close()
        assert screen.process.wait(PATIENCE_S) == 0
    assert stage.pysup.left() == []


def test_one_that_does_not_come_up_brings_all_back(stage: Stage) -> None:
    update = {"on_failure": "rollback"}
    stage.write({"id": "db"}, {"id": "web", "depends_on": ["db"], "update": update})
    with stage.up() as live:
        stage.write({"id": "db", "cmd": OTHER}, {"id": "web", "depends_on": ["db"], "update": update, "cmd": BROKEN})
        ended = stage("reload")
        assert ended.status == 125
        assert ended.err == "pysup: web did not come up: exited with status 3; all is what it was before\n"
        assert "~ db: replaced" in ended.out
        live.sees("all is what it was before the reload")
        assert stage.states() == {"db": "running", "web": "running"}
        assert stage("logs", "-n1", "web").out.split() == ["web", "|", "up", "web"]
        ends_well(stage, live)


def test_a_reload_that_pauses_is_gone_on_with(stage: Stage) -> None:
    stage.write({"id": "db"}, {"id": "web", "depends_on": ["db"]})
    with stage.up():
        before = stage.pids()
        broken = {"id": "db", "cmd": BROKEN, "update": {"monitor_s": 30}}  # however slowly it fails
        stage.write(broken, {"id": "web", "depends_on": ["db"], "cmd": OTHER})
        assert "1 step is left" in stage("reload").err
        assert stage.pids()["web"] == before["web"]
        stage.write({"id": "db"}, {"id": "web", "depends_on": ["db"], "cmd": OTHER})
        assert stage("reload").status == 0
        assert stage.pids()["web"] != before["web"]
        assert stage.states() == {"db": "running", "web": "running"}


def test_start_first_is_never_without_a_run(stage: Stage) -> None:
    serving = script("trap 'exit 0' TERM; echo v$$V; touch /ready; while :; do sleep 0.02; done")
    entry = {"id": "web", "cmd": serving, "ready": {"file": "/ready"}, "restart": "always"}
    entry["update"] = {"order": "start-first"}
    stage.write({**entry, "env": {"V": "1"}})
    with stage.up() as live:
        before = stage.pids()["web"]
        stage.write({**entry, "env": {"V": "2"}})
        assert stage("reload").out == "~ web: replaced (env.V: 1 -> 2)\n1 replaced\n"
        live.sees("reloaded: 1 replaced")
        assert live.text.index("web   | v2") < live.text.index("web+1: stopped")
        assert list(stage.pids()) == ["web"]
        assert stage.pids()["web"] != before
        assert stage("exec", "web", "hostname").out == "web\n"
        os.kill(stage.pids()["web"], signal.SIGKILL)
        live.sees("web   | v2", after="killed by SIGKILL")  # in the directory of its own name again
        ends_well(stage, live)


def test_start_first_is_refused_where_two_runs_cannot_be(stage: Stage) -> None:
    stage.write({"id": "web", "keep": True, "update": {"order": "start-first"}})
    ended = stage.pysup("up", "--run", str(stage.run), stage.file.name)
    assert "containers[0].update.order: is start-first, but with keep: true" in ended.err


def test_scaling_renames_what_runs_and_adds_the_rest(stage: Stage) -> None:
    stage.write({"id": "db", "keep": True}, {"id": "web", "depends_on": ["db"]})
    with stage.up() as live:
        live.sees("web   | up web")
        before = stage.pids()
        assert stage("scale", "web=3", "db=2").out.splitlines()[-1] == "3 new, 2 renamed"
        pids = stage.pids()
        assert list(pids) == ["db.1", "db.2", "web.1", "web.2", "web.3"]
        assert (pids["db.1"], pids["web.1"]) == (before["db"], before["web"])
        assert stage("logs", "web.1").out == "web.1 | up web\n"
        live.sees("web.3 | up web.3")
        assert stage("stop", "web.1").status == 0
        assert stage("reload").out == "nothing has changed\n"
        assert stage("scale", "web=1").status == 0
        assert stage.states() == {"db.1": "running", "db.2": "running", "web": "exited"}
        assert stage("scale", "nonesuch=2").complaint.endswith('have no "nonesuch" to scale, expected one of their ids')
        stage.write({"id": "db", "keep": True}, {"id": "web", "depends_on": ["db"], "replicas": 2})
        assert stage("reload").status == 0
        assert stage.states() == {"db.1": "running", "db.2": "running", "web.1": "exited", "web.2": "running"}
        live.signal(signal.SIGTERM)
        assert live.ends() == 0
        assert sorted(path.name for path in (stage.pysup.state / "stacks/s/kept").iterdir()) == ["db.1", "db.2"]


def test_what_was_made_through_the_api_stays(stage: Stage) -> None:
    stage.write({"id": "web"})
    with stage.up():
        client = Client(str(stage.run / "s/pysup.sock"))
        client.post("/containers/create", {"Image": IMAGE, "Cmd": WAITING}, name="guest")
        client.post("/containers/guest/start")
        before = stage.pids()["guest"]
        stage.write({"id": "new"})
        assert stage("reload").status == 0
        assert stage.pids()["guest"] == before
        stage.write({"id": "new"}, {"id": "guest"})
        assert "guest is the name of a container made through the API" in stage("reload").err


def test_a_watched_file_reloads_however_it_is_changed(stage: Stage) -> None:
    stage.write({"id": "web", "env": {"A": "${A:-0}"}, "env_file": [{"path": "late.env", "required": False}]})
    with stage.up("--watch") as live:
        live.sees("watching")
        stage.write({"id": "web", "env": {"A": "1"}, "env_file": [{"path": "late.env", "required": False}]})
        live.sees("~ web: replaced (env.A: 0 -> 1)")
        live.sees("reloaded: 1 replaced")
        entry = {
            "image": IMAGE,
            "cmd": WAITING,
            "env": {"A": "2"},
            "env_file": [{"path": "late.env", "required": False}],
        }
        swap = stage.pysup.directory / ".s.json.swp"
        swap.write_text(json.dumps({"name": "s", "include": ["more.json"], "containers": [{"id": "web", **entry}]}))
        swap.rename(stage.file)  # as editors do
        live.sees("not reloaded: s.json:1:")
        (stage.pysup.directory / "more.json").write_text(json.dumps({"containers": [{"id": "late", **entry}]}))
        live.sees("+ late: new")
        live.sees("reloaded: 1 new, 1 replaced")
        (stage.pysup.directory / "late.env").write_text("LATE=yes\n")
        live.sees("env.LATE: none -> yes")
        live.sees("2 replaced")
        ends_well(stage, live)


def test_a_watched_stack_knows_all_files_that_its_file_names(stage: Stage) -> None:
    """However they are changed, and though their directory goes for a while."""
    there = stage.pysup.directory / "there"
    there.mkdir()
    base = {"containers": [{"id": "base", "image": IMAGE, "env": {"A": "0"}}]}
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    files = {"secret": "s0", "config": "c0", "seccomp.json": json.dumps(profile), "base.json": json.dumps(base)}
    for name, text in files.items():
        (there / name).write_text(text)
    show = script("trap 'exit 0' TERM; echo $$(cat /run/secrets/s /c) $$A; while :; do sleep 0.02; done")
    extends = {"file": "there/base.json", "id": "base"}
    web = {"id": "web", "cmd": show, "extends": extends, "seccomp": "there/seccomp.json", "secrets": ["s"]}
    more = {"secrets": {"s": {"file": "there/secret"}}, "configs": {"c": {"file": "there/config"}}}
    stage.write({**web, "configs": [{"source": "c", "target": "/c"}]}, **more)
    with stage.up("--watch") as live:
        live.sees("watching 6 files")
        live.sees("web   | s0c0 0")
        (there / "secret").write_text("s1")
        live.sees("web   | s1c0 0")
        swap = there / ".config.swp"
        swap.write_text("c1")
        swap.rename(there / "config")  # as editors do
        live.sees("web   | s1c1 0")
        profile["syscalls"] = [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"}]
        (there / "seccomp.json").write_text(json.dumps(profile))
        live.sees("reloaded: 1 replaced", after="(seccomp: ")
        there.rename(stage.pysup.directory / "away")
        live.sees("not reloaded: s.json:1:")
        (stage.pysup.directory / "away/base.json").write_text(json.dumps(base).replace('"0"', '"9"'))
        (stage.pysup.directory / "away").rename(there)
        live.sees("web   | s1c1 9")
        assert "s1" not in "".join(line for line in live.lines if line.startswith("pysup"))
        ends_well(stage, live)


def test_a_watched_stack_sleeps(stage: Stage) -> None:
    """While nothing happens, nothing wakes it: it is a file that is waited for."""
    stage.write({"id": "idle", "cmd": ["sleep", "1000"], "stop_signal": "KILL"})
    with stage.up("--watch") as live:
        live.sees("watching")
        assert wakes([live.process.pid], IDLE_S) <= 2


def test_what_an_earlier_container_of_the_name_has_kept_changes_places_with_what_is_renamed(stage: Stage) -> None:
    stage.write({"id": "web", "replicas": 2, "keep": True})
    with stage.up() as live:
        stage.write({"id": "web", "keep": True, "cmd": OTHER})
        assert stage("reload").status == 0
        (stage.pysup.state / "stacks/s/kept/web/upper/mine").touch()
        pid = stage.pids()["web"]
        stage.write({"id": "web", "replicas": 2, "keep": True, "cmd": OTHER})
        assert "> web.1: renamed" in stage("reload").out
        assert stage.pids()["web.1"] == pid
        kept = {path.name: (path / "upper/mine").exists() for path in (stage.pysup.state / "stacks/s/kept").iterdir()}
        assert kept == {"web": False, "web.1": True, "web.2": False}
        live.signal(signal.SIGTERM)
        assert live.ends() == 0, live.text


def test_a_reload_for_which_there_is_no_descriptor_is_refused_and_ends_nothing(stage: Stage) -> None:
    stage.write({"id": "web"})
    with stage.up() as live:
        before = resource.prlimit(live.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(live.process.pid, resource.RLIMIT_NOFILE, (4, before[1]))
        live.signal(signal.SIGHUP)
        live.sees("not reloaded: the spec can't be read: too many open files")
        resource.prlimit(live.process.pid, resource.RLIMIT_NOFILE, before)
        assert stage("reload") == Ended(0, "nothing has changed\n")
        ends_well(stage, live)
