"""Images as the API needs them: a Protocol, and the one that keeps each in a directory (runtime/images/lookup.py).

Docker's names have a tag; ours may: `base` is `base:latest` to Docker. Another name for an image is a symlink beside
it. All of these read a disk: they are for a thread.
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from runtime.errors import ImageError
from runtime.images.listing import ImageInfo, info, ls
from runtime.images.lookup import Image, check_name, find, names
from runtime.remove import remove_tree
from supervisor.api.errors import bad, conflict, missing, not_offered
from supervisor.api.shapes import image_id
from supervisor.api.tarball import Manner, unpack

LATEST = ":latest"
_ID_MIN_CHARS = 4
_BUILDING = ".pysup-load-"  # no image's name begins with a dot


@dataclass(frozen=True, slots=True)
class Known:
    """An image: `names` are all that it has, the first one its own."""

    id: str
    names: tuple[str, ...]
    info: ImageInfo


class Images(Protocol):
    """What there is. RefusedError where it can't be done."""

    def all(self) -> Sequence[Known]: ...
    def find(self, reference: str) -> Known:
        """By name, with or without `:latest`, or by id."""
        ...

    def size_bytes(self, reference: str) -> int:
        """0 if it is not there."""
        ...

    def tag(self, reference: str, name: str) -> None: ...
    def remove(self, reference: str, in_use: Sequence[str]) -> Sequence[tuple[str, str]]:
        """What became of it: (`Untagged`, a name), (`Deleted`, an id). `in_use`: lowers of containers."""
        ...

    def load(self, name: str, source: IO[bytes]) -> str:
        """From a tar of a root file system; returns its id."""
        ...


class Folders:
    """Images in directories of the search path."""

    def __init__(self, path: Sequence[Path]) -> None:
        self._path = tuple(path)

    def all(self) -> Sequence[Known]:
        """See `Images.all`. Two names of one place are one image."""
        known: dict[str, Known] = {}
        for each in ls(self._path):
            key = image_id((str(each.path),))
            before = known[key].names if key in known else ()
            known[key] = Known(key, (*before, each.name), each)
        return tuple(known.values())

    def find(self, reference: str) -> Known:
        """See `Images.find`."""
        image = self._find(reference)
        return Known(image_id((str(image.path),)), self._names_of(image.path), info(image))

    def _find(self, reference: str) -> Image:
        reference = familiar(reference)
        digits = reference.removeprefix("sha256:")
        for name in (reference, reference.removesuffix(LATEST)):
            try:
                return find(name, self._path)
            except ImageError:
                continue
        if len(digits) >= _ID_MIN_CHARS:
            for image in names(self._path):
                if image_id((str(image.path),)).removeprefix("sha256:").startswith(digits):
                    return image
        raise missing(f"No such image: {reference[:200]}")

    def _names_of(self, place: Path) -> tuple[str, ...]:
        return tuple(image.name for image in names(self._path) if image.path == place)

    def size_bytes(self, reference: str) -> int:
        """See `Images.size_bytes`."""
        try:
            return info(find(familiar(reference), self._path)).size_bytes
        except ImageError:
            return 0

    def tag(self, reference: str, name: str) -> None:
        """See `Images.tag`. A name that is a tag already is moved."""
        image = self._find(reference)
        check_name(name)
        folder, slash, _ = name.rpartition("/")
        if slash and not any(each.name.startswith(f"{folder}/") for each in names(self._path)):
            # A folder is one by the images in it, and a symlink is none.
            raise bad(f"{name}: there are no images in {folder}/ yet: give a name without a slash")
        directory = next(each for each in self._path if image.path.is_relative_to(each.resolve()))
        place = directory / name
        if place.is_symlink():
            place.unlink()
        elif os.path.lexists(place):
            raise conflict(f"{name} is an image of its own: remove it first")
        place.symlink_to(os.path.relpath(image.path, place.parent.resolve()))

    def remove(self, reference: str, in_use: Sequence[str]) -> Sequence[tuple[str, str]]:
        """See `Images.remove`."""
        image = self._find(reference)
        place = next(each / image.name for each in self._path if os.path.lexists(each / image.name))
        if place.is_symlink():
            place.unlink()
            return (("Untagged", tagged(image.name)),)
        if str(image.path) in in_use:
            raise conflict(f"image {image.name} is being used by a container: remove that first")
        if others := [name for name in self._names_of(image.path) if name != image.name]:
            raise conflict(f"image {image.name} has other names ({', '.join(others)}): remove these first")
        hidden = place.with_name(f"{_BUILDING}{secrets.token_hex(8)}")
        place.rename(hidden)  # so that nobody finds half of it
        remove_tree(str(hidden))
        return ("Untagged", tagged(image.name)), ("Deleted", image_id((str(image.path),)))

    def load(self, name: str, source: IO[bytes]) -> str:
        """See `Images.load`."""
        check_name(name)
        directory = next((each for each in self._path if each.is_dir()), self._path[0])
        place = directory / name
        if os.path.lexists(place):
            raise conflict(f"there is an image {name} already: remove it first")
        place.parent.mkdir(parents=True, exist_ok=True)
        building = directory / f"{_BUILDING}{secrets.token_hex(8)}"
        building.mkdir(mode=0o755)
        try:
            _fill(building, source)
            building.rename(place)
        except BaseException:
            remove_tree(str(building))
            raise
        return image_id((str(place.resolve()),))


def _fill(directory: Path, source: IO[bytes]) -> None:
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not unpack(root, "/", source, Manner()):
            raise bad("an archive without a file in it is no image")
    finally:
        os.close(root)
    if (directory / "manifest.json").is_file() and not (directory / "etc").is_dir():
        raise not_offered("an archive of docker save", "give the tar of a root file system, as docker export makes it")


def tagged(name: str) -> str:
    """As Docker names it."""
    return name if ":" in name.rpartition("/")[2] else name + LATEST


def familiar(reference: str) -> str:
    """Docker's clients write some names in full."""
    return reference.removeprefix("docker.io/").removeprefix("library/")


def untagged(repository: str, tag: str) -> str:
    """As we name it."""
    repository = familiar(repository)
    return repository if tag in {"", "latest"} else f"{repository}:{tag}"
