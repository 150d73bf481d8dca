"""The virtual machine's kernel: that of Debian's package, unpacked beside the project, never installed."""

import lzma
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

META_PACKAGE = "linux-image-amd64"  # depends on the newest
UNUSED = ("sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/staging", "drivers/net/wireless")
UNUSED_TOO = ("drivers/net/ethernet", "drivers/scsi", "drivers/iio", "drivers/usb", "drivers/hwmon", "drivers/input")
MAGIC_XZ = b"\xfd7zXZ\0"


class KernelMissingError(Exception):
    """No kernel could be had."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked package."""

    directory: Path

    @property
    def image(self) -> Path:
        """As an ELF file, which qemu starts by PVH: so the machine needn't decompress it."""
        return self.directory / "vmlinux"

    @property
    def modules(self) -> Path:
        """The directory of one kernel release."""
        return next((self.directory / "lib/modules").iterdir())

    def with_needed(self, names: tuple[str, ...]) -> list[Path]:
        """These modules and what they need, in the order in which they can be loaded."""
        needs = {}
        for line in (self.modules / "modules.dep").read_text(encoding="ascii").splitlines():
            path, _, needed = line.partition(":")
            needs[Path(path).stem.replace("-", "_")] = [*reversed(needed.split()), path]
        ordered = dict.fromkeys(path for name in names for path in needs[name])
        return [self.modules / path for path in ordered]


def kernel(cache: Path) -> Kernel:
    """The kernel in this directory; fetched and unpacked if there is none yet. KernelMissingError."""
    directory = cache / "kernel"
    if not (directory / "vmlinux").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        _unpack(_fetch(cache), directory)
    return Kernel(directory)


def _fetch(cache: Path) -> Path:
    try:
        return _download(cache)
    except KernelMissingError:  # the lists are missing, or older than what the servers have
        _output("apt-get", "update", "-qq")
        return _download(cache)


def _download(cache: Path) -> Path:
    depends = _output("apt-cache", "depends", META_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise KernelMissingError(f"apt knows no {META_PACKAGE}: run apt-get update")
    _output("apt-get", "download", "-o", "APT::Sandbox::User=root", found[1], directory=cache)
    return next(cache.glob(f"{found[1]}_*.deb"))


def _unpack(package: Path, directory: Path) -> None:
    _output("dpkg-deb", "--extract", str(package), str(directory))
    package.unlink()
    for unused in (*UNUSED, *UNUSED_TOO):
        for path in directory.glob(f"lib/modules/*/kernel/{unused}"):
            shutil.rmtree(path)
    release = next((directory / "lib/modules").iterdir()).name
    _output("depmod", "--basedir", str(directory), release)
    compressed = (directory / f"boot/vmlinuz-{release}").read_bytes()
    start = compressed.index(MAGIC_XZ)
    (directory / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(compressed[start:]))


def _output(*argv: str, directory: Path | None = None) -> str:
    try:
        return subprocess.run(argv, check=True, capture_output=True, text=True, cwd=directory).stdout
    except FileNotFoundError as error:
        raise KernelMissingError(f"no {argv[0]}: the virtual machine's kernel is a Debian package") from error
    except subprocess.CalledProcessError as error:
        raise KernelMissingError(f"{' '.join(argv)}: {error.stderr.strip()}") from error
