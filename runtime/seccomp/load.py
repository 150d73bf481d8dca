"""The filter of a profile that a user names: ours, none, or one in a file."""

from functools import lru_cache
from pathlib import Path
from zlib import crc32

from runtime import linux
from runtime.errors import SeccompError
from runtime.seccomp.bpf import assemble
from runtime.seccomp.calls import COMPANIONS
from runtime.seccomp.default import default_profile
from runtime.seccomp.filter import Filter
from runtime.seccomp.profile import Profile
from runtime.seccomp.reader import BYTES_MAX, Host, read_profile

DEFAULT = "default"
UNCONFINED = "unconfined"
_KEPT = 64


def load_profile(
    profile: str | Path, capabilities: int, *, arch: str = linux.MACHINE, kernel: str | None = None
) -> Filter | None:
    """The filter of `default`, `unconfined` (None) or a file, for containers with these capabilities. SeccompError with
    file and line where it is wrong.
    """
    if profile == UNCONFINED:
        return None
    if arch not in COMPANIONS:
        raise SeccompError(f"no seccomp filters for {arch}: only for {', '.join(COMPANIONS)}; use seccomp: unconfined")
    if profile == DEFAULT:
        return default_filter(capabilities, arch)
    return parse_profile(_read(profile), str(profile), capabilities, arch=arch, kernel=kernel)


@lru_cache(_KEPT)
def default_filter(capabilities: int, arch: str = linux.MACHINE) -> Filter:
    """The filter of our own profile."""
    return _filter(default_profile(capabilities, arch), DEFAULT)


@lru_cache(_KEPT)
def parse_profile(
    text: str, place: str, capabilities: int, *, arch: str = linux.MACHINE, kernel: str | None = None
) -> Filter:
    """The filter of a profile's text, in the OCI's or Docker's form; `place` is what errors name."""
    host = Host(arch, linux.kernel_version(kernel), capabilities)
    try:
        return _filter(read_profile(text, place, host), f"{place} ({crc32(text.encode()):08x})")
    except ValueError as error:
        raise SeccompError(f"{place}: too big a profile: {error}") from error


def _filter(profile: Profile, name: str) -> Filter:
    return Filter(assemble(profile), profile.flags, name)


def _read(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(BYTES_MAX + 1).decode()
    except OSError as error:
        raise SeccompError(f"seccomp profile {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise SeccompError(f"seccomp profile {path}: not UTF-8: {error.reason}") from error
