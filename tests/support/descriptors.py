"""Which descriptors this process has open, for tests that say that none is left.

What is closed meanwhile is no fault: it was garbage of an earlier test, or belonged to a thread that has ended.
"""

import os

LIFE = "/memfd:life (deleted)"  # one for each process that has had launchers: runtime/spawn.py


def held() -> dict[int, str]:
    """Each open descriptor, and what it is: a path, or as in `pipe:[4711]` a kind and inode number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
    return {number: what for number, what in found.items() if what != LIFE}


def opened_since(before: dict[int, str]) -> dict[int, str]:
    """The open ones that are not among those."""
    return {number: what for number, what in held().items() if before.get(number) != what}
