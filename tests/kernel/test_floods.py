"""A container that wants all there is of processes, descriptors, memory, output: what bounds it."""

import fcntl
import os
import select
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from driver import Driver, Result, python, read_all, wait

from runtime import security
from runtime.build import build_plan
from runtime.cgroup.group import Cgroup
from runtime.cgroup.limits import Limits
from runtime.seccomp.load import default_filter
from runtime.status import Exited
from runtime.users import User
from supervisor.state import cgroups

pytestmark = pytest.mark.kernel

USUAL = security.capability_mask((), (), privileged=False)
DEFAULT = default_filter(USUAL)
MEMORY = 1 << 20
FORK_BOMB = """
import os, signal
try:
    for made in range(200):
        if not os.fork(): signal.pause()
except BlockingIOError:
    print("refused", made)
"""


def test_a_fork_bomb_is_bounded_by_nproc(snake: Driver) -> None:
    """Of a user that nobody else has here: the limit counts a user's processes on the whole host."""
    bomb = User(54_321, 54_321, (54_321,), "bomb", "/")
    result = python(snake, FORK_BOMB, user=bomb, rlimits=((6, 20, 20),), seccomp=DEFAULT)
    assert (result.status, result.stdout) == (Exited(0), "refused 19\n"), result


def test_a_descriptor_bomb_hits_its_own_limit(snake: Driver) -> None:
    script = """
import os, errno
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    os.closerange(3, 9999)
    print(errno.errorcode[error.errno], len(held) + 3)
"""
    assert python(snake, script, rlimits=((7, 256, 256),), seccomp=DEFAULT).stdout == "EMFILE 256\n"


def test_a_fork_bomb_is_bounded_by_its_cgroup(snake: Driver, tmp_path: Path) -> None:
    """Whoever it is, and whatever he has on the host."""
    with cgroups.branch(tmp_path) as branch:
        cgroup = branch.cgroup("c", Limits(pids=20))
        assert cgroup is not None
        result = in_cgroup(snake, cgroup, FORK_BOMB)
        assert (result.status, result.stdout) == (Exited(0), "refused 19\n"), result
        snake.launcher.remove(snake._next(), None, cgroup)
        assert snake.reply().error == 0


def in_cgroup(driver: Driver, cgroup: Cgroup, script: str) -> Result:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    config = driver.config("python3", "-c", script, env=(("PATH", path),), memory_bytes=MEMORY, seccomp=DEFAULT)
    whole = build_plan(config, cgroup)
    with driver.requested(whole, more=cgroup.descriptors) as made:
        pid = driver.executed(whole, made)
        said = read_all(made.stdout), read_all(made.stderr)
        return Result(wait(pid), *said)


def test_nobody_inside_is_spared_when_memory_runs_out(state: Path, image: Path) -> None:
    """Whatever our own process was granted by who started it: its containers neither have that nor may take it."""
    before, own = Path("/proc/self/oom_score_adj").read_bytes(), Path("/proc/self/oom_score_adj")
    script = "cat /proc/self/oom_score_adj; echo -1 > /proc/self/oom_score_adj; echo 300 > /proc/self/oom_score_adj"
    try:
        with suppress(PermissionError):  # we have no CAP_SYS_RESOURCE: then nobody has granted us anything
            own.write_text("-500", encoding="ascii")
        with Driver(state, image) as made:
            shown = made.run("sh", "-c", script, memory_bytes=MEMORY)
    finally:
        own.write_bytes(before)
    assert (shown.status, shown.stdout) == (Exited(0), "0\n")
    assert "Permission denied" in shown.stderr


FLOOD = """
import os
line = b"x" * 1023 + b"\\n"
for _ in range(20_000): os.write(1, line)
"""


def test_a_flood_of_output_waits_for_its_reader(snake: Driver) -> None:
    """It fills a pipe, and no memory of ours; what becomes of it on disk is bounded by `logs` (tests/logs)."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    config = snake.config("python3", "-c", FLOOD, env=(("PATH", path),), memory_bytes=MEMORY, seccomp=DEFAULT)
    with snake.started(config) as (pid, made):
        assert made.stdout is not None
        poll, full = select.poll(), fcntl.fcntl(made.stdout, fcntl.F_GETPIPE_SZ)
        poll.register(made.stdout, select.POLLIN)
        while poll.poll(30_000) and queued(made.stdout) + 1024 <= full:
            pass
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        assert len(read_all(made.stdout)) == 20_000 * 1024
        assert wait(pid) == Exited(0)


def queued(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("init", [False, True])
def test_a_flood_of_zombies_goes_with_the_container(snake: Driver, *, init: bool) -> None:
    script = """
import os
for _ in range(500):
    if not os.fork(): os._exit(0)
print("made")
"""
    result = python(snake, script, init=init, seccomp=DEFAULT)
    assert (result.status, result.stdout) == (Exited(0), "made\n")
    pidfd = os.pidfd_open(snake.launcher.pid)
    assert not select.select([pidfd], [], [], 0)[0]
    os.close(pidfd)
