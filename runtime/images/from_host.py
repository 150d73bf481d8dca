"""Make an image from programs of the host: no network, no registry, no other tool.

Everything lies at the path it has on the host, so the host's layout and its ld.so.cache hold: see `mirror`, `programs`
and `skeleton`.

An image appears whole or not at all: it is built in a hidden directory beside it and then renamed. A lock on the images
directory lets one build happen at a time, so a hidden directory that is found under the lock was left by a killed one.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ImageError
from runtime.images.lookup import Image, check_name, is_image
from runtime.images.mirror import Mirror
from runtime.images.programs import PYTHON, Programs, find_program, is_python, locate
from runtime.images.skeleton import HOST_TOOLS, REQUIRED_TOOL, add_layout, add_surroundings

BUILDING = ".pysup-"  # no valid name begins with a dot
LOCK_WAIT_S = 60.0
_LOCK_POLL_S = 0.05
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Programs to copy; an optional one that can't be copied is left out."""

    required: tuple[str, ...]
    optional: tuple[str, ...]


def create(
    name: str,
    directory: Path,
    programs: Sequence[str] = (),
    *,
    tools: bool = False,
    python: bool = False,
    force: bool = False,
    search: str | None = None,
) -> Image:
    """Make image `name` in the images directory `directory` (made if need be) from programs of this host.

    `programs` are names, looked up in `search` (default: PATH and the system's own directories), or absolute paths.
    `python3` among them is the Python that runs pysup, as is `python`. `tools` adds those of HOST_TOOLS that work on
    this host, `sh` at least. An image that is there is refused, with `force` replaced: no container should run from it.
    ImageError says what is missing, or why nothing could be written; nothing is left behind then.
    """
    check_name(name)
    if os.geteuid() != 0:
        raise ImageError(f"image {name}: its files must belong to root: make it as root")
    search = search or ":".join(dict.fromkeys(f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}".split(":")))
    try:
        wanted = _wanted(name, programs, tools=tools, python=python)
        for program in wanted.required:  # found before anything is written
            if not is_python(program):
                locate(program, search)
        return _create(name, directory, wanted, search, force=force)
    except OSError as error:
        raise ImageError(f"image {name} in {directory}: {_explain(error)}") from error


def _wanted(name: str, programs: Sequence[str], *, tools: bool, python: bool) -> _Wanted:
    required = [*programs, *([REQUIRED_TOOL] if tools else []), *([PYTHON] if python else [])]
    if not required:
        raise ImageError(f"image {name}: there is nothing to put in: name programs, or give --tools or --python")
    return _Wanted(tuple(required), HOST_TOOLS if tools else ())


def _explain(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}: free some, or give --images DIR on another file system"
    places = " → ".join(str(place) for place in (error.filename, error.filename2) if place)
    return f"{error.strerror}: {places or 'mend that'}"


def _create(name: str, directory: Path, wanted: _Wanted, search: str, *, force: bool) -> Image:
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    with _locked(directory):
        _sweep(directory)
        target = _target(name, directory, force=force)
        build = Path(tempfile.mkdtemp(prefix=BUILDING, dir=directory))
        try:
            _fill(build, wanted, search)
            _publish(build, target)
        except BaseException:
            shutil.rmtree(build, ignore_errors=True)
            raise
    return Image(name, target)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """flock(2) on the directory itself: it goes with its holder, and needs no file."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                raise ImageError(f"another image is being made in {directory}: try again when it is done")
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(directory: Path) -> None:
    for left in directory.glob(f"{BUILDING}*"):
        shutil.rmtree(left, ignore_errors=True)


def _target(name: str, directory: Path, *, force: bool) -> Path:
    """Where the image goes, if it may."""
    target = directory / name
    if not target.parent.resolve().is_relative_to(directory):
        raise ImageError(f"image {name}: {target.parent} leads out of {directory}: choose another name")
    for parent in target.parents[: name.count("/")]:
        if is_image(parent):
            raise ImageError(f"image {name}: {parent} is an image itself: choose another name")
    if os.path.lexists(target):
        if not force:
            raise ImageError(f"image {name} is there already, in {target}: give --force to replace it")
        if target.is_symlink() or not is_image(target):
            raise ImageError(f"image {name}: {target} is not an image: remove it by hand, or choose another name")
    return target


def _fill(root: Path, wanted: _Wanted, search: str) -> None:
    os.chown(root, 0, 0)  # in a set-group-ID directory a new one inherits group and bit: end that here
    root.chmod(0o755)
    mirror = Mirror(root)
    add_layout(mirror)
    programs = Programs(mirror, search)
    for program in wanted.required:
        programs.add(program)
    for program in filter(lambda name: find_program(name, search), wanted.optional):
        with suppress(ImageError):  # something that it needs is missing
            programs.add(program)
    programs.add_later_libraries()
    add_surroundings(mirror)


def _publish(build: Path, target: Path) -> None:
    """By rename. Of an image that is replaced, the name is free for an instant."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = build.with_name(f"{build.name}.old")
    if replaces := target.exists():
        target.rename(old)
    try:
        build.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
