"""The stack's networks: `docker network ls` and `inspect`. They are made by the spec alone, and read here.

Beside them are the two that Docker has everywhere, `host` and `none`, as containers may say that they are in these.
"""

from collections.abc import Sequence
from typing import Any

from runtime.config import Network
from supervisor.api.call import Call
from supervisor.api.errors import bad, missing
from supervisor.api.http import Answering, shown
from supervisor.api.networks import key_of, named, plain
from supervisor.api.queries import Filters, is_true, passes
from supervisor.api.shapes import NEVER, PROJECT, is_running
from supervisor.commands import View
from supervisor.network.ends import Laid

Shape = dict[str, Any]

NETWORK = "com.docker.compose.network"
FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
BUILTIN = {str(Network.HOST): "host", str(Network.NONE): "null"}  # and their drivers


async def every(call: Call) -> Answering:
    """`docker network ls`. Who is in them is told by `inspect` alone, as with Docker."""
    filters, views = call.query.filters(FILTERS), call.commands.views()
    return shown([{**each, "Containers": {}} for each in _all(call, views) if _passes(each, filters)])


async def inspect(call: Call) -> Answering:
    """`docker network inspect`: by name, by id, or by the beginning of one."""
    reference, found = call.parts["name"], _all(call, call.commands.views())
    named_so = [each for each in found if each["Name"] == named(reference) or each["Id"] == reference]
    near = named_so or [each for each in found if each["Id"].startswith(reference)]
    if len(near) > 1:
        raise bad(f"network {reference[:100]} is ambiguous ({len(near)} matches found on ID prefix)")
    if not near:
        raise missing(f"network {reference[:100]} not found")
    return shown(near[0])


async def prune(call: Call) -> Answering:
    """`docker network prune`: there are none that the spec does not have, so there is nothing to take away."""
    call.query.filters({"until", "label", "label!"})
    return shown({"NetworksDeleted": []})


def _all(call: Call, views: Sequence[View]) -> list[Shape]:
    stack = call.commands.name
    ours = [_shape(stack, network, views) for network in call.commands.networks()]
    return [*ours, *(_builtin(stack, name, views) for name in BUILTIN)]


def _shape(stack: str, network: Laid, views: Sequence[View]) -> Shape:
    """Its bridge is named as Docker's driver has it, so that a packet filter's owner finds it."""
    pairs = zip(network.subnets, network.gateways, strict=True)
    return {
        **_usual(stack, network.name, "bridge"),
        "EnableIPv6": network.ipv6,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": subnet, "Gateway": plain(gateway)} for subnet, gateway in pairs],
        },
        "Internal": network.internal,
        "Containers": dict(_member(view, network.name) for view in views if is_running(view) and _is_in(view, network)),
        "Options": {"com.docker.network.bridge.name": network.bridge},
        "Labels": {PROJECT: stack, NETWORK: network.name},
    }


def _usual(stack: str, name: str, driver: str) -> Shape:
    return {
        "Name": name,
        "Id": key_of(stack, name),
        "Created": NEVER,  # with the stack, or the reload that brought it
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def _builtin(stack: str, name: str, views: Sequence[View]) -> Shape:
    inside = {
        view.key: _place(view.id, "", ()) for view in views if is_running(view) and str(view.config.network) == name
    }
    return {**_usual(stack, name, BUILTIN[name]), "Containers": inside}


def _is_in(view: View, network: Laid) -> bool:
    return any(end.network == network.name for end in view.connections.ends)


def _member(view: View, network: str) -> tuple[str, Shape]:
    end = next(end for end in view.connections.ends if end.network == network)
    return view.key, _place(view.id, end.mac, end.addresses)


def _place(name: str, mac: str, addresses: Sequence[str]) -> Shape:
    """IPv4 first; with the lengths of the prefixes, as Docker has them here."""
    four, six = ("".join(each for each in addresses if (":" in each) is wanted) for wanted in (False, True))
    return {"Name": name, "EndpointID": "", "MacAddress": mac, "IPv4Address": four, "IPv6Address": six}


def _passes(shape: Shape, filters: Filters) -> bool:
    is_builtin = shape["Name"] in BUILTIN
    tests = {
        "driver": lambda wanted: shape["Driver"] == wanted,
        "id": lambda wanted: wanted in shape["Id"],
        "name": lambda wanted: wanted in shape["Name"],
        "scope": lambda wanted: shape["Scope"] == wanted,
        "type": lambda wanted: wanted == ("builtin" if is_builtin else "custom"),
        "dangling": lambda wanted: is_true("dangling", wanted) is (not is_builtin and not shape["Containers"]),
    }
    return passes(filters, tests, shape["Labels"])
