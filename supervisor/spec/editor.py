"""The JSON schema of a stack file, for editors: completion, descriptions, and most faults while typing.

It takes whatever the loader takes. `pysup schema > configs/stack.schema.json` brings the copy in the tree up to date.
"""

import json
from typing import Any

from supervisor.spec.loader import OWN_KEYS
from supervisor.spec.model import Container, Spec
from supervisor.spec.resolve import plain

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FROM_DEFAULTS = ("image", "cmd")  # required, but of the container and the defaults together


def schema() -> str:
    """What `pysup schema` prints."""
    document = _without_titles(Spec.model_json_schema())
    document["$defs"] = {name: _without_titles(definition) for name, definition in document["$defs"].items()}
    container = document["$defs"]["Container"]
    _tell_defaults(container)
    document["$defs"]["Defaults"] = _defaults(container)
    container["required"] = [key for key in container["required"] if key not in _FROM_DEFAULTS]
    document["properties"]["defaults"] = {"$ref": "#/$defs/Defaults"}
    document["required"] = ["containers"]
    head = {"$schema": DIALECT, "title": "pysup stack", "description": "The containers that pysup runs together."}
    return json.dumps(document | head, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


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
    properties = {key: field for key, field in container["properties"].items() if key not in OWN_KEYS}
    return {
        "type": "object",
        "title": "Defaults",
        "description": "What holds for each container that does not say otherwise.",
        "properties": properties,
        "additionalProperties": False,
    }
