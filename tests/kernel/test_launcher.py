"""The launcher: what it sees and holds, that it does not grow, and that no request can take it down."""

import errno
import os
import select
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from driver import Driver, LaunchError, wait
from waiting import PATIENCE_S

from runtime import launcher, program, spawn
from runtime.build import build_plan
from runtime.lower import lower_plan
from runtime.spawn import Reply
from runtime.status import Exited

pytestmark = pytest.mark.kernel

IN_MEMORY = 1 << 20  # quicker than a disk, where many are started
GROWTH_MAX_KIB = 128
TWIN_MAX_KIB = 1024


def proc(driver: Driver, name: str) -> Path:
    return Path(f"/proc/{driver.launcher.pid}/{name}")


def status_field(driver: Driver, name: str) -> str:
    """A field of the launcher's /proc/PID/status."""
    for line in proc(driver, "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":", 1)[1].strip()
    raise AssertionError(name)


# --- what it is ------------------------------------------------------------------------------------------------------


def test_it_sees_nothing_of_the_hosts_mounts_but_state_and_images(driver: Driver) -> None:
    lines = proc(driver, "mountinfo").read_text(encoding="utf-8").splitlines()
    mounts = {fields[4]: fields[-3:-1] for fields in (line.split() for line in lines)}
    assert set(mounts) == {"/", str(driver.state), str(driver.image)}
    assert len(lines) == len(mounts)
    assert mounts["/"] == ["tmpfs", "pysup"]


def test_its_root_is_not_the_hosts(driver: Driver) -> None:
    assert {path.name for path in proc(driver, "root").iterdir()} == {".scratch", ".layers", driver.state.parts[1]}


def test_nothing_mounted_there_comes_back_to_the_host(driver: Driver) -> None:
    assert "shared:" not in proc(driver, "mountinfo").read_text(encoding="utf-8")
    assert "master:" not in proc(driver, "mountinfo").read_text(encoding="utf-8")


def test_it_has_one_thread(driver: Driver) -> None:
    assert status_field(driver, "Threads") == "1"


def test_all_its_signals_have_their_default_effect(driver: Driver) -> None:
    driver.run("true")
    assert [int(status_field(driver, name), 16) for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


def test_its_command_line_tells_what_it_is_and_nothing_else(driver: Driver) -> None:
    assert proc(driver, "cmdline").read_bytes() == b"pysup launcher\0"


def test_its_directory_keeps_nothing_of_the_host_busy(driver: Driver) -> None:
    assert proc(driver, "cwd").readlink() == Path("/")


def test_it_is_shown_the_directories_of_a_thousand_images_at_once(driver: Driver, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / str(number)).mkdir()
        driver.launcher.attach(number, str(tmp_path / str(number)))
    replies: list[Reply] = []
    while len(replies) < 1000:
        assert select.select([driver.launcher], [], [], PATIENCE_S)[0]
        replies += driver.launcher.receive()
    assert {reply.error for reply in replies} == {0}


# --- its twins -------------------------------------------------------------------------------------------------------


@pytest.fixture
def twin(driver: Driver) -> Iterator[spawn.Launcher]:
    """A launcher forked from the driver's, and now in use in its place; yields the first one."""
    first = driver.launcher
    control = first.fork(1)
    pid = driver.reply().pid
    driver.launcher = spawn.Launcher(pid, control)
    driver.remove(str(driver.state / "nothing"))  # it answers: its own beginning is over
    yield first
    driver.launcher.close()
    assert wait(pid) == Exited(0)
    driver.launcher = first


def test_a_twin_starts_containers_from_the_same_mounts(driver: Driver, twin: spawn.Launcher) -> None:
    assert driver.run("echo", "hello").stdout == "hello\n"
    assert proc(driver, "ns/mnt").readlink() == Path(f"/proc/{twin.pid}/ns/mnt").readlink()


def test_a_twin_holds_its_own_socket_and_no_more(driver: Driver, twin: spawn.Launcher) -> None:
    first = {path.name for path in Path(f"/proc/{twin.pid}/fd").iterdir()}
    assert {path.name for path in proc(driver, "fd").iterdir()} == first
    sockets = {Path(f"/proc/{pid}/fd/{launcher.CONTROL}").readlink() for pid in (twin.pid, driver.launcher.pid)}
    assert len(sockets) == 2


def test_a_twin_shares_its_memory(driver: Driver, twin: spawn.Launcher) -> None:
    del twin
    fields = [line.split() for line in proc(driver, "smaps_rollup").read_text(encoding="ascii").splitlines()[1:]]
    kib = {name: int(value) for name, value, *_ in fields}
    assert kib["Private_Clean:"] + kib["Private_Dirty:"] < TWIN_MAX_KIB


def test_a_twin_lives_on_when_the_first_is_killed(driver: Driver, twin: spawn.Launcher) -> None:
    os.kill(twin.pid, signal.SIGKILL)
    os.waitid(os.P_PID, twin.pid, os.WEXITED | os.WNOWAIT)
    assert driver.run("true").status == Exited(0)


# --- it does not grow ------------------------------------------------------------------------------------------------


def test_200_starts_leave_no_descriptor_behind(driver: Driver) -> None:
    before = descriptors(driver)
    for number in range(200):
        with suppress(LaunchError):
            driver.run("true" if number % 4 else "nothing", memory_bytes=IN_MEMORY)
    assert descriptors(driver) == before


def test_descriptors_that_come_with_a_request_are_closed_again(driver: Driver) -> None:
    before = descriptors(driver)
    read, write = os.pipe()
    for command in ("true", "nothing"):
        plan = build_plan(driver.config(command))
        for _ in range(20):
            with driver.requested(plan, more=(read, write)) as made, suppress(LaunchError):
                wait(driver.executed(plan, made))
    os.close(read)
    os.close(write)
    assert descriptors(driver) == before


def descriptors(driver: Driver) -> list[str]:
    return sorted(str(path.readlink()) for path in proc(driver, "fd").iterdir())


def test_starts_do_not_make_it_grow(driver: Driver) -> None:
    big = (("PATH", "/bin"), ("BIG", "x" * 100_000))

    def some() -> None:
        for _ in range(60):
            driver.run("true", memory_bytes=IN_MEMORY)
            driver.run("true", memory_bytes=IN_MEMORY, env=big, init=True)
            with suppress(LaunchError):
                driver.run("nothing", memory_bytes=IN_MEMORY)

    some()
    before = resident_kib(driver)
    some()
    driver.run("true")  # and a removal
    assert resident_kib(driver) - before < GROWTH_MAX_KIB


def resident_kib(driver: Driver) -> int:
    return int(status_field(driver, "VmRSS").split()[0])


# --- no request takes it down ----------------------------------------------------------------------------------------


def request(operation: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return launcher.REQUEST.pack(operation, flags, 0, 77, 0) + payload


def changed(image: bytes, place: int, number: int) -> bytes:
    """The image with another 32-bit number at a place."""
    return image[:place] + struct.pack("=I", number) + image[place + 4 :]


def senseless(image: bytes) -> Iterator[tuple[str, bytes]]:
    """Requests that make no sense, but for the first words of a good one."""
    yield "no operation 0", request(0)
    yield "no operation 200", request(200)
    yield "empty program", request(launcher.START)
    yield "bad magic", request(launcher.START, b"\0" * len(image))
    yield "half a program", request(launcher.START, image[: len(image) // 2])
    yield "more than a program", request(launcher.START, image + b"\0" * 8)
    yield "no descriptors", request(launcher.START, image)
    yield "no memfd", request(launcher.START, image, launcher.IN_MEMFD)
    yield "no mount", request(launcher.ATTACH, b"/somewhere")
    yield "NUL in a path", request(launcher.REMOVE, b"/some\0where")
    for field in range(1, 7):
        for claim in (0, 1, 4096, 0xFFFF_FFFF):
            yield f"header field {field} claims {claim}", request(launcher.START, changed(image, field * 4, claim))
    for table, start in tables(image).items():
        yield f"out of range in {table}", request(launcher.START, changed(image, start, 0x7FFF_FFF8))


def tables(image: bytes) -> dict[str, int]:
    """Where the places of each kind of relocation start."""
    _, calls, _, data, pointers, fds, *_ = program.HEADER.unpack_from(image)
    first = program.HEADER.size + calls * program.CALL.size + data
    return {
        "pointers": first,
        "descriptors": first + pointers * 4,
        "results": first + pointers * 4 + fds * program.PAIR.size + 4,
    }


def test_a_request_that_makes_no_sense_is_refused_and_the_next_one_served(driver: Driver) -> None:
    config = driver.config("true", workdir="/tmp")
    image = lower_plan(build_plan(config)).image
    answers = {}
    for name, message in senseless(image):
        driver.launcher._send_message(message, ())
        answers[name] = driver.reply()
    assert answers == {name: Reply(77, 0, errno.EINVAL, -1) for name, _ in senseless(image)}
    driver.launcher._send_message(b"short", ())
    assert driver.reply() == Reply(0, 0, errno.EINVAL, -1)
    assert driver.run_config(config).status == Exited(0)


def test_places_out_of_range_are_refused_with_all_descriptors_there(driver: Driver) -> None:
    plan = build_plan(driver.config("true", workdir="/tmp"))
    image = lower_plan(plan).image
    for place in tables(image).values():
        with driver.requested(plan, partial(changed, place=place, number=0x7FFF_FFF8)):
            assert driver.reply()[1:] == (0, errno.EINVAL, -1)


def test_a_clone_that_fails_is_told(driver: Driver) -> None:
    plan = build_plan(driver.config("true"))
    image = lower_plan(plan).image
    impossible = 1 << 40
    message = launcher.REQUEST.pack(launcher.START, 0, 0, 77, impossible) + image
    null = os.open("/dev/null", os.O_RDWR)
    driver.launcher._send_message(message, (null, null, null))
    os.close(null)
    assert driver.reply() == Reply(77, 0, errno.EINVAL, -1)
    driver.remove(str(driver.state / "c"))
