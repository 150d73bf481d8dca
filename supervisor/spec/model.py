"""The spec: what the user wrote, validated and frozen. A field's description is what editors show.

A spec made in code obeys the same rules as one from a file: the fields are parsed by the same functions, and what holds
between containers is checked whenever a Spec is made.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from runtime.cgroup.limits import Limits
from runtime.config import SHM_BYTES
from supervisor.core.checks import Log
from supervisor.core.policy import RestartOn, RestartPolicy
from supervisor.entry import OutputForm, Update
from supervisor.logs.policy import Driver, LogLimit, LogPolicy
from supervisor.spec import fields, graph, kinds, limits, values
from supervisor.spec.faults import Fault, Report, Wrong, loc_of, path_of, quoted
from supervisor.spec.terms import SECCOMP_DEFAULT, Enforce, Oom, Restart, Storage
from supervisor.spec.tree import Map, Position, Seq, locate

STORAGE_DEFAULT_BYTES = 64 << 20


class Backoff(BaseModel):
    """How long to wait before a restart: `initial_s`, then `factor` times longer each time, up to `max_s`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initial_s: fields.WaitSeconds = Field(default=0.1, description="The first wait; 0 restarts at once.")
    max_s: fields.WaitSeconds = Field(
        default=30.0, validate_default=True, description="The longest wait, at least initial_s."
    )
    factor: fields.Factor = Field(
        default=2.0, description="How much longer each wait is than the one before, at least 1."
    )
    jitter: fields.Share = Field(default=0.1, description="The share of a wait that is left to chance, from 0 to 1.")
    reset_after_s: fields.WaitSeconds = Field(
        default=10.0, description="After a run this long, the next wait is the first one again."
    )

    @field_validator("max_s")
    @classmethod
    def _at_least_initial(cls, max_s: float, info: ValidationInfo) -> float:
        initial_s = info.data.get("initial_s", 0.0)  # absent if it is at fault itself
        if max_s < initial_s:
            raise Wrong(f"is {max_s:g}", f"at least initial_s, which is {initial_s:g}")
        return max_s


class Container(BaseModel):
    """One container of the stack, or `replicas` of them that are alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: fields.Id = Field(
        description="Its name: unique in the stack, and not what a replica of another is called (web.1 beside web)."
    )
    image: fields.Image = Field(description="The name of an image.")
    cmd: fields.Command = Field(
        description="A list of arguments, or a string that is split as a shell would split it, never run by one."
    )
    env: fields.Environment = Field(
        default_factory=dict,
        description="A mapping of names to values, or a list of NAME=value. Values stay as written; "
        "nothing is taken from the host.",
    )
    workdir: fields.Workdir = Field(
        default=None, description="An absolute path in the container; null: the root directory."
    )
    user: fields.User = Field(default=None, description="uid[:gid] or name[:group], names from the image; null: root.")
    hostname: fields.Hostname = Field(default=None, description="The host name inside; null: the container's own name.")
    restart: fields.RestartRule = Field(
        default=Restart(),
        description="When it is started again: no, on-failure, on-failure:N, always or unless-stopped; or {policy: …, "
        "max_retries: in a row, max_restarts: within any window_s}.",
    )
    retries: fields.Retries = Field(
        default=None, description="Of a one-shot: at most so many more runs until one succeeds (restart: on-failure:N)."
    )
    restart_on: fields.RestartOn = Field(
        default=None,
        description="The ends after which it is restarted: {exit_codes: […], signals: […], oom: true}; null: all.",
    )
    success_codes: fields.Codes = Field(
        default=frozenset({0}), description="Exit statuses that count as success: a number, a range, or a list."
    )
    backoff: Backoff = Field(default=Backoff(), description="How long to wait before a restart.")
    timeout_s: fields.LimitSeconds = Field(
        default=None, description="The longest a run may take; it is stopped then, and has failed; null: any time."
    )
    stop_cmd: fields.StopCommand = Field(
        default=(), description="Run in it before the stop signal is sent, within stop_grace_s; a list, or a string."
    )
    stop_signal: fields.Signal = Field(
        default=15, description="What asks it to stop: a signal's name, with or without SIG, or its number."
    )
    stop_grace_s: fields.GraceSeconds = Field(
        default=10.0, description="How long it may take to stop before it is killed."
    )
    depends_on: fields.Dependencies = Field(
        default_factory=dict,
        description="What it starts after, at each of its starts: a list of ids, or a mapping of ids to {condition: "
        "started, ready, healthy or completed; restart: whether it is restarted along; required: whether it starts "
        "only then; timeout_s: the longest wait}.",
    )
    ready: fields.Ready = Field(
        default=None,
        description="When it serves: one of log (a regular expression), tcp (a port), http (a URL, with status), exec "
        "(a command in it), file (a path in it) and notify (sd_notify), and timeout_s; null: when it runs.",
    )
    health: fields.Health = Field(
        default=None,
        description="Whether it still serves: a probe as in ready, and interval_s, timeout_s, retries, start_period_s, "
        "start_interval_s, on_unhealthy; watchdog_s with notify; none: nobody asks.",
    )
    replicas: fields.Replicas = Field(
        default=1, description="How many of it there are, named id.1, id.2 and so on if more than one; 0: none."
    )
    storage: fields.Storage = Field(default=Storage.DISK, description="Where its writes go.")
    storage_size: fields.Size = Field(
        default=None,
        validate_default=True,
        description="How much it may write, with storage: memory; null: 64 MiB. Units (k, m, g, t) are powers of 1024.",
    )
    keep: fields.Truth = Field(default=False, description="Whether what it wrote outlives it.")
    network: fields.Network = Field(
        default=None,
        description="host, none (only a loopback interface), bridge (a network of the stack), or container:ID (that of "
        "another); null: host, but where the stack has networks or ports, bridge.",
    )
    networks: fields.Networks = Field(
        default=(),
        description="The stack's networks that it is in: a list of names, or a mapping of them to {aliases: […], "
        "ipv4_address: …, ipv6_address: …}; none: default.",
    )
    aliases: fields.Aliases = Field(default=(), description="More names that it is known by in its networks.")
    ports: fields.Ports = Field(
        default=(),
        description="Ports that are reached at the host's: [ADDRESS:][PORT:]PORT[/udp], each PORT a number or a range, "
        "or {target, published, host_ip, protocol}.",
    )
    init: fields.Truth = Field(
        default=False, description="Whether a small init is its process 1, reaps its orphans and passes signals on."
    )
    cap_add: fields.Capabilities = Field(default=(), description="Capabilities it has beyond the default ones, or ALL.")
    cap_drop: fields.Capabilities = Field(default=(), description="Capabilities it does without, or ALL.")
    privileged: fields.Truth = Field(default=False, description="Whether it has all capabilities.")
    userns: fields.Userns = Field(
        default=None,
        description="Who its users are on the host: host (the same ones), auto (65,536 that nobody else has), or maps "
        "{uid: [INSIDE:OUTSIDE:COUNT], gid: the same if absent}.",
    )
    seccomp: fields.Seccomp = Field(
        default=SECCOMP_DEFAULT,
        description="Which system calls it may make: default (as Docker's), unconfined (all of them), or the path of a "
        "profile in the OCI's or Docker's form. A privileged one has no default.",
    )
    umask: fields.Umask = Field(
        default=0o022, description="Octal digits, whatever they look like: 22, 022, 0022, 0o22."
    )
    ulimits: fields.Ulimits = Field(
        default_factory=dict, description="Limits by name: a number or unlimited, or {soft: …, hard: …}."
    )
    volumes: fields.Volumes = Field(
        default=(),
        description="What it sees of the host's files: SOURCE:TARGET[:OPTIONS], SOURCE a path or the name of a volume "
        "of the stack, OPTIONS ro, rw, suid, dev, noexec, slave, nocopy; or {type, source, target, read_only, options, "
        "bind: {propagation, create_host_path, recursive}, volume: {nocopy, subpath}, tmpfs: {size, mode, uid, gid}}.",
    )
    tmpfs: fields.Tmpfs = Field(
        default=(), description="Memory of its own at a path, with options: /tmp:size=64m,mode=1777,exec; or a list."
    )
    secrets: fields.Secrets = Field(
        default=(),
        description="Secrets of the stack that it sees in /run/secrets, read-only and in memory: a list of names, or "
        "of {source, target, uid, gid, mode}.",
    )
    configs: fields.Configs = Field(
        default=(), description="Configs of the stack that it sees at /NAME, or as with secrets."
    )
    read_only: fields.Truth = Field(
        default=False, description="Whether its root is read-only: what is mounted there is as it says itself."
    )
    devices: fields.Devices = Field(
        default=(), description="Devices of the host that it may use: a list of SOURCE[:TARGET[:rwm]], both in /dev."
    )
    shm_size: fields.SomeSize = Field(default=SHM_BYTES, description="The size of /dev/shm.")
    sysctls: fields.Sysctls = Field(
        default_factory=dict,
        description="Settings of its kernel that it has of its own: kernel.msg*, kernel.sem*, kernel.shm*, "
        "fs.mqueue.*, and net.* in a network of its own.",
    )
    extra_hosts: fields.ExtraHosts = Field(
        default=(),
        description="More lines of its /etc/hosts: a mapping of names to addresses, or a list of NAME=ADDRESS; "
        "host-gateway is the host's.",
    )
    dns: fields.Dns = Field(default=(), description="The name servers it asks; none: those of its network.")
    dns_search: fields.DnsSearch = Field(default=(), description="The domains it looks for names without one in.")
    dns_opt: fields.DnsOptions = Field(default=(), description="Options of its resolv.conf, such as ndots:2.")
    limits: fields.Limits = Field(
        default=Limits(),
        description="What it may use: {memory: …, memory_high: …, swap: …, cpus: 1.5, cpu_weight: 1 to 10000, cpuset: "
        "0-3, pids: …, io: [{device: …, rbps: …, wbps: …, riops: …, wiops: …}]}.",
    )
    oom: fields.Oom = Field(
        default=Oom.PROCESS, description="What is killed when its memory has run out: one process, or all of it."
    )
    enforce: fields.Enforce = Field(
        default=Enforce.STRICT,
        description="Whether a limit that this host can't enforce is an error (strict) or a warning (best-effort).",
    )
    output: fields.Output = Field(
        default=OutputForm(),
        description="How its lines look as text: {prefix: true (its name), false (none) or a text, timestamps: true}.",
    )
    logs: fields.Logs = Field(
        default=LogPolicy(),
        description="How its output is kept: {driver: file, raw (bytes without times), none, or stdout-json; max_size "
        "of a file; max_files; compress: those that are full; overflow: block, or drop lines where the disk is slow}.",
    )
    update: fields.Updating = Field(
        default=Update(),
        description="How a reload replaces it: {order: stop-first or start-first; parallel: how many of its replicas "
        "at a time, 0 being all; on_failure: pause, or rollback of the whole reload; monitor_s: how long one without a "
        "check must go on to count as up}.",
    )

    @field_validator("volumes", "tmpfs", "secrets", "configs")
    @classmethod
    def _each_at_its_own_place(cls, mounts: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        others = (other for key in ("volumes", "tmpfs", "secrets", "configs") for other in info.data.get(key, ()))
        taken = {other.target for other in others}
        for index, mount in enumerate(mounts):
            if mount.target in taken:
                raise Wrong(f"is the second at {mount.target}", "each at a place of its own").within(index)
            taken.add(mount.target)
        if len(taken) > limits.MOUNTS_MAX:
            raise Wrong(f"is one of {len(taken)} mounts", f"at most {limits.MOUNTS_MAX}")
        return mounts

    @field_validator("retries")
    @classmethod
    def _of_a_one_shot(cls, retries: int | None, info: ValidationInfo) -> int | None:
        restart = info.data.get("restart", Restart())  # absent if it is at fault itself
        if retries is not None and (
            restart.policy not in (RestartPolicy.NO, RestartPolicy.ON_FAILURE) or restart.max_retries is not None
        ):
            raise Wrong(f"is {retries} beside restart: {restart}", "restart: no or on-failure")
        return retries

    @field_validator("restart_on")
    @classmethod
    def _of_one_that_restarts(cls, restart_on: RestartOn | None, info: ValidationInfo) -> RestartOn | None:
        restart = info.data.get("restart")  # absent if it is at fault itself
        if restart_on and restart and restart.policy is RestartPolicy.NO and info.data.get("retries") is None:
            raise Wrong("has no meaning with restart: no", "another policy, or retries")
        return restart_on

    @field_validator("logs")
    @classmethod
    def _seen_where_looked_for(cls, logs: LogPolicy, info: ValidationInfo) -> LogPolicy:
        for check in ("ready", "health"):
            value = info.data.get(check)  # absent if it is at fault itself
            if logs.driver is Driver.RAW and value is not None and isinstance(value.probe, Log):
                raise Wrong(f"has driver: raw, with which no line is looked at, beside {check}.log", "driver: file")
        return logs

    @field_validator("storage_size")
    @classmethod
    def _only_in_memory(cls, size: int | None, info: ValidationInfo) -> int | None:
        storage = info.data.get("storage")  # absent if it is at fault itself
        if storage is Storage.MEMORY and size is None:
            return STORAGE_DEFAULT_BYTES
        if storage is Storage.DISK and size is not None:
            raise Wrong("has no meaning with storage: disk", "storage: memory beside it")
        return size


@dataclass(frozen=True, slots=True)
class Instance:
    """One of a container's replicas, which count from 1, and the name it runs under."""

    id: str
    container: Container
    replica: int


class Sharing(BaseModel):
    """What a container of a file takes from elsewhere, and when it takes part: nothing of it is left in a Container."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extends: fields.Extends = Field(
        default=None,
        description="Another container whose keys it has too, where it has none of its own, but for id, depends_on, "
        "replicas and profiles: an id, or {file: …, id: …}.",
    )
    env_file: fields.EnvFiles = Field(
        default=(),
        description="Files of NAME=value lines, relative to the spec: a path, or a list of paths and of {path: …, "
        "required: false}. Later ones win, env wins over all.",
    )
    profiles: fields.Profiles = Field(
        default=(), description="It takes part if one of these is chosen (--profile), or if there is none."
    )


class Joining(BaseModel):
    """What a file takes from others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: fields.Includes = Field(
        default=(), description="Other files whose containers belong to the stack: a list of paths, or of {path: …}."
    )


@dataclass(frozen=True, slots=True)
class Source:
    """Where a spec was written, and the profiles of those containers that take no part, by id."""

    file: str
    tree: Map
    inactive: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, indices: Iterable[int]) -> "Source":
        """Of these containers alone."""
        containers = self.tree.get("containers")
        if not isinstance(containers, Seq):
            return self
        some = Seq(containers.position)
        for index in indices:
            some.put(containers[index], containers.spots[index])
        tree = self.tree.copy()
        tree["containers"] = some
        return Source(self.file, tree, self.inactive)


def _code() -> Source:
    """Of a spec that no file has: as if in the working directory."""
    return Source("stack.yaml", Map(Position(1, 1)))


class Spec(BaseModel):
    """A stack. Two are equal if they say the same, wherever they were written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: fields.Name = Field(description="The stack's name; default: that of the folder it is in.")
    containers: Annotated[tuple[Container, ...], BeforeValidator(kinds.some_list)] = Field(
        json_schema_extra={"minItems": 1}, description="What is to run."
    )
    logs: fields.StackLogs = Field(
        default=LogLimit(),
        description="The limit of all its logs on disk together, beyond which the oldest go: {max_total: 1g}.",
    )
    networks: fields.StackNetworks = Field(
        default_factory=dict,
        description="The stack's networks, by name: {internal: true if nothing leads out, ipv6: …, subnet: one, or a "
        "list of an IPv4 and an IPv6 one}.",
    )
    volumes: fields.NamedVolumes = Field(
        default_factory=dict,
        description="The stack's volumes, which outlive it, by name: {} or {name: …, external: …}; of a name, the "
        "machine's.",
    )
    secrets: fields.Sources = Field(
        default_factory=dict, description="The stack's secrets, by name: {file: …}, {environment: …} or {content: …}."
    )
    configs: fields.Sources = Field(default_factory=dict, description="The stack's configs, as secrets.")
    _source: Source = PrivateAttr(default_factory=_code)

    @field_validator("containers")
    @classmethod
    def _less_what_is_not_required(cls, containers: tuple[Container, ...]) -> tuple[Container, ...]:
        ids = {container.id for container in containers}
        return tuple(
            _needing(each, {*ids, *(id_ for id_, need in each.depends_on.items() if need.required)})
            for each in containers
        )

    @model_validator(mode="after")
    def _containers_fit(self) -> Self:
        for loc, wrong in self._misfits():
            raise ValueError(f"{path_of(loc)}: {wrong}")
        return self

    def _misfits(self) -> graph.Faults:
        return graph.faults([_entry(index, container) for index, container in enumerate(self.containers)])

    @classmethod
    def from_tree(cls, source: Source) -> Self:
        """A spec that knows where it was written. pydantic's ValidationError has locations in its tree."""
        spec = cls.model_validate(source.tree)
        spec._source = source  # noqa: SLF001 (its own class: pydantic's constructor takes no private attribute)
        return spec

    @property
    def source(self) -> Path:
        """The file, as the user named it."""
        return Path(self._source.file)

    @property
    def tree(self) -> Map:
        """What it was made of, complete: each container has what it extends, and the defaults."""
        return self._source.tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and all(
            getattr(self, key) == getattr(other, key) for key in type(self).model_fields
        )

    def __hash__(self) -> int:
        return hash((self.name, tuple(container.id for container in self.containers)))

    def instances(self) -> tuple[Instance, ...]:
        """All that are to run, in the order of the file: `web` of one replica, `web.1` to `web.3` of three."""
        return tuple(instance for container in self.containers for instance in instances(container))

    def scaled(self, replicas: Mapping[str, int]) -> Self:
        """The same stack with other numbers of replicas, by id. SpecError for an unknown id or an impossible number."""
        report = Report(self._source.file)
        for container_id, number in replicas.items():
            self._check_scale(report, container_id, number)
        report.check()
        containers = (container.model_copy(update=_replicas(container, replicas)) for container in self.containers)
        spec = self.model_copy(update={"containers": tuple(containers)})
        for loc, wrong in spec._misfits():  # noqa: SLF001 (its own class)
            report.add(locate(self._source.tree, loc), wrong)
        report.check()
        return spec

    def _check_scale(self, report: Report, container_id: str, number: int) -> None:
        if not self._check_known(report, container_id, "to scale"):
            return
        try:
            values.replicas(number)
        except Wrong as wrong:
            ids = [container.id for container in self.containers]
            report.add(locate(self._source.tree, ("containers", ids.index(container_id), "replicas")), wrong)

    def fault(self, path: str, message: str) -> Fault:
        """What was found later to be wrong, at its place: `spec.fault("containers[3].image", "is not there")`."""
        place = locate(self._source.tree, loc_of(path))
        return Fault(place.file or self._source.file, place.line, place.column, path_of(place.loc), message)

    def selected(self, ids: Iterable[str], *, with_dependencies: bool = True) -> Self:
        """The part of the stack that these containers are, and what they depend on, at whatever distance; without
        that, they depend on each other only. SpecError for an unknown id.
        """
        report = Report(self._source.file)
        wanted = dict.fromkeys(ids)
        for container_id in wanted:
            self._check_known(report, container_id, "to select")
        report.check()
        if with_dependencies:
            wanted = graph.reached(wanted, {container.id: container.depends_on for container in self.containers})
        containers = tuple(_needing(container, wanted) for container in self.containers if container.id in wanted)
        spec = self.model_copy(update={"containers": containers})
        spec._source = self._source.of([index for index, one in enumerate(self.containers) if one.id in wanted])  # noqa: SLF001 (its own class)
        return spec

    def _check_known(self, report: Report, container_id: str, purpose: str) -> bool:
        ids = [container.id for container in self.containers]
        if container_id in ids:
            return True
        wrong = Wrong(f"have no {quoted(container_id)} {purpose}", "one of their ids", word=container_id, words=ids)
        if container_id in self._source.inactive:
            profile = self._source.inactive[container_id][0]
            wrong = Wrong(
                f"have no {quoted(container_id)} {purpose}: its profile is not chosen", f"--profile {profile}"
            )
        report.add(locate(self._source.tree, ("containers",)), wrong)
        return False


def instances(container: Container) -> tuple[Instance, ...]:
    """Its replicas."""
    if container.replicas == 1:
        return (Instance(container.id, container, 1),)
    numbers = range(1, container.replicas + 1)
    return tuple(Instance(f"{container.id}.{number}", container, number) for number in numbers)


def _entry(index: int, container: Container) -> graph.Entry:
    needs = {id_: graph.Need(id_, need.condition, need.required) for id_, need in container.depends_on.items()}
    checks = frozenset(check for check in ("ready", "health") if getattr(container, check) is not None)
    return graph.Entry(index, container.id, container.replicas, needs, checks)


def _needing(container: Container, ids: Collection[str]) -> Container:
    """Less the dependencies on containers that are not there, if they may be missing, or nobody asked for them."""
    kept = {id_: need for id_, need in container.depends_on.items() if id_ in ids}
    return container if len(kept) == len(container.depends_on) else container.model_copy(update={"depends_on": kept})


def _replicas(container: Container, replicas: Mapping[str, int]) -> dict[str, int]:
    return {"replicas": replicas.get(container.id, container.replicas)}
