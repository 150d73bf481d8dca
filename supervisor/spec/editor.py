"""The JSON schema of a stack file, for editors: completion, descriptions, and most faults while typing.

It takes whatever the loader takes. `pysup schema > configs/stack.schema.json` brings the copy in the tree up to date.
"""

import json
from typing import Any

from pydantic import BaseModel

from supervisor.spec.explain import NOT_SHARED
from supervisor.spec.fields import TEXT
from supervisor.spec.model import Container, Joining, Sharing, Spec
from supervisor.spec.resolve import plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FROM_DEFAULTS = ("image", "cmd")  # required, but of the container and the defaults together


def schema() -> str:
    """What `pysup schema` prints."""
    document = _without_titles(Spec.model_json_schema())
    document["$defs"] = {name: _without_titles(definition) for name, definition in document["$defs"].items()}
    container = document["$defs"]["Container"]
    _tell_defaults(container)
    container["properties"] |= _shared(Sharing)
    document["$defs"]["Defaults"] = _defaults(container)
    container["required"] = [key for key in container["required"] if key not in _FROM_DEFAULTS]
    document["properties"]["logs"]["default"] = {"max_total": None}
    document["properties"] |= {"defaults": {"$ref": "#/$defs/Defaults"}, **_shared(Joining)}
    del document["required"]  # a file may do no more than include others, or add to one
    for part in (document, *document["$defs"].values()):
        part["properties"] = {key: _or_variable(value) for key, value in part["properties"].items()}
        part["patternProperties"] = {"^x-": {}}
    document["$defs"]["Variable"] = {"type": "string", "pattern": r"^[\s\S]*\$", "description": "Text with variables."}
    head = {"$schema": DIALECT, "title": "pysup stack", "description": "The containers that pysup runs together."}
    return json.dumps(document | head, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _shared(model: type[BaseModel]) -> dict[str, Any]:
    """Its keys, without defaults that mean that a key is not there."""
    properties = _without_titles(model.model_json_schema())["properties"]
    return {key: {k: v for k, v in field.items() if k != "default"} for key, field in properties.items()}


def _or_variable(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, where each value may be text with variables instead: what that comes to is not known here."""
    parts = {name: _or_variable(schema[name]) for name in ("items", "additionalProperties") if _is_schema(schema, name)}
    if "properties" in schema:
        parts["properties"] = {key: _or_variable(value) for key, value in schema["properties"].items()}
    if "anyOf" in schema:
        return schema | {"anyOf": [*(_inside(one) for one in schema["anyOf"]), _VARIABLE]}
    if schema.get("type") in ("array", "object"):
        return schema | parts
    told = {key: schema[key] for key in ("description", "default") if key in schema}
    alone = {key: value for key, value in schema.items() if key not in told}
    return schema if "$ref" in schema or alone == TEXT else told | {"anyOf": [alone, _VARIABLE]}


def _inside(schema: dict[str, Any]) -> dict[str, Any]:
    """One of several alternatives, of which a variable is one already."""
    return _or_variable(schema) if schema.get("type") in ("array", "object") else schema


def _is_schema(schema: dict[str, Any], name: str) -> bool:
    return isinstance(schema.get(name), dict)


_VARIABLE = {"$ref": "#/$defs/Variable"}


def _tell_defaults(container: dict[str, Any]) -> None:
    """Defaults as a user would write them, not as the model holds them."""
    values = plain(Container(id="id", image="image", cmd=("cmd",)))
    for key, field in container["properties"].items():
        if key not in container["required"]:
            field["default"] = values[key]


def _without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """The model's titles are its keys again, and an editor shows both."""
    properties = {key: {k: v for k, v in field.items() if k != "title"} for key, field in schema["properties"].items()}
    return schema | {"properties": properties}


def _defaults(container: dict[str, Any]) -> dict[str, Any]:
    properties = {key: field for key, field in container["properties"].items() if key not in NOT_SHARED}
    return {
        "type": "object",
        "title": "Defaults",
        "description": "What holds for each container that does not say otherwise.",
        "properties": properties,
        "additionalProperties": False,
    }
