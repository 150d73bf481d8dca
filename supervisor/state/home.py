"""What outlives a supervisor on disk: the lock of a stack, the directories of its runs, and what a crash left of them.

    STATE/stacks/NAME/lock      held (flock) by the one supervisor of the stack; holds its pid; gone, or empty, after
                                a clean end
    STATE/stacks/NAME/runs/ID   upper, work and merged of a run; gone when the run is
    STATE/stacks/NAME/kept/ID   the same with `keep: true`: stays, and the next run goes on with it
    STATE/stacks/NAME/volumes   its volumes, which outlive it
    STATE/volumes/NAME          volumes of the machine
    STATE/single/ID/...         the same for `pysup run ID`

A supervisor that was killed leaves its pid in the lock; the next one then, and also where there is anything of a run or
a note of cgroups, whatever has become of the lock, looks for containers that outlived it (one
that cleared its parent-death signal), by the directory that their overlay is named after, kills them, and removes the
directories.
"""

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runtime import pidfd
from runtime.remove import remove_run, remove_tree
from supervisor.errors import StackError
from supervisor.network import note
from supervisor.state import cgroups, ids

STRAYS_GONE_S = 10.0  # the longest a killed stray may take to end
COPIES_GONE_S = 5.0  # the longest that a killed supervisor's lock may be held by what it was about to start
COPIES_LOOK_S = 0.005
LOCKS = Path("/proc/locks")
PID_MAX = 1 << 22  # proc_sys_kernel(5); more is no pid, but damage


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of one stack, locked."""

    path: Path

    @classmethod
    def of_stack(cls, state: Path, name: str) -> Self:
        """Of the stack `name`."""
        return cls((state / "stacks" / name).absolute())

    @classmethod
    def of_single(cls, state: Path, name: str) -> Self:
        """Of the container that `pysup run` runs."""
        return cls((state / "single" / name).absolute())

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def kept(self) -> Path:
        return self.path / "kept"

    @property
    def volumes(self) -> Path:
        """They outlive the stack."""
        return self.path / "volumes"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log_bytes(self) -> int:
        """What they take of the disk."""
        found = (path.lstat() for path in self.logs.rglob("*") if not path.is_dir())
        return sum(each.st_blocks * 512 for each in found)

    def of(self, container: str, *, keep: bool) -> str:
        """Where a container's upper, work and merged are."""
        return f"{self.kept if keep else self.runs}/{container}"


@dataclass(frozen=True, slots=True)
class Left:
    """What is, or was, still there of a killed supervisor. Nothing of all that: its empty directory."""

    processes: int
    runs: tuple[str, ...]  # ids of containers
    cgroups: int = 0

    def __str__(self) -> str:
        runs = (
            f"{len(self.runs)} directories of runs" if len(self.runs) > 1 else f"the directory of {''.join(self.runs)}"
        )
        strays = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        groups = f"{self.cgroups} cgroup{'s' if self.cgroups > 1 else ''}"
        found = ((strays, self.processes), (groups, self.cgroups), (runs, self.runs))
        *first, last = [text for text, any_ in found if any_] or ["an empty directory"]
        return f"{', '.join(first)} and {last}" if first else last


class HeldError(StackError):
    """Another supervisor runs the stack."""


@contextmanager
def locked(home: Home) -> Iterator[Left | None]:
    """Hold a stack's lock; yields what was swept, if the last supervisor did not end cleanly.

    StackError if another supervisor holds it, or the state directory can't be used.
    """
    lock = _lock(home)
    try:
        swept = sweep(home) if _move_in(home, lock) else None
        try:
            yield swept
        finally:
            _leave(home, lock)
    finally:
        os.close(lock)


def _lock(home: Home) -> int:
    while True:
        lock = _open_lock(home)
        try:
            _take(lock, home)
            if _is_current(lock, home):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _is_current(lock: int, home: Home) -> bool:
    """Its holder takes the file away at the end: one that was waited for may be nobody's any more."""
    try:
        return os.path.samestat(os.fstat(lock), (home.path / "lock").stat())
    except FileNotFoundError:
        return False


def _move_in(home: Home, lock: int) -> bool:
    """Make what is in a home, and sign the lock. Did one that was killed sign it, or leave anything?"""
    signature = b"%d\n" % os.getpid()
    try:
        for path in (home.runs, home.kept):
            if path.is_symlink() or path.is_file():  # nothing of ours: the disk was damaged
                path.unlink()
            path.mkdir(mode=0o700, exist_ok=True)
        previous = os.pread(lock, 32, 0) or _remains(home)
        os.pwrite(lock, signature, 0)  # before it is cut: an empty lock would tell the next start that all is swept
        os.ftruncate(lock, len(signature))
    except OSError as error:
        raise _unusable(error, home.path) from error
    return bool(previous)


def _remains(home: Home) -> bool:
    """What can only be a killed supervisor's, even if its lock was emptied."""
    return bool(_names(home.runs)) or any(
        name == cgroups.NOTE or name.startswith("notify-") for name in _names(home.path)
    )


def _unusable(error: OSError, path: Path) -> StackError:
    return StackError(f"state directory {error.filename or path}: {error.strerror}; give another with --state DIR")


def _leave(home: Home, lock: int) -> None:
    """Take away what is empty. What can't be keeps our pid in the lock, so that the next start sweeps."""
    with suppress(OSError):
        home.runs.rmdir()
        os.ftruncate(lock, 0)
        home.kept.rmdir()
        (home.path / "lock").unlink()
        home.path.rmdir()


def _open_lock(home: Home) -> int:
    try:
        # Only root may enter: an upper holds set-user-ID programs and secrets of the containers.
        home.path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.path.parent.mkdir(mode=0o700, exist_ok=True)
        home.path.parent.chmod(0o700)
        home.path.mkdir(mode=0o700, exist_ok=True)
        return os.open(home.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(error, home.path) from error


def _take(lock: int, home: Home) -> None:
    """A supervisor that was killed may have a child that has not come to its execve(2) yet: until then, or until it is
    killed too, that has a copy of the lock (flock(2)).
    """
    deadline = time.monotonic() + COPIES_GONE_S
    while not _is_taken(lock):
        pid = _signature(os.pread(lock, 32, 0))
        if _lives(pid) or time.monotonic() >= deadline:
            raise _held(home, pid)
        time.sleep(COPIES_LOOK_S)


def _is_taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(pid: int | None) -> bool:
    """Is it there, and has not ended?"""
    descriptor = None if pid is None or pid > PID_MAX else pidfd.opened(pid)
    if descriptor is None:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = bool(poll.poll(0))
    os.close(descriptor)
    return not ended


def _held(home: Home, pid: int | None) -> HeldError:
    name, where = home.path.name, f"{home.path}/lock"
    is_stack = home.path.parent.name == "stacks"
    advice = f"`pysup reload -s {name}` changes it, `pysup down -s {name}` stops it" if is_stack else "stop that first"
    return HeldError(f"{name} is already running under pid {pid or 'unknown'} (lock {where}): {advice}")


def _signature(text: bytes) -> int | None:
    """None: it was damaged, or is not there yet."""
    return int(text) if text.strip().isdigit() else None


def running(state: Path) -> dict[str, int]:
    """The stacks that run now, and the pids of their supervisors: proc_locks(5) tells who holds a lock."""
    held = _flocks()
    found = {}
    for lock in sorted(state.absolute().glob("stacks/*/lock")):
        with suppress(FileNotFoundError):
            if (pid := _holder(lock, held)) is not None:
                found[lock.parent.name] = pid
    return found


def homes(state: Path) -> list[Home]:
    """All stacks and single containers that have a directory, whether they run or not."""
    return [Home(path) for kind in ("stacks", "single") for path in sorted(state.absolute().glob(f"{kind}/*"))]


def left(home: Home) -> Left | None:
    """What `clear` would remove now; changes nothing. None: nothing, or it runs."""
    return None if is_held(home) else _of_nobody(home)


def is_held(home: Home) -> bool:
    """Does it run?"""
    with suppress(FileNotFoundError, NotADirectoryError):
        return _holder(home.path / "lock", _flocks()) is not None
    return False


def _of_nobody(home: Home) -> Left | None:
    try:
        inside = _names(home.path)
        runs = tuple(sorted(_names(home.runs))) if "runs" in inside else ()
        signed = "lock" in inside and (home.path / "lock").stat().st_size > 0
        empty = inside <= {"lock", "runs", "kept"} and not ("kept" in inside and _names(home.kept))
    except FileNotFoundError:  # it ended just now, and took its directory away
        return None
    except OSError as error:
        raise _unusable(error, home.path) from error
    found = Left(len(_members(str(home.path))), runs, cgroups.left(home.path))
    return found if found.processes or runs or found.cgroups or signed or empty else None


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def clear(home: Home) -> Left | None:
    """Remove what a killed supervisor left. None: there was nothing, or it runs. StackError if it can't be removed."""
    if left(home) is None:
        return None
    try:
        lock = _lock(home)
    except HeldError:
        return None
    try:
        if (found := _of_nobody(home)) is not None:
            _move_in(home, lock)
            sweep(home)
            _leave(home, lock)
        return found
    finally:
        os.close(lock)


def remove_volumes(home: Home) -> None:
    """Those of a stack that does not run. StackError if it runs, or they can't be removed."""
    if not home.volumes.is_dir():
        return
    with locked(home):
        try:
            remove_tree(str(home.volumes))
        except OSError as error:
            raise StackError(f"can't remove the volumes in {home.volumes}: {error.strerror}") from error


def discard_logs(home: Home) -> bool:
    """Remove the logs of a stack, which outlive it. False: it has none. StackError if it runs, or they can't be."""
    if not home.logs.is_dir():
        return False
    with locked(home):
        try:
            remove_tree(str(home.logs))
        except OSError as error:
            raise StackError(f"can't remove the logs in {home.logs}: {error.strerror}") from error
    return True


def _flocks() -> dict[int, list[int]]:
    """Inodes to pids, of all exclusive flock(2)s: `1: FLOCK ADVISORY WRITE 4242 fe:01:131 0 EOF`."""
    found: dict[int, list[int]] = {}
    for words in map(str.split, LOCKS.read_text(encoding="ascii").splitlines()):
        if words[1:4] == ["FLOCK", "ADVISORY", "WRITE"]:
            found.setdefault(int(words[5].split(":")[2]), []).append(int(words[4]))
    return found


def _holder(lock: Path, held: Mapping[int, Sequence[int]]) -> int | None:
    """Files of several file systems have the same number, and may all be locked: the holder of this one has signed it.
    FileNotFoundError.
    """
    pids = held.get(lock.stat().st_ino, ())
    return next((pid for pid in pids if pid == _signature(lock.read_bytes()[:32])), None)


def sweep(home: Home) -> Left:
    """Kill what outlived a killed supervisor, and remove the directories of its runs, and their cgroups."""
    strays = len(_members(str(home.path)))
    try:
        groups = cgroups.sweep(home.path)
    except OSError as error:
        raise StackError(f"can't remove {error.filename}, left by a killed supervisor: {error.strerror}") from error
    _kill_strays(str(home.path))
    runs = sorted(home.runs.iterdir())
    for path in runs:
        try:
            _remove(path)
        except OSError as error:
            raise StackError(f"can't remove {path}, left by a killed supervisor: {error.strerror}") from error
    (home.path / ids.NOTE).unlink(missing_ok=True)
    _sweep_network(home)
    for socket in home.path.glob("notify-*"):  # it died between bind(2) and unlink(2): see kernel/notify.py
        socket.unlink()
    return Left(strays, tuple(path.name for path in runs), groups)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_run(str(path))
    else:  # nothing of ours: the disk was damaged
        path.unlink()


def _sweep_network(home: Home) -> None:
    try:
        note.sweep(home.path)
    except OSError as error:
        raise StackError(f"can't {error.filename}, left by a killed supervisor: {error.strerror}") from error


def _kill_strays(home: str) -> None:
    descriptors = [fd for pid in _members(home) if (fd := _open_if_member(pid, home)) is not None]
    try:
        for descriptor in descriptors:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _wait_all(descriptors, home)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _wait_all(descriptors: list[int], home: str) -> None:
    deadline = time.monotonic() + STRAYS_GONE_S
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise StackError(f"containers of a killed supervisor do not end on SIGKILL (their overlays are {home}/…)")


def _members(home: str) -> list[int]:
    """Processes whose root is an overlay of this stack's, by the name of a directory that is there, and that are in no
    cgroup of another's: in another mount namespace another stack may have directories of the same names.
    """
    pids = (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())
    return [pid for pid in pids if _is_member(pid, home)]


def _is_member(pid: int, home: str) -> bool:
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_bytes()
    except OSError:
        return False
    found = mounts.split(b" - overlay " + _as_in_mountinfo(home) + b"/")[1:]
    is_here = any(os.path.isdir(f"{home}/{_run_of(each)}") for each in found)  # noqa: PTH112 (strings)
    return is_here and not cgroups.is_in_anothers(pid, Path(home))


def _run_of(source: bytes) -> str:
    """`runs/ID`, whatever follows."""
    return "/".join(os.fsdecode(source.partition(b" ")[0]).split("/")[:2])


def _as_in_mountinfo(path: str) -> bytes:
    """With white space and backslashes as proc_pid_mountinfo(5) writes them."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in os.fsencode(path))


def _open_if_member(pid: int, home: str) -> int | None:
    """A pidfd, checked after it was opened: the pid may have become another's in between."""
    descriptor = pidfd.opened(pid)
    if descriptor is None or _is_member(pid, home):
        return descriptor
    os.close(descriptor)
    return None
