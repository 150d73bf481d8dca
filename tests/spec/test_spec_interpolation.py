"""Variables in a spec: from the environment, `.env` and files of a container's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.checks import Ready, Tcp
from supervisor.spec import Spec, SpecError, later, limits, load
from supervisor.spec.faults import Wrong
from supervisor.spec.interpolate import Variables, fill

FaultsOf = Callable[[str | bytes], list[str]]
LoadText = Callable[[str | bytes], Spec]
PATIENT = settings(deadline=None)  # a busy machine is no fault
KNOWN = {"A": "a", "B": "b c", "EMPTY": "", "N": "3"}


def filled(text: str) -> str:
    return fill(text, Variables(KNOWN))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A", "a"),
        ("${A}", "a"),
        ("x$A-$B.${A}y", "xa-b c.ay"),
        ("$A$$A$$$A", "a$A$a"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("${EMPTY}", ""),
        ("${A:-x}", "a"),
        ("${X:-x y}", "x y"),
        ("${X-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${X:-}", ""),
        ("${X:-${Y:-${A}}}", "a"),
        ("${A:-${X}}", "a"),
        ("${X:-a}b}", "ab}"),
        ('${X:-{"a": {}}}', '{"a": {}}'),
        ("${A:?never}", "a"),
        ("${EMPTY?never}", ""),
        ("${A:+alt}", "alt"),
        ("${EMPTY:+alt}", ""),
        ("${EMPTY+alt}", "alt"),
        ("${X+${Y}}", ""),
        ("${X:-$$A}", "$A"),
        ("{$A}", "{a}"),
        ("é${A}é", "éaé"),
        ("no } variable {", "no } variable {"),
    ],
)
def test_a_variable_stands_for_its_value(text: str, result: str) -> None:
    assert filled(text) == result


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("$X", "variable X is not set, expected it in the environment or in .env, or a default: ${X:-…}"),
        ("${X}", "variable X is not set"),
        ("${X:?}", "variable X is not set"),
        ("${X:?set $A}", "variable X is not set: set a"),
        ("${EMPTY:?set it}", "variable EMPTY is empty: set it"),
        ("${X:-$Y}", "variable Y is not set"),
        ("${A", '"${A" begins no variable, expected $NAME'),
        ("${A:-x", '"${A:-x" lacks a }, expected'),
        ("${A:-{x}", '"${A:-{x}" lacks a }, expected'),
        ("${}", '"${}" begins no variable'),
        ("${A!}", '"${A!}" begins no variable'),
        ("$(date)", '"$(date)" begins no variable'),
        ("cost: $5", '"$5" begins no variable, expected $NAME, ${NAME}, ${NAME:-default} or the like; $$ is a $ that'),
        ("$", '"$" begins no variable'),
        ("${X:-" * 20 + "}" * 20, "has too many defaults in one another, expected at most 16"),
    ],
)
def test_what_has_no_value_is_a_fault(text: str, what: str) -> None:
    with pytest.raises(Wrong) as caught:
        filled(text)
    assert str(caught.value).startswith(what)


@PATIENT
@given(
    st.lists(st.sampled_from(["$", "{", "}", "A", "X", ":", "-", "?", "+", "${", "$$", " "]), max_size=30).map("".join)
)
def test_any_text_is_filled_or_refused(text: str) -> None:
    try:
        result = filled(text)
    except Wrong:
        return
    assert "$" in text or result == text


@PATIENT
@given(st.text())
def test_doubled_it_stands_for_itself(text: str) -> None:
    assert filled(text.replace("$", "$$")) == text


def test_a_few_short_values_can_not_fill_the_memory() -> None:
    with pytest.raises(Wrong, match="the values of variables are too large"):
        fill("$A" * (limits.FILLED_MAX_CHARS // 1000 + 1), Variables({"A": "x" * 1000}))


# --- in a spec --------------------------------------------------------------------------------------------------------


def load_with(stack_file: Path, text: str, **variables: str) -> Spec:
    stack_file.write_text(text)
    return load(stack_file, variables=variables)


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_value_with_a_variable_is_of_the_type_that_it_comes_to(stack_file: Path, quote: str) -> None:
    text = (
        "containers:\n- {id: a, image: base, cmd: run, keep: %$KEEP%, umask: %$M%, ulimits: {nofile: %$F%}}\n"
        "- id: b\n  image: base\n  cmd: run\n  replicas: %${N:-3}%\n  restart: %${P}:2%\n  ready:\n    tcp: %${PORT}%\n"
    ).replace("%", quote)
    a, b = load_with(stack_file, text, KEEP="true", M="077", P="on-failure", F="10", PORT="80").containers
    assert (a.keep, a.umask, a.ulimits) == (True, 0o077, {"nofile": (10, 10)})
    assert (b.replicas, str(b.restart), b.ready) == (3, "on-failure:2", Ready(Tcp(80)))


def test_keys_and_numbers_of_dollars_stay(stack_file: Path) -> None:
    [container] = load_with(
        stack_file, "containers: [{id: a, image: base, cmd: [$A, 'echo $$A'], env: {$A: $A}}]", A="x"
    ).containers
    assert (container.cmd, container.env) == (("x", "echo $A"), {"$A": "x"})


def test_a_command_is_split_after_its_variables_are_put_in(stack_file: Path) -> None:
    [container] = load_with(stack_file, "containers: [{id: a, image: base, cmd: run $A}]", A="b 'c d'").containers
    assert container.cmd == ("run", "b", "c d")


def test_an_anchor_is_of_the_value(stack_file: Path) -> None:
    text = "x-n: &n $A\ncontainers: [{id: a, image: *n, cmd: *n}]"
    [container] = load_with(stack_file, text, A="x").containers
    assert (container.image, container.cmd) == ("x", ("x",))


def test_all_variables_that_are_not_set_are_told_at_once(faults_of: FaultsOf) -> None:
    text = "containers:\n  - id: a\n    image: $NO_SUCH_1\n    cmd: [run, '${NO_SUCH_2}', $5]\n"
    assert [line.partition(", expected")[0] for line in faults_of(text)] == [
        "stack.yaml:3:12: containers[0].image: variable NO_SUCH_1 is not set",
        "stack.yaml:4:16: containers[0].cmd[1]: variable NO_SUCH_2 is not set",
        'stack.yaml:4:32: containers[0].cmd[2]: "$5" begins no variable',
    ]


def test_a_name_that_is_nearly_right_is_told(stack_file: Path) -> None:
    with pytest.raises(SpecError, match='did you mean "POSTGRES_PORT"'):
        load_with(stack_file, "name: $POSTGRES_PROT", POSTGRES_PORT="1")


def test_a_value_is_judged_as_if_it_were_written(stack_file: Path) -> None:
    with pytest.raises(SpecError, match=r'1:55: containers\[0\]\.replicas: is "many"'):
        load_with(
            stack_file,
            "containers: [{id: a, image: base, cmd: run, replicas: $N}]",
            N="many",
        )


# --- where they are from ----------------------------------------------------------------------------------------------

SOUND = "containers: [{id: a, image: $IMAGE, cmd: run}]"


def test_the_environment_wins_over_the_file_beside_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.yaml").write_text(SOUND)
    (tmp_path / ".env").write_text("IMAGE=filed\n")
    monkeypatch.delenv("IMAGE", raising=False)
    assert load(tmp_path / "stack.yaml").containers[0].image == "filed"
    monkeypatch.setenv("IMAGE", "set")
    assert load(tmp_path / "stack.yaml").containers[0].image == "set"


def test_another_file_may_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.yaml").write_text(SOUND)
    (tmp_path / ".env").write_text("broken\n")
    (tmp_path / "other").write_text("IMAGE=other\n")
    monkeypatch.delenv("IMAGE", raising=False)
    assert load(tmp_path / "stack.yaml", env_file=tmp_path / "other").containers[0].image == "other"


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text(SOUND)
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "stack.yaml", env_file=tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path}/none: can't be read: No such file or directory, expected a file of NAME=value lines"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=x", "x"),
        ("A = x y ", "x y"),
        ("export A=x", "x"),
        ("# a comment\n\n  A=x # another\n", "x"),
        ("A=x#y", "x#y"),
        ("A=#y", "#y"),
        ("A= # y", ""),
        ("A=", ""),
        ("A=''", ""),
        ("A='x # $B \\n'  # comment", "x # $B \\n"),
        ("A='it\\'s'", "it's"),
        ("A='x\ny'\nB=z", "x\ny"),
        ('A="x # \\n\\t\\"\\\\ \\$B \\z"', 'x # \n\t"\\ $B \\z'),
        ('A="x\ny"', "x\ny"),
        ("B=b\nA=$B-${C:-c}-$$", "b-c-$"),
        ('B=b\nA="<$B>"', "<b>"),
        ("A=x\nA=y", "y"),
        ("A=x\r\nB=y\r\n", "x"),
        ("\ufeffA=x", "x"),
        ("A=b=c", "b=c"),
    ],
)
def test_a_file_of_variables_is_read_as_compose_reads_it(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / "stack.yaml").write_text("containers: [{id: a, image: base, cmd: run, env: {V: $A}}]")
    (tmp_path / "vars").write_bytes(text.encode())
    assert load(tmp_path / "stack.yaml", variables={}, env_file=tmp_path / "vars").containers[0].env == {"V": value}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("A=1\nB\n", "2:1: B is without a value, expected NAME=value; B= is the empty one, and nothing is taken"),
        ("A=1\n\n# x\n=x\n", '4:1: "=x" is no variable, expected NAME=value'),
        ("a b=c", "1:1: a is without a value"),
        ("A='x\n\n", "1:1: has no closing quote, expected another '"),
        ('A="x" y', "1:1: goes on after the closing quote, expected a comment, or nothing"),
        ("B='\n'\nA=$NONE", "3:1: A: variable NONE is not set"),
        ("A=pa$5", '1:1: A: "$5" begins no variable'),
    ],
)
def test_a_fault_in_it_is_told_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "stack.yaml").write_text("containers: [{id: a, image: base, cmd: run}]")
    (tmp_path / "vars").write_text(text)
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "stack.yaml", variables={}, env_file=tmp_path / "vars")
    assert str(caught.value).startswith(f"{tmp_path}/vars:{fault}")


@PATIENT
@given(st.text(st.sampled_from("AB=\"'#$\\{} \t\n\r-ä"), max_size=40))
def test_whatever_is_in_it_it_is_read_or_refused(stack_file: Path, text: str) -> None:
    stack_file.write_text("containers: [{id: a, image: base, cmd: run, env_file: vars}]")
    (stack_file.parent / "vars").write_bytes(text.encode())
    try:
        load(stack_file, variables={})
    except SpecError as error:
        assert all(str(fault).isprintable() for fault in error.faults)


# --- env_file ---------------------------------------------------------------------------------------------------------


def test_a_containers_files_lie_under_its_env_the_later_over_the_earlier(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("""
        defaults: {image: base, cmd: run, env: {D: default, X: default}, env_file: d.env}
        containers:
          - {id: a, env: {E: own}, env_file: [a.env, {path: b.env}, {path: none.env, required: false}]}
          - {id: b, env: [X=own], env_file: a.env}
          - {id: c}
    """)
    (tmp_path / "a.env").write_text("E=a\nF=a\nG=$HERE\n")
    (tmp_path / "b.env").write_text("F=b\nX=b\n")
    (tmp_path / "d.env").write_text("D=file\nY=file\n")
    a, b, c = load(tmp_path / "stack.yaml", variables={"HERE": "here"}).containers
    assert a.env == {"D": "default", "E": "own", "F": "b", "G": "here", "X": "b", "Y": "file"}
    assert b.env == {"D": "default", "E": "a", "F": "a", "G": "here", "X": "own", "Y": "file"}
    assert c.env == {"D": "default", "X": "default", "Y": "file"}


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (
            "none.env",
            "containers[0].env_file: {}/none.env is not there, expected a file, or {{path: …, required: false}}",
        ),
        ("[none.env]", "containers[0].env_file[0]: {}/none.env is not there"),
        ("[.]", "containers[0].env_file[0]: {}/. is a directory, expected a file of NAME=value lines"),
        ("{required: false}", "containers[0].env_file: is without a path"),
        ("[1, {}]", "containers[0].env_file[1]: is without a path"),
        ("[{path: a, x: 1}]", "containers[0].env_file[0].x: unknown key"),
        ('""', 'containers[0].env_file: is "", expected the path of a file'),
    ],
)
def test_files_that_can_not_be_are_told_at_their_place(tmp_path: Path, files: str, fault: str) -> None:
    (tmp_path / "stack.yaml").write_text(f"containers: [{{id: a, image: base, cmd: run, env_file: {files}}}]")
    (tmp_path / "1").write_text("")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "stack.yaml")
    assert str(caught.value).partition(": ")[2].startswith(fault.format(tmp_path))


def test_a_variable_of_a_file_that_can_not_be_is_told_in_that_file(tmp_path: Path) -> None:
    (tmp_path / "stack.yaml").write_text("containers: [{id: a, image: base, cmd: run, env_file: a.env}]")
    (tmp_path / "a.env").write_text("A=1\nB=" + "x" * 140_000)
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "stack.yaml")
    assert str(caught.value) == f"{tmp_path}/a.env:2:1: B: is 140000 bytes long, expected at most 131071"


# --- each replica's own -----------------------------------------------------------------------------------------------


def test_the_numbers_and_names_of_replicas_are_left_for_later(load_text: LoadText) -> None:
    [container] = load_text(
        "containers: [{id: a, image: base, cmd: 'run $PYSUP_ID', workdir: '/w${PYSUP_REPLICA}', env: {A: $PYSUP_ID$$}}]"
    ).containers
    assert later.filled(container.cmd, "a.2", 2) == ("run", "a.2")
    assert later.filled(container.workdir or "", "a.2", 2) == "/w2"
    assert later.filled(container.env["A"], "a.2", 2) == "a.2$"


def test_they_are_set_whatever_the_environment_says(stack_file: Path) -> None:
    text = "containers: [{id: a, image: base, cmd: 'run ${PYSUP_REPLICA:-x} ${PYSUP_REPLICA:+y} $${PYSUP_REPLICA}'}]"
    [container] = load_with(stack_file, text, PYSUP_REPLICA="9").containers
    assert later.filled(container.cmd, "a.2", 2) == ("run", "2", "y", "${PYSUP_REPLICA}")


def test_what_has_none_stays_the_same_object() -> None:
    words = ("a", "é")
    assert later.filled(words, "a.1", 1) is words
