"""What only shows when a spec meets images and its containers meet each other."""

import pickle
from pathlib import Path

import pytest

from runtime.cgroup.hierarchies import Hierarchies, Hierarchy
from runtime.cgroup.limits import Limits
from runtime.seccomp.filter import Filter
from runtime.seccomp.load import default_filter
from runtime.security import capability_mask
from supervisor.compile.compiler import Images, compile_stack
from supervisor.core.checks import Exec, File, Health, Ready, Tcp
from supervisor.core.policy import Dependency, Policy, RestartOn, RestartPolicy
from supervisor.entry import Compiled, OutputForm
from supervisor.spec import SpecError, load

USUAL = capability_mask((), (), privileged=False)


START_FIRST = "update: {order: start-first}"
SUBNET = "{subnet: 10.9.0.0/24}"


def compiled(tmp_path: Path, image: Path, containers: str) -> Compiled:
    file = tmp_path / "stack.yaml"
    file.write_text(f"name: s\ndefaults: {{image: {image.name}, cmd: 'true'}}\ncontainers:\n{containers}")
    found = Images((image.parent,))
    return compile_stack(load(file, found.check), found, tmp_path / "state")


@pytest.mark.parametrize(
    ("container", "place", "what"),
    [
        ("  - {id: a, user: nosuch}\n", "4:19: containers[0].user", "'nosuch' is not in"),
        ("  - {id: a, keep: true, storage: memory}\n", "4:19: containers[0].keep", "goes with the run"),
        (
            "  - {id: a, depends_on: {b: {condition: completed}}}\n  - {id: b, restart: always}\n",
            "4:25: containers[0].depends_on",
            "never completes: its restart is always",
        ),
        (f"  - {{id: a, keep: true, {START_FIRST}}}\n", "4:41: containers[0].update.order", "what it wrote belongs to"),
        (
            f"  - {{id: a, networks: {{n: {{ipv4_address: 10.9.0.2}}}}, {START_FIRST}}}\nnetworks: {{n: {SUBNET}}}\n",
            "4:70: containers[0].update.order",
            "the address that it asks for",
        ),
        (
            f"  - {{id: a, {START_FIRST}}}\n  - {{id: b, network: 'container:a'}}\n",
            "4:29: containers[0].update.order",
            "another container is in its network",
        ),
    ],
)
def test_what_can_not_be_is_told_with_its_place(
    tmp_path: Path, image: Path, container: str, place: str, what: str
) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, image, container)
    (line,) = str(caught.value).splitlines()
    assert f"stack.yaml:{place}" in line
    assert what in line


def test_the_environment_has_nothing_of_the_hosts(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    (entry,) = compiled(tmp_path, image, "  - {id: a, user: app, env: {A: b}}\n").entries
    env = dict(entry.config.env)
    assert env == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/home/app",
        "HOSTNAME": "a",
        "TERM": "xterm",
        "PYSUP_REPLICA": "1",
        "A": "b",
    }


def test_replicas_differ_in_name_number_and_place(tmp_path: Path, image: Path) -> None:
    entries = compiled(tmp_path, image, "  - {id: a, replicas: 3}\n").entries
    assert [entry.id for entry in entries] == ["a.1", "a.2", "a.3"]
    assert [dict(entry.config.env)["PYSUP_REPLICA"] for entry in entries] == ["1", "2", "3"]
    assert len({entry.config.directory for entry in entries}) == 3


def test_replicas_have_their_numbers_and_names_where_the_spec_has_them(tmp_path: Path, image: Path) -> None:
    text = (
        "  - {id: a, replicas: 2, cmd: 'run $PYSUP_ID', workdir: '/w/$PYSUP_REPLICA', hostname: h-$PYSUP_REPLICA, "
        "env: {A: $PYSUP_ID}, stop_cmd: [stop, $PYSUP_ID], ready: {exec: [ready, $PYSUP_ID]}, "
        "health: {file: /h/$PYSUP_REPLICA}, output: {prefix: 'n$PYSUP_REPLICA'}}\n"
    )
    _, entry = compiled(tmp_path, image, text).entries
    config, policy = entry.config, entry.policy
    assert (config.argv, config.workdir, config.hostname) == (("run", "a.2"), "/w/2", "h-2")
    assert (dict(config.env)["A"], policy.stop_cmd, entry.output) == ("a.2", ("stop", "a.2"), OutputForm("n2"))
    assert (policy.ready, policy.health) == (Ready(Exec(("ready", "a.2"))), Health(File("/h/2")))


def test_a_host_name_that_only_some_replica_makes_too_long_is_told(tmp_path: Path, image: Path) -> None:
    name = f"{'h' * 40}.{'h' * 22}"
    text = f"  - {{id: a, replicas: 10, hostname: {name}$PYSUP_REPLICA}}\n"
    with pytest.raises(SpecError, match=rf"4:37: containers\[0\]\.hostname: comes to {name}10, which is longer"):
        compiled(tmp_path, image, text)


def test_replicas_share_what_is_the_same_for_all(tmp_path: Path, image: Path) -> None:
    a, b = compiled(
        tmp_path, image, "  - {id: a, replicas: 2, health: {tcp: 80}, depends_on: [z]}\n  - {id: z}\n"
    ).entries[:2]
    assert a.policy is b.policy
    assert a.depends_on is b.depends_on
    assert a.config.argv is b.config.argv
    assert a.output is b.output


def test_all_that_the_machine_is_to_know_is_in_the_policy(tmp_path: Path, image: Path) -> None:
    text = """
  - id: a
    restart: {policy: on-failure, max_restarts: 5, window_s: 10}
    retries: 3
    restart_on: {signals: [SEGV]}
    success_codes: [0, 143]
    timeout_s: 1m
    stop_cmd: [stop]
    ready: {tcp: 1}
    health: {tcp: 2}
    depends_on: {b: {timeout_s: 9}, c: {timeout_s: 3}, d: {timeout_s: 9, required: false}, e: {}}
  - {id: b}
  - {id: c}
  - {id: d}
  - {id: e, retries: 2}
"""
    entries = compiled(tmp_path, image, text).entries
    assert entries[0].policy == Policy(
        restart=RestartPolicy.ON_FAILURE,
        max_retries=3,
        max_restarts=5,
        window_s=10,
        restart_on=RestartOn(signals=frozenset({11})),
        success_codes=frozenset({0, 143}),
        timeout_s=60,
        stop_cmd=("stop",),
        ready=Ready(Tcp(1)),
        health=Health(Tcp(2)),
        waits_s=(3, 9),
    )
    assert entries[0].depends_on["d"] == Dependency(required=False, timeout_s=9)
    assert entries[4].policy == Policy(RestartPolicy.ON_FAILURE, max_retries=2, one_shot=True)


@pytest.mark.parametrize(
    ("checks", "variables"),
    [
        ("ready: {notify: true}", {"NOTIFY_SOCKET": "/dev/notify"}),
        (
            "health: {notify: true, watchdog_s: 1.5}",
            {"NOTIFY_SOCKET": "/dev/notify", "WATCHDOG_USEC": "1500000"},
        ),
        ("ready: {tcp: 80}", {}),
    ],
)
def test_who_may_speak_by_sd_notify_is_told_where(
    tmp_path: Path, image: Path, checks: str, variables: dict[str, str]
) -> None:
    (entry,) = compiled(tmp_path, image, f"  - {{id: a, {checks}}}\n").entries
    told = {name: value for name, value in entry.config.env if name in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
    assert told == variables
    assert entry.config.notify is bool(variables)


# --- seccomp ----------------------------------------------------------------------------------------------------------

PROFILE = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["%s"], "action": "SCMP_ACT_ERRNO"}]}'


def filters(stack: Compiled) -> list[Filter | None]:
    return [entry.config.seccomp for entry in stack.entries]


def test_a_container_has_the_default_filter_unless_it_is_privileged(tmp_path: Path, image: Path) -> None:
    containers = "  - {id: a}\n  - {id: b, privileged: true}\n  - {id: c, seccomp: unconfined}\n"
    assert filters(compiled(tmp_path, image, containers)) == [default_filter(USUAL), None, None]


def test_a_filter_is_one_object_whatever_it_goes_through(tmp_path: Path, image: Path) -> None:
    """Compiled apart and pickled: thousands of containers must not have a copy each."""
    (tmp_path / "p.json").write_text(PROFILE % "mount")
    containers = (
        "  - {id: a, replicas: 20}\n  - {id: b, seccomp: p.json, replicas: 2}\n  - {id: c, seccomp: ./p.json}\n"
    )
    stack = pickle.loads(pickle.dumps(compiled(tmp_path, image, containers)))
    assert len({id(each) for each in filters(stack)}) == 2


def test_a_profile_is_beside_the_file_that_names_it(tmp_path: Path, image: Path) -> None:
    (tmp_path / "below").mkdir()
    for folder, call in ((tmp_path, "mount"), (tmp_path / "below", "umount2")):
        (folder / "p.json").write_text(PROFILE % call)
    (tmp_path / "below/more.yaml").write_text(
        f"defaults: {{image: {image.name}, cmd: 'true', seccomp: p.json}}\ncontainers: [{{id: c}}]"
    )
    stack = compiled(tmp_path, image, "  - {id: a, seccomp: p.json}\ninclude: [below/more.yaml]\n")
    names = [each.name.partition(" (")[0] for each in filters(stack) if each]
    assert names == [str(tmp_path / "p.json"), str(tmp_path / "below/p.json")]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "p.json: no such file or directory"),
        ("{", "p.json:1: not JSON"),
        (PROFILE % "monut", "p.json:1: syscalls[0].names: no system call is named monut"),
    ],
)
def test_a_faulty_profile_is_told_with_both_places(tmp_path: Path, image: Path, text: str | None, what: str) -> None:
    if text is not None:
        (tmp_path / "p.json").write_text(text)
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, image, "  - {id: a, seccomp: p.json}\n  - {id: b, user: nosuch}\n")
    assert len(str(caught.value).splitlines()) == 2
    assert "stack.yaml:4:22: containers[0].seccomp: " in str(caught.value)
    assert what in str(caught.value).replace("syscalls[0]: ", "syscalls[0].names: ")


LIMITED = "  - {id: a, limits: {pids: 7}}\n  - {id: b, limits: {memory: 1m, memory_high: 1m}, oom: kill-group}\n"
BEST = "  - {id: c, limits: {pids: 7}, enforce: best-effort}\n"


def test_limits_that_the_host_can_not_hold_are_faults_of_the_spec(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.compile.compiler.discover", lambda: Hierarchies(()))
    with pytest.raises(SpecError) as caught:
        compiled(tmp_path, image, LIMITED + BEST)
    faults = [line.partition("stack.yaml:")[2] for line in str(caught.value).splitlines()]
    assert [line.partition(" this host")[0] for line in faults] == [
        "4:28: containers[0].limits.pids:",
        "5:30: containers[1].limits.memory:",
        "5:47: containers[1].limits.memory_high:",
        "5:57: containers[1].oom:",
    ]
    assert all(line.endswith("or leave the limit out, or say enforce: best-effort") for line in faults)


def test_limits_are_in_the_configuration(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = Hierarchy(2, frozenset({"cpu", "cpuset", "io", "memory", "pids"}), "/nowhere", writable=True)
    monkeypatch.setattr("supervisor.compile.compiler.discover", lambda: Hierarchies((every,)))
    stack = compiled(tmp_path, image, LIMITED + BEST + "  - {id: d, enforce: best-effort}\n")
    assert [entry.config.limits for entry in stack.entries] == [
        Limits(pids=7),
        Limits(memory_bytes=1 << 20, memory_high_bytes=1 << 20, oom_kill_group=True),
        Limits(pids=7, best_effort=True),
        Limits(),
    ]
