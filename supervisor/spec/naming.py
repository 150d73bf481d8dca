"""Text to what a container knows of names and of its kernel: `extra_hosts`, `dns`, `sysctls`."""

import ipaddress
import re
from collections.abc import Callable, Mapping

from runtime.config import HOST_GATEWAY
from supervisor.spec.faults import Wrong, quoted, unexpected
from supervisor.spec.kinds import each, listed, mapped, matching, pairs, text
from supervisor.spec.values import HOSTNAME_PATTERN

_HOST = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9])?")
_DOMAIN = re.compile(rf"\.|{HOSTNAME_PATTERN}\.?")
_OPTION = re.compile(r"[a-z0-9-]{1,40}(:[0-9]{1,6})?")
_SYSCTL = re.compile(r"[a-zA-Z0-9_-]+([./][a-zA-Z0-9_.@:-]+)+")
# kernel/ipc and ipc/mqueue: what ipc_namespaces(7) has of its own.
OF_IPC = (
    "auto_msgmni msg_next_id msgmax msgmnb msgmni sem sem_next_id shm_next_id shm_rmid_forced shmall shmmax shmmni"
).split()
OF_NETWORK = "net."
SYSCTLS_EXPECTED = "one that a container has of its own: kernel.msg*, kernel.sem*, kernel.shm*, fs.mqueue.*, net.*"

Parse = Callable[[object], str]
Hosts = tuple[tuple[str, str], ...]


def extra_hosts(value: object) -> Hosts:
    """A mapping of names to addresses, or a list of NAME=ADDRESS or NAME:ADDRESS."""
    expected = "a mapping of names to addresses, or a list of NAME=ADDRESS"
    if isinstance(value, Mapping):
        return tuple(one for several in each(pairs(value), _addresses) for one in several)
    return tuple(each(listed(value, expected), _host))


def _addresses(pair: tuple[str, object]) -> list[tuple[str, str]]:
    """Docker Compose takes a list, too."""
    name, value = pair
    given = list(value) if isinstance(value, list | tuple) else [value]
    return [(_host_name(name), address(one)) for one in given]


def _host(value: object) -> tuple[str, str]:
    if isinstance(value, tuple) and len(value) == 2:
        return _host_name(value[0]), address(value[1])
    expected = "NAME=ADDRESS"
    written = text(value, expected)
    name, separator, where = written.partition("=" if "=" in written else ":")
    if not separator:
        raise unexpected(value, expected)
    return _host_name(name), address(where)


def _host_name(name: object) -> str:
    if not isinstance(name, str) or not _HOST.fullmatch(name):
        raise Wrong(f"has the name {quoted(str(name))}", "the name of a host", at_key=True)
    return str(name)


def address(value: object) -> str:
    """An IPv4 or IPv6 one, or the word for that of the host."""
    expected = f"an address, or {HOST_GATEWAY}"
    written = text(value, expected)
    if written == HOST_GATEWAY:
        return HOST_GATEWAY
    return _address(written.removeprefix("[").removesuffix("]") if written.startswith("[") else written, expected)


def _address(written: str, expected: str) -> str:
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        raise Wrong(f"is {quoted(written)}", expected) from None


def dns(value: object) -> tuple[str, ...]:
    """Addresses of servers: one, or a list."""
    return _few(value, lambda one: _address(text(one), "the address of a server"))


def dns_search(value: object) -> tuple[str, ...]:
    """Domains that names without one are looked for in: one, or a list."""
    return _few(value, lambda one: matching(one, _DOMAIN, "a domain"))


def dns_opt(value: object) -> tuple[str, ...]:
    """Options of resolv.conf(5)."""
    return _few(value, lambda one: matching(one, _OPTION, "an option of resolv.conf, such as ndots:2"))


def _few(value: object, parse: Parse) -> tuple[str, ...]:
    if isinstance(value, str):
        return (parse(value),)
    return tuple(each(listed(value, "one, or a list"), parse))


def sysctls(value: object) -> dict[str, str]:
    """A mapping of names to values, or a list of NAME=VALUE."""
    if isinstance(value, list | tuple):
        value = dict(each(enumerate(value), _assignment))
    return dict(each(pairs(mapped(value, "a mapping of names to values, or a list of NAME=VALUE")), _sysctl))


def _assignment(value: object) -> tuple[str, object]:
    name, equals, given = text(value, "NAME=VALUE").partition("=")
    if not equals:
        raise unexpected(value, "NAME=VALUE")
    return name, given


def _sysctl(pair: tuple[str, object]) -> tuple[str, str]:
    name, value = pair
    if not _SYSCTL.fullmatch(name) or ".." in name:
        raise Wrong(f"{quoted(name)} is no sysctl", SYSCTLS_EXPECTED, at_key=True)
    if not is_of_its_own(name):
        raise Wrong("is the whole machine's, and no container's", SYSCTLS_EXPECTED, at_key=True)
    return name, str(value) if isinstance(value, int) else text(value)


def is_of_its_own(name: str) -> bool:
    """Whether namespaces have it each their own: sysctl(8)'s name, with dots or slashes."""
    dotted = name.replace("/", ".")
    kind, _, rest = dotted.partition(".")
    return (kind == "kernel" and rest in OF_IPC) or dotted.startswith(("fs.mqueue.", OF_NETWORK))
