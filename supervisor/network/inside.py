"""What a container reads of its networks: its address, its resolv.conf, and the hosts that it was given names of."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from runtime.config import HOST_GATEWAY, ContainerConfig
from supervisor.network import pool
from supervisor.network.ends import End
from supervisor.network.space import Space


def completed(config: ContainerConfig, space: Space, host_search: tuple[str, ...]) -> ContainerConfig:
    """With what of it depends on where it is."""
    if not space.ends:
        return config
    first = space.ends[0]
    return replace(
        config,
        address=pool.bare(first.addresses[0]),
        resolv_conf=_resolv_conf(config, first, host_search),
        hosts=hosts(config, pool.bare(first.gateways[0])),
    )


def hosts(config: ContainerConfig, host: str) -> tuple[tuple[str, str], ...]:
    """With the host's address, where the word for it stands."""
    return tuple((name, host if address == HOST_GATEWAY else address) for name, address in config.hosts)


def _resolv_conf(config: ContainerConfig, end: End, host_search: tuple[str, ...]) -> bytes:
    """The gateway serves names; what else is searched for is as asked for, or as on the host."""
    lines = [f"nameserver {pool.bare(end.gateways[0])}"]
    search = config.dns.search or host_search
    lines += [f"search {' '.join(search)}"] if search else []
    lines.append(f"options {' '.join(config.dns.options or ('ndots:0',))}")
    return ("\n".join(lines) + "\n").encode()


def host_search() -> tuple[str, ...]:
    """The domains that the host looks names up in, resolv.conf(5)."""
    with suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if words and words[0] in ("search", "domain"):
                return tuple(words[1:])
    return ()
