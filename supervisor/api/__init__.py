"""The control socket of a running stack: HTTP on a unix socket, in the words of the Docker Engine API and a few more.

So the tools that people already have (the docker CLI, docker-py, lazydocker, ctop) work with a stack. What is offered
is the table in routes.py; docs/api.md has it with the test that holds each call. Nothing here knows a service or a
machine: all of that is behind supervisor/commands.py.

limits.py      how many, how long, how large: of everything here
errors.py      what a caller is told, with its HTTP status
wire.py        bytes: the listening socket, and one connection's reads and writes
http.py        HTTP/1.1 on a wire: requests, answers, streams, connections that are handed over
routing.py     a request to its handler, across Docker's API versions
routes.py      the tables: what is offered, and what Docker has that is not
call.py        what a handler gets
queries.py     what stands in a query: truths, times, filters; fields.py: what stands in a body
server.py      `serve`: connections, their number, and what goes wrong in one of them

One module per family of calls, each a set of handlers:

shapes.py      a container in Docker's JSON
containers.py  list, inspect, rename, remove, prune, top; start, stop and the like; wait; changes.py: what it wrote
creation.py    create: Docker's configuration to the keys of a spec's container
update.py      other limits, and another restart policy
logs.py        logs, framed as frames.py has it; gather.py: many lines at once
attach.py      attach; keys.py: how to leave
exec.py        commands in a container: executions.py knows them, relay.py moves their bytes
archive.py     files in and out of a container, by tarball.py
stats.py       what a container uses
images.py      images, which are on a shelf (shelf.py)
events.py      events as Docker tells them; ring.py remembers them
bridges.py     the stack's networks
volumes.py     its volumes
system.py      ping, version, info, disk usage, metrics
own.py         /pysup/…: what Docker has no word for
"""
