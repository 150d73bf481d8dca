"""The network of a container: the host's, or a namespace of its own with nothing but the loopback interface."""

from runtime import plan
from runtime.config import ContainerConfig, Network


def steps(config: ContainerConfig) -> list[plan.Step]:
    """A new network namespace starts with its loopback interface down (network_namespaces(7))."""
    return [plan.LoopbackUp()] if config.network is Network.NONE else []
