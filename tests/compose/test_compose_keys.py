"""Key by key: what it becomes, or what is told of it."""

from collections.abc import Callable

import pytest
import yaml

from supervisor.compose import Converted
from supervisor.compose.convert import TOP
from supervisor.compose.kept import KEPT
from supervisor.compose.keys import DEPLOY, SERVICE

Container = Callable[[str], dict[str, object]]
Import = Callable[[str], Converted]
Notes = Callable[[str], list[str]]

# The names in schema/compose-spec.json of the compose-spec, and pre_start, which only its text has.
SERVICE_KEYS = """
    annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name cpu_count
    cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec depends_on
    deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment expose
    extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels
    links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks
    oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_start pre_stop privileged profiles
    provider pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt shm_size stdin_open
    stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes
    volumes_from working_dir
"""
DEPLOY_KEYS = "endpoint_mode labels mode placement replicas resources restart_policy rollback_config update_config"
TOP_KEYS = "configs include models name networks secrets services version volumes"


def test_the_tables_have_every_key_of_compose() -> None:
    assert sorted(SERVICE) == sorted(SERVICE_KEYS.split())
    assert sorted(DEPLOY) == sorted(DEPLOY_KEYS.split())
    assert {*TOP, *KEPT, "name", "networks", "services", "version"} == set(TOP_KEYS.split())


DROPPED = sorted(key for key, rule in SERVICE.items() if isinstance(rule, str) and key != "provider")


@pytest.mark.parametrize("key", DROPPED)
def test_what_has_no_rule_is_told_with_its_reason(key: str, notes: Notes, container: Container) -> None:
    assert container(f"{key}: [something]") == {}
    text = f"services:\n  web:\n    image: base\n    command: run\n    network_mode: none\n    {key}: [something]\n"
    assert f"6:5: services.web.{key}: dropped: {SERVICE[key]}" in notes(text)


@pytest.mark.parametrize("key", DROPPED)
@pytest.mark.parametrize("value", ["", "false", "[]", "{}"])
def test_what_asks_for_nothing_is_not_told(key: str, value: str, notes: Notes) -> None:
    text = f"services:\n  web:\n    image: base\n    entrypoint: run\n    network_mode: none\n    {key}: {value}\n"
    assert [note for note in notes(text) if "dropped" in note and key != "build"] == []


BECOMES = [
    ("mem_limit: 512m", {"limits": {"memory": "512m"}}),
    ("mem_limit: 512m\nmemswap_limit: 1g", {"limits": {"memory": "512m", "swap": 512 << 20}}),
    ("mem_limit: 512m\nmemswap_limit: -1\npids_limit: -1", {"limits": {"memory": "512m"}}),
    ("mem_limit: $MEMORY\ncpus: '1.5'", {"limits": {"memory": "${MEMORY:-}", "cpus": 1.5}}),
    ("pids_limit: 100\ncpuset: '0,1'", {"limits": {"pids": 100, "cpuset": "0,1"}}),
    ("cpu_quota: 50000", {"limits": {"cpus": 0.5}}),
    ("cpu_quota: 50000\ncpu_period: 25000", {"limits": {"cpus": 2.0}}),
    ("cpu_shares: 512", {"limits": {"cpu_weight": 50}}),
    (
        "blkio_config: {device_read_bps: [{path: /d, rate: 12mb}], device_write_iops: [{path: /d, rate: 5}]}",
        {"limits": {"io": [{"device": "/d", "rbps": "12mb", "wiops": 5}]}},
    ),
    (
        "mem_limit: 1g\ndeploy: {resources: {limits: {cpus: '0.50', memory: 50M, pids: 9}}}",
        {"limits": {"memory": "50M", "cpus": 0.5, "pids": 9}},
    ),
    ("mem_limit: 1g\ncpus: nonsense", {"limits": {"memory": "1g"}}),
    ("working_dir: /srv", {"workdir": "/srv"}),
    ("user: 1000:1000", {"user": "1000:1000"}),
    ("hostname: web.example.com", {"hostname": "web.example.com"}),
    ("init: yes", {"init": True}),
    ('init: "true"', {"init": True}),
    ("init: ${INIT:-true}", {"init": "${INIT:-true}"}),
    ("restart: always", {"restart": "always"}),
    ("restart: on-failure:0", {"restart": "on-failure"}),
    ("restart: on-failure:3", {"restart": "on-failure:3"}),
    ("restart: ${RESTART}", {"restart": "${RESTART:-}"}),
    ("scale: 3", {"replicas": 3}),
    ("scale: 3\ndeploy: {replicas: 2}", {"replicas": 2}),
    ("deploy: {replicas: 2}\nscale: 3", {"replicas": 2}),
    ("stop_signal: SIGUSR1", {"stop_signal": "SIGUSR1"}),
    ("stop_grace_period: 1m30s", {"stop_grace_s": "1m30s"}),
    ("stop_grace_period: 1s500000us", {"stop_grace_s": 1.5}),
    ("stop_grace_period: ${GRACE:-10s}", {"stop_grace_s": "${GRACE:-10s}"}),
    ("network_mode: none", {"network": "none"}),
    ("network_mode: bridge", {"network": "bridge"}),
    ("network_mode: macvlan", {}),
    ("networks: [default]", {"networks": ["default"]}),
    ("networks: {default: , x: {aliases: [a], priority: 1}}", {"networks": {"default": {}, "x": {"aliases": ["a"]}}}),
    ("networks: {default: }", {"networks": ["default"]}),
    ("ports: ['80:80', '1:x', 53/udp]", {"ports": ["80:80", "53/udp"]}),
    (
        "ports: [{target: 80, published: '8080', name: web, app_protocol: http}]",
        {"ports": [{"target": 80, "published": "8080"}]},
    ),
    ("expose: [80]", {}),
    ("profiles: [debug]", {"profiles": ["debug"]}),
    ("cap_add: [CAP_SYS_TIME, net_admin]", {"cap_add": ["CAP_SYS_TIME", "net_admin"]}),
    ("userns_mode: host", {"userns": "host"}),
    ("userns_mode: auto", {"userns": "auto"}),
    ("security_opt: [seccomp:unconfined, no-new-privileges:true]", {"seccomp": "unconfined"}),
    ("security_opt: ['seccomp=./p.json', 'seccomp=builtin']", {"seccomp": "default"}),
    ("security_opt: ['seccomp:p.json']", {"seccomp": "p.json"}),
    ("ulimits: {nofile: 1024, core: -1}", {"ulimits": {"nofile": 1024, "core": -1}}),
    ("ulimits: {nofile: {soft: 10, hard: 20}}", {"ulimits": {"nofile": {"soft": 10, "hard": 20}}}),
    ("volumes: ['./a:/a:ro', 'v:/v', /x]", {"volumes": ["./a:/a:ro", "v:/v", "/x"]}),
    ("volumes: ['./a:/a:ro,z', '$A:/b']", {"volumes": ["./a:/a:ro", "${A:-}:/b"]}),
    (
        "volumes: [{type: bind, source: a, target: /a, consistency: cached}, {type: tmpfs, target: /t}]",
        {"volumes": [{"type": "bind", "source": "./a", "target": "/a"}, {"type": "tmpfs", "target": "/t"}]},
    ),
    ("volumes: ['./a:/proc/a', './b:/b']", {"volumes": ["./b:/b"]}),
    ("tmpfs: /run", {"tmpfs": "/run"}),
    ("tmpfs: ['/run:size=1m']", {"tmpfs": ["/run:size=1m"]}),
    ("secrets: [a, {source: b, mode: 0440}]", {"secrets": ["a", {"source": "b", "mode": 288}]}),  # YAML 1.1: octal
    ("configs: [{source: b, target: /etc/b}]", {"configs": [{"source": "b", "target": "/etc/b"}]}),
    ("read_only: true", {"read_only": True}),
    ("devices: [/dev/fuse, '/dev/sda:/dev/sda:r']", {"devices": ["/dev/fuse", "/dev/sda:/dev/sda:r"]}),
    ("shm_size: 1gb", {"shm_size": "1gb"}),
    ("sysctls: {net.core.somaxconn: 1024, kernel.panic: 1}", {"sysctls": {"net.core.somaxconn": 1024}}),
    ("sysctls: [net.core.somaxconn=1024]", {"sysctls": ["net.core.somaxconn=1024"]}),
    ("extra_hosts: ['a:1.2.3.4']", {"extra_hosts": ["a:1.2.3.4"]}),
    ("dns: 1.1.1.1", {"dns": "1.1.1.1"}),
    ("dns_search: [a, b]", {"dns_search": ["a", "b"]}),
    ("dns_opt: [rotate]", {"dns_opt": ["rotate"]}),
    (
        "logging: {driver: json-file, options: {max-size: 10m, max-file: '5', compress: 'true', mode: non-blocking}}",
        {"logs": {"driver": "file", "max_size": "10m", "max_files": 5, "compress": True, "overflow": "drop"}},
    ),
    ("logging: {driver: none}", {"logs": {"driver": "none"}}),
    ("logging: {options: {max-size: $SIZE, tag: web}}", {"logs": {"max_size": "${SIZE:-}"}}),
    ("logging: {driver: syslog}", {}),
    ("logging: {options: {max-size: 1k}}", {}),
    ("logging: {options: {mode: sometimes}}", {}),
    ("env_file: a.env", {"env_file": "a.env"}),
    ("env_file: [a.env, {path: b.env}]", {"env_file": ["a.env", "b.env"]}),
    ("env_file: [{path: b.env, required: false}]", {"env_file": [{"path": "b.env", "required": False}]}),
    ("environment: {A: 1, B: , C: $C}", {"env": {"A": 1, "B": "${B:-}", "C": "${C:-}"}}),
    ("environment: [A=1, B, A=2]", {"env": {"A": "2", "B": "${B:-}"}}),
    ("environment: [$A=1, B]", {"env": ["${A:-}=1", "B=${B:-}"]}),
    ("pre_stop: [{command: drain --all}]", {"stop_cmd": ["drain", "--all"]}),
    ("deploy: {restart_policy: {}}", {"restart": "always"}),
    ("restart: always\ndeploy: {restart_policy: {condition: none}}", {"restart": False}),  # YAML 1.1: no
    (
        "deploy: {restart_policy: {condition: on-failure, max_attempts: 3, delay: 5s, window: 2m}}",
        {"restart": "on-failure:3", "backoff": {"initial_s": "5s", "max_s": "5s", "reset_after_s": "2m"}},
    ),
    (
        "deploy: {restart_policy: {max_attempts: 3}}",
        {"restart": {"policy": "always", "max_restarts": 3, "window_s": 60}},
    ),
    (
        "deploy: {update_config: {order: start-first, parallelism: 2, failure_action: rollback, monitor: 5s}}",
        {"update": {"order": "start-first", "parallel": 2, "on_failure": "rollback", "monitor_s": "5s"}},
    ),
    ("x-mine: {a: [1]}", {"x-mine": {"a": [1]}}),
]


@pytest.mark.parametrize(("keys", "expected"), BECOMES, ids=[keys for keys, _ in BECOMES])
def test_what_a_key_becomes(keys: str, expected: dict[str, object], container: Container) -> None:
    assert container(keys) == expected


CHECK = {"timeout_s": 30, "start_period_s": 0, "on_unhealthy": "ignore"}
CHECKS = [
    ("{test: curl a || exit 1}", {"exec": ["/bin/sh", "-c", "curl a || exit 1"], "start_interval_s": 30}),
    ("{test: [CMD, curl, a]}", {"exec": ["curl", "a"], "start_interval_s": 30}),
    ("{test: [CMD-SHELL, curl a]}", {"exec": ["/bin/sh", "-c", "curl a"], "start_interval_s": 30}),
    ("{test: a, interval: 5s}", {"exec": ["/bin/sh", "-c", "a"], "interval_s": "5s", "start_interval_s": "5s"}),
    ("{test: a, start_period: 9s}", {"exec": ["/bin/sh", "-c", "a"], "start_period_s": "9s", "start_interval_s": 5}),
    ("{test: a, start_interval: 1s}", {"exec": ["/bin/sh", "-c", "a"], "start_interval_s": 30}),
    (
        "{test: a, timeout: 0s, retries: 2}",
        {"exec": ["/bin/sh", "-c", "a"], "retries": 2, "start_interval_s": 30},
    ),
]


@pytest.mark.parametrize(("check", "expected"), CHECKS, ids=[check for check, _ in CHECKS])
def test_a_health_check_is_what_the_engine_would_do(
    check: str, expected: dict[str, object], container: Container
) -> None:
    assert container(f"healthcheck: {check}") == {"health": {**CHECK, **expected}}


@pytest.mark.parametrize("check", ["{test: [NONE]}", "{test: NONE, disable: true}", "{disable: true}", "{test: []}"])
def test_no_health_check(check: str, container: Container) -> None:
    assert container(f"healthcheck: {check}") == {}


COMMANDS = [
    ("command: run --fast", "run --fast"),
    ("command: [run, --fast]", ["run", "--fast"]),
    ("entrypoint: enter", "enter"),
    ("entrypoint: enter\n    command: run it", "enter run it"),
    ("entrypoint: [enter]\n    command: run 'a b'", ["enter", "run", "a b"]),
    ("entrypoint: enter ${X:-a b}\n    command: [c]", ["enter", "${X:-a b}", "c"]),
    ('entrypoint: ""\n    command: [run]', ["run"]),
]


@pytest.mark.parametrize(("keys", "expected"), COMMANDS, ids=[keys for keys, _ in COMMANDS])
def test_entrypoint_and_command_are_one(keys: str, expected: object, imported: Import) -> None:
    text = imported(f"services:\n  web:\n    image: base\n    {keys}\n").text
    assert yaml.safe_load(text)["containers"][0]["cmd"] == expected


@pytest.mark.parametrize("keys", ["command:", "command: []", "entrypoint: []", "command: '\"a'", "command: {a: b}"])
def test_a_command_that_is_not_known_is_asked_for(keys: str, imported: Import) -> None:
    converted = imported(f"services:\n  my-web:\n    image: base\n    network_mode: none\n    {keys}\n")
    assert "${CMD_MY_WEB:?" in converted.text
    assert not converted.complete


def test_what_the_stack_has_is_kept(imported: Import, notes: Notes) -> None:
    text = """
volumes:
  db:
  old: {external: {name: before}}
  far: {driver: nfs, labels: {a: b}}
secrets: {a: {file: ./a}, b: {environment: B}, c: {external: true}}
configs: {d: {content: hello}}
services: {web: {image: base, command: run, network_mode: none}}
"""
    spec = yaml.safe_load(imported(text).text)
    assert spec["volumes"] == {"db": {}, "old": {"external": True, "name": "before"}, "far": {}}
    assert spec["secrets"] == {"a": {"file": "./a"}, "b": {"environment": "B"}}
    assert spec["configs"] == {"d": {"content": "hello"}}
    told = [note for note in notes(text) if "services" not in note]
    assert [note.split(": ")[1] for note in told] == ["volumes.far.driver", "secrets.c"]


TOPS = [
    ("", {"default": {}}),
    ("networks: {back: {internal: yes, driver: bridge}}", {"back": {"internal": True}}),
    (
        "networks: {six: {enable_ipv6: true, ipam: {config: [{subnet: 10.5.0.0/24, gateway: 10.5.0.1}]}}}",
        {"six": {"ipv6": True, "subnet": ["10.5.0.0/24"]}},
    ),
    ("networks: {old: {external: true, name: other}}", {"old": {}}),
]


@pytest.mark.parametrize(("top", "expected"), TOPS)
def test_networks_carry_over(top: str, expected: dict[str, object], imported: Callable[[str], Converted]) -> None:
    text = f"services: {{web: {{image: base, command: run}}}}\n{top}\n"
    assert yaml.safe_load(imported(text).text)["networks"] == expected


def test_a_service_may_share_anothers_network(imported: Callable[[str], Converted]) -> None:
    services = "{web: {image: a, command: a}, side: {image: a, command: a, network_mode: 'service:web'}}"
    containers = yaml.safe_load(imported(f"services: {services}\n").text)["containers"]
    assert [each.get("network") for each in containers] == [None, "container:web"]
