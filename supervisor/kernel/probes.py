"""How probes are tried on a container that runs: see core/checks.py for what they mean.

Each try is one call, which may be cancelled, and of which nothing is left when it returns: no socket, no process, no
task. What is found is said in few words, for people. Nothing here limits the time but of a command, which has to say
what became of it; nothing is tried again.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import anyio

from runtime import linux, streams
from runtime.cgroup.group import Cgroup
from runtime.errors import LaunchError
from runtime.status import Exited, Status
from runtime.streams import Streams
from supervisor.core.checks import Http, Verdict
from supervisor.processes.reaper import Exit
from supervisor.processes.uproot import below, end_command, has_zombies

OUTPUT_MAX_BYTES = 2048  # the end of what a command wrote
CHUNK_BYTES = 64 << 10
HEAD_MAX_BYTES = 64 << 10  # of an answer, with all that comes before it: a server may announce one without end
HUNG_MAX = 256  # processes looked at for one that hangs
LAST_READS_MAX = 16  # of a dead command's pipe: as much as the largest holds
PF_EXITING = 0x4  # include/linux/sched.h
LOCAL = ("127.0.0.1", "::1")
REFUSED_HTTP = "not an answer in HTTP/1"

MakeSocket = Callable[[socket.AddressFamily], socket.socket]
Begin = Callable[[tuple[int, ...]], Awaitable[tuple[int, Exit]]]  # streams, to the pid of a command and its end


def exists(init: int, path: str) -> Verdict:
    """Is there a file at `path`, as the container's process 1 sees it? Symbolic links stay inside."""
    try:
        root = os.open(f"/proc/{init}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
            os.close(linux.openat2(root, path, os.O_PATH, resolve=resolve))
        finally:
            os.close(root)
    except OSError as error:
        return Verdict(passed=False, detail=f"{path}: {_said(error)}")
    return Verdict(passed=True)


# --- sockets ---------------------------------------------------------------------------------------------------------


async def accepts(make: MakeSocket, port: int) -> Verdict:
    """Is a connection to a port accepted?"""
    try:
        with await _connect(make, LOCAL, port):
            return Verdict(passed=True)
    except OSError as error:
        return Verdict(passed=False, detail=_said(error))


async def answers(make: MakeSocket, probe: Http) -> Verdict:
    """Does GET get an answer with a status that counts? Redirects are not followed."""
    host = probe.host.strip("[]")
    try:
        with await _connect(make, LOCAL if host == "localhost" else (host,), probe.port) as made:
            status, reason = await _get(made, probe)
    except (OSError, HttpError) as error:
        return Verdict(passed=False, detail=_said(error) if isinstance(error, OSError) else str(error))
    passed = any(low <= status <= high for low, high in probe.statuses)
    return Verdict(passed, f"status {status} {reason}".rstrip())


class HttpError(Exception):
    """What came is no answer."""


async def _get(made: socket.socket, probe: Http) -> tuple[int, str]:
    """Ask, and read the head of the answer. Of the body no more is read than came with it."""
    import h11  # noqa: PLC0415 -- a tenth of a second, and few stacks need it

    connection = h11.Connection(h11.CLIENT)
    host = f"[{probe.host}]" if ":" in probe.host and not probe.host.startswith("[") else probe.host
    headers = [("Host", f"{host}:{probe.port}"), ("User-Agent", "pysup"), ("Accept", "*/*"), ("Connection", "close")]
    left = HEAD_MAX_BYTES
    try:
        request = h11.Request(method="GET", target=probe.target, headers=headers)
        await _send(made, (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                return event.status_code, _phrase(event.status_code)
            if event is h11.NEED_DATA:
                if not left:
                    raise HttpError(REFUSED_HTTP)
                data = await _receive(made, left)
                left -= len(data)
                connection.receive_data(data)
    except h11.ProtocolError as error:
        raise HttpError(REFUSED_HTTP) from error


def _phrase(status: int) -> str:
    """The usual one: what the server says is not ours to show."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


async def _connect(make: MakeSocket, addresses: Iterable[str], port: int) -> socket.socket:
    """A connection to the first address that takes one; the error is that of the first."""
    first: OSError | None = None
    for address in addresses:
        try:
            return await _connect_to(make, address, port)
        except OSError as error:
            first = first or error
    assert first is not None
    raise first


async def _connect_to(make: MakeSocket, address: str, port: int) -> socket.socket:
    made = make(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        try:
            made.connect((address, port))
        except BlockingIOError:
            await anyio.wait_writable(made)
            if error := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error)) from None
    except BaseException:
        made.close()
        raise
    return made


async def _send(made: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[made.send(data, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            await anyio.wait_writable(made)


async def _receive(made: socket.socket, most: int) -> bytes:
    while True:
        try:
            chunk = made.recv(most)
        except BlockingIOError:
            await anyio.wait_readable(made)
        else:
            if not chunk:
                raise HttpError("closed without an answer")
            return chunk


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


# --- the end of a container ------------------------------------------------------------------------------------------


def hang_of(init: int) -> str:
    """Why a container that was killed does not end: process 1 waits for all others, so any of them may hang."""
    for pid in (init, *below(init, HUNG_MAX)):
        for thread in _threads(pid):
            if (state := _state(thread)).startswith("state D"):
                return state if pid == init else f"{state}, process {pid}"
    return _state(Path(f"/proc/{init}"))


def is_exiting(pid: int) -> bool:
    """Is this process of ours, not reaped, on its way out, or dead? proc_pid_stat(5), field 9."""
    with suppress(OSError):  # we are out of descriptors
        return bool(int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[6]) & PF_EXITING)
    return False


def _threads(pid: int) -> list[Path]:
    with suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []


def _state(thread: Path) -> str:
    """`state D in nfs_wait_bit_killable`, as far as the kernel tells: proc_pid_stat(5), proc_pid_wchan(5)."""
    try:
        letter = chr((thread / "stat").read_bytes().rpartition(b")")[2].split()[0][0])
        where = (thread / "wchan").read_text(encoding="ascii")
    except OSError:
        return "state unknown"
    return f"state {letter}" + (f" in {where}" if where not in ("", "0") else "")


# --- commands --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Care:
    """What commands in one container need, as far as the last one has shown."""

    killed: int | None = None  # the session of the last one that was killed; 0: it was not known yet
    kept: bool = False  # they need an init of their own: process 1 reaps no orphans

    def look(self, init: int) -> bool:
        """Does the next one need an init? Process 1 has had its time to reap."""
        if self.killed is not None:
            self.kept = self.kept or has_zombies(self.killed, init)
            self.killed = None
        return self.kept


async def command(
    begin: Begin, owner: tuple[int, int], init: int, timeout_s: float, care: Care, cgroup: Cgroup | None = None
) -> Verdict:
    """Does a command in the container succeed, within the time? It is ended as a whole, whatever happens."""
    try:
        made = streams.joined(owner)
    except OSError as error:
        return Verdict(passed=False, detail=f"make its pipe: {_said(error)}")
    said = _LastWords(made)
    try:
        with anyio.move_on_after(timeout_s):
            status = await _run(begin, made, said, init, care, cgroup)
            return _verdict(status, said.text())
        return Verdict(passed=False, detail=_with(f"killed after {timeout_s:g} s", said.text()))
    except LaunchError as error:
        return Verdict(passed=False, detail=error.detail)
    finally:
        made.close()


async def _run(begin: Begin, made: Streams, said: "_LastWords", init: int, care: Care, cgroup: Cgroup | None) -> Status:
    kept = care.kept
    try:
        pid, ended = await begin(made.theirs)
    except anyio.get_cancelled_exc_class():  # it is killed all the same
        care.killed = 0
        raise
    try:
        made.close_theirs()
        await said.listen(ended)
        return await ended.wait()
    finally:
        if ended.status is None:
            care.killed = pid
        await end_command(pid, ended, init, cgroup, kept=kept)
        said.take()


def _verdict(status: Status, said: str) -> Verdict:
    if status == Exited(0):
        return Verdict(passed=True, detail=said)
    how = f"exit status {status.code}" if isinstance(status, Exited) else f"killed by signal {status.signal}"
    return Verdict(passed=False, detail=_with(how, said))


def _with(how: str, said: str) -> str:
    return f"{how}: {said}" if said else how


def _nothing() -> None:
    pass


class _LastWords:
    """The end of what a command writes; all else is read and forgotten."""

    def __init__(self, made: Streams) -> None:
        assert made.stdout is not None
        self._pipe = made.stdout
        self._kept = b""

    async def listen(self, ended: Exit) -> None:
        """Read until the end of file, or of the process: somebody may still hold the pipe then."""
        with anyio.CancelScope() as reading:
            ended.call(reading.cancel)
            while self._read():
                await anyio.wait_readable(self._pipe)
        ended.call(_nothing)

    def take(self) -> None:
        """Read what is there."""
        for _ in range(LAST_READS_MAX):
            if not self._read():
                return

    def text(self) -> str:
        return self._kept.decode(errors="backslashreplace").strip()

    def _read(self) -> bool:
        """False at end of file."""
        try:
            chunk = os.read(self._pipe, CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._kept = (self._kept + chunk)[-OUTPUT_MAX_BYTES:]
        return bool(chunk)
