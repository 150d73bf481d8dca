"""Files in and out of a container: `docker cp`, `docker export`.

The tar stream goes through a pipe to a thread that waits for disk and pipe alike, so nothing of it is held in memory,
and a caller who is slow holds up that thread and nobody else.
"""

import base64
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import IO, TypeVar

import anyio
from anyio import to_thread

from runtime.errors import PysupError
from runtime.userns import creating_as
from supervisor.api import limits, tarball
from supervisor.api.call import Api, Call
from supervisor.api.errors import bad
from supervisor.api.http import TAR, Answer, Answering, Headers, Reply, Stream
from supervisor.api.tarball import Manner

T = TypeVar("T")


async def stat(call: Call) -> Answering:
    """What is at a path, in a header. Where there are no files any more, the image answers: the docker command asks
    this before it sends something, and would otherwise take it for a directory that is not there.
    """
    view, path = call.container(), _path(call)
    return Answer(headers=await _looked_at(call, view.id, path, or_image=True), content_type=TAR)


async def get(call: Call) -> Answering:
    """A path and all below it, as a tar stream."""
    view, path = call.container(), _path(call)
    headers = await _looked_at(call, view.id, path)

    async def write(reply: Reply) -> None:
        async with call.commands.files(view.id) as files:

            def work(out: IO[bytes]) -> None:
                files.within(lambda root: tarball.pack(root, path, out, files.ids))

            await stream_out(call.api, work, reply)

    return Stream(write, TAR, headers)


async def export(call: Call) -> Answering:
    """`docker export`: all that is in its root, but nothing of what is mounted there."""
    view = call.container()

    async def write(reply: Reply) -> None:
        async with call.commands.files(view.id, volumes=False) as files:

            def work(out: IO[bytes]) -> None:
                files.within(lambda root: tarball.pack_all(root, out, files.ids))

            await stream_out(call.api, work, reply)

    async with call.commands.files(view.id, volumes=False):  # what is wrong is told before the first byte
        return Stream(write, TAR)


async def put(call: Call) -> Answering:
    """Unpack a tar stream at a path, which is a directory."""
    view, path, query = call.container(), _path(call), call.query
    user = view.config.user
    owner = (user.uid, user.gid) if query.truth("copyUIDGID") else None
    async with call.commands.files(view.id, write=True) as files:
        manner = Manner(owner, keep_kinds=query.truth("noOverwriteDirNonDir"), ids=files.ids)

        def unpack(source: IO[bytes], root: int) -> int:
            with creating_as(files.ids):
                return tarball.unpack(root, path, source, manner)

        def work(source: IO[bytes]) -> int:
            return files.within(partial(unpack, source))

        await stream_in(call.api, call.request.pieces(), work)
    return Answer()


def _path(call: Call) -> str:
    path = call.query.text("path")
    if not path or "\0" in path:
        raise bad("path: where in the container is needed")
    return path


async def _looked_at(call: Call, container: str, path: str, *, or_image: bool = False) -> Headers:
    async with call.commands.files(container, or_image=or_image) as files:
        found = await call.api.aside(files.within, lambda root: tarball.look(root, path))
    shape = {
        "name": found.name,
        "size": found.status.st_size,
        "mode": found.go_mode,
        "mtime": datetime.fromtimestamp(int(found.status.st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "linkTarget": found.target,
    }
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(shape).encode()).decode()}


# --- pipes to threads ------------------------------------------------------------------------------------------------


async def stream_out(api: Api, work: Callable[[IO[bytes]], None], reply: Reply) -> None:
    """Send what a thread writes."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_in_thread, api, _until_unread(_closing(work, writer, "wb")))
        try:
            while data := await _read(reader):
                await reply.send(data)
        finally:
            os.close(reader)  # the thread finds that nobody reads any more


async def stream_in(api: Api, pieces: AsyncGenerator[bytes, None], work: Callable[[IO[bytes]], T]) -> T:
    """Have a thread read what comes; returns what it does."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    broken: list[Exception] = []

    async def feed() -> None:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    await _write(writer, piece)
        except BrokenPipeError:  # the thread has had enough
            pass
        except Exception as error:  # noqa: BLE001 (told below, when the thread is done)
            broken.append(error)
        finally:
            os.close(writer)

    failed: PysupError | OSError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed)
        try:
            done = await _in_thread(api, _closing(work, reader, "rb"))
        except (PysupError, OSError) as error:
            failed = error
            tasks.cancel_scope.cancel()
    if broken:
        raise broken[0]  # what came was not all
    if failed is not None:
        raise failed
    return done


async def _in_thread(api: Api, work: Callable[[], T]) -> T:
    return await to_thread.run_sync(work, limiter=api.archives)


def _until_unread(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with suppress(BrokenPipeError):  # nobody wants the rest
            work()

    return run


def _closing(work: Callable[[IO[bytes]], T], descriptor: int, mode: str) -> Callable[[], T]:
    def run() -> T:
        with os.fdopen(descriptor, mode, buffering=limits.CHUNK_BYTES) as file:
            return work(file)

    return run


async def _read(descriptor: int) -> bytes:
    while True:
        try:
            return os.read(descriptor, limits.CHUNK_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(descriptor)


async def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            await anyio.wait_writable(descriptor)
