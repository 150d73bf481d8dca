"""Whether all of a stack is up, for whoever waits until it is: `pysup up --wait`.

A container is there when its checks say so; one that has none must go on for `update.monitor_s`, as after a reload. A
one-shot is there when it has completed: one that others wait for to complete, as Compose has it, or that says itself
that it ends (`retries` or `timeout_s`, and no check). So it does not matter who is quicker, a job that fails or a
server that starts.

It is lost when one has failed for good, does not end, or is unhealthy and nothing is done about that. What an operator
has stopped nobody waits for; and of a stack that stops nothing is said.
"""

import math
from collections.abc import Callable

import anyio

from supervisor.core.checks import OnUnhealthy
from supervisor.core.policy import Condition
from supervisor.core.states import HealthStatus, Phase
from supervisor.stack.service import Service
from supervisor.stack.tree import Stack


class Arrival:
    """Calls `tell` once, with whether all are there."""

    def __init__(self, stack: Stack, tell: Callable[[bool], None]) -> None:
        self._stack = stack
        self._tell = tell
        self._missing = set(stack.services)
        self._steady_at: dict[Service, float] = {}  # of those who are up: when they will have been for long enough
        self._one_shots = {
            name
            for service in stack.services
            for name, need in service.entry.depends_on.items()
            if need.condition is Condition.COMPLETED
        }
        self._lost = False
        self._woken = anyio.Event()
        stack.listeners.append(self._changed)

    async def run(self) -> None:
        """Until it is clear."""
        while (steady_at := self._steady()) > anyio.current_time():
            self._woken = anyio.Event()
            with anyio.CancelScope(deadline=steady_at):
                await self._woken.wait()
        self._stack.listeners.remove(self._changed)
        self._tell(not self._lost)

    def _steady(self) -> float:
        """When all will be there, if nothing changes until then."""
        if self._stack.is_stopping:
            return math.inf
        if self._lost:
            return -math.inf
        return math.inf if self._missing else max(self._steady_at.values(), default=-math.inf)

    def _changed(self, service: Service) -> None:
        if service not in self._missing and service not in self._steady_at:
            return  # it was made later
        self._lost = self._lost or _is_lost(service)
        if not self._is_there(service):
            self._missing.add(service)
            self._steady_at.pop(service, None)
        else:
            steady_at = anyio.current_time() + self._monitor_s(service)
            self._steady_at[service] = min(steady_at, self._steady_at.get(service, steady_at))
            self._missing.discard(service)
        if self._lost or not self._missing:
            self._woken.set()

    def _is_there(self, service: Service) -> bool:
        state = service.state
        if state.completed or (service.is_final and not state.wanted_up):
            return True
        return state.is_up and not (state.policy.one_shot or service.entry.group in self._one_shots)

    @staticmethod
    def _monitor_s(service: Service) -> float:
        policy, state = service.entry.policy, service.state
        shows = policy.ready is not None or policy.health is not None
        return 0 if shows or service.is_final or state.completed else service.entry.update.monitor_s


def _is_lost(service: Service) -> bool:
    state = service.state
    if state.health is HealthStatus.UNHEALTHY and state.policy.health is not None:
        return state.policy.health.on_unhealthy is OnUnhealthy.IGNORE
    return state.phase in {Phase.FAILED, Phase.STUCK}
