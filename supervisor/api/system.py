"""What the other end is, and what it holds: ping, version, info, disk usage, metrics."""

import os
import platform
import socket
from collections import Counter
from datetime import UTC, datetime

from supervisor import __version__
from supervisor.api import changes
from supervisor.api.call import Call, now
from supervisor.api.http import Answer, Answering, shown
from supervisor.api.images import architecture
from supervisor.api.images import summary as image_summary
from supervisor.api.routing import API_VERSION, OLDEST_API_VERSION
from supervisor.api.shapes import Shape, is_running, state_of, summary
from supervisor.api.stats import machine_memory_bytes


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
    details = {name: shape[name] for name in ("ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion")}
    component = {"Name": "Engine", "Version": __version__, "Details": details}
    return shown({"Platform": {"Name": "pysup"}, "Components": [component], **shape})


async def info(call: Call) -> Answering:
    """`docker info`."""
    views = call.commands.views()
    count = Counter(map(state_of, views))
    images = await call.api.aside(call.api.images.all)
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
            "CgroupDriver": "none",
            "DefaultRuntime": "pysup",
            "Runtimes": {"pysup": {"path": "pysup"}},
            "Plugins": {"Volume": [], "Network": ["host", "none"], "Authorization": None, "Log": ["json-file"]},
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
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Warnings": None,
        }
    )


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
    """`docker system df`. There are no volumes and no build cache."""
    wanted = set(call.request.query.get("type", ())) or {"container", "image"}
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
            "Volumes": [],
            "BuildCache": [],
            "BuilderSize": 0,
        }
    )
