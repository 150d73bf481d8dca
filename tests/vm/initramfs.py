"""The initramfs: busybox, a few modules, and the script that uses them; as `cpio` of the form newc.

Documentation/driver-api/early-userspace/buffer-format.rst
"""

import stat
from collections.abc import Iterator
from pathlib import Path

DIRECTORIES = ("bin", "dev", "proc", "modules", "lower", "over", "merged")


def initramfs(busybox: Path, init: Path, inside: Path, modules: list[Path]) -> bytes:
    """Its contents. `inside` is what is run in the host's root."""
    files = {
        "init": init.read_bytes(),
        "inside": f"{inside}\n".encode(),
        "bin/busybox": busybox.read_bytes(),
        "modules/order": "".join(f"{path.name}\n" for path in modules).encode(),
        **{f"modules/{path.name}": path.read_bytes() for path in modules},
    }
    return b"".join(_entries(files))


def _entries(files: dict[str, bytes]) -> Iterator[bytes]:
    number = 1
    for name in DIRECTORIES:
        yield _entry(number, name, stat.S_IFDIR | 0o755, b"")
        number += 1
    yield _entry(number, "dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))
    for name, content in files.items():
        number += 1
        yield _entry(number, name, stat.S_IFREG | 0o755, content)
    yield _entry(0, "TRAILER!!!", 0, b"")


def _entry(number: int, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
