"""The probe: a shell script and a program that make one report in any container, and what is read from it."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from runtime.capabilities import CAPABILITIES
from runtime.linux import MACHINE
from runtime.seccomp.calls import numbers

# These end the process that makes them, or change what it goes on with, whatever their arguments are.
UNASKED = frozenset("exit exit_group fork vfork clone rt_sigreturn execve execveat uretprobe uprobe".split())
REFUSALS = (1, 13, 38, -31)  # EPERM, EACCES, ENOSYS, SIGSYS
PROC = "acpi asound interrupts kcore keys latency_stats scsi sched_debug sysrq-trigger timer_list timer_stats".split()
SYS = ("firmware", "devices/virtual/powercap", "kernel/debug", "kernel/security", "fs/cgroup", "fs/bpf")
SETTINGS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
)
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

SCRIPT = r"""
section() { echo "@@ $1"; }
section status; cat /proc/self/status
section namespaces; for n in $NAMESPACES; do echo $n $(readlink /proc/self/ns/$n); done
section uid_map; cat /proc/self/uid_map
section descriptors; ls /proc/self/fd
section devices; find /dev -type b -o -type c
section mounts; cat /proc/self/mountinfo
section readable; for p in $READABLE; do
  if [ -d $p ]; then [ -n "$(ls -A $p 2>/dev/null)" ] && echo $p
  elif [ "$(head -c 1 $p 2>/dev/null | wc -c)" = 1 ]; then echo $p; fi; done
section writable; for p in $SETTINGS; do (: >> $p) 2>/dev/null && echo $p; done
section root; touch /.probe 2>/dev/null && echo written && rm /.probe
section disk; mknod /tmp/probed b $DISK 2>/dev/null && echo made && (: < /tmp/probed) 2>/dev/null && echo opened
rm -f /tmp/probed
section limits; cat /proc/self/limits
section calls; probe $CALLS
"""


def calls() -> dict[str, int]:
    """Those that are tried, by name."""
    return {name: number for name, number in numbers(MACHINE).items() if name not in UNASKED}


def script() -> str:
    """For `sh -c`."""
    readable = [*(f"/proc/{name}" for name in PROC), *(f"/sys/{name}" for name in SYS)]
    words = {"NAMESPACES": NAMESPACES, "READABLE": readable, "SETTINGS": SETTINGS, "CALLS": map(str, calls().values())}
    words["DISK"] = _disk()
    return "".join(f"{name}='{' '.join(each)}'\n" for name, each in words.items()) + SCRIPT


def _disk() -> list[str]:
    """Major and minor number of one that this host has."""
    disk = next(Path("/sys/block").iterdir())
    return (disk / "dev").read_text(encoding="ascii").strip().split(":")


@dataclass(frozen=True)
class Report:
    """What the probe found."""

    sections: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str) -> "Report":
        """From what the script wrote."""
        sections: dict[str, list[str]] = {}
        for part in text.split("@@ ")[1:]:
            name, *lines = part.splitlines()
            sections[name] = [line.strip() for line in lines if line.strip()]
        return cls(sections)

    @cached_property
    def status(self) -> dict[str, str]:
        return dict(line.split(":", 1) for line in self.sections["status"] if ":" in line)

    def mask(self, name: str) -> int:
        """Of CapEff, CapBnd and the like."""
        return int(self.status[name].strip(), 16)

    @property
    def capabilities(self) -> list[str]:
        return [name for bit, name in enumerate(CAPABILITIES) if self.mask("CapBnd") >> bit & 1]

    @cached_property
    def answers(self) -> dict[str, int]:
        """What each call gave: 0, an errno, or minus a signal."""
        by_number = {int(word): int(code) for word, code in map(str.split, self.sections["calls"])}
        return {name: by_number[number] for name, number in calls().items() if number in by_number}

    def refused(self, bare: "Report") -> set[str]:
        """The calls that are refused here, and not to root of the host."""
        return {
            name for name, code in self.answers.items() if code in REFUSALS and bare.answers.get(name) not in REFUSALS
        }

    @property
    def namespaces(self) -> list[str]:
        """Those of its own."""
        found = (line.split(" ", 1) for line in self.sections["namespaces"])
        return [name for name, one in found if one != os.readlink(f"/proc/self/ns/{name}")]
