"""What is measured: one container that runs busybox `true`, as pysup makes it by default, on one of two storages.

The image holds every directory and file that a runtime mounts something on, so that no runtime writes into the upper
layer and all of them leave the same empty directories to remove.
"""

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from runtime import build, config, lower, plan, security
from runtime.cgroup.branch import Branch
from runtime.cgroup.limits import NO_LIMITS
from runtime.seccomp.load import default_filter
from runtime.users import User

HOSTNAME = "bench"
TMPFS_BYTES = 16 << 20
PATH = "/bin"
TRUE = ("busybox", "true")
_RECORD = struct.Struct("=2IQ")  # floor.c: struct record


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything lies: one image, one directory for the containers' own, on one storage ("disk" or "memory")."""

    image: Path
    state: Path
    storage: str


@dataclass(frozen=True, slots=True)
class Guard:
    """Which protections are on. Without `masks` there are all capabilities, nothing masked, and no no_new_privs."""

    masks: bool = True
    seccomp: bool = False
    branch: Branch | None = None  # where each container has a cgroup


USUAL = Guard()  # what is compared with peers, none of which has a filter or a cgroup by itself


def make_image(where: Path, busybox: Path) -> Path:
    """A root file system with a static busybox and nothing else to run."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (where / name).mkdir(parents=True)
    shutil.copy2(busybox, where / "bin/busybox")
    for name in ("hosts", "hostname", "resolv.conf"):
        (where / "etc" / name).write_text("")
    (where / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (where / "etc/group").write_text("root:x:0:\n")
    return where


def container(place: Place, number: int, argv: tuple[str, ...] = TRUE, guard: Guard = USUAL) -> config.ContainerConfig:
    """The container with this number, as the supervisor would have it."""
    capabilities = security.capability_mask((), (), privileged=not guard.masks)
    return config.ContainerConfig(
        id=f"c{number}",
        lowers=(str(place.image),),
        directory=str(place.state / f"c{number}"),
        argv=argv,
        env=(("PATH", PATH), ("HOME", "/"), ("HOSTNAME", HOSTNAME)),
        user=User(0, 0, (), "root", "/"),
        hostname=HOSTNAME,
        memory_bytes=TMPFS_BYTES if place.storage == "memory" else None,
        capabilities=capabilities,
        privileged=not guard.masks,
        seccomp=default_filter(capabilities) if guard.seccomp else None,
    )


@dataclass(frozen=True, slots=True)
class Lowered:
    """A plan with its program, ready to be sent to a launcher."""

    plan: plan.Plan
    image: bytes

    @property
    def leaves_something(self) -> bool:
        """To be removed after the run."""
        return self.plan.directory is not None or self.plan.cgroup is not None


def lowered(place: Place, number: int, argv: tuple[str, ...] = TRUE, guard: Guard = USUAL) -> Lowered:
    """Plan and lower the container with this number."""
    cgroup = None if guard.branch is None else guard.branch.cgroup(f"c{number}", NO_LIMITS)
    wanted = build.build_plan(container(place, number, argv, guard), cgroup)
    return Lowered(wanted, lower.lower_plan(wanted).image)


def write_programs(path: Path, programs: list[Lowered]) -> None:
    """The file that floor.c reads."""
    with path.open("wb") as file:
        for made in programs:
            directory = os.fsencode(made.plan.directory or "") + b"\0"
            image, directory = _padded(made.image), _padded(directory)
            file.write(_RECORD.pack(len(image), len(directory), security.clone_flags(made.plan)))
            file.write(image + directory)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
