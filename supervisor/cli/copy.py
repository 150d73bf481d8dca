"""`pysup cp`: files between this machine and a container, by tar streams.

What comes from a container is unpacked as the server unpacks what goes into one: no entry of it leads out of the place
it is unpacked at, whatever it is called and whichever symlinks there are. It becomes ours, as with cp(1), so a program
that was set-user-ID in there must not be so here, where it would be anybody's way to be us: that, file capabilities and
devices come along with --archive only.
"""

import base64
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from pathlib import Path
from threading import Thread
from typing import Any

import click

from runtime.errors import PysupError
from supervisor.cli import options, stacks
from supervisor.client import CHUNK_BYTES, Reply, name_in_path
from supervisor.errors import CommandError, NoSuchContainerError

_GO_DIRECTORY, _GO_DEVICE = 1 << 31, 1 << 26  # of os.FileMode
_HEADER = "x-docker-container-path-stat"


_EXAMPLES = """\b
Examples:
  pysup cp nginx.conf web.1:/etc/nginx/
  pysup cp db:/var/lib/db - > db.tar   a tar stream of all that is there"""


@click.command(epilog=_EXAMPLES)
@options.on_stack
@click.option("-a", "--archive", is_flag=True, help="Keep owners, and with them set-user-ID bits and devices.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
def cp(stack: stacks.Stack, source: str, target: str, *, archive: bool) -> None:
    """Copy files to a container, or from one.

    SRC or DST is ID:PATH, the other a path here, or - for a tar stream.

    A directory DST gets SRC put into it; SRC/. is what is in SRC. What DST/ names must be there.
    """
    there, here = _in_container(source), _in_container(target)
    if (there is None) == (here is None):
        raise click.UsageError("one of SRC and DST must be ID:PATH, and the other a path here or -")
    if there is not None:
        _Place(stack, *there).fetch(target, keep_owners=archive)
    elif here is not None:
        _Place(stack, *here).bring(source, keep_owners=archive)


def _in_container(text: str) -> tuple[str, str] | None:
    """As docker cp: a path that begins with a slash or a dot is one of ours, whatever colons it has."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and name and not text.startswith(("/", ".")) else None


class _Place:
    """A path in a container."""

    def __init__(self, stack: stacks.Stack, word: str, path: str) -> None:
        self._client = stack.client
        self._name = str(stacks.single(stack, word)["id"])
        self._url = f"/containers/{name_in_path(self._name)}/archive"
        self._path = f"/{path.lstrip('/')}"

    # --- out of it ---------------------------------------------------------------------------------------------------

    def fetch(self, target: str, *, keep_owners: bool) -> None:
        with self._client.request("GET", self._url, {"path": self._path}) as reply:
            if target == "-":
                for piece in reply.pieces():
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
            else:
                _unpack(reply, Path(target), has_slash=target.endswith("/"), keep_owners=keep_owners)

    # --- into it -----------------------------------------------------------------------------------------------------

    def bring(self, source: str, *, keep_owners: bool) -> None:
        if source == "-":
            self._put(self._path, iter(lambda: os.read(0, CHUNK_BYTES), b""))
            return
        if not os.path.lexists(source):
            raise CommandError(f"{source}: no such file or directory")
        folder, name = self._place_of(_name_of(source))
        self._put(folder, _packed(source, name, keep_owners=keep_owners))

    def _place_of(self, name: str) -> tuple[str, str]:
        """Where it is unpacked, and what it is called there."""
        mode = self._mode(self._path)
        if mode is not None and mode & _GO_DIRECTORY:
            return self._path, name
        if name == "." and mode is not None:
            raise CommandError(f"{self._name}:{self._path} is no directory")
        if self._path.endswith("/"):
            raise CommandError(f"{self._name}:{self._path}: there is no such directory")
        folder, _, last = self._path.rpartition("/")
        return folder or "/", last

    def _mode(self, path: str) -> int | None:
        try:
            with self._client.request("HEAD", self._url, {"path": path}) as reply:
                found = json.loads(base64.b64decode(reply.headers[_HEADER]))
        except NoSuchContainerError:  # the same status: the path is not there
            return None
        except CommandError:  # a head comes without words: the whole answer says why
            self._client.request("GET", self._url, {"path": path}).close()
            raise
        return int(found["mode"])

    def _put(self, folder: str, pieces: Iterator[bytes]) -> None:
        self._client.request("PUT", self._url, {"path": folder}, pieces=pieces).close()


def _name_of(source: str) -> str:
    """What it is called in the archive; `.` of one whose contents are meant."""
    if source == "." or source.rstrip("/").endswith("/."):
        return "."
    return Path(source).absolute().resolve().name if source.endswith("..") else Path(source).name


def _packed(source: str, name: str, *, keep_owners: bool) -> Iterator[bytes]:
    """A tar stream. It is written by a thread: what a file holds need not fit into memory."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    failed: list[OSError] = []

    def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
        return info if keep_owners else info.replace(uid=0, gid=0, uname="", gname="", deep=False)

    def pack() -> None:
        try:
            with os.fdopen(writer, "wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
                tar.add(source, name, filter=owned)
        except OSError as error:
            failed.append(error)

    thread = Thread(target=pack, daemon=True)
    thread.start()
    with os.fdopen(reader, "rb") as file:
        while piece := file.read1(CHUNK_BYTES):
            yield piece
    thread.join()
    if failed:
        raise CommandError(f"{failed[0].filename or source}: {failed[0].strerror}")


def _unpack(reply: Reply, target: Path, *, has_slash: bool, keep_owners: bool) -> None:
    """Into a directory that is there; or to a new name, by way of a directory beside it."""
    what = json.loads(base64.b64decode(reply.headers[_HEADER]))
    if what["mode"] & _GO_DEVICE and not keep_owners:
        raise CommandError(f"{what['name']} is a device: --archive copies those, too")
    if target.is_dir():
        _unpack_into(reply, target, keep_owners=keep_owners)
        return
    if has_slash or not target.parent.is_dir():
        raise CommandError(f"{target if has_slash else target.parent}: there is no such directory")
    if target.exists() and what["mode"] & _GO_DIRECTORY:
        raise CommandError(f"{target} is no directory")
    beside = Path(tempfile.mkdtemp(prefix=".pysup-", dir=target.parent))
    try:
        _unpack_into(reply, beside, keep_owners=keep_owners)
        (unpacked,) = beside.iterdir() if what["name"] not in {".", "/"} else (beside,)
        unpacked.replace(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _unpack_into(reply: Reply, folder: Path, *, keep_owners: bool) -> None:
    from supervisor.api.tarball import Manner, unpack  # noqa: PLC0415 (not needed the other way)

    root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unpack(
            root,
            "/",
            BufferedReader(_Pieces(reply.pieces())),
            Manner(None if keep_owners else (os.geteuid(), os.getegid()), harmless=not keep_owners),
        )
    except PysupError as error:
        raise CommandError(f"{folder}: {error}") from error
    finally:
        os.close(root)


class _Pieces(RawIOBase):
    """What tarfile reads a stream from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._held = self._held or next(self._pieces, b"")
        taken, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)
