"""Plans become programs: every kind of step has calls, the same plan the same bytes. Pure."""

import inspect
import struct
from collections.abc import Callable
from dataclasses import replace

import pytest

from runtime import advice, plan, program
from runtime.assemble import Assembler
from runtime.build import build_plan
from runtime.config import ContainerConfig, Network
from runtime.linux import NR
from runtime.lower import lower, lower_plan

MakeConfig = Callable[..., ContainerConfig]

STEPS = [
    found
    for _, found in inspect.getmembers(plan, inspect.isclass)
    if found.__module__ == plan.__name__ and hasattr(found, "describe") and found is not plan.Step
]


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


def test_the_same_plan_is_the_same_program_though_parts_of_it_are_kept(config: MakeConfig) -> None:
    first = lower_plan(build_plan(config()))
    other = lower_plan(build_plan(config(hostname="other", network=Network.NONE, workdir="/srv")))
    assert other.image != first.image
    assert lower_plan(build_plan(config())) == first


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
