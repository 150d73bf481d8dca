"""An image made from the host works by itself, shares nothing with the host, and appears whole or not at all."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images import from_host
from runtime.images.from_host import create
from runtime.images.listing import ls
from runtime.images.lookup import Image, find
from runtime.images.skeleton import HOST_TOOLS

pytestmark = pytest.mark.kernel

Run = Callable[..., subprocess.CompletedProcess[str]]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_every_tool_starts_in_the_image(base: Image, run_in: Run) -> None:
    """127 would be a program or a library that is not there, 126 an interpreter."""
    there = [tool for tool in HOST_TOOLS if shutil.which(tool)]
    script = 'for tool; do out=$(timeout 5 "$tool" --help 2>&1); echo "$tool $? $out" | head -1; done'
    lines = run_in(base, "/bin/sh", "-c", script, "sh", *there).stdout.splitlines()
    assert len(lines) == len(there) > 60
    assert [line for line in lines if line.split()[1] in ("126", "127") or "shared librar" in line] == []


def test_the_shell_and_pipes_work(base: Image, run_in: Run) -> None:
    script = (
        "ls / | sort | head -3; ps -o comm= -p 1; seq 3 | awk '{s+=$1} END {print s}'; echo a-b | sed s/-/+/; hostname"
    )
    done = run_in(base, "sh", "-c", script)
    assert done.stdout.splitlines()[:6] == ["bin", "dev", "etc", "sh", "6", "a+b"]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_python_is_the_one_that_runs_pysup_and_has_its_library(base: Image, run_in: Run, user: str) -> None:
    code = (
        "import ssl, sqlite3, asyncio, ctypes, http.server, readline, lzma, json, sys; print(sys.version, sys.prefix)"
    )
    done = run_in(base, "python3", "-c", code, user=user)
    assert (done.stdout, done.stderr) == (f"{sys.version} {sys.base_prefix}\n", "")


def test_python_starts_from_compiled_files_where_the_host_has_them(base: Image, run_in: Run) -> None:
    source = Path(sys.base_prefix, "lib", f"python3.{sys.version_info.minor}", "argparse.py")
    if not list(source.parent.glob(f"__pycache__/argparse.{sys.implementation.cache_tag}.pyc")):
        pytest.skip("this Python has no compiled standard library")
    done = run_in(base, "python3", "-v", "-c", "import argparse")
    assert f"{source.parent}/__pycache__/argparse.{sys.implementation.cache_tag}.pyc matches {source}" in done.stderr


def test_the_users_are_known_and_the_home_is_theirs(base: Image, run_in: Run) -> None:
    done = run_in(base, "sh", "-c", "id -un; id -gn; stat -c %U:%G /home/app; stat -c %U /", user="1000:1000")
    assert done.stdout.split() == ["app", "app", "app:app", "root"]


def test_terminals_are_known(base: Image, run_in: Run) -> None:
    for terminal in ("xterm", "xterm-256color", "screen", "tmux-256color", "linux", "vt100", "dumb"):
        assert run_in(base, "tput", "-T", terminal, "cols").returncode == 0, terminal


def test_the_image_shares_no_file_with_the_host(base: Image) -> None:
    files = [path for path in base.path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 500
    assert {path.stat().st_nlink for path in files} == {1}
    assert (base.path / "usr/bin/env").stat().st_ino != Path("/usr/bin/env").stat().st_ino


def test_everything_belongs_to_root_and_nothing_is_set_user_id(base: Image) -> None:
    for path in base.path.rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (0, 0) or path == base.path / "home/app"
        assert not (stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID)), path


@pytest.mark.usefixtures("umask_077")
def test_the_mount_targets_and_their_modes_are_there_whatever_the_umask(images: Path) -> None:
    image = create("base", images, ["sh"])
    expected = {"proc": 0o555, "sys": 0o555, "dev": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "": 0o755}
    assert {name: stat.S_IMODE((image.path / name).stat().st_mode) for name in expected} == expected
    assert stat.S_IMODE((image.path / "usr/bin").stat().st_mode) == 0o755
    for name in ("hosts", "hostname", "resolv.conf"):
        assert (image.path / "etc" / name).read_bytes() == b""
        assert stat.S_IMODE((image.path / "etc" / name).stat().st_mode) == 0o644


def test_the_layout_of_the_host_is_kept(images: Path) -> None:
    image = create("base", images, ["sh"])
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            assert (image.path / name).readlink() == Path("/", name).readlink()


def test_mode_and_time_are_the_hosts(images: Path) -> None:
    image = create("base", images, ["env"])
    copy, original = (image.path / "usr/bin/env").stat(), Path("/usr/bin/env").stat()
    assert (copy.st_mode, copy.st_mtime_ns, copy.st_size) == (original.st_mode, original.st_mtime_ns, original.st_size)


def test_a_script_brings_its_interpreter_and_what_env_starts(images: Path, tmp_path: Path, run_in: Run) -> None:
    for name, first in (
        ("plain", "#!/bin/sh"),
        ("found", "#!/usr/bin/env -S A=1 sh -e"),
        ("snake", "#!/usr/bin/python3 -S"),
    ):
        (tmp_path / name).write_text(
            f"{first}\nprint('') if 0 else None\n" if name == "snake" else f"{first}\necho hi\n"
        )
        (tmp_path / name).chmod(0o755)
        image = create(name, images, [str(tmp_path / name)])
        assert run_in(image, str(tmp_path / name)).returncode == 0, name


def test_programs_that_are_scripts_for_each_other_end(images: Path, tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).write_text(f"#!{tmp_path / other}\n")
        (tmp_path / name).chmod(0o755)
    image = create("base", images, [str(tmp_path / "a")])
    assert (image.path / str(tmp_path)[1:] / "b").exists()


def test_a_library_off_the_default_directories_is_found_through_the_cache(base: Image) -> None:
    assert (base.path / "etc/ld.so.cache").read_bytes() == Path("/etc/ld.so.cache").read_bytes()


def test_a_missing_program_is_named_with_the_nearest_and_nothing_is_made(images: Path) -> None:
    with pytest.raises(ImageError, match=r"program 'busybx' is not on this host \(there is busybox"):
        create("base", images, ["sh", "busybx"])
    assert not images.exists()


def test_a_tool_that_does_not_work_here_is_left_out(images: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/find").write_text("#!/no/such/interpreter\n")
    (tmp_path / "bin/find").chmod(0o755)
    image = create("base", images, tools=True, search=f"{tmp_path}/bin:/usr/bin:/bin")
    assert (image.path / "usr/bin/ls").exists()
    assert not (image.path / str(tmp_path)[1:]).exists()
    with pytest.raises(ImageError, match="'/no/such/interpreter' is not on this host"):
        create("other", images, ["find"], search=f"{tmp_path}/bin")
    assert names_in(images) == ["base"]


def test_a_shell_is_required(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="program 'sh' is not on this host"):
        create("base", images, tools=True, search=str(tmp_path))


@pytest.mark.parametrize("program", ["./sh", "bin/sh", "/no/such", "/usr", "", "a\0b"])
def test_what_is_no_program_is_refused(images: Path, program: str) -> None:
    with pytest.raises(ImageError, match="is not on this host"):
        create("base", images, [program])


@pytest.mark.parametrize("program", ["/proc/self/exe", "/dev/null/../../proc/version", "/proc/1/root/bin/sh"])
def test_files_of_the_kernel_are_refused(images: Path, program: str) -> None:
    with pytest.raises(ImageError, match=r"is the kernel's|is not on this host"):
        create("base", images, [program])
    assert names_in(images) == []


def test_nothing_to_put_in_and_bad_names_are_refused(images: Path) -> None:
    with pytest.raises(ImageError, match="nothing to put in"):
        create("base", images)
    with pytest.raises(ImageError, match="is not valid"):
        create("../base", images, ["sh"])
    assert not images.exists()


def test_an_image_that_is_there_is_refused_and_with_force_replaced(images: Path) -> None:
    create("base", images, ["sh"])
    with pytest.raises(ImageError, match="give --force to replace it"):
        create("base", images, ["env"])
    assert not (images / "base/usr/bin/env").exists()
    create("base", images, ["env"], force=True)
    assert (images / "base/usr/bin/env").exists()
    assert not (images / "base/usr/bin/sh").exists()
    assert names_in(images) == ["base"]


def test_force_replaces_nothing_but_an_image(images: Path) -> None:
    create("team/base", images, ["sh"])
    (images / "file").touch()
    (images / "link").symlink_to("team/base")
    for name in ("team", "file", "link"):
        with pytest.raises(ImageError, match="is not an image: remove it by hand"):
            create(name, images, ["sh"], force=True)
    with pytest.raises(ImageError, match="is an image itself"):
        create("team/base/inner", images, ["sh"])
    assert names_in(images) == ["file", "link", "team"]


def test_a_folder_that_leads_out_is_refused(images: Path, tmp_path: Path) -> None:
    images.mkdir()
    (tmp_path / "outside").mkdir()
    (images / "team").symlink_to("../outside")
    with pytest.raises(ImageError, match="leads out of"):
        create("team/base", images, ["sh"])
    assert names_in(tmp_path / "outside") == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device"), ImageError("no")])
@pytest.mark.parametrize("point", ["add_surroundings", "_publish"])
def test_a_build_that_fails_leaves_what_was_there(
    images: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, point: str
) -> None:
    create("base", images, ["sh"])
    before = (images / "base").stat().st_ino

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(from_host, point, fail)
    with pytest.raises((KeyboardInterrupt, ImageError)):
        create("base", images, ["env"], force=True)
    with pytest.raises((KeyboardInterrupt, ImageError)):
        create("other", images, ["env"])
    assert names_in(images) == ["base"]
    assert (images / "base").stat().st_ino == before


def test_what_a_killed_build_left_is_no_image_and_goes_with_the_next(images: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from runtime.images import from_host; from runtime.images.from_host import create\n"
        "from_host.add_surroundings = lambda _: (print('building', flush=True), sys.stdin.read())\n"
        "create('base', Path(sys.argv[1]), ['sh'])"
    )
    argv = [sys.executable, "-c", program, str(images)]
    root = Path(from_host.__file__).parents[2]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"building\n"
        process.send_signal(signal.SIGKILL)
    assert [name[:7] for name in names_in(images)] == [".pysup-"]
    assert ls([images]) == ()
    create("base", images, ["sh"])
    assert names_in(images) == ["base"]


def test_of_two_that_make_one_image_at_once_one_wins(images: Path) -> None:
    def attempt(_: int) -> str:
        try:
            create("base", images, ["sh", "env"])
        except ImageError as error:
            return str(error)
        return "made"

    with ThreadPoolExecutor(3) as pool:
        results = sorted(pool.map(attempt, range(3)))
    assert results[2] == "made"
    assert all("is there already" in result for result in results[:2])
    assert names_in(images) == ["base"]


def test_a_build_that_takes_too_long_is_not_waited_for(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.mkdir()
    monkeypatch.setattr(from_host, "LOCK_WAIT_S", 0)
    with from_host._locked(images), pytest.raises(ImageError, match="another image is being made"):
        create("base", images, ["sh"])


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from runtime.errors import ImageError; from runtime.images.from_host import create\n"
        "directory = Path(sys.argv[1])\n"
        "try: create('base', directory / 'images', ['sh', 'bash'])\n"
        "except ImageError as error: print(error, list((directory / 'images').iterdir()))"
    )
    script = 'mount -t tmpfs -o size=1m none "$2" && exec "$0" -c "$1" "$2"'
    argv = ["unshare", "--mount", "sh", "-c", script, sys.executable, program, str(tmp_path)]
    root = Path(from_host.__file__).parents[2]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == (
        f"image base in {tmp_path}/images: No space left on device: "
        "free some, or give --images DIR on another file system []\n"
    )


def test_a_user_who_is_not_root_is_told(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="make it as root"):
        create("base", images, ["sh"])


def test_a_made_image_is_found_and_listed(images: Path) -> None:
    made = create("team/base:1", images, ["sh"])
    assert find("team/base:1", [images]) == made
    (info,) = ls([images])
    assert (info.name, info.path, info.problems) == (made.name, made.path, ())
