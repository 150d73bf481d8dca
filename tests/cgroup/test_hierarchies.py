"""What a host has, from its own words."""

from pathlib import Path

import pytest

from runtime.cgroup.hierarchies import Hierarchies, discover

SYSTEMD_V2 = "30 24 0:26 / {root} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
SYSTEMD_V1 = """31 30 0:27 / {root}/unified rw shared:10 - cgroup2 cgroup2 rw
32 30 0:28 / {root}/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / {root}/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / {root}/memory rw shared:13 - cgroup cgroup rw,memory
35 30 0:31 / {root}/blkio rw shared:14 - cgroup cgroup rw,blkio"""
V1_MEMBERSHIP = """12:blkio:/a
4:memory:/a/b
3:cpu,cpuacct:/a
1:name=systemd:/a
0::/a/b"""


def host(tmp_path: Path, mounts: str, membership: str) -> Hierarchies:
    """As a host would be with these two files; {root} stands for where cgroups are mounted."""
    (tmp_path / "mountinfo").write_text(mounts.format(root=tmp_path / "cgroup"))
    (tmp_path / "membership").write_text(membership)
    return discover(str(tmp_path / "mountinfo"), str(tmp_path / "membership"))


def tree(tmp_path: Path, *directories: str, controllers: str = "") -> Path:
    for name in directories:
        (tmp_path / "cgroup" / name).mkdir(parents=True)
        (tmp_path / "cgroup" / name / "cgroup.controllers").write_text(controllers)
    return tmp_path / "cgroup"


def test_version_2_alone(tmp_path: Path) -> None:
    root = tree(tmp_path, "system.slice/pysup.service", controllers="cpuset cpu io memory pids")
    found = host(tmp_path, SYSTEMD_V2, "0::/system.slice/pysup.service\n")
    assert found.unified is not None
    assert found.unified.own == str(root / "system.slice/pysup.service")
    assert found.of("memory") is found.of("io") is found.processes is found.unified
    assert found.of("freezer") is None
    assert found.unified.describe() == f"cgroup v2 at {found.unified.own} (cpu, cpuset, io, memory, pids)"


def test_version_1_with_2_beside_it(tmp_path: Path) -> None:
    root = tree(tmp_path, "unified/a/b", "systemd/a", "cpu,cpuacct/a", "memory/a/b", "blkio/a")
    found = host(tmp_path, SYSTEMD_V1, V1_MEMBERSHIP)
    assert found.processes is found.unified
    places = {name: one.own for name in ("cpu", "cpuacct", "memory", "io") if (one := found.of(name)) is not None}
    assert places == {
        "cpu": f"{root}/cpu,cpuacct/a",
        "cpuacct": f"{root}/cpu,cpuacct/a",
        "memory": f"{root}/memory/a/b",
        "io": f"{root}/blkio/a",
    }
    assert found.of("pids") is None
    assert len(found.found) == 4


def test_a_mount_of_a_part_shows_what_is_below_that_part(tmp_path: Path) -> None:
    root = tree(tmp_path, "below")
    found = host(tmp_path, SYSTEMD_V2.replace(" / ", " /docker/x "), "0::/docker/x/below\n")
    assert found.unified is not None
    assert found.unified.own == str(root / "below")
    assert host(tmp_path, SYSTEMD_V2.replace(" / ", " /docker/x "), "0::/elsewhere\n").found == ()
    assert host(tmp_path, SYSTEMD_V2, "0::/../../elsewhere\n").found == ()


def test_a_mount_point_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "c group").mkdir()
    (tmp_path / "c group" / "cgroup.controllers").write_text("pids\n")
    found = host(tmp_path, f"30 24 0:26 / {tmp_path}/c\\040group rw - cgroup2 cgroup2 rw", "0::/\n")
    assert found.unified is not None
    assert found.unified.own == f"{tmp_path}/c group"


@pytest.mark.parametrize("missing", ["mountinfo", "membership"])
def test_no_cgroups_are_no_error(tmp_path: Path, missing: str) -> None:
    for name in {"mountinfo", "membership"} - {missing}:
        (tmp_path / name).write_text("")
    assert discover(str(tmp_path / "mountinfo"), str(tmp_path / "membership")) == Hierarchies(())
