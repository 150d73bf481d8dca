"""Who holds the lock of a stack, as the kernel tells it."""

from pathlib import Path

import pytest

from supervisor.state import home
from supervisor.state.home import Home, is_held, locked, running


def test_a_lock_is_held_whoever_has_locked_a_file_of_that_number_in_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, locks = Home.of_stack(tmp_path, "shop"), tmp_path / "locks"
    with locked(stack):
        (own,) = running(tmp_path).values()
        number = (stack.path / "lock").stat().st_ino
        others = [f"{at}: FLOCK  ADVISORY  WRITE {at} 00:{at}:{number} 0 EOF\n" for at in (41, 42)]
        locks.write_text(others[0] + home.LOCKS.read_text() + others[1])
        monkeypatch.setattr(home, "LOCKS", locks)
        assert running(tmp_path) == {"shop": own}
        assert is_held(stack)
        locks.write_text("".join(others))
        assert running(tmp_path) == {}
        assert not is_held(stack)
