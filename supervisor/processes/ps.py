"""A process as ps shows it: proc_pid_stat(5), proc_pid_status(5)."""

import os
import pwd
import time
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def describe_process(pid: int) -> Mapping[str, str]:
    """`user`, `ppid`, `started`, `time` and `cmd` of a process of the host's; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return {}
    name, _, rest = fields.partition("(")[2].rpartition(")")
    stat = rest.split()
    cpu_s = (int(stat[11]) + int(stat[12])) // TICKS
    began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(stat[19]) / TICKS
    return {
        "user": _name_of(owner),
        "ppid": stat[1],
        "started": time.strftime("%H:%M", time.localtime(began)),
        "time": f"{cpu_s // 3600:02}:{cpu_s // 60 % 60:02}:{cpu_s % 60:02}",
        "cmd": command.replace(b"\0", b" ").decode(errors="backslashreplace").strip() or f"[{name}]",
    }


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
