"""The files of a cgroup: read whole, written whole, one open at a time, none kept open."""

import os
from contextlib import suppress

UNLIMITED = 1 << 62  # version 1 says "no limit" as the largest multiple of a page


def read(path: str) -> bytes:
    """The whole of a small file; nothing if this kernel has none of that name, or the cgroup is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    except OSError:  # ENODEV: removed since; EOPNOTSUPP: pressure is switched off
        return b""
    finally:
        os.close(descriptor)


def number(path: str) -> int | None:
    """The file's only number; None for `max` and the like."""
    word = read(path).strip()
    value = int(word) if word.isdigit() else None
    return None if value is None or value > UNLIMITED else value


def entries(path: str) -> dict[str, int]:
    """Lines `name 42`."""
    words = read(path).decode("ascii").split()
    return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=False)}


def times(factor: int, value: int | None) -> int | None:
    """In smaller units."""
    return None if value is None else value * factor


def pids(directory: str) -> list[int]:
    """The processes in this cgroup, not in those below it; none if it is gone."""
    return [int(word) for word in read(f"{directory}/cgroup.procs").split()]


def below(directory: str) -> list[str]:
    """A cgroup and all below it, parents first."""
    found = [directory]
    for one in found:
        with suppress(FileNotFoundError), os.scandir(one) as files:
            found.extend(file.path for file in files if file.is_dir(follow_symlinks=False))
    return found


def write(path: str, value: str) -> None:
    """One write(2), which is what these files want. OSError names the file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
