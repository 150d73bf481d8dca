"""Files in and out of a container's root, or of a directory, as tar streams.

The tree belongs to a container, which may change it while we look, and try to lead us out of it. So every path is
resolved by openat2(2) with the container's root as its root (RESOLVE_IN_ROOT: `..` and absolute symlinks stay inside,
no magic link is followed), names are then used relative to the directory that was opened, without following a symlink,
and nothing is read but regular files, which never block. Modes and owners are set through descriptors. These are calls
for a thread of their own: they wait for the stream's other end.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from runtime import linux
from runtime.idmap import Ids
from runtime.inside import open_inside
from supervisor.api import limits
from supervisor.api.errors import RefusedError, bad, conflict, missing

IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
WITHIN = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_XDEV  # not into what is mounted
PLAIN = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_SYMLINKS
_GONE = (FileNotFoundError, NotADirectoryError)
_XATTR = "SCHILY.xattr."
_XATTRS = ("security.capability", "user.")  # others mean something to the host, or to the overlay
_COPY_BYTES = 1 << 20

# Of Go's os.FileMode, by which Docker tells a mode.
_GO_TYPES: Mapping[int, int] = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a path, as `lstat`; `target` of a symlink."""

    name: str
    status: os.stat_result
    target: str

    @property
    def go_mode(self) -> int:
        """Its mode as Go's os.FileMode."""
        mode = self.status.st_mode
        bits = sum(theirs for ours, theirs in _GO_BITS if mode & ours)
        return stat.S_IMODE(mode) & 0o777 | _GO_TYPES.get(stat.S_IFMT(mode), 0) | bits


def look(root: int, path: str) -> Found:
    """What is at `path`. RefusedError if there is nothing."""
    with opened(root, path) as descriptor:
        status = os.fstat(descriptor)
        target = os.readlink("", dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else ""  # readlink(2): O_PATH
    return Found(name_of(path), status, target)


@contextmanager
def opened(root: int, path: str) -> Iterator[int]:
    """An O_PATH descriptor. The last part is followed only where it ends in a slash. RefusedError."""
    followed = path.endswith(("/", "/.")) or path in {".", ""}
    try:
        descriptor = open_inside(
            root, path or "/", os.O_PATH | (os.O_DIRECTORY if followed else os.O_NOFOLLOW), resolve=IN_ROOT
        )
    except OSError as error:
        raise _unopened(path, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unopened(path: str, error: OSError) -> RefusedError:
    if isinstance(error, FileNotFoundError):
        return missing(f"Could not find the file {path} in container")
    return bad(f"{path}: {error.strerror}")


def name_of(path: str) -> str:
    """What Docker calls it in the archive: its last part, `.` and `/` included."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def walk(top: int, resolve: int = PLAIN, beside: frozenset[int] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """All that is below a directory, parents first, without following symlinks. What goes meanwhile is left out, and
    what is in file systems of `beside`, by their devices.

    However deep it is, few descriptors are held. RefusedError if there is too much.
    """
    left, count = [""], 0
    while left:
        folder = left.pop()
        try:
            directory = open_inside(top, folder or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=resolve)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV}:
                continue
            raise
        try:
            for name, status in _entries(directory):
                count += 1
                if count > limits.ENTRIES_MAX:
                    raise conflict(f"there are more than {limits.ENTRIES_MAX} files: too many at once")
                path = f"{folder}/{name}" if folder else name
                if stat.S_ISDIR(status.st_mode) and status.st_dev not in beside:
                    left.append(path)
                yield path, status
        finally:
            os.close(directory)


def _entries(directory: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)


# --- out -------------------------------------------------------------------------------------------------------------


def pack(root: int, path: str, out: IO[bytes], ids: Ids | None = None) -> None:
    """Write what is at `path`, and all below it, as a tar stream. With `ids` owners are as inside. RefusedError if
    there is nothing.

    The kernel's own files are in it only where `path` is one of them: they are no files of the container's, some can't
    be read, and others never end.
    """
    with opened(root, path) as top, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        name, status = name_of(path), _seen_inside(os.fstat(top), ids)
        if not stat.S_ISDIR(status.st_mode):
            _add_file(tar, root, path, name, status, {})
            return
        tar.addfile(_header(name, status))
        seen: dict[tuple[int, int], str] = {}
        for below, found in walk(top, beside=_kernels(root) - {status.st_dev}):
            _add_file(tar, top, below, f"{name.rstrip('/')}/{below}", _seen_inside(found, ids), seen)


def pack_all(root: int, out: IO[bytes], ids: Ids | None = None) -> None:
    """Write all that is in a root as a tar stream, by its names in there: of what is mounted on it the place alone."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        seen: dict[tuple[int, int], str] = {}
        for path, found in walk(root, WITHIN):
            _add_file(tar, root, path, path, _seen_inside(found, ids), seen, WITHIN)


def _kernels(root: int) -> frozenset[int]:
    """The devices of what is mounted at /proc and /sys."""
    found = set()
    for name in ("proc", "sys"):
        with suppress(RefusedError), opened(root, name) as descriptor:
            found.add(os.fstat(descriptor).st_dev)
    return frozenset(found - {os.fstat(root).st_dev})


def _seen_inside(status: os.stat_result, ids: Ids | None) -> os.stat_result:
    """With the owners that the container knows."""
    if ids is None:
        return status
    uid, gid = ids.inside(status.st_uid, status.st_gid)
    return os.stat_result((*status[:4], uid, gid, *status[6:]), {"st_rdev": status.st_rdev})


def _header(name: str, status: os.stat_result) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.mode = stat.S_IMODE(status.st_mode)
    header.uid, header.gid = status.st_uid, status.st_gid
    header.mtime = int(status.st_mtime)
    header.type = _TAR_TYPES.get(stat.S_IFMT(status.st_mode), tarfile.REGTYPE)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        header.devmajor, header.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return header


_TAR_TYPES: Mapping[int, bytes] = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
}


def _add_file(
    tar: tarfile.TarFile,
    top: int,
    path: str,
    name: str,
    status: os.stat_result,
    seen: dict[tuple[int, int], str],
    resolve: int = IN_ROOT,
) -> None:
    """Anything that is not read as a directory: of `path` below `top`. What is gone meanwhile is left out."""
    header = _header(name, status)
    inode = status.st_dev, status.st_ino
    try:
        if stat.S_ISSOCK(status.st_mode):  # a tar has no word for it
            return
        if stat.S_ISLNK(status.st_mode):
            with opened(top, path) as link:
                header.linkname = os.readlink("", dir_fd=link)
        elif stat.S_ISREG(status.st_mode) and inode in seen:
            header.type, header.linkname = tarfile.LNKTYPE, seen[inode]
        elif stat.S_ISREG(status.st_mode):
            _add_contents(tar, top, path, header, resolve)
            if status.st_nlink > 1:
                seen[inode] = name
            return
    except (*_GONE, RefusedError):
        return
    tar.addfile(header)


def _add_contents(tar: tarfile.TarFile, top: int, path: str, header: tarfile.TarInfo, resolve: int) -> None:
    """Of a regular file; by the time it is opened it may be something else."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = open_inside(top, path, flags, resolve=resolve)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        tar.addfile(header)  # something is mounted on it: an empty file stands for what is below
        return
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        header.size = status.st_size
        for name in os.listxattr(descriptor):
            if name.startswith(_XATTRS):
                header.pax_headers = {
                    **header.pax_headers,
                    _XATTR + name: os.getxattr(descriptor, name).decode("utf-8", "surrogateescape"),
                }
        tar.addfile(header, _Exactly(file))  # type: ignore[arg-type]  # all that addfile asks for is `read`


class _Exactly:
    """A file that gives as much as it is asked for: one that has shrunk goes on in zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        return (self._file.read(count) or b"").ljust(count, b"\0")


# --- in --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Manner:
    """How an archive is unpacked. `owner`: whose all of it becomes; None: as the archive says."""

    owner: tuple[int, int] | None = None
    keep_kinds: bool = False  # a directory never takes the place of a file
    ids: Ids | None = None  # the container's own
    harmless: bool = False  # nothing of it has privileges or is a device: what a container made comes out of it


def unpack(root: int, path: str, source: IO[bytes], manner: Manner) -> int:
    """Unpack a tar stream, compressed or not, into the directory at `path`; returns how many entries. RefusedError."""
    try:
        os.close(open_inside(root, path or "/", os.O_PATH | os.O_DIRECTORY, resolve=IN_ROOT))
    except NotADirectoryError as error:
        raise bad("extraction point is not a directory") from error
    except OSError as error:
        raise _unopened(path, error) from error
    count = size = 0
    try:
        with tarfile.open(fileobj=source, mode="r|*", bufsize=_COPY_BYTES) as tar:
            for header in tar:
                count, size = count + 1, size + header.size
                if count > limits.ENTRIES_MAX or size > limits.ARCHIVE_MAX_BYTES:
                    raise bad(
                        f"the archive has more than {limits.ENTRIES_MAX} entries or {limits.ARCHIVE_MAX_BYTES} bytes"
                    )
                _Entry(root, path, tar, header, manner).unpack()
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:  # numbers as no file has them as well
        raise bad(f"not a tar archive, or not whole: {error}") from error
    except OSError as error:
        raise bad(f"{error.filename or path}: {error.strerror or error}") from error
    return count


class _Entry:
    """One entry of an archive on its way to a place below `path`."""

    def __init__(self, root: int, path: str, tar: tarfile.TarFile, header: tarfile.TarInfo, manner: Manner) -> None:
        self._root = root
        self._top = path.rstrip("/")
        self._tar = tar
        self._header = header
        self._manner = manner
        self._parts = _parts(header.name)

    def unpack(self) -> None:
        if not self._parts:
            self._finish_path(self._top or "/")
            return
        *above, name = self._parts
        parent = _folder(self._root, "/".join((self._top, *above)) or "/")
        try:
            self._make_room(parent, name)
            self._make(parent, name)
        finally:
            os.close(parent)

    def _make_room(self, parent: int, name: str) -> None:
        """What has the name already goes, unless both are directories."""
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(there.st_mode):
            if not self._header.isdir():
                raise bad(f"{self._header.name}: cannot overwrite directory with non-directory")
            return
        if self._header.isdir() and self._manner.keep_kinds:
            raise bad(f"{self._header.name}: cannot overwrite non-directory with directory")
        os.unlink(name, dir_fd=parent)

    def _make(self, parent: int, name: str) -> None:
        header = self._header
        if header.isreg():
            self._make_file(parent, name)
        elif header.isdir():
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            self._finish(parent, name)
        elif header.issym():
            os.symlink(header.linkname, name, dir_fd=parent)
            os.chown(name, *self._owner(), dir_fd=parent, follow_symlinks=False)
        elif header.islnk():
            self._make_link(parent, name)
        elif header.isdev() and self._manner.harmless:
            return
        elif header.isfifo() or header.isdev():
            kind = stat.S_IFIFO if header.isfifo() else stat.S_IFCHR if header.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(header.devmajor, header.devminor), dir_fd=parent)
            self._finish(parent, name)
        else:
            raise bad(f"{header.name}: an entry of an unknown type")

    def _make_file(self, parent: int, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        source = self._tar.extractfile(self._header)
        assert source is not None
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb", buffering=0) as file:
            while data := source.read(_COPY_BYTES):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            descriptor = file.fileno()
            os.fchown(descriptor, *self._owner())
            os.fchmod(descriptor, self._mode())
            self._set_xattrs(descriptor)
            os.utime(descriptor, (self._header.mtime, self._header.mtime))

    def _set_xattrs(self, descriptor: int) -> None:
        kept = _XATTRS[1:] if self._manner.harmless else _XATTRS
        for key, value in self._header.pax_headers.items():
            if key.startswith(_XATTR) and key.removeprefix(_XATTR).startswith(kept):
                with suppress(OSError):  # the file system may know none
                    os.setxattr(descriptor, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))

    def _make_link(self, parent: int, name: str) -> None:
        """A hard link to an earlier entry."""
        *above, target = _parts(self._header.linkname) or ("",)
        there = _folder(self._root, "/".join((self._top, *above)) or "/")
        try:
            os.link(target, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)

    def _finish(self, parent: int, name: str) -> None:
        """Owner, mode and time of what is no file. Through a descriptor: the name may be a symlink by now."""
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._finish_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def _finish_path(self, path: str) -> None:
        descriptor = open_inside(self._root, path, os.O_PATH | os.O_DIRECTORY, resolve=IN_ROOT)
        try:
            self._finish_descriptor(descriptor)
        finally:
            os.close(descriptor)

    def _finish_descriptor(self, descriptor: int) -> None:
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            return
        place = f"/proc/self/fd/{descriptor}"  # fchmod(2) refuses O_PATH
        os.chown(place, *self._owner())
        os.chmod(place, self._mode())  # noqa: PTH101 (one of a kind with the calls beside it)
        os.utime(place, (self._header.mtime, self._header.mtime))

    def _mode(self) -> int:
        """A directory's set-group-ID bit gives nobody a privilege, and the sticky bit takes one."""
        privileges = stat.S_ISUID | (0 if self._header.isdir() else stat.S_ISGID) if self._manner.harmless else 0
        return self._header.mode & 0o7777 & ~privileges

    def _owner(self) -> tuple[int, int]:
        owner = self._manner.owner or (self._header.uid, self._header.gid)
        return owner if self._manner.ids is None else self._manner.ids.outside(*owner)


def _parts(name: str) -> list[str]:
    """RefusedError if it leads out."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or len(parts) > limits.DEPTH_MAX:
        raise bad(f"{name[:200]}: such a path in an archive leads out of its place, or is too deep")
    return parts


def _folder(root: int, path: str) -> int:
    """A directory's descriptor; it is made if it is not there."""
    try:
        return open_inside(root, path, os.O_PATH | os.O_DIRECTORY, resolve=IN_ROOT)
    except FileNotFoundError:
        above, _, name = path.rpartition("/")
        if not name:
            raise
    parent = _folder(root, above or "/")
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
    finally:
        os.close(parent)
    return open_inside(root, path, os.O_PATH | os.O_DIRECTORY, resolve=IN_ROOT)
