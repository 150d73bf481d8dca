"""What differs between two containers, or two networks, in the spec's words: `image: a -> b`.

An entry is said as a flat list of facts: what leads to a value, and the value as people would write it. What the two
lists do not have in common are the fields of a change. Some of an entry is not said: what follows from something else
that is, and what the host has put into it. Of a secret it is said only whether it is the same.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any, cast

from runtime.build import RLIMITS
from runtime.capabilities import CAPABILITIES
from runtime.cgroup.limits import described
from runtime.config import Attachment, Network, Port
from runtime.mounts import ATTRIBUTES, Bind, MemoryFile, Mount, Tmpfs
from supervisor.entry import Entry, StackNetwork
from supervisor.reload.changes import Field

# Not said: what follows from something else that is, and what the host has put into a configuration.
_UNSAID = frozenset(
    (
        *("id", "group", "config.id", "config.directory", "config.notify", "config.resolv_conf"),
        *("policy.waits_s", "policy.one_shot"),
    )
)
_WORDS = {
    "argv": "cmd",
    "lowers": "image",
    "memory_bytes": "storage_size",
    "rlimits": "ulimits",
    "mounts": "volumes",
    "attachments": "networks",
    "shm_bytes": "shm_size",
    "hosts": "extra_hosts",
    "max_retries": "restart.max_retries",
}


def differing(old: Entry, new: Entry) -> tuple[Field, ...]:
    """What of a container is different."""
    before, after = (dict(_facts("", entry)) for entry in (old, new))
    return _unlike(before, after, dict.fromkeys((*before, *after)))


def differing_network(old: StackNetwork | None, new: StackNetwork | None) -> tuple[Field, ...]:
    """What of a network is different; None: it is not there."""
    return _unlike(_network_facts(old), _network_facts(new), ("internal", "ipv6", "subnet"))


def _unlike(before: Mapping[str, str], after: Mapping[str, str], names: Iterable[str]) -> tuple[Field, ...]:
    return tuple(
        Field(_in_words(name), before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )


def _network_facts(network: StackNetwork | None) -> dict[str, str]:
    if network is None:
        return {}
    facts = {"internal": network.internal, "ipv6": network.ipv6, "subnet": ", ".join(network.subnets)}
    return {name: _shown(fact) for name, fact in facts.items() if fact}


def _facts(path: str, value: object) -> Iterator[tuple[str, str]]:
    if path in _UNSAID or value is None or value == ():
        return
    if path in _SAID:
        yield from _SAID[path](path, value)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _facts(f"{path}.{_step(each.name, value)}".lstrip("."), getattr(value, each.name))
    else:
        yield path, _shown(value)


def _step(name: str, owner: object) -> str:
    """A probe's kind is a word of the spec: `ready.tcp`, not `ready.probe`."""
    return type(cast("Any", owner).probe).__name__.lower() if name == "probe" else name


def _in_words(path: str) -> str:
    words = path.split(".")
    if words[0] in {"config", "policy"}:
        words = words[1:]
    return ".".join((_WORDS.get(words[0], words[0]), *words[1:]))


# --- values -----------------------------------------------------------------------------------------------------------


def _mount(mount: Mount) -> str:
    """In words; of a secret's contents only whether they are the same."""
    match mount:
        case MemoryFile():
            mark = blake2b(mount.contents, key=_MARKED_WITH, digest_size=3).hexdigest()
            return f"hidden ({mark}), mode {mount.mode:04o}, of {mount.uid}:{mount.gid}"
        case Bind():
            more = [mount.propagation.value, *(["without what is below"] if not mount.recursive else [])]
            return ", ".join([mount.volume or mount.source, *_forbidden(mount.attributes), *more])
        case Tmpfs():
            size = "any size" if mount.size_bytes is None else f"{mount.size_bytes} bytes"
            owner = f"mode {mount.mode:04o}, of {mount.uid}:{mount.gid}"
            return ", ".join(["tmpfs", size, owner, *_forbidden(mount.attributes)])


def _port(port: Port) -> str:
    """As the spec has it."""
    host = f"[{port.address}]" if ":" in port.address else port.address
    published = "" if port.host is None else str(port.host)
    before = f"{host}:{published}:" if host else f"{published}:" if published else ""
    return f"{before}{port.container}/{port.protocol}"


def _attachment(attachment: Attachment) -> str:
    more = [f"aliases {' '.join(attachment.aliases)}"] if attachment.aliases else []
    return ", ".join([*filter(None, (attachment.ipv4, attachment.ipv6)), *more]) or "connected"


_MARKED_WITH = os.urandom(16)  # so that a mark tells nothing to who has it


def _forbidden(attributes: int) -> list[str]:
    return [word for attribute, word in ATTRIBUTES.items() if attributes & attribute]


def _condition(need: object) -> str:
    """Of a dependency, as Compose has it, and what is special to it."""
    if not is_dataclass(need):
        return _shown(need)
    special = [
        f"{each.name} {_shown(value)}" for each in fields(need) if (value := getattr(need, each.name)) != each.default
    ]
    return ", ".join(special).removeprefix("condition ") or "started"


def _capabilities(mask: int) -> str:
    return " ".join(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1) or "none"


def _shown(value: object) -> str:
    match value:
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case tuple() | list() if all(isinstance(each, str) for each in value):
            return shlex.join(value)
        case tuple() | list() | set() | frozenset():
            return ", ".join(sorted(map(_shown, value)) if isinstance(value, set | frozenset) else map(_shown, value))
        case float():
            return f"{value:g}"
        case bytes():
            return value.decode(errors="backslashreplace")
    return str(value)


# --- which value is said how ------------------------------------------------------------------------------------------

_Say = Callable[[str, Any], Iterable[tuple[str, str]]]


def _whole(say: Callable[[Any], str]) -> _Say:
    """All of it as one fact."""
    return lambda path, value: [(path, say(value))]


def _each(say: Callable[[Any], Iterable[tuple[str, str]]] = iter) -> _Say:
    """A fact for each thing that is in it, by its name."""
    return lambda path, value: ((f"{path}.{name}", text) for name, text in say(value))


def _among_others(say: Callable[[Any], Iterable[tuple[str, str]]]) -> _Say:
    """As keys of the spec that stand beside others, whatever part of a configuration holds it."""
    return lambda _, value: ((f"config.{name}", text) for name, text in say(value))


_SAID: Mapping[str, _Say] = {
    "depends_on": _each(lambda needs: ((name, _condition(need)) for name, need in needs.items())),
    "config.attachments": _each(lambda networks: ((each.network, _attachment(each)) for each in networks)),
    "config.capabilities": _whole(_capabilities),
    "config.devices": _whole(lambda devices: ", ".join(f"{each.source}:{each.target}" for each in devices)),
    "config.env": _each(),
    "config.hosts": _each(),
    "config.limits": _among_others(described),
    "config.mounts": _each(lambda mounts: ((each.target, _mount(each)) for each in mounts)),
    # One word of the spec says both.
    "config.network": _among_others(lambda kind: [] if kind is Network.CONTAINER else [("network", _shown(kind))]),
    "config.shares": _among_others(lambda other: [("network", f"container:{other}")]),
    "config.ports": _whole(lambda ports: ", ".join(map(_port, ports))),
    "config.rlimits": _each(lambda limits: ((RLIMITS[kind], f"{soft}:{hard}") for kind, soft, hard in limits)),
    "config.seccomp": _whole(lambda filter_: str(filter_.name)),
    "config.sysctls": _each(),
    "config.userns": _whole(str),
}
