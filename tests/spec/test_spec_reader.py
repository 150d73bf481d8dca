"""Bytes to a tree: whatever is in the file, a spec or one clear fault at its place."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from supervisor.spec import Spec, SpecError, limits, load, reader

FaultsOf = Callable[[str | bytes], list[str]]
LoadText = Callable[[str | bytes], Spec]

TOP = "expected a YAML mapping with `containers:`"
SOUND = "containers: [{id: a, image: base, cmd: run}]\n"


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both of PyYAML's parsers: a host may lack libyaml."""
    if request.param == "python":
        monkeypatch.setattr(reader, "PARSER", yaml.SafeLoader)
    else:
        assert reader.PARSER is yaml.CSafeLoader
    return str(request.param)


BROKEN: list[tuple[str, str | bytes, str]] = [
    ("empty", "", f"1:1: the file is empty, {TOP}"),
    ("comments only", "# a\n\n# b\n", f"1:1: the file is empty, {TOP}"),
    ("null", "---\n~\n", f"1:1: the file is empty, {TOP}"),
    ("a list", "\n- a\n- b\n", f"2:1: the file is a list, {TOP}"),
    ("a word", "hello", f'1:1: the file is "hello", {TOP}'),
    ("not UTF-8", b"a: 1\nname: d\xe9mo\n", "2:8: byte 0xe9 is not UTF-8, expected a file saved as UTF-8"),
    (
        "not UTF-8 after others",
        "é: é\xe9".encode() + b"\xff",
        "1:6: byte 0xff is not UTF-8, expected a file saved as UTF-8",
    ),
    ("UTF-16", "a: 1".encode("utf-16"), "1:1: byte 0xff is not UTF-8, expected a file saved as UTF-8"),
    (
        "a NUL",
        b"name: a\n\tb\0\n",
        '2:3: character U+0000 can\'t be in YAML, expected an escape in double quotes, such as "\\x1b"',
    ),
    ("a tab", "containers:\n\t- a\n", "2:1: is indented by a tab, expected spaces"),
    ("a tab deeper", "a:\n  b: 1\n\tc: 2\n", "3:1: is indented by a tab, expected spaces"),
    ("two documents", SOUND + "---\na: b\n", "2:1: is a second document, expected one in a file"),
    ("too deep", "a: " + "[" * 100_000, "1:35: a" + "[0]" * 31 + ": is nested too deep, expected at most 32 levels"),
    ("much too deep", "- " * 100_000, "1:65: " + "[0]" * 32 + ": is nested too deep, expected at most 32 levels"),
    ("an alias of nothing", "name: *x\n", "1:7: name: *x stands for nothing, expected &x before it"),
    (
        "an alias of itself",
        "containers: &x [*x]",
        "1:17: containers[0]: *x stands for what it is in, expected an alias of something complete",
    ),
    (
        "an alias of what it is in",
        "containers: &x [{id: {a: [*x]}}]",
        "1:27: containers[0].id.a[0]: *x stands for what it is in, expected an alias of something complete",
    ),
    ("a value is missing its quote", "name: 'demo\n", "2:1: is not YAML: "),
    ("an unclosed list", "containers: [a, b\nname: x", "2:5: is not YAML: "),
    ("two colons", "a: b: c\n", "1:5: is not YAML: mapping values are not allowed"),
]


@pytest.mark.parametrize(("text", "fault"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
@pytest.mark.usefixtures("parser")
def test_what_is_no_document_is_one_fault_at_its_place(faults_of: FaultsOf, text: str | bytes, fault: str) -> None:
    [line] = faults_of(text)
    assert line.startswith(f"stack.yaml:{fault}")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a: b: c\n", 'quotes around a text with ": " in it, or keys below each other'),
        ("a: 1\n b: 2\n", 'quotes around a text with ": " in it, or keys below each other'),
        ("a: @b\n", "quotes around a text that begins with it"),
        ("name: 'demo\n", "a closing quote"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_what_people_get_wrong_about_yaml_is_told_with_what_to_do(faults_of: FaultsOf, text: str, hint: str) -> None:
    assert faults_of(text)[0].endswith(f", expected {hint}")


FLAWED: list[tuple[str, str, list[str]]] = [
    (
        "duplicate keys",
        "name: a\n" + SOUND + "name: b\nname: c\n",
        [
            "3:1: name: is given twice, first at 1:1, expected each key once",
            "4:1: name: is given twice, first at 1:1, expected each key once",
        ],
    ),
    (
        "a duplicate key in quotes",
        'containers: [{id: a, image: base, cmd: run, "id": b}]',
        ["1:45: containers[0].id: is given twice, first at 1:15, expected each key once"],
    ),
    (
        "keys that are no words",
        SOUND + "defaults: {{a: b}: c, [d]: e}",
        [
            '2:12: defaults["?"]: a mapping can\'t be a key, expected a word',
            '2:23: defaults["?"]: a list can\'t be a key, expected a word',
        ],
    ),
    (
        "a tag",
        SOUND + "name: !!python/name:os.system x\n",
        ['2:7: name: tag "tag:yaml.org,2002:python/name:os.system" is unknown here, expected no tag'],
    ),
    ("an own tag", SOUND + "defaults: !mine {}\n", ['2:11: defaults: tag "!mine" is unknown here, expected no tag']),
    (
        "a merge of a word",
        "containers: [{<<: base, id: a, image: base, cmd: run}]",
        ['1:19: containers[0]["<<"]: is "base", expected a mapping, or a list of them, such as *name'],
    ),
    (
        "two merges",
        "containers: [{<<: {id: a}, <<: {image: base, cmd: run}}]",
        ['1:28: containers[0]["<<"]: is given twice, expected a list, such as <<: [*one, *two]'],
    ),
]


@pytest.mark.parametrize(("text", "faults"), [case[1:] for case in FLAWED], ids=[case[0] for case in FLAWED])
@pytest.mark.usefixtures("parser")
def test_a_flawed_document_is_read_on(faults_of: FaultsOf, text: str, faults: list[str]) -> None:
    assert [line.replace("python/name:os.syste…", "python/name:os.system") for line in faults_of(text)] == [
        f"stack.yaml:{fault}" for fault in faults
    ]


@pytest.mark.usefixtures("parser")
def test_aliases_and_merge_keys_work(load_text: LoadText) -> None:
    spec = load_text("""
        containers:
          - &web
            id: &id web
            image: &image base
            cmd: [run, *id]
            env: &env {A: 1, B: 2}
          - <<: *web
            id: web2
            env: {<<: *env, B: 3}
          - <<: [{cmd: first, umask: 077}, *web, {keep: true}]
            id: web3
            image: *image
    """)
    assert [c.id for c in spec.containers] == ["web", "web2", "web3"]
    assert [c.image for c in spec.containers] == ["base"] * 3
    assert [c.cmd for c in spec.containers] == [("run", "web"), ("run", "web"), ("first",)]
    assert [c.env for c in spec.containers] == [{"A": "1", "B": "2"}, {"A": "1", "B": "3"}, {"A": "1", "B": "2"}]
    assert (spec.containers[2].umask, spec.containers[2].keep) == (0o077, True)


@pytest.mark.usefixtures("parser")
def test_a_fault_in_what_was_merged_is_told_where_it_was_written(faults_of: FaultsOf) -> None:
    text = "containers:\n  - &a {id: a, image: base, cmd: run, keep: 1}\n  - {<<: *a, id: b}\n"
    assert faults_of(text) == [
        f'stack.yaml:2:45: containers[{index}].keep: is "1", expected true or false' for index in (0, 1)
    ]


@pytest.mark.usefixtures("parser")
def test_explicit_core_tags_are_taken_at_their_word(load_text: LoadText) -> None:
    [container] = load_text(
        "containers: !!seq [!!map {id: !!str 1, image: base, cmd: run, replicas: !!int '3', hostname: !!null ''}]"
    ).containers
    assert (container.id, container.replicas, container.hostname) == ("1", 3, None)


@pytest.mark.usefixtures("parser")
def test_a_byte_order_mark_and_windows_lines_are_read(faults_of: FaultsOf) -> None:
    assert faults_of(b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode() + b"zzz: 1\r\n") == [
        (
            "stack.yaml:2:1: zzz: unknown key, expected one of name, containers, logs, networks, "
            "volumes, secrets, configs, defaults, include"
        )
    ]


def test_columns_count_characters(faults_of: FaultsOf) -> None:
    assert faults_of("containers: [{id: a, image: 'é😀', cmd: run, keep: 1}]") == [
        'stack.yaml:1:51: containers[0].keep: is "1", expected true or false'
    ]


def test_an_alias_bomb_is_counted_not_exploded(faults_of: FaultsOf) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    [fault] = faults_of(bomb)
    assert fault.startswith("stack.yaml:7:")
    assert fault.endswith("the file is too large, expected at most 500000 values, with aliases expanded")


@pytest.mark.parametrize("merge", ["<<: *a", "<<: [*a, *a]"])
def test_merges_are_counted_too(faults_of: FaultsOf, merge: str) -> None:
    many = ", ".join(f"k{n}" for n in range(5000))
    faults = faults_of(f"a: &a {{{many}}}\nb:\n" + f"  - {{{merge}}}\n" * 1000)
    assert faults[-1].endswith("the file is too large, expected at most 500000 values, with aliases expanded")


def test_a_huge_file_is_refused(faults_of: FaultsOf) -> None:
    assert faults_of(b"#" * limits.FILE_MAX_BYTES) == [f"stack.yaml:1:1: the file is empty, {TOP}"]
    assert faults_of(b"#" * (limits.FILE_MAX_BYTES + 1)) == ["stack.yaml: is too large, expected at most 4194304 bytes"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none.yaml", "No such file or directory"), (".", "Is a directory"), ("a\0b", "embedded null byte")],
)
def test_a_file_that_can_not_be_read_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        load(name)
    shown = name.replace("\0", "\\x00")
    assert str(caught.value) == f"{shown}: can't be read: {reason}, expected a YAML file"


def test_a_file_is_named_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.yml").write_text("name: a", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"^\./x\.yml:1:1: containers: is missing"):
        load("./x.yml")
