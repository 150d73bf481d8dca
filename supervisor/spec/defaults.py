"""The `defaults` of a file: checked by themselves, so that a fault is told once, and laid under its containers."""

from pydantic import ValidationError

from supervisor.spec.explain import NOT_SHARED, parsed, tell
from supervisor.spec.faults import Report, Wrong, unexpected
from supervisor.spec.merge import as_map, without_other_probe
from supervisor.spec.model import Container, Sharing
from supervisor.spec.terms import Storage
from supervisor.spec.tree import DEFAULTS, Map, locate

JOINED_KEYS = (
    "env",
    "backoff",
    "ulimits",
    "sysctls",
    "limits",
    "ready",
    "health",
    "output",
    "logs",
    "update",
)  # laid over the defaults' one by one


def sound(written: Map, defaults: object, report: Report) -> Map:
    """The defaults, less what can't be one. Their faults are told here, whether or not a container inherits them."""
    if not isinstance(defaults, Map):
        report.add(locate(written, (DEFAULTS,)), unexpected(defaults, "a mapping of container's keys to values"))
        return Map(written.position)
    for key in NOT_SHARED:
        if key in defaults:
            report.add(locate(written, (DEFAULTS, key), key=True), Wrong("can't be a default", "it in each container"))
    if "env_file" in defaults:
        parsed(defaults.without(*(key for key in defaults if key != "env_file")), Sharing, report, defaults)
    shared = defaults.without(*NOT_SHARED, "env_file")
    try:
        Container.model_validate(_completed(shared))
    except ValidationError as error:
        tell(report, written, error, DEFAULTS)
    return shared.without(*(key for key in shared if key not in Container.model_fields))


def _completed(defaults: Map) -> dict[str, object]:
    """A container with nothing wrong but what the defaults bring. A size is for those containers that are in memory."""
    complete = {"id": DEFAULTS, "image": DEFAULTS, "cmd": DEFAULTS, **defaults}
    if "storage_size" in defaults and defaults.get("storage") == Storage.DISK:
        del complete["storage"]
    return {"storage": Storage.MEMORY, **complete}


def completed(container: Map, defaults: Map) -> Map:
    """A container with what the defaults have and it has not."""
    joined = container.over(defaults, (DEFAULTS,))
    for key in JOINED_KEYS:
        if key in container and key in defaults:
            own, base = as_map(key, container[key]), as_map(key, defaults[key])
            if isinstance(own, Map) and isinstance(base, Map):
                joined[key] = own.over(without_other_probe(key, own, base), (DEFAULTS, key))
    if "storage_size" not in container and "storage_size" in joined and joined.get("storage") != Storage.MEMORY:
        joined = joined.without("storage_size")
    return joined
