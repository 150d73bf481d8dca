"""`docker update`: other limits and another restart policy for a container, which goes on running."""

from collections.abc import Mapping

from runtime.cgroup.limits import Limits
from supervisor.api import resources
from supervisor.api.call import Call
from supervisor.api.creation import check_rest, restart
from supervisor.api.errors import bad
from supervisor.api.fields import Fields
from supervisor.api.http import Answering, shown
from supervisor.core.policy import RestartPolicy, Restarts

_KNOWN = resources.KNOWN | {"RestartPolicy"}


async def update(call: Call) -> Answering:
    """What is not said stays. How long it holds: see reload/amendment.py."""
    view, body = call.container(), await call.request.data()
    check_rest("", body, _KNOWN)
    limits, restarts = translated(body, view.config.limits)
    if view.auto_remove and restarts is not None and restarts[0] is not RestartPolicy.NO:
        raise bad("Restart policy cannot be updated because AutoRemove is enabled for the container")
    await call.commands.update(view.id, None if limits == view.config.limits else limits, restarts)
    return shown({"Warnings": []})


def translated(body: Mapping[str, object], before: Limits) -> tuple[Limits, Restarts | None]:
    """The limits that there are to be, where there are these; and the restarts, if they are to change. RefusedError."""
    fields = Fields(body)
    policy = restart(fields.below("RestartPolicy"))
    name, _, retries = policy.partition(":")
    restarts = (RestartPolicy(name), int(retries) if retries else None) if policy else None
    return resources.updated(before, fields), restarts
