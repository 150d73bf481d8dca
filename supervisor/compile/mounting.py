"""What a spec says of volumes, secrets, devices and names, to what one container is given (runtime/mounts.py).

Here a path of the host's is followed to its end, for the last time: what a container finds there is what was there when
the spec was read, or nothing at all. A container that may write to a directory which another one's source lies in could
put a symbolic link on the way beforehand: one that leads out of it is a fault.

    STATE/stacks/NAME/volumes/VOLUME    a volume of the stack; @ID-… of a container that gives it no name
    STATE/volumes/NAME                  one with a `name` of its own: the machine's, for all stacks that name it
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.config import HOST_GATEWAY, Network
from runtime.linux import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from runtime.mounts import NO_DNS, Bind, Dns, MemoryFile, Mount, Tmpfs
from runtime.users import User
from supervisor.spec import Container, Fault, Spec, later
from supervisor.spec.mounts import Grant, Kind, NamedVolume, Source, Volume
from supervisor.spec.naming import OF_NETWORK
from supervisor.state.home import Home

LOOPBACK = "127.0.0.1"
CONTENTS_MAX_BYTES = 1 << 20  # of a secret or config
ALL_CONTENTS_MAX_BYTES = 16 << 20  # of all that one container sees: they are in its /dev, which has room for 64 MiB
SHARES_MAX = 10_000  # binds that are compared with one another


@dataclass(frozen=True, slots=True)
class Store:
    """What a stack's containers are given from: its volumes, and the contents of its secrets and configs."""

    home: Home
    volumes: Mapping[str, NamedVolume] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    configs: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    shared: bool = False  # all volumes are the machine's

    def place(self, name: str) -> Path:
        """Where a named volume is."""
        volume = self.volumes.get(name, NamedVolume(external=self.shared))
        if volume.name or volume.external:
            return machine_volumes(self.home) / (volume.name or name)
        return self.home.volumes / name


def machine_volumes(home: Home) -> Path:
    """Of all stacks with the same state directory."""
    return home.path.parent.parent / "volumes"


def store(spec: Spec, home: Home) -> tuple[Store, list[Fault]]:
    """Of a spec; with what is wrong with the files it names, and with what its containers want."""
    wrong: list[Fault] = []
    secrets, configs = (_contents(spec, key, wrong) for key in ("secrets", "configs"))
    made = Store(home, spec.volumes, secrets, configs)
    wrong += [*_unknown(spec), *_missing(spec, made), *_too_much(spec, made), *_leading_out(spec)]
    return made, wrong


# --- one container ----------------------------------------------------------------------------------------------------


def mounts(container: Container, identity: str, replica: int, user: User, store: Store) -> tuple[Mount, ...]:
    """In the order of their depth, so that whatever is mounted in another comes after it."""
    made: list[Mount] = [_volume(each, identity, replica, store) for each in (*container.volumes, *container.tmpfs)]
    for grants, contents in ((container.secrets, store.secrets), (container.configs, store.configs)):
        made += [_file(grant, contents[grant.source], user) for grant in grants]
    return tuple(sorted(made, key=lambda mount: mount.target.count("/")))


def _volume(volume: Volume, identity: str, replica: int, store: Store) -> Bind | Tmpfs:
    target = later.filled(volume.target, identity, replica)
    attributes = _attributes(volume)
    if volume.type is Kind.TMPFS:
        size = volume.size
        return Tmpfs(
            target=target, size_bytes=size, mode=volume.mode, uid=volume.uid, gid=volume.gid, attributes=attributes
        )
    if volume.type is Kind.BIND:
        return Bind(
            source=os.path.realpath(later.filled(volume.source, identity, replica)),
            target=target,
            attributes=attributes,
            propagation=volume.propagation,
            recursive=volume.recursive,
            create=volume.create_host_path,
        )
    name = later.filled(volume.source, identity, replica) or _nameless(identity, target)
    return Bind(
        source=os.path.realpath(store.place(name)),
        target=target,
        attributes=attributes,
        below=later.filled(volume.subpath, identity, replica),
        create=not store.volumes.get(name, NamedVolume()).external,
        seed=not volume.nocopy,
        volume=name,
    )


def _nameless(identity: str, target: str) -> str:
    return f"@{identity}-{hashlib.sha256(target.encode()).hexdigest()[:12]}"


def _attributes(volume: Volume) -> int:
    wanted = (
        (volume.read_only, MOUNT_ATTR_RDONLY),
        (not volume.suid, MOUNT_ATTR_NOSUID),
        (not volume.dev, MOUNT_ATTR_NODEV),
        (not volume.exec, MOUNT_ATTR_NOEXEC),
    )
    return sum(attribute for is_set, attribute in wanted if is_set)


def _file(grant: Grant, contents: bytes, user: User) -> MemoryFile:
    uid = user.uid if grant.uid is None else grant.uid
    gid = user.gid if grant.gid is None else grant.gid
    return MemoryFile(target=grant.target, contents=contents, mode=grant.mode, uid=uid, gid=gid)


def hosts(container: Container, network: Network) -> tuple[tuple[str, str], ...]:
    """What is added to its /etc/hosts. In a network of the stack, what the host's address is comes out at its start."""
    gateway = LOOPBACK if network is Network.HOST else HOST_GATEWAY
    return tuple((name, gateway if at == HOST_GATEWAY else at) for name, at in container.extra_hosts)


def dns(container: Container) -> Dns:
    """What was asked for."""
    made = Dns(container.dns, container.dns_search, container.dns_opt)
    return NO_DNS if made == NO_DNS else made


def resolver(asked: Dns, base: bytes | None) -> bytes | None:
    """resolv.conf(5): as the network has it, `base`, but for what was asked for."""
    if asked == NO_DNS:
        return base
    given = {b"nameserver": asked.servers, b"search": asked.search, b"options": asked.options}
    replaced = {word for word, values in given.items() if values} | ({b"domain"} if asked.search else set())
    kept = [line for line in (base or b"").splitlines() if (line.split(maxsplit=1) or [b""])[0] not in replaced]
    lines = [*kept, *(b"nameserver " + server.encode() for server in asked.servers)]
    if asked.search and asked.search != (".",):
        lines.append(b"search " + " ".join(asked.search).encode())
    if asked.options:
        lines.append(b"options " + " ".join(asked.options).encode())
    return b"".join(line + b"\n" for line in lines)


# --- what can't be ----------------------------------------------------------------------------------------------------


def _contents(spec: Spec, key: str, wrong: list[Fault]) -> dict[str, bytes]:
    """Of all that a container uses."""
    used = {grant.source for container in spec.containers for grant in getattr(container, key)}
    found = {}
    for name, source in getattr(spec, key).items():
        if name in used:
            try:
                found[name] = _read(source)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                wrong.append(spec.fault(f'{key}["{name}"]', f"{_called(source)} can't be had: {reason.lower()}"))
    return found


def _called(source: Source) -> str:
    """What it is read from, not what it is."""
    return source.file or (f"the variable {source.environment}" if source.environment else "its content")


def _read(source: Source) -> bytes:
    if source.file is not None:
        with open(source.file, "rb") as file:  # noqa: PTH123 (a path may hold a NUL, which pathlib lets through as late)
            contents = file.read(CONTENTS_MAX_BYTES + 1)
    elif source.environment is not None:
        if source.environment not in os.environ:
            raise ValueError("pysup's own environment has none of this name")
        contents = os.environb[os.fsencode(source.environment)]
    else:
        contents = (source.content or "").encode()
    if len(contents) > CONTENTS_MAX_BYTES:
        raise ValueError(f"it is longer than {CONTENTS_MAX_BYTES} bytes")
    return contents


def _unknown(spec: Spec) -> Iterator[Fault]:
    """Names of what the stack has not."""
    for index, container in enumerate(spec.containers):
        for place, volume in enumerate(container.volumes):
            name = volume.source
            if volume.type is Kind.VOLUME and name and not later.stands_in(name) and name not in spec.volumes:
                what = f"names the volume {name}, which is not under volumes: at the top; a path begins with ./ or /"
                yield spec.fault(f"containers[{index}].volumes[{place}]", what)
        for key in ("secrets", "configs"):
            for place, grant in enumerate(getattr(container, key)):
                if grant.source not in getattr(spec, key):
                    what = f"names {grant.source}, which is not under {key}: at the top"
                    yield spec.fault(f"containers[{index}].{key}[{place}]", what)


def _missing(spec: Spec, made: Store) -> Iterator[Fault]:
    for name, volume in spec.volumes.items():
        if volume.external and not made.place(name).is_dir():
            what = f"is external, and {made.place(name)} is not there: make it, or leave external out"
            yield spec.fault(f'volumes["{name}"]', what)


def _too_much(spec: Spec, made: Store) -> Iterator[Fault]:
    for index, container in enumerate(spec.containers):
        granted = ((container.secrets, made.secrets), (container.configs, made.configs))
        size = sum(len(contents.get(grant.source, b"")) for grants, contents in granted for grant in grants)
        if size > ALL_CONTENTS_MAX_BYTES:
            key = "secrets" if container.secrets else "configs"
            what = f"secrets and configs have {size} bytes together: at most {ALL_CONTENTS_MAX_BYTES}, use a volume"
            yield spec.fault(f"containers[{index}].{key}", what)


def _leading_out(spec: Spec) -> Iterator[Fault]:
    """Sources below a directory that a container may write to, but for a symbolic link that leads out of it."""
    binds = [
        (f"containers[{index}].volumes[{place}]", container.id, volume)
        for index, container in enumerate(spec.containers)
        for place, volume in enumerate(container.volumes)
        if volume.type is Kind.BIND and not later.stands_in(volume.source)
    ]
    writable = {os.path.normpath(volume.source): id_ for _, id_, volume in binds if not volume.read_only}
    for path, _, volume in binds[:SHARES_MAX]:
        source = os.path.normpath(volume.source)
        for above, id_ in writable.items():
            if _is_below(source, above) and not _is_below(os.path.realpath(source), os.path.realpath(above)):
                what = f"leads out of {above}, which {id_} may write to, by a symbolic link: name where it leads"
                yield spec.fault(path, what)


def _is_below(path: str, above: str) -> bool:
    return path.startswith(above.rstrip("/") + "/")


def misplaced(spec: Spec, networks: Mapping[str, Network]) -> Iterator[Fault]:
    """What the network of a container, by its id, does not allow."""
    for index, container in enumerate(spec.containers):
        network = networks.get(container.id)  # None: it has no replicas
        for name in container.sysctls:
            if network is Network.HOST and name.replace("/", ".").startswith(OF_NETWORK):
                what = "would be the host's own in network: host; give the container a network of its own, or none"
                yield spec.fault(f'containers[{index}].sysctls["{name}"]', what)
        if network is Network.NONE and any(at == HOST_GATEWAY for _, at in container.extra_hosts):
            what = f"has {HOST_GATEWAY}, and with network: none the host has no address in it"
            yield spec.fault(f"containers[{index}].extra_hosts", what)
