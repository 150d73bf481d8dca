"""The keys of a service: who carries one over to a container, or why nobody does and what to do instead.

What pysup would refuse is dropped afterwards, whatever rule it came from.
"""

from collections.abc import Callable, Iterator, Mapping

from supervisor.compose import network, resources, rules
from supervisor.compose.health import health
from supervisor.compose.rules import Rule
from supervisor.compose.scalars import nothing
from supervisor.compose.services import Keys, Service, refused
from supervisor.spec.faults import Loc, Wrong, nearest, quoted
from supervisor.spec.tree import Map

LIMITS = "limits"
_MEMBERS = (
    *("env", "ulimits", "cap_add", "cap_drop", "volumes", "tmpfs", "secrets", "configs", "devices", "sysctls"),
    *("extra_hosts", "ports", "networks", LIMITS),
)  # of these, one bad member leaves the others


def carry(service: Service) -> Keys:
    """All keys of a container that the table knows of."""
    return _carry(service, SERVICE, service.entries, ())


def _carry(service: Service, table: Mapping[str, Rule], entries: Map, steps: Loc) -> Keys:
    result: Keys = {}
    for key in sorted(entries, key=_deploy_last):
        value, loc = entries[key], service.loc(*steps, key)
        if key.startswith("x-"):
            result[key] = value
        elif key not in table:
            near = nearest(key, table)
            service.notes.dropped(loc, "is no key of Compose" + (f"; did you mean {quoted(near)}?" if near else ""))
        elif isinstance(rule := table[key], str):
            if not nothing(value):
                service.notes.dropped(loc, rule)
        else:
            _join(result, _ruled(service, rule, value, (*steps, key)))
    return result


def _join(result: Keys, keys: Keys) -> None:
    """Many of Compose's keys are one here."""
    for key, value in keys.items():
        before = result.get(key) if key == LIMITS else None
        result[key] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def _deploy_last(key: str) -> bool:
    """What it says wins over `restart` and `scale`."""
    return key == "deploy"


def _ruled(service: Service, rule: Callable[[Service, object], Keys], value: object, steps: Loc) -> Keys:
    try:
        return dict(_accepted(service, rule(service, value), steps))
    except Wrong as wrong:
        service.notes.dropped(service.loc(*steps, *wrong.loc), str(wrong), key=False)
        return {}


def _accepted(service: Service, keys: Keys, steps: Loc) -> Iterator[tuple[str, object]]:
    """What pysup takes of it."""
    for key, value in keys.items():
        if key not in _MEMBERS or refused(key, value) is None:
            if _fits(service, steps, key, value):
                yield key, value
        elif isinstance(value, dict):
            yield key, {name: one for name, one in value.items() if _fits(service, (*steps, name), key, {name: one})}
        elif isinstance(value, list):
            yield key, [one for step, one in enumerate(value) if _fits(service, (*steps, step), key, [one])]


def _fits(service: Service, steps: Loc, key: str, value: object) -> bool:
    why = refused(key, value)
    if why is not None:
        service.notes.dropped(service.loc(*steps), why, key=False)
    return why is None


def _deploy(service: Service, value: object) -> Keys:
    return _carry(service, DEPLOY, rules.mapping(value), ("deploy",)) if value else {}


# --- the tables -------------------------------------------------------------------------------------------------------

_IMAGE_IS_LOCAL = "images are never pulled: what is in images/ is used as it is"
_NO_DEVICES = "name the devices themselves in `devices`, with r or w if not both"
_NO_METADATA = "nothing reads metadata here: a comment or an x- key can hold it"
_NO_NAMESPACES = "which namespaces a container has of its own is no choice"
_NO_NAMES = "names are looked up as on the host: write what is needed to its /etc/hosts or resolv.conf"
_NO_LINKS = "containers of a network find one another by name: give the other one aliases, if need be"
_NO_ADDRESSES = "hardware addresses are chosen, and stay the same as the container's address does"
_NO_FILES = "name the volumes of the other in `volumes`"
_NO_HOOK = "there are no hooks: make the command a container, "
_NO_SWARM = "is of a swarm of machines; pysup runs on one"
_NO_TERMINAL = "a container of a stack has no terminal and no input; `pysup run` gives one"
_OWN_PROCESSES = "a container sees its own processes only"
_WINDOWS = "is of Windows only"

SERVICE: dict[str, Rule] = {
    **resources.RULES,
    "annotations": _NO_METADATA,
    "attach": "the output of all containers is shown",
    "build": "pysup builds no images: build it elsewhere, and unpack it to images/",
    "cap_add": rules.list_of("cap_add"),
    "cap_drop": rules.list_of("cap_drop"),
    "cgroup": _NO_NAMESPACES,
    "command": rules.elsewhere,
    "configs": rules.entries("configs"),
    "container_name": rules.elsewhere,
    "cpu_count": _WINDOWS,
    "cpu_percent": _WINDOWS,
    "credential_spec": _WINDOWS,
    "depends_on": rules.depends_on,
    "deploy": _deploy,
    "develop": "nothing watches sources: pysup runs what is in the image",
    "device_cgroup_rules": _NO_DEVICES,
    "devices": rules.entries("devices"),
    "dns": rules.one_or_more("dns"),
    "dns_opt": rules.one_or_more("dns_opt"),
    "dns_search": rules.one_or_more("dns_search"),
    "domainname": _NO_NAMES,
    "entrypoint": rules.elsewhere,
    "env_file": rules.env_file,
    "environment": rules.environment,
    "expose": rules.elsewhere,
    "extends": rules.extends,
    "external_links": _NO_LINKS,
    "extra_hosts": rules.entries("extra_hosts"),
    "gpus": _NO_DEVICES,
    "group_add": "there are no groups but the one of `user: uid:gid`, and those that the image gives a user by name",
    "healthcheck": health,
    "hostname": rules.same("hostname"),
    "image": rules.elsewhere,
    "init": rules.switch("init"),
    "ipc": _NO_NAMESPACES,
    "isolation": _WINDOWS,
    "label_file": _NO_METADATA,
    "labels": _NO_METADATA,
    "links": _NO_LINKS,
    "logging": rules.logging,
    "mac_address": _NO_ADDRESSES,
    "models": "pysup runs containers only: run the model in one, and name its address in env",
    "network_mode": network.network_mode,
    "networks": network.attachments,
    "pid": _OWN_PROCESSES,
    "platform": _IMAGE_IS_LOCAL,
    "ports": network.ports,
    "post_start": _NO_HOOK + "which depends on this one",
    "pre_start": _NO_HOOK + "which this one depends on with condition: completed",
    "pre_stop": rules.hooks,
    "privileged": rules.privileged,
    "profiles": rules.list_of("profiles"),
    "provider": "pysup runs containers only: the service is left out",
    "pull_policy": _IMAGE_IS_LOCAL,
    "pull_refresh_after": _IMAGE_IS_LOCAL,
    "read_only": rules.switch("read_only"),
    "restart": rules.restart,
    "runtime": "pysup is its own runtime",
    "scale": rules.same("replicas"),
    "secrets": rules.entries("secrets"),
    "security_opt": rules.security_opt,
    "shm_size": rules.same("shm_size"),
    "stdin_open": _NO_TERMINAL,
    "stop_grace_period": rules.time("stop_grace_s"),
    "stop_signal": rules.same("stop_signal"),
    "storage_opt": "see storage and storage_size",
    "sysctls": rules.entries("sysctls"),
    "tmpfs": rules.one_or_more("tmpfs"),
    "tty": _NO_TERMINAL,
    "ulimits": rules.ulimits,
    "use_api_socket": "there is no Docker Engine to speak to",
    "user": rules.same("user"),
    "userns_mode": rules.userns_mode,
    "uts": _NO_NAMESPACES,
    "volumes": rules.volumes,
    "volumes_from": _NO_FILES,
    "working_dir": rules.same("workdir"),
}

DEPLOY: dict[str, Rule] = {
    "endpoint_mode": _NO_SWARM,
    "labels": _NO_METADATA,
    "mode": rules.mode,
    "placement": _NO_SWARM,
    "replicas": rules.same("replicas"),
    "resources": resources.deployed,
    "restart_policy": rules.restart_policy,
    "rollback_config": "a reload is rolled back in the way in which it was done: see update",
    "update_config": rules.update_config,
}
