"""Devices that a container may only read, or only write: what the mode of a node can't hold root to.

A program of the kernel's (BPF_PROG_TYPE_CGROUP_DEVICE) is asked whenever a process of the container's cgroup opens a
device. It knows the devices that are not given whole, and permits all else: what no node leads to need not be refused.
It is asked of cgroups of version 2 alone, with whatever controllers, so also where those are of version 1; a container
all of whose devices are given whole has none.

That a node may be made (`m`) makes no difference here: one that a container makes opens nothing (lower.py, CloseDev).
"""

import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runtime.errors import CgroupError
from runtime.mounts import Device
from runtime.plan import MakeDevice

READ, WRITE = 2, 4  # include/uapi/linux/bpf.h: BPF_DEVCG_ACC_*
_BLOCK, _CHARACTER = 1, 2  # BPF_DEVCG_DEV_*
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD, _JUMP_UNLESS, _JUMP_IF, _MOVE, _AND, _SHIFT, _EXIT = 0x61, 0x55, 0x15, 0xB7, 0x57, 0x77, 0x95
_COPY = 0xBF
ACCESS, MAJOR, MINOR = 0, 4, 8  # struct bpf_cgroup_dev_ctx
UNHELD = (
    "devices: that one is only read, or only written, can't be held: it takes cgroups of version 2, which this host "
    "does not mount writable; give it whole, with rw, or mount them"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is refused of a device."""

    block: bool
    major: int
    minor: int
    denied: int  # READ, WRITE


def is_partial(device: Device) -> bool:
    """Is it not given whole?"""
    return not {"r", "w"} <= set(device.permissions)


def rules(nodes: Iterable[MakeDevice]) -> tuple[Rule, ...]:
    """For those that are not given whole. One that is given twice has what either gives."""
    denied: dict[tuple[bool, int], int] = {}
    for node in nodes:
        key = stat.S_ISBLK(node.mode), node.number
        denied[key] = denied.get(key, READ | WRITE) & ~_given(node.permissions)
    return tuple(
        Rule(block, number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00, refused)
        for (block, number), refused in denied.items()
        if refused
    )


def check(container: str, devices: Iterable[Device], *, held: bool) -> None:
    """CgroupError if this host can't hold a container to them."""
    if not held and any(map(is_partial, devices)):
        raise CgroupError(f"{container}: {UNHELD}")


def _given(permissions: str) -> int:
    return (READ if "r" in permissions else 0) | (WRITE if "w" in permissions else 0)


def program(held: Iterable[Rule]) -> bytes:
    """Its instructions: bpf(2)."""
    return b"".join(_INSTRUCTION.pack(code, registers, offset, value) for code, registers, offset, value in _code(held))


def _code(held: Iterable[Rule]) -> Iterator[tuple[int, int, int, int]]:
    """Registers are 1, the context; 2, what is wanted of 5, a kind of device; 3 and 4, its numbers; 0, the answer."""
    yield _LOAD, 0x12, ACCESS, 0
    yield _LOAD, 0x13, MAJOR, 0
    yield _LOAD, 0x14, MINOR, 0
    yield _COPY, 0x25, 0, 0
    yield _AND, 0x05, 0, 0xFFFF
    yield _SHIFT, 0x02, 0, 16
    for rule in held:
        yield _JUMP_UNLESS, 0x05, 7, _BLOCK if rule.block else _CHARACTER
        yield _JUMP_UNLESS, 0x03, 6, rule.major
        yield _JUMP_UNLESS, 0x04, 5, rule.minor
        yield _AND, 0x02, 0, rule.denied
        yield _MOVE, 0x00, 0, 1
        yield _JUMP_IF, 0x02, 1, 0
        yield _MOVE, 0x00, 0, 0
        yield _EXIT, 0, 0, 0
    yield _MOVE, 0x00, 0, 1
    yield _EXIT, 0, 0, 0
