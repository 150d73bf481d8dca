"""Whom a container runs as follows runc's rules, from the image's own files and no others."""

import os
from pathlib import Path

import pytest
from descriptors import held, opened_since
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import UserError
from runtime.users import FILE_MAX_BYTES, User, lookup

PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/sh

app:x:1000:1000:App:/home/app:/bin/sh
app:x:1001:1001:second:/nowhere:/bin/sh
twin:x:1000:7:same id:/twin:/bin/sh
short:x:5:6
nohome:x:8:9:::
1234:x:77:78:a number for a name:/seven:/bin/sh
broken:x:one:two:::
far:x:4294967295:0:::
+::::::
last:x:4294967294:4294967294::/last:/bin/sh"""
GROUP = """\
root:x:0:
wheel:x:10:root,app
app:x:1000:
staff:x:50:someone,app
again:x:1000:app
broken:x:fifty:app
plain:x:60
42:x:43:nobody
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, User(0, 0, (0, 10), "root", "/root")),
        ("", User(0, 0, (0, 10), "root", "/root")),
        ("root", User(0, 0, (0, 10), "root", "/root")),
        ("0", User(0, 0, (0, 10), "root", "/root")),
        ("app", User(1000, 1000, (1000, 10, 50), "app", "/home/app")),
        ("1000", User(1000, 1000, (1000, 10, 50), "app", "/home/app")),  # the first entry with that id
        ("app:", User(1000, 1000, (1000, 10, 50), "app", "/home/app")),
        ("app:staff", User(1000, 50, (50,), "app", "/home/app")),  # a group asked for is the only one
        ("app:1000", User(1000, 1000, (1000,), "app", "/home/app")),
        ("1000:60", User(1000, 60, (60,), "app", "/home/app")),
        ("twin", User(1000, 7, (7,), "twin", "/twin")),
        (":staff", User(0, 50, (50,), "root", "/root")),
        ("2000", User(2000, 0, (0,), "2000", "/")),  # no entry
        ("2000:3000", User(2000, 3000, (3000,), "2000", "/")),
        ("2000:plain", User(2000, 60, (60,), "2000", "/")),
        ("1234", User(1234, 0, (0,), "1234", "/")),  # a number is never a name
        ("2000:42", User(2000, 42, (42,), "2000", "/")),
        ("short", User(5, 6, (6,), "short", "/")),
        ("nohome", User(8, 9, (9,), "nohome", "/")),
        ("last", User(4294967294, 4294967294, (4294967294,), "last", "/last")),
        ("007", User(7, 0, (0,), "7", "/")),
    ],
)
def test_a_user_is_who_runc_says(root: Path, user: str | None, expected: User) -> None:
    assert lookup(root, user) == expected


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("ap", "user 'ap' is not in {root}/etc/passwd (there is app"),
        ("zzzzz", "user 'zzzzz' is not in {root}/etc/passwd: give a name from there, or a number"),
        ("broken", "user 'broken' is not in"),
        ("far", "user 'far' is not in"),
        ("+", "user '+' is not in"),
        ("app:staf", "group 'staf' is not in {root}/etc/group (there is staff)"),
        ("app:broken", "group 'broken' is not in"),
        ("a:b:c", "user 'a' is not in"),
        ("app:b:c", "group 'b:c' is not in"),
        ("4294967295", "user or group id 4294967295 is out of range: give one from 0 to 4294967294"),
        ("-1", "user or group id -1 is out of range"),
        ("0:-1", "user or group id -1 is out of range"),
        ("9" * 5000, "is out of range"),
        ("٣", "user '٣' is not in"),  # a digit, but not one of ours
    ],
)
def test_a_user_that_can_not_be_is_refused_by_name(root: Path, user: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        lookup(root, user)
    assert message.format(root=root) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_image_without_the_files_has_numbers_only(tmp_path: Path) -> None:
    assert lookup(tmp_path, None) == User(0, 0, (0,), "0", "/")
    assert lookup(tmp_path, "5:6") == User(5, 6, (6,), "5", "/")
    with pytest.raises(UserError, match="user 'root' is not in"):
        lookup(tmp_path, "root")


def test_symlinks_of_the_image_stay_in_it(root: Path, tmp_path: Path) -> None:
    """An absolute target counts from the image's root, and `..` stops there."""
    (root / "etc/passwd").rename(root / "real")
    for target in ("/real", "../real", "../../../../../real"):
        (root / "etc/passwd").unlink(missing_ok=True)
        (root / "etc/passwd").symlink_to(target)
        assert lookup(root, "app").uid == 1000
    outside = tmp_path / "image"
    outside.mkdir()
    (outside / "etc").symlink_to(root / "etc")
    with pytest.raises(UserError, match="user 'app' is not in"):
        lookup(outside, "app")


def test_odd_files_are_refused_without_a_wait(root: Path) -> None:
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    with pytest.raises(UserError, match="passwd is not a regular file"):
        lookup(root, "app")
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    with pytest.raises(UserError, match="passwd"):
        lookup(root, "app")
    (root / "etc/passwd").rmdir()
    (root / "etc/passwd").symlink_to("passwd")
    with pytest.raises(UserError, match="passwd can't be read: Too many levels of symbolic links"):
        lookup(root, "0")


def test_a_huge_file_is_refused(root: Path) -> None:
    os.truncate(root / "etc/group", FILE_MAX_BYTES + 1)
    with pytest.raises(UserError, match="group is larger than 1048576 bytes"):
        lookup(root, "0")


def test_no_descriptor_is_left(root: Path) -> None:
    before = held()
    lookup(root, "app")
    assert opened_since(before) == {}


@given(contents=st.binary(max_size=200), user=st.text(max_size=12))
def test_no_file_and_no_name_makes_anything_but_a_user_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory, contents: bytes, user: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "junk"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_bytes(contents)
    (root / "etc/group").write_bytes(contents)
    try:
        found = lookup(root, user)
    except UserError:
        return
    assert all(0 <= number < 2**32 - 1 for number in (found.uid, found.gid, *found.groups))
