"""Version 2 with controllers, on a tree of plain files: what hosts of the other kind can't show."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.cgroup import v2
from runtime.cgroup.branch import Branch
from runtime.cgroup.figures import Pressure
from runtime.cgroup.group import Cgroup
from runtime.cgroup.hierarchies import Hierarchies, Hierarchy
from runtime.cgroup.limits import Limits
from runtime.errors import CgroupError

CONTROLLERS = frozenset({"cpu", "io", "memory", "pids"})
FILES = {
    "cgroup.procs": "11\n12\n",
    "cgroup.events": "populated 1\nfrozen 1\n",
    "cgroup.kill": "",
    "cgroup.freeze": "0",
    "memory.current": "8192\n",
    "memory.peak": "9000\n",
    "memory.max": "max\n",
    "memory.swap.current": "100\n",
    "memory.stat": "anon 1\nfile 2\ninactive_file 4096\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n",
    "cpu.stat": "usage_usec 70\nuser_usec 50\nsystem_usec 20\nnr_periods 9\nnr_throttled 3\nthrottled_usec 40\n",
    "pids.current": "2\n",
    "pids.max": "100\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:0 rbytes=5 wbytes=0 rios=1 wios=0\n",
    "io.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=7\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Our own cgroup, whose children may use no controller yet."""
    for path in (tmp_path, tmp_path / "pysup", tmp_path / "pysup/s"):
        path.mkdir(exist_ok=True)
        (path / "cgroup.subtree_control").write_text("")
        (path / "cgroup.procs").write_text(f"{os.getpid()}\n")
        for name in ("cpu.max", "pids.max", "memory.max"):
            (path / name).write_text("max\n")
    return tmp_path


@contextmanager
def fake(own: Path) -> Iterator[Branch]:
    """A branch on it. Plain files are in the way of rmdir: nothing of it goes."""
    with Branch(Hierarchies((Hierarchy(2, CONTROLLERS, str(own), writable=True),)), "s") as branch:
        yield branch


def group(branch: Branch, limits: Limits | None = None) -> Cgroup:
    cgroup = branch.cgroup("c", limits or Limits())
    assert cgroup is not None
    directory = Path(cgroup.directory(0))
    directory.mkdir(exist_ok=True)
    for name, text in FILES.items():
        (directory / name).write_text(text)
    return cgroup


def handed_down(own: Path) -> list[str]:
    paths = (own, own / "pysup", own / "pysup/s")
    return [(path / "cgroup.subtree_control").read_text() for path in paths]


def test_figures(own: Path) -> None:
    with fake(own) as branch:
        figures = group(branch, Limits(cpus=1, pids=100, memory_bytes=1)).figures()
    assert (figures.memory_bytes, figures.memory_peak_bytes, figures.memory_max_bytes) == (8192, 9000, None)
    assert (figures.memory_inactive_file_bytes, figures.swap_bytes, figures.oom_kills) == (4096, 100, 2)
    assert (figures.cpu_ns, figures.cpu_user_ns, figures.cpu_system_ns) == (70_000, 50_000, 20_000)
    assert (figures.cpu_throttled_ns, figures.cpu_throttled_periods) == (40_000, 3)
    assert (figures.pids, figures.pids_max) == (2, 100)
    assert figures.io_read_bytes is None
    assert figures.pressure == {"cpu": Pressure(5, 0, 0.0, 0.0), "io": Pressure(77, 7, 1.5, 0.25)}


def test_figures_of_devices_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "io.stat").write_text(FILES["io.stat"])
    found = v2.figures(str(tmp_path), frozenset({"io"}))
    assert [found[f"io_{name}"] for name in ("read_bytes", "written_bytes", "reads", "writes")] == [15, 20, 2, 2]


def test_controllers_are_handed_down_as_far_as_they_are_needed(own: Path) -> None:
    with fake(own) as branch:
        group(branch)
        assert handed_down(own) == ["+memory +pids"] * 3
        group(branch, Limits(cpus=1))
        assert handed_down(own) == ["+cpu +memory +pids"] * 3  # a plain file keeps the last words only


def test_control(own: Path) -> None:
    with fake(own) as branch:
        cgroup = group(branch)
        directory = Path(cgroup.directory(0))
        assert cgroup.members() == [11, 12]
        assert cgroup.oom_kills() == 2
        assert cgroup.frozen
        cgroup.kill()
        assert (directory / "cgroup.kill").read_text() == "1"
        cgroup.freeze()
        assert (directory / "cgroup.freeze").read_text() == "1"
        cgroup.thaw()
        assert (directory / "cgroup.freeze").read_text() == "0"


def refuse(monkeypatch: pytest.MonkeyPatch, own: Path, *, times: int) -> list[str]:
    """The kernel's rule: a cgroup with processes hands nothing down. Collects what was asked of it."""
    asked: list[str] = []
    enable = v2.enable

    def busy(directory: str, controllers: frozenset[str]) -> None:
        asked.append(directory)
        if directory == str(own) and asked.count(directory) <= times:
            raise OSError(16, "Device or resource busy", directory)
        enable(directory, controllers)

    monkeypatch.setattr(v2, "enable", busy)
    return asked


def test_we_move_into_a_leaf_of_our_own_and_back(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = own / "pysup" / f"@{os.getpid()}"
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text("")
    refuse(monkeypatch, own, times=1)
    with fake(own) as branch:
        group(branch)
        assert (leaf / "cgroup.procs").read_text() == "0"
        assert handed_down(own) == ["+memory +pids"] * 3
        (own / "cgroup.subtree_control").write_text("memory pids")
        (leaf / "cgroup.procs").unlink()
    assert (own / "cgroup.procs").read_text().startswith("0")
    assert not leaf.exists()


def test_others_in_our_cgroup_are_an_error_only_where_a_limit_is_wanted(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "pysup" / f"@{os.getpid()}").mkdir()
    (own / "pysup" / f"@{os.getpid()}" / "cgroup.procs").write_text("")
    (own / "cgroup.procs").write_text("1\n2\n")
    refuse(monkeypatch, own, times=100)
    with fake(own) as branch:
        cgroup = group(branch)
        assert cgroup.places[0].controllers == frozenset()
        assert cgroup.figures().memory_bytes is None
        with pytest.raises(CgroupError, match=r"has 2 processes besides pysup, so its controllers can't be handed"):
            branch.cgroup("d", Limits(pids=1))
