"""Whose death takes whom along: a launcher's nobody, the supervisor's everybody."""

import json
import mmap
import os
import select
import signal
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from driver import Driver, LaunchError, apart, children, read_until, wait
from waiting import PATIENCE_S

from runtime import linux, program
from runtime.build import build_plan
from runtime.errors import LauncherLostError
from runtime.lower import FD_STDIN, SUPERVISOR_THREAD
from runtime.status import Exited

pytestmark = pytest.mark.kernel

FUTEX_OWNER_DIED = 0x4000_0000  # include/uapi/linux/futex.h
IN_MEMORY = 1 << 20  # a container that leaves nothing for its launcher to remove


@pytest.mark.parametrize("init", [False, True])
def test_containers_live_on_when_their_launcher_is_killed(driver: Driver, *, init: bool) -> None:
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait $!; done"
    config = driver.config("sh", "-c", script, init=init, memory_bytes=IN_MEMORY)
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up\n")
        os.kill(driver.launcher.pid, signal.SIGKILL)
        os.waitid(os.P_PID, driver.launcher.pid, os.WEXITED | os.WNOWAIT)
        os.kill(pid, signal.SIGTERM)
        assert wait(pid) == Exited(7)


def test_a_launcher_that_was_killed_is_told_once_its_socket_is_read(driver: Driver) -> None:
    os.kill(driver.launcher.pid, signal.SIGKILL)
    with pytest.raises(LauncherLostError, match=f"^launcher {driver.launcher.pid} ended unexpectedly$"):
        driver.reply()
    with pytest.raises(LauncherLostError, match=f"^launcher {driver.launcher.pid} is gone$"):
        driver.launcher.remove(1, "/nowhere")


def test_a_launcher_ends_quietly_with_its_socket_though_replies_were_not_read(
    capfd: pytest.CaptureFixture[str], driver: Driver
) -> None:
    for number in range(3):
        driver.launcher.remove(number, "/nowhere")
    driver.launcher.close()
    ended = os.waitid(os.P_PID, driver.launcher.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    assert capfd.readouterr() == ("", "")


SUPERVISOR = """
import json, sys
from contextlib import ExitStack
from pathlib import Path
from driver import Driver, read_until
from runtime.users import User

def main(state: Path, image: Path) -> None:
    app = User(1000, 1000, (1000,), "app", "/")
    kinds = [{}, {"init": True}, {"user": app}, {"user": app, "init": True}, {"memory_bytes": 1 << 20}]
    with ExitStack() as stack:
        pids = []
        for in_python in (False, True):
            driver = stack.enter_context(Driver(state, image, in_python=in_python))
            pids.append(driver.launcher.pid)
            for number, kind in enumerate(kinds):
                directory = str(state / f"{in_python}-{number}")
                config = driver.config("sh", "-c", "sleep 1000 & echo up; wait", directory=directory, **kind)
                pid, made = stack.enter_context(driver.started(config))
                read_until(made.stdout, "up")
                pids.append(pid)
        print(json.dumps(pids), flush=True)
        sys.stdin.read()

main(*map(Path, sys.argv[1:]))
"""


def test_the_supervisors_death_is_the_death_of_all_that_it_started(state: Path, image: Path) -> None:
    with apart(SUPERVISOR, str(state), str(image)) as supervisor, ExitStack() as stack:
        assert supervisor.stdout is not None
        pids = json.loads(supervisor.stdout.readline())
        everybody = [*pids, *(descendant for pid in pids for descendant in descendants(pid))]
        assert len(everybody) == 2 + 10 + 10 + 4  # launchers, first processes, sleepers, commands of the inits
        pidfds = [os.pidfd_open(pid) for pid in everybody]
        for descriptor in pidfds:
            stack.callback(end, descriptor)
        supervisor.kill()
        waiting = set(pidfds)
        while waiting:
            ended, _, _ = select.select(waiting, [], [], PATIENCE_S)
            assert ended, f"{len(waiting)} of {len(everybody)} live on"
            waiting -= set(ended)


def end(pidfd: int) -> None:
    """Kill what should be dead already, so that a failed test leaves nothing behind."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


def test_a_container_is_not_started_for_a_supervisor_that_is_dead(driver: Driver) -> None:
    plan = build_plan(driver.config("echo", "executed"))
    with driver.requested(plan, of_another) as made, pytest.raises(LaunchError) as raised:
        driver.executed(plan, made)
    assert str(raised.value) == "c: tie its life to the supervisor's: the supervisor is gone"


def of_another(image: bytes) -> bytes:
    """The program, but it takes a number that is no thread's for that of the supervisor's."""
    _, calls, _, data, pointers, descriptors, *_ = program.HEADER.unpack_from(image)
    start = program.HEADER.size + calls * program.CALL.size + data + pointers * 4
    end = start + descriptors * program.PAIR.size
    pairs = [
        (place, FD_STDIN if which == SUPERVISOR_THREAD else which)
        for place, which in program.PAIR.iter_unpack(image[start:end])
    ]
    return image[:start] + b"".join(program.PAIR.pack(*pair) for pair in pairs) + image[end:]


def test_a_thread_that_ends_leaves_word_though_others_of_its_process_live() -> None:
    """A child that looked at something of the process's, a socket or a pidfd, would not know yet, and outlive it."""
    page = os.memfd_create("word")
    os.truncate(page, mmap.PAGESIZE)
    numbers: list[int] = []

    def live() -> None:
        numbers.append(threading.get_native_id())
        linux.leave_word(page, numbers[0])
        numbers.append(word(page))

    thread = threading.Thread(target=live)
    thread.start()
    thread.join()
    while Path(f"/proc/self/task/{numbers[0]}").exists():
        os.sched_yield()
    assert numbers[0] == numbers[1]
    assert word(page) == FUTEX_OWNER_DIED
    os.close(page)


def word(page: int) -> int:
    return int.from_bytes(os.pread(page, 4, linux.ROBUST_WORD), sys.byteorder)
