"""The JSON schema for editors."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from supervisor.spec import Backoff, Container, Spec, schema
from supervisor.spec.model import Sharing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(schema())
    return document


def test_the_copy_in_the_tree_is_up_to_date() -> None:
    kept = (ROOT / "configs" / "stack.schema.json").read_text(encoding="utf-8")
    assert kept == schema(), "run: pysup schema > configs/stack.schema.json"


def test_it_knows_every_key_and_describes_it(document: dict[str, Any]) -> None:
    definitions = document["$defs"]
    assert set(document["properties"]) == {*Spec.model_fields, "defaults", "include"}
    assert set(definitions["Container"]["properties"]) == {*Container.model_fields, *Sharing.model_fields}
    assert set(definitions["Backoff"]["properties"]) == set(Backoff.model_fields)
    assert set(definitions["Defaults"]["properties"]) == {*Container.model_fields, "env_file"} - {
        "id",
        "replicas",
        "depends_on",
    }
    for definition in (document, *(definitions[name] for name in ("Container", "Defaults", "Backoff"))):
        assert definition["additionalProperties"] is False
        assert all("description" in field or "$ref" in field for field in definition["properties"].values())


def test_it_requires_what_can_not_be_a_default(document: dict[str, Any]) -> None:
    assert "required" not in document, "a file may only include others"
    assert document["$defs"]["Container"]["required"] == ["id"]
    assert "required" not in document["$defs"]["Defaults"]


def test_it_tells_defaults_as_a_user_would_write_them(document: dict[str, Any]) -> None:
    fields = document["$defs"]["Container"]["properties"]
    assert [fields[key]["default"] for key in ("restart", "stop_signal", "umask", "env")] == [
        "no",
        "SIGTERM",
        "0022",
        {},
    ]


def _patterns(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
        return own + [pattern for child in node.values() for pattern in _patterns(child)]
    return [pattern for child in node for pattern in _patterns(child)] if isinstance(node, list) else []


def test_its_patterns_are_anchored_and_compile(document: dict[str, Any]) -> None:
    patterns = _patterns(document)
    assert patterns
    for pattern in patterns:
        assert pattern.startswith("^"), "JSON schema searches, the loader matches"
        re.compile(pattern)
