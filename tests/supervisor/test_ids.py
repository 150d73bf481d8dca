"""Blocks of ids: nobody has one that another has, whatever became of him."""

import threading
from pathlib import Path

import pytest

from runtime.errors import LaunchError
from runtime.idmap import AUTO, BLOCK, NOBODY, Extent, Ids, block, written
from supervisor.state.home import Home, locked
from supervisor.state.ids import AT_ONCE, FIRST, Blocks


def home(state: Path, name: str) -> Path:
    path = Home.of_stack(state, name).path
    path.mkdir(parents=True, exist_ok=True)
    return path


def files(tmp_path: Path, uid: str = "", gid: str = "") -> tuple[Path, Path]:
    """Like /etc/subuid and /etc/subgid."""
    for name, text in (("subuid", uid), ("subgid", gid)):
        (tmp_path / name).write_text(text)
    return tmp_path / "subuid", tmp_path / "subgid"


def test_no_two_are_the_same_in_a_stack_or_of_two(tmp_path: Path) -> None:
    stacks = [Blocks(home(tmp_path, name), files(tmp_path)) for name in "abc"]
    taken = [stack.take() for _ in range(3 * AT_ONCE) for stack in stacks]
    assert len(set(taken)) == len(taken)
    assert min(taken) == FIRST
    assert all((one - FIRST) % BLOCK == 0 for one in taken)


def test_many_at_once_share_none(tmp_path: Path) -> None:
    taken: list[int] = []

    def take(name: str) -> None:
        stack = Blocks(home(tmp_path, name), files(tmp_path))
        taken.extend(stack.take() for _ in range(2 * AT_ONCE))

    threads = [threading.Thread(target=take, args=(f"s{number}",)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(set(taken)) == len(taken) == 16 * AT_ONCE


def test_what_is_given_back_is_taken_again(tmp_path: Path) -> None:
    stack = Blocks(home(tmp_path, "a"), files(tmp_path))
    taken = [stack.take() for _ in range(AT_ONCE)]
    stack.give(taken[3])
    assert stack.take() == taken[3]
    stack.close()
    assert Blocks(home(tmp_path, "b"), files(tmp_path)).take() == FIRST


def test_what_a_killed_supervisor_had_is_nobodys_until_its_containers_are_gone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    killed = home(state, "a")
    Blocks(killed, files(tmp_path)).take()
    (killed / "lock").write_text("4242\n")
    other = Blocks(home(state, "b"), files(tmp_path))
    assert other.take() == FIRST + AT_ONCE * BLOCK
    with locked(Home(killed)) as swept:
        assert swept is not None
        assert Blocks(home(state, "c"), files(tmp_path)).take() == FIRST


@pytest.mark.parametrize("text", ["", "garbage", "2147483648\n21474", "-1\n", "\xff"])
def test_a_damaged_note_stops_nobody(tmp_path: Path, text: str) -> None:
    (home(tmp_path, "a") / "ids").write_text(text)
    assert Blocks(home(tmp_path, "b"), files(tmp_path)).take() >= FIRST


def test_ids_that_others_were_given_are_left_to_them(tmp_path: Path) -> None:
    found = files(tmp_path, f"containers:{FIRST}:{BLOCK + 1}\n", f"x:{FIRST + 3 * BLOCK - 1}:1\nbad\n:::\n")
    stack = Blocks(home(tmp_path, "a"), found)
    assert [stack.take(), stack.take()] == [FIRST + 3 * BLOCK, FIRST + 4 * BLOCK]


def test_ids_that_pysup_was_given_are_taken(tmp_path: Path) -> None:
    given = f"pysup:100000:{2 * BLOCK + 5}\n"
    stack = Blocks(home(tmp_path, "a"), files(tmp_path, given, given))
    assert sorted([stack.take(), stack.take()]) == [100_000, 100_000 + BLOCK]
    with pytest.raises(LaunchError, match=r"no ids are left for it: give more to pysup in .*subuid and .*subgid"):
        stack.take()
    with pytest.raises(LaunchError):
        Blocks(home(tmp_path, "b"), files(tmp_path, given, "")).take()


def test_maps_say_who_is_who() -> None:
    ids = Ids((Extent(0, 700, 10), Extent(1000, 900, 1)), (Extent(0, 50, 6),))
    assert ids.outside(1000, 5) == (900, 55)
    assert ids.outside(11, 7) == (700, 50), "who has no id is root"
    assert ids.inside(709, 55) == (9, 5)
    assert ids.inside(0, 0) == (NOBODY, NOBODY)
    assert written(ids.uid) == b"0 700 10\n1000 900 1\n"
    assert (str(AUTO), str(block(65536))) == ("auto", "0:65536:65536")
