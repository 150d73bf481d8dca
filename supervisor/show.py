"""What `pysup up --dry-run` prints: the order of the containers, and the steps of each one's plan."""

from collections.abc import Iterable, Iterator

from runtime.build import build_plan
from supervisor.compile import Entry
from supervisor.spec import Spec, order


def dry_run(spec: Spec, entries: Iterable[Entry]) -> str:
    """As text. Replicas that differ only in their names are shown once."""
    by_group: dict[str, list[Entry]] = {}
    for entry in entries:
        by_group.setdefault(entry.group, []).append(entry)
    return "".join(f"{line}\n" for line in _lines(spec, by_group))


def _lines(spec: Spec, by_group: dict[str, list[Entry]]) -> Iterator[str]:
    yield f"stack {spec.name}"
    for number, level in enumerate(order(spec), 1):
        yield ""
        yield f"{number}. {', '.join(_name(container.id, by_group) for container in level)}"
        for container in level:
            for entry in by_group.get(container.id, [])[:1]:
                yield f"   {entry.id}"
                yield from (f"     {step.describe()}" for step in build_plan(entry.config).steps)


def _name(group: str, by_group: dict[str, list[Entry]]) -> str:
    count = len(by_group.get(group, []))
    return group if count == 1 else f"{group} ({count} replicas)"
