"""The peers, configured to make what pysup makes: crun, runc and bubblewrap.

Equal namespaces (mount, pid, uts, ipc, cgroup; the host's network), the same mounts, masks and read-only paths, the
same capabilities, no_new_privs, no seccomp filter, no cgroup limits. They can't mount an overlay themselves (bubblewrap
learnt it with 0.11), so peers.c does that for all of them, in C. What remains unequal is said in `NOTES`.
"""

import json
import shutil
from pathlib import Path

from runtime import rootfs, security
from runtime.config import SHM_BYTES
from tests.bench.subject import HOSTNAME, PATH, TRUE

NOTES = (
    "crun runs without a cgroup (--cgroup-manager=disabled); runc has no such option: it makes one, without limits",
    "bubblewrap binds the host's /sys, having no way to mount a new one",
    "the peers' overlay is mounted by peers.c, in a clone without a page-table copy, before they execute",
)
PACKAGES = {"crun": "crun", "runc": "runc", "bwrap": "bubblewrap"}


def commands(work: Path, merged: Path) -> dict[str, list[str]]:
    """The command of each peer that is installed; `@` stands for the container's id."""
    bundle = work / "bundle"
    bundle.mkdir()
    for name, text in (("hosts", "127.0.0.1\tlocalhost\n"), ("hostname", HOSTNAME + "\n")):
        (bundle / name).write_text(text)
    (bundle / "config.json").write_text(json.dumps(oci_configuration(bundle, merged)))
    run = ["--root", str(work / "run"), "--log", "/dev/null"]
    bundled = ["run", "--bundle", str(bundle), "@"]
    every = {
        "crun": [*run, "--cgroup-manager=disabled", *bundled],
        "runc": [*run, *bundled],
        "bwrap": _bubblewrap(bundle, merged),
    }
    return {name: [path, *rest] for name, rest in every.items() if (path := shutil.which(name))}


def oci_configuration(bundle: Path, merged: Path) -> dict[str, object]:
    """config.json of the OCI runtime specification, version 1.0."""
    capabilities = list(security.DEFAULT_CAPABILITIES)
    sets = ("bounding", "effective", "permitted")
    namespaces = ("mount", "pid", "uts", "ipc", "cgroup")
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(TRUE),
            "env": [f"PATH={PATH}", "HOME=/", f"HOSTNAME={HOSTNAME}"],
            "cwd": "/",
            "capabilities": {**dict.fromkeys(sets, capabilities), "inheritable": [], "ambient": []},
            "noNewPrivileges": True,
        },
        "root": {"path": str(merged), "readonly": False},
        "hostname": HOSTNAME,
        "mounts": [*_mounts(), *(_bound(bundle, name) for name in ("hosts", "hostname"))],
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(rootfs.MASKED),
            "readonlyPaths": list(rootfs.READ_ONLY),
        },
    }


def _mounts() -> list[dict[str, object]]:
    nothing = ["nosuid", "noexec", "nodev"]
    rows = [
        ("/proc", "proc", nothing),
        ("/dev", "tmpfs", ["nosuid", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/shm", "tmpfs", [*nothing, "mode=1777", f"size={SHM_BYTES}"]),
        ("/dev/mqueue", "mqueue", nothing),
        ("/sys", "sysfs", [*nothing, "ro"]),
    ]
    return [{"destination": to, "type": kind, "source": kind, "options": options} for to, kind, options in rows]


def _bound(bundle: Path, name: str) -> dict[str, object]:
    options = ["bind", "rprivate"]
    return {"destination": f"/etc/{name}", "type": "bind", "source": str(bundle / name), "options": options}


def _bubblewrap(bundle: Path, merged: Path) -> list[str]:
    unshare = ["--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-cgroup", "--hostname", HOSTNAME]
    root = ["--bind", str(merged), "/", "--dev", "/dev", "--mqueue", "/dev/mqueue", "--ro-bind", "/sys", "/sys"]
    files = [word for name in ("hosts", "hostname") for word in ("--bind", str(bundle / name), f"/etc/{name}")]
    present = [Path(path) for path in rootfs.MASKED if Path(path).exists()]
    hidden = [["--tmpfs", str(path)] if path.is_dir() else ["--ro-bind", "/dev/null", str(path)] for path in present]
    # bubblewrap itself covers /proc/sys, sysrq-trigger, irq and bus; /proc/fs is left.
    covered = ["--ro-bind", "/proc/fs", "/proc/fs"]
    kept = [word for name in security.DEFAULT_CAPABILITIES for word in ("--cap-add", name)]
    rights = ["--cap-drop", "ALL", *kept]
    life = ["--die-with-parent", "--new-session", "--as-pid-1"]
    environment = ["--clearenv", "--setenv", "PATH", PATH, "--setenv", "HOME", "/", "--setenv", "HOSTNAME", HOSTNAME]
    masks = [*(word for words in hidden for word in words), *covered]
    return [*unshare, *root, "--proc", "/proc", *files, *masks, *rights, *life, *environment, "--", *TRUE]
