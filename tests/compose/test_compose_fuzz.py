"""Whatever the file holds: a spec, or a SpecError; and lines that each name a place."""

from collections.abc import Callable
from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.compose import convert
from supervisor.compose.convert import TOP
from supervisor.compose.keys import DEPLOY, SERVICE
from supervisor.spec import SpecError, load

PATIENT = settings(deadline=None)  # a busy machine is no fault

NAMES = st.sampled_from(["web", "db", "a b", "_", "x" * 70, ""])
INNER = st.sampled_from(
    [*DEPLOY, "condition", "required", "restart", "test", "disable", "interval", "path", "command", "soft", "file"]
)
WORDS = st.sampled_from(
    ["no", "web", "db", "NONE", "CMD", "CMD-SHELL", "10s", "service_healthy", "$A", "${A:-b", "a: b", "-x", "'", "host"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
NODES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | INNER, inner, max_size=4),
    max_leaves=12,
)
SERVICES = st.dictionaries(st.sampled_from([*SERVICE, "x-a", "zzz"]), NODES, max_size=8) | NODES
FILES = st.fixed_dictionaries(
    {"services": st.dictionaries(NAMES, SERVICES, max_size=4)}, optional=dict.fromkeys(TOP, NODES) | {"name": NODES}
)


def check(path: Path) -> None:
    try:
        converted = convert(str(path))
    except SpecError as error:
        lines = str(error).splitlines()
    else:
        lines = list(map(str, converted.notes))
        assert yaml.safe_load(converted.text)["containers"] is not None
        _says_what_is_wrong(path.with_name("stack.yaml"), converted.text)
    for line in lines:
        place, column = line.removeprefix(f"{path}:").split(":")[:2]
        assert int(place) >= 1
        assert int(column) >= 1
        assert line.isprintable()


def _says_what_is_wrong(path: Path, text: str) -> None:
    """What is left to the user is told by the loader; never more than that."""
    path.write_text(text, encoding="utf-8")
    try:
        load(path)
    except SpecError as error:
        assert " is not YAML" not in str(error)


@PATIENT
@given(FILES)
def test_any_file(compose_file: Path, document: object) -> None:
    compose_file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    check(compose_file)


@PATIENT
@given(st.sampled_from(sorted(SERVICE)), NODES)
def test_any_value_of_one_key(compose_file: Path, key: str, value: object) -> None:
    document = {"services": {"web": {"image": "base", "command": "run", key: value}, "db": {"image": "base"}}}
    compose_file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    check(compose_file)


@PATIENT
@given(st.text(max_size=20), st.text(max_size=20))
@example("", "\n")
@example("a\n\n", "b\n")
def test_any_text_of_a_command_comes_through(
    imported: Callable[[str], object], compose_file: Path, first: str, second: str
) -> None:
    document = {"services": {"web": {"image": "base", "entrypoint": ["run", first, second]}}}
    compose_file.write_text(yaml.safe_dump(document), encoding="utf-8")
    del imported
    try:
        converted = convert(str(compose_file))
    except SpecError:
        return
    expected = [word.replace("$", "$$") for word in ("run", first, second)]
    if "$" not in first + second:
        assert yaml.safe_load(converted.text)["containers"][0]["cmd"] == expected
