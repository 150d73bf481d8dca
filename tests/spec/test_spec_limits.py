"""`limits`, `oom` and `enforce`: what may be written, and what is said of the rest."""

from collections.abc import Callable

import pytest

from runtime.cgroup.limits import IoLimit, Limits
from supervisor.spec import Spec, resolved
from supervisor.spec.terms import Enforce, Oom

LoadText = Callable[[str | bytes], Spec]
FaultsOf = Callable[[str | bytes], list[str]]
MIB = 1 << 20


def stack(*lines: str) -> str:
    return "containers:\n  - id: a\n    image: base\n    cmd: run\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{}", Limits()),
        ("{memory: 2MiB, memory_high: 1m, swap: 0}", Limits(memory_bytes=2 * MIB, memory_high_bytes=MIB, swap_bytes=0)),
        ("{cpus: 1.5, cpu_weight: 10000, pids: 100}", Limits(cpus=1.5, cpu_weight=10_000, pids=100)),
        ("{cpuset: 0}", Limits(cpuset="0")),
        ("{cpuset: '0-3,8'}", Limits(cpuset="0-3,8")),
        (
            "{io: [{device: /dev/sda, rbps: 10m, wiops: 5}, {device: '8:0', wbps: 1}]}",
            Limits(io=(IoLimit(device="/dev/sda", rbps=10 * MIB, wiops=5), IoLimit(device="8:0", wbps=1))),
        ),
        ("{memory: null, x-note: mine}", Limits()),
    ],
)
def test_limits_are_read_and_written_back(load_text: LoadText, written: str, meant: Limits) -> None:
    spec = load_text(stack(f"limits: {written}"))
    assert spec.containers[0].limits == meant
    assert load_text(resolved(spec)).containers[0].limits == meant


def test_the_words_beside_them(load_text: LoadText) -> None:
    plain, said = load_text(stack()).containers[0], load_text(stack("oom: kill-group", "enforce: best-effort"))
    assert (plain.limits, plain.oom, plain.enforce) == (Limits(), Oom.PROCESS, Enforce.STRICT)
    assert (said.containers[0].oom, said.containers[0].enforce) == (Oom.GROUP, Enforce.BEST_EFFORT)
    assert load_text(resolved(said)) == said


def test_defaults_are_joined_key_by_key(load_text: LoadText) -> None:
    spec = load_text(f"defaults: {{limits: {{memory: 1g, pids: 9}}}}\n{stack('limits: {pids: 5, memory: null}')}")
    assert spec.containers[0].limits == Limits(pids=5)


IO = "{device: /dev/sda, rbps: …, wbps: …, riops: …, wiops: …}"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("limits: 5", '5:13: limits: is "5", expected a mapping, such as'),
        ("limits: {memery: 1g}", '5:14: limits.memery: unknown key; did you mean "memory"?'),
        ("limits: {memory: 1k}", '5:22: limits.memory: is "1k", expected a size from 64k'),
        ("limits: {memory: 1m, memory_high: 2m}", "5:39: limits.memory_high: is above memory"),
        ("limits: {cpus: 0}", '5:20: limits.cpus: is "0", expected processors from 0.01 to 10000'),
        ("limits: {cpu_weight: 10001}", '5:26: limits.cpu_weight: is "10001", expected a whole number from 1'),
        ("limits: {cpuset: 3-1}", '5:22: limits.cpuset: is "3-1", expected numbers of processors, such as 0-3,8'),
        ("limits: {pids: 0}", '5:20: limits.pids: is "0", expected a whole number from 1 to 4194304'),
        ("limits: {io: [{rbps: 1}]}", f"5:19: limits.io[0]: is without a device, expected {IO}"),
        ("limits: {io: [{device: a}]}", f"5:19: limits.io[0]: is without a rate, expected {IO}"),
        ("limits: {io: [{device: a, rbps: 1}, {device: a, wbps: 1}]}", "5:18: limits.io: names a twice"),
        ("oom: kill", '5:10: oom: is "kill", expected kill-process or kill-group'),
        ("enforce: no", '5:14: enforce: is "no", expected strict or best-effort'),
    ],
)
def test_what_is_wrong_is_said_at_its_place(faults_of: FaultsOf, line: str, fault: str) -> None:
    faults = faults_of(stack(line))
    assert len(faults) == 1
    assert faults[0].startswith(f"stack.yaml:{fault.partition(': ')[0]}: containers[0].{fault.partition(': ')[2]}")
