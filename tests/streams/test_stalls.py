"""What comes and goes for a while: a terminal that is paused, a supervisor that is stopped. Nothing is lost, and nobody
is restarted or killed for it.
"""

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from command import Live, Pysup, script
from family import children, end
from waiting import PATIENCE_S

pytestmark = pytest.mark.kernel

FLOODS = 50
PIPE_BYTES = 64 * 1024
RESIDENT_MAX_KIB = 128 * 1024
AT_ONCE = {"initial_s": 0, "max_s": 0}


class Gate:
    """Where containers report over the loopback interface, and are kept waiting until they are let go."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._listening.close()

    @property
    def knock(self) -> str:
        """What a container does: it says its name, and waits."""
        return f"hostname | nc 127.0.0.1 {self._listening.getsockname()[1]}"

    def comes(self) -> str:
        """The next that knocks."""
        self._listening.settimeout(PATIENCE_S)
        connection, _ = self._listening.accept()
        self._waiting.append(connection)
        connection.settimeout(PATIENCE_S)
        return connection.makefile().readline().rstrip()

    def open(self) -> None:
        """Let those go who wait."""
        while self._waiting:
            self._waiting.pop().close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as made:
        yield made


def resident_kib(live: Live) -> int:
    status = Path(f"/proc/{live.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def lines_of(container: str, live: Live) -> list[str]:
    return re.findall(rf"^{re.escape(container)} +[|+!] (.*)$", live.text, re.MULTILINE)


def test_a_paused_terminal_loses_nothing_and_holds_up_no_supervision(pysup: Pysup, gate: Gate) -> None:
    """Containers wait that write too much; others are restarted, end and are stopped while nothing can be shown."""
    stack = pysup.stack(
        {"id": "flood", "cmd": ["seq", "100000000"], "replicas": FLOODS},
        {"id": "again", "cmd": script(f"seq 10; {gate.knock}; exit 1"), "restart": "always", "backoff": AT_ONCE},
        {"id": "once", "cmd": script(f"seq 10; {gate.knock}; exit 3")},
        stop_signal="SIGKILL",
    )
    with pysup.live("up", stack) as live:
        came: list[str] = []
        while came.count("again") < 10 or "once" not in came:
            came.append(gate.comes())
            gate.open()
        assert resident_kib(live) < RESIDENT_MAX_KIB
        family = children(live.process.pid)
        live.signal(signal.SIGINT)
        end(family)
        live.text = live.process.communicate(timeout=PATIENCE_S)[0].decode()
        assert live.process.returncode == 1  # as `once` failed
    for number in range(1, FLOODS + 1):
        lines = lines_of(f"flood.{number}", live)[:-1]  # the last may have been cut by the kill
        assert lines == [*map(str, range(1, len(lines) + 1))]
        assert sum(len(line) + 1 for line in lines) > PIPE_BYTES - 16
    assert lines_of("once", live) == [*map(str, range(1, 11))]
    assert lines_of("again", live)[:100] == [*map(str, range(1, 11))] * 10
    assert live.text.index("once: exited with status 3") < live.text.index("stopping on SIGINT")
    assert live.lines[-1].startswith("pysup")
    assert "dropped" not in live.text
    assert "not written" not in live.text
    assert pysup.left() == []


def test_a_supervisor_that_was_stopped_for_a_while_goes_on_as_if_nothing_had_been(pysup: Pysup, gate: Gate) -> None:
    """What was written and what ended meanwhile comes late, but comes; nobody is taken for ill, or restarted twice."""
    stack = pysup.stack(
        {"id": "writes", "cmd": script(f"{gate.knock}; seq 5000; {gate.knock}")},
        {"id": "ends", "cmd": script(f"{gate.knock}; echo bye"), "restart": "always", "backoff": AT_ONCE},
        {"id": "later", "cmd": script(f"{gate.knock}; sleep 2; {gate.knock}")},
        {
            "id": "healthy",
            "cmd": ["sleep", "1000"],
            "health": {"exec": ["true"], "interval_s": 0.1, "timeout_s": 1, "retries": 1},
        },
        stop_signal="SIGKILL",
    )
    with pysup.live("up", stack) as live:
        assert {gate.comes(), gate.comes(), gate.comes()} == {"writes", "ends", "later"}
        live.sees("healthy: healthy")
        live.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, live.process.pid, os.WSTOPPED | os.WNOWAIT)
        gate.open()
        assert {gate.comes(), gate.comes()} == {"writes", "later"}
        live.signal(signal.SIGCONT)
        assert gate.comes() == "ends"
        gate.open()
        assert gate.comes() == "ends"
        live.sees("writes: exited with status 0")
        live.sees("later: exited with status 0")
        while live.text.count("ends: started") < 3:  # it may have knocked before that was told
            live.reads(live.text.count("\n") + 1)
        live.signal(signal.SIGINT)
        assert live.ends() == 0
    before, _, _ = live.text.partition("stopping on SIGINT")
    assert lines_of("writes", live) == [*map(str, range(1, 5001))]
    assert before.count("ends: started") == 3
    assert lines_of("ends", live) == ["bye", "bye"]
    assert not re.search(r"unhealthy|killed by|killing|not ready|given up|could not", before)
    assert pysup.left() == []
