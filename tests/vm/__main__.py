"""`python -m tests.vm [PYTEST ARGUMENT…]`: pytest in a virtual machine that has only cgroup v2, and an older kernel.

qemu emulates it, for the host may itself be a virtual machine without KVM. Its root is the host's, read-only over 9p
and under a tmpfs, so the tests, the interpreter and its packages are those of the host. The exit status is pytest's;
124 if the machine took longer than it may.
"""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.vm.initramfs import initramfs
from tests.vm.kernel import Kernel, KernelMissingError, kernel

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
CACHE = PROJECT / ".vm"
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
# Those of cgroups, launchers and the supervisor, less those whose point is a great number: emulated, they take minutes.
TESTS = (
    *("tests/cgroup", "tests/kernel/test_launcher.py", "tests/kernel/test_lives.py"),
    "tests/supervisor/test_runner.py",
    "tests/supervisor/test_crash.py::test_a_container_that_cleared_its_death_signal_is_found_by_the_next",
    *("-q", "-k", "not 1000 and not hundreds and not launchers_killed and not 200_starts and not grow"),
)
TIMEOUT_S = float(os.environ.get("VM_SECONDS", "900"))
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
PATIENCE_S = "240"  # of tests there: emulated, all takes many times as long
TIMED_OUT = 124  # as timeout(1)
BROKEN = 125
MEMORY = "3G"
PR_SET_PDEATHSIG = 1

# lpj: no calibration. A panic reboots, and -no-reboot makes that the end.
CMDLINE = "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nopti nokaslr tsc=reliable random.trust_cpu=on"


def main() -> int:
    """Returns the exit status."""
    missing = [name for name in ("qemu-system-x86_64", "busybox") if shutil.which(name) is None]
    if missing:
        print(f"no {' and no '.join(missing)} (Debian: qemu-system-x86, busybox-static)", file=sys.stderr)
        return BROKEN
    try:
        found = kernel(CACHE)
    except KernelMissingError as error:
        print(error, file=sys.stderr)
        return BROKEN
    with tempfile.TemporaryDirectory(prefix="pysup-vm-") as exchange:
        return _boot(found, Path(exchange), [*PYTEST, *(sys.argv[1:] or TESTS)])


def _boot(found: Kernel, exchange: Path, command: list[str]) -> int:
    busybox = Path(str(shutil.which("busybox")))
    archive = initramfs(busybox, HERE / "init.sh", HERE / "inside.sh", found.with_needed(MODULES))
    (exchange / "initramfs").write_bytes(archive)
    (exchange / "settings").write_text(f"kernel={found.directory}\nproject={PROJECT}\n")
    (exchange / "command").write_text(_script(command))
    machine = subprocess.Popen(_qemu(found, exchange), preexec_fn=_die_with_parent)  # noqa: PLW1509 (one thread)
    try:
        machine.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        print(f"the virtual machine did not end within {TIMEOUT_S:g} s (VM_SECONDS)", file=sys.stderr)
        return TIMED_OUT
    finally:
        machine.kill()
        machine.wait()
    try:
        return int((exchange / "status").read_text())
    except FileNotFoundError:
        print("the virtual machine ended before the tests did", file=sys.stderr)
        return BROKEN


def _script(command: list[str]) -> str:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
    exports = {**kept, "PYSUP_KERNEL": "must", "PYSUP_PATIENCE_S": PATIENCE_S, "PYTHONDONTWRITEBYTECODE": "1"}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()) + shlex.join(command)


def _qemu(found: Kernel, exchange: Path) -> list[str]:
    share = "local,security_model=none,multidevs=remap"
    return [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", MEMORY, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-serial", "stdio", "-kernel", str(found.image), "-initrd", str(exchange / "initramfs")),
        *("-append", CMDLINE),
        *("-virtfs", f"{share},path=/,mount_tag=root,readonly=on"),
        *("-virtfs", f"{share},path={exchange},mount_tag=exchange"),
    ]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
