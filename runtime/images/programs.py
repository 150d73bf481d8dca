"""Programs of the host, and everything that starts with them, added to a tree.

A program brings the interpreter and libraries that its ELF file asks for (`elf`); a script brings its interpreter and
the program that `env` looks up. Python is the one that runs pysup, under whatever path it is named: of another, we
would not know where its standard library is.
"""

import difflib
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.errors import ImageError
from runtime.images import elf, interpreter
from runtime.images.mirror import Mirror

PYTHON = "python3"
_PYTHON = re.compile(rf"python(3(\.{sys.version_info.minor})?)?")
_SHEBANG_MAX_BYTES = 256  # BINPRM_BUF_SIZE: execve(2)
_OPENED_LATER = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")  # by glibc: thread exit; names (before 2.34)


def locate(program: str, search: str) -> str:
    """The absolute path of the host's `program`: a name to be found in `search`, or the absolute path of any file."""
    found = find_program(program, search)
    if found is None:
        near = difflib.get_close_matches(posixpath.basename(program), _programs(search), n=3)
        hint = f" (there is {', '.join(near)})" if near else ""
        raise ImageError(
            f"program {program!r} is not on this host{hint}: install it or leave it out; "
            f"names are looked up in {search}, paths must be absolute"
        )
    return found


def find_program(program: str, search: str) -> str | None:
    """As `locate`, None where there is none."""
    if "/" in program:
        return program if program.startswith("/") and posixpath.isfile(program) else None
    found = shutil.which(program, path=search)
    return posixpath.abspath(found) if found else None


def is_python(program: str) -> bool:
    return _PYTHON.fullmatch(posixpath.basename(program)) is not None


def _programs(search: str) -> Iterable[str]:
    directories = filter(Path.is_dir, map(Path, search.split(":")))
    return sorted({entry.name for directory in directories for entry in directory.iterdir()})


class Programs:
    """Adds programs to `mirror`, names looked up in `search`."""

    def __init__(self, mirror: Mirror, search: str) -> None:
        self._mirror = mirror
        self._search = search
        self._loader = elf.Loader()
        self._added: set[str] = set()
        self._libc: str | None = None
        self._python: interpreter.Interpreter | None = None

    def add(self, program: str) -> None:
        """A name or an absolute path. ImageError if something that it needs is missing; it is not added then."""
        if is_python(program):
            self._add_python(program)
        else:
            self._add_file(locate(program, self._search))

    def add_later_libraries(self) -> None:
        """What glibc opens by itself in a running program, and the cache that leads ld.so off its default paths.

        The cache is the host's: ld.so passes over an entry whose file was not copied.
        """
        if self._libc is not None:
            for name in _OPENED_LATER:
                self._add_libraries(self._loader.load_later(name, self._libc))
            if posixpath.exists(elf.CACHE):
                self._mirror.add(elf.CACHE)

    def _add_file(self, path: str) -> None:
        if path in self._added:
            return
        self._added.add(path)
        real = posixpath.realpath(path)
        if self._loader.read(real) is None:
            for program in _interpreters(real):
                self.add(program)
        else:
            self._add_libraries(self._loader.load(real))
        self._mirror.add(path)

    def _add_libraries(self, libraries: dict[str, str]) -> None:
        self._libc = libraries.get("libc.so.6", self._libc)
        for library in libraries.values():
            self._mirror.add(library)

    def _add_python(self, program: str) -> None:
        """Under its own path, and as `program`; a bare name comes first in a container's PATH."""
        if self._python is None:
            self._python = interpreter.running()
            self._add_file(self._python.executable)
            self._add_standard_library(self._python)
        path = program if program.startswith("/") else f"/usr/local/bin/{program}"
        if posixpath.realpath(path) == posixpath.realpath(self._python.executable):
            self._mirror.add(path)
        else:
            self._mirror.add_link(path, self._python.executable)

    def _add_standard_library(self, python: interpreter.Interpreter) -> None:
        """An extension module whose library is missing is left out: it can't be imported on the host either."""
        loaded = self._loader.load(posixpath.realpath(python.executable))
        for path in interpreter.files(python):
            try:
                libraries = self._loader.load(path, loaded) if path.endswith(".so") else {}
            except ImageError:
                continue
            self._mirror.add(path)
            self._add_libraries(libraries)


def _interpreters(script: str) -> Iterator[str]:
    """What `#!` names, and what env(1) starts if it is that; nothing if the file is no script."""
    with Path(script).open("rb") as file:
        line = os.fsdecode(file.read(_SHEBANG_MAX_BYTES).partition(b"\n")[0])
    words = line.removeprefix("#!").split() if line.startswith("#!") else []
    yield from words[:1]
    if words and posixpath.basename(words[0]) == "env":
        yield from [word for word in words[1:] if not word.startswith("-") and "=" not in word][:1]
