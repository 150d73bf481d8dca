"""How a key of a service is carried over to a container.

A rule gets the service and the key's value, and answers with keys of a container. It raises Wrong where it can make no
sense of the value.
"""

from collections.abc import Callable

from supervisor.compose import dollar
from supervisor.compose.scalars import duration, truth
from supervisor.compose.services import Keys, Service
from supervisor.logs.foreign import DRIVERS, MODE, MODES, OPTIONS, keys_of
from supervisor.spec.faults import Wrong, quoted, unexpected
from supervisor.spec.mounts import is_path
from supervisor.spec.tree import Map, Plain, Position, Seq

Rule = Callable[[Service, object], Keys] | str  # or why it is dropped


def elsewhere(_service: Service, _value: object) -> Keys:
    """Its container has it already, from services.py; or it says what is so anyway."""
    return {}


def same(key: str) -> Rule:
    return lambda _service, value: {} if value is None else {key: value}


def switch(key: str) -> Rule:
    return lambda _service, value: {} if value is None else {key: truth(value)}


def time(key: str) -> Rule:
    return lambda _service, value: {} if value is None else {key: duration(value)}


def _texts(value: object) -> list[object]:
    """A list of texts, or one of them."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Seq):
        raise unexpected(value, "a list")
    for index, entry in enumerate(value):
        if not isinstance(entry, str):
            raise unexpected(entry, "text").within(index)
    return list(value)


def mapping(value: object) -> Map:
    if not isinstance(value, Map):
        raise unexpected(value, "a mapping")
    return value


def list_of(key: str) -> Rule:
    return lambda _service, value: {key: _texts(value)} if value else {}


def privileged(service: Service, value: object) -> Keys:
    private = truth(value)
    if private is not False:
        service.notes.changed(service.loc("privileged"), "gives all capabilities, and no devices of the host")
    return {"privileged": private}


def environment(service: Service, value: object) -> Keys:
    """A mapping; a list where a name holds a variable, which is replaced in values only."""
    if value is None:
        return {}
    pairs = mapping(value).items() if isinstance(value, Map) else [_assignment(entry) for entry in _texts(value)]
    env = dict(pairs)
    passed = [name for name, given in env.items() if given is None]
    if passed:
        why = f"{', '.join(passed)}: empty, rather than absent, where the host has no such variable"
        service.notes.changed(service.loc("environment"), why, key=False)
    complete = {name: dollar.optional(name) if given is None else given for name, given in env.items()}
    if isinstance(value, Seq) and any(map(dollar.has, env)):
        return {"env": [f"{name}={given}" for name, given in complete.items()]}
    return {"env": complete} if complete else {}


def _assignment(entry: object) -> tuple[str, object]:
    name, equals, value = str(entry).partition("=")
    return name, value if equals else None


def env_file(service: Service, value: object) -> Keys:
    if not isinstance(value, Seq):
        return {"env_file": service.file.path(str(_texts(value)[0]))} if value else {}
    files: list[object] = []
    for index, entry in enumerate(value):
        if isinstance(entry, Map):
            files.append(_optional_file(service, entry, index))
        elif isinstance(entry, str):
            files.append(service.file.path(entry))
        else:
            raise unexpected(entry, "a path, or {path: …, required: …}").within(index)
    return {"env_file": files} if files else {}


def _optional_file(service: Service, entry: Map, index: int) -> object:
    path = entry.get("path")
    if not isinstance(path, str):
        raise unexpected(path, "a path").within(index, "path")
    if entry.get("format") is not None:
        why = "there is one format of these files: quotes and escapes are read as Compose does by default"
        service.notes.dropped(service.loc("env_file", index, "format"), why)
    way = service.file.path(path)
    return {"path": way, "required": truth(entry["required"])} if "required" in entry else way


def depends_on(service: Service, value: object) -> Keys:
    needs = (
        mapping(value)
        if isinstance(value, Map)
        else dict.fromkeys(map(str, _texts(value or Seq(service.entries.position))))
    )
    known: Keys = {}
    for name, need in needs.items():
        try:
            known[service.file.known(name)] = _need(service, name, need)
        except Wrong as wrong:
            service.notes.dropped(service.loc("depends_on", name, *wrong.loc), str(wrong))
    if all(need == {"condition": "started"} for need in known.values()):
        return {"depends_on": list(known)} if known else {}
    return {"depends_on": known}


_CONDITIONS = {
    "service_started": Plain("started"),
    "service_healthy": Plain("healthy"),
    "service_completed_successfully": Plain("completed"),
}


def _need(service: Service, name: str, need: object) -> Keys:
    if need is None:
        return {"condition": _CONDITIONS["service_started"]}
    given = mapping(need)
    condition = given.get("condition", "service_started")
    if str(condition) not in _CONDITIONS:
        raise Wrong(f"is {quoted(str(condition))}", f"one of {', '.join(_CONDITIONS)}").within("condition")
    result: Keys = {"condition": _CONDITIONS[str(condition)]}
    if "restart" in given and (restart := truth(given["restart"])) is not False:
        why = "is restarted whenever the other is, and not by commands only"
        service.notes.changed(service.loc("depends_on", name, "restart"), why)
        result["restart"] = restart
    if "required" in given and (required := truth(given["required"])) is not True:
        result["required"] = required
    return result


def extends(service: Service, value: object) -> Keys:
    if (base := service.base()) is not None:
        return {"extends": service.file.ids[base]}
    name = value.get("service") if isinstance(value, Map) else value
    if isinstance(value, Map) and isinstance(path := value.get("file"), str):
        raise Wrong(
            f"a service of {quoted(path)}: import that file too, and name its container: {{file: …, id: {name}}}"
        )
    raise Wrong(f"there is no container {quoted(str(name))} to extend")


def hooks(service: Service, value: object) -> Keys:
    """The first command before the stop signal."""
    if not isinstance(value, Seq):
        raise unexpected(value, "a list of {command: …}")
    commands = [_hook(service, entry, index) for index, entry in enumerate(value)]
    for index in range(1, len(commands)):
        why = "there is one stop_cmd: make it a script of all these commands"
        service.notes.dropped(service.loc("pre_stop", index), why)
    return {"stop_cmd": commands[0]} if commands else {}


def _hook(service: Service, entry: object, index: int) -> list[object]:
    hook = mapping(entry)
    for key in hook:
        if key != "command" and not key.startswith("x-"):
            service.notes.dropped(service.loc("pre_stop", index, key), "stop_cmd is run as the container's command is")
    command = hook.get("command")
    try:
        return list(dollar.split(command)) if isinstance(command, str) else _texts(command)
    except Wrong as wrong:
        raise wrong.within(index, "command") from None


def ulimits(_service: Service, value: object) -> Keys:
    return {"ulimits": dict(mapping(value))} if value else {}


_MEANT_ANYWAY = {"no-new-privileges", "no-new-privileges:true", "apparmor:unconfined", "label:disable"}


def security_opt(service: Service, value: object) -> Keys:
    """Which system calls it may make; nothing else of it is a choice."""
    result: Keys = {}
    for index, entry in enumerate(_texts(value) if value else ()):
        name, _, rest = str(entry).replace("=", ":", 1).partition(":")
        if name == "seccomp":
            result = {"seccomp": _profile(service, rest)}
        elif f"{name}:{rest}".rstrip(":") not in _MEANT_ANYWAY:
            why = "there is seccomp only: a container gains no privileges in any case, see cap_drop for those it has"
            service.notes.dropped(service.loc("security_opt", index), why, key=False)
    return result


def userns_mode(_service: Service, value: object) -> Keys:
    """Compose's word is host; auto is Podman's."""
    if value in (None, ""):
        return {}
    if value not in ("host", "auto") and not dollar.has(value):
        raise Wrong(f"is {quoted(str(value))}", "host or auto")
    return {"userns": value}


def _profile(service: Service, text: str) -> str:
    if text in ("unconfined", "default", "builtin") or dollar.has(text):
        return "default" if text == "builtin" else text
    return service.file.path(text)


def volumes(service: Service, value: object) -> Keys:
    if not isinstance(value, Seq):
        raise unexpected(value, "a list of volumes")
    return {"volumes": [_volume(service, entry, index) for index, entry in enumerate(value)]} if value else {}


def _volume(service: Service, entry: object, index: int) -> object:
    if isinstance(entry, str):
        parts = entry.split(":")
        if len(parts) > 1 and not dollar.has(parts[0]):
            parts[0] = _source(service, parts[0])
        if len(parts) == _WITH_OPTIONS:
            parts[2] = _options(service, parts[2], index)
        return ":".join(part for part in parts if part)
    volume = dict(mapping(entry))
    if isinstance(source := volume.get("source"), str) and volume.get("type") == "bind" and not dollar.has(source):
        volume["source"] = _source(service, source if is_path(source) else f"./{source}")
    for key, where in ((volume, "consistency"), (volume.get("bind"), "selinux"), (volume.get("volume"), "labels")):
        if isinstance(key, dict):
            _without(service, key, where, index)
    return volume


_WITH_OPTIONS = 3


def _without(service: Service, entries: Keys, key: str, index: int) -> None:
    if entries.pop(key, None) is not None:
        service.notes.dropped(service.loc("volumes", index), f"{key}: has no meaning here", key=False)


def _source(service: Service, source: str) -> str:
    """A path in the spec begins with a dot, or it would be the name of a volume."""
    if not is_path(source) or source.startswith(("/", "~")):
        return source
    found = service.file.path(source)
    return found if is_path(found) else f"./{found}"


def _options(service: Service, options: str, index: int) -> str:
    kept = [word for word in options.split(",") if word not in ("z", "Z")]
    if len(kept) < len(options.split(",")):
        service.notes.dropped(service.loc("volumes", index), "z and Z: pysup sets no SELinux labels", key=False)
    return ",".join(kept)


def entries(key: str) -> Rule:
    """A list of texts and mappings, or a mapping, as it is."""

    def rule(_service: Service, value: object) -> Keys:
        if isinstance(value, Seq | Map):
            return {key: _untied(value)} if value else {}
        raise unexpected(value, "a list, or a mapping")

    return rule


def _untied(value: object) -> object:
    """In plain collections."""
    if isinstance(value, Map):
        return {key: _untied(entry) for key, entry in value.items()}
    return [_untied(entry) for entry in value] if isinstance(value, Seq) else value


def one_or_more(key: str) -> Rule:
    return lambda _service, value: {} if value is None else {key: value if isinstance(value, str) else _texts(value)}


def restart(_service: Service, value: object) -> Keys:
    if not isinstance(value, str):
        raise unexpected(value, "a restart policy")
    return {"restart": Plain("on-failure" if value == "on-failure:0" else value)}  # 0: as often as it takes


def mode(_service: Service, value: object) -> Keys:
    if value not in (None, "replicated"):
        raise Wrong(f"is {quoted(str(value))}: pysup runs on one machine, so `replicas` is all it has")
    return {}


_RESTARTS = {"any": Plain("always"), "on-failure": Plain("on-failure"), "none": Plain("no")}
_WINDOW = Plain("60")


def restart_policy(service: Service, value: object) -> Keys:
    """A wait that stays the same, and a run of `window` that ends a row of failures."""
    policy = mapping(value)
    condition = policy.get("condition", "any")
    if str(condition) not in _RESTARTS:
        raise Wrong(f"is {quoted(str(condition))}", f"one of {', '.join(_RESTARTS)}").within("condition")
    backoff: Keys = {}
    if policy.get("delay") is not None:
        backoff = dict.fromkeys(("initial_s", "max_s"), duration(policy["delay"]))
    if policy.get("window") is not None:
        backoff["reset_after_s"] = duration(policy["window"])
    restart = _limited(service, str(condition), policy.get("max_attempts"), backoff.get("reset_after_s", _WINDOW))
    return {"restart": restart, "backoff": backoff} if backoff else {"restart": restart}


def _limited(service: Service, condition: str, attempts: object, window: object) -> object:
    word = _RESTARTS[condition]
    if attempts in (None, "0") or condition == "none":
        return word
    if not isinstance(attempts, str):
        raise unexpected(attempts, "a whole number").within("max_attempts")
    if condition == "on-failure":
        return Plain(f"{word}:{attempts}")
    loc = service.loc("deploy", "restart_policy", "max_attempts")
    service.notes.changed(loc, f"so many restarts within {window} s, whether or not they succeed")
    return {"policy": word, "max_restarts": attempts, "window_s": window}


def logging(service: Service, value: object) -> Keys:
    """What Docker keeps as lines, and nothing at all. It needs no limits; what has none gets ours."""
    entries = mapping(value)
    driver, options = entries.get("driver") or "", mapping(entries.get("options") or Map(Position(0, 0)))
    if str(driver) not in DRIVERS:
        raise Wrong("there is no such driver: see logs, or send pysup's own output on, as with systemd").within(
            "driver"
        )
    known = {**OPTIONS, MODE: ""}
    for name in options:
        if name not in known:
            service.notes.dropped(
                service.loc("logging", "options", name), f"of the options there are {', '.join(known)}"
            )
    kept = {name: each for name, each in options.items() if name in known}
    if MODE in kept and str(kept[MODE]) not in MODES:
        raise Wrong(f"is {quoted(str(kept[MODE]))}", f"one of {', '.join(MODES)}").within("options", MODE)
    if "compress" in kept:
        kept["compress"] = truth(kept["compress"])
    keys = dict(keys_of(str(driver), kept))
    return {"logs": keys} if keys else {}


_ON_FAILURE = ("rollback", "pause")


def update_config(service: Service, value: object) -> Keys:
    """How a reload replaces it. There is no wait between two of them: the next one waits until the last is up."""
    config = mapping(value)
    update: Keys = {}
    for key, name in (("order", "order"), ("parallelism", "parallel"), ("failure_action", "on_failure")):
        if config.get(key) is not None:
            update[name] = config[key]
    if config.get("monitor") is not None:
        update["monitor_s"] = duration(config["monitor"])
    if update.get("on_failure", "pause") not in _ON_FAILURE:
        loc = service.loc("deploy", "update_config", "failure_action")
        service.notes.dropped(loc, "a reload pauses, or is rolled back: it does not go on", key=False)
        del update["on_failure"]
    for key in config:
        if key not in ("order", "parallelism", "failure_action", "monitor"):
            loc = service.loc("deploy", "update_config", key)
            service.notes.dropped(loc, "each waits until those before it are up, no longer and for no ratio")
    return {"update": update} if update else {}
