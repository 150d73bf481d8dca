"""A terminal with somebody at it, driven from the master's side: pty(7)."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from command import ENVIRONMENT
from waiting import PATIENCE_S

LFLAG = 3  # of what tcgetattr gives


class Screen:
    """A program whose controlling terminal this is."""

    def __init__(self, argv: Sequence[str], directory: Path, **env: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.settings_before = self.settings()
        self.text = ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],  # execs: the process is the command's
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            env={**ENVIRONMENT, **env},
        )
        os.close(slave)

    def settings(self) -> list[object]:
        """Of the terminal: the master's are the other side's."""
        return list(termios.tcgetattr(self.master))

    @property
    def is_raw(self) -> bool:
        flags = termios.tcgetattr(self.master)[LFLAG]
        return not flags & (termios.ICANON | termios.ISIG | termios.ECHO)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def sees(self, word: str) -> str:
        """Wait until it shows `word`; returns what came up to its end, and looks beyond it the next time."""
        deadline = time.monotonic() + PATIENCE_S
        while word not in self.text:
            assert self._read(deadline - time.monotonic()), f"{word!r} did not come: {self.text!r}"
        seen, word, self.text = self.text.partition(word)
        return seen + word

    def ends(self) -> int:
        """Read to the end; returns the exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_S)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stops(self) -> None:
        """Wait until the program was stopped by a signal."""
        result = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        assert result is not None
        assert result.si_code == os.CLD_STOPPED

    def close(self) -> None:
        """Close the window: the kernel hangs up."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def _read(self, limit_s: float) -> bool:
        assert select.select([self.master], [], [], max(0.0, limit_s))[0], f"nothing more came: {self.text!r}"
        try:
            chunk = os.read(self.master, 4096)
        except OSError:  # EIO: nobody has the other side open
            return False
        self.text += chunk.decode(errors="replace")
        return True


@contextmanager
def at_terminal(argv: Sequence[str], directory: Path, **env: str) -> Iterator[Screen]:
    """The program has ended afterwards, whatever happens."""
    screen = Screen(argv, directory, **env)
    try:
        yield screen
    finally:
        screen.signal(signal.SIGKILL)
        screen.process.wait(PATIENCE_S)
        screen.close()


def is_at_work(screen: Screen) -> None:
    """A shell is at its prompt: it hears of another size, what it runs gets Ctrl-C, and all is left as it was."""
    screen.resize(30, 100)
    screen.type('sh -c \'trap "echo cau""ght; exit" INT; echo star""ted; while :; do sleep 0.05; done\'\n')
    screen.sees("started")
    screen.type("\x03")
    screen.sees("caught")
    screen.sees("# ")
    screen.type("stty size; exit 4\n")
    screen.sees("30 100")
    assert screen.ends() == 4
    assert screen.settings() == screen.settings_before
