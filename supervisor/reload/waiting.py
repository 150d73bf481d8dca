"""Whether a container that a reload has started comes up, and how long that is waited for.

It is up when its checks say so; one that has none must go on for `update.monitor_s`. It has failed when its run ends by
itself before that, is not ready in time, or not healthy. What waits for one that is stopped is not waited for. Another
reload, or the end of the stack, ends the waiting.
"""

import math

import anyio

from runtime.status import describe
from supervisor.core.states import Ending, HealthStatus, Phase
from supervisor.stack.service import Service
from supervisor.stack.tree import Stack


class Waiting:
    """What a reload waits for in a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._watched: dict[Service, anyio.Event] = {}
        self._hoping: set[Service] = set()  # of these, those that are to come up
        self._hurry = False
        stack.listeners.append(self._changed)

    def may_go_on(self) -> bool:
        """Does nothing else wait for the reload to be over?"""
        return not (self._hurry or self._stack.is_stopping)

    def hurry(self) -> None:
        """Another reload is asked for: nothing is waited for any more."""
        self._hurry = True
        self._wake_all()

    def take_time(self) -> None:
        """That one is under way, and no other is asked for."""
        self._hurry = False

    async def comes_up(self, service: Service) -> str | None:
        """Wait until a container that is started is up: None, also if it is not waited for. Else why it is not."""
        policy, before = service.entry.policy, service.state.retries
        shows = policy.ready is not None or policy.health is not None
        steady_at = math.inf
        while True:
            if (why := _failure(service, before)) is not None:
                return why
            state = service.state
            if state.is_up and (shows or state.completed):
                return None
            if state.is_up and steady_at == math.inf:
                steady_at = anyio.current_time() + service.entry.update.monitor_s
            elif not state.is_up:
                steady_at = math.inf
            if anyio.current_time() >= steady_at or not self._is_worth_waiting(service):
                return None
            self._hoping.add(service)
            await self.change_of(service, steady_at)

    def _is_worth_waiting(self, service: Service) -> bool:
        stopped = service.is_final and not service.state.wanted_up
        return self.may_go_on() and not stopped and self._stack.waits_in_vain(service) is None

    async def change_of(self, service: Service, until: float = math.inf) -> None:
        """Wait until something happens to it, or somebody is in a hurry."""
        changed = self._watched[service] = anyio.Event()
        try:
            with anyio.CancelScope(deadline=until):
                await changed.wait()
        finally:
            self._hoping.discard(service)
            del self._watched[service]

    def _changed(self, service: Service) -> None:
        if (event := self._watched.get(service)) is not None:
            event.set()
        if service.is_final and not service.state.wanted_up:
            self._wake_all()  # somebody may wait for it in vain

    def _wake_all(self) -> None:
        """All who wait for something to come up."""
        for service in self._hoping:
            self._watched[service].set()


def _failure(service: Service, retries: int) -> str | None:
    """Why a container that was started anew, after so many retries of what it was, has failed; if it has."""
    state = service.state
    if state.phase in {Phase.FAILED, Phase.STUCK}:
        return state.failure
    if state.health is HealthStatus.UNHEALTHY:
        return f"unhealthy: {state.finding}" if state.finding else "unhealthy"
    if state.phase in {Phase.STOPPING, Phase.KILLING}:
        return state.reason if state.ending in {Ending.JUDGED, Ending.RETRIED, Ending.GIVEN_UP} else None
    if state.retries > retries:
        return state.told or (describe(state.status) if state.status is not None else "it has ended")
    return None
