"""The files of the Python that pysup runs on: interpreter, standard library, extension modules.

Found through `sys` and `sysconfig`, never through PATH, where a `python3` may be a version manager's shell script or a
virtual environment's link. Paths stay what they are on the host, since an interpreter finds its library from its own.
Paths are text here, as the kernel takes them. Left out: tests, what needs a display, pip, and installed packages.
"""

import os
import posixpath
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass

from runtime.errors import ImageError

_LEFT_OUT = frozenset(
    {"test", "tests", "idle_test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages"}
)
_LEFT_OUT_PREFIXES = ("config-", "_tkinter.", "_test", "_xxtestfuzz")  # a static libpython; extension modules of tests


@dataclass(frozen=True, slots=True)
class Interpreter:
    executable: str
    libraries: tuple[str, ...]  # directories of the standard library


def running() -> Interpreter:
    """The interpreter under the virtual environment, if pysup runs in one."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"
    installed = posixpath.join(sys.base_exec_prefix, "bin", name)
    executable = installed if posixpath.exists(installed) else posixpath.realpath(sys.executable)
    bases = {"platbase": sys.base_exec_prefix, "base": sys.base_prefix}
    libraries = dict.fromkeys(sysconfig.get_path(name, vars=bases) for name in ("stdlib", "platstdlib"))
    for path in (executable, *libraries):
        if not posixpath.exists(path):
            raise ImageError(f"the Python that runs pysup has no {path}: install pysup with an ordinary Python")
    return Interpreter(executable, tuple(libraries))


def files(interpreter: Interpreter) -> Iterator[str]:
    """Every file of the standard library that goes into an image."""
    for library in interpreter.libraries:
        for directory, subdirectories, names in os.walk(library):
            subdirectories[:] = [name for name in subdirectories if not _left_out(name)]
            for name in names:
                if not _left_out(name) and _own_bytecode(directory, name):
                    yield posixpath.join(directory, name)


def _left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith(_LEFT_OUT_PREFIXES)


def _own_bytecode(directory: str, name: str) -> bool:
    """Of compiled files those that a plain start reads: without, each container would compile what it imports."""
    return not directory.endswith("__pycache__") or name.endswith(f"{sys.implementation.cache_tag}.pyc")
