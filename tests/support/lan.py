"""Network namespaces of tests: a host, and somebody outside of it. Sockets are made in them, and in containers', from
here: a socket stays in the namespace in which it was made.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import dnslib
from waiting import PATIENCE_S

from runtime.network import namespace

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"  # RFC 5737: for documentation, and nobody's
HOST_6, OUTSIDE_6 = "2001:db8::1", "2001:db8::2"
REFUSAL_S = 0.7  # the longest to wait for what should not come


@dataclass(frozen=True)
class Place:
    """A network namespace."""

    descriptor: int
    home: int

    @classmethod
    def of(cls, pid: int, home: int) -> Self:
        """That of a process."""
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC), home)

    def close(self) -> None:
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def identity(self) -> int:
        return os.fstat(self.descriptor).st_ino

    @property
    def prefix(self) -> list[str]:
        """Before a command that is to run here."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.descriptor}"]

    def run(self, *argv: str) -> str:
        done = subprocess.run([*self.prefix, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def makes(self, address: str, kind: socket.SocketKind) -> socket.socket:
        """For traffic with that address."""
        with namespace.inside(self.descriptor, self.home):
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        made.settimeout(PATIENCE_S)
        return made

    @contextmanager
    def serves(self, address: str, port: int, *, udp: bool = False) -> Iterator[socket.socket]:
        """Somebody here has this port."""
        with self.makes(address, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in address:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((address, port))
            if not udp:
                made.listen()
            yield made

    def reaches(self, address: str, port: int, server: socket.socket, *, udp: bool = False) -> str:
        """Send something there, and something back; returns the address that the server sees."""
        with self.makes(address, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as client:
            client.connect((address, port))
            if udp:
                client.send(b"hello")
                said, peer = server.recvfrom(100)
                server.sendto(b"welcome", peer)
            else:
                client.sendall(b"hello")
                accepted, peer = server.accept()
                with accepted:
                    accepted.settimeout(PATIENCE_S)
                    said = accepted.recv(100)
                    accepted.sendall(b"welcome")
            assert (said, client.recv(100)) == (b"hello", b"welcome")
        return str(peer[0])

    def is_cut_off(self, address: str, port: int) -> bool:
        """Is there no way there, not even to be refused?"""
        with self.makes(address, socket.SOCK_STREAM) as client:
            client.settimeout(REFUSAL_S)
            try:
                client.connect((address, port))
            except ConnectionRefusedError:
                return False
            except OSError:
                return True
        return False

    def asks(self, server: str, name: str, kind: str = "A", *, tcp: bool = False) -> dnslib.DNSRecord:
        """What a name server says."""
        question = dnslib.DNSRecord.question(name, kind).pack()
        with self.makes(server, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as client:
            client.connect((server, 53))
            if not tcp:
                client.send(question)
                return dnslib.DNSRecord.parse(client.recv(65_535))
            client.sendall(len(question).to_bytes(2, "big") + question)
            with client.makefile("rb") as answer:
                return dnslib.DNSRecord.parse(answer.read(int.from_bytes(answer.read(2), "big")))

    def finds(self, server: str, name: str, kind: str = "A", *, tcp: bool = False) -> list[str]:
        """The addresses of a name."""
        return sorted(str(record.rdata) for record in self.asks(server, name, kind, tcp=tcp).rr)


@dataclass(frozen=True)
class Lan:
    """A host and somebody outside, joined by a cable."""

    host: Place
    outside: Place

    def links(self) -> list[str]:
        """What the host has of interfaces beside its own."""
        lines = self.host.run("ip", "-o", "link").splitlines()
        names = [line.split(": ")[1].partition("@")[0] for line in lines]
        return [name for name in names if name not in ("lo", "wire")]


@contextmanager
def lan() -> Iterator[Lan]:
    """It goes with all that is in it."""
    home = namespace.opened()
    host, outside = (Place(namespace.make(home), home) for _ in range(2))
    try:
        for place in (host, outside):
            place.run("ip", "link", "set", "lo", "up")
        to = f"/proc/{os.getpid()}/fd/{outside.descriptor}"
        host.run("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", to)
        for place, addresses in ((host, (HOST, HOST_6)), (outside, (OUTSIDE, OUTSIDE_6))):
            for address in addresses:
                options = ["nodad"] if ":" in address else []
                place.run("ip", "addr", "add", f"{address}/{64 if ':' in address else 24}", "dev", "wire", *options)
            place.run("ip", "link", "set", "wire", "up")
        for family in ("-4", "-6"):
            host.run("ip", family, "route", "add", "default", "via", OUTSIDE if family == "-4" else OUTSIDE_6)
        yield Lan(host, outside)
    finally:
        host.close()
        outside.close()
        os.close(home)
