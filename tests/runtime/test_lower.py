"""Plans become programs: every kind of step has calls, the same plan the same bytes. Pure."""

import inspect
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from runtime import advice, plan, program
from runtime import lower as lower_module
from runtime.assemble import Assembler
from runtime.build import build_plan
from runtime.cgroup.group import Cgroup, Place
from runtime.cgroup.hierarchies import Hierarchy
from runtime.cgroup.limits import Setting
from runtime.config import ContainerConfig, Network
from runtime.linux import NR
from runtime.lower import lower, lower_plan

MakeConfig = Callable[..., ContainerConfig]

STEPS = [
    found
    for _, found in inspect.getmembers(plan, inspect.isclass)
    if found.__module__ == plan.__name__ and hasattr(found, "describe") and found is not plan.Step
]


PLACES = (
    Place(Hierarchy(2, frozenset(), "/2", writable=True), frozenset(), "/2/pysup/s", 50),
    Place(Hierarchy(1, frozenset({"memory"}), "/1", writable=True), frozenset({"memory"}), "/1/pysup/s", 51),
)
CGROUP = Cgroup("c1", PLACES)


def calls(image: bytes) -> list[int]:
    """The number of each call."""
    _, count, *_ = program.HEADER.unpack_from(image)
    places = range(program.HEADER.size, program.HEADER.size + count * program.CALL.size, program.CALL.size)
    return [number for place in places for (number,) in [struct.unpack_from("=q", image, place)]]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_every_kind_of_step_is_lowered(step: type) -> None:
    assert lower.dispatch(step) is not lower.dispatch(object)


def test_what_is_no_step_is_refused() -> None:
    with pytest.raises(TypeError, match="no lowering for 42"):
        lower(42, Assembler())  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    "changed",
    [
        {"hostname": "other", "directory": "/elsewhere/c9", "env": (("NAME", "x"),)},
        {"network": Network.NONE, "workdir": "/srv"},
        {"argv": ("prog", "one", "more")},
        {"resolv_conf": b"nameserver ::1\n"},
        {"memory_bytes": None},
    ],
    ids=str,
)
def test_a_program_is_the_same_whatever_was_lowered_before(config: MakeConfig, changed: dict[str, Any]) -> None:
    """Also where it has the template of another, from which it differs in the container's own texts."""
    cgroups = [Cgroup(name, PLACES) for name in ("c1", "a-longer-name")]
    plans = [build_plan(config(), cgroups[0]), build_plan(config(**changed), cgroups[1])]
    alone = []
    for made in plans:
        lower_module._template.cache_clear()
        alone.append(lower_plan(made))
    assert [lower_plan(made) for made in plans] == alone
    assert alone[0].image != alone[1].image


def test_replicas_have_one_template(config: MakeConfig) -> None:
    lower_module._template.cache_clear()
    for number in range(1, 9):
        made = config(id=f"c.{number}", hostname=f"c.{number}", directory=f"/state/c.{number}")
        lower_plan(build_plan(made, Cgroup(f"c.{number}", PLACES)))
    assert lower_module._template.cache_info().misses == 1


LIKE: list[tuple[list[plan.Step], list[dict[str, Any]]]] = [  # steps, and others of their kinds
    (
        [
            *(plan.MakeCgroup(CGROUP, 6), plan.OpenCgroup(CGROUP, 6), plan.JoinCgroup(CGROUP, 6, namespace=True)),
            *(plan.SetLimit(CGROUP, 6, 1, Setting("memory", "memory.max", "1")), plan.HoldDevices(CGROUP, 6, bytes(8))),
        ],
        [
            *({"cgroup": Cgroup("longer", PLACES)}, {"cgroup": Cgroup("c1", PLACES[1:])}),
            *({"cgroup": CGROUP.inside("exec.1")}, {"first": 7}),
        ],
    ),
    ([plan.SetLimit(CGROUP, 6, 0, Setting("pids", "pids.max", "1"))], [{"place": 1}]),
    ([plan.SetLimit(CGROUP, 6, 0, Setting("pids", "pids.max", "1"))], [{"setting": Setting("pids", "pids.max", "2")}]),
    ([plan.HoldDevices(CGROUP, 6, bytes(8))], [{"program": bytes(16)}]),
    ([plan.JoinCgroup(CGROUP, 6, namespace=True)], [{"namespace": False}]),
    (
        [plan.MakeDirectories("/state/c1", 0o755, 0, 0, exist_ok=False)],
        [
            {"directory": "/s"},
            {"root_mode": 0o700},
            {"root_uid": 1},
            {"root_gid": 1},
            {"exist_ok": True},
            {"again": True},
        ],
    ),
    (
        [
            plan.MountOverlay(("/a",), "/state/c1", in_memory=in_memory, volatile=True, detached=detached)
            for in_memory in (True, False)
            for detached in (True, False)
        ],
        [{"lowers": ("/b",)}, {"lowers": ("/a", "/b")}, {"directory": "/s"}, {"volatile": False}, {"userns": 7}],
    ),
    (
        [plan.ShowFiles((plan.EtcFile("/etc/hosts", b"one"), plan.EtcFile("/etc/hostname", b"c1")))],
        [
            {"files": (plan.EtcFile("/etc/hosts", b""), plan.EtcFile("/etc/hostname", b"c22"))},
            *({"files": (plan.EtcFile("/etc/hosts", b"one"),)}, {"files": (plan.EtcFile("/etc/x", b"one"),) * 2}),
        ],
    ),
    ([plan.SetHostname("c1")], [{"hostname": "longer"}]),
    (
        [plan.Exec(("/bin/a", "/a"), ("a", "b"), (("NAME", "x"),))],
        [
            *({"candidates": ("/bin/b",)}, {"argv": ("c", "d")}, {"argv": ("a",)}, {"env": (("OTHER", "y"),)}),
            *({"env": ()}, {"argv": ("a", "b", "NAME=x"), "env": ()}),
        ],
    ),
]
CASES = [(step, change) for steps, changes in LIKE for step in steps for change in changes]


@pytest.mark.parametrize(("step", "change"), CASES, ids=lambda each: type(each).__name__)
def test_where_not_only_a_containers_own_texts_differ_the_template_is_another(
    step: Any, change: dict[str, Any]
) -> None:
    other = replace(step, **change)
    parts = lower_module._OWN[type(step)]
    if parts.shape(step) == parts.shape(other):
        texts = [os.fsencode(text) for text in parts.texts(other)]
        assert assembled(step).template(1).program(texts) == assembled(other).finish(1)


def assembled(step: plan.Step) -> Assembler:
    asm = Assembler()
    lower(step, asm)
    return asm


def test_every_step_that_is_a_containers_own_was_tried() -> None:
    assert {type(step) for step, _ in CASES} == set(lower_module._OWN)


def test_every_call_belongs_to_a_step_in_order(config: MakeConfig) -> None:
    made = build_plan(config(network=Network.NONE, workdir="/srv", init=True))
    lowered = lower_plan(made)
    assert list(lowered.steps) == sorted(lowered.steps)
    assert set(lowered.steps) == set(range(len(made.steps)))
    assert len(calls(lowered.image)) == len(lowered.steps)


def test_it_ends_with_an_execve_for_each_directory_of_the_path(config: MakeConfig) -> None:
    numbers = calls(lower_plan(build_plan(config(env=(("PATH", "/a:/b:/c"),)))).image)
    assert numbers[-4:] == [NR["close_range"], *[NR["execve"]] * 3]


def test_the_paths_of_layers_are_escaped(config: MakeConfig) -> None:
    (made,) = [step for step in build_plan(config()).steps if isinstance(step, plan.MountOverlay)]
    asm = Assembler()
    lower(replace(made, lowers=("/a:b", "/c,d", "/e\\f"), detached=False), asm)
    assert b"lowerdir=/a\\:b:/c\\,d:/e\\\\f,upperdir=upper,workdir=work,volatile\0" in asm.finish(0).image


def test_odd_bytes_in_arguments_pass_through(config: MakeConfig) -> None:
    argv = ("prog", b"\xff\xfe".decode(errors="surrogateescape"), "ü")
    image = lower_plan(build_plan(config(argv=argv, env=(("NAME", "a=b"),)))).image
    assert b"\xff\xfe\0" in image
    assert "ü\0".encode() in image
    assert b"NAME=a=b\0" in image


# --- what failures mean ----------------------------------------------------------------------------------------------


def test_advice_is_one_line_in_lower_case(config: MakeConfig) -> None:
    steps = [None, *build_plan(config(network=Network.NONE, workdir="/srv", init=True, rlimits=((0, 1, 1),))).steps]
    for step in steps:
        for code in range(1, 134):
            line = advice.advise(step, code)
            assert line.splitlines() == [line]
            assert line[0].islower() or not line[0].isalpha(), line
            assert not line.endswith(".")


def test_every_advice_belongs_to_a_kind_of_step() -> None:
    assert {kind for kind, _ in advice._STEPS} <= set(STEPS)
