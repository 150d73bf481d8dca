"""`pysup run`: the command's exit status and streams are pysup's own; what is wrong is said in one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT, IMAGE, Ended, Pysup
from waiting import PATIENCE_S

from supervisor.cli.run import _STORAGES
from supervisor.spec import Storage

pytestmark = pytest.mark.kernel

TRAP = "trap 'echo got; exit 5' INT; echo up; while :; do sleep 0.05; done"
DEAF = "trap '' INT TERM; echo up; while :; do sleep 0.05; done"


# --- exit statuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7, 125, 255])
def test_the_exit_status_and_the_output_are_the_commands(pysup: Pysup, code: int) -> None:
    script = f"echo out; echo err >&2; exit {code}"
    assert pysup.run("--", "sh", "-c", script) == Ended(code, "out\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_death_by_signal_is_128_and_the_signals_number(pysup: Pysup, number: int) -> None:
    assert pysup.run("--init", "--", "sh", "-c", f"kill -{number} $$").status == 128 + number


@pytest.mark.parametrize(
    ("program", "status", "why"),
    [
        ("nonesuch", 127, "execute nonesuch: not found"),
        ("/bin/nonesuch", 127, "execute /bin/nonesuch: not found"),
        ("/etc/passwd", 126, "execute /etc/passwd: not executable"),
        ("/etc", 126, "execute /etc: not executable"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--init",)], ids=["", "init"])
def test_a_command_that_cannot_be_executed(
    pysup: Pysup, options: tuple[str, ...], program: str, status: int, why: str
) -> None:
    ended = pysup.run(*options, "--", program)
    assert (ended.status, ended.complaint[: len(why) + 3]) == (status, f"c: {why}")


def test_nothing_is_left_in_the_state_directory(pysup: Pysup) -> None:
    pysup.run("--", "touch", "/x")
    pysup.run("--", "nonesuch")
    assert pysup.left() == []


# --- what it is told --------------------------------------------------------------------------------------------------


def test_the_environment_is_its_own_and_what_it_is_given(pysup: Pysup) -> None:
    options = ("-e", "A=1=2", "-e", "OURS", "-e", "NOT_OURS", "--env", "EMPTY=")
    ended = pysup.run(*options, "--", "env", OURS="from here", SECRET="no")
    own = {"HOME=/root", "HOSTNAME=c", "TERM=xterm", "PYSUP_REPLICA=1"}
    seen = set(ended.out.splitlines())
    assert {line for line in seen if not line.startswith("PATH=")} == {*own, "A=1=2", "OURS=from here", "EMPTY="}


@pytest.mark.parametrize(
    ("options", "script", "out"),
    [
        (("-u", "app"), "id -u; id -g; id -G", "1000\n1000\n1000 44\n"),
        (("--user", "12:34"), "id -u; id -g", "12\n34\n"),
        (("-w", "/etc"), "pwd", "/etc\n"),
        (("--workdir", "/made/here"), "pwd", "/made/here\n"),
        ((), "hostname", "c\n"),
        (("--hostname", "other"), "hostname; cat /etc/hostname", "other\nother\n"),
        (("--network", "none"), "ls /sys/class/net; ping -c 1 127.0.0.1 | grep -c '1 packets received'", "lo\n1\n"),
        (("--storage", "memory", "--storage-size", "1m"), "df -m / | tail -1 | tr -s ' ' | cut -d ' ' -f 2", "1\n"),
        (("--init",), "echo $$", "2\n"),
        ((), "echo $$", "1\n"),
        (("--cap-drop", "ALL", "--cap-add", "KILL"), "grep CapEff /proc/self/status", f"CapEff:\t{1 << 5:016x}\n"),
        (("--umask", "077"), "umask", "0077\n"),
        (("--ulimit", "nofile=64:128"), "ulimit -n; ulimit -Hn", "64\n128\n"),
        (("--ulimit", "core=0", "--ulimit", "nofile=99"), "ulimit -c; ulimit -Hn", "0\n99\n"),
    ],
)
def test_an_option_does_what_it_says(pysup: Pysup, options: tuple[str, ...], script: str, out: str) -> None:
    assert pysup.run(*options, "--", "sh", "-c", script) == Ended(0, out)


def test_limits_hold(pysup: Pysup) -> None:
    eater = "dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?"
    assert pysup.run("--memory", "16m", "--", "sh", "-c", eater).out == "137\n"
    forks = "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done"
    ended = pysup.run("--pids-limit", "4", "--cpus", "0.5", "--", "sh", "-c", forks)
    assert "can't fork" in ended.err


def test_privileged_is_everything(pysup: Pysup) -> None:
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    script = "grep CapBnd /proc/self/status; mount -t tmpfs none /tmp && echo mounted"
    assert pysup.run("--privileged", "--", "sh", "-c", script) == Ended(0, f"{ours}\nmounted\n")


def test_what_it_writes_is_gone_unless_kept(pysup: Pysup) -> None:
    count = "echo x >> /count; wc -l < /count"
    assert [pysup.run("--", "sh", "-c", count).out for _ in range(2)] == ["1\n", "1\n"]
    kept = [pysup.run("--keep", "--", "sh", "-c", count) for _ in range(2)]
    assert [ended.out for ended in kept] == ["1\n", "2\n"]
    (place,) = {ended.err for ended in kept}
    assert place == f"pysup: kept what it wrote in {pysup.state}/single/c/kept/c/upper\n"
    assert (pysup.state / "single/c/kept/c/upper/count").read_text() == "x\nx\n"


def test_what_follows_the_image_is_the_commands(pysup: Pysup) -> None:
    words = ["-t", "--help", "--debug", "--", "-e", "A=1", "", "$HOME *"]
    assert pysup.run("--", "sh", "-c", 'printf "[%s]" "$@"', "sh", *words).out == "".join(f"[{each}]" for each in words)


def test_debug_is_pysups_before_run_and_the_commands_after_it(pysup: Pysup) -> None:
    assert "Traceback" not in pysup.run("--", "nonesuch", "--debug").err
    shown = subprocess.run(
        [sys.executable, "-m", "supervisor", "--debug", *pysup.argv("run", "c", IMAGE, "nonesuch")[3:]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" in shown.stderr
    assert shown.returncode == 127


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "missing argument 'ID'; see pysup run --help"),
        (("c",), "missing argument 'IMAGE'; see pysup run --help"),
        (("c", IMAGE), "missing argument 'CMD...'; see pysup run --help"),
        (("--bogus", "c", IMAGE, "true"), "no such option"),
        (("c", "nonesuch", "true"), "image nonesuch is not in"),
        (("c", "../x", "true"), "image name '../x' is not valid"),
        (("a b", IMAGE, "true"), 'ID: is "a b"'),
        (("../c", IMAGE, "true"), 'ID: is "../c"'),
        (("c", IMAGE, ""), "CMD: "),
        (("-e", "=x", "c", IMAGE, "true"), '--env: variable name "" is not valid'),
        (("-e", "", "c", IMAGE, "true"), '--env: variable name "" is not valid'),
        (("-u", "nobody-here", "c", IMAGE, "true"), "user 'nobody-here' is not in"),
        (("-u", "", "c", IMAGE, "true"), '--user: is ""'),
        (("-u", "1:2:3", "c", IMAGE, "true"), '--user: is "1:2:3"'),
        (("-w", "etc", "c", IMAGE, "true"), '--workdir: is "etc", expected an absolute path'),
        (("--hostname", "a b", "c", IMAGE, "true"), '--hostname: is "a b"'),
        (("--network", "bridge", "c", IMAGE, "true"), "invalid value for '--network'"),
        (("--storage", "tape", "c", IMAGE, "true"), "invalid value for '--storage'"),
        (("--storage-size", "1m", "c", IMAGE, "true"), "--storage-size: has no meaning with storage: disk"),
        (("--storage", "memory", "--storage-size", "1x", "c", IMAGE, "true"), '--storage-size: is "1x"'),
        (("--cap-add", "FLY", "c", IMAGE, "true"), '--cap-add: is "FLY"'),
        (("--cap-drop", "FLY", "c", IMAGE, "true"), '--cap-drop: is "FLY"'),
        (("--umask", "9", "c", IMAGE, "true"), '--umask: is "9"'),
        (("--ulimit", "nofile", "c", IMAGE, "true"), "--ulimit nofile: expected NAME=SOFT[:HARD]"),
        (("--ulimit", "nofiles=1", "c", IMAGE, "true"), "--ulimit nofiles: unknown limit"),
        (("--ulimit", "nofile=--1", "c", IMAGE, "true"), '--ulimit nofile: is "--1"'),
        (("--ulimit", "nofile=2:1", "c", IMAGE, "true"), "--ulimit nofile: has its soft limit above its hard one"),
        (("--memory", "much", "c", IMAGE, "true"), '--memory: is "much"'),
        (("--pids-limit", "0", "c", IMAGE, "true"), "--pids-limit: is 0"),
        (("--cpus", "0", "c", IMAGE, "true"), "--cpus: is 0"),
        (("--stop-grace", "soon", "c", IMAGE, "true"), '--stop-grace: is "soon"'),
        (("-t", "c", IMAGE, "true"), "-t needs a terminal"),
    ],
)
def test_a_fault_is_one_line_that_names_what_was_typed(
    pysup: Pysup, arguments: tuple[str, ...], complaint: str
) -> None:
    ended = pysup("run", *arguments)
    assert ended.status == 125
    assert ended.complaint.startswith(complaint)


def test_all_faults_are_told_at_once(pysup: Pysup) -> None:
    ended = pysup.run("--umask", "9", "--cap-add", "FLY", "-w", "etc", "--", "true")
    assert ended.status == 125
    assert [line.split(":")[1] for line in ended.err.splitlines()] == [" --workdir", " --cap-add", " --umask"]


def test_who_is_not_root_is_told_so(pysup: Pysup) -> None:
    ended = pysup.as_nobody("run", "c", IMAGE, "true")
    assert (ended.status, "needs root" in ended.complaint) == (125, True)


# --- streams ----------------------------------------------------------------------------------------------------------


def test_standard_input_and_output_pass_through_byte_by_byte(pysup: Pysup) -> None:
    data = os.urandom(4 << 20)
    done = pysup.raw("run", "c", IMAGE, "cat", stdin=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")


@pytest.mark.parametrize(
    ("closed", "command", "status"),
    [("<&-", ["cat"], 0), (">&-", ["echo", "x"], 0), ("2>&-", ["sh", "-c", "echo x >&2; exit 4"], 4)],
)
def test_a_stream_that_is_closed_holds_nothing(pysup: Pysup, closed: str, command: list[str], status: int) -> None:
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *pysup.argv("run", "c", IMAGE, *command)]
    done = subprocess.run(shell, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert Ended(done.returncode, done.stdout, done.stderr) == Ended(status, "")


def test_output_that_nobody_reads_ends_the_command(pysup: Pysup) -> None:
    with pysup.live("run", "c", IMAGE, "sh", "-c", "yes 2>/dev/null; echo $? > /dev/stderr") as live:
        live.sees("y\n")
        assert live.process.stdout is not None
        live.process.stdout.close()
        assert live.process.wait(PATIENCE_S) != 0


# --- side by side, and signals ----------------------------------------------------------------------------------------


def test_an_id_runs_once_at_a_time_and_others_beside_it(pysup: Pysup) -> None:
    with pysup.live("run", "c", IMAGE, "sh", "-c", TRAP) as live:
        live.sees("up")
        again = pysup.run("--", "true")
        assert again.status == 125
        assert again.complaint.startswith(f"c is already running under pid {live.process.pid}")
        assert pysup("run", "d", IMAGE, "echo", "beside") == Ended(0, "beside\n")
        live.signal(signal.SIGINT)
        assert live.ends() == 5


def test_a_signal_is_passed_on(pysup: Pysup) -> None:
    with pysup.live("run", "c", IMAGE, "sh", "-c", TRAP) as live:
        live.sees("up")
        live.signal(signal.SIGINT)
        assert (live.ends(), live.lines) == (5, ["up", "got"])


def test_who_ignores_ctrl_c_is_killed_by_the_second_and_the_user_told_so(pysup: Pysup) -> None:
    with pysup.live("run", "c", IMAGE, "sh", "-c", DEAF) as live:
        live.sees("up")
        live.signal(signal.SIGINT)
        live.sees("pysup: c: still there after SIGINT; once more kills\n")
        live.signal(signal.SIGINT)
        assert live.ends() == 128 + signal.SIGKILL
    assert pysup.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_ignores_being_stopped_is_killed_after_the_grace_period(pysup: Pysup, number: int) -> None:
    with pysup.live("run", "--stop-grace", "200ms", "c", IMAGE, "sh", "-c", DEAF) as live:
        live.sees("up")
        live.signal(number)
        assert live.ends() == 128 + signal.SIGKILL
    assert pysup.left() == []


def test_the_storages_of_the_command_line_are_those_of_a_spec() -> None:
    assert list(_STORAGES) == [each.value for each in Storage]
