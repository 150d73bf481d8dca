"""A process as ps(1) shows it, column by column: proc_pid_stat(5), proc_pid_status(5), proc_pid_statm(5).

Ids and names are the host's, as `docker top` has them; so are terminals' numbers.
"""

import grp
import os
import pwd
import time
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") >> 10
DAY_S = 86400
_PTS_MAJORS = range(136, 144)  # Documentation/admin-guide/devices.txt


def describe_process(pid: int) -> Mapping[str, str]:
    """All columns of a process of the host's, by the names that `ps -o` has for them; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        status = _status(Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}
    name, _, rest = fields.partition("(")[2].rpartition(")")
    stat = rest.split()
    whole = command.replace(b"\0", b" ").decode(errors="backslashreplace").strip() or f"[{name}]"
    return {
        "pid": str(pid),
        "ppid": stat[1],
        "pgid": stat[2],
        "sid": stat[3],
        "tpgid": stat[5],
        "comm": name,
        "cmd": whole,
        "s": stat[0],
        "stat": stat[0] + _flags(stat, status),
        "f": str(int(stat[6]) >> 6 & 7),  # ps(1): PROCESS FLAGS
        "tty": _terminal(int(stat[4])),
        "ni": stat[16],
        "pri": str(39 - int(stat[15])),
        "nlwp": stat[17],
        "psr": stat[36],
        "addr": "-",
        "wchan": _waits_in(pid),
        "vsz": str(int(stat[20]) >> 10),
        "rss": str(int(stat[21]) * PAGE_KIB),
        "sz": str((int(stat[20]) >> 10) // PAGE_KIB),
        "pmem": f"{int(stat[21]) * PAGE_KIB * 100 / _memory_kib():.1f}",
        **_people(status),
        **_times(stat),
    }


def _status(text: str) -> Mapping[str, list[str]]:
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in text.splitlines()}


def _flags(stat: list[str], status: Mapping[str, list[str]]) -> str:
    """What follows the state: ps(1), PROCESS STATE CODES."""
    nice = int(stat[16])
    found = (
        ("<", nice < 0),
        ("N", nice > 0),
        ("L", status.get("VmLck", ["0"])[0] != "0"),
        ("s", stat[3] == status["Tgid"][0]),
        ("l", int(stat[17]) > 1),
        ("+", stat[2] == stat[5]),
    )
    return "".join(letter for letter, is_so in found if is_so)


def _people(status: Mapping[str, list[str]]) -> Mapping[str, str]:
    """Real ids come first, then effective ones."""
    uids, gids = status["Uid"], status["Gid"]
    return {
        "user": _user(uids[1]),
        "ruser": _user(uids[0]),
        "uid": uids[1],
        "ruid": uids[0],
        "group": _group(gids[1]),
        "rgroup": _group(gids[0]),
        "gid": gids[1],
        "rgid": gids[0],
    }


def _times(stat: list[str]) -> Mapping[str, str]:
    cpu_s = (int(stat[11]) + int(stat[12])) / TICKS
    lived_s = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(stat[19]) / TICKS)
    share = 100 * cpu_s / lived_s if lived_s >= 1 else 0.0
    began = time.time() - lived_s
    return {
        "time": _hours(int(cpu_s), days=True),
        "bsdtime": f"{int(cpu_s) // 60}:{int(cpu_s) % 60:02}",
        "pcpu": f"{share:.1f}",
        "c": str(min(99, int(share))),
        "started": _clock(began, "%Y"),
        "bsdstart": _clock(began, "%Y"),
        "lstart": time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(began)),
        "etime": _hours(int(lived_s)),
        "etimes": str(int(lived_s)),
    }


def _hours(seconds: int, *, days: bool = False) -> str:
    """[[DD-]HH:]MM:SS; hours always where `days` has it so."""
    day = f"{seconds // DAY_S:02}-" if seconds >= DAY_S else ""
    hour = f"{seconds // 3600 % 24:02}:" if days or day or seconds >= 3600 else ""
    return f"{day}{hour}{seconds // 60 % 60:02}:{seconds % 60:02}"


def _clock(began: float, years: str) -> str:
    """The hour today, else the day, else the year."""
    then, now = time.localtime(began), time.localtime()
    if then[:3] == now[:3] or time.time() - began < DAY_S:
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then[0] == now[0] else years, then)


def _terminal(number: int) -> str:
    """proc_pid_stat(5), tty_nr: the minor in bits 31 to 20 and 7 to 0, the major between."""
    major, minor = number >> 8 & 0xFFF, number >> 12 & 0xFFF00 | number & 0xFF
    if major in _PTS_MAJORS:
        return f"pts/{(major - _PTS_MAJORS.start) * 256 + minor}"
    return "?" if number == 0 else f"{major}:{minor}"


def _waits_in(pid: int) -> str:
    try:
        found = Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8")
    except OSError:
        return "-"
    return "-" if found in {"", "0"} else found


def _memory_kib() -> int:
    """Of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * PAGE_KIB


def _user(uid: str) -> str:
    try:
        return pwd.getpwuid(int(uid)).pw_name
    except KeyError:
        return uid


def _group(gid: str) -> str:
    try:
        return grp.getgrgid(int(gid)).gr_name
    except KeyError:
        return gid
