"""Opening a path inside of a directory, which no symbolic link leads out of."""

from runtime import linux

TRIES_MAX = 128
IN_ROOT = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS


def open_inside(root: int, path: str, flags: int, resolve: int = IN_ROOT) -> int:
    """openat2(2), tried again where a rename or mount somewhere on the machine came in between (its EAGAIN): the kernel
    could not be sure of where a `..` led. OSError.
    """
    for _ in range(TRIES_MAX - 1):
        try:
            return linux.openat2(root, path, flags, resolve=resolve)
        except BlockingIOError:
            continue
    return linux.openat2(root, path, flags, resolve=resolve)
