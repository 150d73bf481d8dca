"""An image is a directory `images/NAME`: a read-only root file system. Here: by which name, where, and which there are.

A name is one or more parts of letters, digits and `._-+@:`, none beginning with a dot: `base`, `team/base`, `base:1.2`.
So no name leads out of the images directory, and a directory that is being built (`.pysup-…`) is not an image yet.
A directory that merely holds images (`team`) is told from an image by what is in it; see `_kind`.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from runtime.errors import ImageError

NAME_MAX = 255
DEPTH_MAX = 4  # parts of a name
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@:-]*(/[A-Za-z0-9_][A-Za-z0-9._+@:-]*)*", re.ASCII)
_HIERARCHY = "bin boot dev etc home lib lib32 lib64 media mnt opt proc root run sbin srv sys tmp usr var"  # hier(7)
_TOP = frozenset(_HIERARCHY.split())


@dataclass(frozen=True, slots=True)
class Image:
    name: str
    path: Path  # absolute, without symlinks


class _Kind(Enum):
    IMAGE = auto()
    FOLDER = auto()
    EMPTY = auto()


def search_path(spec: Path | None, images: Path | None, cwd: Path) -> tuple[Path, ...]:
    """Where images may be, in order: `images` alone if given, else images/ beside the spec, above it, and in `cwd`."""
    if images is not None:
        return (cwd / images,)
    beside = [] if spec is None else [(cwd / spec).parent.resolve()]
    places = [*beside, *(folder.parent for folder in beside), cwd]
    return tuple(dict.fromkeys(Path(os.path.normpath(place / "images")) for place in places))


def find(name: str, path: Sequence[Path]) -> Image:
    """The first image called `name` in the directories of `path`. ImageError if there is none, or it can't be used."""
    check_name(name)
    for directory in path:
        place = directory / name
        if os.path.lexists(place):
            return Image(name, _usable(name, place, directory))
    raise _unknown(name, path)


def names(path: Sequence[Path]) -> tuple[Image, ...]:
    """All images that `find` finds, by name."""
    found: dict[str, Image] = {}
    for directory in path:
        for name in _names_in(directory, "", DEPTH_MAX):
            try:
                found.setdefault(name, Image(name, _usable(name, directory / name, directory)))
            except ImageError:
                continue  # a broken one; `find` says why
    return tuple(found[name] for name in sorted(found))


def check_name(name: str) -> None:
    """ImageError unless `name` is the name of an image, whether or not there is one."""
    if len(name) > NAME_MAX or not _NAME.fullmatch(name) or name.count("/") >= DEPTH_MAX:
        raise ImageError(
            f"image name {name[:NAME_MAX]!r} is not valid: give a name like base, team/base or base:1.2 "
            f"(letters, digits and ._-+@:, at most {DEPTH_MAX} parts), and --images DIR for another place"
        )


def is_image(place: Path) -> bool:
    return place.is_dir() and _kind(place, DEPTH_MAX) is _Kind.IMAGE


def _usable(name: str, place: Path, directory: Path) -> Path:
    """`place`, if it is an image within `directory`: symlinks may lead about in there, never out."""
    try:
        resolved, top = place.resolve(strict=True), directory.resolve()
        if resolved == top or not resolved.is_relative_to(top):
            raise ImageError(f"image {name}: {place} is a symlink that leads out of {directory}: copy the image there")
        kind = _kind(resolved, DEPTH_MAX)
    except NotADirectoryError as error:
        raise ImageError(f"image {name}: {place} is not a directory: unpack the image there") from error
    except (OSError, RuntimeError) as error:  # resolve() raises RuntimeError where symlinks lead in a circle
        reason = getattr(error, "strerror", None) or "symlinks lead in a circle"
        raise ImageError(f"image {name}: {place} can't be read: {reason}; mend or remove it") from error
    if kind is _Kind.EMPTY:
        raise ImageError(
            f"image {name}: {place} is empty: remove it and make the image, see `pysup image create --help`"
        )
    if kind is _Kind.FOLDER:
        inner = next(_names_in(place, f"{name}/", DEPTH_MAX - 1), f"{name}/NAME")
        raise ImageError(f"image {name}: {place} is a folder of images: name one of them, such as {inner}")
    return resolved


def _kind(place: Path, depth: int) -> _Kind:
    """An image has files or one of the usual directories at its top; a folder has images, and neither of those.

    What is neither (`app/server`) counts as an image. Symlinks (`latest`) and hidden files count for nothing.
    """
    with os.scandir(place) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    if not shown:
        return _Kind.EMPTY
    if any(entry.name in _TOP or entry.is_file(follow_symlinks=False) for entry in shown):
        return _Kind.IMAGE
    below = [Path(entry.path) for entry in shown if entry.is_dir(follow_symlinks=False)]
    holds = depth > 1 and any(_certainly_holds_image(folder, depth - 1) for folder in below)
    return _Kind.FOLDER if holds else _Kind.IMAGE


def _certainly_holds_image(folder: Path, depth: int) -> bool:
    """Whether `folder` or something in it has the usual directories of a root file system."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return False
    if any(entry.name in _TOP for entry in entries):
        return True
    return depth > 1 and any(_certainly_holds_image(entry, depth - 1) for entry in entries)


def _names_in(directory: Path, prefix: str, depth: int) -> Iterator[str]:
    try:
        entries = sorted(entry for entry in directory.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir())
    except OSError:
        return
    for entry in entries:
        try:
            folder = depth > 1 and _kind(entry, depth) is _Kind.FOLDER and not entry.is_symlink()
        except OSError:
            folder = False
        if folder:
            yield from _names_in(entry, f"{prefix}{entry.name}/", depth - 1)
        else:
            yield prefix + entry.name


def _unknown(name: str, path: Sequence[Path]) -> ImageError:
    looked = ", ".join(str(directory) for directory in path)
    return ImageError(
        f"image {name} is not in {looked}: {_known(name, (image.name for image in names(path)))}; "
        f"`pysup image create {name} --from-host --tools` makes one, --images DIR looks elsewhere"
    )


def _known(name: str, known: Iterable[str]) -> str:
    there = list(known)
    near = difflib.get_close_matches(name, there, n=3)
    if near:
        return f"there is {', '.join(near)}"
    return f"there is {', '.join(there[:10])}" if there else "there are no images"
