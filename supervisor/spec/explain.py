"""What pydantic finds wrong with a spec, in our words and with the places of the tree."""

from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from supervisor.spec import limits
from supervisor.spec.faults import Loc, Report, Wrong, unexpected, unknown
from supervisor.spec.model import Backoff, Container, Joining, Sharing, Spec
from supervisor.spec.tree import DEFAULTS, Map, locate

Model = TypeVar("Model", bound=BaseModel)

OWN_KEYS = ("id", "depends_on", "replicas")  # of each container, never of all
NOT_SHARED = (*OWN_KEYS, "extends", "profiles")
_EXPECTED = {
    "id": "a name for the container",
    "image": "the name of an image, here or in the defaults",
    "cmd": "a list of arguments or a string, here or in the defaults",
    "containers": "a list of containers",
}
# What people who know Compose write, and difflib would not guess.
_COMPOSE = {
    "command": "cmd",
    "entrypoint": "cmd",
    "environment": "env",
    "working_dir": "workdir",
    "stop_grace_period": "stop_grace_s",
    "scale": "replicas",
    "container_name": "id",
    "network_mode": "network",
    "healthcheck": "health",
    "rlimits": "ulimits",
    "deploy": "limits",
    "logging": "logs",
    "mem_limit": "limits",
    "security_opt": "seccomp",
    "pre_stop": "stop_cmd",
    "max_attempts": "retries",
    "enable_ipv6": "ipv6",
    "ipam": "subnet",
}


def parsed(entries: Map, model: type[Model], report: Report, root: Map) -> Model | None:
    """What the model makes of some entries of `root`; None if that has faults, which are reported."""
    try:
        return model.model_validate(entries)
    except ValidationError as error:
        tell(report, root, error)
        return None


def tell(report: Report, root: Map, error: ValidationError, *loc: str | int) -> None:
    """Report all of it; `loc` leads to the value that was validated."""
    for each, wrong in explained(error, *loc):
        add(report, root, each, wrong)


def add(report: Report, root: Map, loc: Loc, wrong: Wrong) -> None:
    """Report one fault of what `loc` leads to."""
    place = locate(root, loc, key=wrong.at_key)
    more = report.first_at(locate(root, wrong.first), place) if wrong.first else ""
    report.add(place, wrong, more)


def explained(error: ValidationError, *root: str | int) -> Iterator[tuple[Loc, Wrong]]:
    for detail in error.errors(include_url=False):
        loc = (*root, *detail["loc"])
        yield loc, _wrong(detail, loc)


def _wrong(detail: ErrorDetails, loc: Loc) -> Wrong:
    match detail["type"]:
        case "value_error" if isinstance(wrong := detail["ctx"]["error"], Wrong):
            return wrong
        case "missing":
            return Wrong("is missing", _EXPECTED.get(str(loc[-1]), ""))
        case "extra_forbidden":
            return unknown_key(loc)
        case "model_type":
            return unexpected(detail["input"], f"a mapping with {some(keys(loc))}")
        case _:
            return Wrong(detail["msg"])


def some(names: tuple[str, ...]) -> str:
    """All of a few, the first of many."""
    return ", ".join(names) if len(names) <= limits.KEYS_SHOWN_MAX else f"{', '.join(names[:3])} and others"


def unknown_key(loc: Loc) -> Wrong:
    """What is said of the key that `loc` ends with."""
    if loc == ("services",):
        return Wrong("is a Compose file's", "a spec: `pysup import compose FILE` makes one of it", at_key=True)
    known = keys(loc[:-1])
    others = {word: meant for word, meant in _COMPOSE.items() if meant in known}
    return unknown("key", str(loc[-1]), known, others)


def keys(loc: Loc) -> tuple[str, ...]:
    """Of the mapping at `loc`."""
    match loc:
        case ():
            return (*Spec.model_fields, DEFAULTS, *Joining.model_fields)
        case (*_, "backoff"):
            return tuple(Backoff.model_fields)
        case ("defaults",):
            return tuple(key for key in (*Container.model_fields, *Sharing.model_fields) if key not in NOT_SHARED)
        case _:
            return (*Container.model_fields, *Sharing.model_fields)
