"""Entries for containers that the spec does not know: the API's, made while the stack runs.

What checks them (pydantic, the spec's types) is loaded with the first one, in a thread, for most stacks never need it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from anyio import to_thread

from supervisor.entry import Entry
from supervisor.logs.writer import LogWriter
from supervisor.state.home import Home

Discard = Callable[[str, Path, Path], None]  # (container, directory, where what a killed supervisor left is swept)
Attach = Callable[[str], Awaitable[None]]  # show a directory to the launchers


class ApiWorkshop:
    """See `Workshop`. `images` is where they are looked for."""

    def __init__(
        self,
        home: Home,
        images: tuple[Path, ...],
        attach: Attach,
        logs: LogWriter,
        leave: Callable[[str], None],
        discard: Discard,
        *,
        networked: bool,
    ) -> None:
        self._home = home
        self._images = images
        self._attach = attach
        self._logs = logs
        self._leave = leave  # give up its network
        self._discard = discard  # throw away what it has written
        self._networked = networked

    async def entry(self, id_: str, image: str, config: Mapping[str, object], *, tty: bool, stdin: bool) -> Entry:
        """See `Workshop.entry`."""
        made = await to_thread.run_sync(partial(self._make, {**config, "id": id_, "image": image}))
        for lower in made.config.lowers:
            await self._attach(lower)
        return replace(made, config=replace(made.config, terminal=tty, stdin=stdin and not tty, lasting=True))

    def _make(self, keys: Mapping[str, object]) -> Entry:
        from supervisor import spec  # noqa: PLC0415 (see above)
        from supervisor.compile.compiler import Images, compile_one  # noqa: PLC0415 (loaded with the first one)

        return compile_one(spec.container(keys), Images(self._images), self._home, networked=self._networked)

    def volumes(self) -> Path:
        """See `Workshop.volumes`."""
        return self._home.volumes

    def forget(self, id_: str, volumes: Iterable[str]) -> None:
        """See `Workshop.forget`."""
        self._leave(id_)
        self._logs.remove(id_)
        for each in (Path(self._home.of(id_, keep=False)), *(self._home.volumes / volume for volume in volumes)):
            self._discard(id_, each, self._home.runs)
