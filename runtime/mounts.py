"""What is shown inside a container beside its image: directories and files of the host, memory, secrets, devices.

Data only; how it gets there is in volumes.py. Attributes are MOUNT_ATTR_* of mount_setattr(2): what a mount forbids.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from runtime.linux import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

DATA = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV  # of volumes: what is data to the container is no way to privileges
NO_PROGRAMS = DATA | MOUNT_ATTR_NOEXEC
READ_ONLY = MOUNT_ATTR_RDONLY
NAMELESS_BYTES = 16
NAMELESS = rf"[0-9a-f]{{{2 * NAMELESS_BYTES}}}"  # what a volume is called that nobody has given a name
ATTRIBUTES = {  # in mount(8)'s words
    MOUNT_ATTR_RDONLY: "ro",
    MOUNT_ATTR_NOSUID: "nosuid",
    MOUNT_ATTR_NODEV: "nodev",
    MOUNT_ATTR_NOEXEC: "noexec",
}


class Propagation(StrEnum):
    """Of what is mounted below a bind later: mount_namespaces(7). None lets what a container mounts out to the host."""

    PRIVATE = "private"
    SLAVE = "slave"  # what the host mounts there later is seen inside


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or directory of the host. `source` is followed through no symbolic link when it is opened."""

    source: str
    target: str
    attributes: int = DATA
    propagation: Propagation = Propagation.PRIVATE
    recursive: bool = True  # with what is mounted below it
    create: bool = False  # a directory, where nothing is
    below: str = ""  # a path in it, whose symbolic links can't lead out of it
    seed: bool = False  # fill it from the image, while it is empty
    volume: str = ""  # what a named volume is called

    @property
    def is_nameless(self) -> bool:
        """A volume that is called by nothing but chance: nobody else knows of it."""
        return bool(re.fullmatch(NAMELESS, self.volume))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """Memory of the container's own; `size_bytes` None: half of the machine's (tmpfs(5))."""

    target: str
    size_bytes: int | None = None
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0
    attributes: int = NO_PROGRAMS


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFile:
    """A secret or config: read-only, in memory, on no disk, in no message."""

    target: str
    contents: bytes = field(repr=False)
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


Mount = Bind | Tmpfs | MemoryFile


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host, or all in a directory of its /dev, by paths here and there."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Dns:
    """What resolv.conf(5) says, where it is not the host's."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


NO_DNS = Dns()
