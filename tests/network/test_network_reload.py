"""A reload that changes networks, while traffic goes through those that stay."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from command import Pysup
from lan import Lan
from netstack import Stack, stack_of

pytestmark = pytest.mark.kernel

DEFAULTS = {"image": "busybox", "cmd": ["sleep", "1000"], "init": True, "update": {"monitor_s": 0.1}}


@pytest.fixture
def pysup(image: Path, tmp_path: Path) -> Pysup:
    return Pysup(image.parent, tmp_path)


def spec(containers: list[dict[str, Any]], **networks: object) -> dict[str, object]:
    return {"name": "again", "defaults": DEFAULTS, "containers": containers, "networks": networks}


def reload(stack: Stack, pysup: Pysup, wanted: dict[str, object]) -> str:
    """What was told of it."""
    live, before = stack.live, len(stack.live.text)
    (pysup.directory / "stack.yaml").write_text(json.dumps(wanted))
    live.signal(signal.SIGHUP)
    while "reloaded" not in live.text[before:]:
        live.reads(live.text.count("\n") + 1)
    stack.close()
    return live.text[before:]


def bridges(hosts: Lan) -> int:
    return sum(bool(re.fullmatch(r"psp[0-9a-f]{6}b[0-9a-f]+", name)) for name in hosts.links())


def reaches(stack: Stack, one: str, other: str) -> None:
    (address,) = stack.addresses(other)[:1]
    with stack.place(other).serves(address, 7000) as server:
        stack.place(one).reaches(address, 7000, server)
    assert address in stack.place(one).finds(stack.gateway(one), other)


def test_a_network_comes_and_goes(hosts: Lan, pysup: Pysup) -> None:
    first: list[dict[str, Any]] = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    with stack_of(hosts, pysup, spec(first, default={})) as stack:
        stays = stack.pid("c")
        moved = [*({"id": each, "networks": ["back"]} for each in "ab"), first[2]]
        told = reload(stack, pysup, spec(moved, default={}, back={"internal": True}))
        assert "+ network back: new (internal: true)" in told
        assert bridges(hosts) == 2
        reaches(stack, "a", "b")
        assert stack.place("a").is_cut_off(stack.addresses("c")[0], 7000)
        told = reload(stack, pysup, spec(first, default={}))
        assert "- network back: removed" in told
        assert bridges(hosts) == 1
        reaches(stack, "a", "c")
        assert stack.pid("c") == stays
    assert hosts.links() == []


def test_a_network_that_is_another_is_made_anew(hosts: Lan, pysup: Pysup) -> None:
    containers: list[dict[str, Any]] = [
        {"id": "a", "networks": ["x"]},
        {"id": "b", "networks": ["x"], "depends_on": ["a"]},
        {"id": "c"},
    ]
    with stack_of(hosts, pysup, spec(containers, x={"subnet": "10.77.0.0/24"}, default={})) as stack:
        stays = stack.pid("c")
        told = reload(stack, pysup, spec(containers, x={"subnet": "10.77.0.0/16", "ipv6": True}, default={}))
        assert "~ network x: made anew (ipv6: none -> true, subnet: 10.77.0.0/24 -> 10.77.0.0/16)" in told
        assert bridges(hosts) == 2
        assert len(stack.addresses("a")) == 2
        reaches(stack, "b", "a")
        assert stack.pid("c") == stays
    assert hosts.links() == []


def test_a_stack_without_networks_gets_one_and_gives_it_up(hosts: Lan, pysup: Pysup) -> None:
    plain: list[dict[str, Any]] = [{"id": "a", "network": "host"}, {"id": "b", "network": "none"}]
    with stack_of(hosts, pysup, spec(plain)) as stack:
        assert hosts.links() == []
        wanted: list[dict[str, Any]] = [{"id": "a"}, {"id": "b", "ports": ["8080:80"]}]
        assert "8080:80/tcp" in reload(stack, pysup, spec(wanted, default={}))
        reaches(stack, "a", "b")
        with stack.place("b").serves("0.0.0.0", 80) as server:
            hosts.host.reaches("127.0.0.1", 8080, server)
        reload(stack, pysup, spec(plain))
        assert bridges(hosts) == 0
        assert stack.place("a").identity == hosts.host.identity
    assert hosts.links() == []
