"""What `docker top` is asked for: ps(1)'s options, as far as they choose columns.

Docker has the host's ps do it. Here the columns are our own: nothing is started, and the host may have no ps. Which
processes are meant is never in question: the container's; so what selects others (-e, -A, a, x) changes nothing but
what ps changes of the columns with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from supervisor.api.errors import bad

Columns = Sequence[tuple[str, str]]  # (title, what `Commands.processes` calls it)

_TITLES: Mapping[str, str] = {
    **{name: name.upper() for name in "pid ppid pgid sid uid user group gid ruser rgroup ruid rgid tpgid".split()},
    **{name: name.upper() for name in "s f c ni pri rss vsz sz psr nlwp addr wchan tty stat time cmd".split()},
    "comm": "COMMAND",
    "pcpu": "%CPU",
    "pmem": "%MEM",
    "started": "STIME",
    "lstart": "STARTED",
    "etime": "ELAPSED",
    "etimes": "ELAPSED",
    "bsdtime": "TIME",
    "bsdstart": "START",
}
_ALIASES: Mapping[str, tuple[str, str]] = {  # what else ps calls them, and their titles then
    "args": ("COMMAND", "cmd"),
    "command": ("COMMAND", "cmd"),
    "ucmd": ("CMD", "comm"),
    "ucomm": ("COMMAND", "comm"),
    "euser": ("EUSER", "user"),
    "uname": ("USER", "user"),
    "euid": ("EUID", "uid"),
    "egroup": ("EGROUP", "group"),
    "egid": ("EGID", "gid"),
    "pgrp": ("PGRP", "pgid"),
    "sess": ("SESS", "sid"),
    "session": ("SESS", "sid"),
    "tt": ("TT", "tty"),
    "tname": ("TTY", "tty"),
    "state": ("S", "s"),
    "nice": ("NI", "ni"),
    "rssize": ("RSS", "rss"),
    "rsz": ("RSZ", "rss"),
    "vsize": ("VSZ", "vsz"),
    "%cpu": ("%CPU", "pcpu"),
    "%mem": ("%MEM", "pmem"),
    "cputime": ("TIME", "time"),
    "stime": ("STIME", "started"),
    "start_time": ("START", "started"),
    "start": ("STARTED", "started"),
    "thcount": ("THCNT", "nlwp"),
    "flag": ("F", "f"),
    "flags": ("F", "f"),
}


def _format(names: str, **titles: str) -> Columns:
    return [(titles.get(name, _TITLES[name]), name) for name in names.split()]


_USER = _format("user pid pcpu pmem vsz rss tty stat bsdstart bsdtime cmd", cmd="COMMAND")
_FORMATS: Mapping[str, Columns] = {  # by what is asked for: ps(1), OUTPUT FORMAT CONTROL
    "": _format("pid tty time comm", comm="CMD"),
    "f": _format("user pid ppid c started tty time cmd", user="UID"),
    "F": _format("user pid ppid c sz rss psr started tty time cmd", user="UID"),
    "l": _format("f s uid pid ppid c pri ni addr sz wchan tty time comm", comm="CMD"),
    "fl": _format("f s user pid ppid c pri ni addr sz wchan started tty time cmd", user="UID"),
    "j": _format("pid pgid sid tty time comm", comm="CMD"),
    "fj": _format("user pid ppid pgid sid c started tty time cmd", user="UID"),
    "bsd": _format("pid tty stat bsdtime cmd", cmd="COMMAND"),
    "bsd u": _USER,
    "bsd l": _format("f uid pid ppid pri ni vsz rss wchan stat tty bsdtime cmd", cmd="COMMAND"),
    "bsd j": _format("ppid pid pgid sid tty tpgid stat uid bsdtime cmd", cmd="COMMAND"),
}
USUAL = "-ef"
_OFFERED = "there are -e, -f, -F, -l, -j, aux, l, j, and -o with a list of columns"


@dataclass(slots=True)
class _Asked:
    """What was found of options so far."""

    shape: str = ""  # f, F, l, j, u
    bsd: bool = False
    chosen: tuple[tuple[str, str], ...] = ()


def columns(text: str) -> Columns:
    """Those that the options ask for. RefusedError."""
    asked = _Asked()
    words = iter(text.split() or [USUAL])
    for word in words:
        _read(word, words, asked)
    if asked.chosen:
        return asked.chosen
    key = f"bsd {asked.shape}".rstrip() if asked.bsd else "".join(sorted(asked.shape))
    if "F" in key and "bsd" not in key:
        key = "F"
    if key not in _FORMATS:
        raise _unknown(text)
    return _FORMATS[key]


def _read(word: str, others: Iterator[str], asked: _Asked) -> None:
    if word.startswith("--"):
        _read_long(word, others, asked)
        return
    is_bsd = not word.startswith("-") or word == "-aux"
    letters = word.removeprefix("-")
    for place, letter in enumerate(letters):
        if letter == "o":
            asked.chosen += tuple(_chosen(letters[place + 1 :] or next(others, "")))
            return
        if letter in ("auxljwe" if is_bsd else "eAadflFjwy"):
            asked.bsd = asked.bsd or is_bsd
            if letter in ("ulj" if is_bsd else "fFlj") and letter not in asked.shape:
                asked.shape += letter
        else:
            raise _unknown(word)


def _read_long(word: str, others: Iterator[str], asked: _Asked) -> None:
    name, equals, value = word.partition("=")
    if name != "--format":
        raise _unknown(word)
    asked.chosen += tuple(_chosen(value if equals else next(others, "")))


def _chosen(text: str) -> Iterator[tuple[str, str]]:
    """`pid,comm=PROGRAM`."""
    if not text:
        raise bad("ps_args: -o needs a list of columns, such as -o pid,comm")
    for each in text.split(","):
        name, equals, title = each.partition("=")
        usual, column = _ALIASES.get(name) or (_TITLES.get(name, ""), name)
        if not usual:
            raise bad(f"ps_args: {name[:40]!r} is no column that is known: {', '.join(sorted((*_TITLES, *_ALIASES)))}")
        yield title if equals else usual, column


def _unknown(word: str) -> Exception:
    return bad(f"ps_args: {word[:100]!r} is not known: {_OFFERED}")
