"""After whatever sequence of reloads, stops and scales, what the stack has counted is what there is."""

from dataclasses import replace
from typing import Any

import anyio
from fake import Script
from hypothesis import Phase as Phase_
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import HEALTHY, READY, entries
from theatre import READY_CHECK, Theatre, is_consistent, play

from supervisor.core.checks import Health, Tcp
from supervisor.core.policy import Dependency, RestartPolicy
from supervisor.core.states import Phase, Start, Stop
from supervisor.entry import Entry, OnFailure, Order, Update

ALWAYS = RestartPolicy.ALWAYS  # one that has failed for good would be a reason to pause, or to go back
PATIENT = settings(deadline=None, max_examples=40, phases=[Phase_.explicit, Phase_.generate])

CONDITIONS = st.sampled_from([Dependency(), READY, HEALTHY, Dependency(restart=True), Dependency(required=False)])


class File(list[Entry]):
    """In short, when it is told."""

    def __repr__(self) -> str:
        shown = (f"{each.id}({' '.join(each.depends_on)}) {each.config.argv[0]} {each.update.order}" for each in self)
        return f"[{', '.join(shown)}]"


@st.composite
def files(draw: st.DrawFn) -> File:
    """A stack of a few groups, each depending on some with a lesser letter, all of which serve sooner or later."""
    found: list[Entry] = []
    for name in sorted(draw(st.sets(st.sampled_from("abcde"), min_size=1))):
        below = sorted({each.group for each in found})
        update = Update(draw(st.sampled_from(Order)), draw(st.integers(0, 2)), draw(st.sampled_from(OnFailure)))
        group = entries(
            name,
            replicas=draw(st.integers(1, 3)),
            conditions=draw(st.dictionaries(st.sampled_from(below), CONDITIONS) if below else st.just({})),
            restart=draw(st.sampled_from(["no", "always"])),
            health=draw(st.just(Health(Tcp(80), start_interval_s=1.0))),
            ready=draw(st.sampled_from([None, READY_CHECK])),
        )
        argv = (draw(st.sampled_from("xy")),)
        found += [replace(each, config=replace(each.config, argv=argv), update=update) for each in group]
    return File(found)


SLOW = {name: Script(start_s=0.2, serves_s=0.5, stops_s=0.3) for name in "abcde"}
WISHES = st.lists(
    st.tuples(files(), st.sampled_from(["", "stop", "crash", "scale"]), st.randoms()), min_size=1, max_size=4
)


@PATIENT
@given(files(), WISHES)
def test_after_any_reloads_there_is_what_the_file_says_and_what_was_counted(
    first: File, wishes: list[tuple[File, str, Any]]
) -> None:
    async def act(theatre: Theatre) -> None:
        for file, then, some in wishes:
            await theatre.reload(file)
            await anyio.sleep(5)
            is_consistent(theatre.stack)
            service = some.choice(theatre.stack.services)
            if then == "stop" and len(service.entry.id) == 1:
                service.post(Stop())
            elif then == "crash" and service.current is not None and service.entry.policy.restart is ALWAYS:
                service.current.end()
            elif then == "scale":
                await theatre.reloader.scale({service.entry.group: some.randint(1, 3)}, "a test")
            await anyio.sleep(5)
            is_consistent(theatre.stack)
        if stopped := [each for each in theatre.stack.services if not each.state.wanted_up]:
            for each in stopped:  # who waits for it does not come up, and stays as it was
                each.post(Start())
            await theatre.reload()
            await anyio.sleep(30)
        answer = await theatre.reload()
        await anyio.sleep(30)
        assert not answer.changed, answer.text
        wanted = {each.group for each in theatre.file}
        assert {each.entry.group for each in theatre.stack.services} == wanted
        for service in theatre.stack.services:
            assert service.coming is None
            like = next(each for each in theatre.file if each.group == service.entry.group)
            assert service.entry.config.argv == like.config.argv
            assert service.entry.depends_on == like.depends_on
            assert service.state.policy == service.entry.policy == like.policy
            assert service.state.phase not in {Phase.CREATED, Phase.STARTING, Phase.ACTIVATING, Phase.STOPPING}

    play(first, act, SLOW)


@PATIENT
@given(files(), st.lists(files(), min_size=2, max_size=4), st.lists(st.floats(0, 3), min_size=4, max_size=4))
def test_reloads_that_overtake_each_other_come_to_the_same(
    first: File, wishes: list[File], pauses: list[float]
) -> None:
    async def act(theatre: Theatre) -> None:
        for file, pause_s in zip(wishes, pauses, strict=False):
            theatre.file = file
            theatre.reloader.hint(f"{pause_s}")
            await anyio.sleep(pause_s)
        await theatre.reload()
        await anyio.sleep(30)
        is_consistent(theatre.stack)
        assert not (await theatre.reloader.preview()).changed
        assert {each.entry.group for each in theatre.stack.services} == {each.group for each in wishes[-1]}

    play(first, act, SLOW)
