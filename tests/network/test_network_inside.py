"""What is done in containers that are in networks: checks, commands, and who shares another's network; with ids of
their own and without.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Ended, Pysup
from lan import Lan, Place
from netstack import Stack, addresses, stack_of

pytestmark = pytest.mark.kernel

IDS = ("host", "auto")
CHECKS: dict[str, object] = {
    "tcp": {"tcp": 80},
    "http": {"http": "http://127.0.0.1/index.html"},
    "exec": {"exec": ["sh", "-c", "wget -q -O - http://$$(hostname)/index.html | grep -q served"]},
}
SIX = {"default": {"ipv6": True}}
SERVING = "mkdir /www && echo served >/www/index.html && exec httpd -f -p 80 -h /www"
CONTAINERS = [
    *(
        {
            "id": f"{kind}-{ids}",
            "userns": ids,
            "cmd": ["sh", "-c", SERVING],
            "ready": {**check, "timeout_s": 20},  # type: ignore[dict-item]  # a mapping
            "health": {**check, "interval_s": 0.2},  # type: ignore[dict-item]  # the same
        }
        for kind, check in CHECKS.items()
        for ids in IDS
    ),
    *({"id": f"guest-{ids}", "network": f"container:mapped-{ids}", "userns": ids} for ids in IDS),
    *({"id": f"mapped-{ids}", "userns": "auto", "depends_on": [f"guest-{ids}"], "restart": "always"} for ids in IDS),
    {"id": "guest", "network": "container:alone"},
    {"id": "alone", "network": "none", "userns": "auto", "depends_on": ["guest"]},
]


@pytest.fixture(scope="module")
def pysup(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Pysup:
    return Pysup(image.parent, tmp_path_factory.mktemp("inside"))


@pytest.fixture(scope="module")
def stack(hosts: Lan, pysup: Pysup) -> Iterator[Stack]:
    defaults = {"image": "busybox", "cmd": ["sleep", "1000"], "init": True, "backoff": {"initial_s": 0}}
    spec: dict[str, object] = {"name": "inside", "defaults": defaults, "containers": CONTAINERS, "networks": SIX}
    with stack_of(hosts, pysup, spec) as made:
        yield made
    assert hosts.links() == []


def within(pysup: Pysup, container: str, *command: str) -> str:
    ended = tried(pysup, container, *command)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


def tried(pysup: Pysup, container: str, *command: str) -> Ended:
    return pysup("exec", "--run", str(pysup.state / "run"), container, *command)


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("ids", IDS)
def test_checks_see_what_the_container_serves_in_its_network(stack: Stack, kind: str, ids: str) -> None:
    """It is up, so it was ready."""
    stack.live.sees(f"{kind}-{ids}: healthy")


@pytest.mark.parametrize("container", ["tcp-host", "tcp-auto", "guest-host", "guest-auto", "mapped-auto"])
def test_a_command_is_in_the_containers_network(stack: Stack, pysup: Pysup, container: str) -> None:
    shown = within(pysup, container, "ip", "addr", "show", "dev", "eth0")
    assert all(address in shown for address in stack.addresses(container))
    assert within(pysup, container, "wget", "-q", "-O", "-", "http://http-host/index.html") == "served\n"


@pytest.mark.parametrize("container", ["tcp-host", "tcp-auto", "mapped-auto"])
def test_where_it_may_send_what_it_likes_but_change_nothing(stack: Stack, pysup: Pysup, container: str) -> None:
    assert "1 packets received" in within(pysup, container, "ping", "-c1", "-q", stack.gateway(container))
    assert "not permitted" in tried(pysup, container, "ip", "link", "set", "eth0", "down").err


@pytest.mark.parametrize(("guest", "other"), [*((f"guest-{ids}", f"mapped-{ids}") for ids in IDS), ("guest", "alone")])
def test_who_shares_a_network_may_start_before_the_one_whose_it_is(stack: Stack, guest: str, other: str) -> None:
    text = stack.live.text
    assert text.index(f"{guest}: started") < text.index(f"{other}: started")
    assert stack.place(guest).identity == stack.place(other).identity


def test_and_stays_in_it_when_that_one_restarts(stack: Stack) -> None:
    before, pid = (stack.place("guest-host").identity, stack.addresses("mapped-host")), stack.pid("mapped-host")
    os.kill(pid, signal.SIGKILL)
    while stack.pid("mapped-host") == pid:
        stack.live.reads(stack.live.text.count("\n") + 1)
    with Place.of(stack.pid("mapped-host"), stack.lan.host.home) as place:
        assert (place.identity, addresses(place)) == before
        assert sorted(each["ifname"] for each in json.loads(place.run("ip", "-j", "link", "show"))) == ["eth0", "lo"]
