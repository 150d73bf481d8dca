"""Spec and host to what is run: for every container its configuration, its policy and what it depends on.

The last phase before anything starts: images are found, users looked up in them, environments put together. All faults
of all containers are gathered, each with its place in the file, before one error is raised.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from runtime import security, users
from runtime.build import RLIMITS
from runtime.config import DEFAULT_PATH, ContainerConfig, Network
from runtime.errors import PysupError, UserError
from runtime.images.lookup import Image, find
from supervisor.entry import Compiled, Entry
from supervisor.policy import Backoff, Condition, Policy, RestartPolicy
from supervisor.spec import Container, Fault, Spec, SpecError
from supervisor.state import Home

HOSTNAME_MAX = 64
RESOLV_CONF_MAX_BYTES = 64 << 10


class Images:
    """The images of a stack: each name is looked up once."""

    def __init__(self, path: tuple[Path, ...]) -> None:
        self._path = path
        self.find = cache(self._find)
        self.lookup = cache(self._lookup)

    def _find(self, name: str) -> Image:
        return find(name, self._path)

    def _lookup(self, name: str, user: str | None) -> users.User:
        return users.lookup(self.find(name).path, user)

    def check(self, name: str) -> str | None:
        """What is wrong with an image's name, or None."""
        try:
            self.find(name)
        except PysupError as error:
            return str(error)
        return None


def compile_stack(spec: Spec, found: Images, state: Path) -> Compiled:
    """The stack, in the spec's order. SpecError with all that can't be."""
    if faults := [*_unknown_users(spec, found), *_endless_waits(spec), *_nothing_to_keep(spec)]:
        raise SpecError(faults)
    home, resolv_conf = Home.of_stack(state, spec.name), _resolv_conf()
    entries = (
        Entry(
            id=each.id,
            group=each.container.id,
            config=compile_container(each.container, each.id, each.replica, found, home, resolv_conf),
            policy=policy(each.container),
            depends_on=each.container.depends_on,
        )
        for each in spec.instances()
    )
    return Compiled(spec.name, tuple(entries))


def _unknown_users(spec: Spec, found: Images) -> Iterator[Fault]:
    for index, container in enumerate(spec.containers):
        try:
            found.lookup(container.image, container.user)
        except UserError as error:
            yield spec.fault(f"containers[{index}].user", str(error))


def _endless_waits(spec: Spec) -> Iterator[Fault]:
    """Who waits for the completion of a container that is always restarted."""
    restarts = {container.id: container.restart.policy for container in spec.containers}
    for index, container in enumerate(spec.containers):
        for name, condition in container.depends_on.items():
            policy = restarts[name]
            if condition is Condition.COMPLETED and policy in (RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED):
                wrong = f"waits for the completion of {name}, which never completes: its restart is {policy}"
                yield spec.fault(f"containers[{index}].depends_on", wrong)


def _nothing_to_keep(spec: Spec) -> Iterator[Fault]:
    for index, container in enumerate(spec.containers):
        if container.keep and container.storage == "memory":
            wrong = "is true, but storage: memory goes with the run; use storage: disk"
            yield spec.fault(f"containers[{index}].keep", wrong)


def compile_single(container: Container, found: Images, home: Home, *, terminal: bool) -> ContainerConfig:
    """The configuration of the one container of `pysup run`."""
    config = compile_container(container, container.id, 1, found, home, _resolv_conf())
    user_terminal = os.environ.get("TERM") if terminal else None
    env = {**dict(config.env), **({"TERM": user_terminal} if user_terminal and "TERM" not in container.env else {})}
    return replace(config, terminal=terminal, env=tuple(env.items()))


def compile_container(
    container: Container, identity: str, replica: int, found: Images, home: Home, resolv_conf: bytes | None
) -> ContainerConfig:
    """The configuration of one container (OCI words) from its entry in a spec (Compose words)."""
    user = found.lookup(container.image, container.user)
    hostname = container.hostname or identity[:HOSTNAME_MAX]
    return ContainerConfig(
        id=identity,
        lowers=(str(found.find(container.image).path),),
        directory=home.of(identity, keep=container.keep),
        argv=container.cmd,
        env=_environment(container, user.home, hostname, replica),
        workdir=container.workdir or "/",
        user=user,
        hostname=hostname,
        memory_bytes=container.storage_size if container.storage == "memory" else None,
        keep=container.keep,
        network=Network(container.network),
        init=container.init,
        capabilities=security.capability_mask(container.cap_add, container.cap_drop, privileged=container.privileged),
        privileged=container.privileged,
        umask=container.umask,
        rlimits=_rlimits(container.rlimits),
        resolv_conf=resolv_conf if container.network == Network.HOST else None,
    )


def _environment(container: Container, home: str, hostname: str, replica: int) -> tuple[tuple[str, str], ...]:
    """Nothing of the host's; the container's own values win."""
    base = {"PATH": DEFAULT_PATH, "HOME": home, "HOSTNAME": hostname, "TERM": "xterm"}
    return tuple({**base, "PYSUP_REPLICA": str(replica), **container.env}.items())


def policy(container: Container) -> Policy:
    """What the machine is to know."""
    backoff = container.backoff
    return Policy(
        restart=RestartPolicy(container.restart.policy),
        max_retries=container.restart.max_retries,
        backoff=Backoff(
            initial_s=backoff.initial_s,
            max_s=backoff.max_s,
            factor=backoff.factor,
            jitter=backoff.jitter,
            reset_after_s=backoff.reset_after_s,
        ),
        stop_signal=container.stop_signal,
        stop_grace_s=container.stop_grace_s,
    )


def _rlimits(limits: Mapping[str, tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((RLIMITS.index(name), soft, hard) for name, (soft, hard) in limits.items())


def _resolv_conf() -> bytes | None:
    """The host's, for containers in the host's network: else they could not resolve a name."""
    try:
        with Path("/etc/resolv.conf").open("rb") as file:
            return file.read(RESOLV_CONF_MAX_BYTES)
    except OSError:
        return None
