"""Programs: what is assembled is there once linked, wherever it is loaded; and the loop in Python, on a few calls."""

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import child, linux, program
from runtime.assemble import Argument, Assembler, Descriptor, Program, Size, Strings, Struct
from runtime.linux import AT_FDCWD, NR

BASE = 0x7000_0000_0000
DESCRIPTORS = [70, 71, 72, 73]


def linked(assembled: Program, base: int = BASE) -> program.Linked:
    return program.link(memoryview(assembled.image), lambda _: base, DESCRIPTORS)


def words(loaded: program.Linked, call: int) -> tuple[int, ...]:
    found: tuple[int, ...] = program.CALL.unpack_from(loaded.memory, call * program.CALL.size)
    return found


def text(loaded: program.Linked, address: int) -> bytes:
    start = address - BASE
    return bytes(loaded.memory[start : loaded.memory.index(0, start)])


def number(loaded: program.Linked, address: int) -> int:
    (found,) = program.WORD.unpack_from(loaded.memory, address - BASE)
    return int(found)


def array(loaded: program.Linked, address: int) -> list[bytes]:
    items = []
    while target := number(loaded, address):
        items.append(text(loaded, target))
        address += 8
    return items


def test_numbers_strings_and_nothing_are_where_the_kernel_looks() -> None:
    asm = Assembler()
    asm.call("mount", "tmpfs", b"/dev", None, 42, -1)
    loaded = linked(asm.finish(0))
    call, source, target, kind, flags, data, unused, rule = words(loaded, 0)
    assert (call, kind, flags, data, unused, rule) == (NR["mount"], 0, 42, -1, 0, 0)
    assert (text(loaded, source), text(loaded, target)) == (b"tmpfs", b"/dev")


def test_a_string_is_stored_once() -> None:
    asm = Assembler()
    asm.call("mount", "same", "same")
    asm.call("chdir", "same")
    loaded = linked(asm.finish(0))
    assert words(loaded, 0)[1] == words(loaded, 0)[2] == words(loaded, 1)[1]


def test_structures_are_aligned_and_hold_their_descriptor() -> None:
    asm = Assembler()
    asm.call("chdir", "odd")
    asm.call("ppoll", Struct(linux.POLLFD.pack(0, linux.POLLIN, 0), (0, Descriptor(2))), 1)
    loaded = linked(asm.finish(0))
    address = words(loaded, 1)[1]
    assert address % 8 == 0
    assert linux.POLLFD.unpack_from(loaded.memory, address - BASE) == (DESCRIPTORS[2], linux.POLLIN, 0)


def test_descriptors_of_the_request_are_filled_in() -> None:
    asm = Assembler()
    asm.call("dup3", Descriptor(3), 1, 0)
    assert words(linked(asm.finish(0)), 0)[1:3] == (DESCRIPTORS[3], 1)


def test_results_are_left_to_whoever_runs_it() -> None:
    asm = Assembler()
    asm.call("umask", 0)
    descriptor = asm.call("openat", AT_FDCWD, "/x", 0)
    asm.call("write", descriptor, b"", 0)
    place = 2 * program.CALL.size + 8
    assert linked(asm.finish(0)).results == program.PAIR.pack(1, place) + program.NO_MORE


def test_the_errors_forgiven_are_bytes_of_the_rule() -> None:
    asm = Assembler()
    asm.call("mkdirat", forgive=(errno.EEXIST, errno.EROFS))
    loaded = linked(asm.finish(0))
    assert words(loaded, 0)[7] == errno.EEXIST | errno.EROFS << 8


def test_the_prologue_ends_where_its_steps_do() -> None:
    asm = Assembler()
    for step in (0, 0, 1, 1, 1, 2):
        asm.step = step
        asm.call("umask", step)
    whole = asm.finish(2)
    assert whole.steps == (0, 0, 1, 1, 1, 2)
    assert linked(whole).prologue == 5


Arguments = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.none(),
    st.binary(max_size=20).filter(lambda data: 0 not in data),
    st.builds(Descriptor, st.integers(0, 3)),
    st.builds(Strings, st.lists(st.binary(max_size=8).filter(lambda data: 0 not in data), max_size=4).map(tuple)),
    st.builds(Struct, st.binary(min_size=1, max_size=20)),
)
Calls = st.lists(st.lists(Arguments, max_size=6), max_size=6)


@given(Calls)
def test_whatever_is_assembled_is_there_when_linked(calls: list[list[Argument]]) -> None:
    asm = Assembler()
    for arguments in calls:
        asm.call("mount", *arguments)
    loaded = linked(asm.finish(0))
    assert loaded.calls == len(calls)
    for index, arguments in enumerate(calls):
        assert read(loaded, index, arguments) == [*arguments]


def read(loaded: program.Linked, index: int, like: Sequence[Argument]) -> list[Argument]:
    """The arguments of a call, taken for the kinds that `like` has."""
    found: list[Argument] = []
    for word, kind in zip(words(loaded, index)[1:7], like, strict=False):
        match kind:
            case bytes():
                found.append(text(loaded, word))
            case Descriptor():
                found.append(Descriptor(DESCRIPTORS.index(word)))
            case Strings():
                found.append(Strings(tuple(array(loaded, word))))
            case Struct():
                start = word - BASE
                found.append(Struct(bytes(loaded.memory[start : start + len(kind.data)])))
            case _:
                found.append(word if kind is not None else None if word == 0 else word)
    return found


Texts = st.tuples(st.binary(max_size=20), st.binary(max_size=20).filter(lambda data: 0 not in data))


@given(Texts, Texts)
def test_like_programs_differ_in_their_own_texts_alone(texts: tuple[bytes, bytes], others: tuple[bytes, bytes]) -> None:
    asm = Assembler()
    contents, name = map(asm.own, texts)
    asm.call("write", 1, contents, Size(contents))
    asm.call("execve", "common", Strings((b"common", name)), Strings(()))
    template = asm.template(0)
    loaded = linked(template.program(others))
    _, _, start, size, *_ = words(loaded, 0)
    assert bytes(loaded.memory[start - BASE :][:size]) == others[0]
    assert text(loaded, words(loaded, 1)[1]) == b"common"
    assert array(loaded, words(loaded, 1)[2]) == [b"common", others[1]]


# --- what is no program ----------------------------------------------------------------------------------------------


def small() -> bytes:
    asm = Assembler()
    descriptor = asm.call("openat", AT_FDCWD, "/x", 0)
    asm.call("fchdir", descriptor)
    asm.call("dup3", Descriptor(1), 0)
    return asm.finish(0).image


@given(st.integers(0, len(small()) - 1), st.binary(min_size=1, max_size=8))
def test_bytes_changed_anywhere_are_refused_or_stay_within_the_program(at: int, other: bytes) -> None:
    image = (small()[:at] + other + small()[at + len(other) :])[: len(small())]
    try:
        loaded = linked(Program(image, ()))
    except (ValueError, IndexError, struct.error):
        return
    assert loaded.prologue <= loaded.calls
    assert loaded.calls * program.CALL.size <= len(loaded.memory)
    for _, place in [*program.PAIR.iter_unpack(loaded.results)][:-1]:
        assert place & ~program.NARROW <= len(loaded.memory) - program.WORD.size


@given(st.binary(max_size=300))
def test_random_bytes_are_no_program(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError, struct.error)):
        linked(Program(data, ()))


# --- the loop in Python ----------------------------------------------------------------------------------------------


def outcome(asm: Assembler) -> tuple[int, int]:
    """Run it, in this very process."""
    image = memoryview(asm.finish(0).image)
    loaded = program.link(image, linux.address_of, [])
    return child.run(loaded, 0, loaded.calls)


def test_the_first_failure_ends_it(tmp_path: Path) -> None:
    asm = Assembler()
    asm.call("mkdirat", AT_FDCWD, str(tmp_path / "a"), 0o700)
    asm.call("mkdirat", AT_FDCWD, str(tmp_path / "a"), 0o700)
    asm.call("mkdirat", AT_FDCWD, str(tmp_path / "b"), 0o700)
    assert outcome(asm) == (1, errno.EEXIST)
    assert not (tmp_path / "b").exists()


def test_what_is_forgiven_does_not_end_it(tmp_path: Path) -> None:
    asm = Assembler()
    for name in ("a", "a", "b"):
        asm.call("mkdirat", AT_FDCWD, str(tmp_path / name), 0o700, forgive=(errno.EROFS, errno.EEXIST))
    outcome(asm)
    assert (tmp_path / "b").exists()


def test_an_early_result_is_passed_on(tmp_path: Path) -> None:
    asm = Assembler()
    flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
    descriptor = asm.call("openat", AT_FDCWD, str(tmp_path / "x"), flags, 0o600)
    asm.call("write", descriptor, Struct(b"hello"), 5)
    asm.call("dup3", descriptor, descriptor, 0)  # EINVAL: the end
    asm.call("close_range", descriptor, descriptor, 0)
    assert outcome(asm) == (2, errno.EINVAL)
    assert (tmp_path / "x").read_bytes() == b"hello"
    close(tmp_path / "x")


def close(path: Path) -> None:
    """Close whichever descriptors of ours are of this file."""
    for name in os.listdir("/proc/self/fd"):
        link = Path("/proc/self/fd", name)
        if link.is_symlink() and link.readlink() == path:
            os.close(int(name))


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        (["gone", "gone"], errno.ENOENT),
        (["gone", "below a file"], errno.ENOTDIR),
        (["gone", "locked", "gone"], errno.EACCES),
        (["locked", "below a file"], errno.EACCES),
        (["below a file", "locked"], errno.EACCES),
    ],
)
def test_of_all_candidates_the_error_that_says_most_is_told(tmp_path: Path, errors: list[str], told: int) -> None:
    (tmp_path / "locked").touch(mode=0o600)
    paths = {"gone": "gone", "locked": "locked", "below a file": "locked/x"}
    asm = Assembler()
    for error in errors:
        elsewhere = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
        asm.call("execve", str(tmp_path / paths[error]), Strings(()), Strings(()), forgive=elsewhere)
    assert outcome(asm) == (len(errors) - 1, told)
