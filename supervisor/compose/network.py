"""What a Compose file says of networks and ports, as a spec says it.

In Compose a service without a word of networks is in `default`, whatever else the file says; in a spec that is so if
the stack has networks. So the file's networks are always written, be it only that one.
"""

from supervisor.compose import dollar
from supervisor.compose.scalars import nothing, truth
from supervisor.compose.services import File, Keys, Service
from supervisor.entry import DEFAULT_NETWORK
from supervisor.spec.faults import Loc, Wrong, quoted, unexpected
from supervisor.spec.tree import Map, Seq

_OF_ATTACHMENT = ("aliases", "ipv4_address", "ipv6_address")
_OF_PORT = ("target", "published", "host_ip", "protocol", "mode")
_WORDS = ("host", "none", "bridge")
_OF_ANOTHER = "service:"
_METADATA = ("x-", "labels", "attachable")
_USUAL = (("driver", "bridge"), ("driver", "default"))


def network_mode(service: Service, value: object) -> Keys:
    """`service:NAME` is the network of that container."""
    if isinstance(value, str) and (value in _WORDS or dollar.has(value)):
        return {"network": value}
    if isinstance(value, str) and value.startswith(_OF_ANOTHER):
        return {"network": f"container:{service.file.known(value.removeprefix(_OF_ANOTHER))}"}
    raise Wrong(f"is {quoted(str(value))}", "host, none, bridge or service:NAME, a service of this file")


def attachments(service: Service, value: object) -> Keys:
    """A list of names, or a mapping of them to what the service is there."""
    if isinstance(value, Map):
        found = {name: _attachment(service, name, entry) for name, entry in value.items()}
        return {"networks": list(found) if not any(found.values()) else found} if found else {}
    if not isinstance(value, Seq):
        raise unexpected(value, "a list of networks, or a mapping of them")
    return {"networks": list(value)} if value else {}


def _attachment(service: Service, name: str, entry: object) -> Keys:
    if entry is None:
        return {}
    if not isinstance(entry, Map):
        raise unexpected(entry, "a mapping").within(name)
    for key, value in entry.items():
        if key not in _OF_ATTACHMENT and not key.startswith("x-") and not nothing(value):
            service.notes.dropped(service.loc("networks", name, key), "an interface has a name and an address only")
    return {key: entry[key] for key in _OF_ATTACHMENT if not nothing(entry.get(key))}


def ports(service: Service, value: object) -> Keys:
    """The short form is the same, and the long one less what only people read."""
    if not isinstance(value, Seq):
        raise unexpected(value, "a list of ports")
    if value and (mode := service.entries.get("network_mode")) in ("host", "none"):
        raise Wrong(f"is published by nobody with network_mode: {mode}")
    return {"ports": [_port(service, index, entry) for index, entry in enumerate(value)]} if value else {}


def _port(service: Service, index: int, entry: object) -> object:
    if not isinstance(entry, Map):
        return entry
    for key, value in entry.items():
        if key not in (*_OF_PORT, "name", "app_protocol") and not key.startswith("x-") and not nothing(value):
            service.notes.dropped(service.loc("ports", index, key), "is no key of a port")
    return {key: entry[key] for key in _OF_PORT if not nothing(entry.get(key))}


def networks(tree: Map, file: File) -> Keys:
    """Those of the spec, if any service is in one."""
    entries = tree.get("networks")
    if entries is not None and not isinstance(entries, Map):
        file.notes.dropped(("networks",), str(unexpected(entries, "a mapping of names")), key=False)
    named = entries if isinstance(entries, Map) else {}
    found = {name: _network(file, name, entry) for name, entry in named.items() if not name.startswith("x-")}
    says = ("network_mode", "networks")
    if not found and any(not any(each.get(key) for key in says) for each in file.services.values()):
        found[DEFAULT_NETWORK] = {}
    return {"networks": found} if found else {}


def _network(file: File, name: str, entry: object) -> Keys:
    found: Keys = {}
    for key, value in entry.items() if isinstance(entry, Map) else ():
        loc: Loc = ("networks", name, key)
        try:
            if key == "internal":
                found["internal"] = truth(value)
            elif key == "enable_ipv6":
                found["ipv6"] = truth(value)
            elif key == "ipam":
                found |= _subnets(file, value, loc)
            elif key == "external" and not nothing(value):
                file.notes.changed(loc, "networks are each stack's own: this is a new one")
            elif not (nothing(value) or key.startswith(_METADATA) or (key, value) in _USUAL):
                file.notes.dropped(loc, "a network is a bridge of the stack's own")
        except Wrong as wrong:
            file.notes.dropped(loc, str(wrong), key=False)
    return found


def _subnets(file: File, value: object, loc: Loc) -> Keys:
    """Of `ipam`, what gives addresses; a gateway is always the first."""
    configs = value.get("config") if isinstance(value, Map) else None
    found = []
    for index, config in enumerate(configs if isinstance(configs, Seq) else ()):
        for key, entry in config.items() if isinstance(config, Map) else ():
            if key == "subnet":
                found.append(entry)
            elif not nothing(entry):
                file.notes.dropped((*loc, "config", index, key), "the gateway is the first address of a subnet")
    return {"subnet": found} if found else {}
