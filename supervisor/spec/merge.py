"""Mappings laid over one another: a container over what it extends, a file over the one before it, as Compose does.

Mappings are joined key by key, and lists of what comes in any order are appended; all else is replaced, a command or a
list of exit statuses too. A check has one probe: another one takes its place. What is taken from either side keeps its
place in its file (tree.py).
"""

from supervisor.spec.faults import Loc
from supervisor.spec.mounts import target_of
from supervisor.spec.probes import OF_A_PROBE, PROBES
from supervisor.spec.tree import DEFAULTS, Filled, Map, Seq, Spot

CHECKS = ("ready", "health")
APPENDED = ("cap_add", "cap_drop", "profiles", "env_file", "include", "ports", "aliases", "extra_hosts")
BY_TARGET = ("volumes", "tmpfs", "secrets", "configs", "devices")
CONTAINERS = "containers"
_ASSIGNED = ("env", "sysctls")  # a list of them has NAME=value


def laid(over: Map, base: Map, over_at: Loc, base_at: Loc) -> Map:
    """Both in one; what leads to each of them in its file is told too. It stands where `over` does."""
    result = Map(over.position)
    result.home = over.home or over_at
    if over.whole:
        base = Map(base.position)
    for key in base:
        if key not in over.resets:
            result.inherit(key, base, base_at)
    for key in over:
        value = _joined(key, over, base, over_at, base_at) if key in base else over[key]
        result.put(key, value, over.spots[key])
        result.homes[key] = over.homes.get(key, over_at)
    return result


def _joined(key: str, over: Map, base: Map, over_at: Loc, base_at: Loc) -> object:
    upper, lower = (as_map(key, side[key]) for side in (over, base))
    if isinstance(upper, Map) and isinstance(lower, Map):
        lower = without_other_probe(key, upper, lower)
        places = [(*side.homes.get(key, at), key) for side, at in ((over, over_at), (base, base_at))]
        return laid(upper, lower, *places)
    if key in APPENDED and isinstance(upper, Seq) and isinstance(lower, Seq) and not upper.whole:
        return _appended(upper, lower)
    if key in BY_TARGET and isinstance(upper, Seq) and isinstance(lower, Seq) and not upper.whole:
        return _by_target(key, upper, lower)
    return over[key]


def without_other_probe(key: str, over: Map, base: Map) -> Map:
    """A check, less its probe if the one over it has its own."""
    return base.without(*OF_A_PROBE) if key in CHECKS and any(probe in over for probe in PROBES) else base


def _appended(over: Seq, base: Seq) -> Seq:
    """Each word once."""
    result = Seq(over.position)
    words: set[str] = set()
    for side in (base, over):
        for value, position in zip(side, side.spots, strict=True):
            if not isinstance(value, str) or value not in words:
                result.put(value, position)
            if isinstance(value, str):
                words.add(str(value))
    return result


def _by_target(key: str, over: Seq, base: Seq) -> Seq:
    """What is mounted over something takes its place."""
    result = Seq(over.position)
    taken = {target_of(key, value) for value in over} - {None}
    for value, position in zip(base, base.spots, strict=True):
        if target_of(key, value) not in taken:
            result.put(value, position)
    for value, position in zip(over, over.spots, strict=True):
        result.put(value, position)
    return result


def as_map(key: str, value: object) -> object:
    """A list of variables, dependencies or networks, as a mapping; as it was if it has faults: they are told of it."""
    if not isinstance(value, Seq) or key not in {*_ASSIGNED, "depends_on", "networks"}:
        return value
    result = Map(value.position)
    result.whole = value.whole
    for entry, position in zip(value, value.spots, strict=True):
        name, equals, text = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if name in result or not name or (key in _ASSIGNED and not equals):
            return value
        put: object = _retyped(entry, text) if key in _ASSIGNED else Map(position)
        result.put(name if key in _ASSIGNED else str(entry), put, Spot(position, position))
    return result


def _retyped(entry: object, text: str) -> str:
    """Part of a text with variables is one, too."""
    return Filled(text, entry.origins) if isinstance(entry, Filled) else text


def documents(over: Map, base: Map) -> Map:
    """A file over the one before it. Containers are matched by their ids; those that are new come last."""
    upper, lower = over.get(CONTAINERS), base.get(CONTAINERS)
    result = laid(over.without(CONTAINERS), base.without(CONTAINERS), (), ())
    result.home, result.position = None, base.position
    for side in (base, over):
        if CONTAINERS in side:
            result.put(CONTAINERS, side[CONTAINERS], side.spots[CONTAINERS])
    if isinstance(upper, Seq) and isinstance(lower, Seq) and not upper.whole:
        result[CONTAINERS] = _containers(upper, lower)
    return result


def _containers(over: Seq, base: Seq) -> Seq:
    result = Seq(base.position)
    places: dict[str, int] = {}
    for container, position in zip(base, base.spots, strict=True):
        if isinstance(container, Map) and isinstance(id_ := container.get("id"), str):
            places.setdefault(id_, len(result))
        result.put(container, position)
    for container, position in zip(over, over.spots, strict=True):
        id_ = container.get("id") if isinstance(container, Map) else None
        if isinstance(container, Map) and isinstance(id_, str) and id_ in places:
            result[places[id_]] = _laid_over(container, result[places[id_]])
        else:
            result.put(container, position)
    return result


def _laid_over(container: Map, base: object) -> Map:
    """It stays where the first one was."""
    assert isinstance(base, Map)
    joined = laid(container, base, home_of(container), home_of(base))
    joined.position, joined.home = base.position, base.home
    return joined


def home_of(container: Map) -> Loc:
    """What leads to a container in its file."""
    assert container.home is not None
    return container.home


def settle(document: Map) -> None:
    """Tell the defaults and each container of a file what leads to them there, wherever they go."""
    containers = document.get(CONTAINERS)
    for index, container in enumerate(containers if isinstance(containers, Seq) else ()):
        if isinstance(container, Map):
            containers[index] = _settled(container, (CONTAINERS, index))  # type: ignore[index]  # it is the Seq above
    if isinstance(under := document.get(DEFAULTS), Map):
        document[DEFAULTS] = _settled(under, (DEFAULTS,))


def _settled(entries: Map, home: Loc) -> Map:
    """An alias may have put one in two places."""
    result = entries if entries.home is None else entries.copy()
    result.home = home
    return result


def with_variables(container: Map, found: Map) -> Map:
    """A container with the variables of a file under its own."""
    own = as_map("env", container.get("env", Map(container.position)))
    if not isinstance(own, Map):
        return container
    result = container.copy()
    result.put("env", own.over(found, ()), container.spots.get("env", Spot(found.position, found.position)))
    return result
