"""A stack on a stage: entries made from a few words, a fake runner, cues at given times, and what was seen."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
import trio._core._run as trio_run
import trio.testing
from fake import Call, FakeRunner, Script, What

from runtime.config import ContainerConfig
from runtime.users import User
from supervisor.core.checks import Health, Tcp
from supervisor.core.policy import Backoff, Condition, Dependency, Policy, RestartPolicy
from supervisor.core.states import Event, Pause, Unpause
from supervisor.entry import Entry, Update
from supervisor.stack.tree import Stack, Summary

NOBODY = User(0, 0, (0,), "root", "/root")
STARTED, COMPLETED = Dependency(Condition.STARTED), Dependency(Condition.COMPLETED)
READY, HEALTHY = Dependency(Condition.READY), Dependency(Condition.HEALTHY)
LOOKED_AT = Health(Tcp(80), interval_s=1.0, retries=1, start_period_s=0.0, start_interval_s=0.5)
HANGS_S = 10_000.0  # in virtual time

Scripts = Mapping[str, Script | Sequence[Script]]
Cue = tuple[float | str, str]  # when, or after which event: a method of the stack; or a word and to whom it is said
WORDS: Mapping[str, Callable[[], Event]] = {"pause": Pause, "unpause": Unpause}


def entries(
    name: str, *after: str, replicas: int = 1, conditions: Mapping[str, Dependency] | None = None, **policy: Any
) -> list[Entry]:
    """The entries of one container, or of its replicas. `policy` is a Policy's fields and a Backoff's."""
    depends_on = {**dict.fromkeys(after, STARTED), **(conditions or {})}
    waits = sorted({each.timeout_s for each in depends_on.values() if each.timeout_s is not None})
    ids = [name] if replicas == 1 else [f"{name}.{number}" for number in range(1, replicas + 1)]
    return [Entry(each, name, _config(each), _policy(**policy, waits_s=tuple(waits)), depends_on) for each in ids]


def one(
    name: str,
    *after: str,
    argv: str = "x",
    config: Mapping[str, Any] | None = None,
    update: Update | None = None,
    **policy: Any,
) -> Entry:
    """One container, with parts of its configuration."""
    (entry,) = entries(name, *after, **policy)
    changed = {"argv": (argv,), **(config or {})}
    return replace(entry, config=replace(entry.config, **changed), update=update or Update())


def _policy(restart: str = "no", **fields: Any) -> Policy:
    backoff = {key: fields.pop(key) for key in list(fields) if key in Backoff.__dataclass_fields__}
    return Policy(RestartPolicy(restart), backoff=Backoff(**{"jitter": 0, **backoff}), **fields)


def _config(name: str) -> ContainerConfig:
    return ContainerConfig(id=name, lowers=("/i",), directory=f"/r/{name}", argv=("x",), user=NOBODY, hostname=name)


@dataclass(frozen=True)
class Told:
    """An event that a user would see."""

    at_s: float
    event: str
    container: str | None
    fields: Mapping[str, object]


@dataclass(frozen=True)
class Asked:
    """What a cue asked of the stack."""

    at_s: float
    what: str
    container: str | None = None


@dataclass(frozen=True)
class Play:
    """What was seen of a stack, from its first start to its end."""

    stack: Stack
    runner: FakeRunner
    told: list[Told]
    summary: Summary
    ended_s: float

    @property
    def calls(self) -> list[Call]:
        return self.runner.calls

    @property
    def history(self) -> list[object]:
        """Calls of the runner, what was told and what was asked for, in the order in which it happened."""
        return self.runner.history

    def containers(self, what: What) -> list[str]:
        """To whom this happened, in order."""
        return [call.container for call in self.calls if call.what == what]

    def times(self, container: str, what: What, number: int = 0) -> list[float]:
        """When it happened to a container."""
        return [call.at_s for call in self.calls if call[1:] == (container, what, number)]

    def signals(self, container: str) -> list[int]:
        return [call.number for call in self.calls if call.container == container and call.what == "signal"]

    def events(self, container: str | None) -> list[str]:
        """The names of what was told of a container, or of the stack."""
        return [each.event for each in self.told if each.container == container]

    def fields(self, container: str | None, event: str) -> Mapping[str, object]:
        """Of the first such event."""
        return next(each.fields for each in self.told if (each.container, each.event) == (container, event))

    @property
    def failed(self) -> dict[str, str]:
        return dict(self.summary.failed)


async def play(
    all_entries: Iterable[Entry],
    scripts: Scripts | None = None,
    cues: Sequence[Cue] = (),
    *,
    starts_max: int = 64,
    chance: Callable[[], float] = lambda: 0.5,
    abort_on_exit: bool = False,
    hangs_s: float = math.inf,
) -> Play:
    """Run a stack to its end; TimeoutError if that has not come after `hangs_s`."""
    told: list[Told] = []
    async with FakeRunner(scripts) as runner, anyio.create_task_group() as tasks:

        def emit(event: str, container: str | None, fields: Mapping[str, object]) -> None:
            told.append(Told(runner.now_s, event, container, fields))
            runner.history.append(told[-1])
            for after, what in cues:
                if after == event:
                    tasks.start_soon(perform, 0, what)

        async def perform(at_s: float, what: str) -> None:
            await anyio.sleep(at_s)
            word, _, container = what.partition(" ")
            runner.history.append(Asked(runner.now_s, word, container or None))
            if container:
                stack.service(container).post(WORDS[word]())
            else:
                getattr(stack, word)()

        stack = Stack(all_entries, runner, emit, starts_max=starts_max, chance=chance, abort_on_exit=abort_on_exit)
        for at_s, what in cues:
            if not isinstance(at_s, str):
                tasks.start_soon(perform, at_s, what)
        if hangs_s < math.inf:
            tasks.start_soon(_let_go, runner, hangs_s)
        with anyio.fail_after(hangs_s):
            summary = await stack.run()
        ended_s = runner.now_s
        tasks.cancel_scope.cancel()
    return Play(stack, runner, told, summary, ended_s)


async def _let_go(runner: FakeRunner, after_s: float) -> None:
    await anyio.sleep(after_s)
    runner.let_go()


def virtual_clock() -> trio.testing.MockClock:
    """Time that passes only when nobody can do anything else."""
    return trio.testing.MockClock(autojump_threshold=0)


def on_virtual_clock(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an async function where an hour is nothing, and every time is exact."""
    call = partial(function, *args, **kwargs)
    return anyio.run(call, backend="trio", backend_options={"clock": virtual_clock()})


def on_stage(
    all_entries: Iterable[Entry],
    scripts: Scripts | None = None,
    cues: Sequence[Cue] = (),
    **manner: Any,
) -> Play:
    """Play it in virtual time."""
    seen: Play = on_virtual_clock(partial(play, hangs_s=HANGS_S, **manner), all_entries, scripts, cues)
    return seen


def in_order(seed: int) -> None:
    """Have trio choose among tasks as the seed says, and not at random: a run can be repeated then."""
    vars(trio_run)["_ALLOW_DETERMINISTIC_SCHEDULING"] = True  # as Hypothesis has it; trio has no public name for it
    trio_run._r.seed(seed)
