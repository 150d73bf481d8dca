"""Ports of the host that lead to containers.

Each is a socket of ours. That claims the port, against every other process and before anything starts, and it serves
whom the packet filter does not lead on (runtime/network/rules.py): connections to 127.0.0.1 and ::1, and those of a
kind of address that the container has none of. They are passed on byte by byte, and come from the network's gateway.
All others go by the kernel alone.

Everything is bounded: connections and flows of all ports together, and what is held of each (one chunk a direction).
"""

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from runtime.config import Port
from runtime.network.rules import Redirect
from supervisor.errors import StackError

CONNECTIONS_MAX = 1024
FLOWS_MAX = 1024  # of UDP: a client and a port
FLOW_IDLE_S = 60.0
CONNECT_S = 10.0
CHUNK_BYTES = 64 << 10
DATAGRAM_BYTES = 65_535
BACKLOG = 512
HOLDERS_MAX = 65_536  # descriptors looked at for who has a port


Way = tuple[Any, tuple[str, ...]]  # a client's address, as recvfrom gives it, and those of the container
Flows = dict[Way, socket.socket]


@dataclass(slots=True)
class Claim:
    """A port of the host that is ours, and where it leads."""

    container: str
    port: Port
    host: int  # its number, chosen or asked for
    socket: socket.socket
    to: tuple[str, ...]  # the container's addresses, IPv4 first

    def redirects(self) -> Iterable[Redirect]:
        """What the packet filter does of it."""
        address = self.port.address
        if address == "::1" or address.startswith("127."):
            return
        for to in self.to:
            if not address or (":" in address) == (":" in to):
                yield Redirect(self.port.protocol, self.host, address, to, self.port.container)


def claim(container: str, port: Port, to: tuple[str, ...]) -> Claim:
    """Take a port of the host. StackError if somebody else has it."""
    try:
        made = _bound(port)
    except OSError as error:
        number = "any port" if port.host is None else f"port {port.host}"
        at = f" of {port.address}" if port.address else ""
        raise StackError(f"{container}: can't publish {number}/{port.protocol}{at}: {_reason(error, port)}") from error
    return Claim(container, port, made.getsockname()[1], made, to)


def _bound(port: Port) -> socket.socket:
    if port.address:
        family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
        return _socket(family, port.address, port)
    try:
        return _socket(socket.AF_INET6, "::", port)  # and IPv4 too, ipv6(7)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _socket(socket.AF_INET, "0.0.0.0", port)  # noqa: S104 (a host without IPv6)


def _socket(family: socket.AddressFamily, address: str, port: Port) -> socket.socket:
    stream = port.protocol == "tcp"
    kind = (socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(port.address)))
        if stream:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port.host or 0))
        if stream:
            made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _reason(error: OSError, port: Port) -> str:
    if error.errno != errno.EADDRINUSE:
        return (error.strerror or str(error)).lower()
    who = holder(port)
    return f"{who} has it" if who else "it is in use by somebody else"


def holder(port: Port) -> str | None:
    """Who has a port of this host, as far as can be seen: proc_net(5), proc_pid_fd(5)."""
    inodes = set()
    for name in (port.protocol, f"{port.protocol}6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port.host and words[3] in ("0A", "07"):
                    inodes.add(f"socket:[{words[9]}]")
    seen = 0
    for process in os.scandir("/proc") if inodes else ():
        if not process.name.isdigit():
            continue
        with suppress(OSError):
            for descriptor in os.listdir(f"{process.path}/fd"):  # noqa: PTH208 (thousands of them)
                seen += 1
                if os.readlink(f"{process.path}/fd/{descriptor}") in inodes:  # noqa: PTH115 (as above)
                    name = Path(f"{process.path}/comm").read_text(encoding="utf-8", errors="replace").strip()
                    return f"process {process.name} ({name})"
        if seen > HOLDERS_MAX:
            break
    return None


@dataclass(slots=True)
class _Service:
    """A claim that is served."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Publisher:
    """Serves claims. All of it ends with the task group."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._services: dict[int, _Service] = {}  # by descriptor
        self._connections = 0
        self._flows = 0

    def serve(self, claim: Claim) -> None:
        """From now on, until `drop`."""
        service = self._services[claim.socket.fileno()] = _Service()
        self._tasks.start_soon(self._run, claim, service)

    async def drop(self, claim: Claim) -> None:
        """The port is nobody's any more, and its connections end."""
        service = self._services.pop(claim.socket.fileno(), None)
        if service is not None:
            service.scope.cancel()
            await service.ended.wait()  # it is not to be closed while somebody waits for it
        claim.socket.close()

    async def _run(self, claim: Claim, service: "_Service") -> None:
        try:
            with service.scope:
                async with anyio.create_task_group() as tasks:
                    if claim.port.protocol == "tcp":
                        await self._accept(claim, tasks)
                    else:
                        await self._receive(claim, tasks)
        finally:
            service.ended.set()

    # --- tcp ---------------------------------------------------------------------------------------------------------

    async def _accept(self, claim: Claim, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            await anyio.wait_readable(claim.socket)
            try:
                made, _ = claim.socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    await anyio.sleep(1)
                continue
            if self._connections >= CONNECTIONS_MAX:
                made.close()
                continue
            made.setblocking(False)
            self._connections += 1
            tasks.start_soon(self._connect, claim, made)

    async def _connect(self, claim: Claim, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            with anyio.move_on_after(CONNECT_S):
                server = await _connected(claim)
            if server is not None:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_pass_on, client, server)
                    tasks.start_soon(_pass_on, server, client)
        except OSError:  # it does not listen, or is gone: the client sees its connection end
            return
        finally:
            self._connections -= 1
            client.close()
            if server is not None:
                server.close()

    # --- udp ---------------------------------------------------------------------------------------------------------

    async def _receive(self, claim: Claim, tasks: anyio.abc.TaskGroup) -> None:
        flows: Flows = {}
        while True:
            await anyio.wait_readable(claim.socket)
            try:
                data, client = claim.socket.recvfrom(DATAGRAM_BYTES)
            except OSError:  # what came of a datagram sent earlier: nobody is there
                continue
            way = client, claim.to  # which may be another's by now
            flow = flows.get(way)
            if flow is None:
                if self._flows >= FLOWS_MAX or (flow := _flow(claim)) is None:
                    continue
                flows[way] = flow
                self._flows += 1
                tasks.start_soon(self._answer, claim, way, flow, flows)
            with suppress(OSError):
                flow.send(data)

    async def _answer(self, claim: Claim, way: "Way", flow: socket.socket, flows: "Flows") -> None:
        """What the container sends back, until nothing comes for a while."""
        try:
            while True:
                with anyio.move_on_after(FLOW_IDLE_S) as idle:
                    await anyio.wait_readable(flow)
                if idle.cancelled_caught:
                    return
                try:
                    data = flow.recv(DATAGRAM_BYTES)
                except OSError:
                    continue
                with suppress(OSError):
                    claim.socket.sendto(data, way[0])
        finally:
            del flows[way]
            self._flows -= 1
            flow.close()


async def _connected(claim: Claim) -> socket.socket | None:
    """None: nobody listens."""
    to = claim.to[0]
    made = socket.socket(_family(to), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            made.connect((to, claim.port.container))
        await anyio.wait_writable(made)
        if not made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return made
    except BaseException:
        made.close()
        raise
    made.close()
    return None


async def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    """One direction, to its end of file. What is not sent is not read for."""
    try:
        while data := await _read(source):
            await anyio.lowlevel.checkpoint()  # two that are as fast as we are would leave nobody else a turn
            view = memoryview(data)
            while view:
                try:
                    view = view[sink.send(view, socket.MSG_NOSIGNAL) :]
                except BlockingIOError:
                    await anyio.wait_writable(sink)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # the other direction ends, too


async def _read(source: socket.socket) -> bytes:
    while True:
        try:
            return source.recv(CHUNK_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(source)


def _flow(claim: Claim) -> socket.socket | None:
    """None: it is not there, or there are no descriptors left."""
    to = claim.to[0]
    with suppress(OSError), ExitStack() as failed:
        made = socket.socket(_family(to), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        failed.callback(made.close)
        made.connect((to, claim.port.container))
        failed.pop_all()
        return made
    return None


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
