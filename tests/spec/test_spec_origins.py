"""Where each value of a resolved spec came from."""

from pathlib import Path

import pytest
import yaml

from supervisor.spec import Spec, load, reader, with_origins

STACK = """\
name: demo
defaults: {image: base, env: {D: d}}
include: [other.yaml]
containers:
  - id: a
    cmd: run ${WORD:-x}
    env: [A=$A, B=$B]
    env_file: a.env
    replicas: ${N:-2}
    restart: {policy: always, max_restarts: 3}
    depends_on: [b]
    ulimits: {RLIMIT_CORE: 0}
    ready: {tcp: 80}
    umask: 077
"""
OTHER = "containers:\n  - {id: b, extends: c, image: b}\n  - {id: c, cmd: 'a\n\n      b', profiles: [none]}\n"


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    files = {"stack.yaml": STACK, "other.yaml": OTHER, "a.env": "\nE=e", ".env": "# x\nA=a\n", "over.yaml": ""}
    files["over.yaml"] = "containers: [{id: a, umask: 022}]"
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("B", "b")
    for name in ("A", "N", "WORD"):
        monkeypatch.delenv(name, raising=False)
    return load(["stack.yaml", "over.yaml"])


def origins(spec: Spec) -> dict[str, str]:
    """By key and value, of the first line that has them."""
    found: dict[str, str] = {}
    for line in with_origins(spec).splitlines():
        text, mark, origin = line.rpartition("  # ")
        if mark:
            found.setdefault(text.strip(), origin)
    return found


@pytest.mark.parametrize(
    ("line", "origin"),
    [
        ("name: demo", "stack.yaml:1"),
        ("- id: a", "over.yaml:1"),
        ("image: base", "stack.yaml:2"),
        ("- run", "stack.yaml:6"),
        ("D: d", "stack.yaml:2"),
        ("A: a", "stack.yaml:7, .env:2"),
        ("B: b", "stack.yaml:7, environment B"),
        ("E: e", "a.env:2"),
        ("replicas: 2", "stack.yaml:9"),
        ("policy: always", "stack.yaml:10"),
        ("window_s: 60.0", "default"),
        ("condition: started", "stack.yaml:11"),
        ("tcp: 80", "stack.yaml:13"),
        ("timeout_s: 60.0", "default"),
        ("umask: '0022'", "over.yaml:1"),
        ("soft: 0", "stack.yaml:12"),
        ("workdir: null", "default"),
        ("cap_add: []", "default"),
        ("- id: b", "other.yaml:2"),
        ("image: b", "other.yaml:2"),
        ("- b", "other.yaml:3"),
    ],
)
def test_each_line_tells_where_its_value_is_from(spec: Spec, line: str, origin: str) -> None:
    assert origins(spec)[line] == origin


def test_it_loads_again_as_it_is(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(with_origins(spec))
    assert load(tmp_path / "again.yaml") == spec


@pytest.mark.parametrize("parser", [yaml.CSafeLoader, yaml.SafeLoader])
def test_text_of_several_lines_stays_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser: object
) -> None:
    monkeypatch.setattr(reader, "PARSER", parser)
    text = (
        'containers: [{id: a, image: base, cmd: [run, "a\\n # b\\n\\n", "x\\ny", " # ", "\\u2028"], env: {A: "#\\n#"}}]'
    )
    (tmp_path / "stack.yaml").write_text(text)
    spec = load(tmp_path / "stack.yaml")
    (tmp_path / "again.yaml").write_text(with_origins(spec).replace(f"{tmp_path}", "."))
    assert load(tmp_path / "again.yaml").containers == spec.containers


def test_columns_are_aligned(spec: Spec) -> None:
    lines = [line for line in with_origins(spec).splitlines() if "  # " in line]
    assert len({line.index("  # ") for line in lines}) == 1
