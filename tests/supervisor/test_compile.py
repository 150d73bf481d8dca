"""What only shows when a spec meets images and its containers meet each other."""

from pathlib import Path

import pytest

from supervisor.compile import Images, compile_stack
from supervisor.entry import Compiled
from supervisor.spec import SpecError, load


def compiled(tmp_path: Path, image: Path, containers: str) -> Compiled:
    file = tmp_path / "stack.yaml"
    file.write_text(f"name: s\ndefaults: {{image: {image.name}, cmd: 'true'}}\ncontainers:\n{containers}")
    found = Images((image.parent,))
    return compile_stack(load(file, found.check), found, tmp_path / "state")


@pytest.mark.parametrize(
    ("container", "place", "what"),
    [
        ("  - {id: a, user: nosuch}\n", "4:19: containers[0].user", "'nosuch' is not in"),
        ("  - {id: a, keep: true, storage: memory}\n", "4:19: containers[0].keep", "goes with the run"),
        (
            "  - {id: a, depends_on: {b: {condition: completed}}}\n  - {id: b, restart: always}\n",
            "4:25: containers[0].depends_on",
            "never completes: its restart is always",
        ),
    ],
)
def test_what_can_not_be_is_told_with_its_place(
    tmp_path: Path, image: Path, container: str, place: str, what: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, image, container)
    (line,) = str(caught.value).splitlines()
    assert f"stack.yaml:{place}" in line
    assert what in line


def test_the_environment_has_nothing_of_the_hosts(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    (entry,) = compiled(tmp_path, image, "  - {id: a, user: app, env: {A: b}}\n").entries
    env = dict(entry.config.env)
    assert env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/home/app",
        "HOSTNAME": "a",
        "TERM": "xterm",
        "PYSUP_REPLICA": "1",
        "A": "b",
    }


def test_replicas_differ_in_name_number_and_place(tmp_path: Path, image: Path) -> None:
    entries = compiled(tmp_path, image, "  - {id: a, replicas: 3}\n").entries
    assert [entry.id for entry in entries] == ["a.1", "a.2", "a.3"]
    assert [dict(entry.config.env)["PYSUP_REPLICA"] for entry in entries] == ["1", "2", "3"]
    assert len({entry.config.directory for entry in entries}) == 3
