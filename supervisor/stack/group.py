"""The containers that one entry of the spec stands for, as others see them: what they have come to, and who waits."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from supervisor.core.policy import Condition, Dependency
from supervisor.core.states import (
    FINAL,
    Event,
    HealthStatus,
    Phase,
    State,
)
from supervisor.stack.service import Service

COMING_BACK = frozenset({Phase.WAITING, Phase.BACKOFF})  # from here a container starts anew


class Group:
    """The replicas of one entry, and what they depend on."""

    def __init__(self, name: str, depends_on: Mapping[str, Dependency]) -> None:
        self.name = name
        self.depends_on = depends_on
        self.held_by: set[str] = set()  # of these, the ones that nobody here starts without, and that may still come
        self.dependents: list[Group] = []
        self.needed_by = 0  # of these, how many are not final
        self.services: list[Service] = []
        self.phases: Counter[Phase] = Counter()
        self.met: Counter[Condition] = Counter()  # by how many members
        self.lost: dict[Condition, dict[Service, None]] = {each: {} for each in Condition}  # by whom, first first
        self.stopping = False
        self.is_coming = False  # it has no members yet: nothing is met by that

    def add(self, service: Service, standing: "Standing") -> None:
        self.services.append(service)
        self.count(service, standing)

    def count(self, service: Service, standing: "Standing") -> None:
        self.is_coming = False
        self.phases[standing.phase] += 1
        self.met.update(standing.met)
        for condition in standing.lost:
            self.lost[condition][service] = None

    def drop(self, service: Service, standing: "Standing") -> None:
        self.services.remove(service)
        self.phases[standing.phase] -= 1
        self.met.subtract(standing.met)
        for condition in standing.lost:
            del self.lost[condition][service]

    def moved(self, service: Service, before: "Standing", after: "Standing") -> bool:
        """A member changed. True where that changes what others may expect of the whole group."""
        expected = self._expected()
        self.phases[before.phase] -= 1
        self.phases[after.phase] += 1
        for condition in before.met - after.met:
            self.met[condition] -= 1
        for condition in after.met - before.met:
            self.met[condition] += 1
        for condition in before.lost - after.lost:
            del self.lost[condition][service]
        for condition in after.lost - before.lost:
            self.lost[condition][service] = None
        return self._expected() != expected

    def _expected(self) -> list[tuple[bool, bool]]:
        return [(self.meets(each), bool(self.lost[each])) for each in Condition] if self.dependents else []

    def meets(self, condition: Condition) -> bool:
        """Do all members meet a dependent's condition?"""
        return self.met[condition] == len(self.services) and not self.is_coming

    def hopeless(self, condition: Condition) -> str | None:
        """Why the condition can never be met, or None: the first member that stood in its way."""
        first = next(iter(self.lost[condition]), None)
        return None if first is None else why_lost(first)

    @property
    def is_final(self) -> bool:
        return sum(self.phases[phase] for phase in FINAL) == len(self.services)

    @property
    def is_awaited(self) -> bool:
        """Does anybody wait for its completion?"""
        return any(other.depends_on[self.name].condition is Condition.COMPLETED for other in self.dependents)

    def post(self, event: Event, among: frozenset[Phase] | None = None) -> None:
        """To every member, or to those in some phases."""
        for service in self.services:
            if among is None or service.state.phase in among:
                service.post(event)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a container is to others: the conditions it meets, and those that it will never meet unless someone starts
    it again.
    """

    phase: Phase
    met: frozenset[Condition]
    lost: frozenset[Condition]
    is_up: bool


def standing_of(state: State) -> Standing:
    """What a container in this state is to others: one object for all in like states."""
    key = state.phase, state.health, state.wanted_up
    if key not in _STANDINGS:
        _STANDINGS[key] = Standing(state.phase, frozenset(_met(state)), frozenset(_lost(state)), state.is_up)
    return _STANDINGS[key]


_STANDINGS: dict[tuple[Phase, HealthStatus | None, bool], Standing] = {}


def _met(state: State) -> Iterable[Condition]:
    if state.completed:
        return Condition.STARTED, Condition.COMPLETED
    if state.phase is Phase.ACTIVATING:
        return (Condition.STARTED,)
    if state.phase is not Phase.RUNNING:
        return ()
    healthy = (Condition.HEALTHY,) if state.health is HealthStatus.HEALTHY else ()
    return Condition.STARTED, Condition.READY, *healthy


def _lost(state: State) -> Iterable[Condition]:
    if state.phase in {Phase.FAILED, Phase.STUCK}:
        return Condition
    return (Condition.READY, Condition.HEALTHY) if state.completed else ()


def why_lost(service: Service) -> str:
    """In words, of one that has lost a condition."""
    name, state = service.entry.id, service.state
    if state.phase is Phase.STUCK:
        return f"{name} does not end, though it was killed"
    if state.phase is Phase.EXITED:
        return f"{name} has ended, and so will not be ready or healthy"
    return f"{name} failed" if state.chain is None else f"{name} was not started, as {state.chain}"
