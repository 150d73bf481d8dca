"""A container's machine driven through events: what it was told, when, and what it asked for."""

from dataclasses import dataclass, field
from signal import SIGKILL, SIGQUIT, SIGTERM
from typing import Any

from runtime.status import Exited, Signaled, Status
from supervisor.core.machine import step
from supervisor.core.policy import Backoff, Policy, RestartPolicy
from supervisor.core.states import (
    DependenciesMet,
    Due,
    Ended,
    Event,
    Phase,
    Report,
    Start,
    Started,
    State,
)

BACKOFF = Backoff(initial_s=1.0, max_s=5.0, factor=2.0, jitter=0.0, reset_after_s=10.0)
AT_ONCE = Backoff(initial_s=0.0, reset_after_s=10.0)
RESTARTING = [RestartPolicy.ON_FAILURE, RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED]
CRASH = Exited(1)
FAILURES = [CRASH, Exited(255), Signaled(SIGKILL), Signaled(SIGTERM)]


def policy(
    restart: RestartPolicy = RestartPolicy.NO, max_retries: int | None = None, backoff: Backoff = BACKOFF, **more: Any
) -> Policy:
    return Policy(
        restart, max_retries=max_retries, backoff=backoff, **{"stop_signal": SIGQUIT, "stop_grace_s": 3.0, **more}
    )


@dataclass
class Life:
    """A machine, its clock, and what it asked for: `did` at the last event, `told` in all."""

    state: State
    now: float = 0.0
    did: list[object] = field(default_factory=list)
    told: list[Report] = field(default_factory=list)

    def on(self, *events: Event) -> "Life":
        for event in events:
            self.state, actions = step(self.state, event, self.now)
            self.did = [action for action in actions if not isinstance(action, Report)]
            self.told += [action for action in actions if isinstance(action, Report)]
        return self

    def after(self, seconds: float, *events: Event) -> "Life":
        self.now += seconds
        return self.on(*events)

    def when_due(self) -> "Life":
        assert self.state.due_at is not None
        return self.after(self.state.due_at - self.now, Due())

    def again(self) -> "Life":
        """Until it is launched once more."""
        if self.phase is Phase.BACKOFF:
            self.when_due()
        return self.on(DependenciesMet())

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def kinds(self) -> list[str]:
        return [report.kind for report in self.told]

    def fields(self, kind: str) -> list[dict[str, object]]:
        return [report.fields for report in self.told if report.kind == kind]


def created(policy: Policy) -> Life:
    return Life(State(policy))


def starting(policy: Policy) -> Life:
    return created(policy).on(Start(), DependenciesMet())


def running(policy: Policy) -> Life:
    return starting(policy).on(Started(42))


def crashed(policy: Policy, status: Status = CRASH) -> Life:
    return running(policy).after(0.5, Ended(status))
