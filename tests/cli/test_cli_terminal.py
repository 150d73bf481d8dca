"""`pysup run` and `pysup up` at a real terminal: usable while they run, and as it was afterwards."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import ENVIRONMENT, IMAGE, Pysup, script
from family import in_front
from screen import Screen, at_terminal
from waiting import PATIENCE_S, until

pytestmark = pytest.mark.kernel

WAITING = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"


@contextmanager
def shell(pysup: Pysup, *options: str) -> Iterator[Screen]:
    """A shell in a container; at its prompt."""
    with at_terminal(pysup.argv("run", *options, "c", IMAGE, "sh"), pysup.directory) as screen:
        screen.sees("# ")
        yield screen


# --- in use -----------------------------------------------------------------------------------------------------------


def test_a_shell_has_a_terminal_of_its_own_if_we_have_one(pysup: Pysup) -> None:
    with shell(pysup) as screen:
        assert screen.is_raw
        screen.type("tty; stty size; echo $TERM-$((40 + 2))\n")
        assert screen.sees("xterm-42").splitlines()[1:] == ["/dev/pts/0", "24 80", "xterm-42"]
        screen.type("exit 3\n")
        assert screen.ends() == 3


@pytest.mark.parametrize("options", [(), ("--init",)], ids=["", "init"])
def test_job_control(pysup: Pysup, options: tuple[str, ...]) -> None:
    with shell(pysup, *options) as screen:
        screen.type("sh -c 'echo r''un; exec sleep 1000'\n")
        screen.sees("run\r\n")
        screen.type("\x1a")
        screen.sees("Stopped")
        screen.type("bg; jobs\n")
        screen.sees("Running")
        screen.type("fg\n")
        screen.sees("fg\r\n")
        screen.sees("sleep 1000")
        until(lambda: in_front(screen.process.pid, "sleep"))  # the shell says so before it does it
        screen.type("\x03")
        screen.sees("^C")
        screen.type("echo $?-still-$((40 + 2)); exit 5\n")
        screen.sees("130-still-42\r\n")
        assert screen.ends() == 5


def test_the_size_of_the_window_follows(pysup: Pysup) -> None:
    command = "trap 'stty size; exit 6' WINCH; echo up; while :; do read line; done"
    with at_terminal(pysup.argv("run", "-t", "c", IMAGE, "sh", "-c", command), pysup.directory) as screen:
        screen.sees("up\r\n")
        screen.resize(33, 99)
        screen.sees("33 99")
        assert screen.ends() == 6


def test_without_a_terminal_of_its_own_it_writes_to_ours(pysup: Pysup) -> None:
    command = "test -t 1 && echo ours; tty < /dev/tty || echo none"
    with at_terminal(pysup.argv("run", "-T", "c", IMAGE, "sh", "-c", command), pysup.directory) as screen:
        assert screen.sees("none").splitlines()[0] == "ours"
        assert screen.settings() == screen.settings_before
        assert screen.ends() == 0


def test_stopped_and_continued_by_a_signal(pysup: Pysup) -> None:
    with shell(pysup) as screen:
        screen.signal(signal.SIGTSTP)
        screen.stops()
        assert screen.settings() == screen.settings_before
        screen.signal(signal.SIGCONT)
        screen.type("echo on-$((40 + 2)); exit\r")
        screen.sees("on-42")
        assert screen.ends() == 0


# --- as it was --------------------------------------------------------------------------------------------------------


def assert_restored(screen: Screen, pysup: Pysup) -> None:
    assert screen.settings() == screen.settings_before
    assert pysup.left() == []


def test_the_terminal_is_restored_after_an_exit(pysup: Pysup) -> None:
    with shell(pysup) as screen:
        assert screen.is_raw
        screen.type("exit\n")
        assert screen.ends() == 0
        assert_restored(screen, pysup)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_the_terminal_is_restored_after_signals(pysup: Pysup, number: int) -> None:
    """Process 1 has no handler for any of them but SIGINT, which its shell prints a line for: the second kills."""
    with shell(pysup) as screen:
        screen.signal(number)
        screen.signal(signal.SIGTERM if number == signal.SIGHUP else signal.SIGHUP)
        assert screen.ends() == 128 + signal.SIGKILL
        assert_restored(screen, pysup)


def test_the_terminal_is_restored_after_a_failure_to_start(pysup: Pysup) -> None:
    with at_terminal(pysup.argv("run", "-t", "c", IMAGE, "nonesuch"), pysup.directory) as screen:
        screen.sees("pysup: c: execute nonesuch: not found")
        assert screen.ends() == 127
        assert_restored(screen, pysup)


def test_the_terminal_is_restored_after_a_failure_of_our_own(pysup: Pysup) -> None:
    faulty = (
        "import sys, supervisor.streams.terminal as terminal\n"
        "async def fail(_): raise RuntimeError('as expected')\n"
        "terminal.follow_size = fail\n"
        f"sys.argv = {['pysup', *pysup.argv('run', 'c', IMAGE, 'sh')[3:]]}\n"
        "from supervisor.cli.main import run; run()\n"
    )
    with at_terminal([sys.executable, "-c", faulty], pysup.directory) as screen:
        screen.sees("pysup: internal error: RuntimeError: as expected")
        assert screen.ends() == 125
        assert_restored(screen, pysup)


def test_a_window_that_is_closed_ends_the_container(pysup: Pysup) -> None:
    with shell(pysup, "--stop-grace", "100ms") as screen:
        screen.close()
        screen.process.wait(PATIENCE_S)
        assert pysup.left() == []


# --- pysup up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_stack_has_colour_unless_the_user_wants_none(pysup: Pysup, env: dict[str, str], *, coloured: bool) -> None:
    stack = pysup.stack({"id": "a", "cmd": script("echo hi")})
    with at_terminal(pysup.argv("up", stack), pysup.directory, **env) as screen:
        seen = screen.sees("all containers are done")
        assert ("\x1b[" in seen) == coloured
        assert screen.ends() == 0


def test_ctrl_c_stops_a_stack(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script(WAITING)})
    with at_terminal(pysup.argv("up", stack), pysup.directory) as screen:
        screen.sees("up\r\n")
        screen.type("\x03")
        screen.sees("stopping on SIGINT; once more kills")
        assert screen.ends() == 0
        assert_restored(screen, pysup)


def test_a_stack_can_be_stopped_while_its_terminal_is_paused(pysup: Pysup) -> None:
    stack = pysup.stack({"id": "a", "cmd": script("trap 'exit 0' TERM; echo up; while :; do echo more; done")})
    with at_terminal(pysup.argv("up", stack), pysup.directory) as screen:
        screen.sees("more")
        screen.type("\x13")
        screen.signal(signal.SIGINT)
        screen.process.wait(PATIENCE_S)
        assert pysup.left() == []


# --- tmux -------------------------------------------------------------------------------------------------------------


class Tmux:
    """A tmux server of our own with one pane, whose output we read."""

    def __init__(self, directory: Path) -> None:
        self._socket = str(directory / "tmux")
        self._text = ""
        os.mkfifo(directory / "pane")
        self._output = os.open(directory / "pane", os.O_RDONLY | os.O_NONBLOCK)
        self("new-session", "-d", "-x", "90", "-y", "25", "-c", str(directory), "env PS1=ready: sh")
        self("pipe-pane", f"cat > {directory}/pane")

    def __call__(self, *arguments: str) -> None:
        subprocess.run(["tmux", "-S", self._socket, "-f", "/dev/null", *arguments], env=ENVIRONMENT, check=True)

    def type(self, text: str) -> None:
        self("send-keys", "-l", text)

    def press(self, key: str) -> None:
        self("send-keys", key)

    def sees(self, word: str) -> None:
        """Wait until it shows `word`, and look beyond it the next time."""
        deadline = time.monotonic() + PATIENCE_S
        while word not in self._text:
            assert select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))[0], self._text
            self._text += os.read(self._output, 4096).decode(errors="replace")
        self._text = self._text.partition(word)[2]

    def runs(self, name: str) -> None:
        """Wait until a process of this name, somewhere below the pane's, is in the foreground of its terminal."""
        argv = ["tmux", "-S", self._socket, "list-panes", "-F", "#{pane_pid}"]
        pid = int(subprocess.run(argv, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout)
        until(lambda: in_front(pid, name))

    def close(self) -> None:
        os.close(self._output)
        self("kill-server")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        if os.environ.get("PYSUP_KERNEL") == "must":
            pytest.fail("PYSUP_KERNEL=must, but there is no tmux")
        pytest.skip("no tmux")
    made = Tmux(tmp_path)
    yield made
    made.close()


def test_a_session_in_tmux(pysup: Pysup, tmux: Tmux) -> None:
    run = " ".join(pysup.argv("run", "-t", "c", IMAGE, "sh"))
    tmux.type(
        f"export PYTHONPATH={ENVIRONMENT['PYTHONPATH']}; stty -g > before; {run}; echo st''=$?; stty -g > after\n"
    )
    tmux.sees("# ")
    tmux.type("stty size; sleep 1000\n")
    tmux.sees("25 90")
    tmux.runs("sleep")
    tmux.press("C-z")
    tmux.sees("Stopped")
    tmux("resize-window", "-x", "70", "-y", "20")
    tmux.type("stty size; fg\n")
    tmux.sees("20 70")
    tmux.sees("sleep 1000")
    tmux.runs("sleep")
    tmux.press("C-c")
    tmux.type("exit 9\n")
    tmux.sees("st=9")
    tmux.type("echo us''able\n")
    tmux.sees("usable")
    assert (pysup.directory / "after").read_text() == (pysup.directory / "before").read_text()
