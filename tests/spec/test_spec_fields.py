"""Each field's faults: the line, the column, the path, what was expected, and the nearest word."""

from collections.abc import Callable

import pytest

FaultsOf = Callable[[str | bytes], list[str]]

SECONDS = "as a number or such as 500ms, 10s, 1m30s or 2h"
POLICIES = "no, on-failure, on-failure:N (at least 1), always or unless-stopped"
SIGNALS = "a signal such as SIGTERM, USR1 or SIGRTMIN+3, or a number from 1 to 64"
TOP_KEYS = "name, containers, logs, networks, volumes, secrets, configs, defaults, include"
RLIMITS = "a whole number from 0 to 9223372036854775807, or unlimited"
NEEDS = "{condition: …, restart: …, required: …, timeout_s: …}"
CONDITIONS = "started, ready, healthy or completed"
PROBES = "exactly one of log, tcp, http, exec, file, notify"
WAITS = "seconds from 0.01 to 86400, as a number or such as 500ms, 10s, 1m30s or 2h"
LIMITS = "seconds from 0.01 to 31536000, as a number or such as 500ms, 10s, 1m30s or 2h"
CODES = "a number from 0 to 255, a range such as 0-255, or a list of them"
URL = "a URL such as http://localhost:8080/health"
COMPLETED = '"service_completed_successfully"'
INSTEAD = "http, or exec with a client of the container's own"
STATUSES = "a number from 100 to 599, a range such as 100-599, or a list of them"
UNCLOSED = "missing ), unterminated subpattern at position 0"
SPEAKS = "how often it must speak at least: {notify: true, watchdog_s: 30}"
LATER = "${PYSUP_REPLICA} and ${PYSUP_ID} are for cmd, stop_cmd, env, hostname, workdir, output.prefix, exec and file"
SIZES = "a size from 64k to 1024t, such as 512k, 256MiB or 1g"
BARE = "uid[:gid] or name[:group]"
BALANCED = "balanced quotes, or a list of arguments"
COMMANDS = "a list of arguments, or a string"
LETTERS = "up to 63 of a-z A-Z 0-9 _ . -, the first one a letter or digit"
MISSING_CMD = "a list of arguments or a string, here or in the defaults"
HOSTS = "a host name: letters, digits, - and ., at most 64 of them"
USERNS = "auto, host, or {uid: [INSIDE:OUTSIDE:COUNT, …], gid: …}"
EXTENT = "INSIDE:OUTSIDE:COUNT, ids from 0 to 4294967294"
OCTAL = "octal digits from 000 to 777, such as 022"

FAULTS = [
    ("restart: sometimes", f'6:14: restart: is "sometimes", expected {POLICIES}'),
    ("restart: Alwys", f'6:14: restart: is "Alwys", expected {POLICIES}; did you mean "always"?'),
    ("restart: on-failure:0", f'6:14: restart: is "on-failure:0", expected {POLICIES}; did you mean "on-failure"?'),
    (
        "restart: on-failure:many",
        f'6:14: restart: is "on-failure:many", expected {POLICIES}; did you mean "on-failure"?',
    ),
    ("restart: [no]", f"6:14: restart: is a list, expected {POLICIES}"),
    ("restart:", f"6:13: restart: is empty, expected {POLICIES}"),
    ("backoff: {initial_s: -1}", f'6:26: backoff.initial_s: is "-1", expected seconds from 0 to 31536000, {SECONDS}'),
    ("backoff: {max_s: .nan}", f'6:22: backoff.max_s: is ".nan", expected seconds from 0 to 31536000, {SECONDS}'),
    ("backoff: {max_s: .inf}", f'6:22: backoff.max_s: is ".inf", expected seconds from 0 to 31536000, {SECONDS}'),
    ("backoff: {max_s: true}", f'6:22: backoff.max_s: is "true", expected seconds from 0 to 31536000, {SECONDS}'),
    ("backoff: {initial_s: 60}", "6:14: backoff.max_s: is 30, expected at least initial_s, which is 60"),
    ("backoff: {initial_s: 5, max_s: 4}", "6:36: backoff.max_s: is 4, expected at least initial_s, which is 5"),
    ("backoff: {factor: 0.5}", '6:23: backoff.factor: is "0.5", expected a number of at least 1'),
    ("backoff: {factor: 1e999}", '6:23: backoff.factor: is "1e999", expected a number of at least 1'),
    ("backoff: {factor: '2'}", '6:23: backoff.factor: is "2", expected a number of at least 1, without quotes'),
    ("backoff: {jitter: 1.5}", '6:23: backoff.jitter: is "1.5", expected a number from 0 to 1'),
    ("backoff: {inital_s: 1}", '6:15: backoff.inital_s: unknown key; did you mean "initial_s"?'),
    ("backoff: 3", '6:14: backoff: is "3", expected a mapping with initial_s, max_s, factor, jitter, reset_after_s'),
    ("stop_grace_s: soon", f'6:19: stop_grace_s: is "soon", expected seconds from 0 to 86400, {SECONDS}'),
    ("stop_grace_s: -1", f'6:19: stop_grace_s: is "-1", expected seconds from 0 to 86400, {SECONDS}'),
    ("stop_grace_s: 25h", f'6:19: stop_grace_s: is "25h", expected seconds from 0 to 86400, {SECONDS}'),
    ("stop_grace_s: 30s1m", f'6:19: stop_grace_s: is "30s1m", expected seconds from 0 to 86400, {SECONDS}'),
    ("stop_grace_s: 12:30:00", f'6:19: stop_grace_s: is "12:30:00", expected seconds from 0 to 86400, {SECONDS}'),
    ('stop_grace_s: ""', f'6:19: stop_grace_s: is "", expected seconds from 0 to 86400, {SECONDS}'),
    ("stop_signal: SIGTREM", f'6:18: stop_signal: is "SIGTREM", expected {SIGNALS}; did you mean "SIGTERM"?'),
    ("stop_signal: 0", '6:18: stop_signal: is "0", expected a signal\'s name, or its number from 1 to 64'),
    ("stop_signal: 65", '6:18: stop_signal: is "65", expected a signal\'s name, or its number from 1 to 64'),
    ("stop_signal: RTMIN+31", f'6:18: stop_signal: is "RTMIN+31", expected {SIGNALS}; did you mean "SIGRTMIN"?'),
    ("env: {A: }", '6:14: env.A: is empty, expected a value; "" is the empty one'),
    ("env: {A: null}", '6:14: env.A: is empty, expected a value; "" is the empty one'),
    ("env: {A: [1]}", "6:14: env.A: is a list, expected a string"),
    ('env: {"": x}', '6:11: env[""]: variable name "" is not valid, expected a name that is not empty, without ='),
    (
        'env: {"A=": x}',
        '6:11: env["A="]: variable name "A=" is not valid, expected a name that is not empty, without =',
    ),
    ('env: {A: "x\\0"}', "6:14: env.A: holds a NUL byte, expected a string"),
    ("env: [A]", '6:11: env[0]: is "A", expected NAME=value: nothing is taken from the host\'s environment'),
    ("env: [=x]", '6:11: env[0]: variable name "" is not valid, expected a name that is not empty, without ='),
    ("env: [A=1, B=2, A=3]", '6:21: env[2]: gives "A" a second time, expected each once'),
    ("env: text", '6:10: env: is "text", expected a mapping of names to values, or a list of NAME=value'),
    ("workdir: srv", '6:14: workdir: is "srv", expected an absolute path in the container'),
    ("workdir: " + "/x" * 2048, f'6:14: workdir: is "{"/x" * 20}…", expected an absolute path in the container'),
    ("user: -1", '6:11: user: is "-1", expected uid[:gid] or name[:group]'),
    (
        "user: 0:4294967295",
        f'6:11: user: is "0:4294967295", expected {BARE} with ids from 0 to 4294967294',
    ),
    ('user: "a b"', '6:11: user: is "a b", expected uid[:gid] or name[:group]'),
    ('user: "a:"', '6:11: user: is "a:", expected uid[:gid] or name[:group]'),
    ("hostname: a_b", f'6:15: hostname: is "a_b", expected {HOSTS}'),
    (
        f"hostname: {'a' * 32}.{'b' * 32}",
        f'6:15: hostname: is "{"a" * 32}.{"b" * 7}…", expected {HOSTS}',
    ),
    ("replicas: -1", '6:15: replicas: is "-1", expected a whole number from 0 to 10000'),
    ("replicas: 10001", '6:15: replicas: is "10001", expected a whole number from 0 to 10000'),
    ('replicas: "3"', '6:15: replicas: is "3", expected a whole number from 0 to 10000, without quotes'),
    ("replicas: 010", '6:15: replicas: is "010", expected a whole number from 0 to 10000'),
    ("replicas: true", '6:15: replicas: is "true", expected a whole number from 0 to 10000'),
    ("storage: memry", '6:14: storage: is "memry", expected disk or memory; did you mean "memory"?'),
    ("storage_size: 1g", "6:19: storage_size: has no meaning with storage: disk, expected storage: memory beside it"),
    ("storage: memory\n    storage_size: 1k", f'7:19: storage_size: is "1k", expected {SIZES}'),
    ("storage: memory\n    storage_size: 2000t", f'7:19: storage_size: is "2000t", expected {SIZES}'),
    ("storage: memory\n    storage_size: lots", f'7:19: storage_size: is "lots", expected {SIZES}'),
    ("keep: yes", '6:11: keep: is "yes", expected true or false; did you mean "true"?'),
    ("keep: off", '6:11: keep: is "off", expected true or false; did you mean "false"?'),
    ('keep: "true"', '6:11: keep: is "true", expected true or false, without quotes'),
    ("keep: 1", '6:11: keep: is "1", expected true or false'),
    ("network: hots", '6:14: network: is "hots", expected host, none, bridge or container:ID; did you mean "host"?'),
    ("cap_add: NET_ADMIN", '6:14: cap_add: is "NET_ADMIN", expected a list of capabilities, such as [NET_ADMIN]'),
    (
        "cap_add: [CHOWN, net_admn]",
        '6:22: cap_add[1]: is "net_admn", expected a capability, such as NET_ADMIN, or ALL; did you mean "NET_ADMIN"?',
    ),
    ("umask: 8", f'6:12: umask: is "8", expected {OCTAL}'),
    ("umask: 0o1000", f'6:12: umask: is "0o1000", expected {OCTAL}'),
    ("umask: 0x12", f'6:12: umask: is "0x12", expected {OCTAL}'),
    ("ulimits: {nofiles: 1}", '6:15: ulimits.nofiles: unknown limit; did you mean "nofile"?'),
    ("ulimits: {nofile: -2}", f'6:23: ulimits.nofile: is "-2", expected {RLIMITS}'),
    (
        "ulimits: {nofile: unlimted}",
        f'6:23: ulimits.nofile: is "unlimted", expected {RLIMITS}; did you mean "unlimited"?',
    ),
    (
        "ulimits: {core: {soft: 2, hard: 1}}",
        "6:21: ulimits.core: has its soft limit above its hard one, expected soft at most hard",
    ),
    (
        "ulimits: {core: {soft: unlimited, hard: 1}}",
        "6:21: ulimits.core: has its soft limit above its hard one, expected soft at most hard",
    ),
    ("ulimits: {core: {soft: 1}}", "6:21: ulimits.core: is without its hard limit, expected {soft: …, hard: …}"),
    ("ulimits: {core: {soft: x, hard: 1}}", f'6:28: ulimits.core.soft: is "x", expected {RLIMITS}'),
    ("ulimits: {as: 1, RLIMIT_AS: 2}", '6:22: ulimits.RLIMIT_AS: gives "as" a second time, expected each once'),
    ("ulimits: [as]", "6:14: ulimits: is a list, expected a mapping, such as {nofile: 1024}"),
    (
        "depends_on: db",
        f'6:17: depends_on: is "db", expected a list of ids, or a mapping of ids to {NEEDS}',
    ),
    ("depends_on: [db, db]", '6:22: depends_on[1]: gives "db" a second time, expected each once'),
    ("depends_on: {db: started}", f'6:22: depends_on.db: is "started", expected {NEEDS}'),
    (
        "depends_on: {db: {condition: service_started}}",
        f'6:34: depends_on.db.condition: is "service_started", expected {CONDITIONS}; did you mean "started"?',
    ),
    (
        "depends_on: {db: {condition: service_completed_successfully}}",
        f'6:34: depends_on.db.condition: is {COMPLETED}, expected {CONDITIONS}; did you mean "completed"?',
    ),
    (
        "depends_on: {db: {condition: started, x: 1}}",
        "6:43: depends_on.db.x: unknown key, expected one of condition, restart, required, timeout_s",
    ),
    ("depends_on: {db: {timeout_s: 0}}", f'6:34: depends_on.db.timeout_s: is "0", expected {LIMITS}'),
    (
        "depends_on: {db: {restart: yes}}",
        '6:32: depends_on.db.restart: is "yes", expected true or false; did you mean "true"?',
    ),
    (
        "depends_on: {db: {condition: ready}}",
        '6:34: depends_on.db.condition: is ready, but "db" has no ready check, expected ready: in it',
    ),
    (
        "depends_on: {db: {condition: healthy}}",
        '6:34: depends_on.db.condition: is healthy, but "db" has no health check, expected health: in it',
    ),
    ("ready: {}", f"6:12: ready: is without a probe, expected {PROBES}"),
    ("ready: {tcp: 1, file: /a}", f"6:12: ready: has tcp and file, expected {PROBES}"),
    ("ready: {tcp: 0}", '6:18: ready.tcp: is "0", expected a port from 1 to 65535'),
    ("ready: {tcp: '80'}", '6:18: ready.tcp: is "80", expected a port from 1 to 65535, without quotes'),
    ("ready: {tpc: 80}", '6:13: ready.tpc: unknown key; did you mean "tcp"?'),
    ("ready: {tcp: 80, status: 200}", "6:30: ready.status: has no meaning without http, expected http: URL beside it"),
    ("ready: {tcp: 80, timeout_s: 0}", f'6:33: ready.timeout_s: is "0", expected {WAITS}'),
    (
        "ready: {tcp: 80, interval_s: 1}",
        "6:22: ready.interval_s: unknown key, expected one of log, tcp, http, exec, file, notify, status, timeout_s",
    ),
    ("ready: {http: 'localhost:80'}", f'6:19: ready.http: is "localhost:80", expected {URL}'),
    ("ready: {http: 'http://localhost:99999/'}", f'6:19: ready.http: is "http://localhost:99999/", expected {URL}'),
    ("ready: {http: 'http://a@localhost/'}", f'6:19: ready.http: is "http://a@localhost/", expected {URL}'),
    (
        'ready: {http: "http://localhost/\\r\\nX: y"}',
        f'6:19: ready.http: is "http://localhost/\\r\\nX: y", expected {URL}',
    ),
    (
        "ready: {http: 'https://localhost/'}",
        f"6:19: ready.http: is https, which is not tried from outside, expected {INSTEAD}",
    ),
    (
        "ready: {http: 'http://db:80/'}",
        '6:19: ready.http: "db" is looked up from inside the container\'s network, expected localhost or an address',
    ),
    (
        "ready: {http: 'http://localhost/', status: 99}",
        '6:48: ready.status: is "99", expected a number from 100 to 599, a range such as 100-599, or a list of them',
    ),
    (
        "ready: {http: 'http://localhost/', status: [200, 399-200]}",
        f'6:54: ready.status[1]: is "399-200", expected {STATUSES}',
    ),
    (
        "ready: {log: '('}",
        f'6:18: ready.log: "(" is no regular expression: {UNCLOSED}, expected one as Python\'s re has them',
    ),
    ("ready: {file: a}", '6:19: ready.file: is "a", expected an absolute path in the container'),
    ("ready: {exec: [a, {}]}", "6:23: ready.exec[1]: is a mapping, expected a string"),
    ("ready: {notify: false}", "6:21: ready.notify: is false, expected true, or another probe"),
    ("ready: no", f'6:12: ready: is "no", expected a mapping with {PROBES}'),
    ("health: no", f'6:13: health: is "no", expected a mapping with {PROBES}, or none'),
    ("health: {interval_s: 1}", f"6:13: health: is without a probe, expected {PROBES}"),
    ("health: {tcp: 80, interval_s: 0}", f'6:35: health.interval_s: is "0", expected {WAITS}'),
    ("health: {tcp: 80, retries: 0}", '6:32: health.retries: is "0", expected a whole number from 1 to 999999'),
    (
        "health: {tcp: 80, on_unhealthy: stp}",
        '6:37: health.on_unhealthy: is "stp", expected restart, stop or ignore; did you mean "stop"?',
    ),
    (
        "health: {tcp: 80, watchdog_s: 3}",
        "6:35: health.watchdog_s: has no meaning without notify, expected notify: true beside it",
    ),
    (
        "health: {notify: true}",
        f"6:13: health: is without watchdog_s, expected {SPEAKS}",
    ),
    ("healthcheck: {}", '6:5: healthcheck: unknown key; did you mean "health"?'),
    (
        "restart: {}",
        "6:14: restart: is without a policy, expected {policy: …, max_retries: …, max_restarts: …, window_s: …}",
    ),
    (
        "restart: {policy: allways}",
        '6:23: restart.policy: is "allways", expected no, on-failure, always or unless-stopped; did you mean "always"?',
    ),
    (
        "restart: {policy: always, max_retries: 3}",
        "6:44: restart.max_retries: has no meaning with policy: always, expected policy: on-failure",
    ),
    (
        "restart: {policy: no, max_restarts: 3}",
        "6:41: restart.max_restarts: has no meaning with policy: no, expected another policy",
    ),
    (
        "retries: 3\n    restart: always",
        "6:14: retries: is 3 beside restart: always, expected restart: no or on-failure",
    ),
    (
        "retries: 3\n    restart: on-failure:2",
        "6:14: retries: is 3 beside restart: on-failure:2, expected restart: no or on-failure",
    ),
    (
        "restart_on: {oom: true}",
        "6:17: restart_on: has no meaning with restart: no, expected another policy, or retries",
    ),
    (
        "restart: always\n    restart_on: {}",
        "7:17: restart_on: names no end, expected {exit_codes: [1, 3-5], signals: [SIGSEGV], oom: true}",
    ),
    ("restart: always\n    restart_on: {exit_codes: 256}", f'7:30: restart_on.exit_codes: is "256", expected {CODES}'),
    (
        "restart: always\n    restart_on: {signals: [SEGV, x]}",
        f'7:34: restart_on.signals[1]: is "x", expected {SIGNALS}; did you mean "SIGXFSZ"?',
    ),
    ("success_codes: []", "6:20: success_codes: names no exit status, expected 0, or a list such as [0, 143]"),
    ("success_codes: [0, 5-3]", f'6:24: success_codes[1]: is "5-3", expected {CODES}'),
    ("timeout_s: 0", f'6:16: timeout_s: is "0", expected {LIMITS}'),
    ("stop_cmd: ['']", f"6:15: stop_cmd: is without a program: its first word is empty, expected {COMMANDS}"),
    (
        "output: {prefix: [a]}",
        "6:22: output.prefix: is a list, expected true, false, or a text of at most 63 characters on one line",
    ),
    (
        'output: {prefix: "a\\nb"}',
        '6:22: output.prefix: is "a\\nb", expected true, false, or a text of at most 63 characters on one line',
    ),
    ("output: {colour: true}", "6:14: output.colour: unknown key, expected one of prefix, timestamps"),
    ("logs: {driver: syslog}", '6:20: logs.driver: is "syslog", expected file, raw, none or stdout-json'),
    (
        "logs: {max_size: 1k}",
        '6:22: logs.max_size: is "1k", expected a size from 64k to 1024t, such as 512k, 256MiB or 1g',
    ),
    ("logs: {max_files: 0}", '6:23: logs.max_files: is "0", expected a whole number from 1 to 1000'),
    (
        "logs: {size: 1m}",
        '6:12: logs.size: unknown key; did you mean "max_size"?',
    ),
    (
        "logs: {driver: raw, overflow: drop}",
        "6:35: logs.overflow: is drop beside driver: raw, whose lines nobody counts, expected block, or driver: file",
    ),
    (
        "logs: {driver: raw}\n    ready: {log: up}",
        "6:11: logs: has driver: raw, with which no line is looked at, beside ready.log, expected driver: file",
    ),
    ("userns: yes", f'6:13: userns: is "yes", expected {USERNS}'),
    ("userns: Auto", f'6:13: userns: is "Auto", expected {USERNS}; did you mean "auto"?'),
    ("userns: {gid: ['0:1:1']}", f"6:13: userns: is without uid, expected {USERNS}"),
    ("userns: {uid: ['0:1']}", f'6:20: userns.uid[0]: is "0:1", expected {EXTENT}'),
    ("userns: {uid: ['0:1:0']}", f'6:20: userns.uid[0]: is "0:1:0", expected {EXTENT}'),
    ("userns: {uid: ['0:4294967294:2']}", f'6:20: userns.uid[0]: is "0:4294967294:2", expected {EXTENT}'),
    ("userns: {uid: []}", "6:19: userns.uid: has 0 of them, expected 1 to 340"),
    ("userns: {uid: ['1:1:5']}", "6:19: userns.uid: is without root, expected one that begins with 0 inside"),
    (
        "userns: {uid: ['0:10:5', '5:14:1']}",
        "6:19: userns.uid: gives 14 twice, outside, expected each id once",
    ),
    ("userns: {uid: ['0:10:5', '4:90:1']}", "6:19: userns.uid: gives 4 twice, inside, expected each id once"),
    ("seccomp:", "6:13: seccomp: is empty, expected default, unconfined, or the path of a profile"),
    ("seccomp: [a]", "6:14: seccomp: is a list, expected default, unconfined, or the path of a profile"),
    (
        "update: {order: both}",
        '6:21: update.order: is "both", expected stop-first or start-first',
    ),
    ("update: {parallel: -1}", '6:24: update.parallel: is "-1", expected a whole number from 0 to 10000'),
    ("update: {delay: 1}", "6:14: update.delay: unknown key, expected one of order, parallel, on_failure, monitor_s"),
    ("output: true", '6:13: output: is "true", expected {prefix: …, timestamps: …}'),
    (
        "ulimits: {nofile: 0}",
        "6:23: ulimits.nofile: is 0, expected at least 1: without a descriptor it can't be started",
    ),
    (
        "ready: {tcp: '${PYSUP_REPLICA}'}",
        f'6:18: ready.tcp: is "${{PYSUP_REPLICA}}", expected a port from 1 to 65535; {LATER}',
    ),
    ("user: $PYSUP_ID", f'6:11: user: is "${{PYSUP_ID}}", expected {BARE}; {LATER}'),
    ("restrat: no", '6:5: restrat: unknown key; did you mean "restart"?'),
    ("command: x", '6:5: command: unknown key; did you mean "cmd"?'),
    ("environment: {}", '6:5: environment: unknown key; did you mean "env"?'),
    ("enviroment: {}", '6:5: enviroment: unknown key; did you mean "env"?'),
    ("mem_limit: 1g", '6:5: mem_limit: unknown key; did you mean "limits"?'),
    ("zzz: 1", "6:5: zzz: unknown key, expected one of those that docs/spec.md explains"),
]


@pytest.mark.parametrize(("field", "fault"), FAULTS, ids=[field[:40] for field, _ in FAULTS])
def test_a_fault_is_told_at_its_place_with_what_was_expected(faults_of: FaultsOf, field: str, fault: str) -> None:
    place, _, rest = fault.partition(": ")
    text = (
        f"containers:\n  - {{id: db, image: base, cmd: run}}\n  - id: web\n    image: base\n    cmd: run\n    {field}\n"
    )
    assert faults_of(text) == [f"stack.yaml:{place}: containers[1].{rest}"]


@pytest.mark.parametrize(
    ("cmd", "fault"),
    [
        (
            "'echo \"x'",
            f"4:10: containers[0].cmd: can't be split: no closing quotation, expected {BALANCED}",
        ),
        (
            "'a \\'",
            f"4:10: containers[0].cmd: can't be split: no escaped character, expected {BALANCED}",
        ),
        ("''", f"4:10: containers[0].cmd: is without a program, expected {COMMANDS}"),
        ("[]", f"4:10: containers[0].cmd: is without a program, expected {COMMANDS}"),
        (
            "['', x]",
            f"4:10: containers[0].cmd: is without a program: its first word is empty, expected {COMMANDS}",
        ),
        ("{a: b}", f"4:10: containers[0].cmd: is a mapping, expected {COMMANDS}"),
        ('[a, "b\\0"]', "4:14: containers[0].cmd[1]: holds a NUL byte, expected a string"),
        ("[a, null]", "4:14: containers[0].cmd[1]: is empty, expected a string"),
        (f"[a, {'b' * 131_072}]", "4:14: containers[0].cmd[1]: is 131072 bytes long, expected at most 131071"),
    ],
    ids=range(9),
)
def test_a_command_that_can_not_be_run_is_a_fault(faults_of: FaultsOf, cmd: str, fault: str) -> None:
    assert faults_of(f"containers:\n  - id: web\n    image: base\n    cmd: {cmd}\n") == [f"stack.yaml:{fault}"]


@pytest.mark.parametrize("container_id", ["-a", ".a", "a/b", "a b", "é", '""', "a" * 64])
def test_an_id_has_few_characters(faults_of: FaultsOf, container_id: str) -> None:
    shown = container_id[:40].strip('"') + "…" * (len(container_id) > 40)
    assert faults_of(f"containers: [{{id: {container_id}, image: base, cmd: run}}]") == [
        f'stack.yaml:1:19: containers[0].id: is "{shown}", expected {LETTERS}'
    ]


def test_what_is_missing_is_told_at_the_container(faults_of: FaultsOf) -> None:
    assert faults_of("containers:\n  - restart: no\n") == [
        "stack.yaml:2:5: containers[0].id: is missing, expected a name for the container",
        "stack.yaml:2:5: containers[0].image: is missing, expected the name of an image, here or in the defaults",
        f"stack.yaml:2:5: containers[0].cmd: is missing, expected {MISSING_CMD}",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: demo", "1:1: containers: is missing, expected a list of containers"),
        ("containers:", "1:12: containers: is empty, expected a list of at least one container"),
        ("containers: []", "1:13: containers: is without a container, expected a list of at least one container"),
        ("containers: {a: b}", "1:13: containers: is a mapping, expected a list of at least one container"),
        ("containers: [web]", '1:14: containers[0]: is "web", expected a mapping with id, image, cmd and others'),
    ],
)
def test_containers_are_a_list_of_mappings(faults_of: FaultsOf, text: str, fault: str) -> None:
    assert faults_of(text) == [f"stack.yaml:{fault}"]


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("name: Demo", 'name: is "Demo", expected up to 63 of a-z 0-9 _ . -, the first one a letter or digit'),
        ("services: []", "services: is a Compose file's, expected a spec: `pysup import compose FILE` makes one of it"),
        ("default: {}", 'default: unknown key; did you mean "defaults"?'),
        (
            "source: x",
            f"source: unknown key, expected one of {TOP_KEYS}",
        ),
    ],
)
def test_few_keys_are_known_at_the_top(faults_of: FaultsOf, key: str, fault: str) -> None:
    column = 7 if key.startswith("name") else 1
    assert faults_of(f"containers: [{{id: a, image: base, cmd: run}}]\n{key}") == [f"stack.yaml:2:{column}: {fault}"]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(faults_of: FaultsOf) -> None:
    text = (
        "name: Demo\n"
        "defaults: {restart: allways}\n"
        "containers:\n"
        "  - {id: web, image: base, cmd: run, depends_on: [dbb], keep: yes, keep: no}\n"
        "  - {id: db, image: base, env: {A: , B: }, depends_on: [web, db]}\n"
        "  - {id: web, image: base, cmd: run}\n"
    )
    assert [line.split(": ")[:2] for line in faults_of(text)] == [
        ["stack.yaml:1:7", "name"],
        ["stack.yaml:2:21", "defaults.restart"],
        ["stack.yaml:4:51", "containers[0].depends_on[0]"],
        ["stack.yaml:4:63", "containers[0].keep"],
        ["stack.yaml:4:68", "containers[0].keep"],
        ["stack.yaml:5:5", "containers[1].cmd"],
        ["stack.yaml:5:36", "containers[1].env.A"],
        ["stack.yaml:5:41", "containers[1].env.B"],
        ["stack.yaml:5:62", "containers[1].depends_on[1]"],
        ["stack.yaml:6:10", "containers[2].id"],
    ]


def test_a_file_that_is_all_faults_is_told_of_in_part(faults_of: FaultsOf) -> None:
    faults = faults_of("containers:\n" + "  - 5\n" * 1000)
    assert len(faults) == 201
    assert faults[-1] == "stack.yaml:202:5: 800 more faults from here on: mend those above first"


def test_a_message_is_one_line_that_no_terminal_obeys(faults_of: FaultsOf) -> None:
    fault = '"\\e[31m\\nred\\u202e"'
    assert faults_of(f"containers: [{{id: a, image: base, cmd: run, restart: {fault}}}]") == [
        f'stack.yaml:1:54: containers[0].restart: is "\\u001b[31m\\nred\\u202e", expected {POLICIES}'
    ]
