"""What a killed supervisor leaves, what the next one does about it, and what a whole one does when nothing happens."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT, Live, Pysup, script
from family import children, end, killed, wakes
from waiting import PATIENCE_S

pytestmark = pytest.mark.kernel

SEED = 20261123
IDLE_S = 2.0


def members(state: Path) -> list[int]:
    """Processes in an overlay of this state directory, and children of none of ours but their namespace's."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                mounts = Path(f"/proc/{entry.name}/mountinfo").read_text(encoding="utf-8")
            except OSError:
                continue
            if f" - overlay {state}/" in mounts:
                found.append(int(entry.name))
    return found


def killed_with_all(live: Live, state: Path) -> None:
    """Those that were being made at that moment included."""
    killed(live)
    while left := members(state):
        end(left)


def services(pysup: Pysup, count: int) -> str:
    crash = {"id": "crash", "cmd": script("exit 1"), "restart": "always", "backoff": {"initial_s": 0}}
    sleep = {"id": "sleep", "cmd": ["sleep", "1000"], "replicas": count, "stop_signal": "SIGKILL"}
    inits = {"id": "init", "cmd": ["sleep", "1000"], "init": True, "user": "1000", "replicas": 3}
    return pysup.stack(crash, sleep, inits)


@pytest.mark.parametrize("moment", range(12))
def test_whenever_it_is_killed_all_ends_and_the_next_one_sweeps(pysup: Pysup, moment: int) -> None:
    lines = random.Random(SEED + moment).randrange(1, 40)
    with pysup.live("up", services(pysup, 30)) as live:
        live.reads(lines)
        killed_with_all(live, pysup.state)
    after = pysup("up", pysup.stack({"id": "after", "cmd": ["true"]}))
    assert after.status == 0
    assert "swept what an earlier run left" in after.out
    assert pysup.left() == []


def test_a_killed_one_while_it_stops_leaves_nothing_to_live(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "stubborn", "cmd": script("trap '' TERM; sleep 1000"), "replicas": 10})
    with pysup.live("up", stack) as live:
        live.sees("containers are up")
        live.signal(signal.SIGINT)
        live.sees("stopping (SIGTERM)")
        killed_with_all(live, pysup.state)


def test_a_container_that_cleared_its_death_signal_is_found_by_the_next(pysup: Pysup, image: Path) -> None:
    outlaw = image / "bin/outlaw"
    if not outlaw.exists():
        source = "#include <sys/prctl.h>\n#include <unistd.h>\n"
        source += 'int main(void) { prctl(PR_SET_PDEATHSIG, 0); write(1, "free\\n", 5); for (;;) pause(); }\n'
        command = ["gcc", "-x", "c", "-static", "-o", str(outlaw), "-"]
        subprocess.run(command, input=source, text=True, check=True)
    with pysup.live("up", pysup.stack({"id": "outlaw", "cmd": ["outlaw"]})) as live:
        live.sees("| free")
        live.signal(signal.SIGKILL)
        live.process.wait(PATIENCE_S)
    (stray,) = members(pysup.state)
    after = pysup("up", pysup.stack({"id": "after", "cmd": ["true"]}))
    assert "1 process, 1 cgroup and the directory of outlaw" in after.out
    end([stray])
    assert pysup.left() == []


def test_a_stack_has_one_supervisor(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": ["sleep", "1000"], "init": True})
    with pysup.live("up", stack) as live:
        live.sees("containers are up")
        second = pysup("up", stack)
        assert second.status == 125
        assert f"stack is already running under pid {live.process.pid}" in second.complaint
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    assert pysup("up", pysup.stack({"id": "a", "cmd": ["true"]})).status == 0


def test_an_idle_stack_never_wakes_up(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": ["sleep", "1000"], "replicas": 50, "init": True})) as live:
        live.sees("containers are up")
        ours = [live.process.pid, *(pid for pid in children(live.process.pid) if is_launcher(pid))]
        assert wakes(ours, IDLE_S) <= 2
        live.signal(signal.SIGINT)
        assert live.ends() == 0


def is_launcher(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"pysup launcher")


def test_a_supervisor_that_was_stopped_for_a_while_loses_nothing(pysup: Pysup) -> None:
    with pysup.live("up", pysup.stack({"id": "a", "cmd": ["sleep", "1000"], "replicas": 20})) as live:
        live.sees("containers are up")
        victims = [pid for pid in children(live.process.pid) if not is_launcher(pid)]
        live.signal(signal.SIGSTOP)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        live.signal(signal.SIGCONT)
        assert live.ends() == 1
        assert live.text.count("killed by SIGKILL") == 20
    assert pysup.left() == []


FULL_DISK = """
import os, subprocess, sys
from runtime import linux
state, *command = sys.argv[1:]
linux.unshare(linux.CLONE_NEWNS)
linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
linux.mount("full", state, "tmpfs", 0, "size=64k,nr_inodes=12")
sys.exit(subprocess.run(command).returncode)
"""


def test_a_full_disk_fails_those_on_it_and_no_others(pysup: Pysup) -> None:
    pysup.state.mkdir()
    disk = {"id": "disk", "cmd": ["true"], "replicas": 4}
    memory = {"id": "memory", "cmd": ["echo", "fine"], "storage": "memory"}
    command = [sys.executable, "-c", FULL_DISK, str(pysup.state), *pysup.argv("up", pysup.stack(disk, memory))]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "memory | fine" in done.stdout
    assert "make upper, work and merged" in done.stdout
    assert "the file system is full" in done.stdout
    assert "left behind" not in done.stdout


FILLED = """
"$@" "$0/fill.json" >"$0/shown" 2>&1 &
until grep -q "| full" "$0/shown"; do sleep 0.01; done
kill -KILL $!
wait $!
"$@" "$0/after.json"
"""


def test_after_a_crash_on_a_full_disk_the_next_one_makes_room(pysup: Pysup) -> None:
    pysup.state.mkdir()
    fill = {"id": "fill", "cmd": script("cat /dev/zero > /big; echo full; sleep 1000")}
    for name, container in (("fill", fill), ("after", {"id": "after", "cmd": script("echo fine > /a; cat /a")})):
        Path(pysup.stack(container)).rename(pysup.directory / f"{name}.json")
    wrapper = [sys.executable, "-c", FULL_DISK.replace("nr_inodes=12", "nr_inodes=60"), str(pysup.state)]
    done = subprocess.run(
        [*wrapper, "sh", "-c", FILLED, str(pysup.directory), *pysup.argv("up")],
        env=ENVIRONMENT,
        cwd=pysup.directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "swept what an earlier run left: 1 cgroup and the directory of fill" in done.stdout, done
    assert "after | fine" in done.stdout
    assert done.returncode == 0
