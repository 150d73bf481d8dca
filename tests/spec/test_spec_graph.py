"""What holds between containers: ids, dependencies, order, replicas."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.spec import Spec, SpecError, order
from supervisor.spec.graph import cycles

FaultsOf = Callable[[str | bytes], list[str]]
LoadText = Callable[[str | bytes], Spec]
PATIENT = settings(deadline=None)  # a busy machine is no fault


def stack(*entries: str) -> str:
    return "containers:\n" + "".join(f"  - {{image: base, cmd: run, id: {entry}}}\n" for entry in entries)


@pytest.mark.parametrize(
    ("entries", "faults"),
    [
        (["web", "db", "web"], ['4:33: containers[2].id: is "web" again, expected an id of its own; first at 2:33']),
        (
            ["web.1", "web, replicas: 3"],
            ['2:33: containers[0].id: is what replica 1 of "web" is called, expected another id; first at 3:33'],
        ),
        (
            ["web", "web.7"],  # `--scale web=7` may come any time
            ['3:33: containers[1].id: is what replica 7 of "web" is called, expected another id; first at 2:33'],
        ),
        (["web", "web.a", "web.01", "web.0", "web-1", "api.1"], []),
    ],
)
def test_an_id_names_one_container(faults_of: FaultsOf, entries: list[str], faults: list[str]) -> None:
    assert faults_of(stack(*entries)) == [f"stack.yaml:{fault}" for fault in faults]


@pytest.mark.parametrize(
    ("entries", "faults"),
    [
        (
            ["web, depends_on: [dbb]", "db"],
            ['2:51: containers[0].depends_on[0]: is "dbb", expected the id of a container; did you mean "db"?'],
        ),
        (
            ["web, depends_on: {dbb: {condition: started}}", "db"],
            ['2:51: containers[0].depends_on.dbb: is "dbb", expected the id of a container; did you mean "db"?'],
        ),
        (
            ["web, replicas: 2", "b, depends_on: [web.1]"],
            ['3:49: containers[1].depends_on[0]: is "web.1", expected the id of a container; did you mean "web"?'],
        ),
        (
            ["a, depends_on: [a]"],
            ["2:49: containers[0].depends_on[0]: is the container itself, a -> a, expected no cycle"],
        ),
        (
            ["a, depends_on: [b]", "b, depends_on: [a]"],
            ["3:49: containers[1].depends_on[0]: closes a cycle, a -> b -> a, expected no cycle"],
        ),
        (
            ["x, depends_on: [a]", "a, depends_on: [b]", "b, depends_on: [c]", "c, depends_on: [d, a]", "d"],
            ["5:52: containers[3].depends_on[1]: closes a cycle, a -> b -> c -> a, expected no cycle"],
        ),
        (
            ["a, depends_on: [b]", "b, depends_on: [a]", "c, depends_on: [d]", "d, depends_on: [c]"],
            [
                "3:49: containers[1].depends_on[0]: closes a cycle, a -> b -> a, expected no cycle",
                "5:49: containers[3].depends_on[0]: closes a cycle, c -> d -> c, expected no cycle",
            ],
        ),
    ],
)
def test_dependencies_exist_and_end(faults_of: FaultsOf, entries: list[str], faults: list[str]) -> None:
    assert faults_of(stack(*entries)) == [f"stack.yaml:{fault}" for fault in faults]


def test_a_long_cycle_is_found_and_shown_in_part(faults_of: FaultsOf) -> None:
    entries = [f"c{number}, depends_on: [c{(number + 1) % 3000}]" for number in range(3000)]
    [fault] = faults_of(stack(*entries))
    assert fault == (
        "stack.yaml:3001:53: containers[2999].depends_on[0]: closes a cycle, "
        "c0 -> c1 -> c2 -> c3 -> c4 -> … -> c2995 -> c2996 -> c2997 -> c2998 -> c2999 -> c0, expected no cycle"
    )


def test_faults_between_containers_are_told_beside_those_within(faults_of: FaultsOf) -> None:
    faults = faults_of(stack("a, restart: x, depends_on: [b]", "b, restart: y, depends_on: [a]"))
    assert [fault.split(": ")[1] for fault in faults] == [
        "containers[0].restart",
        "containers[1].restart",
        "containers[1].depends_on[0]",
    ]


GRAPHS = st.integers(0, 8).flatmap(
    lambda size: st.fixed_dictionaries(
        {str(node): st.lists(st.sampled_from([str(n) for n in range(size)]), unique=True) for node in range(size)}
    )
)


@PATIENT
@given(GRAPHS)
def test_a_cycle_is_found_where_there_is_one_and_it_is_one(needs: dict[str, list[str]]) -> None:
    found = list(cycles(needs))
    for cycle in found:
        for here, there in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert there in needs[here]
    closing = {(cycle[-1], cycle[0]) for cycle in found}
    left = {node: [need for need in needs[node] if (node, need) not in closing] for node in needs}
    assert not list(cycles(left)), "without the dependencies that close a cycle there is none"
    assert all(_ends(left, node) for node in left)


def _ends(needs: dict[str, list[str]], node: str, seen: tuple[str, ...] = ()) -> bool:
    return node not in seen and all(_ends(needs, need, (*seen, node)) for need in needs[node])


def test_the_order_has_each_container_after_those_it_needs(load_text: LoadText) -> None:
    spec = load_text(stack("web, depends_on: [db, cache]", "db, depends_on: [disk]", "cache", "disk", "lone"))
    assert [[container.id for container in level] for level in order(spec)] == [
        ["cache", "disk", "lone"],
        ["db"],
        ["web"],
    ]


def test_instances_are_named_after_the_container_and_its_replicas(load_text: LoadText) -> None:
    spec = load_text(stack("web, replicas: 3", "db", "none, replicas: 0"))
    instances = [(instance.id, instance.replica, instance.container.id) for instance in spec.instances()]
    assert instances == [("web.1", 1, "web"), ("web.2", 2, "web"), ("web.3", 3, "web"), ("db", 1, "db")]


def test_scaling_makes_another_spec(load_text: LoadText) -> None:
    spec = load_text(stack("web, replicas: 3", "db"))
    scaled = spec.scaled({"web": 0, "db": 2})
    assert [instance.id for instance in scaled.instances()] == ["db.1", "db.2"]
    assert [instance.id for instance in spec.instances()] == ["web.1", "web.2", "web.3", "db"]
    assert scaled.source == spec.source


def test_scaling_what_is_not_there_or_too_far_is_refused(load_text: LoadText) -> None:
    spec = load_text(stack("web, replicas: 3", "db"))
    with pytest.raises(SpecError) as caught:
        spec.scaled({"wbe": 2, "web": -1, "db": 10_001})
    assert [str(fault).rpartition("/")[2] for fault in caught.value.faults] == [
        'stack.yaml:2:3: containers: have no "wbe" to scale, expected one of their ids; did you mean "web"?',
        "stack.yaml:2:48: containers[0].replicas: is -1, expected a whole number from 0 to 10000",
        "stack.yaml:3:5: containers[1].replicas: is 10001, expected a whole number from 0 to 10000",
    ]
    assert caught.value.exit_status == 125


def test_all_replicas_together_have_a_limit(faults_of: FaultsOf, load_text: LoadText) -> None:
    fault = "containers: come to 100001 with all replicas, expected at most 100000"
    entries = [f"c{number}, replicas: 10000" for number in range(10)]
    assert faults_of(stack(*entries, "last")) == [f"stack.yaml:2:3: {fault}"]
    with pytest.raises(SpecError, match=fault):
        load_text(stack(*entries, "last, replicas: 0")).scaled({"last": 1})


def test_a_long_chain_is_put_in_order(load_text: LoadText) -> None:
    spec = load_text(stack("c0", *(f"c{number}, depends_on: [c{number - 1}]" for number in range(1, 3000))))
    assert [container.id for (container,) in order(spec)] == [f"c{number}" for number in range(3000)]
