"""Whom a container runs as: `uid[:gid]` or `name[:group]`, looked up in the image's own passwd and group.

The rules are runc's (moby/sys `user.GetExecUser`) and Docker's:

* A number is always an id, never a name. Without an entry in passwd its group is 0 and its home `/`.
* A name must have an entry. Where several match, the first one counts.
* The supplementary groups are those that list the user's name, but only where no group was asked for: `app:staff` gives
  `staff` alone.
* The primary group is always among the groups: else a file that grants the group less than others could be read by
  dropping it through a set-group-ID program (CVE-2022-36109).

The image is not trusted: its files are opened beneath its root (openat2 with RESOLVE_IN_ROOT, so no symlink leads out),
must be regular, and are read to a limit. Lines that are not well-formed are skipped, as the C library skips them.
"""

import difflib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime import linux
from runtime.errors import UserError

FILE_MAX_BYTES = 1 << 20  # of passwd and of group; moby/sys bounds a line so
ID_MAX = (1 << 32) - 2  # (uid_t) -1 means "no change" to the kernel: setresuid(2)


@dataclass(frozen=True, slots=True)
class User:
    """Whom to become. `groups` holds the primary group too; `name` is the uid in digits where passwd has no entry."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


@dataclass(frozen=True, slots=True)
class _Account:
    """A line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    """A line of group(5)."""

    name: str
    gid: int
    members: tuple[str, ...]


def lookup(root: Path, user: str | None) -> User:
    """`user` (`uid[:gid]`, `name[:group]` or a mix; None or empty: uid 0) in the image at `root`.

    UserError where a name is unknown, an id is out of range, or a file of the image can't be used.
    """
    wanted, _, group = (user or "").partition(":")
    passwd, groups = root / "etc/passwd", root / "etc/group"
    account = _account(wanted or "0", list(_accounts(_lines(root, "etc/passwd"))), passwd)
    entries = list(_groups(_lines(root, "etc/group")))
    gid = _gid(group, entries, groups) if group else account.gid
    extra = () if group or not account.name else tuple(entry.gid for entry in entries if account.name in entry.members)
    name = account.name or str(account.uid)
    return User(account.uid, gid, tuple(dict.fromkeys((gid, *extra))), name, account.home)


def _account(wanted: str, accounts: list[_Account], file: Path) -> _Account:
    uid = _number(wanted)
    for account in accounts:
        if account.uid == uid if uid is not None else account.name == wanted:
            return account
    if uid is None:
        raise _unknown("user", wanted, (account.name for account in accounts), file)
    return _Account("", uid, 0, "/")


def _gid(wanted: str, groups: list[_Group], file: Path) -> int:
    gid = _number(wanted)
    if gid is not None:
        return gid
    for group in groups:
        if group.name == wanted:
            return group.gid
    raise _unknown("group", wanted, (group.name for group in groups), file)


def _number(text: str) -> int | None:
    """The id that `text` writes, None if it is a name."""
    digits = text.lstrip("-")
    if not (digits.isascii() and digits.isdecimal()):
        return None
    if text != digits or not _is_id(digits):
        raise UserError(f"user or group id {text[:20]} is out of range: give one from 0 to {ID_MAX}")
    return int(digits)


def _unknown(kind: str, wanted: str, names: Iterable[str], file: Path) -> UserError:
    near = difflib.get_close_matches(wanted, names, n=3)
    hint = f" (there is {', '.join(near)})" if near else ""
    return UserError(f"{kind} {wanted!r} is not in {file}{hint}: give a name from there, or a number")


def _accounts(lines: Iterable[str]) -> Iterator[_Account]:
    for line in lines:
        match line.split(":"):
            case [name, _, uid, gid, *rest] if name and _is_id(uid) and _is_id(gid):
                home = rest[1] if len(rest) > 1 else ""
                yield _Account(name, int(uid), int(gid), home or "/")


def _groups(lines: Iterable[str]) -> Iterator[_Group]:
    for line in lines:
        match line.split(":"):
            case [name, _, gid, *rest] if name and _is_id(gid):
                yield _Group(name, int(gid), tuple(rest[0].split(",")) if rest else ())


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(ID_MAX)) and int(text) <= ID_MAX


def _lines(root: Path, name: str) -> Iterator[str]:
    """The entries of the image's file `name`; none where it has no such file."""
    for line in os.fsdecode(_contents(root, name)).split("\n"):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry


def _contents(root: Path, name: str) -> bytes:
    try:
        fd = _open_beneath(root, name)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise UserError(f"{root / name} can't be read: {error.strerror}; mend the image") from error
    try:
        return _read(fd, root / name)
    finally:
        os.close(fd)


def _read(fd: int, file: Path) -> bytes:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise UserError(f"{file} is not a regular file: mend the image")
    with os.fdopen(fd, "rb", closefd=False) as stream:
        contents = stream.read(FILE_MAX_BYTES + 1)
    if len(contents) > FILE_MAX_BYTES:
        raise UserError(f"{file} is larger than {FILE_MAX_BYTES} bytes: mend the image")
    return contents


def _open_beneath(root: Path, name: str) -> int:
    """O_NONBLOCK: the image may hold a FIFO there, whose open would wait for a writer."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        return linux.openat2(top, name, flags, resolve=linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(top)
