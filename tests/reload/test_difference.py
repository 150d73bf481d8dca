"""What differs between two stacks, and whether that needs a new run."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from stage import HEALTHY, entries, one

from runtime.cgroup.limits import Limits
from runtime.config import Attachment, Network, Port
from runtime.mounts import DATA, READ_ONLY, Bind, Device, Dns, MemoryFile, Tmpfs
from supervisor.core.checks import Health, Log, Ready, Tcp
from supervisor.entry import Compiled, Entry, OutputForm, StackNetwork
from supervisor.errors import StackError
from supervisor.reload.changes import Change
from supervisor.reload.difference import compared, difference
from supervisor.reload.report import render
from supervisor.reload.waves import Adapt, waves


def words(change: Change) -> list[str]:
    return list(map(str, change.fields))


def only(changes: Iterable[Change]) -> Change:
    (change,) = changes
    return change


def ids(found: Iterable[Entry]) -> list[str]:
    return [entry.id for entry in found]


def test_equal_stacks_do_not_differ() -> None:
    stack = Compiled("shop", tuple(entries("web", replicas=3)))
    changes = difference(stack, stack)
    assert changes.is_empty
    assert ids(changes.unchanged) == ["web.1", "web.2", "web.3"]
    assert waves(changes) == ()
    assert render(changes) == "3 unchanged\n"


def test_a_stack_of_another_name_is_another_stack() -> None:
    with pytest.raises(StackError, match="the stack is called b now, and a runs"):
        difference(Compiled("a", ()), Compiled("b", ()))


def test_more_replicas_are_added_and_the_others_left_alone() -> None:
    changes = compared(entries("web", replicas=2), entries("web", replicas=4))
    assert (ids(changes.added), ids(changes.unchanged)) == (["web.3", "web.4"], ["web.1", "web.2"])


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"argv": ("a", "b c")}, {"argv": ("a",)}, ["cmd: a 'b c' -> a"]),
        ({"env": (("PORT", "80"), ("A", "1"))}, {"env": (("PORT", "81"),)}, ["env.PORT: 80 -> 81", "env.A: 1 -> none"]),
        ({"lowers": ("/images/a",)}, {"lowers": ("/images/b",)}, ["image: /images/a -> /images/b"]),
        ({"memory_bytes": None}, {"memory_bytes": 4096}, ["storage_size: none -> 4096"]),
        ({"capabilities": 1}, {"capabilities": 3}, ["capabilities: CAP_CHOWN -> CAP_CHOWN CAP_DAC_OVERRIDE"]),
        ({"rlimits": ((7, 5, 9),)}, {"rlimits": ((7, 6, 9),)}, ["ulimits.nofile: 5:9 -> 6:9"]),
        (
            {"mounts": (Bind(source="/a", target="/x"),)},
            {"mounts": (Bind(source="/b", target="/x", attributes=DATA | READ_ONLY), Tmpfs(target="/t", uid=1))},
            [
                "volumes./x: /a, nosuid, nodev, private -> /b, ro, nosuid, nodev, private",
                "volumes./t: none -> tmpfs, any size, mode 1777, of 1:0, nosuid, nodev, noexec",
            ],
        ),
        ({"hosts": ()}, {"hosts": (("a", "::1"),)}, ["extra_hosts.a: none -> ::1"]),
        ({"sysctls": (("a", "1"),)}, {"sysctls": (("a", "2"),)}, ["sysctls.a: 1 -> 2"]),
        ({}, {"devices": (Device("/dev/a", "/dev/b"),)}, ["devices: none -> /dev/a:/dev/b"]),
        ({}, {"dns": Dns(("::1",))}, ["dns.servers: none -> ::1"]),
        ({}, {"read_only": True}, ["read_only: false -> true"]),
        ({"keep": False, "directory": "/a"}, {"keep": True, "directory": "/b"}, ["keep: false -> true"]),
    ],
)
def test_what_a_run_is_made_of_needs_a_new_run(
    before: Mapping[str, Any], after: Mapping[str, Any], told: list[str]
) -> None:
    changes = compared([one("web", config=before)], [one("web", config=after)])
    assert words(only(changes.replaced)) == told


def test_where_a_container_is_is_told_as_the_spec_has_it() -> None:
    here = {
        "network": Network.BRIDGE,
        "attachments": (Attachment("default", ("db",)),),
        "ports": (Port(80, host=8080), Port(53, "udp", 53, "::1")),
    }
    before, after = one("a"), one("a", config=here)
    assert words(only(compared([before], [after]).replaced)) == [
        "network: host -> bridge",
        "networks.default: none -> aliases db",
        "ports: none -> 8080:80/tcp, [::1]:53:53/udp",
    ]
    shared = one("a", config={"network": Network.CONTAINER, "shares": "b"})
    assert words(only(compared([before], [shared]).replaced)) == ["network: host -> container:b"]


def test_networks_of_the_stack_are_told_first() -> None:
    first = Compiled("s", (one("a"),), networks=(StackNetwork("x"), StackNetwork("y")))
    then = Compiled("s", (one("a"),), networks=(StackNetwork("x", ipv6=True), StackNetwork("z", internal=True)))
    assert render(difference(first, then)) == (
        "~ network x: made anew (ipv6: none -> true)\n"
        "+ network z: new (internal: true)\n"
        "- network y: removed\n"
        "1 unchanged\n"
    )


def test_a_changed_secret_is_told_of_without_what_it_holds() -> None:
    before, after = (
        one("web", config={"mounts": (MemoryFile(target="/run/secrets/k", contents=contents),)})
        for contents in (b"hush", b"hush!")
    )
    (line,) = words(only(compared([before], [after]).replaced))
    assert line.startswith("volumes./run/secrets/k: hidden (")
    assert "hush" not in line
    assert compared([before], [before]).is_empty


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"restart": "always"}, ["restart: no -> always"]),
        ({"max_retries": 3}, ["restart.max_retries: none -> 3"]),
        ({"initial_s": 2.5}, ["backoff.initial_s: 0.1 -> 2.5"]),
        ({"stop_grace_s": 60.0}, ["stop_grace_s: 10 -> 60"]),
        ({"ready": Ready(Tcp(80))}, ["ready.tcp.port: none -> 80", "ready.timeout_s: none -> 60"]),
        ({"success_codes": frozenset({3, 0})}, ["success_codes: 0 -> 0, 3"]),
    ],
)
def test_how_it_is_supervised_is_swapped_while_it_runs(policy: Mapping[str, Any], told: list[str]) -> None:
    changes = compared([one("web")], [one("web", **policy)])
    assert words(only(changes.adapted)) == told
    assert changes.replaced == ()


def test_a_health_check_by_output_is_listened_for_from_the_start_of_a_run() -> None:
    by_log = one("web", health=Health(Log("ok")))
    assert compared([one("web")], [by_log]).replaced != ()
    assert compared([by_log], [one("web", health=Health(Log("ok"), retries=9))]).replaced == ()
    assert compared([by_log], [one("web")]).replaced == ()


def test_dependencies_and_the_form_of_output_need_no_restart() -> None:
    changed = replace(one("web", conditions={"db": HEALTHY}), output=OutputForm("w"))
    change = only(compared([one("web", "db")], [changed]).adapted)
    assert words(change) == ["depends_on.db: started -> healthy", "output.prefix: none -> w"]


def test_limits_are_changed_while_it_runs() -> None:
    before = one("web", config={"limits": Limits(memory_bytes=1 << 20, pids=5)})
    after = one("web", config={"limits": Limits(cpus=1.5, pids=5, oom_kill_group=True)})
    changes = compared([before], [after])
    assert not changes.replaced
    assert words(only(changes.adapted)) == [
        "limits.memory: 1048576 -> none",
        "limits.cpus: none -> 1.5",
        "oom: none -> kill-group",
    ]


def test_what_only_the_host_has_changed_is_no_difference_but_the_next_run_has_it() -> None:
    before = one("web", config={"resolv_conf": b"nameserver 1.1.1.1"})
    after = one("web", config={"resolv_conf": b"nameserver 8.8.8.8"})
    changes = compared([before], [after])
    assert changes.is_empty
    assert waves(changes) == ((Adapt(after),),)
    assert render(changes) == "1 unchanged\n"
