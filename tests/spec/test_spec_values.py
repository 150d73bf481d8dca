"""What users write, and what it means: the sound half of the spec."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.idmap import AUTO, Extent, Ids
from supervisor.core.checks import Exec, File, Health, Http, Log, Notify, OnUnhealthy, Ready, Tcp
from supervisor.core.policy import Dependency, RestartOn
from supervisor.entry import OnFailure, Order, OutputForm, Update
from supervisor.logs.policy import Driver, LogPolicy, Overflow
from supervisor.spec import (
    Backoff,
    Condition,
    Container,
    Network,
    Restart,
    RestartPolicy,
    Spec,
    SpecError,
    Storage,
    container,
    load,
)

LoadText = Callable[[str | bytes], Spec]
MIB = 1 << 20


def test_what_is_not_said_has_its_default(load_text: LoadText) -> None:
    [container] = load_text("containers: [{id: web, image: base, cmd: run}]").containers
    assert container == Container(
        id="web",
        image="base",
        cmd=("run",),
        env={},
        workdir=None,
        user=None,
        hostname=None,
        restart=Restart(RestartPolicy.NO, None),
        backoff=Backoff(initial_s=0.1, max_s=30, factor=2, jitter=0.1, reset_after_s=10),
        stop_signal=15,
        stop_grace_s=10,
        depends_on={},
        replicas=1,
        storage=Storage.DISK,
        storage_size=None,
        keep=False,
        network=None,
        init=False,
        cap_add=(),
        cap_drop=(),
        privileged=False,
        umask=0o022,
        ulimits={},
        retries=None,
        restart_on=None,
        success_codes=frozenset({0}),
        timeout_s=None,
        stop_cmd=(),
        ready=None,
        health=None,
        output=OutputForm(prefix=None, timestamps=False),
        logs=LogPolicy(Driver.FILE, 10 << 20, 5, compress=False, overflow=Overflow.BLOCK),
        update=Update(Order.STOP_FIRST, 1, OnFailure.PAUSE, 1.0),
    )


CASES: list[tuple[str, str, object]] = [
    ("restart: no", "restart", Restart(RestartPolicy.NO)),
    ("restart: 'no'", "restart", Restart(RestartPolicy.NO)),
    ("restart: on-failure", "restart", Restart(RestartPolicy.ON_FAILURE)),
    ("restart: on-failure:5", "restart", Restart(RestartPolicy.ON_FAILURE, 5)),
    ("restart: always", "restart", Restart(RestartPolicy.ALWAYS)),
    ("restart: unless-stopped", "restart", Restart(RestartPolicy.UNLESS_STOPPED)),
    ("backoff: {initial_s: 0, max_s: 1m}", "backoff", Backoff(initial_s=0, max_s=60)),
    ("env: {PORT: 0123}", "env", {"PORT": "0123"}),
    ("env: {DEBUG: true, OFF: off, NO: no}", "env", {"DEBUG": "true", "OFF": "off", "NO": "no"}),
    ("env: {V: 1.10, T: 12:30:00, D: 2024-01-01}", "env", {"V": "1.10", "T": "12:30:00", "D": "2024-01-01"}),
    ("env: {A: 0o17, B: 0x1F, C: 1_000}", "env", {"A": "0o17", "B": "0x1F", "C": "1_000"}),
    ("env: {A: '', B: 'null', ~: x, null: y}", "env", {"A": "", "B": "null", "~": "x", "null": "y"}),
    ("env: {no: 1, on: 2, 3: 4}", "env", {"no": "1", "on": "2", "3": "4"}),
    ("env: [A=1, B=x=y, C=]", "env", {"A": "1", "B": "x=y", "C": ""}),
    ("workdir: /srv", "workdir", "/srv"),
    ("workdir: null", "workdir", None),
    ("user: 1000", "user", "1000"),
    ("user: 1000:1000", "user", "1000:1000"),
    ("user: app:staff", "user", "app:staff"),
    ("hostname: 007", "hostname", "007"),
    ("hostname: db-1.example", "hostname", "db-1.example"),
    ("stop_signal: SIGUSR1", "stop_signal", 10),
    ("stop_signal: usr1", "stop_signal", 10),
    ("stop_signal: 9", "stop_signal", 9),
    ("stop_signal: SIGRTMIN+3", "stop_signal", 37),
    ("stop_signal: RTMAX-1", "stop_signal", 63),
    ("stop_grace_s: 5", "stop_grace_s", 5.0),
    ("stop_grace_s: .5", "stop_grace_s", 0.5),
    ("stop_grace_s: 1e3", "stop_grace_s", 1000.0),
    ("stop_grace_s: 500ms", "stop_grace_s", 0.5),
    ("stop_grace_s: 10s", "stop_grace_s", 10.0),
    ("stop_grace_s: 1m30s", "stop_grace_s", 90.0),
    ("stop_grace_s: '2h'", "stop_grace_s", 7200.0),
    ("stop_grace_s: 1.5m", "stop_grace_s", 90.0),
    ("stop_grace_s: 24h", "stop_grace_s", 86400.0),
    ("depends_on: [db]", "depends_on", {"db": Dependency()}),
    ("depends_on: {db: {condition: started}}", "depends_on", {"db": Dependency()}),
    ("depends_on: {db: {condition: completed}}", "depends_on", {"db": Dependency(Condition.COMPLETED)}),
    ("replicas: 0", "replicas", 0),
    ("replicas: 10000", "replicas", 10_000),
    ("keep: true", "keep", True),
    ("keep: False", "keep", False),
    ("network: none", "network", Network.NONE),
    ("init: TRUE", "init", True),
    ("privileged: true", "privileged", True),
    ("cap_add: [net_admin, CAP_CHOWN, Cap_Bpf]", "cap_add", ("CAP_NET_ADMIN", "CAP_CHOWN", "CAP_BPF")),
    ("cap_drop: [all, KILL, cap_kill]", "cap_drop", ("ALL", "CAP_KILL")),
    ("userns: auto", "userns", AUTO),
    ("userns: host", "userns", None),
    ("userns: {uid: ['0:7:1'], gid: ['0:8:2']}", "userns", Ids((Extent(0, 7, 1),), (Extent(0, 8, 2),))),
    ("userns: {uid: ['0:7:1']}", "userns", Ids((Extent(0, 7, 1),), (Extent(0, 7, 1),))),
    ("seccomp: unconfined", "seccomp", "unconfined"),
    ("umask: 022", "umask", 0o022),
    ("umask: 0022", "umask", 0o022),
    ("umask: 22", "umask", 0o022),
    ("umask: 0o22", "umask", 0o022),
    ("umask: '0077'", "umask", 0o077),
    ("umask: 0", "umask", 0),
    ("ulimits: {nofile: 1024}", "ulimits", {"nofile": (1024, 1024)}),
    ("ulimits: {RLIMIT_CORE: unlimited, As: -1}", "ulimits", {"core": (-1, -1), "as": (-1, -1)}),
    ("ulimits: {nproc: {soft: 1, hard: unlimited}}", "ulimits", {"nproc": (1, -1)}),
    ("depends_on: {db: {}}", "depends_on", {"db": Dependency()}),
    ("depends_on: {db: }", "depends_on", {"db": Dependency()}),
    (
        "depends_on: {db: {condition: completed, restart: true, timeout_s: 1m, required: false}}",
        "depends_on",
        {"db": Dependency(Condition.COMPLETED, restart=True, timeout_s=60, required=False)},
    ),
    ("depends_on: {dbx: {required: false}}", "depends_on", {}),
    ("ready: null", "ready", None),
    ("ready: {tcp: 8080}", "ready", Ready(Tcp(8080), 60)),
    ("ready: {log: '^ready (in|after)', timeout_s: 1m30s}", "ready", Ready(Log("^ready (in|after)"), 90)),
    ("ready: {exec: [a, 'b c']}", "ready", Ready(Exec(("a", "b c")))),
    ("ready: {exec: a 'b c'}", "ready", Ready(Exec(("a", "b c")))),
    ("ready: {file: /run/ready}", "ready", Ready(File("/run/ready"))),
    ("ready: {notify: true, x-why: because}", "ready", Ready(Notify())),
    ("ready: {http: 'http://localhost'}", "ready", Ready(Http("localhost", 80, "/"))),
    ("ready: {http: 'HTTP://127.0.0.1:80/a?b=c'}", "ready", Ready(Http("127.0.0.1", 80, "/a?b=c"))),
    ("ready: {http: 'http://[::1]:80?b', status: 204}", "ready", Ready(Http("::1", 80, "/?b", ((204, 204),)))),
    (
        "ready: {http: 'http://localhost/', status: [200-299, 404]}",
        "ready",
        Ready(Http("localhost", 80, "/", ((200, 299), (404, 404)))),
    ),
    ("health: none", "health", None),
    ("health: null", "health", None),
    ("health: {tcp: 80}", "health", Health(Tcp(80), 30, 10, 3, 30, 1, OnUnhealthy.RESTART)),
    (
        "health: {tcp: 80, interval_s: 1m, timeout_s: 5, retries: 1, start_period_s: 0, on_unhealthy: stop}",
        "health",
        Health(Tcp(80), 60, 5, 1, 0, 1, OnUnhealthy.STOP),
    ),
    ("health: {notify: true, watchdog_s: 30}", "health", Health(Notify(), watchdog_s=30)),
    ("restart: {policy: always}", "restart", Restart(RestartPolicy.ALWAYS)),
    ("restart: {policy: on-failure:2}", "restart", Restart(RestartPolicy.ON_FAILURE, 2)),
    (
        "restart: {policy: on-failure, max_retries: 2, max_restarts: 5, window_s: 10m}",
        "restart",
        Restart(RestartPolicy.ON_FAILURE, 2, 5, 600),
    ),
    ("retries: 3", "retries", 3),
    ("{restart: on-failure, retries: 0}", "retries", 0),
    (
        "{restart: always, restart_on: {exit_codes: [1, 3-5], signals: [segv, 9], oom: true}}",
        "restart_on",
        RestartOn(frozenset({1, 3, 4, 5}), frozenset({11, 9}), oom=True),
    ),
    ("{retries: 1, restart_on: {exit_codes: 7}}", "restart_on", RestartOn(frozenset({7}))),
    ("success_codes: 3", "success_codes", frozenset({3})),
    ("success_codes: 0-2", "success_codes", frozenset({0, 1, 2})),
    ("success_codes: [0, 143]", "success_codes", frozenset({0, 143})),
    ("timeout_s: 1h", "timeout_s", 3600),
    ("stop_cmd: [drain, --now]", "stop_cmd", ("drain", "--now")),
    ("stop_cmd: drain --now", "stop_cmd", ("drain", "--now")),
    ("stop_cmd: []", "stop_cmd", ()),
    ("output: {prefix: true}", "output", OutputForm()),
    ("update: {order: start-first, monitor_s: 500ms}", "update", Update(Order.START_FIRST, monitor_s=0.5)),
    ("update: {parallel: 0, on_failure: rollback}", "update", Update(parallel=0, on_failure=OnFailure.ROLLBACK)),
    ("logs: {driver: raw, max_size: 1m}", "logs", LogPolicy(Driver.RAW, 1 << 20)),
    ("logs: {max_files: 1, overflow: drop}", "logs", LogPolicy(max_files=1, overflow=Overflow.DROP)),
    ("output: {prefix: false, timestamps: true}", "output", OutputForm("", timestamps=True)),
    ("output: {prefix: 'true'}", "output", OutputForm("true")),
    ("output: {prefix: the web}", "output", OutputForm("the web")),
    ("ulimits: {nofile: 1}", "ulimits", {"nofile": (1, 1)}),
    ("x-note: {a: [b]}", "env", {}),
    ("storage: disk", "storage_size", None),
    ("storage: memory", "storage_size", 64 * MIB),
    ("{storage: memory, storage_size: 256MiB}", "storage_size", 256 * MIB),
    ("{storage: memory, storage_size: 1g}", "storage_size", 1024 * MIB),
    ("{storage: memory, storage_size: 512k}", "storage_size", MIB // 2),
    ("{storage: memory, storage_size: 1.5 GB}", "storage_size", 1536 * MIB),
    ("{storage: memory, storage_size: 1048576}", "storage_size", MIB),
]


@pytest.mark.parametrize(("written", "field", "value"), CASES, ids=[written for written, _, _ in CASES])
def test_a_value_means_what_its_field_makes_of_it(load_text: LoadText, written: str, field: str, value: object) -> None:
    fields = written[1:-1] if written.startswith("{") else written
    spec = load_text(f"containers: [{{id: web, image: base, cmd: run, {fields}}}, {{id: db, image: base, cmd: run}}]")
    assert getattr(spec.containers[0], field) == value


@pytest.mark.parametrize(
    ("written", "cmd"),
    [
        ("[sleep, 10]", ("sleep", "10")),
        ("[echo, no, 012, 1.10, true, '']", ("echo", "no", "012", "1.10", "true", "")),
        ("python3 -m http.server 8000", ("python3", "-m", "http.server", "8000")),
        ('"sh -c \'echo \\"a  b\\" $$HOME; # no\'"', ("sh", "-c", 'echo "a  b" $HOME; # no')),
        ("'echo * $$HOME && x'", ("echo", "*", "$HOME", "&&", "x")),
        ("true", ("true",)),
    ],
)
def test_a_command_is_a_list_or_split_like_one_and_never_run_by_a_shell(
    load_text: LoadText, written: str, cmd: tuple[str, ...]
) -> None:
    assert load_text(f"containers: [{{id: a, image: base, cmd: {written}}}]").containers[0].cmd == cmd


def test_text_stays_as_it_is_written(load_text: LoadText) -> None:
    [container] = load_text("containers: [{id: 0123, image: 3.10, cmd: run}]").containers
    assert (container.id, container.image) == ("0123", "3.10")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("demo", "demo"), ("My Stack", "my-stack"), ("_.x", "x"), ("...", "stack"), ("é", "stack"), ("a" * 80, "a" * 63)],
)
def test_a_stack_is_named_after_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    file = tmp_path / folder / "stack.yaml"
    file.parent.mkdir()
    file.write_text("containers: [{id: a, image: base, cmd: run}]", encoding="ascii")
    assert load(file).name == name


def test_a_stack_is_named_after_the_folder_it_is_in_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo" / "inner").mkdir(parents=True)
    (tmp_path / "demo" / "stack.yaml").write_text("containers: [{id: a, image: base, cmd: run}]", encoding="ascii")
    monkeypatch.chdir(tmp_path / "demo" / "inner")
    spec = load("../stack.yaml")
    assert (spec.name, spec.source) == ("demo", Path("../stack.yaml"))


@pytest.mark.parametrize("key", ["name", "containers"])
def test_a_spec_is_frozen(load_text: LoadText, key: str) -> None:
    spec = load_text("containers: [{id: a, image: base, cmd: run}]")
    with pytest.raises(ValueError, match="frozen"):
        setattr(spec, key, "x")
    with pytest.raises(ValueError, match="frozen"):
        spec.containers[0].image = "x"


@pytest.mark.parametrize(
    "fields",
    [{"id": "a b"}, {"replicas": -1}, {"replicas": True}, {"env": {"A": None}}, {"depends_on": ["zzz"]}, {"x": 1}],
)
def test_a_spec_made_in_code_obeys_the_same_rules(fields: dict[str, object]) -> None:
    sound = {"id": "a", "image": "base", "cmd": ("run",)}
    with pytest.raises(ValueError, match=r"a b|whole number|empty|zzz|x"):
        Spec.model_validate({"name": "demo", "containers": [sound | fields]})


def test_a_container_that_no_file_has_is_read_by_the_same_rules() -> None:
    made = container({"id": "web", "image": "base", "cmd": ["run", "x"], "umask": "077", "env": ["A=1"]})
    assert made == Container(id="web", image="base", cmd=("run", "x"), umask=0o077, env={"A": "1"})
    with pytest.raises(SpecError) as caught:
        container({"id": "a b", "image": "base", "cmd": ["run"], "hostname": "a_b"})
    assert [line.partition(",")[0] for line in str(caught.value).splitlines()] == [
        'id: is "a b"',
        'hostname: is "a_b"',
    ]
