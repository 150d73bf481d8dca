"""`pysup events`: what happens in a stack, as it happens."""

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import click

from supervisor.cli import options, stacks
from supervisor.streams.lines import rfc3339


@click.command()
@options.on_stack
@options.ids
@click.option("--json", "as_json", is_flag=True, help="A JSON object per line.")
@click.option("--since", metavar="TIME", help="Also what was before: since 10m ago, or since a time in RFC 3339.")
@click.option("--no-follow", "past", is_flag=True, help="Only what was, not what comes; as long as it is remembered.")
def events(stack: stacks.Stack, ids: tuple[str, ...], *, as_json: bool, since: str | None, past: bool) -> None:
    """Print what happens, until Ctrl-C or the end of the stack."""
    wanted = {each["id"] for each in stacks.selected(stack.containers(), ids)} if ids else None
    query = {"since": since or ("1" if past else None), "follow": not past}
    with stack.client.request("GET", "/pysup/events", query) as reply:
        for happening in map(json.loads, reply.lines()):
            if wanted is None or happening["container"] in wanted:
                sys.stdout.writelines(_shown(happening, as_json=as_json))
                sys.stdout.flush()


def _shown(happening: Mapping[str, Any], *, as_json: bool) -> Iterator[str]:
    from supervisor.reporting.events import sentence  # noqa: PLC0415 (loads structlog)

    fields = dict(happening["fields"])
    with suppress(ValueError, KeyError):  # none, or one in real time that has no name
        fields["signal"] = signal.Signals(fields["signal"]).name
    time = rfc3339(happening["at"])
    if as_json:
        head = {"timestamp": time, "event": happening["event"], "container": happening["container"]}
        yield json.dumps({**head, **fields}) + "\n"
        return
    fields.pop("exec_id", None)  # 64 digits that tell people nothing
    subject = f"{happening['container']}: " if happening["container"] else ""
    yield f"{time} {subject}{sentence({'event': happening['event'], **fields})}\n"
