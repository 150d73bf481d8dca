"""What a host offers is said, each missing part with what to do; nothing is changed by asking."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import ENVIRONMENT, Ended, Pysup

from runtime import host
from runtime.cgroup import hierarchies
from runtime.cgroup.hierarchies import Hierarchies

pytestmark = pytest.mark.kernel


def doctor(pysup: Pysup, *arguments: str) -> list[dict[str, Any]]:
    ended = pysup("doctor", "--state", str(pysup.state), "--json", *arguments)
    assert (ended.status, ended.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(ended.out)
    return found


def restricted(*command: str, directory: Path) -> Ended:
    """The doctor of a process with fewer rights: `command` is what takes them."""
    words = [*command, sys.executable, "-m", "supervisor", "doctor", "--state", str(directory / "state")]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_a_host_that_runs_our_tests_has_what_a_container_needs(pysup: Pysup) -> None:
    found = {one["name"]: one for one in doctor(pysup)}
    needed = {
        "kernel",
        "privileges",
        "idmapped mounts",
        "networks",
        "ids",
        "namespaces",
        "overlay in memory",
        "overlay on disk",
        "seccomp",
        "descriptors",
    }
    assert {name: found[name]["verdict"] for name in needed} == dict.fromkeys(needed, "ok")
    assert os.uname().release in found["kernel"]["found"]


def test_each_missing_part_is_told_with_what_to_do(pysup: Pysup) -> None:
    shown = pysup("doctor", "--state", str(pysup.state)).out
    for one in doctor(pysup):
        assert (one["verdict"] == "ok") == (one["cost"] == "")
        assert f"{one['name']}: {one['cost']}\n" in shown or one["verdict"] == "ok"


def test_asking_changes_nothing(pysup: Pysup, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*")), Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    doctor(pysup)
    assert (sorted(tmp_path.rglob("*")), Path("/proc/self/mountinfo").read_text(encoding="utf-8")) == before


def test_without_rights_one_line_says_so_and_no_other_guess_is_made(tmp_path: Path) -> None:
    ended = restricted("setpriv", "--bounding-set", "-sys_admin", directory=tmp_path)
    assert (ended.status, ended.err) == (1, "")
    assert "root without CAP_SYS_ADMIN" in ended.out
    assert "overlay" not in ended.out


def test_a_state_directory_that_takes_no_upper_layer_is_told(pysup: Pysup) -> None:
    """/proc is no place for directories of ours, nor for anybody's."""
    ended = pysup("doctor", "--state", "/proc/nowhere")
    assert ended.status == 0
    assert "overlay on disk: an upper can't be on" in ended.out


def test_a_host_without_cgroups_costs_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "discover", lambda: Hierarchies(()))
    found = {
        trial.name: trial.make() for trial in host.trials(Path("/"), None) if trial.name in ("cgroups", "limits.pids")
    }
    assert {one.verdict for one in found.values()} == {host.Verdict.MISSING}
    assert "no limits" in found["cgroups"].cost
    assert "leave the limit out" in found["limits.pids"].cost


def test_an_old_kernel_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    old = os.uname_result(("Linux", "here", "5.4.0-1-amd64", "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: old)
    finding = next(host.trials(Path("/"), None)).make()
    assert (finding.verdict, finding.found) == (host.Verdict.FATAL, "Linux 5.4.0-1-amd64 on x86_64")


def test_version_2_alone_offers_all_limits_but_those_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    unified = hierarchies.Hierarchy(2, frozenset({"memory", "pids"}), "/sys/fs/cgroup/a", writable=True)
    monkeypatch.setattr(host, "discover", lambda: Hierarchies((unified,)))
    found = {
        trial.name: trial.make().verdict for trial in host.trials(Path("/"), None) if trial.name.startswith("limits.")
    }
    lacking = {name for name, verdict in found.items() if verdict != "ok"}
    assert lacking == {"limits.cpus", "limits.cpu_weight", "limits.cpuset", "limits.io"}


DROPPING = "type filter hook forward priority 0; policy drop;"
OURS = 'iifname "psp*" accept'


@pytest.mark.parametrize(
    ("commands", "said", "taught"),
    [
        (
            f"nft add table inet wall; nft add chain inet wall pass '{{ {DROPPING} }}'",
            "nft list chain inet wall pass",
            f"nft add rule inet wall pass {OURS}",
        ),
        (
            "iptables-legacy -P FORWARD DROP",
            "iptables-legacy -S FORWARD",
            "iptables-legacy -A FORWARD -i psp+ -j ACCEPT",
        ),
        ("ip6tables-legacy -P FORWARD DROP", "ip6tables-legacy -S FORWARD", "ip6tables-legacy -P FORWARD ACCEPT"),
        (
            "iptables-nft -P FORWARD DROP",
            "nft list chain ip filter FORWARD",
            "iptables-nft -I FORWARD -o psp+ -j ACCEPT",
        ),
    ],
)
def test_another_table_that_drops_what_is_passed_on_is_told(
    pysup: Pysup, commands: str, said: str, taught: str
) -> None:
    if shutil.which(commands.split(maxsplit=1)[0]) is None:
        pytest.fail(f"no {commands.split(maxsplit=1)[0]} (Debian: nftables, iptables)")
    words = " ".join(pysup.argv("doctor", "--state", str(pysup.state), "--json"))
    script = f"({commands}; {words}; {taught}; {words}) | tr '\\n' ' '"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    before, after = (
        {one["name"]: one for one in json.loads(f"[{each}]")}["forwarding"]
        for each in done.stdout.strip(" []").split("] [")
    )
    assert (before["verdict"], before["found"]) == ("missing", f"dropped by default: {said}")
    assert "psp*" in before["cost"]
    assert after["verdict"] == "ok"
