"""Filters in force: what a process in a container gets for calls that its profile refuses, and that ordinary programs
do not notice the default.
"""

import errno
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bpf_machine import Machine
from driver import Driver, LaunchError, kill, read_all, read_until, wait
from probing import probe

from runtime import linux, security, spawn, streams
from runtime.build import build_plan
from runtime.config import Network
from runtime.enter import build_entry
from runtime.images.from_host import create
from runtime.lower import lower_plan
from runtime.plan import InstallSeccomp
from runtime.seccomp.calls import AUDIT, X32_BIT, numbers
from runtime.seccomp.filter import Filter
from runtime.seccomp.load import default_filter, parse_profile
from runtime.seccomp.profile import DATA, ERRNO, kind
from runtime.status import Exited, Signaled
from runtime.users import User

pytestmark = pytest.mark.kernel

APP = User(1000, 1000, (1000,), "app", "/home/app")
USUAL = security.capability_mask((), (), privileged=False)
EVERY = security.capability_mask((), (), privileged=True)
DEFAULT = default_filter(USUAL)
MINUS_ONE = ((1 << 64) - 1,) * 6


def refused(arch: str) -> dict[int, int]:
    """The calls of an architecture that the default refuses whatever they ask, with the errno. Not uprobe(2), which is
    the kernel's own business, and which it keeps from filters (kernel/seccomp.c).
    """
    machine = Machine(DEFAULT.code)
    verdicts = {number: machine.verdict(AUDIT[arch], number, MINUS_ONE) for number in numbers(arch).values()}
    return {
        number: verdict & DATA
        for number, verdict in verdicts.items()
        if kind(verdict) == ERRNO and number != numbers(arch).get("uprobe")
    }


def test_every_refused_call_gets_its_errno_whatever_capabilities_there_are(driver: Driver) -> None:
    """With all capabilities nothing but the filter stands in the way."""
    expected = {str(number): code for number, code in refused(linux.MACHINE).items()}
    assert len(expected) > 60
    assert probe(driver, *expected, seccomp=DEFAULT, capabilities=EVERY) == expected
    assert probe(driver, *expected, capabilities=EVERY) != expected


@pytest.mark.skipif(linux.MACHINE != "x86_64", reason="of x86-64")
def test_32_bit_calls_are_judged_by_their_own_numbers(driver: Driver) -> None:
    expected = {f"i{number}": code for number, code in refused("x86").items()}
    assert len(expected) > 60
    assert probe(driver, *expected, "i20", seccomp=DEFAULT, capabilities=EVERY) == {**expected, "i20": 0}
    alone = parse_profile('{"defaultAction": "SCMP_ACT_ALLOW"}', "p", 0)
    assert probe(driver, "i20", seccomp=alone) == {"i20": -signal.SIGSYS}


@pytest.mark.skipif(linux.MACHINE != "x86_64", reason="of x86-64")
def test_calls_of_x32_are_not_there(driver: Driver) -> None:
    calls = [str(X32_BIT | number) for number in (0, 39, 165, 520)]
    assert probe(driver, *calls, seccomp=DEFAULT) == dict.fromkeys(calls, errno.ENOSYS)


def test_sockets_personalities_and_namespaces(driver: Driver) -> None:
    number = numbers(linux.MACHINE)
    words = {
        f"{number['socket']}:38": errno.EPERM,  # AF_ALG
        f"{number['socket']}:40": errno.EPERM,  # AF_VSOCK
        f"{number['personality']}:0x0040000": errno.EPERM,  # ADDR_NO_RANDOMIZE
        f"{number['personality']}:0xffffffff": 0,
        f"{number['clone']}:0x10000000": errno.EPERM,  # CLONE_NEWUSER
        f"{number['clone3']}": errno.ENOSYS,
        f"{number['unshare']}:0x10000000": errno.EPERM,
        f"{number['keyctl']}": errno.EPERM,
        f"{number['io_uring_setup']}": errno.EPERM,
    }
    assert probe(driver, *words, seccomp=DEFAULT, user=APP) == words


@pytest.mark.parametrize("changes", [{}, {"user": APP}, {"init": True}, {"network": Network.NONE, "workdir": "/srv/w"}])
def test_a_filtered_container_shows_it_and_works(driver: Driver, changes: dict[str, object]) -> None:
    script = "grep -E '^Seccomp' /proc/self/status | tr -d '\\t'; ls / | wc -l; (sleep 0; exit 3) || echo $?; id -u"
    result = driver.run("sh", "-c", script, seccomp=DEFAULT, **changes)
    assert result.status == Exited(0), result
    assert result.stdout.split()[:2] == ["Seccomp:2", "Seccomp_filters:1"]
    assert "\n3\n" in result.stdout


def test_without_a_profile_there_is_no_filter(driver: Driver) -> None:
    assert driver.run("grep", "^Seccomp:", "/proc/self/status").stdout == "Seccomp:\t0\n"
    assert not [step for step in build_plan(driver.config("true")).steps if isinstance(step, InstallSeccomp)]


def test_it_is_the_last_step_but_execve(driver: Driver) -> None:
    """A profile needs to permit nothing that we do ourselves."""
    names = [type(step).__name__ for step in build_plan(driver.config("true", seccomp=DEFAULT)).steps]
    assert names[-2:] == ["InstallSeccomp", "Exec"]
    ours = "capset close_range mount pivot_root ppoll prctl setgroups setresgid setresuid setsid umask unshare".split()
    rule = {"names": ours, "action": "SCMP_ACT_ERRNO"}
    strict = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    filtered = parse_profile(json.dumps(strict), "strict", 0)
    assert driver.run("echo", "works", seccomp=filtered, user=APP).stdout == "works\n"


def test_a_privileged_container_can_have_a_filter_and_no_no_new_privs(driver: Driver) -> None:
    filtered = default_filter(EVERY)
    show = driver.run(
        *("grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status"),
        privileged=True,
        capabilities=EVERY,
        user=APP,
        seccomp=filtered,
    )
    assert show.stdout.split() == ["NoNewPrivs:", "0", "Seccomp:", "2"]


def test_a_command_in_a_running_container_has_the_filter_too(driver: Driver) -> None:
    config = driver.config("sh", "-c", "echo up; exec sleep 1000", memory_bytes=1 << 20, seccomp=DEFAULT)
    with driver.started(config) as (pid, made):
        read_until(made.stdout, "up")
        pidfd = os.pidfd_open(pid)
        number = numbers(linux.MACHINE)["keyctl"]
        entry = build_entry(replace(config, memory_bytes=None), ("probe", str(number)))
        inner = streams.pipes(driver._null, entry.owner)
        driver.launcher.enter(
            driver._next(), entry, lower_plan(entry).image, (*inner.theirs, pidfd), in_python=driver.in_python
        )
        inner.close_theirs()
        reply = driver.reply()
        assert reply.error == 0, spawn.launch_error(entry, reply.call, reply.error)
        assert read_all(inner.stdout) == f"{number} {errno.EPERM}\n"
        assert wait(reply.pid) == Exited(0)
        inner.close()
        os.close(pidfd)
        kill(pid)
        assert wait(pid) == Signaled(signal.SIGKILL)


def test_who_may_not_execute_is_told(driver: Driver) -> None:
    refusing = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}]}
    with pytest.raises(LaunchError, match=r"^c: execute true: not permitted: does its seccomp profile permit execve"):
        driver.run("true", seccomp=parse_profile(json.dumps(refusing), "p", 0))


def test_what_the_kernel_does_not_take_is_told(driver: Driver) -> None:
    with pytest.raises(
        LaunchError, match=r"^c: install the seccomp filter of 1 instructions: this kernel has no seccomp"
    ):
        driver.run("true", seccomp=Filter(bytes(8)))


def test_the_fields_profile_is_in_force(driver: Driver, shipped: Path) -> None:
    filtered = parse_profile(shipped.read_text(), str(shipped), USUAL)
    number = numbers(linux.MACHINE)
    words = {str(number["kexec_load"]): errno.EPERM, str(number["io_uring_setup"]): errno.ENOSYS}
    assert probe(driver, *words, seccomp=filtered, capabilities=EVERY) == words


def test_thousands_of_programs_share_one_filter(driver: Driver) -> None:
    first, second = (build_plan(driver.config("true", id=name, seccomp=default_filter(USUAL))) for name in "ab")
    one, other = (next(step for step in plan.steps if isinstance(step, InstallSeccomp)) for plan in (first, second))
    assert one.filter is other.filter
    with_it, without = (lower_plan(build_plan(driver.config("true", seccomp=one))).image for one in (DEFAULT, None))
    assert len(with_it) - len(without) < len(DEFAULT.code) + 200


# --- ordinary programs -----------------------------------------------------------------------------------------------

ORDINARY = """
import asyncio, concurrent.futures, ctypes, fcntl, hashlib, mmap, multiprocessing, os, pathlib, pty, resource, secrets
import select, shutil, signal, socket, sqlite3, subprocess, tempfile, threading, time

assert subprocess.run(["/bin/sh", "-c", "echo $((6*7))"], capture_output=True, check=True).stdout == b"42\\n"
assert subprocess.Popen(["/bin/sh", "-c", "exit 3"], close_fds=False).wait() == 3  # vfork
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(lambda n: n * n, range(100))) == 328350
with multiprocessing.Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
async def echo():
    async def serve(reader, writer):
        writer.write(await reader.read(5)); writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello")
    assert await reader.read() == b"hello"
    writer.close(); server.close()
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "echo x", stdout=-1)
    assert (await process.communicate())[0] == b"x\\n"
asyncio.run(echo())
where = pathlib.Path(tempfile.mkdtemp())
data = sqlite3.connect(where / "db"); data.execute("create table t (a)"); data.execute("insert into t values (1)")
data.commit(); data.close()
with open(where / "f", "wb+") as file:
    fcntl.flock(file, fcntl.LOCK_EX); file.write(secrets.token_bytes(5000)); file.flush(); os.fsync(file)
    mmap.mmap(file.fileno(), 5000).close()
os.link(where / "f", where / "g"); os.symlink("g", where / "h"); os.chmod(where / "f", 0o600); os.utime(where / "f")
os.setxattr(where / "f", "user.x", b"1") if hasattr(os, "nope") else None
shutil.copy2(where / "f", where / "i"); os.rename(where / "i", where / "j"); shutil.rmtree(where)
ends = socket.socketpair(); socket.send_fds(ends[0], [b"x"], [0]); socket.recv_fds(ends[1], 1, 1)
master, slave = pty.openpty(); assert os.isatty(slave)
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.001); signal.pause()
resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.sched_yield(); os.nice(1); os.getloadavg(); os.uname()
poll = select.epoll(); poll.register(ends[0]); poll.poll(0)
os.memfd_create("x"); os.eventfd(0); os.pidfd_open(os.getpid()); os.getrandom(8); os.statvfs("/")
pid = os.fork()
if not pid: os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
if os.getuid() == 0: os.chown("/tmp", 0, 0); os.setgroups([5]); os.setresgid(5, 5, 5); os.setresuid(5, 5, 5)
print("all well")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with the Python that runs this test."""
    return Path(create("python", tmp_path_factory.mktemp("images"), ["sh"], python=True).path)


def test_an_ordinary_program_does_not_notice_the_default(python: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with Driver(state, python) as driver:
        result = driver.run(
            *("python3", "-c", ORDINARY),
            env=(("PATH", f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"),),
            network=Network.NONE,
            memory_bytes=64 << 20,
            seccomp=DEFAULT,
        )
    assert (result.status, result.stdout) == (Exited(0), "all well\n"), result.stderr


def test_the_applets_of_busybox_do_not_notice_the_default(driver: Driver) -> None:
    script = """
        echo a b | tr a-z A-Z; seq 3 | sort -r | head -1; mkdir -p /tmp/d/e
        cp /etc/passwd /tmp/d/e; mv /tmp/d /tmp/f
        find /tmp/f -name passwd | wc -l; chmod 600 /tmp/f/e/passwd; ln -s passwd /tmp/f/e/l; stat -c %a /tmp/f/e/passwd
        df / >/dev/null; ps >/dev/null; (sleep 1000 & kill $!; wait $!) || true
        dd if=/dev/zero of=/tmp/z bs=64k count=4
        ping -c1 -w2 127.0.0.1 >/dev/null && echo ping; mknod /tmp/p p
        cat /tmp/p & echo through > /tmp/p; wait; hostname
    """
    result = driver.run("sh", "-ec", script, network=Network.NONE, seccomp=DEFAULT)
    assert result.status == Exited(0), result
    assert result.stdout.split() == ["A", "B", "3", "1", "600", "ping", "through", "c"]
