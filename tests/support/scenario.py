"""A stack and its history as plain data: drawn by a seed, played, made smaller while it still fails, shown as code."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from random import Random
from typing import Any

from fake import NEVER, Script
from ledger import Ledger
from stage import Play, entries, in_order, on_virtual_clock, play

from runtime.errors import LaunchError
from runtime.status import Exited, Signaled
from supervisor.core.checks import Exec, Health, Log, Notice, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.policy import Condition, Dependency, RestartOn
from supervisor.entry import Entry

ENDS_S = 30.0  # when every stack is stopped that has not ended by itself
HANGS_S = 1000.0  # by then it would have ended
SHRINKS_MAX = 2000


@dataclass(frozen=True)
class Part:
    """A container of a scenario: how it is configured, and how its runs go."""

    name: str
    depends_on: Mapping[str, Dependency] = field(default_factory=dict)
    scripts: tuple[Script, ...] = (Script(start_s=0.2),)
    policy: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 1

    def entries(self) -> list[Entry]:
        return entries(self.name, conditions=self.depends_on, replicas=self.replicas, **self.policy)


@dataclass(frozen=True)
class Scenario:
    """A stack, and what is asked of it when. One that has not ended after `ENDS_S` is stopped."""

    parts: tuple[Part, ...]
    cues: tuple[tuple[float, str], ...] = ()
    starts_max: int = 64
    abort_on_exit: bool = False
    order: int = 0  # which of the tasks that could go on does so first

    async def play(self) -> Play:
        return await play(
            [entry for part in self.parts for entry in part.entries()],
            {part.name: part.scripts for part in self.parts},
            [*self.cues, (ENDS_S, "stop")],
            starts_max=self.starts_max,
            abort_on_exit=self.abort_on_exit,
            hangs_s=HANGS_S,
        )

    def audit(self, seen: Play) -> None:
        """Have all promises been kept?"""
        scripts = {part.name: part.scripts for part in self.parts}
        all_entries = [entry for part in self.parts for entry in part.entries()]
        Ledger(all_entries, scripts, self.starts_max, abort=self.abort_on_exit).read(seen)

    async def hold(self) -> None:
        self.audit(await self.play())


def hold(scenario: Scenario) -> None:
    """Play it, and see that all promises are kept: every time the same way."""
    in_order(scenario.order)
    on_virtual_clock(scenario.hold)


# --- drawn ------------------------------------------------------------------------------------------------------------

MOMENTS_S = (0.0, 0.01, 0.5, 1.0, 1.5, 3.0, 8.0, 20.0)
CONDITIONS = (Condition.STARTED, Condition.STARTED, Condition.READY, Condition.HEALTHY, Condition.COMPLETED)


def draw(seed: int) -> Scenario:
    """Any stack, any behaviour, stopped or killed at any moment."""
    some = Random(seed)
    names = [f"c{number}" for number in range(some.choice((1, 2, 2, 3, 3, 4, 5, 6)))]
    parts = list[Part]()
    for name in names:
        parts.append(_part(some, name, parts))
    some.shuffle(parts)
    cues = []
    if some.random() < 0.8:
        cues.append((_moment(some), "stop"))
        if some.random() < 0.5:
            cues.append((cues[0][0] + _moment(some), "kill"))
    limits = some.choice((1, 2, 64)), some.random() < 0.1
    for part in parts:
        cues += _pauses(some, part) if some.random() < 0.2 else []
    return Scenario(tuple(parts), tuple(cues), *limits, seed)


def _pauses(some: Random, part: Part) -> list[tuple[float, str]]:
    """One of its containers is frozen, and most often goes on before it is stopped."""
    if not part.replicas:
        return []
    each = some.choice(part.entries()).id
    cues = [(_moment(some), f"pause {each}")]
    for word in ("unpause", "pause", "unpause"):
        if some.random() < 0.8:
            cues.append((cues[-1][0] + _moment(some), f"{word} {each}"))
    return cues


def _moment(some: Random) -> float:
    return some.choice(MOMENTS_S) if some.random() < 0.5 else round(some.uniform(0, 15), 2)


def _part(some: Random, name: str, earlier: Sequence[Part]) -> Part:
    policy = _policy(some)
    needs = some.sample(earlier, some.randint(0, min(3, len(earlier))))
    return Part(
        name,
        {need.name: _dependency(some, need) for need in needs},
        tuple(_script(some) for _ in range(some.randint(1, 4))),
        policy,
        some.choice((1, 1, 1, 0, 2, 3)),
    )


def _dependency(some: Random, on: Part) -> Dependency:
    condition = some.choice(CONDITIONS)
    if condition is Condition.HEALTHY and "health" not in on.policy:
        condition = Condition.READY
    return Dependency(
        condition,
        restart=some.random() < 0.4,
        required=some.random() < 0.7,
        timeout_s=some.choice((None, None, 0.5, 1.3, 3.0, 20.0)),
    )


def _policy(some: Random) -> dict[str, Any]:
    policy: dict[str, Any] = {
        "restart": some.choice(("no", "on-failure", "always", "always")),
        "max_retries": some.choice((None, None, 0, 2)),
        "initial_s": some.choice((0.0, 0.1, 1.0)),
        "max_s": some.choice((1.0, 10.0)),
        "reset_after_s": some.choice((1.0, 10.0)),
        "stop_grace_s": some.choice((0.0, 1.0, 5.0)),
    }
    if policy["restart"] != "on-failure":
        del policy["max_retries"]
    if some.random() < 0.4:
        ready_s = some.choice((0.1, 0.9, 4.0, 60.0))
        policy["ready"] = Ready(some.choice((Tcp(80), Log("up"), Notify(), Exec(("true",)))), timeout_s=ready_s)
    if some.random() < 0.4:
        policy["health"] = _health(some)
    if some.random() < 0.2:
        policy["timeout_s"] = some.choice((0.4, 2.0, 7.0))
    if some.random() < 0.2:
        policy["stop_cmd"] = ("quit",)
    if some.random() < 0.3:
        policy |= {"max_restarts": some.choice((1, 2, 5)), "window_s": some.choice((3.0, 60.0))}
    if some.random() < 0.15:
        policy["restart_on"] = RestartOn(frozenset({1}), frozenset({9, 15}))
    if some.random() < 0.15:
        policy["success_codes"] = frozenset({0, 3})
    return policy


def _health(some: Random) -> Health:
    watched = some.random() < 0.3
    return Health(
        Notify() if watched else some.choice((Tcp(80), Log("up"), Exec(("true",)))),
        interval_s=some.choice((0.7, 3.0)),
        timeout_s=some.choice((0.5, 2.0)),
        retries=some.choice((1, 2, 3)),
        start_period_s=some.choice((0.0, 1.0, 5.0)),
        start_interval_s=some.choice((0.3, 1.0)),
        on_unhealthy=some.choice((OnUnhealthy.RESTART, OnUnhealthy.RESTART, OnUnhealthy.STOP, OnUnhealthy.IGNORE)),
        watchdog_s=some.choice((0.9, 2.3)) if watched else None,
    )


def _script(some: Random) -> Script:
    """Time passes in every run, for a container that restarts at once would never let it."""
    status = some.choice((Exited(0), Exited(0), Exited(1), Exited(3), Signaled(11)))
    if some.random() < 0.1:
        return Script(start_s=0.2, early=True, status=status)
    if some.random() < 0.1:
        return Script(start_s=some.choice((0.2, 2.0)), error=LaunchError("mount overlay: no such device"))
    return Script(
        start_s=some.choice((0.2, 0.5, 2.0)),
        runs_s=some.choice((0.0, 0.3, 5.0, 15.0, NEVER, NEVER, NEVER)),
        status=status,
        stops_s=some.choice((0.0, 0.0, 0.5, 4.0, None)),
        stopped=some.choice((None, Exited(0), Exited(1))),
        dies_s=some.choice((0.0, 0.0, 0.0, 0.5, 12.0, NEVER)) if some.random() < 0.5 else 0.0,
        buried_s=some.choice((0.0, 0.0, 0.7)),
        serves_s=some.choice((0.0, 0.0, 0.25, 3.0, NEVER)),
        sick_s=some.choice((NEVER, NEVER, 1.7, 6.0)),
        well_s=some.choice((NEVER, 9.0)),
        alive_s=some.choice((0.0, 0.6, 0.6)),
        says=tuple(_saying(some) for _ in range(some.choice((0, 0, 0, 1, 2)))),
        check_s=some.choice((0.0, 0.0, 0.1, 3.0)),
        command_s=some.choice((0.0, 0.5, 7.0)),
    )


def _saying(some: Random) -> tuple[float, Notice]:
    what = some.choice(
        (Notice(extend_s=2.0), Notice(status="busy"), Notice(alive=False), Notice(extend_s=0.5, status="slow"))
    )
    return round(
        some.uniform(0.01, 12), 2
    ) + 0.003, what  # never as it says that it is alive: one of both would be late


# --- made smaller -----------------------------------------------------------------------------------------------------


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """The smallest that still fails, as far as one change at a time leads."""
    tries, smaller = 0, True
    while smaller:
        smaller = False
        for candidate in _simpler(scenario):
            tries += 1
            if tries > SHRINKS_MAX:
                return scenario
            if fails(candidate):
                scenario, smaller = candidate, True
                break
    return scenario


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """All that are one step simpler, the biggest steps first."""
    for part in scenario.parts:
        others = tuple(_without(each, part.name) for each in scenario.parts if each is not part)
        names = {None, *(entry.id for each in others for entry in each.entries())}
        cues = tuple(cue for cue in scenario.cues if (cue[1].partition(" ")[2] or None) in names)
        yield replace(scenario, parts=others, cues=cues)
    for index in range(len(scenario.cues)):
        yield replace(scenario, cues=scenario.cues[:index] + scenario.cues[index + 1 :])
    for index, part in enumerate(scenario.parts):
        for simpler in _simpler_part(part):
            yield replace(scenario, parts=(*scenario.parts[:index], simpler, *scenario.parts[index + 1 :]))
    if scenario.starts_max != 64:
        yield replace(scenario, starts_max=64)
    if scenario.abort_on_exit:
        yield replace(scenario, abort_on_exit=False)
    for index, (at_s, what) in enumerate(scenario.cues):
        for simpler_s in {0.0, float(int(at_s))} - {at_s}:
            yield replace(scenario, cues=(*scenario.cues[:index], (simpler_s, what), *scenario.cues[index + 1 :]))


def _without(part: Part, name: str) -> Part:
    return replace(part, depends_on={need: how for need, how in part.depends_on.items() if need != name})


def _simpler_part(part: Part) -> Iterator[Part]:
    if part.replicas != 1:
        yield replace(part, replicas=1)
    for name, dependency in part.depends_on.items():
        yield _without(part, name)
        for simpler in _simpler_fields(dependency):
            yield replace(part, depends_on={**part.depends_on, name: simpler})
    for key, value in part.policy.items():
        yield replace(part, policy={each: kept for each, kept in part.policy.items() if each != key})
        if is_dataclass(value):
            for simpler in _simpler_fields(value):
                yield replace(part, policy={**part.policy, key: simpler})
    for index, script in enumerate(part.scripts):
        before, after = part.scripts[:index], part.scripts[index + 1 :]
        if before or after:
            yield replace(part, scripts=before + after)
        for simpler in _simpler_fields(script, but=("start_s",)):
            yield replace(part, scripts=(*before, simpler, *after))


def _simpler_fields(value: Any, but: Iterable[str] = ()) -> Iterator[Any]:
    """The same object with one field as it is by default."""
    for each in _told_fields(value):
        if each.name not in but and (default := _default(each)) is not MISSING:
            yield replace(value, **{each.name: default})


# --- shown ------------------------------------------------------------------------------------------------------------


def _default(each: Any) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


def _told_fields(value: Any) -> Iterator[Any]:
    """The fields that are not as by default."""
    return (each for each in fields(value) if getattr(value, each.name) != _default(each))


def code(value: object, indent: str = "    ") -> str:
    """An expression that makes it, within a function; a scenario's parts have a line each."""
    if is_dataclass(value) and not isinstance(value, type):
        args = [f"{each.name}={code(getattr(value, each.name))}" for each in _told_fields(value)]
        if isinstance(value, Scenario):
            args[0] = "parts=(\n" + "".join(f"{indent * 3}{code(part)},\n" for part in value.parts) + f"{indent * 2})"
            return "Scenario(\n" + "".join(f"{indent * 2}{arg},\n" for arg in args) + f"{indent})"
        return f"{type(value).__name__}({', '.join(args)})"
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{code(key)}: {code(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + "".join(f"{code(each)}, " for each in value).rstrip() + ")"
    if isinstance(value, LaunchError):
        return f"LaunchError({value.detail!r})"
    return "NEVER" if value == NEVER else repr(value)
