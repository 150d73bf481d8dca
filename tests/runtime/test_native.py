"""The machine code in native.py is what launch_x86_64.S assembles to; its numbers are those of the loop in Python."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime import linux, native, program
from runtime.linux import NR

SOURCE = Path(native.__file__).with_name("launch_x86_64.S")
MUST = os.environ.get("PYSUP_KERNEL") == "must"

pytestmark = pytest.mark.skipif(linux.MACHINE != "x86_64", reason="there is a native loop for x86-64 only")


@pytest.mark.parametrize(("name", "code"), [("launch", native._X86_64), ("init", native._INIT_X86_64)])
def test_the_bytes_are_those_of_the_source(tmp_path: Path, name: str, code: bytes) -> None:
    if not MUST and not (shutil.which("as") and shutil.which("objcopy")):
        pytest.skip("no binutils")
    object_file, assembled = tmp_path / "code.o", tmp_path / "code.bin"
    subprocess.run(["as", "-o", object_file, SOURCE.with_name(f"{name}_x86_64.S")], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", object_file, assembled], check=True)
    assert assembled.read_bytes() == code


@pytest.mark.parametrize(("name", "symbol", "place"), [("init", "init", 64), ("launch", "job", len(native._X86_64))])
def test_programs_go_on_where_the_source_says(tmp_path: Path, name: str, symbol: str, place: int) -> None:
    if not MUST and not (shutil.which("as") and shutil.which("nm")):
        pytest.skip("no binutils")
    object_file = tmp_path / "code.o"
    subprocess.run(["as", "-o", object_file, SOURCE.with_name(f"{name}_x86_64.S")], check=True)
    shown = subprocess.run(["nm", object_file], stdout=subprocess.PIPE, text=True, check=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in shown.splitlines()}
    assert symbols[symbol] == place
    assert native._INIT_ENTRY == 64
    assert name == "init" or symbols["entry"] == place - native._ENTRY_BYTES


def test_the_source_has_no_relocations(tmp_path: Path) -> None:
    """It is mapped anywhere, and calls nothing."""
    if not MUST and not (shutil.which("as") and shutil.which("objdump")):
        pytest.skip("no binutils")
    subprocess.run(["as", "-o", tmp_path / "launch.o", SOURCE], check=True)
    shown = subprocess.run(["objdump", "-r", tmp_path / "launch.o"], stdout=subprocess.PIPE, text=True, check=True)
    assert "RELOCATION" not in shown.stdout


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("mov     eax, {}                # clone3", NR["clone3"]),
        ("mov     eax, {}                # exit_group", NR["exit_group"]),
        ("cmp     ebp, {}                  # ENOENT", errno.ENOENT),
        ("cmp     ebp, {}                 # ENOTDIR", errno.ENOTDIR),
        ("btr     edx, {}                 # NARROW", program.NARROW.bit_length() - 1),
        ("shl     r15, {}", program.CALL.size.bit_length() - 1),
    ],
)
def test_its_numbers_are_those_of_the_loop_in_python(line: str, number: int) -> None:
    source = " ".join(SOURCE.read_text(encoding="ascii").split())
    assert " ".join(line.format(number).split()) in source


def test_it_can_be_mapped_here() -> None:
    if not MUST and native.available() is None:
        pytest.skip("no executable memory")
    assert native.available() is not None
