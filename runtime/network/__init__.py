"""The network of a container: the host's, a namespace of each run's own with nothing but the loopback interface, or one
that outlives its runs, its own or another container's.

The last kind is made before the first run, by somebody else, and comes along as a descriptor: a restart costs nothing,
and the address stays. It is joined before anything is mounted: what /sys shows of the network is that of the namespace
in which it was mounted.
"""

from runtime import plan
from runtime.config import ContainerConfig, Network

KEPT = (Network.BRIDGE, Network.CONTAINER)  # whose namespace comes along


def joining(config: ContainerConfig, position: int, *, owned: bool) -> list[plan.Step]:
    """What the child does before its root is made. `position` is that of the namespace among the descriptors. One that
    is `owned` by the container's user namespace can't be made by the child, which joins that last.
    """
    comes = config.network in KEPT or (owned and config.network is Network.NONE)
    return [plan.JoinNetwork(position)] if comes else []


def steps(config: ContainerConfig) -> list[plan.Step]:
    """A new network namespace starts with its loopback interface down (network_namespaces(7))."""
    return [plan.LoopbackUp()] if config.network is Network.NONE else []
