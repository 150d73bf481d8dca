"""The library search finds what ld.so finds, and no file makes it fail in another way than by an ImageError."""

import os
import re
import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ImageError
from runtime.images import elf, interpreter

HOST = [path for name in ("sh", "bash", "ls", "ps", "mount", "curl", "find", "tar") if (path := shutil.which(name))]


def traced(program: str) -> dict[str, str]:
    """What ld.so itself says that it loads; harmless for programs that are trusted."""
    output = subprocess.run(
        [program], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True, check=True
    ).stdout
    return dict(re.findall(r"(\S+) => (/\S+)", output))


@pytest.mark.parametrize("program", [*HOST, interpreter.running().executable])
def test_libraries_are_those_that_ld_so_loads(program: str) -> None:
    found = elf.Loader().load(program)
    expected = traced(program)
    assert expected
    assert {name: os.path.realpath(found[name]) for name in expected} == {
        name: os.path.realpath(path) for name, path in expected.items()
    }


def test_the_default_directories_serve_where_there_is_no_cache(tmp_path: Path) -> None:
    program = HOST[0]
    with_cache, without = elf.Loader().load(program), elf.Loader(cache=str(tmp_path / "none")).load(program)
    assert {k: os.path.realpath(v) for k, v in without.items()} == {
        k: os.path.realpath(v) for k, v in with_cache.items()
    }


def test_a_program_that_needs_nothing_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "static").write_bytes(made(None, None, "rpath"))
    assert elf.Loader().load(str(tmp_path / "static")) == {}


def test_a_script_is_no_elf_file(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert elf.read(str(script)) is None
    assert elf.Loader().load(str(script)) == {}


@pytest.mark.parametrize("tag", ["rpath", "runpath"])
def test_origin_is_the_directory_of_the_file_that_needs(tmp_path: Path, tag: str) -> None:
    program, library = tmp_path / "bin" / "program", tmp_path / "lib" / "libown.so.1"
    for path, needed in ((program, "libown.so.1"), (library, "libother.so")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(made(needed, "$ORIGIN/../lib" if path is program else "${ORIGIN}/deep", tag))
    (tmp_path / "lib" / "deep").mkdir()
    (tmp_path / "lib" / "deep" / "libother.so").write_bytes(made(None, None, tag))
    found = elf.Loader().load(str(program))
    assert found == {
        "libown.so.1": f"{tmp_path}/bin/../lib/libown.so.1",
        "libother.so": f"{tmp_path}/bin/../lib/deep/libother.so",
    }


def test_rpath_serves_the_libraries_of_libraries_and_runpath_does_not(tmp_path: Path) -> None:
    for name, needed in (("liba.so", "libb.so"), ("libb.so", None)):
        (tmp_path / name).write_bytes(made(needed, None, "rpath"))
    program = tmp_path / "program"
    program.write_bytes(made("liba.so", str(tmp_path), "rpath"))
    assert set(elf.Loader().load(str(program))) == {"liba.so", "libb.so"}
    program.write_bytes(made("liba.so", str(tmp_path), "runpath"))
    with pytest.raises(ImageError, match=rf"library libb\.so, which {tmp_path}/liba\.so needs, is not on this host"):
        elf.Loader().load(str(program))


def test_a_library_of_another_architecture_is_passed_over(tmp_path: Path) -> None:
    for directory, machine in (("first", 40), ("second", 62)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "liba.so").write_bytes(made(None, None, "rpath", machine))
    program = tmp_path / "program"
    program.write_bytes(made("liba.so", f"{tmp_path}/first:{tmp_path}/second", "rpath", 62))
    assert elf.Loader().load(str(program)) == {"liba.so": f"{tmp_path}/second/liba.so"}


def test_libraries_that_need_each_other_end(tmp_path: Path) -> None:
    for name, needed in (("liba.so", "libb.so"), ("libb.so", "liba.so")):
        (tmp_path / name).write_bytes(made(needed, "$ORIGIN", "rpath"))
    assert set(elf.Loader().load(str(tmp_path / "liba.so"))) == {"liba.so", "libb.so"}


@given(st.data())
def test_a_damaged_file_is_an_image_error_at_most(data: st.DataObject) -> None:
    contents = bytearray(made("libc.so.6", "/lib", "rpath"))
    for _ in range(data.draw(st.integers(1, 8))):
        contents[data.draw(st.integers(4, len(contents) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(contents)))
    fd = os.memfd_create("damaged")
    try:
        os.write(fd, contents[: cut or None])
        with suppress(ImageError):
            elf.read(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@given(st.binary())
def test_a_damaged_cache_is_ignored(junk: bytes) -> None:
    fd = os.memfd_create("cache")
    try:
        os.write(fd, b"glibc-ld.so.cache1.1" + junk)
        elf.Loader(cache=f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def made(needed: str | None, path: str | None, tag: str, machine: int = 62) -> bytes:
    """The smallest little-endian ELF64 file with a dynamic section: header, two segments, entries, strings."""
    strings = b"\0" + (needed or "").encode() + b"\0" + (path or "").encode() + b"\0"
    entries = [(1, 1)] if needed else []
    entries += [({"rpath": 15, "runpath": 29}[tag], 2 + len(needed or ""))] if path else []
    start = 64 + 2 * 56
    table = start + 16 * (len(entries) + 2)
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in [*entries, (5, table), (0, 0)])
    size = table + len(strings)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 4096)
    section = struct.pack("<IIQQQQQQ", 2, 4, start, start, start, len(dynamic), len(dynamic), 8)
    return header + load + section + dynamic + strings


def test_the_running_interpreter_is_no_link_of_a_virtual_environment() -> None:
    found = interpreter.running()
    assert found.executable.startswith(sys.base_exec_prefix)
    assert any((Path(library) / "os.py").exists() for library in found.libraries)
