"""What is on disk of a stack's networks, so that the next start can remove them: HOME/network, the number of the group
that all its links are in. Light: every command that looks at a stack's home loads it.
"""

import json
from pathlib import Path

NOTE = "network"
GROUP_MIN = 1 << 24  # low numbers are people's


def write(home: Path, group: int) -> None:
    """Before there is a link."""
    (home / NOTE).write_text(json.dumps({"group": group}), encoding="ascii")


def remove(home: Path) -> None:
    """There is none any more."""
    (home / NOTE).unlink(missing_ok=True)


def sweep(home: Path) -> int:
    """Remove what a killed supervisor has left: returns how many links that were. OSError, with what can't be done."""
    try:
        group = int(json.loads((home / NOTE).read_bytes())["group"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError):  # damaged before it was whole: then there was no link yet
        group = 0
    swept = 0
    if group >= GROUP_MIN:
        from runtime.network.links import clear  # noqa: PLC0415 (it loads pyroute2)

        swept = clear(group)
    remove(home)
    return swept
