"""`defaults:` lie under each container; their faults are told once, at their own place. Images are checked along."""

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.spec import Backoff, Fault, Restart, RestartPolicy, Spec, SpecError, load

FaultsOf = Callable[[str | bytes], list[str]]
LoadText = Callable[[str | bytes], Spec]


def test_a_container_has_what_the_defaults_say_unless_it_says_otherwise(load_text: LoadText) -> None:
    spec = load_text("""
        defaults: {image: base, cmd: [run], restart: always, umask: 077, workdir: /srv, cap_add: [CHOWN]}
        containers:
          - {id: a}
          - {id: b, image: other, restart: no, workdir: null, cap_add: [KILL]}
    """)
    a, b = spec.containers
    assert (a.image, a.cmd, a.restart.policy, a.umask, a.workdir, a.cap_add) == (
        "base",
        ("run",),
        RestartPolicy.ALWAYS,
        0o077,
        "/srv",
        ("CAP_CHOWN",),
    )
    assert (b.image, b.cmd, b.restart, b.umask, b.workdir, b.cap_add) == (
        "other",
        ("run",),
        Restart(),
        0o077,
        None,
        ("CAP_KILL",),
    )


@pytest.mark.parametrize("env", ["{B: 3, C: 4}", "[B=3, C=4]"])
@pytest.mark.parametrize("default", ["{A: 1, B: 2}", "[A=1, B=2]"])
def test_environments_are_joined_name_by_name(load_text: LoadText, default: str, env: str) -> None:
    spec = load_text(
        f"defaults: {{image: base, cmd: run, env: {default}}}\ncontainers: [{{id: a, env: {env}}}, {{id: b}}]"
    )
    assert [container.env for container in spec.containers] == [{"A": "1", "B": "3", "C": "4"}, {"A": "1", "B": "2"}]


def test_backoffs_and_limits_are_joined_too(load_text: LoadText) -> None:
    [container] = load_text("""
        defaults: {image: base, cmd: run, backoff: {initial_s: 1, max_s: 60}, ulimits: {core: 0, nofile: 10}}
        containers: [{id: a, backoff: {max_s: 5}, ulimits: {nofile: 20}}]
    """).containers
    assert container.backoff == Backoff(initial_s=1, max_s=5)
    assert container.ulimits == {"core": (0, 0), "nofile": (20, 20)}


def test_a_default_size_is_for_those_in_memory(load_text: LoadText) -> None:
    spec = load_text("""
        defaults: {image: base, cmd: run, storage_size: 1g}
        containers: [{id: a}, {id: b, storage: memory}, {id: c, storage: memory, storage_size: 2g}]
    """)
    assert [container.storage_size for container in spec.containers] == [None, 1 << 30, 2 << 30]


@pytest.mark.parametrize(
    ("defaults", "faults"),
    [
        ("{restart: allways}", ['1:21: defaults.restart: is "allways"']),
        ("{restrat: no}", ['1:12: defaults.restrat: unknown key; did you mean "restart"?']),
        ("{env: {A: null}}", ["1:21: defaults.env.A: is empty"]),
        ("{env: [A]}", ['1:18: defaults.env[0]: is "A"']),
        ("{backoff: {jitter: 2}}", ['1:30: defaults.backoff.jitter: is "2"']),
        ("{id: x}", ["1:12: defaults.id: can't be a default, expected it in each container"]),
        ("{replicas: 2, depends_on: []}", ["1:12: defaults.replicas: can't", "1:25: defaults.depends_on: can't"]),
        ("[restart]", ["1:11: defaults: is a list, expected a mapping of container's keys to values"]),
        ("", ["1:10: defaults: is empty, expected a mapping of container's keys to values"]),
    ],
)
@pytest.mark.parametrize("own", ["", ", restart: no, env: {B: 1}, backoff: {factor: 3}"])
def test_a_fault_in_the_defaults_is_told_once_whoever_inherits_it(
    faults_of: FaultsOf, defaults: str, faults: list[str], own: str
) -> None:
    containers = "".join(f"  - {{id: c{number}, image: base, cmd: run{own}}}\n" for number in range(3))
    found = faults_of(f"defaults: {defaults}\ncontainers:\n{containers}")
    assert len(found) == len(faults)
    for line, fault in zip(found, faults, strict=True):
        assert line.startswith(f"stack.yaml:{fault}")


def test_what_only_the_two_together_make_wrong_is_told_too(faults_of: FaultsOf) -> None:
    text = "defaults: {backoff: {max_s: 5}}\ncontainers: [{id: a, image: base, cmd: run, backoff: {initial_s: 6}}]"
    assert faults_of(text) == ["stack.yaml:1:29: defaults.backoff.max_s: is 5, expected at least initial_s, which is 6"]


def test_images_are_checked_along_with_everything_else(stack_file: Path) -> None:
    stack_file.write_text(
        "defaults: {image: nodef, cmd: run}\n"
        "containers:\n"
        "  - {id: a, image: base}\n"
        "  - {id: b, image: bse, keep: 1}\n"
        "  - {id: c, image: bse}\n"
        "  - {id: d}\n"
        "  - {id: e}\n"
        "  - {id: f, image: [x]}\n",
        encoding="ascii",
    )
    asked = []

    def check(image: str) -> str | None:
        asked.append(image)
        return None if image == "base" else f"image {image} is nowhere"

    with pytest.raises(SpecError) as caught:
        load(stack_file, check)
    assert [str(fault).rpartition("/")[2] for fault in caught.value.faults] == [
        "stack.yaml:1:19: defaults.image: image nodef is nowhere",
        "stack.yaml:4:20: containers[1].image: image bse is nowhere",
        'stack.yaml:4:31: containers[1].keep: is "1", expected true or false',
        "stack.yaml:5:20: containers[2].image: image bse is nowhere",
        "stack.yaml:8:20: containers[5].image: is a list, expected the name of an image",
    ]
    assert asked == ["base", "bse", "nodef"]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("containers[1].image", (3, 19, "containers[1].image")),
        ("containers[1].user", (1, 18, "defaults.user")),
        ('containers[0].env["a.b"]', (2, 56, 'containers[0].env["a.b"]')),
        ("containers[1].hostname", (3, 4, "containers[1].hostname")),
        ("containers", (2, 13, "containers")),
    ],
)
def test_a_fault_found_later_has_its_place_too(load_text: LoadText, path: str, place: tuple[int, int, str]) -> None:
    spec = load_text(
        "defaults: {user: app}\n"
        "containers: [{id: a, image: base, cmd: run, env: {a.b: 1}},\n"
        "   {id: b, image: base, cmd: run}]\n"
    )
    fault = spec.fault(path, "is not there")
    line, column, shown = place
    assert fault == Fault(str(spec.source), line, column, shown, "is not there")
