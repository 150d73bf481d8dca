"""The order of a plan's steps, and what each kind of container adds. Pure."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime import plan
from runtime.build import RLIMITS, build_plan, candidates
from runtime.config import DEFAULT_PATH, ContainerConfig, Network
from runtime.errors import ImageError
from runtime.idmap import block
from runtime.mounts import Bind, Device, MemoryFile, Tmpfs
from runtime.users import User

MakeConfig = Callable[..., ContainerConfig]

APP = User(1000, 100, (100, 44), "app", "/home/app")
EVERY = {
    "network": Network.NONE,
    "workdir": "/srv",
    "init": True,
    "rlimits": ((7, 10, 20),),
    "user": APP,
    "mounts": (Bind(source="/tmp", target="/a"), Tmpfs(target="/b"), MemoryFile(target="/c", contents=b"c")),
    "devices": (Device("/dev/null", "/dev/nothing"),),
    "capabilities": 1 << 27,  # CAP_MKNOD
    "read_only": True,
    "sysctls": (("kernel.msgmax", "65000"),),
}

# What comes later needs what came before, or must not have it any more.
ORDER = [
    (plan.MakeDirectories, plan.MountOverlay),
    (plan.MountOverlay, plan.EnterRoot),
    (plan.EnterRoot, plan.MountDev),  # from here on no link of the image leads out
    (plan.MountDev, plan.ShowFiles),  # whose files live in its tmpfs
    (plan.ShowFiles, plan.MountProc),  # until then there are no magic links
    (plan.MountDev, plan.MakeDevice),
    (plan.MakeDevice, plan.CloseDev),
    (plan.ShowFiles, plan.ShowBind),  # nobody else can swap anything in the container's own root before
    (plan.ShowBind, plan.MountProc),  # what was mounted there by way of a link is covered
    (plan.MountTmpfs, plan.MountProc),
    (plan.ShowMemory, plan.MountProc),
    (plan.MakeWorkdir, plan.ReadOnlyRoot),
    (plan.SetSysctl, plan.ReadOnlyPaths),
    (plan.MountProc, plan.MaskPath),
    (plan.MountProc, plan.ReadOnlyPaths),
    (plan.MountProc, plan.MakeWorkdir),
    (plan.ReadOnlyPaths, plan.DropBounding),
    (plan.SetHostname, plan.DropBounding),
    (plan.LoopbackUp, plan.DropBounding),
    (plan.EnterWorkdir, plan.SetUser),  # a user may start where it can't look
    (plan.DropBounding, plan.SetUser),  # needs CAP_SETPCAP
    (plan.ForkInit, plan.SetRlimit),  # nproc must not count against the fork
    (plan.SetRlimit, plan.SetUser),  # raising needs CAP_SYS_RESOURCE
    (plan.SetUser, plan.SetCapabilities),
    (plan.SetCapabilities, plan.CloseDescriptors),
    (plan.CloseDescriptors, plan.Exec),
]


OWN = block(1 << 31)
ORDER_WITH_OWN_IDS = [
    (plan.JoinNetwork, plan.CreateAs),
    (plan.CreateAs, plan.MountOverlay),  # who mounts must have an id in the upper: fs/overlayfs/super.c
    (plan.ReadOnlyRoot, plan.JoinUsers),  # nothing can be mounted after it
    (plan.SetHostname, plan.JoinUsers),
    (plan.SetRlimit, plan.JoinUsers),  # no hard limit can be raised after it
    (plan.JoinUsers, plan.DropBounding),  # it gives all capabilities
    (plan.JoinUsers, plan.ForkInit),
]


@pytest.mark.parametrize(("earlier", "later"), ORDER_WITH_OWN_IDS, ids=lambda step: step.__name__)
def test_with_ids_of_its_own_too(config: MakeConfig, earlier: type, later: type) -> None:
    kinds = [type(step) for step in build_plan(config(**EVERY, userns=OWN), ids=OWN).steps]
    assert len(kinds) - 1 - kinds[::-1].index(earlier) < kinds.index(later)


@pytest.mark.parametrize(("earlier", "later"), ORDER, ids=lambda step: step.__name__)
def test_steps_come_in_the_order_that_each_needs(config: MakeConfig, earlier: type, later: type) -> None:
    kinds = [type(step) for step in build_plan(config(**EVERY)).steps]
    kinds = [plan.EnterRoot if kind is plan.PivotRoot else kind for kind in kinds]
    assert len(kinds) - 1 - kinds[::-1].index(earlier) < kinds.index(later)


def test_its_life_is_tied_to_the_supervisors_after_the_last_change_of_credentials(config: MakeConfig) -> None:
    """PR_SET_PDEATHSIG(2const): cleared by a change of user or capabilities."""
    kinds = [type(step) for step in build_plan(config(**EVERY)).steps]
    assert kinds.count(plan.DieWithSupervisor) == 2  # the init's, and the command's
    last = len(kinds) - 1 - kinds[::-1].index(plan.DieWithSupervisor)
    assert last > kinds.index(plan.SetCapabilities)
    assert kinds.index(plan.DieWithSupervisor) < kinds.index(plan.ForkInit)


def test_execution_is_last_and_only_the_directories_come_before_the_clone(config: MakeConfig) -> None:
    made = build_plan(config())
    assert isinstance(made.steps[-1], plan.Exec)
    assert [type(step) for step in made.steps[: made.prologue]] == [plan.MakeDirectories]


def test_in_memory_nothing_is_done_on_disk(config: MakeConfig) -> None:
    made = build_plan(config(memory_bytes=1 << 20))
    assert (made.prologue, made.directory) == (0, None)
    assert not any(isinstance(step, plan.MakeDirectories) for step in made.steps)
    assert any(isinstance(step, plan.MountMemory) and step.size_bytes == 1 << 20 for step in made.steps)


def test_only_an_upper_that_is_thrown_away_is_volatile(config: MakeConfig) -> None:
    for keep in (False, True):
        (overlay,) = [step for step in build_plan(config(keep=keep)).steps if isinstance(step, plan.MountOverlay)]
        assert overlay.volatile is not keep


def test_the_root_directory_keeps_the_images_mode_and_owner(config: MakeConfig, tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    (made, *_) = build_plan(config()).steps
    assert made == plan.MakeDirectories("/state/c", 0o750, os.getuid(), tmp_path.stat().st_gid, exist_ok=False)


def test_privileged_means_nothing_masked_and_new_privileges(config: MakeConfig) -> None:
    steps = build_plan(config(privileged=True)).steps
    assert not any(isinstance(step, plan.MaskPath | plan.ReadOnlyPaths | plan.NoNewPrivileges) for step in steps)
    assert plan.MountSys(read_only=False) in steps


def test_only_root_keeps_capabilities(config: MakeConfig) -> None:
    assert plan.SetCapabilities(5) in build_plan(config(capabilities=5)).steps
    assert plan.SetCapabilities(0) in build_plan(config(capabilities=5, user=APP)).steps


def test_with_an_init_the_terminal_is_the_commands(config: MakeConfig) -> None:
    sessions = [s for s in build_plan(config(init=True, terminal=True)).steps if isinstance(s, plan.NewSession)]
    assert [session.terminal for session in sessions] == [False, True]


def test_a_private_network_brings_loopback_up(config: MakeConfig) -> None:
    assert plan.LoopbackUp() in build_plan(config(network=Network.NONE)).steps
    assert plan.LoopbackUp() not in build_plan(config()).steps


def test_the_working_directory_root_needs_no_step(config: MakeConfig) -> None:
    assert not any(isinstance(step, plan.MakeWorkdir | plan.EnterWorkdir) for step in build_plan(config()).steps)


def test_limits_go_by_the_kernels_numbers(config: MakeConfig) -> None:
    assert RLIMITS.index("nofile") == 7
    assert RLIMITS.index("rttime") == 15
    assert plan.SetRlimit(7, "nofile", 10, 20) in build_plan(config(rlimits=((7, 10, 20),))).steps


def test_an_image_that_is_not_there_is_told(config: MakeConfig) -> None:
    with pytest.raises(ImageError, match=r"^image /nowhere: No such file or directory$"):
        build_plan(config(lowers=("/nowhere",)))


@pytest.mark.parametrize(
    ("program", "path", "expected"),
    [
        ("sh", "/a:/b/", ("/a/sh", "/b/sh")),
        ("sh", "", ("./sh",)),
        ("sh", "/:a", ("/sh", "a/sh")),
        ("sh", ":/a:", ("./sh", "/a/sh", "./sh")),
        ("/bin/sh", "/a", ("/bin/sh",)),
        ("./sh", "/a", ("./sh",)),
    ],
)
def test_programs_are_looked_for_as_execvp_does(program: str, path: str, expected: tuple[str, ...]) -> None:
    assert candidates(program, path) == expected


def test_the_containers_own_path_counts(config: MakeConfig) -> None:
    def looked_in(**changes: object) -> tuple[str, ...]:
        last = build_plan(config(**changes)).steps[-1]
        assert isinstance(last, plan.Exec)
        return last.candidates

    assert looked_in(env=(("PATH", "/a"),)) == ("/a/prog",)
    assert looked_in(env=()) == tuple(f"{directory}/prog" for directory in DEFAULT_PATH.split(":"))


def test_every_step_says_what_it_does_in_one_line(config: MakeConfig) -> None:
    kinds = (EVERY, {"memory_bytes": 1 << 20, "terminal": True})
    steps = itertools.chain.from_iterable(build_plan(config(**kind)).steps for kind in kinds)
    for step in steps:
        line = step.describe()
        assert line.splitlines() == [line]
        assert not line.endswith((".", " "))
