"""What the other end is, and what it holds: ping, version, info, disk usage, metrics."""

import os
import platform
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from runtime.cgroup.hierarchies import Hierarchies, discover
from supervisor import __version__
from supervisor.api import changes, volumes
from supervisor.api.call import Call, now
from supervisor.api.errors import bad, missing
from supervisor.api.http import Answer, Answering, shown
from supervisor.api.images import architecture
from supervisor.api.images import summary as image_summary
from supervisor.api.routing import API_VERSION, OLDEST_API_VERSION
from supervisor.api.shapes import Shape, is_running, state_of, summary
from supervisor.api.stats import machine_memory_bytes
from supervisor.commands import View
from supervisor.logs.foreign import DRIVERS

_DETAILS = "ApiVersion Arch BuildTime GitCommit GoVersion KernelVersion MinAPIVersion Os".split()
DISK_USERS = frozenset({"container", "image", "volume"})
CONTROLS = {  # what `docker info` tells of limits: the controller that holds it
    "MemoryLimit": "memory",
    "SwapLimit": "memory",
    "CpuCfsPeriod": "cpu",
    "CpuCfsQuota": "cpu",
    "CPUShares": "cpu",
    "CPUSet": "cpuset",
    "PidsLimit": "pids",
}
WARNINGS = {
    "memory": "WARNING: No memory limit support",
    "cpu": "WARNING: No cpu quota support",
    "cpuset": "WARNING: No cpuset support",
    "pids": "WARNING: No pids limit support",
}


async def ping(_call: Call) -> Answering:
    """What it speaks is in the headers that all answers have."""
    return Answer(b"OK", content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-cache, no-store"})


async def version(_call: Call) -> Answering:
    """`docker version`."""
    shape = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": OLDEST_API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": platform.release(),
        "BuildTime": "",
    }
    details = {name: shape[name] for name in _DETAILS} | {"Experimental": "false"}
    component = {"Name": "Engine", "Version": __version__, "Details": details}
    return shown({"Platform": {"Name": "pysup"}, "Components": [component], **shape})


async def info(call: Call) -> Answering:
    """`docker info`."""
    views = call.commands.views()
    count = Counter(map(state_of, views))
    images = await call.api.aside(call.api.images.all)
    cgroups, forwards = await call.api.aside(discover), await call.api.aside(_forwards)
    there = {name for name in WARNINGS if cgroups.of(name) is not None}
    nothing: Shape = {"ID": "N/A", "Expected": "N/A"}
    return shown(
        {
            "ID": f"pysup:{call.commands.name}",
            "Name": socket.gethostname(),
            "Containers": len(views),
            "ContainersRunning": sum(map(is_running, views)) - count["paused"],
            "ContainersPaused": count["paused"],
            "ContainersStopped": len(views) - sum(map(is_running, views)),
            "Images": len(images),
            "Driver": "overlay",
            "DriverStatus": [["Stack", call.commands.name]],
            "ServerVersion": __version__,
            "OperatingSystem": _system(),
            "OSType": "linux",
            "OSVersion": "",
            "Architecture": platform.machine(),
            "KernelVersion": platform.release(),
            "NCPU": os.cpu_count(),
            "MemTotal": machine_memory_bytes(),
            "SystemTime": datetime.fromtimestamp(now(), UTC).isoformat().replace("+00:00", "Z"),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs" if cgroups.processes else "none",
            "CgroupVersion": _version_of(cgroups),
            **{name: controller in there for name, controller in CONTROLS.items()},
            "OomKillDisable": False,
            "IPv4Forwarding": forwards,
            "BridgeNfIptables": True,  # nobody is to be warned: our networks do without
            "BridgeNfIp6tables": True,
            "Debug": False,
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "GenericResources": None,
            "Isolation": "",
            "DefaultRuntime": "pysup",
            "Runtimes": {"pysup": {"path": "pysup"}},
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": sorted(filter(None, DRIVERS)),
            },
            "Swarm": {"LocalNodeState": "inactive", "NodeID": "", "NodeAddr": "", "ControlAvailable": False},
            "RegistryConfig": {"InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": []},
            "IndexServerAddress": "",
            "DockerRootDir": "",
            "Labels": [],
            "ExperimentalBuild": False,
            "LiveRestoreEnabled": False,
            "InitBinary": "",
            "ContainerdCommit": nothing,
            "RuncCommit": nothing,
            "InitCommit": nothing,
            "SecurityOptions": _security(views),
            "Warnings": [WARNINGS[name] for name in WARNINGS if name not in there] or None,
        }
    )


def _version_of(cgroups: Hierarchies) -> str:
    """That of the limits, where a host has both."""
    found = cgroups.of("memory") or cgroups.of("pids") or cgroups.processes
    return str(2 if found is None else found.version)


def _forwards() -> bool:
    with suppress(OSError):
        return Path("/proc/sys/net/ipv4/ip_forward").read_bytes().strip() == b"1"
    return False


def _security(views: Sequence[View]) -> list[str]:
    """What holds of every container, unless it is said otherwise; user namespaces are each container's own choice."""
    mapped = bool(views) and all(view.config.userns is not None for view in views)
    return ["name=seccomp,profile=builtin", *(["name=userns"] if mapped else []), "name=cgroupns"]


async def plugins(_call: Call) -> Answering:
    """`docker plugin ls`: there are none."""
    return shown([])


async def plugin(call: Call) -> Answering:
    """`docker plugin inspect`, and the last place where `docker inspect` looks for a name."""
    raise missing(f'plugin "{call.parts["name"][:100]}" not found')


async def metrics(call: Call) -> Answering:
    """Figures for Prometheus."""
    page = await call.commands.scrape()
    return Answer(page.body, content_type=page.content_type)


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "Linux"


async def disk_usage(call: Call) -> Answering:
    """`docker system df`. There is no build cache."""
    wanted = set(call.request.query.get("type", ())) or DISK_USERS
    if unknown := sorted(wanted - DISK_USERS - {"build-cache"}):
        raise bad(f"unknown object type: {unknown[0][:100]}")
    images = await call.api.aside(call.api.images.all) if "image" in wanted else ()
    containers = []
    sizes = {name: known.info.size_bytes for known in images for name in known.names}
    for view in call.commands.views() if "container" in wanted else ():
        written = await call.api.aside(changes.size_bytes, call.commands.upper(view.id))
        whole = written + sizes.get(view.image, 0)
        containers.append(summary(call.commands.name, view, now(), (written, whole)))
    users = Counter(each["ImageID"] for each in containers)
    return shown(
        {
            "LayersSize": sum(known.info.size_bytes for known in images),
            "Images": [{**image_summary(known), "SharedSize": 0, "Containers": users[known.id]} for known in images],
            "Containers": containers,
            "Volumes": await volumes.usage(call) if "volume" in wanted else [],
            "BuildCache": [],
            "BuilderSize": 0,
        }
    )
