"""`pysup stats`: what containers use, once or again and again.

Every round asks once, for all containers or for each that is named; the share of the processors is reckoned here, from
one round to the next.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from supervisor.cli import options, stacks
from supervisor.cli.table import in_bytes, table
from supervisor.cli.together import side_by_side
from supervisor.client import name_in_path
from supervisor.errors import GoneError, NoSuchContainerError

EVERY_S = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_HEAD = ("NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "BLOCK I/O", "PIDS", "PRESSURE")

Sample = Mapping[str, Any]
Round = Mapping[str, Sample]


@click.command()
@options.on_stack
@options.ids
@click.option("--no-stream", "once", is_flag=True, help="One round only.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object per container and round.")
def stats(stack: stacks.Stack, ids: tuple[str, ...], *, once: bool, as_json: bool) -> None:
    """Show what containers use: processor, memory, disk, processes. Until Ctrl-C."""
    out = sys.stdout
    last = _round(stack, ids)
    while True:
        time.sleep(EVERY_S)
        try:
            now = _round(stack, ids)
        except GoneError:
            return  # it has ended
        figures = [_figures(name, sample, last.get(name)) for name, sample in now.items()]
        if as_json:
            out.write("".join(json.dumps(each) + "\n" for each in figures))
        else:
            out.write((_HOME_AND_CLEAR if out.isatty() and not once else "") + table(_HEAD, list(map(_row, figures))))
        out.flush()
        if once:
            return
        last = now


def _round(stack: stacks.Stack, ids: tuple[str, ...]) -> Round:
    if not ids:
        return {sample["name"].removeprefix("/"): sample for sample in stack.client.get("/pysup/stats")}

    def sample(container: stacks.Listed) -> Sample | None:
        path = f"/containers/{name_in_path(str(container['id']))}/stats"
        try:
            found: Sample = stack.client.get(path, stream=False, **{"one-shot": True})
        except NoSuchContainerError:  # it was removed just now
            return None
        return found

    chosen = [each for each in stacks.selected(stack.containers(), ids) if each["running"]]
    done, errors = side_by_side(sample, chosen)
    if errors:
        raise errors[0]
    return {str(container["id"]): found for container, found in done if found is not None}


def _figures(name: str, sample: Sample, last: Sample | None) -> dict[str, Any]:
    memory = sample["memory_stats"]
    blocks = sample["blkio_stats"]["io_service_bytes_recursive"] or ()
    moved = {each["op"]: each["value"] for each in blocks}
    return {
        "name": name,
        "cpu_percent": _cpu_percent(sample["cpu_stats"], last["cpu_stats"]) if last else None,
        "memory_bytes": memory.get("usage"),
        "memory_max_bytes": memory.get("limit"),
        "read_bytes": moved.get("read"),
        "written_bytes": moved.get("write"),
        "pids": sample["pids_stats"].get("current"),
        "pids_max": sample["pids_stats"].get("limit"),
        "memory_peak_bytes": memory.get("max_usage"),
        "swap_bytes": memory.get("stats", {}).get("swap"),
        "oom_kills": memory.get("stats", {}).get("oom_kill"),
        "cpu_throttled_ns": sample["cpu_stats"]["throttling_data"]["throttled_time"],
        "pressure": sample.get("pressure", {}),
    }


def _cpu_percent(now: Mapping[str, Any], last: Mapping[str, Any]) -> float:
    """Of one processor, as Docker has it: two that are busy are 200."""
    used = now["cpu_usage"]["total_usage"] - last["cpu_usage"]["total_usage"]
    machine = now["system_cpu_usage"] - last["system_cpu_usage"]
    return round(100 * now["online_cpus"] * used / machine, 2) if machine > 0 <= used else 0.0


def _row(figures: Mapping[str, Any]) -> list[str]:
    usage, limit = figures["memory_bytes"], figures["memory_max_bytes"]
    return [
        figures["name"],
        "-" if figures["cpu_percent"] is None else f"{figures['cpu_percent']:.2f}%",
        "-" if usage is None else f"{in_bytes(usage)} / {in_bytes(limit)}",
        "-" if usage is None else f"{100 * usage / limit:.2f}%",
        "-"
        if figures["read_bytes"] is None
        else f"{in_bytes(figures['read_bytes'])} / {in_bytes(figures['written_bytes'])}",
        "-" if figures["pids"] is None else str(figures["pids"]),
        _pressures(figures["pressure"]),
    ]


def _pressures(pressure: Mapping[str, Any]) -> str:
    """The share of the last ten seconds in which something waited for each resource, where that is more than none."""
    shares = {name: each["some_percent"] for name, each in pressure.items()}
    if not shares:
        return "-"
    return " ".join(f"{name} {share:.0f}%" for name, share in shares.items() if share >= 1) or "none"
