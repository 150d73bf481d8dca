"""The difference of two stacks in words, and steps that lead from one to the other, whatever the two are."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import HEALTHY, STARTED, entries

from runtime.cgroup.limits import Limits
from runtime.config import Attachment, Network, Port
from runtime.mounts import DATA, READ_ONLY, Bind, Device, Dns, MemoryFile, Tmpfs
from supervisor.core.checks import Health, Log, Ready, Tcp
from supervisor.core.policy import RestartPolicy
from supervisor.entry import Compiled, Entry, Order, OutputForm, StackNetwork, Update
from supervisor.errors import StackError
from supervisor.reload.difference import (
    Adapt,
    Add,
    Change,
    Changes,
    Field,
    Remove,
    Rename,
    Replace,
    Rewire,
    Step,
    as_data,
    compared,
    difference,
    in_place,
    plan,
    render,
)

PATIENT = settings(deadline=None)  # a busy machine is no fault
PORTS: tuple[dict[str, str], ...] = ({"PORT": "80"}, {"PORT": "81"}, {})


def one(name: str, *after: str, config: Mapping[str, Any] | None = None, **policy: Any) -> Entry:
    (entry,) = entries(name, *after, **policy)
    return replace(entry, config=replace(entry.config, **(config or {})))


def words(change: Change) -> list[str]:
    return list(map(str, change.fields))


def only(changes: Iterable[Change]) -> Change:
    (change,) = changes
    return change


def ids(found: Iterable[Entry]) -> list[str]:
    return [entry.id for entry in found]


# --- the difference ---------------------------------------------------------------------------------------------------


def test_equal_stacks_do_not_differ() -> None:
    stack = Compiled("shop", tuple(entries("web", replicas=3)))
    changes = difference(stack, stack)
    assert changes.is_empty
    assert ids(changes.unchanged) == ["web.1", "web.2", "web.3"]
    assert plan(changes) == ()
    assert render(changes) == "3 unchanged\n"


def test_a_stack_of_another_name_is_another_stack() -> None:
    with pytest.raises(StackError, match="the stack is called b now, and a runs"):
        difference(Compiled("a", ()), Compiled("b", ()))


def test_more_replicas_are_added_and_the_others_left_alone() -> None:
    changes = compared(entries("web", replicas=2), entries("web", replicas=4))
    assert (ids(changes.added), ids(changes.unchanged)) == (["web.3", "web.4"], ["web.1", "web.2"])


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"argv": ("a", "b c")}, {"argv": ("a",)}, ["cmd: a 'b c' -> a"]),
        ({"env": (("PORT", "80"), ("A", "1"))}, {"env": (("PORT", "81"),)}, ["env.PORT: 80 -> 81", "env.A: 1 -> none"]),
        ({"lowers": ("/images/a",)}, {"lowers": ("/images/b",)}, ["image: /images/a -> /images/b"]),
        ({"memory_bytes": None}, {"memory_bytes": 4096}, ["storage_size: none -> 4096"]),
        ({"capabilities": 1}, {"capabilities": 3}, ["capabilities: CAP_CHOWN -> CAP_CHOWN CAP_DAC_OVERRIDE"]),
        ({"rlimits": ((7, 5, 9),)}, {"rlimits": ((7, 6, 9),)}, ["ulimits.nofile: 5:9 -> 6:9"]),
        (
            {"mounts": (Bind(source="/a", target="/x"),)},
            {"mounts": (Bind(source="/b", target="/x", attributes=DATA | READ_ONLY), Tmpfs(target="/t", uid=1))},
            [
                "volumes./x: /a, nosuid, nodev, private -> /b, ro, nosuid, nodev, private",
                "volumes./t: none -> tmpfs, any size, mode 1777, of 1:0, nosuid, nodev, noexec",
            ],
        ),
        ({"hosts": ()}, {"hosts": (("a", "::1"),)}, ["extra_hosts.a: none -> ::1"]),
        ({"sysctls": (("a", "1"),)}, {"sysctls": (("a", "2"),)}, ["sysctls.a: 1 -> 2"]),
        ({}, {"devices": (Device("/dev/a", "/dev/b"),)}, ["devices: none -> /dev/a:/dev/b"]),
        ({}, {"dns": Dns(("::1",))}, ["dns.servers: none -> ::1"]),
        ({}, {"read_only": True}, ["read_only: false -> true"]),
        ({"keep": False, "directory": "/a"}, {"keep": True, "directory": "/b"}, ["keep: false -> true"]),
    ],
)
def test_what_a_run_is_made_of_needs_a_new_run(
    before: Mapping[str, Any], after: Mapping[str, Any], told: list[str]
) -> None:
    changes = compared([one("web", config=before)], [one("web", config=after)])
    assert words(only(changes.replaced)) == told


def test_where_a_container_is_is_told_as_the_spec_has_it() -> None:
    here = {
        "network": Network.BRIDGE,
        "attachments": (Attachment("default", ("db",)),),
        "ports": (Port(80, host=8080), Port(53, "udp", 53, "::1")),
    }
    before, after = one("a"), one("a", config=here)
    assert words(only(compared([before], [after]).replaced)) == [
        "network: host -> bridge",
        "networks.default: none -> aliases db",
        "ports: none -> 8080:80/tcp, [::1]:53:53/udp",
    ]
    shared = one("a", config={"network": Network.CONTAINER, "shares": "b"})
    assert words(only(compared([before], [shared]).replaced)) == ["network: host -> container:b"]


def test_networks_of_the_stack_are_told_first() -> None:
    first = Compiled("s", (one("a"),), networks=(StackNetwork("x"), StackNetwork("y")))
    then = Compiled("s", (one("a"),), networks=(StackNetwork("x", ipv6=True), StackNetwork("z", internal=True)))
    assert render(difference(first, then)) == (
        "~ network x: made anew (ipv6: none -> true)\n"
        "+ network z: new (internal: true)\n"
        "- network y: removed\n"
        "1 unchanged\n"
    )


def test_a_changed_secret_is_told_of_without_what_it_holds() -> None:
    before, after = (
        one("web", config={"mounts": (MemoryFile(target="/run/secrets/k", contents=contents),)})
        for contents in (b"hush", b"hush!")
    )
    (line,) = words(only(compared([before], [after]).replaced))
    assert line.startswith("volumes./run/secrets/k: hidden (")
    assert "hush" not in line
    assert compared([before], [before]).is_empty


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"restart": "always"}, ["restart: no -> always"]),
        ({"max_retries": 3}, ["restart.max_retries: none -> 3"]),
        ({"initial_s": 2.5}, ["backoff.initial_s: 0.1 -> 2.5"]),
        ({"stop_grace_s": 60.0}, ["stop_grace_s: 10 -> 60"]),
        ({"ready": Ready(Tcp(80))}, ["ready.tcp.port: none -> 80", "ready.timeout_s: none -> 60"]),
        ({"success_codes": frozenset({3, 0})}, ["success_codes: 0 -> 0, 3"]),
    ],
)
def test_how_it_is_supervised_is_swapped_while_it_runs(policy: Mapping[str, Any], told: list[str]) -> None:
    changes = compared([one("web")], [one("web", **policy)])
    assert words(only(changes.adapted)) == told
    assert changes.replaced == ()


def test_a_health_check_by_output_is_listened_for_from_the_start_of_a_run() -> None:
    by_log = one("web", health=Health(Log("ok")))
    assert compared([one("web")], [by_log]).replaced != ()
    assert compared([by_log], [one("web", health=Health(Log("ok"), retries=9))]).replaced == ()
    assert compared([by_log], [one("web")]).replaced == ()


def test_dependencies_and_the_form_of_output_need_no_restart() -> None:
    changed = replace(one("web", conditions={"db": HEALTHY}), output=OutputForm("w"))
    change = only(compared([one("web", "db")], [changed]).adapted)
    assert words(change) == ["depends_on.db: started -> healthy", "output.prefix: none -> w"]


def test_limits_are_changed_while_it_runs() -> None:
    before = one("web", config={"limits": Limits(memory_bytes=1 << 20, pids=5)})
    after = one("web", config={"limits": Limits(cpus=1.5, pids=5, oom_kill_group=True)})
    changes = compared([before], [after])
    assert not changes.replaced
    assert words(only(changes.adapted)) == [
        "limits.memory: 1048576 -> none",
        "limits.cpus: none -> 1.5",
        "oom: none -> kill-group",
    ]


def test_what_only_the_host_has_changed_is_no_difference_but_the_next_run_has_it() -> None:
    before = one("web", config={"resolv_conf": b"nameserver 1.1.1.1"})
    after = one("web", config={"resolv_conf": b"nameserver 8.8.8.8"})
    changes = compared([before], [after])
    assert changes.is_empty
    assert plan(changes) == ((Adapt(after),),)
    assert render(changes) == "1 unchanged\n"


# --- steps ------------------------------------------------------------------------------------------------------------


def test_removals_come_first_dependents_before_what_they_need() -> None:
    old = [one("db"), one("web", "db"), one("stays")]
    waves = plan(compared(old, [one("stays"), one("new")]))
    rewired, *rest = waves
    assert rewired == (Rewire({"stays": {}, "new": {}}),)
    assert rest == [(Remove("web"),), (Remove("db"),), (Add(one("new")),)]


def test_changed_ones_are_replaced_dependencies_first_and_no_more_than_so_many_at_a_time() -> None:
    old = [*entries("web", "db", replicas=5), one("db")]
    two = Update(parallel=2)
    new = [replace(entry, config=replace(entry.config, argv=("y",)), update=two) for entry in old]
    waves = plan(compared(old, new))
    names = [[step.new.id for step in wave if isinstance(step, Replace)] for wave in waves]
    assert names == [["db"], ["web.1", "web.2"], ["web.3", "web.4"], ["web.5"]]


def test_a_container_that_becomes_anothers_replica_is_removed_and_added() -> None:
    old, new = one("web.1"), entries("web", replicas=2)
    waves = plan(compared([old], new))
    assert waves[1:] == ((Remove("web.1"),), tuple(map(Add, new)))


def test_start_first_runs_the_new_one_beside_the_old_one_under_a_name_of_its_own() -> None:
    after = replace(one("web", config={"argv": ("y",)}), update=Update(Order.START_FIRST))
    ((step,),) = plan(compared([one("web")], [after]), generation=3)
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
    assert plan(changes) == ((Rename("web", several[0]),), (Add(several[1]), Add(several[2])))
    assert render(changes).startswith("+ web.2, web.3: new\n> web.1: renamed, goes on running (name: web -> web.1)\n")
    back = compared(several, [one_alone])
    assert plan(back) == ((Rename("web.1", one_alone),), (Remove("web.2"), Remove("web.3")))


def test_one_whose_name_is_in_its_command_is_started_anew_under_another() -> None:
    alone = by_name("web", "web", argv=("serve", "web"))
    several = [by_name(f"web.{number}", "web", argv=("serve", f"web.{number}")) for number in (1, 2)]
    changes = compared([alone], several)
    assert changes.renamed == ()
    assert plan(changes) == ((Remove("web"),), (Add(several[0], "web"), Add(several[1])))


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
    return [step for wave in plan(changes) for step in wave]


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
    for wave in plan(compared(old, new)):
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


# --- in words ---------------------------------------------------------------------------------------------------------


def test_people_read_what_happens_to_whom_and_why() -> None:
    old = [one("db"), one("old"), one("web")]
    new = [one("db", restart="always"), one("new"), one("web", config={"argv": ("y", "z")})]
    assert render(compared(old, new)) == (
        "+ new: new\n"
        "- old: removed\n"
        "~ web: replaced (cmd: x -> y z)\n"
        "= db: goes on running (restart: no -> always)\n"
        "1 new, 1 removed, 1 replaced, 1 changed without a restart\n"
    )


def test_replicas_of_which_the_same_is_to_be_said_share_a_line() -> None:
    old = entries("web", replicas=2000)
    new = [replace(entry, config=replace(entry.config, argv=("y",))) for entry in old]
    assert render(compared(old, new)) == (
        "~ web.1, web.2 … web.2000 (2000 containers): replaced (cmd: x -> y)\n2000 replaced\n"
    )


def test_values_of_a_file_do_not_reach_the_terminal_as_orders() -> None:
    text = render(compared([one("web")], [one("web", config={"argv": ("\x1b[31m\n" + "y" * 500,)})]))
    assert "\x1b" not in text
    assert text.count("\n") == 2
    assert len(text) < 200


def test_programs_get_whole_values() -> None:
    old, new = [one("web"), one("old")], [one("web", config={"argv": ("y" * 500,)}), one("new")]
    assert json.loads(json.dumps(as_data(compared(old, new)))) == {
        "logs": [],
        "added": ["new"],
        "removed": ["old"],
        "renamed": [],
        "replaced": [{"id": "web", "fields": [{"name": "cmd", "before": "x", "after": "y" * 500}]}],
        "adapted": [],
        "unchanged": 0,
        "networks": [],
    }


def test_two_long_texts_are_shown_where_they_differ() -> None:
    script = "x" * 500
    before, after = str(Field("cmd", f"{script}1", f"{script}2")).split(" -> ")
    assert (before[-1], after[-1]) == ("1", "2")
    assert len(before) < 100
