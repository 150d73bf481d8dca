"""How a run ended is told exactly: every exit code, every signal, with and without an init."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from driver import Driver, children, read_until, wait

from runtime.status import Exited, Signaled, Status

pytestmark = pytest.mark.kernel

# signal(7): what a process survives by default.
HARMLESS = {
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
}
TERMINATING = sorted(signal.valid_signals() - HARMLESS)
IN_MEMORY = 1 << 20  # quicker than a disk, where many are started
NO_CORE = ((4, 0, 0),)  # RLIMIT_CORE
FAULT = "void _start(void) { *(volatile int *)0 = 0; for (;;) {} }"


def test_all_256_exit_codes_come_back(driver: Driver) -> None:
    codes = range(256)
    ends = [driver.run("sh", "-c", f"exit {code}", memory_bytes=IN_MEMORY).status for code in codes]
    assert ends == [Exited(code) for code in codes]


def test_the_exit_code_comes_back_through_an_init(driver: Driver) -> None:
    codes = (*range(4), *range(124, 132), 254, 255)
    assert [driver.run("sh", "-c", f"exit {code}", init=True).status for code in codes] == [*map(Exited, codes)]


def test_every_terminating_signal_comes_back_through_an_init(driver: Driver) -> None:
    def end_by(number: int) -> Status:
        config = driver.config("sleep", "1000", init=True, rlimits=NO_CORE, memory_bytes=IN_MEMORY)
        with driver.started(config) as (pid, _):
            (command,) = children(pid)
            os.kill(command, number)
            return wait(pid)

    assert {number: end_by(number) for number in TERMINATING} == {
        number: Exited(128 + number) for number in TERMINATING
    }


def test_a_command_may_end_itself_by_a_signal(driver: Driver) -> None:
    assert driver.run("sh", "-c", "kill -TERM $$", init=True).status == Exited(128 + signal.SIGTERM)


def test_a_fault_is_a_death_by_signal(driver: Driver, fault: Path) -> None:
    driver.attach(fault)
    layers = (str(fault), str(driver.image))
    assert driver.run("/fault", lowers=layers, rlimits=NO_CORE).status.exit_status == 128 + signal.SIGSEGV
    assert driver.run("/fault", lowers=layers, rlimits=NO_CORE, init=True).status == Exited(128 + signal.SIGSEGV)


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer with a program that writes where nothing is."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    directory = tmp_path_factory.mktemp("fault")
    (directory / "fault.c").write_text(FAULT)
    options = ("-static", "-nostdlib", "-ffreestanding", "-o", directory / "fault")
    subprocess.run(["gcc", *options, directory / "fault.c"], check=True)
    return directory


@pytest.mark.parametrize("init", [False, True])
def test_a_kill_from_outside_is_told(driver: Driver, *, init: bool) -> None:
    with driver.started(driver.config("sleep", "1000", init=init)) as (pid, _):
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == Signaled(signal.SIGKILL)


def test_process_1_gets_the_signals_that_it_has_a_handler_for_and_no_others(driver: Driver) -> None:
    script = "trap 'echo got; exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done"
    with driver.started(driver.config("sh", "-c", script)) as (pid, made):
        read_until(made.stdout, "up\n")
        os.kill(pid, signal.SIGUSR1)  # pid_namespaces(7): ignored
        os.kill(pid, signal.SIGTERM)
        read_until(made.stdout, "got\n")
        assert wait(pid) == Exited(7)


def test_output_written_just_before_the_end_is_all_there(driver: Driver) -> None:
    result = driver.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.status) == ("out\n", "err\n", Exited(3))


def test_a_command_that_ends_before_anybody_looks_is_told_too(driver: Driver) -> None:
    with driver.started(driver.config("false")) as (pid, _):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert wait(pid) == Exited(1)
