"""Spec and host to what is run: for every container its configuration, its policy and what it depends on.

The last phase before anything starts: images are found, users looked up in them, environments put together. All faults
of all containers are gathered, each with its place in the file, before one error is raised.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from runtime import security, users
from runtime.build import RLIMITS
from runtime.cgroup.branch import unmet
from runtime.cgroup.hierarchies import discover
from runtime.cgroup.limits import NO_LIMITS, Limits, path_of
from runtime.config import DEFAULT_PATH, ContainerConfig, Network
from runtime.errors import PysupError, SeccompError, UserError
from runtime.images.lookup import Image, find
from runtime.plan import NOTIFY_PATH
from runtime.seccomp.filter import Filter
from runtime.seccomp.load import load_profile, parse_profile
from supervisor.compile import mounting, topology
from supervisor.compile.mounting import Store
from supervisor.compile.topology import Placement
from supervisor.core.checks import Exec, File, Health, Notify, Probe, Ready
from supervisor.core.policy import Backoff, Condition, Policy, RestartPolicy
from supervisor.entry import Compiled, Entry, Order, OutputForm
from supervisor.spec import Container, Fault, Instance, Spec, SpecError, instances, later
from supervisor.spec.terms import SECCOMP_DEFAULT, SECCOMP_WORDS, Enforce, Oom
from supervisor.state.home import Home

HOSTNAME_MAX = 64
RESOLV_CONF_MAX_BYTES = 64 << 10

CheckT = TypeVar("CheckT", Ready | None, Health | None)


class Images:
    """The images of a stack, and its seccomp profiles: each name is looked up once."""

    def __init__(self, path: tuple[Path, ...]) -> None:
        self._path = path
        self.find = cache(self._find)
        self.lookup = cache(self._lookup)
        self.filter = cache(self._filter)

    def _find(self, name: str) -> Image:
        return find(name, self._path)

    def _lookup(self, name: str, user: str | None) -> users.User:
        return users.lookup(self.find(name).path, user)

    def _filter(self, profile: str, capabilities: int) -> Filter | None:
        """One object for all containers that have the same: in memory, and on the way from who compiles them."""
        if profile.lstrip().startswith("{"):
            return parse_profile(profile, "seccomp", capabilities)
        return load_profile(profile, capabilities)

    def check(self, name: str) -> str | None:
        """What is wrong with an image's name, or None."""
        try:
            self.find(name)
        except PysupError as error:
            return str(error)
        return None


def named_files(spec: Spec) -> Iterator[str]:
    """The files, beside its own, of which the contents are part of what a spec says."""
    for source in (*spec.secrets.values(), *spec.configs.values()):
        if source.file is not None:
            yield source.file
    for container in spec.containers:
        profile = container.seccomp
        if profile not in SECCOMP_WORDS and not profile.lstrip().startswith("{"):
            yield profile


def compile_stack(spec: Spec, found: Images, state: Path) -> Compiled:
    """The stack, in the spec's order. SpecError with all that can't be."""
    looks = (_endless_waits, _nothing_to_keep, _long_names, _unenforceable)
    faults = [*_unknown_users(spec, found), *_faulty_profiles(spec, found)]
    faults += [each for look in looks for each in look(spec)]
    if faults:
        raise SpecError(faults)
    if faults := list(topology.faults(spec)):
        raise SpecError(faults)
    placed = _placements(spec)
    if faults := list(_two_at_once(spec, placed)):
        raise SpecError(faults)
    networks = {each.container.id: placed[each.id].network for each in spec.instances()}
    store, faults = mounting.store(spec, Home.of_stack(state, spec.name))
    if faults := [*faults, *mounting.misplaced(spec, networks)]:
        raise SpecError(faults)
    resolv_conf = _resolv_conf()
    shared = {each.id: policy(each) for each in spec.containers}  # one object for all replicas
    entries = (
        Entry(
            id=each.id,
            group=each.container.id,
            config=compile_container(each, found, store, resolv_conf, placed[each.id]),
            policy=_of_replica(shared[each.container.id], each.id, each.replica),
            depends_on=each.container.depends_on,
            output=_prefixed(each.container.output, each.id, each.replica),
            image=each.container.image,
            logs=each.container.logs,
            update=each.container.update,
        )
        for each in spec.instances()
    )
    return Compiled(spec.name, tuple(entries), spec.logs, topology.networks(spec))


def _placements(spec: Spec) -> dict[str, Placement]:
    """Where each container is, by its name."""
    networked = topology.has_networks(spec)
    shared = {each.id: topology.placement(each, networked=networked) for each in spec.containers}
    placed = {each.id: shared[each.container.id] for each in spec.instances()}
    for name in [one.shares for one in placed.values() if one.shares is not None]:
        placed[name] = topology.wider(name, placed)
    return placed


def compile_one(container: Container, found: Images, home: Home, *, networked: bool = False) -> Entry:
    """A container that is in no spec, for a stack that runs, and may have networks."""
    here = topology.placement(container, networked=networked)
    _check_alone(container, here)
    return Entry(
        id=container.id,
        group=container.id,
        config=compile_container(instances(container)[0], found, Store(home), _resolv_conf(), here),
        policy=policy(container),
        depends_on={},
        image=container.image,
        logs=container.logs,
    )


def _check_alone(container: Container, here: Placement) -> None:
    """SpecError if its network does not allow what it wants."""
    alone = Spec(name="alone", containers=(container.model_copy(update={"depends_on": {}, "network": None}),))
    faults = list(mounting.misplaced(alone, {container.id: here.network}))
    if faults:
        raise SpecError(f"{fault.path.partition('.')[2]}: {fault.message}" for fault in faults)


def _unknown_users(spec: Spec, found: Images) -> Iterator[Fault]:
    for index, container in enumerate(spec.containers):
        try:
            found.lookup(container.image, container.user)
        except UserError as error:
            yield spec.fault(f"containers[{index}].user", str(error))


def _faulty_profiles(spec: Spec, found: Images) -> Iterator[Fault]:
    for index, container in enumerate(spec.containers):
        try:
            _filter(container, _capabilities(container), found)
        except SeccompError as error:
            yield spec.fault(f"containers[{index}].seccomp", str(error))


def _capabilities(container: Container) -> int:
    return security.capability_mask(container.cap_add, container.cap_drop, privileged=container.privileged)


def _filter(container: Container, capabilities: int, found: Images) -> Filter | None:
    """A privileged container has one only if it is asked for."""
    if container.privileged and container.seccomp == SECCOMP_DEFAULT:
        return None
    return found.filter(container.seccomp, capabilities)


def _unenforceable(spec: Spec) -> Iterator[Fault]:
    """Limits that this host can't hold, as far as it tells before they are set."""
    limited = [(index, each) for index, each in enumerate(spec.containers) if _limits(each) != NO_LIMITS]
    host = discover() if limited else None
    for index, container in limited:
        limits = _limits(container)
        for key, why in unmet(host, limits).items() if host is not None and not limits.best_effort else ():
            yield spec.fault(f"containers[{index}].{path_of(key)}", f"{why}, or say enforce: best-effort")


def _limits(container: Container) -> Limits:
    if container.limits == NO_LIMITS and container.oom is Oom.PROCESS:
        return NO_LIMITS
    best_effort = container.enforce is Enforce.BEST_EFFORT
    return replace(container.limits, oom_kill_group=container.oom is Oom.GROUP, best_effort=best_effort)


def _endless_waits(spec: Spec) -> Iterator[Fault]:
    """Who waits for the completion of a container that is always restarted."""
    restarts = {container.id: container.restart.policy for container in spec.containers}
    for index, container in enumerate(spec.containers):
        for name, need in container.depends_on.items():
            policy = restarts[name]
            if need.condition is Condition.COMPLETED and policy in (RestartPolicy.ALWAYS, RestartPolicy.UNLESS_STOPPED):
                wrong = f"waits for the completion of {name}, which never completes: its restart is {policy}"
                yield spec.fault(f"containers[{index}].depends_on", wrong)


def _nothing_to_keep(spec: Spec) -> Iterator[Fault]:
    for index, container in enumerate(spec.containers):
        if container.keep and container.storage == "memory":
            wrong = "is true, but storage: memory goes with the run; use storage: disk"
            yield spec.fault(f"containers[{index}].keep", wrong)


def _two_at_once(spec: Spec, placed: Mapping[str, Placement]) -> Iterator[Fault]:
    """Whose next run can't be started beside the present one, although it is to be."""
    shared = {place.shares for place in placed.values()}
    for index, container in enumerate(spec.containers):
        if container.update.order is Order.START_FIRST:
            for each in instances(container)[:1]:
                if why := _alone(container, placed[each.id], is_shared=each.id in shared):
                    wrong = f"is start-first, but {why}; use stop-first"
                    yield spec.fault(f"containers[{index}].update.order", wrong)


def _alone(container: Container, place: Placement, *, is_shared: bool) -> str | None:
    """Why there can be but one run of it."""
    if container.keep:
        return "with keep: true what it wrote belongs to one run at a time"
    if is_shared:
        return "another container is in its network, which goes with its run"
    if any(each.ipv4 or each.ipv6 for each in place.attachments):
        return "the address that it asks for is that of one run at a time"
    return None


def _long_names(spec: Spec) -> Iterator[Fault]:
    """Host names of replicas: with their numbers and names they may be longer than the kernel takes."""
    for index, container in enumerate(spec.containers):
        if container.hostname and later.stands_in(container.hostname) and container.replicas:
            last = instances(container)[-1]
            name = later.filled(container.hostname, last.id, last.replica)
            if len(name) > HOSTNAME_MAX:
                wrong = f"comes to {name}, which is longer than {HOSTNAME_MAX} characters"
                yield spec.fault(f"containers[{index}].hostname", wrong)


def compile_single(container: Container, found: Images, home: Home, *, terminal: bool) -> ContainerConfig:
    """The configuration of the one container of `pysup run`."""
    here = topology.placement(container, networked=False)
    _check_alone(container, here)
    config = compile_container(instances(container)[0], found, Store(home, shared=True), _resolv_conf(), here)
    user_terminal = os.environ.get("TERM") if terminal else None
    env = {**dict(config.env), **({"TERM": user_terminal} if user_terminal and "TERM" not in container.env else {})}
    return replace(config, terminal=terminal, env=tuple(env.items()))


def compile_container(
    instance: Instance, found: Images, store: Store, resolv_conf: bytes | None, placement: Placement
) -> ContainerConfig:
    """The configuration of one container (OCI words) from its entry in a spec (Compose words)."""
    container, identity, replica = instance.container, instance.id, instance.replica
    user = found.lookup(container.image, container.user)
    capabilities, dns = _capabilities(container), mounting.dns(container)
    hostname = later.filled(container.hostname or identity[:HOSTNAME_MAX], identity, replica)
    return ContainerConfig(
        id=identity,
        lowers=(str(found.find(container.image).path),),
        directory=store.home.of(identity, keep=container.keep),
        argv=later.filled(container.cmd, identity, replica),
        env=_environment(container, user.home, hostname, identity, replica),
        workdir=later.filled(container.workdir or "/", identity, replica),
        user=user,
        hostname=hostname,
        memory_bytes=container.storage_size if container.storage == "memory" else None,
        keep=container.keep,
        network=placement.network,
        shares=placement.shares,
        attachments=placement.attachments,
        ports=topology.ports(container.ports, replica),
        init=container.init,
        notify=_may_notify(container),
        capabilities=capabilities,
        privileged=container.privileged,
        userns=container.userns,
        seccomp=_filter(container, capabilities, found),
        umask=container.umask,
        limits=_limits(container),
        rlimits=_rlimits(container.ulimits),
        resolv_conf=mounting.resolver(dns, resolv_conf if placement.network is Network.HOST else None),
        dns=dns,
        hosts=mounting.hosts(container, placement.network),
        mounts=mounting.mounts(container, identity, replica, user, store),
        devices=container.devices,
        read_only=container.read_only,
        shm_bytes=container.shm_size,
        sysctls=tuple(container.sysctls.items()),
    )


def _environment(
    container: Container, home: str, hostname: str, identity: str, replica: int
) -> tuple[tuple[str, str], ...]:
    """Nothing of the host's; the container's own values win."""
    base = {"PATH": DEFAULT_PATH, "HOME": home, "HOSTNAME": hostname, "TERM": "xterm", "PYSUP_REPLICA": str(replica)}
    own = {name: later.filled(value, identity, replica) for name, value in container.env.items()}
    return tuple({**base, **_notify_variables(container), **own}.items())


def _may_notify(container: Container) -> bool:
    return any(check and isinstance(check.probe, Notify) for check in (container.ready, container.health))


def _notify_variables(container: Container) -> dict[str, str]:
    """What sd_notify(3) and sd_watchdog_enabled(3) look for. WATCHDOG_PID is left out: any process may speak."""
    if not _may_notify(container):
        return {}
    watchdog_s = container.health.watchdog_s if container.health else None
    watchdog = {} if watchdog_s is None else {"WATCHDOG_USEC": str(round(watchdog_s * 1_000_000))}
    return {"NOTIFY_SOCKET": NOTIFY_PATH, **watchdog}


def policy(container: Container) -> Policy:
    """What the machine is to know."""
    restart, retries = container.restart, container.retries
    waits_s = {need.timeout_s for need in container.depends_on.values() if need.timeout_s is not None}
    return Policy(
        restart=restart.policy if retries is None else RestartPolicy.ON_FAILURE,
        max_retries=restart.max_retries if retries is None else retries,
        max_restarts=restart.max_restarts,
        window_s=restart.window_s,
        restart_on=container.restart_on,
        success_codes=container.success_codes,
        backoff=Backoff(**dict(container.backoff)),
        timeout_s=container.timeout_s,
        one_shot=_is_one_shot(container),
        stop_signal=container.stop_signal,
        stop_grace_s=container.stop_grace_s,
        stop_cmd=container.stop_cmd,
        ready=container.ready,
        health=container.health,
        waits_s=tuple(sorted(waits_s)),
    )


def _is_one_shot(container: Container) -> bool:
    """Does it say that it ends by itself, and not that it serves?"""
    limited = container.retries is not None or container.timeout_s is not None
    serves = container.ready is not None or container.health is not None
    return limited and not serves and container.restart.policy in (RestartPolicy.NO, RestartPolicy.ON_FAILURE)


def _of_replica(policy: Policy, identity: str, replica: int) -> Policy:
    """The same object, unless something in it is each replica's own."""
    changed: dict[str, Any] = {
        "stop_cmd": later.filled(policy.stop_cmd, identity, replica),
        "ready": _checked(policy.ready, identity, replica),
        "health": _checked(policy.health, identity, replica),
    }
    same = all(getattr(policy, name) is value for name, value in changed.items())
    return policy if same else replace(policy, **changed)


def _checked(check: CheckT, identity: str, replica: int) -> CheckT:
    if check is None:
        return check
    probe: Probe
    match check.probe:
        case Exec(argv):
            probe = Exec(later.filled(argv, identity, replica))
        case File(path):
            probe = File(later.filled(path, identity, replica))
        case _:
            return check
    return check if probe == check.probe else replace(check, probe=probe)


def _prefixed(output: OutputForm, identity: str, replica: int) -> OutputForm:
    if output.prefix is None or not later.stands_in(output.prefix):
        return output
    return replace(output, prefix=later.filled(output.prefix, identity, replica))


def _rlimits(limits: Mapping[str, tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((RLIMITS.index(name), soft, hard) for name, (soft, hard) in limits.items())


def _resolv_conf() -> bytes | None:
    """The host's, for containers in the host's network: else they could not resolve a name."""
    try:
        with Path("/etc/resolv.conf").open("rb") as file:
            return file.read(RESOLV_CONF_MAX_BYTES)
    except OSError:
        return None
