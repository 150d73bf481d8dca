"""The name service of a stack's networks: for each, a socket of each kind (UDP and TCP) at its gateway, in our loop.

At the gateways, and not in each container (as Docker's at 127.0.0.11): that would be two descriptors a container, and
thousands of containers share ours. Who asks is known by its address. A host's own firewall must let port 53 in from our
bridges.

Names of the stack are answered (A, AAAA, PTR); all others are handed on, as they came, to the container's own servers
(`dns`), or those of the host's /etc/resolv.conf; for who has no way out they are refused. At most so many questions are
handed on at a time, each within a limit of time and with a number and port of its own (RFC 5452).
"""

import errno
import os
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import anyio
import anyio.abc
import dnslib  # DNS on the wire: small, pure, and alive

from supervisor.network.names import Names

PORT = 53
TTL_S = 5
ASKED_MAX = 256  # questions that others are being asked
ASK_S = 4.0  # a server's time to answer
SERVERS_MAX = 3  # that are asked, as in resolv.conf(5)
CLIENTS_MAX = 128  # connections
CLIENT_IDLE_S = 10.0
PLAIN_BYTES, MOST_BYTES = 512, 1232  # of an answer by UDP, without and with EDNS (RFC 6891; DNS flag day 2020)
DATAGRAM_BYTES = 65_535
RESOLV_CONF = Path("/etc/resolv.conf")
_LENGTH = struct.Struct("!H")
_NUMBER = struct.Struct("!H")

Servers = Callable[[str], Sequence[str]]  # of who has this address; none of its own: empty


class Resolver:
    """Answers at one network's gateway."""

    def __init__(
        self, network: str, gateway: str, names: Names, servers: Servers, limit: anyio.CapacityLimiter
    ) -> None:
        self._network = network
        self._names = names
        self._servers = servers
        self._limit = limit
        self._clients = 0
        self._udp = _bound(gateway, socket.SOCK_DGRAM)
        try:
            self._tcp = _bound(gateway, socket.SOCK_STREAM)
        except BaseException:
            self._udp.close()
            raise

    def close(self) -> None:
        self._udp.close()
        self._tcp.close()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._accept, tasks)
            while True:
                await anyio.wait_readable(self._udp)
                try:
                    data, client = self._udp.recvfrom(DATAGRAM_BYTES)
                except OSError:
                    continue
                if (answer := self._own(data, client[0], None)) is not None:
                    self._send(answer, client)
                elif self._limit.available_tokens > 0:
                    tasks.start_soon(self._hand_on, data, client)

    def _send(self, answer: bytes, client: tuple[str, int]) -> None:
        with suppress(OSError):  # it is gone, or does not read
            if answer:
                self._udp.sendto(answer, client)

    async def _hand_on(self, data: bytes, client: tuple[str, int]) -> None:
        async with self._limit:
            answer = await self._asked(data, client[0], socket.SOCK_DGRAM)
        self._send(answer or _failure(data, dnslib.RCODE.SERVFAIL), client)

    # --- tcp ---------------------------------------------------------------------------------------------------------

    async def _accept(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            await anyio.wait_readable(self._tcp)
            try:
                made, client = self._tcp.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    await anyio.sleep(1)
                continue
            if self._clients >= CLIENTS_MAX:
                made.close()
                continue
            made.setblocking(False)
            self._clients += 1
            tasks.start_soon(self._serve, made, client[0])

    async def _serve(self, made: socket.socket, client: str) -> None:
        try:
            with suppress(OSError):
                while True:
                    with anyio.fail_after(CLIENT_IDLE_S):
                        data = await _received(made)
                    if data is None:
                        return
                    answer = self._own(data, client, DATAGRAM_BYTES)
                    if answer is None:
                        async with self._limit:
                            answer = await self._asked(data, client, socket.SOCK_STREAM)
                    with anyio.fail_after(CLIENT_IDLE_S):
                        await _sent(made, answer or _failure(data, dnslib.RCODE.SERVFAIL))
        except TimeoutError:
            return
        finally:
            self._clients -= 1
            made.close()

    # --- answers -----------------------------------------------------------------------------------------------------

    def _own(self, data: bytes, client: str, most: int | None) -> bytes | None:
        """The answer, if it is ours to give. `most`: how long it may be; None: as by UDP."""
        try:
            return self._answered(data, client, most)
        except Exception:  # noqa: BLE001 (anybody's bytes: whatever the parser makes of them is the matter of none but him)
            return _failure(data, dnslib.RCODE.FORMERR)

    def _answered(self, data: bytes, client: str, most: int | None) -> bytes | None:
        query = dnslib.DNSRecord.parse(data)
        if query.header.qr:
            return b""  # an answer is no question: two that answer one another would not come to an end
        if query.header.opcode or len(query.questions) != 1:
            return _failure(data, dnslib.RCODE.NOTIMP)
        name, kind = str(query.q.qname), query.q.qtype
        networks = self._names.networks_of(client, self._network)
        records = self._records(name, kind, networks)
        if records is None:
            allowed = self._names.may_ask_others(networks)
            return None if allowed else _failure(data, dnslib.RCODE.REFUSED)
        reply = query.reply(aa=1, ra=1)
        for record in records:
            reply.add_answer(dnslib.RR(query.q.qname, record.rtype, ttl=TTL_S, rdata=record.rdata))
        return _fitting(reply, most or _udp_room(query))

    def _records(self, name: str, kind: int, networks: Sequence[str]) -> "list[dnslib.RR] | None":
        if kind == dnslib.QTYPE.PTR:
            found = self._names.name_at(name)
            return None if found is None else [dnslib.RR(name, kind, rdata=dnslib.PTR(found))]
        addresses = self._names.find(name, networks)
        if addresses is None:
            return None
        chosen = [address for address in addresses if _kind_of(address) == kind]
        secrets.SystemRandom().shuffle(chosen)
        return [dnslib.RR(name, kind, rdata=_rdata(address)) for address in chosen]

    # --- others ------------------------------------------------------------------------------------------------------

    async def _asked(self, data: bytes, client: str, kind: socket.SocketKind) -> bytes | None:
        for server in (self._servers(client) or host_servers())[:SERVERS_MAX]:
            with anyio.move_on_after(ASK_S), suppress(OSError):
                if (answer := await _ask(server, data, kind)) is not None:
                    return answer
        return None


def host_servers() -> list[str]:
    """resolv.conf(5): those of the host; if it names none, its own."""
    found = []
    with suppress(OSError):
        for line in RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with suppress(ValueError):
                    ip_address(words[1].partition("%")[0])
                    found.append(words[1])
    return found or ["127.0.0.1"]


async def _ask(server: str, data: bytes, kind: socket.SocketKind) -> bytes | None:
    """With a number of our own, and from a port of its own: who guesses can't answer in its place."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    number = secrets.randbits(16)
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with suppress(BlockingIOError):
            made.connect((server, PORT))
        await anyio.wait_writable(made)
        asked = _NUMBER.pack(number) + data[_NUMBER.size :]
        if kind == socket.SOCK_STREAM:
            await _sent(made, asked)
            answer = await _received(made)
        else:
            made.send(asked)
            answer = await _datagram(made, number)
        return None if answer is None else data[: _NUMBER.size] + answer[_NUMBER.size :]
    finally:
        made.close()


async def _datagram(made: socket.socket, number: int) -> bytes:
    while True:
        await anyio.wait_readable(made)
        answer = made.recv(DATAGRAM_BYTES)
        if len(answer) > _NUMBER.size and _NUMBER.unpack_from(answer)[0] == number:
            return answer


async def _received(made: socket.socket) -> bytes | None:
    """A message by TCP (RFC 1035, 4.2.2); None at the end of file."""
    head = await _exactly(made, _LENGTH.size)
    return None if head is None else await _exactly(made, _LENGTH.unpack(head)[0])


async def _exactly(made: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        await anyio.wait_readable(made)
        chunk = made.recv(count - len(data))
        if not chunk:
            return None
        data += chunk
    return data


async def _sent(made: socket.socket, message: bytes) -> None:
    data = _LENGTH.pack(len(message)) + message
    while data:
        try:
            data = data[made.send(data, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            await anyio.wait_writable(made)


def _bound(gateway: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((gateway, PORT))
        if kind == socket.SOCK_STREAM:
            made.listen(CLIENTS_MAX)
    except OSError as error:
        made.close()
        raise OSError(error.errno, os.strerror(error.errno or 0), f"serve names at {gateway} port {PORT}") from error
    return made


def _kind_of(address: str) -> int:
    return int(dnslib.QTYPE.AAAA if ":" in address else dnslib.QTYPE.A)


def _rdata(address: str) -> "dnslib.RD":
    return dnslib.AAAA(address) if ":" in address else dnslib.A(address)


def _udp_room(query: "dnslib.DNSRecord") -> int:
    extended = [record.edns_len for record in query.ar if record.rtype == dnslib.QTYPE.OPT]
    return min(MOST_BYTES, max(PLAIN_BYTES, *extended)) if extended else PLAIN_BYTES


def _fitting(reply: "dnslib.DNSRecord", most: int) -> bytes:
    """As many records as there is room for; if not all, the client is told, and comes again by TCP."""
    packed: bytes = reply.pack()
    while len(packed) > most and reply.rr:
        reply.header.tc = 1
        reply.rr = reply.rr[: len(reply.rr) * most // len(packed)]
        packed = reply.pack()
    return packed


def _failure(data: bytes, code: int) -> bytes:
    """The question back, with a reason. What is too short for one is answered with nothing but that."""
    try:
        reply = dnslib.DNSRecord.parse(data).reply(ra=1)
        reply.header.rcode = code
        packed: bytes = reply.pack()  # not all that is read can be written: a label may be too long
    except Exception:  # noqa: BLE001 (see `Resolver`)
        number = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
        packed = dnslib.DNSRecord(dnslib.DNSHeader(id=number, qr=1, rcode=code)).pack()
    return packed
