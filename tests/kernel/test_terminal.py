"""A container's terminal: its own devpts, job control, the size of the window; driven from the master's side."""

import fcntl
import os
import select
import signal
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from driver import Driver, read_until, wait
from waiting import PATIENCE_S

from runtime.status import Exited
from runtime.users import User

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("init", [False, True], ids=["", "init"])]

APP = User(1000, 1000, (1000,), "app", "/")


class Typist:
    """Somebody at the terminal."""

    def __init__(self, pid: int, master: int) -> None:
        self.pid = pid
        self.master = master

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def sees(self, word: str) -> str:
        """Wait until the screen shows it; returns what came up to then."""
        return read_until(self.master, word)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def sees_the_end(self) -> None:
        """Wait until nobody has the other side open: EIO."""
        while True:
            assert select.select([self.master], [], [], PATIENCE_S)[0], "the terminal stayed open"
            try:
                os.read(self.master, 4096)
            except OSError:
                return


@contextmanager
def at_terminal(driver: Driver, *argv: str, **changes: object) -> Iterator[Typist]:
    """A command with a terminal."""
    with driver.started(driver.config(*argv, terminal=True, **changes)) as (pid, made):
        assert made.terminal is not None
        yield Typist(pid, made.terminal)


def test_it_is_pts_0_of_the_containers_own(driver: Driver, *, init: bool) -> None:
    with at_terminal(driver, "sh", "-c", "tty; ls /dev/pts", init=init) as typist:
        assert typist.sees("ptmx").splitlines() == ["/dev/pts/0", "0     ptmx"]
        assert wait(typist.pid) == Exited(0)


def test_all_three_streams_are_the_terminal_and_it_is_the_controlling_one(driver: Driver, *, init: bool) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo through > /dev/tty"
    with at_terminal(driver, "sh", "-c", script, init=init) as typist:
        typist.sees("through\r\n")
        assert wait(typist.pid) == Exited(0)


def test_it_belongs_to_the_user(driver: Driver, *, init: bool) -> None:
    script = "stat -c '%u:%g %a.' /dev/pts/0; echo again > $(tty)"
    with at_terminal(driver, "sh", "-c", script, init=init, user=APP) as typist:
        assert typist.sees("again").startswith("1000:5 620.")
        assert wait(typist.pid) == Exited(0)


def test_the_size_of_the_window_follows(driver: Driver, *, init: bool) -> None:
    script = "trap 'stty size; exit 6' WINCH; echo up; while :; do read line; done"
    with at_terminal(driver, "sh", "-c", script, init=init) as typist:
        typist.sees("up\r\n")
        typist.resize(40, 100)
        typist.sees("40 100")
        assert wait(typist.pid) == Exited(6)


PROMPT = "/ # "  # the shell reads keys only once this is there: what is typed before may be lost


def test_an_interactive_shell_has_job_control(driver: Driver, *, init: bool) -> None:
    with at_terminal(driver, "sh", init=init) as typist:
        assert "job control" not in typist.sees(PROMPT)  # as in "turned off"
        typist.type("sh -c 'echo r''un; while read word; do echo got-$word; done'\n")
        typist.sees("run\r\n")
        typist.type("\x1a")
        assert "Stopped" in typist.sees(PROMPT)
        typist.type("fg\n")
        typist.sees("done")
        typist.type("again\n")
        typist.sees("got-again\r\n")
        typist.type("\x03")
        typist.sees(PROMPT)
        typist.type("echo $?-still-$((40 + 2)); exit 5\n")
        typist.sees("130-still-42\r\n")
        assert wait(typist.pid) == Exited(5)


def test_ctrl_c_interrupts_the_foreground_and_not_the_shell(driver: Driver, *, init: bool) -> None:
    with at_terminal(driver, "sh", init=init) as typist:
        typist.sees(PROMPT)
        typist.type("sh -c 'echo r''un; exec sleep 1000'\n")
        typist.sees("run\r\n")
        typist.type("\x03")
        typist.sees(PROMPT)
        typist.type("echo $?-still-$((40 + 2)); exit 5\n")
        typist.sees("130-still-42\r\n")
        assert wait(typist.pid) == Exited(5)


def test_the_end_of_the_container_is_the_end_of_the_terminal(driver: Driver, *, init: bool) -> None:
    with at_terminal(driver, "sh", "-c", "sleep 1000 & exit 3", init=init) as typist:
        typist.sees_the_end()
        assert wait(typist.pid) == Exited(3)


def test_hanging_up_ends_the_shell(driver: Driver, *, init: bool) -> None:
    config = driver.config("sh", "-c", "echo up; read line", terminal=True, init=init)
    with driver.started(config) as (pid, made):
        read_until(made.terminal, "up")
        made.close()
        status = wait(pid)
    # Process 1 without a handler ignores SIGHUP (pid_namespaces(7)), and reads an end of file instead.
    assert status == (Exited(128 + signal.SIGHUP) if init else Exited(1))
