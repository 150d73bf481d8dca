"""`healthcheck` to `health`: a command that is run inside. Compose's defaults are written where pysup's are others."""

from supervisor.compose.scalars import duration, truth
from supervisor.compose.services import Keys, Service
from supervisor.spec.faults import Wrong, unexpected
from supervisor.spec.tree import Map, Plain, Seq

NONE = Plain("none")  # no check
_TIMES = {
    "interval": "interval_s",
    "timeout": "timeout_s",
    "retries": "retries",
    "start_period": "start_period_s",
    "start_interval": "start_interval_s",
}
# The Engine's, where pysup's differ. Without a start period there is no time in which it looks more often.
_INTERVAL = Plain("30")
_TIMEOUT = Plain("30")
_START_INTERVAL = Plain("5")


def health(service: Service, value: object) -> Keys:
    if not isinstance(value, Map):
        raise unexpected(value, "a mapping")
    for key in value:
        if key not in ("test", "disable", *_TIMES) and not key.startswith("x-"):
            service.notes.dropped(service.loc("healthcheck", key), "is no key of a health check")
    if _off(value):
        return {"health": NONE} if service.base() is not None else {}
    times = {ours: _figure(theirs, value[theirs]) for theirs, ours in _TIMES.items() if not _unset(value.get(theirs))}
    if "test" in value:
        return {"health": {"exec": _command(value["test"]), **_with_defaults(times)}}
    if not _checks(service):
        raise Wrong("is without a test, and that of the image is not known", "test")
    return {"health": times} if times else {}


def _off(check: Map) -> bool:
    """A check without a command is none."""
    if "disable" in check and truth(check["disable"]) is True:
        return True
    return "test" in check and (check["test"] in (None, "", []) or _kind(check["test"]) == "NONE")


def _kind(test: object) -> object:
    return test[0] if isinstance(test, Seq) and test else None


def _checks(service: Service) -> bool:
    """Whether the service that this one extends has a test."""
    base = service.base()
    check = Service(base, service.file).found("healthcheck") if base else None
    return isinstance(check, Map) and "test" in check and not _off(check)


def _command(test: object) -> list[str]:
    match test:
        case str():
            return ["/bin/sh", "-c", str(test)]
        case ["CMD-SHELL", str() as line]:
            return ["/bin/sh", "-c", str(line)]
        case ["CMD", _, *_] if all(isinstance(word, str) for word in test):
            return [str(word) for word in test[1:]]
        case _:
            raise unexpected(test, "a command, [CMD, …], [CMD-SHELL, …] or [NONE]").within("test")


def _unset(value: object) -> bool:
    """Zero stands for the default, as with the Engine."""
    return value is None or (isinstance(value, str) and value in ("", "0", "0s", "0m", "0h"))


def _figure(key: str, value: object) -> object:
    if key == "retries":
        return value
    try:
        return duration(value)
    except Wrong as wrong:
        raise wrong.within(key) from None


def _with_defaults(times: Keys) -> Keys:
    """All that the Engine would do. Outside a start period it does not heed start_interval."""
    pause = times.get("interval_s", _INTERVAL)
    if "start_period_s" in times:
        pause = times.get("start_interval_s", _START_INTERVAL)
    complete = {"timeout_s": _TIMEOUT, "start_period_s": Plain("0"), **times, "start_interval_s": pause}
    ordered = {key: complete[key] for key in _TIMES.values() if key in complete}
    return {**ordered, "on_unhealthy": Plain("ignore")}
