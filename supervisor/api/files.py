"""Docker's words for mounts, devices and names: `docker create` to keys of a spec, and back for `inspect`."""

import os
import secrets
import stat
from collections.abc import Iterable, Mapping

from runtime.config import SHM_BYTES, ContainerConfig
from runtime.linux import MOUNT_ATTR_RDONLY
from runtime.mounts import NAMELESS_BYTES, Bind, MemoryFile, Mount, Tmpfs
from supervisor.api.errors import bad, not_offered
from supervisor.api.fields import Fields

Shape = dict[str, object]
_PERMISSIONS = "rwm"
_SETUID = 1 << 23  # of Go's os.FileMode: io/fs/fs.go
_SETGID = 1 << 22
_STICKY = 1 << 20


# --- create -----------------------------------------------------------------------------------------------------------


def keys(fields: Fields, host: Fields) -> Mapping[str, object]:
    """Those of a spec's container; empty ones ask for nothing."""
    nameless = [f"{_nameless()}:{path}" for path in fields.below("Volumes").values if not _is_mounted(path, host)]
    return {
        "volumes": [*map(_bind, host.texts("Binds")), *map(_mount, host.each("Mounts")), *nameless],
        "tmpfs": [f"{path}:{options}" for path, options in host.pairs("Tmpfs").items()],
        "read_only": host.truth("ReadonlyRootfs"),
        "shm_size": host.number("ShmSize"),
        "sysctls": host.pairs("Sysctls"),
        "extra_hosts": list(host.texts("ExtraHosts")),
        "dns": list(host.texts("Dns")),
        "dns_search": list(host.texts("DnsSearch")),
        "dns_opt": list(host.texts("DnsOptions")),
        "devices": [_device(each) for each in host.each("Devices")],
    }


def _nameless() -> str:
    """As Docker calls them. A spec's are called after their container, which has them again; these go with theirs."""
    return secrets.token_hex(NAMELESS_BYTES)


def _is_mounted(path: str, host: Fields) -> bool:
    """`docker run -v a:/b` says both."""
    targets = [bind.split(":")[":" in bind] for bind in host.texts("Binds")]
    return path in (*targets, *(each.text("Target") for each in host.each("Mounts")))


def _bind(text: str) -> str:
    source = text.partition(":")[0]
    if source.startswith((".", "~")):
        raise bad(f"invalid volume specification: '{text[:100]}': a path must be absolute")
    return text if ":" in text else f"{_nameless()}:{text}"


def _mount(mount: Fields) -> Shape:
    """In the long form."""
    kind = mount.text("Type")
    if kind not in ("bind", "volume", "tmpfs"):
        raise not_offered(f"a mount of the type {kind[:20]!r}", "there are bind, volume and tmpfs")
    made: Shape = {"type": kind, "target": mount.text("Target"), "read_only": mount.truth("ReadOnly")}
    if source := mount.text("Source"):
        made["source"] = source
    if kind == "bind":
        if not source.startswith("/"):
            raise bad(f"invalid mount config for type \"bind\": invalid mount path: '{source[:100]}' must be absolute")
        options = mount.below("BindOptions")
        made["bind"] = {
            "propagation": options.text("Propagation") or "private",
            "create_host_path": options.truth("CreateMountpoint"),
            "recursive": not options.truth("NonRecursive"),
        }
    elif kind == "volume":
        made["source"] = source or _nameless()
        options = mount.below("VolumeOptions")
        if (driver := options.below("DriverConfig").text("Name")) not in ("", "local"):
            raise not_offered(f"the volume driver {driver[:40]!r}", "a volume is a directory of this machine")
        made["volume"] = {"nocopy": options.truth("NoCopy"), "subpath": options.text("Subpath")}
    else:
        made["tmpfs"] = dict(_of_memory(mount.below("TmpfsOptions")))
    return made


def _of_memory(options: Fields) -> Iterable[tuple[str, object]]:
    if size := options.number("SizeBytes"):
        yield "size", size
    if mode := options.number("Mode"):
        yield "mode", _unix(mode)


def _unix(mode: int) -> int:
    """From Go's os.FileMode, which has its own bits above the permissions."""
    special = ((_SETUID, stat.S_ISUID), (_SETGID, stat.S_ISGID), (_STICKY, stat.S_ISVTX))
    return mode & 0o7777 | sum(bit for go, bit in special if mode & go)


def _device(device: Fields) -> str:
    source = device.text("PathOnHost")
    permissions = device.text("CgroupPermissions") or _PERMISSIONS
    return f"{source}:{device.text('PathInContainer') or source}:{permissions}"


# --- inspect ----------------------------------------------------------------------------------------------------------


def shown_mounts(config: ContainerConfig) -> list[Shape]:
    """Secrets and configs are left out, as Docker does."""
    return [_shown(mount) for mount in config.mounts if not isinstance(mount, MemoryFile)]


def _shown(mount: Mount) -> Shape:
    assert not isinstance(mount, MemoryFile)
    writable = not mount.attributes & MOUNT_ATTR_RDONLY
    common = {"Destination": mount.target, "Mode": "" if writable else "ro", "RW": writable}
    match mount:
        case Tmpfs():
            return {"Type": "tmpfs", "Source": "", **common, "Propagation": ""}
        case Bind(volume=""):
            return {"Type": "bind", "Source": mount.source, **common, "Propagation": _propagation(mount)}
    return {
        "Type": "volume",
        "Name": mount.volume,
        "Source": mount.source,
        "Driver": "local",
        **common,
        "Propagation": "",
    }


def _propagation(bind: Bind) -> str:
    return f"{'r' if bind.recursive else ''}{bind.propagation.value}"


def shown_host_config(config: ContainerConfig) -> Shape:
    """Of a HostConfig, what was said of files and names."""
    binds = [mount for mount in config.mounts if isinstance(mount, Bind)]
    memory = [mount for mount in config.mounts if isinstance(mount, Tmpfs)]
    return {
        "Binds": [_as_bind(bind) for bind in binds] or None,
        "Tmpfs": {each.target: _as_options(each) for each in memory} or None,
        "ReadonlyRootfs": config.read_only,
        "ShmSize": config.shm_bytes or SHM_BYTES,
        "Sysctls": dict(config.sysctls) or None,
        "ExtraHosts": [f"{name}:{address}" for name, address in config.hosts] or None,
        "Dns": list(config.dns.servers),
        "DnsSearch": list(config.dns.search),
        "DnsOptions": list(config.dns.options),
        "Devices": [
            {"PathOnHost": each.source, "PathInContainer": each.target, "CgroupPermissions": each.permissions}
            for each in config.devices
        ]
        or None,
    }


def _as_bind(bind: Bind) -> str:
    mode = ":ro" if bind.attributes & MOUNT_ATTR_RDONLY else ""
    source = os.path.join(bind.source, bind.below) if bind.below else bind.source  # noqa: PTH118 (text for a caller)
    return f"{bind.volume or source}:{bind.target}{mode}"


def _as_options(tmpfs: Tmpfs) -> str:
    size = [] if tmpfs.size_bytes is None else [f"size={tmpfs.size_bytes}"]
    return ",".join(["ro" if tmpfs.attributes & MOUNT_ATTR_RDONLY else "rw", *size, f"mode={tmpfs.mode:o}"])
