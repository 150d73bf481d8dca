"""An image with a program that makes any system call: see probe.c."""

import shutil
import subprocess
from pathlib import Path

from driver import Driver
from rootfs import make_busybox

from runtime.status import Exited

SOURCE = Path(__file__).with_name("probe.c")


def make_probing(root: Path) -> Path:
    """busybox, and the probe."""
    assert shutil.which("gcc") is not None, "no gcc"
    make_busybox(root)
    subprocess.run(["gcc", "-O2", "-static", "-Wall", "-o", root / "bin/probe", SOURCE], check=True)
    return root


def probe(driver: Driver, *words: str, **changes: object) -> dict[str, int]:
    """What each call gives in a container: 0, an errno, or minus the signal that it died of."""
    result = driver.run("probe", *words, memory_bytes=1 << 20, **changes)
    assert result.status == Exited(0), result
    return {word: int(code) for word, code in (line.split() for line in result.stdout.splitlines())}
