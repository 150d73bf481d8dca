"""pysup and its peers, each with its own defaults, running one command in one root file system."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.compare.look import Report

NAME = "probed"
STARTED_S = 60
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  # podman's own may be above the host's
# crun runs on no host that has controllers in version 2 and in version 1: those of version 2 are hidden from it.
HIDDEN = 'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec "$@"'
V1_ALONE = ("unshare", "--mount", "sh", "-c", HIDDEN, "sh")


class AbsentError(Exception):
    """A peer that is not installed here, or does not run."""


@dataclass(frozen=True)
class Place:
    """Where an image is, and a directory for what a runtime keeps."""

    images: Path
    work: Path

    @property
    def root(self) -> Path:
        return self.images / NAME


def output(*command: str, cwd: Path | None = None) -> str:
    """What a command writes. AbsentError if it can't be run, or fails."""
    if shutil.which(command[0]) is None:
        raise AbsentError(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AbsentError(f"{(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


def bare(place: Place, script: str) -> str:
    """Root of the host, in namespaces only so far that nothing is harmed."""
    unshared = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc")
    return output(*unshared, "env", f"PATH={place.root / 'bin'}:{os.environ['PATH']}", "sh", "-c", script)


def pysup(place: Place, script: str, *options: str) -> str:
    own = (sys.executable, "-m", "supervisor", "run", "--images", str(place.images), "--state", str(place.work))
    return output(*own, "-T", *options, "probe", NAME, "sh", "-c", script)


def oci(program: str, place: Place, script: str) -> str:
    """What `PROGRAM spec` writes: for many the only default that it has."""
    bundle = place.work / program
    bundle.mkdir()
    output(program, "spec", cwd=bundle)
    path = bundle / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["process"] |= {"terminal": False, "args": ["sh", "-c", script]}
    config["root"]["path"] = str(place.root)
    path.write_text(json.dumps(config), encoding="utf-8")
    kept = ("--root", str(place.work / f"{program}-run"))
    manner = ("--cgroup-manager=disabled",) if program == "crun" else ()  # not every version knows mixed hierarchies
    return output(*V1_ALONE, program, *kept, *manner, "run", "--bundle", str(bundle), "probe")


def bubblewrap(place: Place, script: str) -> str:
    """As its manual page's example has it: everything unshared, a new /proc and /dev."""
    made = ("--bind", str(place.root), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--unshare-all")
    return output("bwrap", *made, "--die-with-parent", "sh", "-c", script)


def podman(place: Place, script: str) -> str:
    """Without a network, whose plug-ins are packages of their own; and with what else mixed cgroups and an old kernel's
    limits would stop it from.
    """
    store = ("--root", str(place.work / "store"), "--runroot", str(place.work / "runroot"), "--storage-driver", "vfs")
    manner = ("--cgroup-manager", "cgroupfs", "--events-backend", "none", "--tmpdir", str(place.work / "libpod"))
    run = ("run", "--rm", "--network", "none", "--cgroups", "disabled", *LIMITS, "--log-driver", "none")
    return output(*V1_ALONE, "podman", *store, *manner, *run, "--rootfs", str(place.root), "sh", "-c", script)


def docker(place: Place, script: str) -> str:
    with ExitStack() as stack:
        address = stack.enter_context(_daemon(place.work / "docker"))
        tar = place.work / "root.tar"
        output("tar", "-C", str(place.root), "-cf", str(tar), ".")
        output("docker", "-H", address, "import", str(tar), NAME)
        return output("docker", "-H", address, "run", "--rm", "--network", "none", NAME, "sh", "-c", script)


@contextmanager
def _daemon(directory: Path) -> Iterator[str]:
    """A Docker engine of our own, which touches no network."""
    if shutil.which("dockerd") is None:
        raise AbsentError("dockerd is not installed")
    directory.mkdir()
    address = f"unix://{directory}/socket"
    kept = (
        "--data-root",
        str(directory / "data"),
        "--exec-root",
        str(directory / "exec"),
        "--pidfile",
        str(directory / "pid"),
    )
    apart = ("--bridge=none", "--iptables=false", "--ip-masq=false", "--storage-driver", "vfs", "-H", address)
    with (directory / "log").open("wb") as log, subprocess.Popen(["dockerd", *kept, *apart], stderr=log) as daemon:
        try:
            _await(address, daemon)
            yield address
        finally:
            daemon.terminate()


def _await(address: str, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED_S
    asking: Sequence[str] = ("docker", "-H", address, "version")
    while subprocess.run(asking, capture_output=True, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise AbsentError("dockerd does not start here")


def report(text: str) -> Report:
    """What the probe has found; AbsentError if it did not get far."""
    found = Report.of(text)
    if "calls" not in found.sections:
        raise AbsentError("the probe did not come to its end")
    return found
