"""Several files: laid over one another, included, extended; and who takes part."""

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.checks import Exec, Health, Tcp
from supervisor.core.policy import Condition, Dependency
from supervisor.spec import Spec, SpecError, load, resolved

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Files by name, `__` for a slash; the path of the first."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path / f"{next(iter(files))}.yaml"

    return write


def faults(folder: Path, *paths: Path, **more: object) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(paths, **more)  # type: ignore[arg-type]  # options of `load`, as a test names them
    return [line.replace(f"{folder}/", "") for line in str(caught.value).splitlines()]


def merged(write: Write, base: str, over: str) -> Spec:
    path = write(
        base=f"containers: [{{id: a, image: base, cmd: [run, x], {base}}}]", over=f"containers: [{{id: a, {over}}}]"
    )
    return load([path, path.with_name("over.yaml")])


# --- one over another -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "over", "key", "value"),
    [
        ("umask: 0", "cmd: [y]", "cmd", ("y",)),
        ("umask: 0", "umask: 7", "umask", 7),
        ("env: {A: 1, B: 2}", "env: {B: 3, C: 4}", "env", {"A": "1", "B": "3", "C": "4"}),
        ("env: [A=1, B=2]", "env: {B: 3}", "env", {"A": "1", "B": "3"}),
        ("env: {A: 1, B: 2}", "env: [B=3]", "env", {"A": "1", "B": "3"}),
        ("env: {A: 1, B: 2}", "env: {A: !reset null}", "env", {"B": "2"}),
        ("env: {A: 1}", "env: !override {B: 2}", "env", {"B": "2"}),
        ("env: {A: 1}", "env: !reset {}", "env", {}),
        ("hostname: h", "hostname: !reset null", "hostname", None),
        ("cap_add: [CHOWN]", "cap_add: [KILL, CHOWN]", "cap_add", ("CAP_CHOWN", "CAP_KILL")),
        ("cap_add: [CHOWN]", "cap_add: !override [KILL]", "cap_add", ("CAP_KILL",)),
        ("success_codes: [0, 1]", "success_codes: [2]", "success_codes", frozenset({2})),
        ("ulimits: {core: 0}", "ulimits: {nofile: 9}", "ulimits", {"core": (0, 0), "nofile": (9, 9)}),
        ("stop_cmd: [a]", "stop_cmd: [b, c]", "stop_cmd", ("b", "c")),
        (
            "health: {exec: [a], interval_s: 1, retries: 2}",
            "health: {tcp: 80, retries: 5}",
            "health",
            Health(Tcp(80), interval_s=1, retries=5),
        ),
        (
            "health: {exec: [a], interval_s: 1}",
            "health: {interval_s: 2}",
            "health",
            Health(Exec(("a",)), interval_s=2),
        ),
        ("health: {exec: [a]}", "health: none", "health", None),
    ],
)
def test_a_file_is_laid_over_the_one_before_it(write: Write, base: str, over: str, key: str, value: object) -> None:
    [container] = merged(write, base, over).containers
    assert getattr(container, key) == value
    assert container.image == "base"


def test_dependencies_are_joined_by_id_and_new_containers_come_last(write: Write) -> None:
    path = write(
        a="name: one\ncontainers: [{id: a, image: base, cmd: x, depends_on: [b, c]}, {id: b, image: base, cmd: x}]",
        b="name: two\ncontainers: [{id: c, image: base, cmd: x}, {id: a, depends_on: {b: {restart: true}}}]",
    )
    spec = load([path, path.with_name("b.yaml")])
    assert (spec.name, [container.id for container in spec.containers]) == ("two", ["a", "b", "c"])
    assert spec.containers[0].depends_on == {"b": Dependency(Condition.STARTED, restart=True), "c": Dependency()}


def test_defaults_are_joined_too_and_hold_for_all(write: Write) -> None:
    path = write(
        a="defaults: {image: base, env: {A: 1}}\ncontainers: [{id: a, cmd: x}]",
        b="defaults: {env: {B: 2}, umask: 077}\ncontainers: [{id: b, cmd: x}]",
    )
    spec = load([path, path.with_name("b.yaml")])
    assert [(one.env, one.umask) for one in spec.containers] == [({"A": "1", "B": "2"}, 0o077)] * 2


def test_a_fault_is_told_where_it_was_written(write: Write, tmp_path: Path) -> None:
    path = write(
        a="defaults: {image: base, cmd: x}\ncontainers:\n  - {id: a, keep: 1, env: {A: null}}\n  - {id: b}",
        b="defaults: {umask: 9}\ncontainers:\n"
        "  - {id: c, keep: 2}\n  - {id: b, keep: 3, zzz: 1}\n  - {id: a, env: {B: null}}",
    )
    found = faults(tmp_path, path, path.with_name("b.yaml"))
    assert [line.partition(": ")[0] + " " + line.split(": ")[1] for line in found] == [
        "a.yaml:3:19 containers[0].keep",
        "a.yaml:3:31 containers[0].env.A",
        "b.yaml:1:19 defaults.umask",
        "b.yaml:3:19 containers[0].keep",
        "b.yaml:4:19 containers[1].keep",
        "b.yaml:4:22 containers[1].zzz",
        "b.yaml:5:22 containers[2].env.B",
    ]


def test_paths_are_relative_to_the_first_file(write: Write, tmp_path: Path) -> None:
    path = write(
        main="containers: [{id: a, image: base, cmd: x}]",
        sub__over="containers: [{id: a, env_file: vars}]\ninclude: [more.yaml]",
        more="containers: [{id: b, image: base, cmd: x}]",
    )
    (tmp_path / "vars").write_text("A=1")
    spec = load([path, tmp_path / "sub/over.yaml"])
    assert [container.id for container in spec.containers] == ["a", "b"]
    assert spec.containers[0].env == {"A": "1"}


def test_a_second_file_that_can_not_be_read_is_named(write: Write, tmp_path: Path) -> None:
    path = write(main="containers: [{id: a, image: base, cmd: x}]")
    assert faults(tmp_path, path, tmp_path / "none.yaml") == [
        "none.yaml: can't be read: No such file or directory, expected a YAML file"
    ]


def test_a_reset_of_what_is_not_there_is_none(write: Write) -> None:
    spec = load(write(a="containers: [{id: a, image: base, cmd: x, hostname: !reset h, env: !override {A: 1}}]"))
    assert (spec.containers[0].hostname, spec.containers[0].env) == (None, {"A": "1"})


# --- include ----------------------------------------------------------------------------------------------------------


def test_what_is_included_joins_with_its_own_defaults_at_whatever_distance(write: Write) -> None:
    path = write(
        main="defaults: {umask: 077}\ninclude: [db/db.yaml, {path: web.yaml}]\n"
        "containers: [{id: a, image: base, cmd: x, depends_on: [db, log]}]",
        db__db="name: other\ndefaults: {image: pg, cmd: x}\ninclude: [log.yaml]\ncontainers: [{id: db}]",
        db__log="containers: [{id: log, image: log, cmd: x}]",
        web="include: [db/log.yaml]\ncontainers: [{id: web, image: web, cmd: x}]",
    )
    spec = load(path)
    assert [(one.id, one.image, one.umask) for one in spec.containers] == [
        ("a", "base", 0o077),
        ("db", "pg", 0o022),
        ("log", "log", 0o022),
        ("web", "web", 0o022),
    ]
    assert spec.name == path.parent.name.lower()


def test_a_file_may_do_no_more_than_include(write: Write) -> None:
    path = write(main="include: [a.yaml]", a="containers: [{id: a, image: base, cmd: x}]")
    assert [container.id for container in load(path).containers] == ["a"]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {
                "main": "include: [a.yaml]\ncontainers: [{id: a, image: base, cmd: x}]",
                "a": "containers:\n- {image: base, id: a, cmd: x}",
            },
            ['a.yaml:2:21: containers[0].id: is "a" again, expected an id of its own; first at main.yaml:2:19'],
        ),
        (
            {"main": "include: [a.yaml]", "a": "include: [b.yaml]", "b": "include: [main.yaml]\ncontainers: []"},
            ["b.yaml:1:11: include[0]: closes a cycle, main.yaml -> a.yaml -> b.yaml -> main.yaml, expected no cycle"],
        ),
        (
            {"main": "include: [main.yaml]\ncontainers: [{id: a, image: base, cmd: x}]"},
            ["main.yaml:1:11: include[0]: closes a cycle, main.yaml -> main.yaml, expected no cycle"],
        ),
        (
            {"main": "include: [none.yaml, .]\ncontainers: [{id: a, image: base, cmd: x}]"},
            [
                "main.yaml:1:11: include[0]: none.yaml is not there, expected the path of a spec, from the folder of",
                "main.yaml:1:22: include[1]: . is no file, expected the path of a spec, from the folder of this one",
            ],
        ),
        (
            {"main": "include: a.yaml\ncontainers: [{id: a, image: base, cmd: x}]"},
            ['main.yaml:1:10: include: is "a.yaml", expected a list of paths'],
        ),
        (
            {
                "main": "include: [a.yaml]\ncontainers: [{id: m, image: base, cmd: x}]",
                "a": "containers: [{id: a, imag: base, cmd: x}, 5]\nzzz: 1",
            },
            [
                "a.yaml:1:14: containers[0].image: is missing, expected the name of an image, here or in the defaults",
                'a.yaml:1:22: containers[0].imag: unknown key; did you mean "image"?',
                'a.yaml:1:43: containers[1]: is "5", expected a mapping with id, image, cmd',
                (
                    "a.yaml:2:1: zzz: unknown key, expected one of name, containers, logs, networks, "
                    "volumes, secrets, configs, defaults, include"
                ),
            ],
        ),
        (
            {
                "main": "include: [a.yaml]\ncontainers: [{id: m, image: base, cmd: x}]",
                "a": "defaults: {umask: 9}\ncontainers: {}",
            },
            [
                'a.yaml:1:19: defaults.umask: is "9", expected octal digits from 000 to 777, such as 022',
                "a.yaml:2:13: containers: is a mapping, expected a list of at least one container",
            ],
        ),
        (
            {"main": "include: [a.yaml]\ncontainers: [{id: m, image: base, cmd: x}]", "a": "a: [\n"},
            ["a.yaml:2:1: is not YAML: did not find expected node content, while parsing a flow node from line 2"],
        ),
    ],
)
def test_faults_of_what_is_included_name_the_right_file(
    write: Write, tmp_path: Path, files: dict[str, str], found: list[str]
) -> None:
    told = faults(tmp_path, write(**files))
    assert len(told) == len(found)
    for line, start in zip(told, found, strict=True):
        assert line.startswith(start)


def test_includes_are_not_followed_without_end(write: Write, tmp_path: Path) -> None:
    files = {f"f{number}": f"include: [f{number + 1}.yaml]" for number in range(30)}
    [fault] = faults(tmp_path, write(**files))[:1]
    assert fault == "f15.yaml:1:11: include[0]: is included too deep, expected at most 16 levels"


# --- extends ----------------------------------------------------------------------------------------------------------


def test_a_container_takes_another_ones_keys_under_its_own(write: Write) -> None:
    path = write(
        main="""
defaults: {image: base, umask: 077}
containers:
  - {id: a, cmd: x, env: {A: 1, B: 2}, cap_add: [CHOWN], replicas: 3, depends_on: [z], profiles: [template]}
  - {id: b, extends: a, env: {B: 3}, cap_add: [KILL]}
  - {id: c, extends: {id: b}, cmd: y}
  - {id: z, cmd: z}
"""
    )
    b, c, _ = load(path).containers
    assert (b.cmd, b.env, b.cap_add, b.replicas, b.depends_on) == (
        ("x",),
        {"A": "1", "B": "3"},
        ("CAP_CHOWN", "CAP_KILL"),
        1,
        {},
    )
    assert (c.cmd, c.env, c.umask) == (("y",), {"A": "1", "B": "3"}, 0o077)


def test_a_container_of_another_file_brings_that_files_defaults_and_paths(write: Write, tmp_path: Path) -> None:
    path = write(
        main="defaults: {umask: 077, image: mine}\n"
        "containers: [{id: a, extends: {file: sub/base.yaml, id: b}, env: {A: own}}]",
        sub__base="defaults: {image: theirs, stop_grace_s: 3}\ncontainers: [{id: b, cmd: run, env_file: b.env}]",
    )
    (tmp_path / "sub/b.env").write_text("A=file\nB=file")
    [container] = load(path).containers
    assert (container.image, container.cmd, container.umask, container.stop_grace_s) == ("theirs", ("run",), 0o077, 3)
    assert container.env == {"A": "own", "B": "file"}


@pytest.mark.parametrize(
    ("containers", "found"),
    [
        (
            "[{id: a, extends: b, cmd: x}, {id: bb}]",
            ['1:31: containers[0].extends: is "b", expected the id of a container; did you mean "bb"?'],
        ),
        ("[{id: a, extends: a}]", ["1:31: containers[0].extends: closes a cycle, a -> a, expected no cycle"]),
        (
            "[{id: a, extends: b}, {id: b, extends: a}]",
            [
                "1:52: containers[1].extends: closes a cycle, a -> b -> a, expected no cycle",
                "1:31: containers[0].extends: closes a cycle, b -> a -> b, expected no cycle",
            ],
        ),
        (
            "[{id: a, extends: {file: main.yaml, id: a}}]",
            ["1:31: containers[0].extends: closes a cycle, a -> a, expected no cycle"],
        ),
        ("[{id: a, extends: {file: none.yaml, id: a}}]", ["1:31: containers[0].extends: none.yaml is not there"]),
        ("[{id: a, extends: {file: main.yaml, id: x}}]", ['1:31: containers[0].extends: main.yaml has no "x"']),
        (
            "[{id: a, extends: {file: main.yaml}}]",
            ["1:31: containers[0].extends: is without an id, expected the id of a container, or {file: …, id: …}"],
        ),
        (
            "[{id: a, extends: [b]}]",
            ["1:31: containers[0].extends: is a list, expected the id of a container, or {file: …, id: …}"],
        ),
    ],
)
def test_what_can_not_be_extended_is_told(write: Write, tmp_path: Path, containers: str, found: list[str]) -> None:
    told = [line for line in faults(tmp_path, write(main=f"containers: {containers}")) if "extends" in line]
    assert len(told) == len(found)
    for line, start in zip(told, sorted(found), strict=True):
        assert line.startswith(f"main.yaml:{start}")


def test_a_fault_in_what_is_extended_is_told_there_once(write: Write, tmp_path: Path) -> None:
    path = write(
        main="containers:\n  - {id: a, image: base, cmd: x, keep: 1}\n  - {id: b, extends: a}\n  - {id: c, extends: a}"
    )
    assert faults(tmp_path, path) == ['main.yaml:2:40: containers[0].keep: is "1", expected true or false']


# --- profiles ---------------------------------------------------------------------------------------------------------

NO_PART = 'is "b", which takes no part: its profile is not chosen'
NONE_CHOSEN = "all have profiles, of which none is chosen, expected --profile dev, or the like"
PROFILED = (
    "defaults: {image: base, cmd: x}\ncontainers: [{id: a}, {id: b, profiles: [dev]}, {id: c, profiles: [test, dev]}]"
)


@pytest.mark.parametrize(
    ("chosen", "ids"),
    [((), "a"), (("dev",), "abc"), (("test",), "ac"), (("*",), "abc"), (("none",), "a"), (("test", "dev"), "abc")],
)
def test_a_container_takes_part_if_one_of_its_profiles_is_chosen(
    write: Write, chosen: tuple[str, ...], ids: str
) -> None:
    spec = load(write(main=PROFILED), profiles=chosen)
    assert "".join(container.id for container in spec.containers) == ids


def test_who_takes_no_part_may_be_needed_by_nobody_else(write: Write, tmp_path: Path) -> None:
    text = "defaults: {image: base, cmd: x}\ncontainers: [{id: a, depends_on: [b]}, {id: b, profiles: [dev]}]"
    assert faults(tmp_path, write(main=text)) == [
        f"main.yaml:2:35: containers[0].depends_on[0]: {NO_PART}, expected --profile dev, or required: false"
    ]
    optional = load(write(main=text.replace("[b]", "{b: {required: false}}")))
    assert optional.containers[0].depends_on == {}
    assert len(load(write(main=text), profiles=["dev"]).containers) == 2


@pytest.mark.parametrize(
    ("profiles", "fault"),
    [
        ("dev", 'main.yaml:1:56: containers[0].profiles: is "dev", expected a list of profiles'),
        ("[a b]", 'main.yaml:1:57: containers[0].profiles[0]: is "a b", expected a word of a-z A-Z 0-9 _ . -'),
        (
            "[dev]",
            f"main.yaml:1:13: containers: {NONE_CHOSEN}",
        ),
    ],
)
def test_profiles_that_can_not_be_are_told(write: Write, tmp_path: Path, profiles: str, fault: str) -> None:
    text = f"containers: [{{id: a, image: base, cmd: run, profiles:  {profiles}}}]"
    assert faults(tmp_path, write(main=text))[0] == fault


def test_a_choice_that_can_be_no_profile_is_refused(write: Write, tmp_path: Path) -> None:
    assert faults(tmp_path, write(main=PROFILED), profiles=["a b"]) == [
        '--profile: is "a b", expected a profile: a word of a-z A-Z 0-9 _ . -, or *'
    ]


def test_what_takes_no_part_is_not_judged_beyond_that(write: Write) -> None:
    text = "containers: [{id: a, image: base, cmd: x}, {id: b, env_file: none.env, zzz: 1, profiles: [dev]}]"
    assert len(load(write(main=text)).containers) == 1


# --- a part of a spec -------------------------------------------------------------------------------------------------

CHAIN = """
defaults: {image: base, cmd: x}
containers: [{id: z}, {id: c}, {id: b, depends_on: [c]}, {id: a, depends_on: [b, c]}]
"""


def test_a_part_has_what_it_depends_on(write: Write) -> None:
    part = load(write(main=CHAIN)).selected(["a"])
    assert [container.id for container in part.containers] == ["c", "b", "a"]
    assert part.fault("containers[2].user", "x").path == "containers[3].user"


def test_a_part_alone_depends_on_nothing_else(write: Write) -> None:
    part = load(write(main=CHAIN)).selected(["a", "c"], with_dependencies=False)
    assert [(container.id, list(container.depends_on)) for container in part.containers] == [("c", []), ("a", ["c"])]
    assert load_again(part, write) == part


def load_again(spec: Spec, write: Write) -> Spec:
    return load(write(again=resolved(spec)))


def test_a_part_of_what_is_not_there_is_refused(write: Write) -> None:
    spec = load(write(main=PROFILED.replace("id: a", "id: alpha")))
    with pytest.raises(SpecError) as caught:
        spec.selected(["alhpa", "b"])
    assert [str(fault).partition(": ")[2] for fault in caught.value.faults] == [
        'containers: have no "alhpa" to select, expected one of their ids; did you mean "alpha"?',
        'containers: have no "b" to select: its profile is not chosen, expected --profile dev',
    ]
