"""What `pysup ps` shows, and a way to it past the command line's parser.

`pysup ps` is what scripts and impatient people call again and again, and loading click takes longer than all the rest.
So the usual forms of it are understood here; any other, and whatever goes wrong, is left to the command in ps.py, which
does the same with all there is to say.
"""

import json
import re
from collections.abc import Sequence

from runtime.errors import PysupError
from supervisor.cli.stacks import Listed, Stack, chosen, known, run_directory
from supervisor.cli.table import readable, table
from supervisor.errors import CommandError, GoneError

COMMAND_MAX = 30  # characters of it that are shown
FLAGS = {"-a": "every", "--all": "every", "-q": "quiet", "--quiet": "quiet", "--json": "as_json"}
VALUES = {"-s": "name", "--stack": "name", "--run": "run", "--format": "template"}

_FIELDS = {  # as Docker's templates name them
    "ID": "key",
    "Name": "id",
    "Names": "id",
    "Image": "image",
    "Command": "command",
    "Project": "stack",
    "Service": "group",
    "State": "state",
    "Status": "status",
    "Health": "health",
    "ExitCode": "exit_code",
    "RunningFor": "age",
    "Pid": "pid",
    "Restarts": "restarts",
    "Userns": "userns",
}
_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


class Wish:
    """What is to be listed, and how it is to look."""

    def __init__(
        self,
        run: str,
        name: str | None = None,
        *,
        every: bool = False,
        quiet: bool = False,
        as_json: bool = False,
        template: str | None = None,
    ) -> None:
        self.run = run
        self.name = name
        self.every = every
        self.quiet = quiet
        self.as_json = as_json or template == "json"
        self.template = None if template in {"json", "table"} else template

    def text(self) -> str:
        """All of it. StackError, CommandError."""
        containers = [each for each in self._containers() if self.every or each["running"]]
        if self.as_json:
            return json.dumps(containers, indent=2) + "\n"
        if self.quiet:
            return "".join(f"{each['id']}\n" for each in containers)
        if self.template is not None:
            return _by_template(self.template, containers)
        return _table(containers, several=self.name is None)

    def _containers(self) -> list[Listed]:
        if self.name is not None:
            return chosen(self.run, self.name).containers()
        return [container for stack in known(self.run) for container in _of(stack)]


def _of(stack: Stack) -> list[Listed]:
    try:
        return stack.containers()
    except GoneError:  # its supervisor was killed
        return []


def _table(containers: Sequence[Listed], *, several: bool) -> str:
    stacks = {each["stack"] for each in containers}
    some_own = any(each.get("userns") for each in containers)  # a supervisor that was there before us tells none
    head = ["NAME", "IMAGE", "COMMAND", "CREATED", *(["USERNS"] if some_own else []), "STATUS"]
    rows = [
        [
            readable(str(each["id"])),
            str(each["image"]),
            _brief(str(each["command"])),
            str(each["age"]),
            *([str(each.get("userns") or "host")] if some_own else []),
            _status(each),
        ]
        for each in containers
    ]
    if several and len(stacks) > 1:
        return table(["STACK", *head], [[str(each["stack"]), *row] for each, row in zip(containers, rows, strict=True)])
    return table(head, rows)


def _status(container: Listed) -> str:
    restarts = container["restarts"]
    return f"{container['status']}, restarts: {restarts}" if restarts else str(container["status"])


def _brief(command: str) -> str:
    shown = readable(command)
    return f'"{shown if len(shown) <= COMMAND_MAX else shown[: COMMAND_MAX - 1] + "…"}"'


def _by_template(template: str, containers: Sequence[Listed]) -> str:
    """`{{.Name}}: {{.Status}}`; after the word `table`, with a head, and columns where tabs are."""
    aligned = template.startswith("table ")
    pattern = template.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    lines = [_FIELD.sub(lambda found, each=each: _value(each, found[1]), pattern) for each in containers]  # type: ignore[misc]  # a lambda with a default
    if "{{" in _FIELD.sub("", pattern):
        raise CommandError(f"--format {template}: expected {{{{.FIELD}}}}, fields being {', '.join(_FIELDS)}")
    if not aligned:
        return "".join(f"{line}\n" for line in lines)
    head = _FIELD.sub(lambda found: found[1].upper(), pattern)
    return table(head.split("\t"), [line.split("\t") for line in lines])


def _value(container: Listed, field: str) -> str:
    if field not in _FIELDS:
        raise CommandError(f"--format: there is no field {field}; there are {', '.join(_FIELDS)}")
    value = container.get(_FIELDS[field])
    return "" if value is None else readable(str(value))


# --- past the parser -------------------------------------------------------------------------------------------------


def quickly(words: Sequence[str]) -> str | None:
    """What `pysup ps WORDS` shows; None: let the command do it, and say what is wrong."""
    wish = _understood(list(words))
    try:
        return None if wish is None else wish.text()
    except PysupError:
        return None


def _understood(words: list[str]) -> Wish | None:
    flags: dict[str, bool] = {}
    values: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word in FLAGS:
            flags[FLAGS[word]] = True
        elif word in VALUES and words:
            values[VALUES[word]] = words.pop(0)
        else:
            return None
    run = values.pop("run", None) or run_directory()
    return Wish(run, values.get("name"), template=values.get("template"), **flags)
