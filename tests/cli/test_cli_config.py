"""`pysup config`: a spec of one file or several, all of it or a part, and where its values are from."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Ended, Pysup

STACK = """\
name: demo
defaults: {image: base, cmd: run}
containers:
  - {id: a, replicas: 2000, depends_on: [b]}
  - {id: b, env: {A: "${A:-none}"}}
  - {id: c, profiles: [dev]}
"""


@pytest.fixture
def pysup(tmp_path: Path) -> Pysup:
    (tmp_path / "stack.yaml").write_text(STACK)
    (tmp_path / "over.yaml").write_text("containers: [{id: b, umask: 077}]")
    (tmp_path / "vars").write_text("A=filed\n")
    return Pysup(tmp_path, tmp_path)


def containers(ended: Ended) -> dict[str, dict[str, Any]]:
    assert (ended.status, ended.err) == (0, "")
    return {container["id"]: container for container in yaml.safe_load(ended.out)["containers"]}


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("stack.yaml",), "ab"),
        (("stack.yaml", "b"), "b"),
        (("-f", "stack.yaml", "a"), "ab"),
        (("--no-deps", "stack.yaml", "a"), "a"),
        (("--profile", "dev", "stack.yaml"), "abc"),
        (("-f", "stack.yaml", "--profile", "*", "c", "b"), "bc"),
    ],
)
def test_a_part_of_a_spec_is_shown(pysup: Pysup, arguments: tuple[str, ...], ids: str) -> None:
    assert "".join(containers(pysup("config", *arguments))) == ids


def test_profiles_may_be_chosen_by_the_environment_too(pysup: Pysup) -> None:
    assert "c" in containers(pysup("config", "stack.yaml", PYSUP_PROFILES="x, dev"))


def test_several_files_are_one(pysup: Pysup) -> None:
    assert containers(pysup("config", "-f", "stack.yaml", "-f", "over.yaml"))["b"]["umask"] == "0077"


def test_variables_are_from_the_environment_or_a_file(pysup: Pysup) -> None:
    ended = (
        pysup("config", "stack.yaml"),
        pysup("config", "stack.yaml", A="set"),
        pysup("config", "--env-file", "vars", "stack.yaml"),
    )
    shown = [containers(each)["b"]["env"]["A"] for each in ended]
    assert shown == ["none", "set", "filed"]


def test_a_container_of_many_replicas_is_one_entry(pysup: Pysup) -> None:
    whole = containers(pysup("config", "stack.yaml"))
    assert whole["a"]["replicas"] > 1
    assert [name for name in whole if name.startswith("a")] == ["a"]


def test_origins_are_told_of_each_line(pysup: Pysup) -> None:
    out = pysup("config", "--origins", "stack.yaml", "b", A="set").out
    lines = {text.strip(): origin for text, _, origin in (line.rpartition("  # ") for line in out.splitlines())}
    assert lines["A: set"] == "stack.yaml:5, environment A"
    assert lines["image: base"] == "stack.yaml:2"
    assert lines["user: null"] == "default"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("stack.yaml", "bb"),
            'stack.yaml:4:3: containers: have no "bb" to select, expected one of their ids; did you',
        ),
        (("stack.yaml", "c"), 'stack.yaml:4:3: containers: have no "c" to select: its profile is not chosen, expected'),
        (("-f", "none.yaml"), "none.yaml: can't be read: No such file or directory, expected a YAML file"),
        (("--env-file", "none", "stack.yaml"), "none: can't be read: No such file or directory, expected a file of"),
        (("--profile", "a b", "stack.yaml"), '--profile: is "a b", expected a profile'),
        ((), "missing argument 'FILE'; see pysup config --help"),
    ],
)
def test_what_can_not_be_shown_is_one_line_and_125(pysup: Pysup, arguments: tuple[str, ...], complaint: str) -> None:
    ended = pysup("config", *arguments)
    assert ended.status == 125
    assert ended.complaint.startswith(complaint)


def test_a_value_of_great_length_is_told_in_part(pysup: Pysup) -> None:
    ended = pysup("config", "stack.yaml", A="x" * 100_000)
    assert ended.status == 0
    (pysup.directory / "long.yaml").write_text(STACK.replace("replicas: 2000", f"replicas: {'9' * 100_000}"))
    assert len(pysup("config", "long.yaml").complaint) < 300
