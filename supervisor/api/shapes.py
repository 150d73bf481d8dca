"""A container in Docker's JSON: as `docker ps` and `docker inspect` want it. Pure.

What pysup has no notion of has the value that Docker gives to a container without it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from signal import Signals
from typing import Any

from runtime.capabilities import CAPABILITIES
from runtime.config import ContainerConfig
from runtime.idmap import AUTO
from runtime.rootfs import MASKED, READ_ONLY
from runtime.security import DEFAULT_CAPABILITIES
from supervisor.api import files, networks, resources
from supervisor.commands import View
from supervisor.core.checks import Exec, Health, Probe
from supervisor.core.policy import RestartPolicy
from supervisor.core.states import LIVE, HealthStatus, Phase
from supervisor.logs.foreign import docker_of
from supervisor.streams.lines import rfc3339

Shape = dict[str, Any]

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
PROJECT, SERVICE, NUMBER = (f"com.docker.compose.{name}" for name in ("project", "service", "container-number"))
_BRIEF_MAX = 60  # characters of a command in a list

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def state_of(view: View) -> str:
    """Docker's word for what it does."""
    if view.phase is Phase.STUCK:
        return "dead"
    if view.phase in LIVE:
        return "paused" if view.paused else "running"
    if view.phase in {Phase.EXITED, Phase.FAILED}:
        return "exited" if _has_been(view) else "created"
    return "restarting" if view.started_at is not None else "created"  # it waits to start


def is_running(view: View) -> bool:
    """As Docker counts it: paused is running too."""
    return state_of(view) in {"running", "paused"}


def _has_been(view: View) -> bool:
    return view.exit_status is not None or view.failure is not None or view.started_at is not None


def exit_code_of(view: View) -> int:
    """0 of one that runs, or that never ran."""
    return 0 if view.exit_status is None or is_running(view) else view.exit_status


def labels_of(stack: str, view: View) -> Mapping[str, str]:
    """Its own; and those by which tools know a Compose project, of what the spec has."""
    if not view.managed:
        return view.labels
    number = view.id.removeprefix(view.group).lstrip(".") or "1"
    return {PROJECT: stack, SERVICE: view.group, NUMBER: number, **view.labels}


def image_id(lowers: Sequence[str]) -> str:
    """An image is a place: that is what makes two names one image."""
    return "sha256:" + hashlib.sha256(":".join(lowers).encode(errors="surrogateescape")).hexdigest()


# --- times -----------------------------------------------------------------------------------------------------------


def moment(at: float | None) -> str:
    """RFC 3339, as Go writes it."""
    return NEVER if at is None else rfc3339(at)


def human(seconds: float) -> str:
    """A duration in words, as Docker's (go-units)."""
    whole = int(max(0, seconds))
    hours = int(whole / _HOUR_S + 0.5)
    days = hours // 24
    steps = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < _MINUTE_S, f"{whole} seconds"),
        (whole < 2 * _MINUTE_S, "About a minute"),
        (whole < _HOUR_S, f"{whole // _MINUTE_S} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 14, f"{days} days"),
        (hours < 24 * 60, f"{days // 7} weeks"),
        (hours < 24 * 365 * 2, f"{days // 30} months"),
    )
    return next((words for fits, words in steps if fits), f"{days // 365} years")


def status_of(view: View, now: float) -> str:
    """The column STATUS of `docker ps`."""
    state, since = state_of(view), now - (view.started_at or now)
    ago = human(now - (view.finished_at or now))
    out_of_memory = " (out of memory)" if view.oom else ""
    match state:
        case "running":
            return f"Up {human(since)}{_health_in_brackets(view.health)}{out_of_memory}"
        case "paused":
            return f"Up {human(since)} (Paused)"
        case "restarting":
            return f"Restarting ({exit_code_of(view)}) {ago} ago{out_of_memory}"
        case "exited":
            return f"Exited ({exit_code_of(view)}) {ago} ago{out_of_memory}"
    return state.capitalize()


def _health_in_brackets(health: HealthStatus | None) -> str:
    if health is None:
        return ""
    return " (health: starting)" if health is HealthStatus.STARTING else f" ({health})"


# --- a list's line ---------------------------------------------------------------------------------------------------


def summary(stack: str, view: View, now: float, size: tuple[int, int] | None = None) -> Shape:
    """An element of `GET /containers/json`. `size`: what it wrote, and that with its image."""
    command = " ".join(view.config.argv)
    sizes = {} if size is None else {"SizeRw": size[0], "SizeRootFs": size[1]}
    return {
        "Id": view.key,
        "Names": [f"/{view.id}"],
        "Image": view.image,
        "ImageID": image_id(view.config.lowers),
        "Command": command if len(command) <= _BRIEF_MAX else command[: _BRIEF_MAX - 1] + "…",
        "Created": int(view.created_at),
        "Ports": networks.listed(view),
        **sizes,
        "Labels": dict(labels_of(stack, view)),
        "State": state_of(view),
        "Status": status_of(view, now),
        "HostConfig": {"NetworkMode": networks.mode(view)},
        "NetworkSettings": {"Networks": networks.endpoints(stack, view)},
        "Mounts": files.shown_mounts(view.config),
    }


# --- all of it -------------------------------------------------------------------------------------------------------


def inspection(stack: str, view: View, size: tuple[int, int] | None = None, executions: Sequence[str] = ()) -> Shape:
    """`GET /containers/{id}/json`."""
    sizes = {} if size is None else {"SizeRw": size[0], "SizeRootFs": size[1]}
    return {
        "Id": view.key,
        "Created": moment(view.created_at),
        "Path": view.config.argv[0] if view.config.argv else "",
        "Args": list(view.config.argv[1:]),
        "State": _state(view),
        "Image": image_id(view.config.lowers),
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "LogLinesDropped": view.lines_dropped,  # Docker has no word for it
        "Name": f"/{view.id}",
        "RestartCount": view.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(executions) or None,
        "HostConfig": _host_config(view),
        "GraphDriver": {"Name": "overlay", "Data": _graph(view.config)},
        **sizes,
        "Mounts": files.shown_mounts(view.config),
        "Config": _config(stack, view),
        "NetworkSettings": networks.settings(stack, view),
    }


def _state(view: View) -> Shape:
    state = state_of(view)
    shape = {
        "Status": state,
        "Running": is_running(view),
        "Paused": state == "paused",
        "Restarting": state == "restarting",
        "OOMKilled": view.oom,
        "Dead": state == "dead",
        "Pid": view.pid or 0,
        "ExitCode": exit_code_of(view),
        "Error": view.failure or "",
        "StartedAt": moment(view.started_at),
        "FinishedAt": moment(view.finished_at),
    }
    return shape if view.policy.health is None else {**shape, "Health": _health(view)}


def _health(view: View) -> Shape:
    """With the last check's finding; when it was made is not known."""
    log = [{"Start": NEVER, "End": NEVER, "ExitCode": int(view.failing > 0), "Output": view.finding}]
    return {
        "Status": view.health or HealthStatus.STARTING,
        "FailingStreak": view.failing,
        "Log": log if view.finding else [],
    }


def _host_config(view: View) -> Shape:
    config, policy = view.config, view.policy
    on_failure = policy.restart is RestartPolicy.ON_FAILURE
    return {
        **_UNUSED,
        **_privileges(config),
        "NetworkMode": networks.mode(view),
        "AutoRemove": view.auto_remove,
        "RestartPolicy": {
            "Name": policy.restart,
            "MaximumRetryCount": (policy.max_retries or 0) if on_failure else 0,
        },
        "Privileged": config.privileged,
        "SecurityOpt": _security(config),
        "UsernsMode": "" if config.userns is None else "auto" if config.userns == AUTO else "private",
        **_mapped(view),
        "Init": config.init,
        "Ulimits": [{"Name": _rlimit(number), "Soft": soft, "Hard": hard} for number, soft, hard in config.rlimits],
        **files.shown_host_config(config),
        "PortBindings": networks.bindings(view),
        "LogConfig": dict(zip(("Type", "Config"), docker_of(view.logs), strict=True)),
        "PidMode": "",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        **resources.shape(config.limits),
        "Runtime": "pysup",
    }


_UNUSED: Shape = {  # what Docker has and pysup has not, as it is with Docker where nobody has asked for it
    "ContainerIDFile": "",
    "VolumeDriver": "",
    "VolumesFrom": None,
    "GroupAdd": None,
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PublishAllPorts": False,
    "UTSMode": "",
    "ConsoleSize": [0, 0],
    "Isolation": "",
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": None,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetMems": "",
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwappiness": None,
    "OomKillDisable": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}


def _privileges(config: ContainerConfig) -> Shape:
    """Capabilities beside the usual ones, and what of /proc and /sys is out of reach."""
    if config.privileged:
        return {"CapAdd": None, "CapDrop": None, "MaskedPaths": None, "ReadonlyPaths": None}
    has = {name for number, name in enumerate(CAPABILITIES) if config.capabilities >> number & 1}
    return {
        "CapAdd": sorted(has - {*DEFAULT_CAPABILITIES}) or None,
        "CapDrop": sorted({*DEFAULT_CAPABILITIES} - has) or None,
        "MaskedPaths": list(MASKED),
        "ReadonlyPaths": list(READ_ONLY),
    }


def _mapped(view: View) -> Shape:
    """Who is who, as Podman tells it: inside:outside:count. Of one that has not run yet, what was asked for."""
    ids = view.ids or view.config.userns
    if not ids or ids == AUTO:
        return {}
    return {"IDMappings": {"UidMap": list(map(str, ids.uid)), "GidMap": list(map(str, ids.gid))}}


def _security(config: ContainerConfig) -> list[str] | None:
    """What is not as usual."""
    name = "unconfined" if config.seccomp is None else config.seccomp.name
    usual = "unconfined" if config.privileged else "default"
    return None if name == usual else [f"seccomp={name}"]


def _rlimit(number: int) -> str:
    """By setrlimit(2)'s number."""
    return _RLIMITS[number] if 0 <= number < len(_RLIMITS) else str(number)


_RLIMITS = (
    "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime"
).split()  # <asm-generic/resource.h>


def _graph(config: ContainerConfig) -> Shape:
    if config.memory_bytes is not None:
        return {"LowerDir": ":".join(config.lowers)}
    return {
        "LowerDir": ":".join(config.lowers),
        "UpperDir": f"{config.directory}/upper",
        "WorkDir": f"{config.directory}/work",
        "MergedDir": f"{config.directory}/merged",
    }


def _config(stack: str, view: View) -> Shape:
    config = view.config
    shape = {
        "Hostname": config.hostname,
        "Domainname": "",
        "User": "" if config.user.uid == 0 and config.user.gid == 0 else f"{config.user.uid}:{config.user.gid}",
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": view.tty,
        "OpenStdin": view.open_stdin,
        "StdinOnce": False,
        "Env": [f"{name}={value}" for name, value in config.env],
        "Cmd": list(config.argv),
        "Image": view.image,
        "Volumes": None,
        "WorkingDir": config.workdir,
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": dict(labels_of(stack, view)),
        "StopSignal": _signal(view.policy.stop_signal),
        "StopTimeout": int(view.policy.stop_grace_s),
    }
    return shape if view.policy.health is None else {**shape, "Healthcheck": _check(view.policy.health)}


def _signal(number: int) -> str:
    """A real-time signal has no name."""
    return next((each.name for each in Signals if each == number), str(number))


def _check(health: Health) -> Shape:
    """Docker's times are in nanoseconds."""
    return {
        "Test": _test(health.probe),
        "Interval": int(health.interval_s * 1e9),
        "Timeout": int(health.timeout_s * 1e9),
        "StartPeriod": int(health.start_period_s * 1e9),
        "StartInterval": int(health.start_interval_s * 1e9),
        "Retries": health.retries,
    }


def _test(probe: Probe) -> list[str]:
    """Docker knows commands only."""
    if isinstance(probe, Exec):
        return ["CMD", *probe.argv]
    return ["PYSUP", type(probe).__name__.lower(), *map(str, astuple(probe))]
