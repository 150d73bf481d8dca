"""`docker create`: Docker's configuration of a container as the keys of a spec's container. Pure but for the handler.

A caller gets what he asked for or is told that he can't: a setting that pysup does not know must have the value that
means nothing (null, 0, "", an empty list), which Docker's clients send for all that was not asked for.
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from runtime.errors import ImageError
from supervisor.api import files, networks, resources
from supervisor.api.call import Call
from supervisor.api.errors import bad, missing, not_offered
from supervisor.api.fields import Fields
from supervisor.api.http import Answering, shown
from supervisor.api.shelf import familiar
from supervisor.core.policy import RestartPolicy
from supervisor.errors import SpecError
from supervisor.logs.foreign import DRIVERS, MODE, OPTIONS, keys_of

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")  # as in a spec
_KNOWN = frozenset(
    "Image Cmd Entrypoint Env User WorkingDir Hostname Tty OpenStdin StdinOnce AttachStdin AttachStdout AttachStderr "
    "Labels StopSignal StopTimeout NetworkDisabled Volumes HostConfig NetworkingConfig "
    "ExposedPorts".split()  # which says what an image's program listens at, and opens nothing
)
_KNOWN_OF_HOST = (
    frozenset(
        "AutoRemove RestartPolicy NetworkMode Privileged Init CapAdd CapDrop SecurityOpt UsernsMode Ulimits LogConfig "
        "Binds Mounts Tmpfs ReadonlyRootfs ShmSize Sysctls ExtraHosts Dns DnsSearch DnsOptions Devices "
        "PortBindings ConsoleSize ContainerIDFile".split()  # a client's own business
    )
    | resources.KNOWN
)
_MEANS_NOTHING = {"MemorySwappiness": -1, "OomKillDisable": False}
_POLICIES = {"always", "unless-stopped", "no", ""}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be created."""

    image: str
    config: Mapping[str, object]  # keys of a spec's container
    labels: Mapping[str, str]
    auto_remove: bool
    tty: bool
    stdin: bool


async def create(call: Call) -> Answering:
    """Make it known; it is not started."""
    name = call.query.text("name").removeprefix("/")
    wanted = translated(await call.request.data())
    if name:
        check_name(name)
    try:
        view = await call.commands.create(
            name or _some_name(wanted.image),
            wanted.image,
            wanted.config,
            wanted.labels,
            auto_remove=wanted.auto_remove,
            tty=wanted.tty,
            stdin=wanted.stdin,
        )
    except SpecError as error:
        raise bad(str(error)) from error
    except ImageError as error:
        raise missing(f"No such image: {wanted.image[:200]}: {error}") from error
    return shown({"Id": view.key, "Warnings": []}, HTTPStatus.CREATED)


def check_name(name: str) -> None:
    """RefusedError for one that no container may have."""
    if not _NAME.fullmatch(name):
        raise bad(f"Invalid container name ({name[:100]}), only {_NAME.pattern} are allowed")


def _some_name(image: str) -> str:
    base = re.sub(r"[^a-zA-Z0-9_.-]", "-", image.rpartition("/")[2]).lstrip("_.-")[:50]
    return f"{base or 'container'}-{secrets.token_hex(3)}"


def translated(body: Mapping[str, object]) -> Wanted:
    """RefusedError where it can't be had."""
    fields = Fields(body)
    host = fields.below("HostConfig")
    check_rest("", body, _KNOWN)
    check_rest("HostConfig.", host.values, _KNOWN_OF_HOST)
    image = familiar(fields.text("Image"))
    if not image:
        raise bad("no image was given")
    return Wanted(
        image,
        dict(_keys(fields, host)),
        fields.pairs("Labels"),
        host.truth("AutoRemove"),
        fields.truth("Tty"),
        fields.truth("OpenStdin"),
    )


def check_rest(prefix: str, values: Mapping[str, object], known: frozenset[str]) -> None:
    """RefusedError for a setting that is not `known`, unless its value means nothing."""
    for name, value in values.items():
        if name not in known and not _means_nothing(value) and _MEANS_NOTHING.get(name, ...) != value:
            raise not_offered(f"{prefix}{name[:100]}", "leave it out")


def _means_nothing(value: object) -> bool:
    """As deep as it goes: `{"Type": "", "Config": {}}` does."""
    if isinstance(value, dict):
        return all(map(_means_nothing, value.values()))
    return not value


def _keys(fields: Fields, host: Fields) -> Iterable[tuple[str, object]]:
    """Only what was asked for: all else is as in a spec that does not say it."""
    command = (*fields.texts("Entrypoint"), *fields.texts("Cmd"))
    if not command:
        raise bad("no command specified: images have none of their own here")
    yield "cmd", list(command)
    yield from _asked(
        env=dict(_variables(fields.texts("Env"))),
        user=fields.text("User"),
        workdir=fields.text("WorkingDir"),
        hostname=fields.text("Hostname"),
        stop_signal=fields.text("StopSignal"),
        restart=restart(host.below("RestartPolicy")),
        **dict(networks.keys(fields, host)),
        privileged=host.truth("Privileged"),
        init=host.truth("Init"),
        cap_add=list(host.texts("CapAdd")),
        cap_drop=list(host.texts("CapDrop")),
        userns=_users(host.text("UsernsMode")),
        seccomp=_seccomp(host.texts("SecurityOpt")),
        logs=_logs(host.below("LogConfig")),
        ulimits={each.text("Name"): _limits(each) for each in host.each("Ulimits")},
        limits=resources.keys(host),
        **files.keys(fields, host),
    )
    if fields.values.get("StopTimeout") is not None:
        yield "stop_grace_s", fields.number("StopTimeout")


def _asked(**keys: object) -> Iterable[tuple[str, object]]:
    return ((name, value) for name, value in keys.items() if value)


def _variables(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    """One without `=` takes a variable of the image away: there is none here."""
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise bad(f"invalid environment variable: {text[:100]}")
        if equals:
            yield name, value


def restart(policy: Fields) -> str:
    """As in a spec; empty: not said. RefusedError."""
    name, retries = policy.text("Name"), policy.number("MaximumRetryCount")
    if retries < 0 or (retries and name != RestartPolicy.ON_FAILURE):
        raise bad("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if name == RestartPolicy.ON_FAILURE:
        return f"{name}:{retries}" if retries else name
    if name not in _POLICIES:
        raise bad(f"invalid restart policy: unknown policy '{name[:100]}'")
    return name


def _users(mode: str) -> str:
    """Docker's word is host; auto is Podman's."""
    if mode not in {"", "host", "auto"}:
        raise not_offered(f"the user namespace mode {mode[:100]!r}", "there is host and auto")
    return mode


# What holds here anyway, or means nothing here.
_MEANT_ANYWAY = {"no-new-privileges", "no-new-privileges=true", "apparmor=unconfined", "label=disable"}


def _seccomp(options: Iterable[str]) -> str:
    """Of all options for security, the one that there is: a word, or a profile itself, as Docker's clients send it."""
    wanted = ""
    for option in options:
        name, _, value = option.partition("=") if "=" in option else option.partition(":")
        if name != "seccomp":
            if f"{name}={value}".rstrip("=") not in _MEANT_ANYWAY:
                raise not_offered(f"the security option {option[:100]!r}", "there is seccomp")
        elif value in {"unconfined", "builtin"} or value.lstrip().startswith("{"):
            wanted = "default" if value == "builtin" else value
        else:
            raise bad(f"seccomp={value[:100]}: unconfined, builtin, or the text of a profile is expected")
    return wanted


def _logs(config: Fields) -> Mapping[str, object]:
    driver, options = config.text("Type"), config.pairs("Config")
    if driver not in DRIVERS:
        raise not_offered(f"the log driver {driver[:100]!r}", f"there is {', '.join(filter(None, DRIVERS))}")
    try:
        return dict(keys_of(driver, options))
    except KeyError as error:
        raise not_offered(
            f"the log option {str(error.args[0])[:100]!r}", f"there are {', '.join((*OPTIONS, MODE))}"
        ) from None


def _limits(limit: Fields) -> Mapping[str, int]:
    return {"soft": limit.number("Soft"), "hard": limit.number("Hard")}
