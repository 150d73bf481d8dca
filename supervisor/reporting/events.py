"""What the supervisor itself says: structlog events, written through the console that also writes containers' lines.

So an event stands where it belongs: `exited` comes after the last line of the run. Nothing here is global: the logger
is built by `structlog.wrap_logger` with a pipeline of its own, and structlog's configuration is left alone.

Two forms. Text, for people, is a line of pysup's own, not to be taken for one that a container wrote:

    pysup | web.1: started (pid 4242)

An event that quotes what a container wrote last has a line more for each of these. Whatever comes from a container or a
file's name stays within its line, and is nothing that a terminal obeys: characters that can't be printed are escaped.

JSON is one object per line: `timestamp` (RFC 3339, UTC), `level`, `event`, `container` where there is one, and the
event's fields as they are. Containers' lines are then events too, named `output` (`lines.JsonLines`).
"""

import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from string import Formatter
from typing import Any, Literal, Protocol

from supervisor.streams.lines import OURS, RESET, JsonLines, Layout, LineForm, TextLines, colour_of, json_line, rfc3339

# structlog would load all of rich for a renderer that is not used here: five megabytes, and 50 ms of every start.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # how the import system is told that there is none
import structlog  # noqa: E402 (see above)
from structlog.typing import EventDict, Processor  # noqa: E402 (see above)

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich

Level = Literal["debug", "info", "warning", "error"]
Write = Callable[[bytes], None]
Clock = Callable[[], float]  # seconds since the epoch

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}  # logging's
_SHADES: Mapping[str, str] = {"debug": "\x1b[2m", "info": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m"}


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


# What people read. Of an event's sentences the first whose fields are all there and say something is taken; an event
# without one is shown as `event key=value …`. `{oom!s:.0}` shows nothing, but must be there.
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "starting": ("starting",),
    "started": ("started (pid {pid})", "started"),
    "start_failed": ("could not start: {error}", "could not start"),
    "ready": ("ready after {after_s:.3g} s", "ready"),
    "not_ready": (
        "not ready within {timeout_s:g} s: {finding}",
        "not ready within {timeout_s:g} s",
        "not ready in time",
    ),
    "pattern_slow": (
        "{key}: its pattern takes too long at a line that was written, which passes for no match: make it simpler",
        "its pattern takes too long",
    ),
    "healthy": ("healthy",),
    "unhealthy": ("unhealthy: {finding}", "unhealthy"),
    "status": ("says: {status}",),
    "timed_out": ("not done within {timeout_s:g} s", "not done in time"),
    "not_enforced": ("{key} does not hold: {why}", "a limit does not hold"),
    "not_limited": ("its limits could not be changed: {error}", "its limits could not be changed"),
    "out_of_memory": ("out of memory: the kernel killed {processes} of its processes", "out of memory"),
    "exited": (
        "killed by {signal}, out of memory{oom!s:.0}",
        "killed by {signal}",
        "exited with status {exit_status}, out of memory{oom!s:.0}",
        "exited with status {exit_status}",
        "exited: {status}",
        "exited",
    ),
    "restarting": (
        "restarting in {delay_s:.3g} s (retry {retry})",
        "restarting in {delay_s:.3g} s",
        "restarting: {reason}",
        "restarting",
    ),
    "gave_up": ("given up after retry {retries}: {reason}", "failed: {reason}", "failed"),
    "stopping": ("stopping ({signal})", "stopping"),
    "stop_command_failed": ("stop command: {error}", "its stop command failed"),
    "killing": ("killing: {why} after {grace_s:g} s", "killing: still there after {grace_s:g} s", "killing"),
    "stuck": (
        "still there {after_s:g} s after SIGKILL: {why}; not waiting for it any more",
        "still there {after_s:g} s after SIGKILL; not waiting for it any more",
        "still there after SIGKILL",
    ),
    "stopped": ("stopped",),
    "aborting": ("ended, so all others are stopped",),
    "dependency_failed": ("not started, as {chain}",),
    "dependency_skipped": ("starting although {reason}", "starting without a dependency"),
    "forwarding_enabled": ("the host forwards packets from now on: {what} was off",),
    "exec_create": ("is to execute: {command}",),
    "exec_start": ("executes: {command}",),
    "exec_die": ("has executed, with status {exit_status}: {command}", "has executed: {command}"),
    "signalled": ("was sent {signal}",),
    "paused": ("paused",),
    "frozen": ("frozen by others: until it goes on, none of its times runs out and no check is tried",),
    "unpaused": ("goes on",),
    "not_paused": ("could not be paused: {error}", "could not be paused"),
    "created": ("made from {image}", "made"),
    "reloading": ("reading the spec again: {why}", "reading the spec again"),
    "difference": ("{text}",),
    "reloaded": ("reloaded: {changes}", "reloaded"),
    "reload_refused": ("not reloaded: {error}", "not reloaded"),
    "reload_paused": ("did not come up: {reason}; the reload pauses here", "did not come up; the reload pauses here"),
    "reload_interrupted": ("the reload ends here: {reason}", "the reload ends here"),
    "rolling_back": ("did not come up: {reason}; all goes back to what it was",),
    "rolled_back": ("all is what it was before the reload",),
    "rollback_failed": ("did not come up again: {reason}", "did not come up again"),
    "renamed": ("was {from} until now", "renamed"),
    "updated": ("other limits or restarts from now on",),
    "removed": ("removed",),
    "watching": ("watching {files} files of the spec",),
    "watch_failed": ("its files are not watched any more: {error}",),
    "swept": ("swept what an earlier run left: {what}", "swept what an earlier run left"),
    "descriptors_scarce": (
        "{containers} containers may need {needed} open files, and {limit} is the limit: raise it (ulimit -Hn)",
    ),
    "stack_up": ("all {count} containers are up", "the stack is up"),
    "stack_done": ("all containers are done; failed: {names}", "all containers are done"),
    "stack_stopped": ("stopped; failed: {names}", "stopped"),
    "forced": ("killing on {signal}",),
    "kept": ("kept what it wrote in {path}",),
    "left_behind": ("{error}",),
    "interrupted": ("stopping on {signal}; once more kills", "stopping; once more kills"),
    "output_lost": ("{lines} lines were dropped: standard output is too slow",),
    "log_failed": ("its log can't be written: {error}; lines are dropped until there is room",),
    "log_lost": ("{lines} lines of its log were dropped",),
    "log_repaired": ("the last line of its log was torn by a crash, and {done}",),
    "log_unkept": ("its output is kept nowhere: driver stdout-json has no reader in the background",),
    "output_held": ("something outside the container holds its output open; not waiting for it",),
}
# The same where there is one of what a field counts.
OF_ONE: Mapping[str, tuple[str, str]] = {
    "watching": ("files", "watching the file of the spec"),
    "stack_up": ("count", "all containers are up"),
    "output_lost": ("lines", "a line was dropped: standard output is too slow"),
    "log_lost": ("lines", "a line of its log was dropped"),
}
QUOTED = "last_lines"  # what a container wrote last, oldest first

Template = tuple[str, frozenset[str]]  # with the fields that it names
_TEMPLATES: Mapping[str, tuple[Template, ...]] = {
    event: tuple((each, frozenset(name for _, name, _, _ in Formatter().parse(each) if name)) for each in sentences)
    for event, sentences in SENTENCES.items()
}


class Speaker(Protocol):
    """Who says events."""

    def emit(self, event: str, *, container: str | None = None, level: Level = "info", **fields: object) -> None:
        """Say that `event` happened, to `container` or to the stack. Units go last in the names of fields."""
        ...


class Events:
    """The one way to say something. Cheap enough for thousands at once; never waits."""

    def __init__(self, write: Write, render: Processor, *, level: Level = "info", clock: Clock = time.time) -> None:
        self._log = structlog.wrap_logger(
            _Writer(write),
            processors=[structlog.processors.add_log_level, _Ordered(clock), render],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
            context_class=dict,
        ).bind()  # bound once: the proxy would build a logger per call

    def emit(self, event: str, *, container: str | None = None, level: Level = "info", **fields: object) -> None:
        """See `Speaker.emit`."""
        if container is not None:
            fields = {"container": container, **fields}
        self._log.log(LEVELS[level], event, **fields)


class TextEvents:
    """The last step of the pipeline, for people."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __call__(self, _logger: object, _method: str, fields: EventDict) -> bytes:
        head = f"{self._layout.prefix(OURS)}{self._subject(fields)}"
        quoted = [f"last output: {printable(line)}" for line in fields.get(QUOTED, ())]
        return "".join(f"{head}{self._shaded(text, fields)}\n" for text in (sentence(fields), *quoted)).encode()

    def _shaded(self, text: str, fields: EventDict) -> str:
        return f"{_SHADES[fields['level']]}{text}{RESET}" if self._layout.colour else text

    def _subject(self, fields: EventDict) -> str:
        container = fields.get("container")
        if container is None:
            return ""
        return f"{colour_of(container)}{container}{RESET}: " if self._layout.colour else f"{container}: "


def json_events(_logger: object, _method: str, fields: EventDict) -> bytes:
    """The last step of the pipeline, for programs."""
    return json_line(fields)


def forms(log_format: LogFormat, layout: Layout, clock: Clock = time.time) -> tuple[LineForm, Processor]:
    """How containers' lines and events look, as `--log-format` has it."""
    if log_format is LogFormat.JSON:
        return JsonLines(clock), json_events
    return TextLines(layout, clock), TextEvents(layout)


def sentence(fields: Mapping[str, Any]) -> str:
    """An event in words, on one line."""
    event = fields["event"]
    counted, of_one = OF_ONE.get(event, ("", ""))
    if of_one and fields.get(counted) == 1:
        return of_one
    text = next(filter(None, (_filled(each, fields) for each in _TEMPLATES.get(event, ()))), None)
    return printable(text or _listed(fields))


def printable(text: str) -> str:
    """What breaks no line and is obeyed by no terminal: control and format characters as Python writes them."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _filled(template: Template, fields: Mapping[str, Any]) -> str | None:
    text, names = template
    if any(fields.get(name) in _NOTHING for name in names):
        return None
    try:
        return text.format_map(fields)
    except (ValueError, TypeError):  # a field is no number
        return None


_NOTHING = ("", None)


def _listed(fields: Mapping[str, Any]) -> str:
    shown = (f"{key}={value}" for key, value in fields.items() if key not in _NOT_LISTED)
    return " ".join((fields["event"], *shown))


_NOT_LISTED = frozenset({"timestamp", "level", "event", "container", QUOTED})


class _Ordered:
    """A step of the pipeline: the time, and the keys in the order in which one reads them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, _logger: object, _method: str, fields: EventDict) -> EventDict:
        head = {"timestamp": rfc3339(self._clock()), "level": fields.pop("level"), "event": fields.pop("event")}
        return {**head, **fields}


class _Writer:
    """The logger that structlog wraps: whatever the level, the rendered line goes to the console."""

    def __init__(self, write: Write) -> None:
        self.debug = self.info = self.warning = self.error = write
