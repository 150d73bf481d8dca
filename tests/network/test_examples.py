"""configs/shop.yaml does what it says, on a host of its own."""

import socket
from pathlib import Path

import pytest
from command import ROOT, Pysup
from lan import Lan
from netstack import prefix
from waiting import PATIENCE_S

from runtime.images.from_host import create

pytestmark = pytest.mark.kernel

SHOP = str(ROOT / "configs/shop.yaml")
TOOLS = ["sh", "cat"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of the examples, with what they need of it; returns the directory of images."""
    images = tmp_path_factory.mktemp("images")
    create("base", images, TOOLS, python=True)
    return images


def visit(host: Lan, port: int) -> str:
    """What is answered at a port of the host's loopback interface."""
    with host.host.makes("127.0.0.1", socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE_S)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    return answer.rpartition(b"\r\n\r\n")[2].decode()


def test_the_shop_counts_visits_also_after_a_restart_and_ends_at_once(hosts: Lan, base: Path, tmp_path: Path) -> None:
    pysup = Pysup(base, tmp_path)
    before = prefix(hosts, pysup)
    for first in (1, 3):
        with pysup.live("up", SHOP, prefix=before) as live:
            live.sees("all 3 containers are up")
            assert visit(hosts, 8088) == f"visit {first}, served by web.1\n"
            assert visit(hosts, 8089) == f"visit {first + 1}, served by web.2\n"
            live.signal(2)
            assert live.ends() == 0, live.text
            assert "killing" not in live.text
