"""A stack with networks that is up on a host of its own (lan.py), as tests look at it."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from command import Live, Pysup
from lan import OUTSIDE, Lan, Place

STARTED = r"(?m)^pysup +\| {}: started \(pid (\d+)\)"


@dataclass
class Stack:
    """One that is up."""

    lan: Lan
    live: Live
    _places: dict[str, Place] = field(default_factory=dict)

    def pid(self, container: str) -> int:
        """Of its latest run."""
        return int(re.findall(STARTED.format(re.escape(container)), self.live.text)[-1])

    def place(self, container: str) -> Place:
        """Its network."""
        if container not in self._places:
            self._places[container] = Place.of(self.pid(container), self.lan.host.home)
        return self._places[container]

    def addresses(self, container: str, interface: str = "eth0") -> list[str]:
        """IPv4 first; no link-local ones."""
        return addresses(self.place(container), interface)

    def gateway(self, container: str) -> str:
        with Path(f"/proc/{self.pid(container)}/root/etc/resolv.conf").open(encoding="ascii") as file:
            return file.readline().split()[1]

    def close(self) -> None:
        for place in self._places.values():
            place.close()
        self._places.clear()


def addresses(place: Place, interface: str = "eth0") -> list[str]:
    """IPv4 first; no link-local ones."""
    shown = json.loads(place.run("ip", "-j", "addr", "show", "dev", interface))
    found = [one["local"] for one in shown[0]["addr_info"] if one["scope"] == "global"]
    return sorted(found, key=lambda address: ":" in address)


def prefix(lan: Lan, pysup: Pysup) -> list[str]:
    """Before pysup: on the host, whose name server is outside."""
    servers = pysup.directory / "resolv.conf"
    servers.write_text(f"nameserver {OUTSIDE}\n")
    bind = f'mount --bind {servers} /etc/resolv.conf && exec "$@"'
    return [*lan.host.prefix, "unshare", "--mount", "sh", "-c", bind, "sh"]


@contextmanager
def stack_of(lan: Lan, pysup: Pysup, spec: dict[str, object], *options: str) -> Iterator[Stack]:
    """It is up, and afterwards down."""
    path = pysup.directory / "stack.yaml"
    path.write_text(json.dumps({"name": f"net-{os.getpid()}", **spec}))
    with pysup.live("up", *options, str(path), prefix=prefix(lan, pysup)) as live:
        live.sees(" up\n")
        stack = Stack(lan, live)
        for container in re.findall(STARTED.format("(.+)"), live.text):
            stack.place(container[0])
        try:
            yield stack
            live.signal(2)
            assert live.ends() == 0, live.text
        finally:
            stack.close()
