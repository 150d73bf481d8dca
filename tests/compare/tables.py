"""Reports side by side, as tables of Markdown."""

from collections.abc import Callable, Mapping, Sequence

from tests.compare.look import Report

Reports = Mapping[str, Report]


def all_tables(found: Reports, bare: Report) -> str:
    """All of them."""
    return f"{_overview(found, bare)}\n{_capabilities(found)}\n{_calls(found, bare)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _overview(found: Reports, bare: Report) -> str:
    rows: dict[str, Callable[[Report], str]] = {
        "namespaces of its own": lambda one: ", ".join(one.namespaces),
        "root inside is, outside": lambda one: "root" if one.sections["uid_map"][0].split()[1] == "0" else "nobody",
        "capabilities": lambda one: str(len(one.capabilities)),
        "effective / ambient": lambda one: f"{one.mask('CapEff').bit_count()} / {one.mask('CapAmb').bit_count()}",
        "no_new_privs": lambda one: "yes" if one.status["NoNewPrivs"].strip() == "1" else "no",
        "seccomp filter": lambda one: "yes" if one.status["Seccomp"].strip() == "2" else "no",
        "system calls refused": lambda one: str(len(one.refused(bare))),
        "of the kernel's own files, readable": lambda one: _names(one.sections["readable"]),
        "settings of the kernel, writable": lambda one: _names(one.sections["writable"]),
        "device nodes": lambda one: str(len(one.sections["devices"])),
        "the host's disk": lambda one: ", ".join(one.sections["disk"]) or "out of reach",
        "root file system can be written to": lambda one: "yes" if one.sections["root"] else "no",
        "descriptors besides 0, 1, 2": lambda one: str(len(one.sections["descriptors"]) - 4),  # and the listing's own
        "mounts": lambda one: str(len(one.sections["mounts"])),
    }
    return _table(["", *found], [[name, *(cell(one) for one in found.values())] for name, cell in rows.items()])


def _names(names: Sequence[str]) -> str:
    return "none" if not names else ", ".join(f"`{name}`" for name in names)


def _capabilities(found: Reports) -> str:
    every = sorted({name for one in found.values() for name in one.capabilities})
    rows = [[f"`{name}`", *("•" if name in one.capabilities else "" for one in found.values())] for name in every]
    return _table(["capability", *found], rows)


def _calls(found: Reports, bare: Report) -> str:
    refused = {name: one.refused(bare) for name, one in found.items()}
    every = sorted(set().union(*refused.values()))
    alike: dict[tuple[bool, ...], list[str]] = {}
    for call in every:
        alike.setdefault(tuple(call in calls for calls in refused.values()), []).append(call)
    rows = [
        [", ".join(f"`{name}`" for name in calls), *("refused" if one else "" for one in by)]
        for by, calls in sorted(alike.items(), key=lambda item: -len(item[1]))
    ]
    return _table(["system calls", *found], rows)
