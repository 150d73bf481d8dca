"""A spec as YAML that people like to read: in the order of the reference, with quotes where they are needed only."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import yaml

from supervisor.compose import dollar
from supervisor.compose.notes import Note
from supervisor.compose.services import Keys
from supervisor.spec.tree import Plain

LINE_MAX_CHARS = 100  # of a list on one line
_NO_FOLDING = 1 << 30  # columns: a long line stays one
_BREAKS = frozenset("\x85\u2028\u2029")  # lines end there too, for PyYAML, which would fold them to spaces
_ORDER = (
    *("id", "extends", "profiles", "image", "cmd", "env_file", "env", "workdir", "user", "hostname"),
    *("depends_on", "ready", "health", "restart", "backoff", "stop_cmd", "stop_signal", "stop_grace_s", "replicas"),
    *(
        "network",
        "networks",
        "aliases",
        "ports",
        "init",
        "cap_add",
        "cap_drop",
        "privileged",
        "userns",
        "seccomp",
        "ulimits",
    ),
    *("volumes", "tmpfs", "secrets", "configs", "read_only", "devices", "shm_size", "sysctls", "extra_hosts"),
    *("dns", "dns_search", "dns_opt"),
)


def spec(path: str, top: Keys, containers: Iterable[Keys], notes: Iterable[Note]) -> str:
    """The file's notes first, lest they get lost, and what is the user's own (`x-`) last."""
    name = {"name": top["name"]} if "name" in top else {}
    parts = [_head(path, notes), _yaml(name), _containers(containers)]
    parts += [_yaml({key: value}) for key, value in top.items() if key != "name"]
    return "\n".join(part for part in parts if part)


def _head(path: str, notes: Iterable[Note]) -> str:
    lines = [str(replace(note, file=path.rpartition("/")[2])) for note in notes]
    titles = ["Written by `pysup import compose`.", *(["What did not carry over as it was:"] if lines else [])]
    return "".join(f"# {line}\n" for line in titles + lines)


def _containers(containers: Iterable[Keys]) -> str:
    blocks = [_indented(_yaml([_ordered(keys)])) for keys in containers]
    return "containers:\n" + "\n".join(blocks) if blocks else "containers: []\n"


def _indented(text: str) -> str:
    return "".join(f"  {line}" if line.strip() else line for line in text.splitlines(keepends=True))


def _ordered(keys: Keys) -> Keys:
    known = {key: keys[key] for key in _ORDER if key in keys}
    return known | keys


def _yaml(value: object) -> str:
    if not value:
        return ""
    text: str = yaml.dump(_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_NO_FOLDING)
    return text


def _plain(value: object) -> object:
    """In Python's own collections, with the variables as a spec has them."""
    match value:
        case Plain():
            return Plain(dollar.carried(value))
        case str():
            return dollar.carried(value)
        case dict():
            return {str(key): _plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case _:
            return value


class _Dumper(yaml.SafeDumper):
    """The one in Python: libyaml's can't be told to indent lists."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _text(dumper: _Dumper, value: str) -> Any:
    # A block that ends in empty lines takes those that follow it as its own.
    quoted = _BREAKS & set(value) or value == "\n" or value.endswith("\n\n")
    style = '"' if quoted else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _unquoted(dumper: _Dumper, value: Plain) -> Any:
    """As it was written: `no` and `0022` are text in a spec, whatever they are in YAML 1.1."""
    if _BREAKS & set(value) or "\n" in value:
        return _text(dumper, value)
    tag = dumper.resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]  # of PyYAML's
    return dumper.represent_scalar(tag, str(value))


def _list(dumper: _Dumper, value: list[object]) -> Any:
    """On one line, if it is short and nothing in it is nested."""
    flat = all(isinstance(entry, str) and "\n" not in entry for entry in value)
    short = flat and sum(len(str(entry)) + 2 for entry in value) <= LINE_MAX_CHARS
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Plain, _unquoted)
_Dumper.add_representer(list, _list)
