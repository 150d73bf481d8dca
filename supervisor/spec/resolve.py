"""A spec back to YAML, with every default written out. It loads again to an equal spec."""

import signal
from collections.abc import Mapping
from typing import Any

import yaml

from supervisor.spec.model import Container, Spec
from supervisor.spec.values import UNLIMITED

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NO_FOLDING = 1 << 30  # columns: a long line stays one


def resolved(spec: Spec) -> str:
    """What `pysup config FILE` prints."""
    document = {"name": spec.name, "containers": [plain(container) for container in spec.containers]}
    as_is = DUMPER is not yaml.SafeDumper  # which writes U+0085 so that it is read back as a space
    text: str = yaml.dump(document, Dumper=DUMPER, sort_keys=False, allow_unicode=as_is, width=_NO_FOLDING)
    return text


def plain(container: Container) -> dict[str, object]:
    """A container in YAML's own types, as a user could have written it."""
    return {
        **dict(container),
        "backoff": dict(container.backoff),
        "cmd": list(container.cmd),
        "restart": str(container.restart),
        "stop_signal": signal_name(container.stop_signal),
        "depends_on": {need: {"condition": condition.value} for need, condition in container.depends_on.items()},
        "storage": container.storage.value,
        "network": container.network.value,
        "cap_add": list(container.cap_add),
        "cap_drop": list(container.cap_drop),
        "umask": f"{container.umask:04o}",
        "rlimits": _rlimits(container.rlimits),
    }


def signal_name(number: int) -> str | int:
    """`SIGTERM`, `SIGRTMIN+3`; a number where the C library keeps the signal to itself (signal(7): 32 and 33)."""
    if number > signal.SIGRTMIN:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return number


def _rlimits(rlimits: Mapping[str, tuple[int, int]]) -> dict[str, object]:
    return {name: {"soft": _limit(soft), "hard": _limit(hard)} for name, (soft, hard) in rlimits.items()}


def _limit(limit: int) -> int | str:
    return "unlimited" if limit == UNLIMITED else limit
