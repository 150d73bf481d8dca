"""Parts of a stack's networks, each by itself: addresses in a book, names of interfaces, sockets that go."""

from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from lan import Lan

from runtime.config import Attachment
from runtime.network import conversation, namespace
from runtime.network.rules import Filter, Redirect
from supervisor.entry import StackNetwork
from supervisor.errors import StackError
from supervisor.network import fabric
from supervisor.network.fabric import Fabric
from supervisor.network.names import Names
from supervisor.network.pool import Book
from supervisor.network.wiring import Wiring

IN = Attachment("default")
SUBNET = IPv4Network("10.0.0.0/29")  # room for five containers


def given(book: Book, *containers: str) -> list[str]:
    return [book.addresses(each, IN)[0].partition("/")[0] for each in containers]


def test_who_is_merely_remembered_gives_way_when_there_is_no_room() -> None:
    book = Book("default", (SUBNET,), {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6})
    book.reserve([])
    book.expect(["e", "f", "g"])
    assert given(book, "f", "g", "e") == ["10.0.0.2", "10.0.0.3", "10.0.0.6"]
    assert given(book, "h", "i") == ["10.0.0.4", "10.0.0.5"]
    with pytest.raises(StackError, match="no address left for j"):
        book.addresses("j", IN)
    book.forget("g")
    assert given(book, "j") == ["10.0.0.3"]


def test_who_has_moved_keeps_his_address_when_there_is_no_room() -> None:
    book = Book("default", (SUBNET,), {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6})
    book.reserve([])
    given(book, "a")
    book.move("a", "a+1")
    assert given(book, "f", "g", "h", "i", "a+1") == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


def test_the_ten_millionth_interface_has_a_name_that_the_kernel_takes() -> None:
    wiring = Wiring.__new__(Wiring)
    wiring.tag = "0a1b2c"
    numbers = cast("Any", wiring)._numbers = {"v": 0}
    names = []
    for number in (1, 35, 36, 10_000_000, 36**5 - 1):
        numbers["v"] = number - 1
        names.append(wiring.interface("v"))
    assert names == ["psp0a1b2cv1", "psp0a1b2cvz", "psp0a1b2cv10", "psp0a1b2cv5yc1s", "psp0a1b2cvzzzzz"]
    assert max(map(len, names)) == 15  # IFNAMSIZ, less its NUL


class Served:
    """A service of names that can tell whether it is closed while somebody waits for its sockets."""

    def __init__(self) -> None:
        self.waits = self.closed = False

    async def run(self) -> None:
        self.waits = True
        try:
            await anyio.sleep_forever()
        finally:
            self.waits = False

    def close(self) -> None:
        assert not self.waits
        self.closed = True


@pytest.mark.anyio
async def test_no_socket_is_closed_while_somebody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    monkeypatch.setattr("supervisor.network.resolver.Resolver", lambda *_: served)
    wiring = SimpleNamespace(networks={"default": StackNetwork("default")}, unlay=list, internal=frozenset)

    async def at_once(work: Callable[[], object], **_: object) -> object:
        return work()

    monkeypatch.setattr(fabric, "aside", at_once)
    async with anyio.create_task_group() as tasks:
        made = Fabric(Path("/nowhere"), cast("Any", wiring), (), tasks, Names(), lambda _: (), lambda *_: None)
        cast("Any", made)._serve_names("default", "10.0.0.1")
        while not served.waits:
            await anyio.lowlevel.checkpoint()
        assert await made.sweep(frozenset(), {})
        assert served.closed
        tasks.cancel_scope.cancel()


@pytest.mark.kernel
def test_a_thousand_ports_fit_whatever_the_kernels_usual_buffers_are(
    hosts: Lan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "_BUFFER_BYTES", 208 << 10)  # net.core.wmem_max, unless somebody has raised it
    with namespace.inside(hosts.host.descriptor, hosts.host.home):
        made = Filter("pysup-ports")
    with closing(made):
        made.set([], [Redirect("tcp", 20_000 + number, "", "10.0.0.2", 80) for number in range(1000)])
        assert hosts.host.run("nft", "list", "table", "inet", "pysup-ports").count("dnat") == 2000
