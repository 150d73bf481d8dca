"""The resolved spec says everything, and loads again to the same."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.build import RLIMITS
from runtime.capabilities import CAPABILITIES
from runtime.config import Attachment
from runtime.mounts import Device, Propagation
from supervisor.core.checks import Exec, File, Health, Http, Log, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.policy import Dependency, RestartOn
from supervisor.entry import OnFailure, Order, OutputForm, Update
from supervisor.logs.policy import Driver, LogLimit, LogPolicy, Overflow
from supervisor.spec import (
    Backoff,
    Condition,
    Container,
    Restart,
    RestartPolicy,
    Spec,
    Storage,
    mounts,
    reader,
    resolve,
    resolved,
)
from supervisor.spec.terms import Publication

LoadText = Callable[[str | bytes], Spec]
PATIENT = settings(deadline=None)  # a busy machine is no fault

TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)
SECONDS = st.floats(0, 86_400)
LIMIT = st.integers(-1, (1 << 63) - 1)
RESTARTS = st.sampled_from([Restart(policy) for policy in RestartPolicy]) | st.builds(
    Restart, st.just(RestartPolicy.ON_FAILURE), st.integers(1, 999_999)
)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    initial_s, max_s = sorted((draw(SECONDS), draw(SECONDS)))
    factor, jitter = draw(st.floats(1, 1e6)), draw(st.floats(0, 1))
    return Backoff(initial_s=initial_s, max_s=max_s, factor=factor, jitter=jitter, reset_after_s=draw(SECONDS))


WAIT = st.floats(0.01, 86_400)
ENDS = st.frozensets(st.integers(0, 255), max_size=6)
TEXTS = st.lists(TEXT, min_size=1, max_size=3).filter(lambda words: words[0] != "").map(tuple)
STATUS = st.tuples(st.integers(100, 350), st.integers(351, 599))
HTTP = st.builds(
    Http,
    st.sampled_from(["localhost", "127.0.0.1", "::1"]),
    st.integers(1, 65_535),
    st.sampled_from(["/", "/a", "/a?b=c$"]),
    st.lists(STATUS, min_size=1, max_size=3).map(tuple),
)
PROBES: st.SearchStrategy[Any] = (
    st.sampled_from([Log("^a$"), Log("$$"), Tcp(1), Tcp(65_535)])
    | HTTP
    | st.builds(Exec, TEXTS)
    | st.builds(File, TEXT.map("/".__add__))
)
HEALTHS = st.builds(
    Health, PROBES, WAIT, WAIT, st.integers(1, 99), SECONDS, WAIT, st.sampled_from(OnUnhealthy)
) | st.builds(lambda watchdog_s: Health(Notify(), watchdog_s=watchdog_s), WAIT)
DEPENDENCIES = st.builds(
    Dependency,
    st.sampled_from([Condition.STARTED, Condition.COMPLETED]),
    st.booleans(),
    st.booleans(),
    st.none() | WAIT,
)
LIMITED = st.builds(
    Restart,
    st.sampled_from([RestartPolicy.ALWAYS, RestartPolicy.ON_FAILURE]),
    st.none(),
    st.integers(1, 99),
    WAIT,
)
PREFIXES = st.none() | st.text(st.characters(exclude_categories=["C", "Z"], codec="utf-8"), max_size=9)

SIZES = st.integers(64 << 10, 1 << 50)
LOGS = st.builds(
    LogPolicy,
    st.sampled_from([Driver.FILE, Driver.NONE, Driver.STDOUT_JSON]),
    SIZES,
    st.integers(1, 1000),
    st.booleans(),
    st.sampled_from(Overflow),
)


@st.composite
def ulimits(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.tuples(LIMIT, LIMIT).filter(lambda pair: pair[1] == -1 or 0 <= pair[0] <= pair[1]))


NAMES = st.sampled_from("front back data".split())
PUBLICATIONS = (
    Publication((80, 80)),
    Publication((80, 81), (8080, 8081), "127.0.0.1"),
    Publication((53, 53), (53, 53), "::1", "udp"),
    Publication((80, 80), None, "10.0.0.1"),
)


ATTACHMENTS = st.builds(Attachment, NAMES, st.lists(NAMES, unique=True).map(tuple))


def by_network(attachment: Attachment) -> str:
    return attachment.network


def by_target(mount: Any) -> object:
    return mount.target


PARTS = st.from_regex(r"/(?:[a-z:$ ]{1,5}/)?[a-z]{2,3}", fullmatch=True).filter(lambda path: "/dev" not in path)
KINDS = st.builds(
    mounts.Volume,
    st.just(mounts.Kind.BIND),
    PARTS,
    PARTS,
    *[st.booleans()] * 4,
    st.sampled_from(Propagation),
    *[st.booleans()] * 2,
) | st.builds(
    lambda target, source, nocopy, subpath: mounts.Volume(
        mounts.Kind.VOLUME, target, source, nocopy=nocopy, subpath=subpath
    ),
    PARTS,
    NAMES | st.just(""),
    st.booleans(),
    st.sampled_from(["", "a/b"]),
)
MEMORY = st.builds(
    lambda target, exec_, size, mode, uid: mounts.Volume(
        mounts.Kind.TMPFS, target, exec=exec_, size=size, mode=mode, uid=uid
    ),
    st.from_regex(r"/m[a-z]{1,3}", fullmatch=True),
    st.booleans(),
    st.none() | SIZES,
    st.integers(0, 0o7777),
    st.integers(0, 70_000),
)
IDS_OF_FILES = st.none() | st.integers(0, 70_000)
GRANTS = st.builds(
    mounts.Grant, NAMES, st.from_regex(r"/g[a-z]{1,3}", fullmatch=True), IDS_OF_FILES, IDS_OF_FILES, st.just(0o440)
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "volumes": st.lists(KINDS, max_size=3, unique_by=by_target).map(tuple),
    "tmpfs": st.lists(MEMORY, max_size=2, unique_by=by_target).map(tuple),
    "secrets": st.lists(GRANTS, max_size=2, unique_by=by_target).map(tuple),
    "read_only": st.booleans(),
    "devices": st.sampled_from([(), (Device("/dev/kvm", "/dev/other"),)]),
    "shm_size": SIZES,
    "sysctls": st.sampled_from([{}, {"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4"}]),
    "extra_hosts": st.sampled_from([(), (("a", "::1"), ("b", "host-gateway"))]),
    "dns": st.sampled_from([(), ("1.1.1.1", "::1")]),
    "dns_search": st.sampled_from([(), (".",), ("a.example",)]),
    "dns_opt": st.sampled_from([(), ("ndots:2", "rotate")]),
    "image": TEXT.filter(bool),
    "cmd": st.lists(TEXT, min_size=1, max_size=4).filter(lambda words: words[0] != "").map(tuple),
    "env": st.dictionaries(TEXT.filter(lambda name: name and "=" not in name), TEXT, max_size=4),
    "workdir": st.none() | TEXT.map("/".__add__),
    "user": st.none() | st.from_regex(r"[a-z0-9_][a-z0-9_]{0,5}(:[a-z0-9_]{1,5})?", fullmatch=True),
    "hostname": st.none() | st.from_regex(r"[a-zA-Z0-9]{1,9}(\.[a-z0-9]{1,9})?", fullmatch=True),
    "restart": RESTARTS | LIMITED,
    "backoff": backoffs(),
    "stop_signal": st.integers(1, 64),
    "stop_grace_s": SECONDS,
    "success_codes": ENDS.filter(bool),
    "timeout_s": st.none() | WAIT,
    "stop_cmd": st.just(()) | TEXTS,
    "ready": st.none() | st.builds(Ready, PROBES | st.just(Notify()), WAIT),
    "health": st.none() | HEALTHS,
    "output": st.builds(OutputForm, PREFIXES, st.booleans()),
    "logs": LOGS,
    "update": st.builds(Update, st.sampled_from(Order), st.integers(0, 9), st.sampled_from(OnFailure), SECONDS),
    "replicas": st.integers(0, 10_000),
    "storage": st.sampled_from(Storage),
    "keep": st.booleans(),
    "network": st.sampled_from(["host", "none", "bridge", "container:web", None]),
    "networks": st.lists(ATTACHMENTS, max_size=2, unique_by=by_network).map(tuple),
    "aliases": st.lists(NAMES, max_size=2, unique=True).map(tuple),
    "ports": st.lists(st.sampled_from(PUBLICATIONS), max_size=2).map(tuple),
    "init": st.booleans(),
    "cap_add": st.lists(st.sampled_from([*CAPABILITIES, "ALL"]), unique=True, max_size=3).map(tuple),
    "cap_drop": st.lists(st.sampled_from([*CAPABILITIES, "ALL"]), unique=True, max_size=3).map(tuple),
    "privileged": st.booleans(),
    "umask": st.integers(0, 0o777),
    "ulimits": st.dictionaries(st.sampled_from([*{*RLIMITS} - {"nofile"}]), ulimits(), max_size=3),
}
IDS = st.lists(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,9}", fullmatch=True), min_size=1, max_size=4, unique=True)
NEEDED = ("image", "cmd")


def _signals(numbers: frozenset[int]) -> frozenset[int]:
    return frozenset(number % 64 + 1 for number in numbers)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Any spec: each container depends on some before it, and says any part of what can be said."""
    ids = draw(IDS)
    containers = []
    for index, id_ in enumerate(ids):
        chosen = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=6)) | set(NEEDED)
        fields = {key: draw(FIELDS[key]) for key in sorted(chosen)}
        if fields.get("storage") is Storage.MEMORY:
            fields["storage_size"] = draw(st.none() | st.integers(64 << 10, 1 << 50))
        if fields.get("restart", Restart()).policy is not RestartPolicy.NO:
            fields["restart_on"] = draw(st.none() | st.builds(RestartOn, ENDS, ENDS.filter(bool).map(_signals)))
        needs = draw(st.dictionaries(st.sampled_from(ids[:index]), DEPENDENCIES)) if index else {}
        containers.append(Container(id=id_, depends_on=needs, **fields))
    name = draw(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,9}", fullmatch=True))
    return Spec(name=name, containers=tuple(containers), logs=LogLimit(draw(st.none() | SIZES)))


@PATIENT
@given(specs())
def test_a_resolved_spec_loads_again_to_an_equal_one(load_text: LoadText, spec: Spec) -> None:
    assert load_text(resolved(spec)) == spec


@settings(PATIENT, max_examples=30)
@given(specs())
def test_so_it_does_on_hosts_without_libyaml(load_text: LoadText, spec: Spec) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolve, "DUMPER", yaml.SafeDumper)
        patch.setattr(reader, "PARSER", yaml.SafeLoader)
        assert load_text(resolved(spec)) == spec


def test_a_resolved_spec_says_everything_as_a_user_would(load_text: LoadText) -> None:
    spec = load_text("""
        name: demo
        containers:
          - id: web
            image: base
            cmd: run 'a b'
            env: {A: 1, B: "no"}
            user: 1000:1000
            restart: on-failure:5
            success_codes: [0, 2, 3, 4]
            ready: {http: "http://localhost:80", status: [204, 300-399]}
            health: {exec: "check it $$$$"}
            stop_signal: 37
            stop_grace_s: 1m
            storage: memory
            umask: 077
            cap_add: [net_admin]
            ulimits: {nofile: 100, core: {soft: 0, hard: unlimited}}
            volumes: ["/srv:/data:ro,noexec"]
            tmpfs: /tmp
            depends_on: [db]
          - {id: db, image: base, cmd: run}
    """)
    assert resolved(spec).partition("- id: db\n")[0] == (
        "name: demo\n"
        "containers:\n"
        "- id: web\n"
        "  image: base\n"
        "  cmd:\n"
        "  - run\n"
        "  - a b\n"
        "  env:\n"
        "    A: '1'\n"
        "    B: 'no'\n"
        "  workdir: null\n"
        "  user: 1000:1000\n"
        "  hostname: null\n"
        "  restart: on-failure:5\n"
        "  retries: null\n"
        "  restart_on: null\n"
        "  success_codes:\n"
        "  - 0\n"
        "  - 2-4\n"
        "  backoff:\n"
        "    initial_s: 0.1\n"
        "    max_s: 30.0\n"
        "    factor: 2.0\n"
        "    jitter: 0.1\n"
        "    reset_after_s: 10.0\n"
        "  timeout_s: null\n"
        "  stop_cmd: []\n"
        "  stop_signal: SIGRTMIN+3\n"
        "  stop_grace_s: 60.0\n"
        "  depends_on:\n"
        "    db:\n"
        "      condition: started\n"
        "      restart: false\n"
        "      required: true\n"
        "      timeout_s: null\n"
        "  ready:\n"
        "    http: http://localhost:80/\n"
        "    status:\n"
        "    - 204\n"
        "    - 300-399\n"
        "    timeout_s: 60.0\n"
        "  health:\n"
        "    exec:\n"
        "    - check\n"
        "    - it\n"
        "    - $$$$\n"
        "    interval_s: 30.0\n"
        "    timeout_s: 10.0\n"
        "    retries: 3\n"
        "    start_period_s: 30.0\n"
        "    start_interval_s: 1.0\n"
        "    on_unhealthy: restart\n"
        "  replicas: 1\n"
        "  storage: memory\n"
        "  storage_size: 67108864\n"
        "  keep: false\n"
        "  network: null\n"
        "  networks: {}\n"
        "  aliases: []\n"
        "  ports: []\n"
        "  init: false\n"
        "  cap_add:\n"
        "  - CAP_NET_ADMIN\n"
        "  cap_drop: []\n"
        "  privileged: false\n"
        "  userns: host\n"
        "  seccomp: default\n"
        "  umask: '0077'\n"
        "  ulimits:\n"
        "    nofile:\n"
        "      soft: 100\n"
        "      hard: 100\n"
        "    core:\n"
        "      soft: 0\n"
        "      hard: unlimited\n"
        "  volumes:\n"
        "  - type: bind\n"
        "    target: /data\n"
        "    options:\n"
        "    - nosuid\n"
        "    - nodev\n"
        "    - noexec\n"
        "    source: /srv\n"
        "    read_only: true\n"
        "    bind:\n"
        "      propagation: private\n"
        "      create_host_path: true\n"
        "      recursive: true\n"
        "  tmpfs:\n"
        "  - /tmp:rw,nosuid,nodev,noexec,mode=1777,uid=0,gid=0\n"
        "  secrets: []\n"
        "  configs: []\n"
        "  read_only: false\n"
        "  devices: []\n"
        "  shm_size: 67108864\n"
        "  sysctls: {}\n"
        "  extra_hosts: []\n"
        "  dns: []\n"
        "  dns_search: []\n"
        "  dns_opt: []\n"
        "  limits: {}\n"
        "  oom: kill-process\n"
        "  enforce: strict\n"
        "  output:\n"
        "    prefix: true\n"
        "    timestamps: false\n"
        "  logs:\n"
        "    driver: file\n"
        "    max_size: 10485760\n"
        "    max_files: 5\n"
        "    compress: false\n"
        "    overflow: block\n"
        "  update:\n"
        "    order: stop-first\n"
        "    parallel: 1\n"
        "    on_failure: pause\n"
        "    monitor_s: 1.0\n"
    )
