"""pysup as its users run it: a process of its own, with images and a state directory that no other test has."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "busybox"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "TERM": "xterm",
    "LC_ALL": "C.UTF-8",
    "PYSUP_STATE": "/proc/none",  # whoever needs a state directory makes one; the host's own may be full of anything
}


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str = ""

    @property
    def complaint(self) -> str:
        """The one line on standard error, which is pysup's; there must be no other, and nothing on standard output."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("pysup: ")
        return line.removeprefix("pysup: ")


class Live:
    """A command that runs; its standard output and error are read together."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.text = ""
        self._bytes = b""

    def sees(self, word: str, *, after: str = "") -> None:
        """Wait until it has written `word`, somewhere after `after`."""
        deadline = time.monotonic() + PATIENCE_S
        while word not in self.text[self.text.index(after) :] if after in self.text else True:
            assert self._read(deadline - time.monotonic()), f"{word!r} did not come: {self.text}"

    def reads(self, lines: int) -> None:
        """Wait until it has written so many lines."""
        deadline = time.monotonic() + PATIENCE_S
        while self.text.count("\n") < lines:
            assert self._read(deadline - time.monotonic()), f"only this came: {self.text}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Read to the end; returns the exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_S)

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def _read(self, limit_s: float) -> bool:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], max(0.0, limit_s))[0], f"nothing more came: {self.text}"
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        self._bytes += chunk
        self.text = self._bytes.decode(errors="replace")
        return bool(chunk)


@dataclass(frozen=True)
class Pysup:
    """The command, with its places."""

    images: Path
    directory: Path  # it runs there
    patience_s: float = PATIENCE_S

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def argv(self, command: str, *arguments: str) -> list[str]:
        places = ("--images", str(self.images), "--state", str(self.state)) if command in {"run", "up"} else ()
        return [sys.executable, "-m", "supervisor", command, *places, *arguments]

    def __call__(self, command: str, *arguments: str, stdin: bytes = b"", **env: str) -> Ended:
        """Run it to its end."""
        done = self.raw(command, *arguments, stdin=stdin, **env)
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def raw(self, command: str, *arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        """The same, in bytes."""
        return subprocess.run(
            self.argv(command, *arguments),
            cwd=self.directory,
            env={**ENVIRONMENT, **env},
            input=stdin,
            capture_output=True,
            timeout=self.patience_s,
            check=False,
        )

    def as_nobody(self, command: str, *arguments: str) -> Ended:
        """The same without root, but able to read what is for root's eyes only: pysup may be installed there.

        capabilities(7): a change of the fsuid to 0 gives back the capabilities that concern files, and no others.
        """
        drop = (
            "import ctypes, os, sys\n"
            "os.setgroups([]); os.setresuid(65534, 65534, 0); ctypes.CDLL(None).setfsuid(0)\n"
            f"sys.argv = {['pysup', *self.argv(command, *arguments)[3:]]}\n"
            "from supervisor.cli.main import run; run()\n"
        )
        argv = [sys.executable, "-c", drop]
        done = subprocess.run(argv, cwd=self.directory, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, *arguments: str, stdin: bytes = b"", **env: str) -> Ended:
        """`pysup run`, options, and a command in a container `c` of busybox: `run("-e", "A=1", "--", "env")`."""
        split = arguments.index("--")
        return self("run", *arguments[:split], "c", IMAGE, *arguments[split + 1 :], stdin=stdin, **env)

    def stack(self, *containers: dict[str, Any], **defaults: object) -> str:
        """A stack file (JSON is YAML)."""
        spec = {"name": "stack", "defaults": {"image": IMAGE, **defaults}, "containers": containers}
        path = self.directory / "stack.yaml"
        path.write_text(json.dumps(spec))
        return str(path)

    @contextmanager
    def live(self, command: str, *arguments: str, prefix: Sequence[str] = ()) -> Iterator[Live]:
        """Start it; whatever happens, it has ended afterwards."""
        process = subprocess.Popen(
            [*prefix, *self.argv(command, *arguments)],
            cwd=self.directory,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with process:
            try:
                yield Live(process)
            finally:
                process.send_signal(signal.SIGKILL)

    def left(self) -> list[Path]:
        """What is in the state directory beyond the places of stacks, and their logs, which outlive them."""
        homes = [path for kind in ("stacks", "single") for path in (self.state / kind).glob("*")]
        return [home for home in homes if {path.name for path in home.iterdir()} - {"logs"} or not any(home.iterdir())]


def script(text: str) -> list[str]:
    """A container's `cmd`."""
    return ["sh", "-c", text]
