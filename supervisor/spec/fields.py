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
from runtime.cgroup.limits import Limits as _Limits
from runtime.config import Attachment
from runtime.idmap import Ids
from runtime.mounts import Device
from runtime.users import ID_MAX
from supervisor.core.checks import Health as _Health
from supervisor.core.checks import OnUnhealthy
from supervisor.core.checks import Ready as _Ready
from supervisor.core.policy import Condition, Dependency, RestartPolicy
from supervisor.core.policy import RestartOn as _RestartOn
from supervisor.entry import OnFailure, Order, OutputForm, StackNetwork, Update
from supervisor.logs.policy import Driver, LogLimit, LogPolicy, Overflow
from supervisor.spec import (
    idmaps,
    kinds,
    limits,
    mounts,
    naming,
    networking,
    probes,
    resources,
    restarts,
    sharing,
    values,
)
from supervisor.spec.terms import Enforce as _Enforce
from supervisor.spec.terms import Oom as _Oom
from supervisor.spec.terms import Publication, Restart
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


def _seconds(high: float, low: float = 0) -> Schema:
    return _either(
        {"type": "number", "minimum": low, "maximum": high},
        {"type": "string", "pattern": f"^(?:{kinds.DURATION_PATTERN}|[0-9.eE+-]+)$", "minLength": 1},
    )


def _mapping(key: Schema, value: Schema) -> Schema:
    return {"type": "object", "propertyNames": key, "additionalProperties": value}


def _exactly(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _some_of(**properties: Schema) -> Schema:
    """All of them may be left out, and what begins with `x-` is the user's own."""
    return {
        "type": "object",
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def _whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _ranges(low: int, high: int) -> Schema:
    one = _either(_whole(low, high), {"type": "string", "pattern": f"^(?:{restarts.RANGE_PATTERN})$"})
    return _either(one, {**_list_of(one), "maxItems": limits.CODES_MAX})


_RETRIES = {"type": "string", "pattern": f"^on-failure:[1-9][0-9]{{0,{limits.RETRIES_MAX_DIGITS - 1}}}$"}
_SIGNALS = sorted(name for name in signal.Signals.__members__ if not name.startswith("SIGRT"))
_RLIMIT = _either(
    {"type": "integer", "minimum": -1, "maximum": limits.RLIMIT_MAX}, {"type": "string", "pattern": "^[a-zA-Z1-]+$"}
)
_NULL: Schema = {"type": "null"}
_TRUTH: Schema = {"type": "boolean"}
_OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
_WAIT = _seconds(limits.CHECK_MAX_S, limits.CHECK_MIN_S)
_LIMIT_S = _either(_seconds(limits.WAIT_MAX_S, limits.CHECK_MIN_S), _NULL)
_RETRIES_MAX = _whole(1, restarts.RETRIES_MAX)
_DEPENDENCY = _either(_some_of(condition=_words(Condition), restart=_TRUTH, required=_TRUTH, timeout_s=_LIMIT_S), _NULL)
_COMMAND = _either(SOME_TEXT, {**_list_of(TEXT), "minItems": 1})
_PATH = {"type": "string", "pattern": "^/"}
_PROBE: dict[str, Schema] = {
    "log": SOME_TEXT,
    "tcp": _whole(1, probes.PORT_MAX),
    "http": {"type": "string", "pattern": "^[hH][tT][tT][pP]://"},
    "status": _ranges(probes.STATUS_MIN, probes.STATUS_MAX),
    "exec": _COMMAND,
    "file": _PATH,
    "notify": {"const": True},
}
_SIGNAL = _either(
    _words(_SIGNALS),
    {"type": "string", "pattern": "^(?:[sS][iI][gG])?[a-zA-Z]+[0-9]?(?:[+-][0-9]{1,2})?$|^[0-9]{1,2}$"},
    {"type": "integer", "minimum": 1, "maximum": int(signal.SIGRTMAX)},
)

Name = Annotated[str, PlainValidator(values.name), WithJsonSchema(_text(values.NAME_PATTERN))]
Id = Annotated[str, PlainValidator(values.identifier), WithJsonSchema(_text(values.ID_PATTERN))]
Image = Annotated[str, PlainValidator(values.image), WithJsonSchema(SOME_TEXT)]
Command = Annotated[
    tuple[str, ...],
    PlainValidator(values.command),
    WithJsonSchema(_COMMAND),
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
    Restart,
    PlainValidator(restarts.restart),
    WithJsonSchema(
        _either(
            _words(RestartPolicy),
            _RETRIES,
            _some_of(
                policy=_either(_words(RestartPolicy), _RETRIES),
                max_retries=_RETRIES_MAX,
                max_restarts=_RETRIES_MAX,
                window_s=_seconds(limits.WAIT_MAX_S, limits.CHECK_MIN_S),
            ),
        )
    ),
]
Retries = Annotated[
    int | None,
    PlainValidator(restarts.retries),
    WithJsonSchema(_either(_whole(0, restarts.RETRIES_MAX), _NULL)),
]
RestartOn = Annotated[
    _RestartOn | None,
    PlainValidator(restarts.restart_on),
    WithJsonSchema(
        _either(
            _some_of(exit_codes=_ranges(0, restarts.CODE_MAX), signals=_list_of(_SIGNAL), oom=_TRUTH),
            _NULL,
        )
    ),
]
Codes = Annotated[frozenset[int], PlainValidator(restarts.success_codes), WithJsonSchema(_ranges(0, restarts.CODE_MAX))]
Signal = Annotated[int, PlainValidator(values.stop_signal), WithJsonSchema(_SIGNAL)]
LimitSeconds = Annotated[float | None, PlainValidator(kinds.time_limit), WithJsonSchema(_LIMIT_S)]
StopCommand = Annotated[
    tuple[str, ...],
    PlainValidator(values.stop_command),
    WithJsonSchema(_either(TEXT, _list_of(TEXT), _NULL)),
]
Ready = Annotated[
    _Ready | None,
    PlainValidator(probes.ready),
    WithJsonSchema(_either(_some_of(**_PROBE, timeout_s=_WAIT), _NULL)),
]
Health = Annotated[
    _Health | None,
    PlainValidator(probes.health),
    WithJsonSchema(
        _either(
            _some_of(
                **_PROBE,
                interval_s=_WAIT,
                timeout_s=_WAIT,
                retries=_RETRIES_MAX,
                start_period_s=_seconds(limits.CHECK_MAX_S),
                start_interval_s=_WAIT,
                on_unhealthy=_words(OnUnhealthy),
                watchdog_s=_either(_WAIT, _NULL),
            ),
            {"const": probes.NONE},
            _NULL,
        )
    ),
]
_BYTES = _either(
    {"type": "integer", "minimum": 0, "maximum": limits.STORAGE_MAX_BYTES},
    {"type": "string", "pattern": f"^{kinds.SIZE_PATTERN}$"},
)
_RATE = _whole(1, resources.RATE_MAX)
_IO_LIMIT = {
    **_some_of(device=SOME_TEXT, rbps=_BYTES, wbps=_BYTES, riops=_RATE, wiops=_RATE),
    "required": ["device"],
}
Limits = Annotated[
    _Limits,
    PlainValidator(resources.limits),
    WithJsonSchema(
        _some_of(
            memory=_either(_BYTES, _NULL),
            memory_high=_either(_BYTES, _NULL),
            swap=_either(_BYTES, _NULL),
            cpus=_either({"type": "number", "minimum": resources.CPUS_MIN, "maximum": resources.CPUS_MAX}, _NULL),
            cpu_weight=_either(_whole(1, resources.WEIGHT_MAX), _NULL),
            cpuset=_either(_text(resources.CPUSET_PATTERN), _NULL),
            pids=_either(_whole(1, resources.PIDS_MAX), _NULL),
            io=_either(_list_of(_IO_LIMIT), _NULL),
        )
    ),
]
Oom = Annotated[_Oom, PlainValidator(partial(kinds.choice, kinds=_Oom)), WithJsonSchema(_words(_Oom))]
Enforce = Annotated[_Enforce, PlainValidator(partial(kinds.choice, kinds=_Enforce)), WithJsonSchema(_words(_Enforce))]
Output = Annotated[
    OutputForm,
    PlainValidator(values.output),
    WithJsonSchema(_some_of(prefix=TEXT, timestamps=_TRUTH)),
]
Updating = Annotated[
    Update,
    PlainValidator(values.update),
    WithJsonSchema(
        _some_of(
            order=_words(Order),
            parallel=_whole(0, limits.REPLICAS_MAX),
            on_failure=_words(OnFailure),
            monitor_s=_seconds(limits.CHECK_MAX_S),
        )
    ),
]
_SIZE: Schema = _either(
    {"type": "integer", "minimum": limits.STORAGE_MIN_BYTES, "maximum": limits.STORAGE_MAX_BYTES},
    {"type": "string", "pattern": f"^{kinds.SIZE_PATTERN}$"},
)
Logs = Annotated[
    LogPolicy,
    PlainValidator(values.logs),
    WithJsonSchema(
        _some_of(
            driver=_words(Driver),
            max_size=_SIZE,
            max_files=_whole(1, limits.LOG_FILES_MAX),
            compress=_TRUTH,
            overflow=_words(Overflow),
        )
    ),
]
StackLogs = Annotated[
    LogLimit,
    PlainValidator(values.logs_of_stack),
    WithJsonSchema(_some_of(max_total=_either(*_SIZE["anyOf"], _NULL))),
]
Profiles = Annotated[
    tuple[str, ...], PlainValidator(sharing.profiles), WithJsonSchema(_list_of(_text(values.ID_PATTERN)))
]
Extends = Annotated[
    sharing.Base | None,
    PlainValidator(sharing.base),
    WithJsonSchema(_either(_text(values.ID_PATTERN), _exactly(file=SOME_TEXT, id=_text(values.ID_PATTERN)))),
]
_OPTIONAL_FILE = {**_some_of(path=SOME_TEXT, required=_TRUTH), "required": ["path"]}
EnvFiles = Annotated[
    tuple[sharing.EnvFile, ...],
    PlainValidator(sharing.env_files),
    WithJsonSchema(_either(SOME_TEXT, _OPTIONAL_FILE, _list_of(_either(SOME_TEXT, _OPTIONAL_FILE)))),
]
Includes = Annotated[
    tuple[str, ...],
    PlainValidator(sharing.includes),
    WithJsonSchema(_list_of(_either(SOME_TEXT, _exactly(path=SOME_TEXT)))),
]
WaitSeconds = Annotated[
    float,
    PlainValidator(partial(kinds.seconds, high=limits.WAIT_MAX_S)),
    WithJsonSchema(_seconds(limits.WAIT_MAX_S)),
]
GraceSeconds = Annotated[
    float,
    PlainValidator(partial(kinds.seconds, high=limits.GRACE_MAX_S)),
    WithJsonSchema(_seconds(limits.GRACE_MAX_S)),
]
Factor = Annotated[float, PlainValidator(kinds.factor), WithJsonSchema({"type": "number", "minimum": 1})]
Share = Annotated[float, PlainValidator(kinds.share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Dependencies = Annotated[
    dict[str, Dependency],
    PlainValidator(values.dependencies),
    WithJsonSchema(
        _either(_list_of(_text(values.ID_PATTERN)), _mapping({"pattern": f"^{values.ID_PATTERN}$"}, _DEPENDENCY))
    ),
]
Replicas = Annotated[
    int,
    PlainValidator(values.replicas),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": limits.REPLICAS_MAX}),
]
Storage = Annotated[_Storage, PlainValidator(partial(kinds.choice, kinds=_Storage)), WithJsonSchema(_words(_Storage))]
Size = Annotated[
    int | None,
    PlainValidator(kinds.storage_size),
    WithJsonSchema(_either(*_SIZE["anyOf"], _NULL)),
]
SomeSize = Annotated[int, PlainValidator(kinds.size), WithJsonSchema(_SIZE)]
Truth = Annotated[bool, PlainValidator(kinds.boolean), WithJsonSchema(_TRUTH)]
Network = Annotated[
    str | None,
    PlainValidator(networking.mode),
    WithJsonSchema({"type": ["string", "null"], "pattern": f"^(?:{networking.MODE_PATTERN})$"}),
]
_ALIASES = _list_of(_text(networking.ALIAS_PATTERN))
_NETWORK_NAME = {"pattern": f"^{values.NAME_PATTERN}$"}
_ATTACHMENT = _either(_some_of(aliases=_ALIASES, ipv4_address=_OPTIONAL_TEXT, ipv6_address=_OPTIONAL_TEXT), _NULL)
Networks = Annotated[
    tuple[Attachment, ...],
    PlainValidator(networking.attachments),
    WithJsonSchema(_either(_list_of(_text(values.NAME_PATTERN)), _mapping(_NETWORK_NAME, _ATTACHMENT), _NULL)),
]
Aliases = Annotated[tuple[str, ...], PlainValidator(networking.aliases), WithJsonSchema(_ALIASES)]
_SHORT_PORT = {"type": ["integer", "string"], "pattern": f"^{networking.PORT_PATTERN}$"}
_LONG_PORT = {
    **_some_of(
        target=_whole(1, probes.PORT_MAX),
        published={"type": ["integer", "string", "null"]},
        host_ip=TEXT,
        protocol=_words(networking.PROTOCOLS),
        mode=_words(("host", "ingress")),
    ),
    "required": ["target"],
}
Ports = Annotated[
    tuple[Publication, ...],
    PlainValidator(networking.ports),
    WithJsonSchema(_list_of(_either(_SHORT_PORT, _LONG_PORT))),
]
_SUBNETS = _either({"type": "string"}, {**_list_of({"type": "string"}), "maxItems": 2}, _NULL)
StackNetworks = Annotated[
    dict[str, StackNetwork],
    PlainValidator(networking.networks),
    WithJsonSchema(
        _mapping(_NETWORK_NAME, _either(_some_of(internal=_TRUTH, ipv6=_TRUTH, subnet=_SUBNETS), _NULL)),
    ),
]
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
_EXTENTS = {**_list_of({"type": "string", "pattern": f"^(?:{idmaps.EXTENT_PATTERN})$"}), "minItems": 1}
Userns = Annotated[
    Ids | None,
    PlainValidator(idmaps.userns),
    WithJsonSchema(_either(_words(idmaps.WORDS), {**_some_of(uid=_EXTENTS, gid=_EXTENTS), "required": ["uid"]})),
]
Seccomp = Annotated[str, PlainValidator(values.seccomp), WithJsonSchema(SOME_TEXT)]
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
Ulimits = Annotated[
    dict[str, tuple[int, int]],
    PlainValidator(values.ulimits),
    WithJsonSchema(
        _mapping(
            _either(_words(RLIMIT_NAMES), {"pattern": "^[a-zA-Z_]+$"}),
            _either(
                _RLIMIT,
                {"type": "string", "pattern": "^[a-zA-Z0-9-]+:[a-zA-Z0-9-]+$"},
                _exactly(soft=_RLIMIT, hard=_RLIMIT),
            ),
        )
    ),
]

_MODE = _either(
    {"type": "integer", "minimum": 0, "maximum": 7777}, {"type": "string", "pattern": "^(?:0[oO]?)?[0-7]{1,4}$"}
)
_ID_NUMBER = _either(_whole(0, ID_MAX), {"type": "string", "pattern": "^[0-9]{1,10}$"})
_VOLUME: Schema = {
    **_some_of(
        type=_words(mounts.Kind),
        source=TEXT,
        target=_PATH,
        read_only=_TRUTH,
        options=_either(SOME_TEXT, _list_of(SOME_TEXT)),
        bind=_some_of(
            propagation=_words(["private", "rprivate", "slave", "rslave"]),
            create_host_path=_TRUTH,
            recursive=_either(_TRUTH, _words(["enabled", "disabled"])),
        ),
        volume=_some_of(nocopy=_TRUTH, subpath=TEXT),
        tmpfs=_some_of(size=_SIZE, mode=_MODE, uid=_ID_NUMBER, gid=_ID_NUMBER),
        consistency=TEXT,
    ),
    "required": ["target"],
}
_GRANT = {
    **_some_of(source=_text(values.ID_PATTERN), target=SOME_TEXT, uid=_ID_NUMBER, gid=_ID_NUMBER, mode=_MODE),
    "required": ["source"],
}
_GRANTS = _list_of(_either(_text(values.ID_PATTERN), _GRANT))
_FEW = _either(SOME_TEXT, _list_of(SOME_TEXT))
Volumes = Annotated[
    tuple[mounts.Volume, ...],
    PlainValidator(mounts.volumes),
    WithJsonSchema(_list_of(_either({"type": "string", "pattern": "^[^:]+(?::[^:]+){0,2}$"}, _VOLUME))),
]
Tmpfs = Annotated[
    tuple[mounts.Volume, ...], PlainValidator(mounts.tmpfs), WithJsonSchema(_either(_PATH, _list_of(_PATH)))
]
Secrets = Annotated[tuple[mounts.Grant, ...], PlainValidator(mounts.secrets), WithJsonSchema(_GRANTS)]
Configs = Annotated[tuple[mounts.Grant, ...], PlainValidator(mounts.configs), WithJsonSchema(_GRANTS)]
Devices = Annotated[
    tuple[Device, ...],
    PlainValidator(mounts.devices),
    WithJsonSchema(
        _list_of(
            _either(_PATH, {**_some_of(source=_PATH, target=_PATH, permissions=SOME_TEXT), "required": ["source"]})
        )
    ),
]
Sysctls = Annotated[
    dict[str, str],
    PlainValidator(naming.sysctls),
    WithJsonSchema(
        _either(
            _mapping({"pattern": r"^(?:kernel|fs|net)[./]"}, TEXT), _list_of({"type": "string", "pattern": "^[^=]+="})
        )
    ),
]
ExtraHosts = Annotated[
    naming.Hosts,
    PlainValidator(naming.extra_hosts),
    WithJsonSchema(
        _either(
            _mapping({"pattern": "^[^=]+$"}, _either(SOME_TEXT, _list_of(SOME_TEXT))),
            _list_of({"type": "string", "pattern": "^[^=:]+[=:]"}),
        )
    ),
]
Dns = Annotated[tuple[str, ...], PlainValidator(naming.dns), WithJsonSchema(_FEW)]
DnsSearch = Annotated[tuple[str, ...], PlainValidator(naming.dns_search), WithJsonSchema(_FEW)]
DnsOptions = Annotated[tuple[str, ...], PlainValidator(naming.dns_opt), WithJsonSchema(_FEW)]
NamedVolumes = Annotated[
    dict[str, mounts.NamedVolume],
    PlainValidator(mounts.named_volumes),
    WithJsonSchema(
        _mapping(
            {"pattern": f"^{values.ID_PATTERN}$"},
            _either(_some_of(name=_text(values.ID_PATTERN, "null"), external=_TRUTH, driver=TEXT), _NULL),
        )
    ),
]
Sources = Annotated[
    dict[str, mounts.Source],
    PlainValidator(mounts.sources),
    WithJsonSchema(
        _mapping(
            {"pattern": f"^{values.ID_PATTERN}$"},
            {**_some_of(file=SOME_TEXT, environment=SOME_TEXT, content=TEXT), "minProperties": 1},
        )
    ),
]
