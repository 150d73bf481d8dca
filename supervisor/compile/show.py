"""What `pysup up --dry-run` prints: the order of the containers, and the steps of each one's plan."""

from collections.abc import Iterator

from runtime.build import build_plan
from supervisor.entry import Compiled, Entry

Groups = dict[str, list[Entry]]


def dry_run(stack: Compiled) -> str:
    """As text. Of replicas, which differ only in their names, the first is shown."""
    groups: Groups = {}
    for entry in stack.entries:
        groups.setdefault(entry.group, []).append(entry)
    return "".join(f"{line}\n" for line in _lines(stack.name, groups))


def _lines(name: str, groups: Groups) -> Iterator[str]:
    yield f"stack {name}"
    for number, level in enumerate(_levels(groups), 1):
        yield ""
        yield f"{number}. {', '.join(_title(group, groups) for group in level)}"
        for group in level:
            first = groups[group][0]
            yield f"   {first.id}"
            yield from (f"     {step.describe()}" for step in build_plan(first.config).steps)


def _levels(groups: Groups) -> Iterator[list[str]]:
    """Groups that may start together, dependencies first. There are no cycles: the spec was checked."""
    placed: set[str] = set()
    while len(placed) < len(groups):
        level = [name for name, entries in groups.items() if name not in placed and _needs(entries, groups) <= placed]
        yield level
        placed.update(level)


def _needs(entries: list[Entry], groups: Groups) -> set[str]:
    """What the group waits for; one without replicas is met at once."""
    return set(entries[0].depends_on) & set(groups)


def _title(group: str, groups: Groups) -> str:
    count = len(groups[group])
    return group if count == 1 else f"{group} ({count} replicas)"
