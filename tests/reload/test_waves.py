"""Steps lead from one stack to another, whatever the two are."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stage import HEALTHY, STARTED, entries, one

from supervisor.core.policy import RestartPolicy
from supervisor.entry import Entry, Order, Update
from supervisor.reload.changes import Changes
from supervisor.reload.difference import compared
from supervisor.reload.report import render
from supervisor.reload.waves import Adapt, Add, Remove, Rename, Replace, Rewire, Step, waves

PATIENT = settings(deadline=None)  # a busy machine is no fault
PORTS: tuple[dict[str, str], ...] = ({"PORT": "80"}, {"PORT": "81"}, {})


def ids(found: Iterable[Entry]) -> list[str]:
    return [entry.id for entry in found]


def test_removals_come_first_dependents_before_what_they_need() -> None:
    old = [one("db"), one("web", "db"), one("stays")]
    steps = waves(compared(old, [one("stays"), one("new")]))
    rewired, *rest = steps
    assert rewired == (Rewire({"stays": {}, "new": {}}),)
    assert rest == [(Remove("web"),), (Remove("db"),), (Add(one("new")),)]


def test_changed_ones_are_replaced_dependencies_first_and_no_more_than_so_many_at_a_time() -> None:
    old = [*entries("web", "db", replicas=5), one("db")]
    two = Update(parallel=2)
    new = [replace(entry, config=replace(entry.config, argv=("y",)), update=two) for entry in old]
    steps = waves(compared(old, new))
    names = [[step.new.id for step in wave if isinstance(step, Replace)] for wave in steps]
    assert names == [["db"], ["web.1", "web.2"], ["web.3", "web.4"], ["web.5"]]


def test_a_container_that_becomes_anothers_replica_is_removed_and_added() -> None:
    old, new = one("web.1"), entries("web", replicas=2)
    steps = waves(compared([old], new))
    assert steps[1:] == ((Remove("web.1"),), tuple(map(Add, new)))


def test_start_first_runs_the_new_one_beside_the_old_one_under_a_name_of_its_own() -> None:
    after = replace(one("web", config={"argv": ("y",)}), update=Update(Order.START_FIRST))
    ((step,),) = waves(compared([one("web")], [after]), generation=3)
    assert isinstance(step, Replace)
    assert step.beside is not None
    assert (step.beside.id, step.beside.config.directory) == ("web+3", "/r/web+3")
    assert step.beside.config == replace(after.config, directory="/r/web+3")


def by_name(name: str, group: str, **config: Any) -> Entry:
    """A container that has its name in its environment, as all have."""
    entry = one(name, config={"env": (("HOSTNAME", name),), **config})
    return replace(entry, group=group)


def test_one_of_one_becomes_the_first_of_several_and_goes_on_running() -> None:
    one_alone, several = by_name("web", "web"), [by_name(f"web.{number}", "web") for number in (1, 2, 3)]
    changes = compared([one_alone], several)
    assert [(each.old.id, each.new.id) for each in changes.renamed] == [("web", "web.1")]
    assert waves(changes) == ((Rename("web", several[0]),), (Add(several[1]), Add(several[2])))
    assert render(changes).startswith("+ web.2, web.3: new\n> web.1: renamed, goes on running (name: web -> web.1)\n")
    back = compared(several, [one_alone])
    assert waves(back) == ((Rename("web.1", one_alone),), (Remove("web.2"), Remove("web.3")))


def test_one_whose_name_is_in_its_command_is_started_anew_under_another() -> None:
    alone = by_name("web", "web", argv=("serve", "web"))
    several = [by_name(f"web.{number}", "web", argv=("serve", f"web.{number}")) for number in (1, 2)]
    changes = compared([alone], several)
    assert changes.renamed == ()
    assert waves(changes) == ((Remove("web"),), (Add(several[0], "web"), Add(several[1])))


def in_place(entries: Iterable[Entry], steps: Iterable[Step]) -> tuple[Entry, ...]:
    """What there is after some steps."""
    there = {entry.id: entry for entry in entries}
    for step in steps:
        match step:
            case Rewire(depends_on):
                there = {
                    name: replace(entry, depends_on=depends_on.get(entry.group, {})) for name, entry in there.items()
                }
            case Remove(name):
                del there[name]
            case Rename(name, new):
                there = {(new.id if each == name else each): entry for each, entry in there.items()} | {new.id: new}
            case Adapt(new) | Add(new) | Replace(new):
                there[new.id] = new
    return tuple(there.values())


@st.composite
def stacks(draw: st.DrawFn) -> list[Entry]:
    """A stack of a few groups, in any order, each depending on some with a lesser letter."""
    found: list[list[Entry]] = []
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True)):
        below = draw(st.lists(st.sampled_from([each for each in "abcde" if each < name] or ["absent"]), unique=True))
        group = entries(
            name,
            *below,
            replicas=draw(st.integers(0, 4)),
            restart=draw(st.sampled_from(RestartPolicy)),
            conditions=draw(st.dictionaries(st.sampled_from(below or ["absent"]), st.sampled_from([STARTED, HEALTHY]))),
        )
        env = tuple(draw(st.sampled_from(PORTS)).items())
        update = Update(draw(st.sampled_from(Order)), draw(st.integers(0, 3)))
        hosts = draw(st.sampled_from([b"1", b"2"]))
        found.append(
            [replace(each, config=replace(each.config, env=env, resolv_conf=hosts), update=update) for each in group]
        )
    return [entry for group in found for entry in group]


def by_id(found: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.id: entry for entry in found}


def steps_of(changes: Changes) -> list[Step]:
    return [step for wave in waves(changes) for step in wave]


@PATIENT
@given(stacks(), stacks())
def test_the_steps_lead_from_one_stack_to_the_other(old: list[Entry], new: list[Entry]) -> None:
    assert by_id(in_place(old, steps_of(compared(old, new)))) == by_id(new)


@PATIENT
@given(stacks(), stacks(), st.data())
def test_from_wherever_it_stopped_the_way_back_leads_to_what_was(
    old: list[Entry], new: list[Entry], data: st.DataObject
) -> None:
    steps = steps_of(compared(old, new))
    reached = in_place(old, steps[: data.draw(st.integers(0, len(steps)))])
    assert by_id(in_place(reached, steps_of(compared(reached, old)))) == by_id(old)


@PATIENT
@given(stacks(), stacks())
def test_dependencies_are_there_before_their_dependents_are_touched(old: list[Entry], new: list[Entry]) -> None:
    needs = {entry.group: set(entry.depends_on) for entry in new}
    parallel = {entry.group: entry.update.parallel for entry in new}
    launched = []
    for wave in waves(compared(old, new)):
        for group, count in Counter(step.new.group for step in wave if isinstance(step, Replace)).items():
            assert count <= (parallel[group] or count)
        launched.append({step.new.group for step in wave if isinstance(step, Add | Replace)})
    for number, groups in enumerate(launched):
        now_or_later = set().union(*launched[number:])
        assert not any(needs[group] & now_or_later for group in groups)


@PATIENT
@given(stacks(), stacks())
def test_every_container_is_said_to_be_one_thing(old: list[Entry], new: list[Entry]) -> None:
    changes = compared(old, new)
    changed = (change.new for change in (*changes.replaced, *changes.adapted, *changes.renamed))
    assert sorted(ids([*changes.added, *changed, *changes.unchanged])) == sorted(ids(new))
    assert set(ids(changes.removed)) <= set(ids(old))
