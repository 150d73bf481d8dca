"""Which network each container of a stack is in, and at which ports of the host it is reached: pure, before anything
runs.

The rule for containers that do not say: as in Compose they are in the network `default` if the stack says anything of
networks, that is, if it has `networks` at its top, or any container has `networks` or `ports`. A stack that says
nothing of them is in the host's network.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from runtime.config import Attachment, Network, Port
from supervisor.entry import DEFAULT_NETWORK, StackNetwork
from supervisor.spec import Container, Fault, Spec, instances
from supervisor.spec.networking import SHARES
from supervisor.spec.terms import Publication


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a container is: what its configuration has of it."""

    network: Network
    shares: str | None = None
    attachments: tuple[Attachment, ...] = ()


def has_networks(spec: Spec) -> bool:
    """Whether containers that do not say are in a network of the stack."""
    return bool(spec.networks) or any(each.networks or each.ports for each in spec.containers)


def placement(container: Container, *, networked: bool) -> Placement:
    """Of all replicas of a container; `networked`: the stack has networks."""
    wanted = container.network or (Network.BRIDGE if networked or container.networks or container.ports else "host")
    if wanted.startswith(SHARES):
        return Placement(Network.CONTAINER, wanted.removeprefix(SHARES))
    network = Network(wanted)
    if network is not Network.BRIDGE:
        return Placement(network)
    named = container.networks or (Attachment(DEFAULT_NETWORK),)
    return Placement(network, None, tuple(replace(one, aliases=_names(container, one)) for one in named))


def _names(container: Container, attachment: Attachment) -> tuple[str, ...]:
    """Replicas are all known by the id that they share, too."""
    shared = () if container.replicas == 1 else (container.id.lower(),)
    return tuple(dict.fromkeys((*shared, *container.aliases, *attachment.aliases)))


def ports(publications: Iterable[Publication], replica: int) -> tuple[Port, ...]:
    """Those of one replica: where one port of the container may be any of several of the host's, each has its own."""
    return tuple(port for publication in publications for port in _ports(publication, replica))


def _ports(publication: Publication, replica: int) -> Iterator[Port]:
    first, last = publication.target
    low, high = publication.published or (None, None)
    if low is not None and first == last and low != high:
        low += replica - 1
    for offset in range(last - first + 1):
        host = None if low is None else low + offset
        yield Port(first + offset, publication.protocol, host, publication.address)


def networks(spec: Spec) -> tuple[StackNetwork, ...]:
    """Those that a container is in."""
    networked = has_networks(spec)
    used = dict.fromkeys(
        attachment.network for one in spec.containers for attachment in placement(one, networked=networked).attachments
    )
    return tuple(spec.networks.get(name, StackNetwork(name)) for name in used)


def wider(shared: str, placements: dict[str, Placement]) -> Placement:
    """What a container's placement becomes as others share it: a namespace that outlives its runs."""
    own = placements[shared]
    return replace(own, network=Network.BRIDGE) if own.network is Network.NONE else own


# --- what can't be ----------------------------------------------------------------------------------------


def faults(spec: Spec) -> Iterator[Fault]:
    """What is wrong between the containers, their networks and their ports."""
    known = {*spec.networks, DEFAULT_NETWORK}
    networked = has_networks(spec)
    taken: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for index, container in enumerate(spec.containers):
        at = f"containers[{index}]"
        yield from _of_mode(spec, container, at)
        for place, attachment in enumerate(container.networks):
            step = f"{at}.networks.{attachment.network}" if _is_mapping(spec, index) else f"{at}.networks[{place}]"
            yield from _of_attachment(spec, container, attachment, known, step)
        here = placement(container, networked=networked)
        if container.ports and here.attachments and all(_is_internal(spec, one) for one in here.attachments):
            yield spec.fault(f"{at}.ports", "lead into networks that are all internal; name one that is not")
        yield from _of_ports(spec, container, at, taken)


def _is_mapping(spec: Spec, index: int) -> bool:
    containers = spec.tree.get("containers")
    container = containers[index] if isinstance(containers, list) else None
    return isinstance(container, dict) and isinstance(container.get("networks"), dict)


def _is_internal(spec: Spec, attachment: Attachment) -> bool:
    network = spec.networks.get(attachment.network)
    return network is not None and network.internal


def _of_mode(spec: Spec, container: Container, at: str) -> Iterator[Fault]:
    mode = container.network
    if mode not in (None, Network.BRIDGE):
        for key in ("networks", "ports", "aliases"):
            if getattr(container, key):
                yield spec.fault(f"{at}.{key}", f"has no meaning with network: {mode}; leave one of them out")
    if mode is None or not mode.startswith(SHARES):
        return
    shared = mode.removeprefix(SHARES)
    names = {each.id: each.container for each in spec.instances()}
    if shared not in names:
        wrong = f"shares with {shared}, which is no container of the stack"
        if any(each.id == shared for each in spec.containers):
            wrong = f"shares with {shared}, of which there are several; name one, such as {shared}.1"
        yield spec.fault(f"{at}.network", wrong)
    elif (names[shared].network or "").startswith(SHARES):
        yield spec.fault(f"{at}.network", f"shares with {shared}, which has another's itself; name that one")


def _of_attachment(
    spec: Spec, container: Container, attachment: Attachment, known: set[str], at: str
) -> Iterator[Fault]:
    if attachment.network not in known:
        yield spec.fault(at, f"{attachment.network} is no network of the stack; add it to networks at the top")
        return
    network = spec.networks.get(attachment.network, StackNetwork(attachment.network))
    for key, address in (("ipv4_address", attachment.ipv4), ("ipv6_address", attachment.ipv6)):
        if address is None:
            continue
        if container.replicas > 1:
            yield spec.fault(f"{at}.{key}", f"is one address for {container.replicas} replicas; leave it out")
        elif not any(_is_usable(address, subnet) for subnet in network.subnets):
            wrong = f"{address} is no address for a container in a subnet of {network.name}"
            yield spec.fault(f"{at}.{key}", f"{wrong}; give networks.{network.name}.subnet")


def _is_usable(address: str, subnet: str) -> bool:
    """Not the network's own address, nor the gateway, nor that of all."""
    one, among = ip_address(address), ip_network(subnet)
    if one not in among:
        return False
    return one not in (among[0], among[1], among[-1])


def _of_ports(
    spec: Spec, container: Container, at: str, taken: dict[tuple[str, int], list[tuple[str, str]]]
) -> Iterator[Fault]:
    """Two containers can't have the same port of the host."""
    for place, publication in enumerate(container.ports):
        where = f"{at}.ports[{place}]"
        if (wrong := _too_few(publication, container.replicas)) is not None:
            yield spec.fault(where, wrong)
            continue
        for one in instances(container):
            for port in _ports(publication, one.replica):
                if port.host is None:
                    continue
                others = taken.setdefault((port.protocol, port.host), [])
                for address, other in others:
                    if not (port.address and address and port.address != address):
                        yield spec.fault(where, f"port {port.host}/{port.protocol} is published by {other} already")
                others.append((port.address, one.id))


def _too_few(publication: Publication, replicas: int) -> str | None:
    """What is wrong where each replica is to have a port of its own."""
    first, last = publication.target
    if publication.published and first == last:
        low, high = publication.published
        if replicas > high - low + 1:
            wrong = f"{publication} is too few ports for {replicas} replicas"
            return f"{wrong}; give a range such as {low}-{low + replicas - 1}:{first}"
    elif publication.published and replicas > 1:
        return f"{publication} is for one container, and there are {replicas}"
    return None
