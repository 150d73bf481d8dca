"""Events as Docker tells them: `docker events`. What only pysup knows of is under /pysup/events."""

from collections.abc import Mapping
from contextlib import aclosing

import anyio

from supervisor.api.call import Call, now
from supervisor.api.errors import bad
from supervisor.api.http import Answering, Reply, Stream, encoded
from supervisor.api.queries import Filters, has_labels
from supervisor.api.ring import Entry, Subject
from supervisor.api.shapes import Shape
from supervisor.commands import Happening

FILTERS = frozenset(
    "config container daemon event image label network node plugin scope secret service type volume".split()
)
ACTIONS: Mapping[str, str] = {  # ours: Docker's
    "created": "create",
    "started": "start",
    "exited": "die",
    "stopping": "kill",
    "killing": "kill",
    "signalled": "kill",
    "stopped": "stop",
    "restarting": "restart",
    "healthy": "health_status: healthy",
    "unhealthy": "health_status: unhealthy",
    "out_of_memory": "oom",
    "paused": "pause",
    "frozen": "pause",
    "unpaused": "unpause",
    "renamed": "rename",
    "updated": "update",
    "removed": "destroy",
    "exec_create": "exec_create",
    "exec_start": "exec_start",
    "exec_die": "exec_die",
}
_SIGKILL = 9


async def events(call: Call) -> Answering:
    """Those since a time, as far as they are known, and those to come until another."""
    query, at = call.query, now()
    filters = query.filters(FILTERS)
    since, until = query.moment("since", at), query.moment("until", at)
    if since is not None and until is not None and since > until:
        raise bad(f"`since` time ({since:.0f}) cannot be after `until` time ({until:.0f})")
    place = call.api.ring.place(past=since is not None)

    def asked_for(entry: Entry) -> list[Shape]:
        if entry.happening.at < (since or 0) or (until is not None and entry.happening.at > until):
            return []
        return [shape for shape in shapes(entry) if passes(shape, filters)]

    async def write(reply: Reply) -> None:
        await reply.begin()
        limit_s = None if until is None else max(0.0, until - now())
        follow = until is None or until > at
        with anyio.move_on_after(limit_s):
            async with aclosing(call.api.ring.read(place, follow=follow)) as entries:
                async for entry in entries:
                    for shape in asked_for(entry):
                        await reply.send(encoded(shape))

    return Stream(write)


def shapes(entry: Entry) -> list[Shape]:
    """An event is one of Docker's, or none."""
    happening, subject = entry.happening, entry.subject
    action = ACTIONS.get(happening.event)
    if action is None or subject is None:
        return []
    if action.startswith("exec_") and action != "exec_die":
        action = f"{action}: {happening.fields['command']}"
    return [_shape(happening, subject, action)]


def _shape(happening: Happening, subject: Subject, action: str) -> Shape:
    attributes = {**subject.labels, "image": subject.image, "name": happening.container, **_details(happening)}
    return {
        "status": action,
        "id": subject.key,
        "from": subject.image,
        "Type": "container",
        "Action": action,
        "Actor": {"ID": subject.key, "Attributes": attributes},
        "scope": "local",
        "time": int(happening.at),
        "timeNano": int(happening.at * 1e9),
    }


def _details(happening: Happening) -> Mapping[str, str]:
    """What Docker tells beyond the container; all of it as text."""
    fields = happening.fields
    match happening.event:
        case "exited":
            return {"exitCode": str(fields.get("exit_status", 0)), "execDuration": str(int(_number(fields, "ran_s")))}
        case "exec_die":
            return {"exitCode": str(fields.get("exit_status", 0)), "execID": str(fields["exec_id"])}
        case "exec_create" | "exec_start":
            return {"execID": str(fields["exec_id"])}
        case "stopping" | "signalled":
            return {"signal": str(fields.get("signal", ""))}
        case "killing":
            return {"signal": str(_SIGKILL)}
        case "renamed":
            return {"oldName": str(fields.get("from", ""))}
    return {}


def _number(fields: Mapping[str, object], name: str) -> float:
    value = fields.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def passes(shape: Shape, filters: Filters) -> bool:
    """Whether it is asked for."""
    attributes = shape["Actor"]["Attributes"]
    known = {"type": "container", "image": attributes["image"], "scope": "local"}
    for name, wanted in filters.items():
        if name == "container":
            fits = any(_is(attributes["name"], shape["id"], each) for each in wanted)
        elif name == "event":
            fits = any(shape["Action"] == each or shape["Action"].startswith(f"{each}:") for each in wanted)
        elif name == "label":
            fits = has_labels(attributes, wanted)
        else:
            fits = known.get(name) in wanted
        if not fits:
            return False
    return True


def _is(name: str, key: str, wanted: str) -> bool:
    return wanted.removeprefix("/") == name or (bool(wanted) and key.startswith(wanted))
