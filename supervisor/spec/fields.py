"""How each kind of field is written: what the loader makes of it (values.py), and what an editor is told (JSON schema).

A schema can't tell all that the loader can, and must not forbid what the loader takes. So a string's schema takes
numbers and booleans too: the loader keeps them as they were written.
"""

import signal
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from runtime.build import RLIMITS as RLIMIT_NAMES
from runtime.config import Network as _Network
from supervisor.policy import Condition, RestartPolicy
from supervisor.spec import limits, values
from supervisor.spec.terms import Restart
from supervisor.spec.terms import Storage as _Storage

Schema = dict[str, Any]

TEXT: Schema = {"type": ["string", "number", "boolean"]}
SOME_TEXT: Schema = {**TEXT, "minLength": 1}


def _text(pattern: str, *more: str) -> Schema:
    return {"type": ["string", "number", "boolean", *more], "pattern": f"^(?:{pattern})$"}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _words(words: Iterable[str]) -> Schema:
    return {"enum": list(words)}


def _list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _seconds(high: float) -> Schema:
    return _either(
        {"type": "number", "minimum": 0, "maximum": high},
        {"type": "string", "pattern": f"^(?:{values.DURATION_PATTERN}|[0-9.eE+-]+)$", "minLength": 1},
    )


def _mapping(key: Schema, value: Schema) -> Schema:
    return {"type": "object", "propertyNames": key, "additionalProperties": value}


def _exactly(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_RETRIES = {"type": "string", "pattern": f"^on-failure:[1-9][0-9]{{0,{limits.RETRIES_MAX_DIGITS - 1}}}$"}
_SIGNALS = sorted(name for name in signal.Signals.__members__ if not name.startswith("SIGRT"))
_RLIMIT = _either(
    {"type": "integer", "minimum": -1, "maximum": limits.RLIMIT_MAX}, {"type": "string", "pattern": "^[a-zA-Z1-]+$"}
)
_CONDITION = _exactly(condition=_words(Condition))

Name = Annotated[str, PlainValidator(values.name), WithJsonSchema(_text(values.NAME_PATTERN))]
Id = Annotated[str, PlainValidator(values.identifier), WithJsonSchema(_text(values.ID_PATTERN))]
Image = Annotated[str, PlainValidator(values.image), WithJsonSchema(SOME_TEXT)]
Command = Annotated[
    tuple[str, ...],
    PlainValidator(values.command),
    WithJsonSchema(_either(SOME_TEXT, {**_list_of(TEXT), "minItems": 1})),
]
Environment = Annotated[
    dict[str, str],
    PlainValidator(values.environment),
    WithJsonSchema(_either(_mapping({"pattern": "^[^=]+$"}, TEXT), _list_of({"type": "string", "pattern": "^[^=]+="}))),
]
Workdir = Annotated[
    str | None, PlainValidator(values.workdir), WithJsonSchema({"type": ["string", "null"], "pattern": "^/"})
]
User = Annotated[str | None, PlainValidator(values.user), WithJsonSchema(_text(values.USER_PATTERN, "null"))]
Hostname = Annotated[
    str | None,
    PlainValidator(values.hostname),
    WithJsonSchema({**_text(values.HOSTNAME_PATTERN, "null"), "maxLength": limits.HOSTNAME_MAX_CHARS}),
]
RestartRule = Annotated[
    Restart, PlainValidator(values.restart), WithJsonSchema(_either(_words(RestartPolicy), _RETRIES))
]
Signal = Annotated[
    int,
    PlainValidator(values.stop_signal),
    WithJsonSchema(
        _either(
            _words(_SIGNALS),
            {"type": "string", "pattern": "^(?:[sS][iI][gG])?[a-zA-Z]+[0-9]?(?:[+-][0-9]{1,2})?$|^[0-9]{1,2}$"},
            {"type": "integer", "minimum": 1, "maximum": int(signal.SIGRTMAX)},
        )
    ),
]
WaitSeconds = Annotated[
    float,
    PlainValidator(partial(values.seconds, high=limits.WAIT_MAX_S)),
    WithJsonSchema(_seconds(limits.WAIT_MAX_S)),
]
GraceSeconds = Annotated[
    float,
    PlainValidator(partial(values.seconds, high=limits.GRACE_MAX_S)),
    WithJsonSchema(_seconds(limits.GRACE_MAX_S)),
]
Factor = Annotated[float, PlainValidator(values.factor), WithJsonSchema({"type": "number", "minimum": 1})]
Share = Annotated[float, PlainValidator(values.share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Dependencies = Annotated[
    dict[str, Condition],
    PlainValidator(values.dependencies),
    WithJsonSchema(
        _either(_list_of(_text(values.ID_PATTERN)), _mapping({"pattern": f"^{values.ID_PATTERN}$"}, _CONDITION))
    ),
]
Replicas = Annotated[
    int,
    PlainValidator(values.replicas),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": limits.REPLICAS_MAX}),
]
Storage = Annotated[_Storage, PlainValidator(partial(values.choice, kinds=_Storage)), WithJsonSchema(_words(_Storage))]
Size = Annotated[
    int | None,
    PlainValidator(values.storage_size),
    WithJsonSchema(
        _either(
            {"type": "integer", "minimum": limits.STORAGE_MIN_BYTES, "maximum": limits.STORAGE_MAX_BYTES},
            {"type": "string", "pattern": f"^{values.SIZE_PATTERN}$"},
            {"type": "null"},
        )
    ),
]
Truth = Annotated[bool, PlainValidator(values.boolean), WithJsonSchema({"type": "boolean"})]
Network = Annotated[_Network, PlainValidator(partial(values.choice, kinds=_Network)), WithJsonSchema(_words(_Network))]
Capabilities = Annotated[
    tuple[str, ...],
    PlainValidator(values.capabilities),
    WithJsonSchema(
        _list_of(
            _either(
                _words(values.BARE_CAPABILITIES),
                {"type": "string", "pattern": "^[a-zA-Z_]+$"},
            )
        )
    ),
]
Umask = Annotated[
    int,
    PlainValidator(values.umask),
    WithJsonSchema(
        _either(
            {"type": "integer", "minimum": 0, "maximum": 777},
            {"type": "string", "pattern": f"^{values.UMASK_PATTERN}$"},
        )
    ),
]
Rlimits = Annotated[
    dict[str, tuple[int, int]],
    PlainValidator(values.rlimits),
    WithJsonSchema(
        _mapping(
            _either(_words(RLIMIT_NAMES), {"pattern": "^[a-zA-Z_]+$"}),
            _either(_RLIMIT, _exactly(soft=_RLIMIT, hard=_RLIMIT)),
        )
    ),
]
