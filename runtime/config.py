"""What one container is to be, resolved: OCI words, no syntax, nothing left to look up.

A front (the supervisor's spec, `pysup run`, an OCI config.json) fills it in; `build.py` turns it into a plan.
"""

from dataclasses import dataclass
from enum import StrEnum

from runtime.cgroup.limits import NO_LIMITS, Limits
from runtime.idmap import Ids
from runtime.mounts import NO_DNS, Device, Dns, Mount
from runtime.seccomp.filter import Filter
from runtime.users import User

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

SHM_BYTES = 64 << 20
HOST_GATEWAY = "host-gateway"  # in place of an address in `hosts`, until it is known: the host's, in a network of ours


class Network(StrEnum):
    HOST = "host"
    NONE = "none"  # a namespace of each run's own, with nothing but the loopback interface
    BRIDGE = "bridge"  # a namespace of the container's own, which outlives its runs
    CONTAINER = "container"  # another container's


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container in a network of its stack, and the names that others there know it by, besides its id."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4: str | None = None  # None: one that is chosen for it
    ipv6: str | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container that is reached at one of the host's."""

    container: int
    protocol: str = "tcp"  # or udp
    host: int | None = None  # None: any that is free
    address: str = ""  # of the host; empty: all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """One container. Paths are the host's; `workdir` and argv belong to the image."""

    id: str
    lowers: tuple[str, ...]  # the image's layers, uppermost first
    directory: str  # of this container's own, for upper, work and merged; also the overlay's name in mount tables
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = "/"
    user: User
    hostname: str
    memory_bytes: int | None = None  # the upper lives in a tmpfs of this size; None: on disk, in `directory`
    keep: bool = False  # the upper outlives the run, and whoever runs it
    lasting: bool = False  # the upper outlives the run, until it is thrown away
    network: Network = Network.HOST
    shares: str | None = None  # the id of the container whose network it is in
    attachments: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()
    address: str = "127.0.1.1"  # what its host name stands for in /etc/hosts
    init: bool = False
    terminal: bool = False
    stdin: bool = False  # its standard input can be written to; else it is empty
    notify: bool = False  # it may speak by sd_notify(3)
    capabilities: int = 0  # bit mask, capabilities(7)
    privileged: bool = False
    userns: Ids | None = None  # None: the ids of the host; AUTO: some of its own
    seccomp: Filter | None = None  # None: every call may be made
    umask: int = 0o022
    limits: Limits = NO_LIMITS
    rlimits: tuple[tuple[int, int, int], ...] = ()  # (resource, soft, hard); -1 is unlimited
    resolv_conf: bytes | None = None  # contents of /etc/resolv.conf; None leaves the image's
    dns: Dns = NO_DNS  # what of that was asked for
    hosts: tuple[tuple[str, str], ...] = ()  # (name, address) beside its own in /etc/hosts
    mounts: tuple[Mount, ...] = ()  # in their order: what is mounted on another comes after it
    devices: tuple[Device, ...] = ()
    read_only: bool = False  # its root, once all is mounted and the working directory made
    shm_bytes: int = SHM_BYTES  # the size of /dev/shm
    sysctls: tuple[tuple[str, str], ...] = ()  # of its own namespaces

    @property
    def place(self) -> str:
        """The last part of its directory: its id, unless another run has that for now. Its cgroup is named so."""
        return self.directory.rpartition("/")[2]

    @property
    def whereabouts(self) -> tuple[object, ...]:
        """Where it is in networks, and how it is reached: one with others has another namespace."""
        return self.network, self.shares, self.attachments, self.ports
