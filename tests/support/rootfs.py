"""An image of busybox: a root file system without /proc, /dev and /sys."""

import os
import shutil
from pathlib import Path

APPLETS = (
    "sh ash cat chmod cp cut dd df echo env false find grep head hostname id kill ln ls mkdir mknod mount mv nc ping "
    "ps pwd readlink rm rmdir seq sleep sort stat tail test touch tr true tty umount uname wc which wget httpd "
    "ifconfig ip stty"
).split()


def make_busybox(root: Path) -> Path:
    """Make it at `root`, which is not there yet."""
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    root.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for name in APPLETS:
        os.symlink("busybox", root / "bin" / name)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1000:\nvideo:x:44:app\n")
    return root
