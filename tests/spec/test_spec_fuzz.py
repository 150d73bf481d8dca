"""Whatever the file holds: a spec, or a SpecError. And soon."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.spec import Backoff, Container, Spec, SpecError, load, probes, reader
from supervisor.spec.model import Sharing

FaultsOf = Callable[[str | bytes], list[str]]
LoadText = Callable[[str | bytes], Spec]
PATIENT = settings(deadline=None)  # a busy machine is no fault

SYNTAX = st.sampled_from([*"[]{}:,-?&*!|>%@`'\"# \n\t\\~<=", "- ", ": ", "<<: ", "*a", "&a ", "---\n", "a", "!!str "])
KEYS = st.sampled_from(
    [
        *(*Container.model_fields, *Sharing.model_fields, *Backoff.model_fields, *probes.WORDS),
        *("soft", "hard", "condition", "required", "nofile", "a", "<<", "x-a", "policy", "max_restarts", "signals"),
        *("exit_codes", "prefix", "file", "path"),
    ]
)
WORDS = st.sampled_from(
    [
        *("no", "web", "db", "started", "always", "memory", "1g", "10s", "ALL", "SIGTERM", "022", "A=b", "/", "none"),
        *("$A", "${A:-1}", "$", "${PYSUP_ID}", "3-5", "http://[::1]/", "stack.yaml", ".", "a\0b"),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
NODES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)
ENTRIES = st.dictionaries(KEYS, NODES, max_size=8) | NODES
STACKS = st.fixed_dictionaries(
    {"containers": st.lists(ENTRIES, max_size=4)}, optional={"defaults": ENTRIES, "name": NODES, "include": NODES}
)


def check(faults: list[str]) -> None:
    for fault in faults:
        file, line, column, *_ = fault.split(":")
        assert file in ("stack.yaml", "./stack.yaml")  # it may name itself
        assert int(line) >= 1
        assert int(column) >= 1
        assert fault.isprintable()


@PATIENT
@given(st.binary())
def test_bytes(faults_of: FaultsOf, text: bytes) -> None:
    check(faults_of(text))


@PATIENT
@given(st.lists(SYNTAX, max_size=60).map("".join))
def test_syntax(faults_of: FaultsOf, text: str) -> None:
    check(faults_of(text))


@PATIENT
@given(text=st.lists(SYNTAX | st.text(max_size=4), max_size=40).map("".join))
def test_syntax_with_the_parser_of_hosts_without_libyaml(faults_of: FaultsOf, text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "PARSER", yaml.SafeLoader)
        check(faults_of(text.encode(errors="surrogatepass")))


@PATIENT
@given(STACKS)
def test_stacks(faults_of: FaultsOf, stack: object) -> None:
    check(faults_of(yaml.safe_dump(stack, allow_unicode=True)))


@PATIENT
@given(ENTRIES, st.sampled_from(sorted(Container.model_fields)), NODES)
def test_one_field_of_a_container(faults_of: FaultsOf, defaults: object, key: str, value: object) -> None:
    entry = {"id": "web", "image": "base", "cmd": "run", key: value}
    check(faults_of(yaml.safe_dump({"defaults": defaults, "containers": [entry]}, allow_unicode=True)))


@PATIENT
@given(STACKS, STACKS)
def test_one_over_another(stack_file: Path, base: object, over: object) -> None:
    paths = [stack_file, stack_file.with_name("over.yaml")]
    for path, stack in zip(paths, (base, over), strict=True):
        path.write_text(yaml.safe_dump(stack, allow_unicode=True))
    try:
        load(paths, variables={"A": "1"}, profiles=["web"])
    except SpecError as error:
        assert all(str(fault).isprintable() for fault in error.faults)


def test_two_thousand_containers_load_in_a_moment(load_text: LoadText) -> None:
    entry = """
  - id: svc-{n}
    image: base
    cmd: [python3, -m, http.server, "{n}"]
    env: {{GREETING: hello, NUMBER: {n}}}
    user: "1000:1000"
    restart: on-failure:5
    backoff: {{initial_s: 0.1, max_s: 30, factor: 2, jitter: 0.1, reset_after_s: 10}}
    depends_on: [svc-0]
    ulimits: {{nofile: 1024}}"""
    text = "containers:\n  - {id: svc-0, image: base, cmd: run}" + "".join(entry.format(n=n) for n in range(1, 2000))
    before = time.process_time()
    spec = load_text(text)
    assert time.process_time() - before < 5, "it takes half a second of a slow machine"
    assert len(spec.containers) == 2000


@pytest.mark.parametrize("seed", range(5))
def test_a_big_file_of_faults_is_told_of_in_a_moment(faults_of: FaultsOf, seed: int) -> None:
    chooser = random.Random(seed)
    fields = [
        "restrat: no",
        "restart: alway",
        "zzz: 1",
        "cap_add: [x, y]",
        "depends_on: [svd-1]",
        "id: svc-1",
        "keep: k",
    ]
    entries = "".join(f"  - {{id: svc-{n}, {', '.join(chooser.sample(fields, 3))}}}\n" for n in range(2000))
    before = time.process_time()
    assert len(faults_of(f"containers:\n{entries}")) == 201
    assert time.process_time() - before < 15
