"""The tables: every call that is offered, and what Docker has beyond. docs/api.md has the first with its tests."""

from collections.abc import Iterable
from typing import Final

from supervisor.api import (
    archive,
    attach,
    bridges,
    containers,
    creation,
    events,
    exec,  # noqa: A004 (named after what it serves)
    images,
    logs,
    own,
    stats,
    system,
    update,
    volumes,
)
from supervisor.api.routing import Gap, Route, Routes

OFFERED: Final = (
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/system/df", system.disk_usage),
    Route("GET", "/events", events.events),
    Route("GET", "/metrics", system.metrics),
    Route("GET", "/containers/json", containers.every),
    Route("POST", "/containers/create", creation.create),
    Route("POST", "/containers/prune", containers.prune),
    Route("GET", "/containers/{id}/json", containers.inspect),
    Route("POST", "/containers/{id}/start", containers.start),
    Route("POST", "/containers/{id}/stop", containers.stop),
    Route("POST", "/containers/{id}/restart", containers.restart),
    Route("POST", "/containers/{id}/kill", containers.kill),
    Route("POST", "/containers/{id}/pause", containers.pause),
    Route("POST", "/containers/{id}/unpause", containers.unpause),
    Route("POST", "/containers/{id}/wait", containers.wait),
    Route("POST", "/containers/{id}/update", update.update),
    Route("POST", "/containers/{id}/rename", containers.rename),
    Route("POST", "/containers/{id}/resize", containers.resize),
    Route("DELETE", "/containers/{id}", containers.remove),
    Route("GET", "/containers/{id}/top", containers.top),
    Route("GET", "/containers/{id}/changes", containers.diff),
    Route("GET", "/containers/{id}/logs", logs.logs),
    Route("GET", "/containers/{id}/stats", stats.stats),
    Route("POST", "/containers/{id}/attach", attach.attach),
    Route("HEAD", "/containers/{id}/archive", archive.stat),
    Route("GET", "/containers/{id}/archive", archive.get),
    Route("PUT", "/containers/{id}/archive", archive.put),
    Route("GET", "/containers/{id}/export", archive.export),
    Route("POST", "/containers/{id}/exec", exec.create),
    Route("POST", "/exec/{id}/start", exec.start),
    Route("POST", "/exec/{id}/resize", exec.resize),
    Route("GET", "/exec/{id}/json", exec.inspect),
    Route("GET", "/images/json", images.every),
    Route("POST", "/images/load", images.load),
    Route("POST", "/images/create", images.create),
    Route("POST", "/images/prune", images.prune),
    Route("POST", "/build/prune", images.prune_builds),
    Route("GET", "/images/{name...}/json", images.inspect),
    Route("POST", "/images/{name...}/tag", images.tag),
    Route("DELETE", "/images/{name...}", images.remove),
    Route("GET", "/networks", bridges.every),
    Route("GET", "/networks/{name}", bridges.inspect),
    Route("POST", "/networks/prune", bridges.prune),
    Route("GET", "/plugins", system.plugins),
    Route("GET", "/plugins/{name...}/json", system.plugin),
    Route("GET", "/volumes", volumes.every),
    Route("POST", "/volumes/prune", volumes.prune),
    Route("POST", "/volumes/create", volumes.create),
    Route("GET", "/volumes/{name}", volumes.inspect),
    Route("DELETE", "/volumes/{name}", volumes.remove),
    Route("GET", "/pysup/stack", own.stack),
    Route("GET", "/pysup/ps", own.listing),
    Route("GET", "/pysup/stats", stats.every),
    Route("POST", "/pysup/down", own.down),
    Route("POST", "/pysup/reload", own.reload),
    Route("POST", "/pysup/scale", own.scale),
    Route("POST", "/pysup/exec/{id}/kill", own.signal_execution),
    Route("GET", "/pysup/events", own.events),
)


def _family(path: str, what: str, instead: str) -> Iterable[Gap]:
    """All calls of a path, and below it."""
    return Gap("*", path, what, instead), Gap("*", f"{path}/{{rest...}}", what, instead)


_SPEC = "the stack's networks are those of its spec: change it, and `pysup reload`"
_STACKS = "a stack is one machine's"

NOT_OFFERED: Final = (
    Gap("GET", "/containers/{id}/attach/ws", "attaching by websocket", "use POST /containers/ID/attach"),
    Gap("POST", "/commit", "making an image of a container", "make one by `pysup image create`"),
    Gap("GET", "/images/search", "searching a registry", "images are directories on this machine"),
    Gap("GET", "/images/get", "saving an image", "its directory is in GET /images/NAME/json"),
    Gap("GET", "/images/{name...}/get", "saving an image", "its directory is in GET /images/NAME/json"),
    Gap("GET", "/images/{name...}/history", "an image's history", "an image is one directory"),
    Gap("POST", "/images/{name...}/push", "pushing an image", "copy its directory"),
    *_family("/build", "building an image", "make one by `pysup image create`, or docker import one"),
    *_family("/session", "building an image", "make one by `pysup image create`, or docker import one"),
    *_family("/grpc", "building an image", "make one by `pysup image create`, or docker import one"),
    *_family("/auth", "logging in to a registry", "images are directories on this machine"),
    *_family("/distribution", "asking a registry", "images are directories on this machine"),
    Gap("POST", "/networks/create", "making a network", _SPEC),
    Gap("POST", "/networks/{name}/connect", "connecting a container to a network", _SPEC),
    Gap("POST", "/networks/{name}/disconnect", "disconnecting a container from a network", _SPEC),
    Gap("DELETE", "/networks/{name}", "removing a network", _SPEC),
    Gap("PUT", "/volumes/{name}", "updating a volume", "it is a directory"),
    *_family("/plugins", "installing plugins", "there are none"),
    *_family("/swarm", "swarm mode", _STACKS),
    *_family("/nodes", "swarm mode", _STACKS),
    *_family("/services", "swarm mode", _STACKS),
    *_family("/tasks", "swarm mode", _STACKS),
    *_family("/secrets", "swarm mode", _STACKS),
    *_family("/configs", "swarm mode", _STACKS),
)

ROUTES: Final = Routes(OFFERED, NOT_OFFERED)
