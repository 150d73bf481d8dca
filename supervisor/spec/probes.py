"""Text to checks: `ready` and `health`, each a mapping of one probe and what there is to say about its times."""

import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from supervisor.core.checks import Exec, File, Health, Http, Log, Notify, OnUnhealthy, Probe, Ready, Tcp
from supervisor.spec import limits
from supervisor.spec.faults import Wrong, quoted, together, unexpected
from supervisor.spec.kinds import absolute, boolean, choice, keyed, mapped, seconds, text, whole
from supervisor.spec.restarts import RETRIES_MAX, ranges
from supervisor.spec.values import command

PORT_MAX = 65_535
STATUS_MIN, STATUS_MAX = 100, 599
LOCALHOST = "localhost"
NONE = "none"  # no check

_VISIBLE = re.compile("[!-~]*")  # visible ASCII: what may stand in a request line
_PROBE_EXPECTED = "exactly one of log, tcp, http, exec, file, notify"


def ready(value: object) -> Ready | None:
    """When a run serves; null: as soon as it runs."""
    if value is None or isinstance(value, Ready):
        return value
    given = keyed(mapped(value, f"a mapping with {_PROBE_EXPECTED}"), {**PROBES, **_STATUS, "timeout_s": _wait})
    return Ready(_probe(given), **given)


def health(value: object) -> Health | None:
    """Whether a run still serves; `none` or null: nobody asks."""
    if value is None or value == NONE or isinstance(value, Health):
        return None if value == NONE else value  # type: ignore[return-value]  # only those are left
    expected = f"a mapping with {_PROBE_EXPECTED}, or none"
    given = keyed(mapped(value, expected), {**PROBES, **_STATUS, **_HEALTH})
    probe = _probe(given)
    watched = given.get("watchdog_s") is not None
    if isinstance(probe, Notify) and not watched:
        raise Wrong("is without watchdog_s", "how often it must speak at least: {notify: true, watchdog_s: 30}")
    if watched and not isinstance(probe, Notify):
        raise together([Wrong("has no meaning without notify", "notify: true beside it").within("watchdog_s")])
    return Health(probe, **given)


def _probe(given: dict[str, object]) -> Probe:
    """Taken out of what was given, with what belongs to it."""
    named = [key for key in PROBES if key in given]
    if len(named) != 1:
        what = f"has {' and '.join(named)}" if named else "is without a probe"
        raise Wrong(what, _PROBE_EXPECTED)
    probe = given.pop(named[0])
    statuses = given.pop("status", None)
    if statuses is not None and not isinstance(probe, Http):
        raise together([Wrong("has no meaning without http", "http: URL beside it").within("status")])
    if isinstance(probe, Http) and isinstance(statuses, tuple):
        return Http(probe.host, probe.port, probe.target, statuses)
    return probe  # type: ignore[return-value]  # what the parsers below return


# --- probes ---------------------------------------------------------------------------------------------------


def _log(value: object) -> Log:
    expected = "a regular expression"
    pattern = text(value, expected)
    if not pattern or len(pattern) > limits.PATTERN_MAX_CHARS:
        raise unexpected(value, f"{expected} of 1 to {limits.PATTERN_MAX_CHARS} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may mean something else one day
            re.compile(pattern.encode())
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise Wrong(f"{quoted(pattern)} is no regular expression: {error}", "one as Python's re has them") from None
    return Log(pattern)


def _tcp(value: object) -> Tcp:
    return Tcp(whole(value, 1, PORT_MAX, "a port"))


def _http(value: object) -> Http:
    expected = "a URL such as http://localhost:8080/health"
    line = text(value, expected)
    url, port = _split(line, value, expected)
    if url.scheme == "https":
        raise Wrong("is https, which is not tried from outside", "http, or exec with a client of the container's own")
    if url.scheme != "http" or not url.hostname or url.username is not None or not _VISIBLE.fullmatch(line):
        raise unexpected(value, expected)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    return Http(_host(url.hostname), 80 if port is None else port, target)


def _split(line: str, value: object, expected: str) -> tuple[SplitResult, int | None]:
    try:
        url = urlsplit(line)
        port = url.port
    except ValueError:  # a port out of range, a bracket without its other
        raise unexpected(value, expected) from None
    return url, port


def _host(name: str) -> str:
    if name == LOCALHOST:
        return name
    try:
        return str(ip_address(name))
    except ValueError:
        what = f"{quoted(name)} is looked up from inside the container's network"
        raise Wrong(what, "localhost or an address") from None


def _exec(value: object) -> Exec:
    return Exec(command(value))


def _file(value: object) -> File:
    return File(absolute(value, "an absolute path in the container"))


def _notify(value: object) -> Notify:
    if not boolean(value):
        raise Wrong("is false", "true, or another probe")
    return Notify()


PROBES: Mapping[str, Callable[[object], object]] = {
    "log": _log,
    "tcp": _tcp,
    "http": _http,
    "exec": _exec,
    "file": _file,
    "notify": _notify,
}


def _statuses(value: object) -> tuple[tuple[int, int], ...]:
    found = tuple(ranges(value, STATUS_MIN, STATUS_MAX))
    if not found:
        raise Wrong("names no status", "such as 200-399, or a list")
    return found


_STATUS = {"status": _statuses}

# --- times ----------------------------------------------------------------------------------------------------

_wait = partial(seconds, low=limits.CHECK_MIN_S, high=limits.CHECK_MAX_S)
_HEALTH: Mapping[str, Callable[[object], object]] = {
    "interval_s": _wait,
    "timeout_s": _wait,
    "retries": partial(whole, low=1, high=RETRIES_MAX),
    "start_period_s": partial(seconds, high=limits.CHECK_MAX_S),
    "start_interval_s": _wait,
    "on_unhealthy": partial(choice, kinds=OnUnhealthy),
    "watchdog_s": lambda value: None if value is None else _wait(value),
}
WORDS = (*PROBES, *_STATUS, *_HEALTH)
OF_A_PROBE = (*PROBES, "status", "watchdog_s")  # goes when another probe takes its place
