"""A spec back to YAML, with every default written out. It loads again to an equal spec."""

import signal
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any

import yaml

from runtime.config import Attachment
from runtime.mounts import Device
from supervisor.core.checks import Exec, File, Health, Http, Log, Notify, Probe, Ready, Tcp
from supervisor.core.policy import RestartOn
from supervisor.entry import StackNetwork
from supervisor.logs.policy import LogPolicy
from supervisor.spec import idmaps, later, mounts, resources
from supervisor.spec.model import Container, Spec
from supervisor.spec.restarts import written
from supervisor.spec.terms import Restart
from supervisor.spec.values import UNLIMITED

DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NO_FOLDING = 1 << 30  # columns: a long line stays one


def resolved(spec: Spec) -> str:
    """What `pysup config FILE` prints."""
    document: dict[str, object] = {
        "name": spec.name,
        "containers": [_escaped(plain(container)) for container in spec.containers],
        "logs": {"max_total": spec.logs.max_total_bytes},
    }
    if spec.networks:
        document["networks"] = {name: _network(network) for name, network in spec.networks.items()}
    if spec.volumes:
        document["volumes"] = {name: _plain_fields(volume) for name, volume in spec.volumes.items()}
    for key, sources in (("secrets", spec.secrets), ("configs", spec.configs)):
        if sources:
            document[key] = {name: _escaped(mounts.written_source(source)) for name, source in sources.items()}
    as_is = DUMPER is not yaml.SafeDumper  # which writes U+0085 so that it is read back as a space
    text: str = yaml.dump(document, Dumper=DUMPER, sort_keys=False, allow_unicode=as_is, width=_NO_FOLDING)
    return text


def _escaped(value: object) -> object:
    """With a $ that begins no variable doubled, and those of each replica's own as they were written."""
    match value:
        case str():
            return later.shown(value.replace("$", "$$")) if "$" in value or later.stands_in(value) else value
        case list():
            return [_escaped(entry) for entry in value]
        case dict():
            return {key: _escaped(entry) for key, entry in value.items()}
        case _:
            return value


def plain(container: Container) -> dict[str, object]:
    """A container in YAML's own types, as a user could have written it."""
    return {
        **dict(container),
        "backoff": dict(container.backoff),
        "cmd": list(container.cmd),
        "restart": _restart(container.restart),
        "restart_on": container.restart_on and _restart_on(container.restart_on),
        "success_codes": written(container.success_codes),
        "stop_cmd": list(container.stop_cmd),
        "stop_signal": signal_name(container.stop_signal),
        "depends_on": {id_: _plain_fields(need) for id_, need in container.depends_on.items()},
        "ready": container.ready and _check(container.ready),
        "health": container.health and _check(container.health),
        "storage": container.storage.value,
        "networks": {each.network: _attachment(each) for each in container.networks},
        "aliases": list(container.aliases),
        "ports": [str(publication) for publication in container.ports],
        "cap_add": list(container.cap_add),
        "cap_drop": list(container.cap_drop),
        "userns": idmaps.plain(container.userns),
        "umask": f"{container.umask:04o}",
        "ulimits": _rlimits(container.ulimits),
        "volumes": list(map(mounts.written, container.volumes)),
        "tmpfs": list(map(mounts.written_tmpfs, container.tmpfs)),
        "secrets": list(map(mounts.written_grant, container.secrets)),
        "configs": list(map(mounts.written_grant, container.configs)),
        "devices": [_device(each) for each in container.devices],
        "extra_hosts": [f"{name}={address}" for name, address in container.extra_hosts],
        **{key: list(getattr(container, key)) for key in ("dns", "dns_search", "dns_opt")},
        "limits": resources.written(container.limits),
        "oom": container.oom.value,
        "enforce": container.enforce.value,
        "output": {**_plain_fields(container.output), "prefix": _prefix(container.output.prefix)},
        "logs": _logs(container.logs),
        "update": _plain_fields(container.update),
    }


def _device(device: Device) -> str:
    permissions = "" if device.permissions == "rwm" else f":{device.permissions}"
    return f"{device.source}:{device.target}{permissions}"


def _plain_fields(value: Any) -> dict[str, object]:
    """A dataclass's own."""
    pairs = ((each.name, getattr(value, each.name)) for each in fields(value))
    return {name: entry.value if isinstance(entry, StrEnum) else entry for name, entry in pairs}


def _attachment(attachment: Attachment) -> dict[str, object]:
    addresses = {"ipv4_address": attachment.ipv4, "ipv6_address": attachment.ipv6}
    return {"aliases": list(attachment.aliases), **{key: value for key, value in addresses.items() if value}}


def _network(network: StackNetwork) -> dict[str, object]:
    subnets = {"subnet": list(network.subnets)} if network.subnets else {}
    return {"internal": network.internal, "ipv6": network.ipv6, **subnets}


def _restart(restart: Restart) -> object:
    if restart.is_plain():
        return str(restart)
    return {name: entry for name, entry in _plain_fields(restart).items() if entry is not None}


def _restart_on(ends: RestartOn) -> dict[str, object]:
    signals = [signal_name(number) for number in sorted(ends.signals)]
    return {"exit_codes": written(ends.exit_codes), "signals": signals, "oom": ends.oom}


def _check(check: Ready | Health) -> dict[str, object]:
    times = {name: entry for name, entry in _plain_fields(check).items() if name != "probe"}
    if not isinstance(check.probe, Notify):
        times.pop("watchdog_s", None)
    return {**_probe(check.probe), **times}


def _probe(probe: Probe) -> dict[str, object]:
    match probe:
        case Log(pattern):
            return {"log": pattern}
        case Tcp(port):
            return {"tcp": port}
        case Http(host, port, target, statuses):
            name = f"[{host}]" if ":" in host else host
            return {"http": f"http://{name}:{port}{target}", "status": [_span(*span) for span in statuses]}
        case Exec(argv):
            return {"exec": list(argv)}
        case File(path):
            return {"file": path}
        case Notify():
            return {"notify": True}


def _span(low: int, high: int) -> int | str:
    return low if low == high else f"{low}-{high}"


def _logs(policy: LogPolicy) -> dict[str, object]:
    return {name.removesuffix("_bytes"): entry for name, entry in _plain_fields(policy).items()}


def _prefix(prefix: str | None) -> object:
    return True if prefix is None else prefix or False


def signal_name(number: int) -> str | int:
    """`SIGTERM`, `SIGRTMIN+3`; a number where the C library keeps the signal to itself (signal(7): 32 and 33)."""
    if number > signal.SIGRTMIN:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return number


def _rlimits(ulimits: Mapping[str, tuple[int, int]]) -> dict[str, object]:
    return {name: {"soft": _limit(soft), "hard": _limit(hard)} for name, (soft, hard) in ulimits.items()}


def _limit(limit: int) -> int | str:
    return "unlimited" if limit == UNLIMITED else limit
