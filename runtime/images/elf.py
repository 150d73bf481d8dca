"""Which files the dynamic loader opens for a program, found by reading ELF files as ld.so(8) does.

The program is not run (as ldd would run it): what is read may be anything. The search for a library is ld.so's, in its
order: DT_RPATH of the file and of those that loaded it (unless the file has DT_RUNPATH), DT_RUNPATH,
/etc/ld.so.cache, the default directories; $ORIGIN, $LIB and $PLATFORM expanded; a name already loaded is not searched
again; a file of another architecture is passed over. LD_LIBRARY_PATH is ignored, since a container won't have it.
Not covered: entries of the cache for certain processors (glibc-hwcaps), whose plain sibling is always there too.

Sources: elf(5), the System V gABI chapter 5, glibc's elf/dl-load.c and sysdeps/generic/dl-cache.h.
"""

import os
import posixpath
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import ImageError

CACHE = "/etc/ld.so.cache"

_STRING_MAX_BYTES = 1 << 14  # a search path may be longer than a path
_DYNAMIC_MAX_BYTES = 1 << 16  # some thousand entries; real files have dozens
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_DEFAULT_DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")  # the last is musl's

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("=20sI24x")  # struct cache_file_new: magic, number of entries, …
_CACHE_ENTRY = struct.Struct("=iIIIQ")  # struct file_entry_new: flags, key, value, osversion, hwcap


@dataclass(frozen=True, slots=True)
class Elf:
    """What the loader reads of a file."""

    abi: tuple[int, int, int]  # class, byte order, machine: a process mixes no two
    interpreter: str | None
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read(path: str) -> Elf | None:
    """The file's dynamic section; None if it is no ELF file. ImageError if it is a broken one."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _parse(fd) if os.pread(fd, 4, 0) == b"\x7fELF" else None
    except (struct.error, ValueError, OverflowError) as error:
        raise ImageError(f"{path} is not a well-formed ELF file: install it again, or leave it out") from error
    finally:
        os.close(fd)


def _parse(fd: int) -> Elf:
    wide, order = _take(fd, 4, 2)
    if wide not in (1, 2) or order not in (1, 2):
        raise ValueError
    prefix = "<" if order == 1 else ">"
    header = struct.Struct(prefix + ("HHIQQQIHHHHHH" if wide == 2 else "HHIIIIIHHHHHH"))
    fields = header.unpack(_take(fd, 16, header.size))
    machine, table, entry_size, count = fields[1], fields[4], fields[8], fields[9]
    segments = [_segment(_take(fd, table + i * entry_size, entry_size), prefix, wide) for i in range(count)]
    interpreter = next((_string(fd, s.offset) for s in segments if s.kind == _PT_INTERP), None)
    return _dynamic(fd, segments, prefix + ("qQ" if wide == 2 else "iI"), (wide, order, machine), interpreter)


def _segment(raw: bytes, prefix: str, wide: int) -> _Segment:
    if wide == 2:
        kind, _, offset, address, _, size = struct.unpack_from(prefix + "IIQQQQ", raw)
    else:
        kind, offset, address, _, size = struct.unpack_from(prefix + "IIIII", raw)
    return _Segment(kind, offset, address, size)


def _dynamic(fd: int, segments: list[_Segment], layout: str, abi: tuple[int, int, int], interpreter: str | None) -> Elf:
    """PT_DYNAMIC: pairs of tag and value; strings are offsets into DT_STRTAB, which is an address."""
    pairs: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_DYNAMIC:
            size = min(segment.size, _DYNAMIC_MAX_BYTES) // struct.calcsize(layout) * struct.calcsize(layout)
            pairs = list(struct.iter_unpack(layout, _take(fd, segment.offset, size)))
    strings = next((_file_offset(segments, value) for tag, value in pairs if tag == _DT_STRTAB), 0)

    def texts(wanted: int) -> list[str]:
        return [_string(fd, strings + value) for tag, value in pairs if tag == wanted]

    runpath = texts(_DT_RUNPATH)
    return Elf(
        abi,
        interpreter,
        needed=tuple(texts(_DT_NEEDED)),
        rpath=tuple(":".join(texts(_DT_RPATH)).split(":")),
        runpath=tuple(":".join(runpath).split(":")) if runpath else None,
    )


def _file_offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise ValueError


def _take(fd: int, offset: int, size: int) -> bytes:
    raw = os.pread(fd, size, offset)
    if len(raw) < size:
        raise ValueError
    return raw


def _string(fd: int, offset: int) -> str:
    text, end, _ = os.pread(fd, _STRING_MAX_BYTES, offset).partition(b"\0")
    if not end:
        raise ValueError
    return os.fsdecode(text)


@dataclass(frozen=True, slots=True)
class _Object:
    """A file being loaded, and the DT_RPATHs of those that loaded it."""

    path: str
    origin: str
    elf: Elf
    inherited: tuple[str, ...]

    def rpath(self, library_directory: str) -> tuple[str, ...]:
        """DT_RPATH, which DT_RUNPATH disables."""
        return () if self.elf.runpath is not None else tuple(_expand(self.elf.rpath, self.origin, library_directory))

    def directories(self, library_directory: str) -> tuple[str, ...]:
        """Where the file itself says that its libraries are."""
        if self.elf.runpath is None:
            return (*self.rpath(library_directory), *self.inherited)
        return tuple(_expand(self.elf.runpath, self.origin, library_directory))


class Loader:
    """ld.so's search on this host. Files are read once."""

    def __init__(self, cache: str = CACHE) -> None:
        self._cache_path = cache
        self._cache = _read_cache(cache)
        self._read: dict[str, Elf | None] = {}

    def read(self, path: str) -> Elf | None:
        if path not in self._read:
            self._read[path] = read(path)
        return self._read[path]

    def load(self, path: str, loaded: Mapping[str, str] | None = None) -> dict[str, str]:
        """Name → path of all that is loaded for `path`, its interpreter among them, beside what is `loaded` already.

        Paths are as ld.so opens them, symlinks unresolved. ImageError names a library that is not found.
        """
        found = dict(loaded or {})
        elf = self.read(path)
        if elf is None:
            return found
        if elf.interpreter:
            found[posixpath.basename(elf.interpreter)] = elf.interpreter
        self._add_needed(path, elf, found)
        return found

    def load_later(self, name: str, user: str) -> dict[str, str]:
        """What is loaded when the library `user` opens library `name` by itself; nothing where the host lacks that."""
        found: dict[str, str] = {}
        elf = self.read(user)
        if elf is not None:
            with suppress(ImageError):
                self._add_needed(user, replace(elf, needed=(name,)), found)
        return found

    def _add_needed(self, path: str, elf: Elf, found: dict[str, str]) -> None:
        """Breadth first, as ld.so maps them."""
        library_directory = _library_directory(elf, found)
        queue = deque([_Object(path, posixpath.dirname(posixpath.realpath(path)), elf, ())])
        while queue:
            user = queue.popleft()
            for name in user.elf.needed:
                if name not in found:
                    library, needed = self._find(name, user, library_directory)
                    found[name] = library
                    rpaths = (*user.rpath(library_directory), *user.inherited)
                    queue.append(_Object(library, posixpath.dirname(library), needed, rpaths))

    def _find(self, name: str, user: _Object, library_directory: str) -> tuple[str, Elf]:
        own, default = user.directories(library_directory), (library_directory, *_DEFAULT_DIRECTORIES)
        if "/" in name:
            candidates = list(_expand((name,), user.origin, library_directory))
        else:
            before = [f"{directory}/{name}" for directory in own]
            after = [f"{directory}/{name}" for directory in default]
            candidates = [*before, *self._cache.get(name, ()), *after]
        for candidate in candidates:
            elf = self._try(candidate)
            if elf and elf.abi == user.elf.abi:
                return candidate, elf
        raise ImageError(
            f"library {name}, which {user.path} needs, is not on this host (looked in {self._cache_path} and "
            f"{', '.join((*own, *default))}): install its package, or leave the program out"
        )

    def _try(self, path: str) -> Elf | None:
        try:
            return self.read(path)
        except (OSError, ImageError):
            return None


def _library_directory(elf: Elf, found: Mapping[str, str]) -> str:
    """Where ld.so itself lies, and so the distribution's libraries: `/usr/lib/x86_64-linux-gnu`, `/usr/lib64`, …"""
    interpreters = [elf.interpreter] if elf.interpreter else [path for name, path in found.items() if "ld-" in name]
    return posixpath.dirname(posixpath.realpath(interpreters[0])) if interpreters else "/usr/lib"


def _expand(paths: tuple[str, ...], origin: str, library_directory: str) -> Iterator[str]:
    """Dynamic string tokens (ld.so(8)). Relative directories depend on where one stands, so they are left out."""
    values = {"ORIGIN": origin, "LIB": library_directory.removeprefix("/usr/"), "PLATFORM": os.uname().machine}
    for path in paths:
        expanded = path
        for token, value in values.items():
            expanded = expanded.replace(f"${{{token}}}", value).replace(f"${token}", value)
        if expanded.startswith("/"):
            yield expanded


def _read_cache(path: str) -> dict[str, list[str]]:
    """Library name → paths, in the cache's order; empty where there is none (musl) or it is of an unknown form."""
    try:
        data = Path(path).read_bytes()
        return _parse_cache(data[data.index(_CACHE_MAGIC) :])
    except (OSError, ValueError, struct.error):
        return {}


def _parse_cache(data: bytes) -> dict[str, list[str]]:
    """Offsets count from the header's start, also where an older form of the cache precedes it."""
    _, count = _CACHE_HEADER.unpack_from(data)
    found: dict[str, list[str]] = {}
    for index in range(count):
        _, key, value, _, hwcap = _CACHE_ENTRY.unpack_from(data, _CACHE_HEADER.size + index * _CACHE_ENTRY.size)
        if hwcap == 0:
            found.setdefault(_text(data, key), []).append(_text(data, value))
    return found


def _text(data: bytes, offset: int) -> str:
    return os.fsdecode(data[offset : data.index(b"\0", offset)])
