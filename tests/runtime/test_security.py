"""Which capabilities are left, by Docker's rule. Pure, but for what this process has itself."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from runtime import linux, security
from runtime.build import build_plan
from runtime.capabilities import CAPABILITIES
from runtime.config import ContainerConfig, Network

MakeConfig = Callable[..., ContainerConfig]
EVERY = (1 << len(CAPABILITIES)) - 1


@pytest.fixture(autouse=True)
def _all_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "available", lambda: EVERY)


def names(mask: int) -> set[str]:
    return {name for number, name in enumerate(CAPABILITIES) if mask >> number & 1}


@pytest.mark.parametrize(
    ("add", "drop", "left"),
    [
        ([], [], {*security.DEFAULT_CAPABILITIES}),
        (["CAP_SYS_TIME"], [], {*security.DEFAULT_CAPABILITIES, "CAP_SYS_TIME"}),
        ([], ["CAP_CHOWN"], {*security.DEFAULT_CAPABILITIES} - {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
        (["CAP_SYS_TIME"], ["ALL"], {"CAP_SYS_TIME"}),
        (["ALL"], [], {*CAPABILITIES}),
        (["ALL"], ["CAP_SYS_ADMIN"], {*CAPABILITIES} - {"CAP_SYS_ADMIN"}),
        (["CAP_CHOWN", "CAP_CHOWN"], [], {*security.DEFAULT_CAPABILITIES}),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(add: list[str], drop: list[str], left: set[str]) -> None:
    assert names(security.capability_mask(add, drop, privileged=False)) == left


def test_privileged_is_everything_whatever_is_dropped() -> None:
    assert security.capability_mask([], ["ALL"], privileged=True) == EVERY


def test_what_this_process_lacks_can_not_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "available", lambda: 0b1)
    assert names(security.capability_mask(["ALL"], [], privileged=False)) == {"CAP_CHOWN"}
    assert security.capability_mask([], [], privileged=True) == 0b1


def test_the_numbers_are_the_kernels() -> None:
    assert CAPABILITIES.index("CAP_SYS_ADMIN") == 21
    assert CAPABILITIES.index("CAP_CHECKPOINT_RESTORE") == 40
    assert security.capability_mask([], [], privileged=False) == 0xA80425FB  # what /proc/self/status shows in Docker


def test_masks_are_split_for_capset_as_it_wants_them() -> None:
    words = linux.CAP_DATA.unpack(linux.cap_data(1 << 40 | 2, 1 << 32))
    assert words == (2, 0, 0, 1 << 8, 1, 0)


def test_every_namespace_but_the_network_is_always_new(config: MakeConfig) -> None:
    always = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWCGROUP
    made = replace(build_plan(config()), own_mounts=False)
    assert security.clone_flags(made) == always
    assert security.clone_flags(replace(made, network=Network.NONE)) == always | linux.CLONE_NEWNET


def test_what_the_child_makes_itself_is_not_made_by_the_clone(config: MakeConfig) -> None:
    made = replace(build_plan(config(network=Network.NONE)), own_mounts=True)
    assert not security.clone_flags(made) & linux.CLONE_NEWNS
    assert not security.clone_flags(replace(made, userns=True)) & linux.CLONE_NEWNET
