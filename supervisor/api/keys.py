"""The keys by which who is attached to a terminal leaves it: Ctrl-P Ctrl-Q, unless he says otherwise."""

import re

from supervisor.api import limits
from supervisor.api.errors import bad

USUAL = "ctrl-p,ctrl-q"
_CONTROL = re.compile(r"ctrl-([a-z@\[\\\]^_])")


def sequence(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as bytes: each key a character, or one with `ctrl-` before it. RefusedError."""
    names = (text or USUAL).split(",")
    if len(names) > limits.KEYS_MAX:
        raise bad(f"detachKeys: at most {limits.KEYS_MAX} keys")
    return b"".join(map(_key, names))


def _key(name: str) -> bytes:
    if found := _CONTROL.fullmatch(name):
        return bytes((ord(found[1].upper()) & 0x1F,))
    if len(name) != 1 or not name.isascii():
        raise bad(f"detachKeys: unknown character: {name[:20]!r}")
    return name.encode()


class Watch:
    """Looks for the keys in what is typed, however it is cut."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""  # a beginning of the keys

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys were pressed. A beginning of them is held until it is clear."""
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        kept = next(
            (n for n in range(min(len(self._keys) - 1, len(data)), 0, -1) if self._keys.startswith(data[-n:])), 0
        )
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept], False
