"""docs/spec.md: it knows every key, its defaults are those of the model, and its examples are specs."""

from pathlib import Path

import pytest
import yaml

from supervisor.spec import Container, Spec, load
from supervisor.spec.model import Joining, Sharing
from supervisor.spec.probes import PROBES
from supervisor.spec.resolve import plain
from supervisor.spec.tree import DEFAULTS

PAGE = (Path(__file__).parents[2] / "docs/spec.md").read_text(encoding="utf-8")
TOP, _, REST = PAGE.partition("\n## A container\n")


def rows(text: str, cells: int) -> list[list[str]]:
    """Of tables of so many columns, those that begin with a name."""
    every = ([cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| `"))
    return [[cell.strip("`") for cell in row] for row in every if len(row) == cells]


KEYS = {key: (default, example) for key, _, default, example, _ in rows(REST, 5)}
PROBE_EXAMPLES = {name: example for name, _, example, _ in rows(REST, 4)}
OTHER = "name: o\ncontainers: [{id: app, image: base, cmd: run}, {id: db, image: base, cmd: run}]"


def test_it_knows_every_key() -> None:
    assert set(KEYS) == {*Container.model_fields, *Sharing.model_fields}
    assert {key for key, *_ in rows(TOP, 5)} == {*Spec.model_fields, *Joining.model_fields, DEFAULTS}
    assert set(PROBE_EXAMPLES) == set(PROBES)


def test_its_defaults_are_those_of_the_model() -> None:
    values = plain(Container(id="id", image="image", cmd=("cmd",)))
    told = {key: yaml.safe_load(default) for key, (default, _) in KEYS.items() if default}
    assert told == {key: values[key] for key in Container.model_fields if key not in ("id", "image", "cmd")}


@pytest.mark.parametrize("example", [*(example for _, example in KEYS.values()), *PROBE_EXAMPLES.values()])
def test_its_examples_are_read(tmp_path: Path, example: str) -> None:
    (tmp_path / "base.yaml").write_text(OTHER)
    (tmp_path / "app.env").write_text("A=1\n")
    fields = example[1:-1] if example.startswith("{") else example
    sound = "".join(f", {key}: x" for key in ("id", "image", "cmd") if not fields.startswith(f"{key}:"))
    (tmp_path / "stack.yaml").write_text(f"include: [base.yaml]\ncontainers: [{{{fields}{sound}}}]")
    assert len(load(tmp_path / "stack.yaml", variables={}, profiles=["dev"]).containers) == 3


def test_its_first_example_is_a_spec(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text(PAGE.partition("```yaml\n")[2].partition("```")[0])
    assert [container.id for container in load(tmp_path / "stack.yaml", variables={}).containers] == ["db", "web"]
