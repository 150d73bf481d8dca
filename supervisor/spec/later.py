"""Variables that each replica has its own values of: `${PYSUP_REPLICA}`, its number, and `${PYSUP_ID}`, its name.

They stand in a container's strings until its replicas are made, as one character each that no text can hold: half of a
surrogate pair, which neither YAML nor UTF-8 lets through, and Python's own escapes for undecodable bytes (PEP 383)
leave these two alone.
"""

import re
from typing import TypeVar

MARKS = {"PYSUP_REPLICA": "\ud800", "PYSUP_ID": "\ud801"}
WHERE = "${PYSUP_REPLICA} and ${PYSUP_ID} are for cmd, stop_cmd, env, hostname, workdir, output.prefix, exec and file"
_NAMES = {mark: f"${{{name}}}" for name, mark in MARKS.items()}
_MARK = re.compile(f"[{''.join(MARKS.values())}]")
_STANDS_FOR = dict.fromkeys(map(ord, MARKS.values()), "1")

T = TypeVar("T", str, tuple[str, ...])


def stands_in(text: str) -> bool:
    """Whether one does. Most text is ASCII, and that is known without a search."""
    return not text.isascii() and _MARK.search(text) is not None


def sample(text: str) -> str:
    """The text of some replica, to judge its form by."""
    return text if text.isascii() else text.translate(_STANDS_FOR)


def shown(text: str) -> str:
    """As the user wrote it."""
    return _MARK.sub(lambda mark: _NAMES[mark[0]], text) if stands_in(text) else text


def filled(value: T, identity: str, replica: int) -> T:
    """The text of one replica, or the words; the same object where nothing is to be put in."""
    if isinstance(value, tuple):
        return tuple(filled(word, identity, replica) for word in value) if any(map(stands_in, value)) else value
    if not stands_in(value):
        return value
    return value.replace(MARKS["PYSUP_REPLICA"], str(replica)).replace(MARKS["PYSUP_ID"], identity)
