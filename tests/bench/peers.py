"""The peers, configured to make what pysup makes: crun, runc and bubblewrap.

Equal namespaces (mount, pid, uts, ipc, cgroup; the host's network), the same mounts, masks and read-only paths, the
same capabilities, no_new_privs, no seccomp filter, no cgroup limits. They can't mount an overlay themselves (bubblewrap
learnt it with 0.11), so peers.c does that for all of them, in C. What remains unequal is said in `NOTES`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from runtime import rootfs, security
from runtime.capabilities import CAPABILITIES
from runtime.config import SHM_BYTES
from runtime.linux import MACHINE
from runtime.seccomp.default import default_profile
from runtime.seccomp.profile import ALLOW, DATA, ERRNO, EVERY_BIT, Rule, kind
from tests.bench.subject import HOSTNAME, PATH, TRUE

NOTES = (
    "crun runs without a cgroup (--cgroup-manager=disabled); runc has no such option: it makes one, without limits",
    "bubblewrap binds the host's /sys, having no way to mount a new one",
    "the peers' overlay is mounted by peers.c, in a clone without a page-table copy, before they execute",
)
PACKAGES = {"crun": "crun", "runc": "runc", "bwrap": "bubblewrap"}


def commands(work: Path, merged: Path) -> dict[str, list[str]]:
    """The command of each peer that is installed; `@` stands for the container's id."""
    bundle = make_bundle(work / "bundle", merged, oci_configuration)
    run = ["--root", str(work / "run"), "--log", "/dev/null"]
    bundled = ["run", "--bundle", str(bundle), "@"]
    every = {
        "crun": [*run, "--cgroup-manager=disabled", *bundled],
        "runc": [*run, *bundled],
        "bwrap": _bubblewrap(bundle, merged),
    }
    return {name: [path, *rest] for name, rest in every.items() if (path := shutil.which(name))}


def make_bundle(bundle: Path, merged: Path, configure: Callable[[Path, Path], dict[str, object]]) -> Path:
    """A directory that an OCI runtime can run."""
    bundle.mkdir()
    for name, text in (("hosts", "127.0.0.1\tlocalhost\n"), ("hostname", HOSTNAME + "\n")):
        (bundle / name).write_text(text)
    (bundle / "config.json").write_text(json.dumps(configure(bundle, merged)))
    return bundle


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


def guarded(bundle: Path, merged: Path) -> dict[str, object]:
    """The same with our seccomp profile, for a runtime that makes a cgroup."""
    made = oci_configuration(bundle, merged)
    return {**made, "linux": {**_part(made, "linux"), "seccomp": _oci_profile()}}


def unguarded(bundle: Path, merged: Path) -> dict[str, object]:
    """The same with nothing masked, and with every capability."""
    made = oci_configuration(bundle, merged)
    every = [name for bit, name in enumerate(CAPABILITIES) if security.available() >> bit & 1]
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), every)
    process = {**_part(made, "process"), "noNewPrivileges": False, "capabilities": capabilities}
    return {**made, "process": process, "linux": {**_part(made, "linux"), "maskedPaths": [], "readonlyPaths": []}}


def _part(made: dict[str, object], key: str) -> dict[str, object]:
    part = made[key]
    assert isinstance(part, dict)
    return part


def _oci_profile() -> dict[str, object]:
    """Our default profile in the OCI's words."""
    capabilities = security.capability_mask((), (), privileged=False)
    profile = default_profile(capabilities, MACHINE)
    architectures = {"x86_64": "SCMP_ARCH_X86_64", "x86": "SCMP_ARCH_X86", "aarch64": "SCMP_ARCH_AARCH64"}
    return {
        **_action("defaultAction", "defaultErrnoRet", profile.default),
        "architectures": [architectures[name] for name in profile.architectures],
        "syscalls": [_oci_rule(rule) for rule in profile.rules],
    }


def _oci_rule(rule: Rule) -> dict[str, object]:
    operators = {"==": "EQ", "!=": "NE", "<": "LT", "<=": "LE", ">": "GT", ">=": "GE"}
    arguments = [
        {"index": one.argument, "op": f"SCMP_CMP_{operators[one.compare]}", "value": one.value}
        if one.mask == EVERY_BIT
        else {"index": one.argument, "op": "SCMP_CMP_MASKED_EQ", "value": one.mask, "valueTwo": one.value}
        for one in rule.conditions
    ]
    return {"names": list(rule.names), **_action("action", "errnoRet", rule.action), "args": arguments}


def _action(name: str, errno_name: str, action: int) -> dict[str, object]:
    if action == ALLOW:
        return {name: "SCMP_ACT_ALLOW"}
    assert kind(action) == ERRNO
    return {name: "SCMP_ACT_ERRNO", errno_name: action & DATA}


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
