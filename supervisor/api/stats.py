"""What a container uses, again and again: `docker stats`."""

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import anyio
import anyio.lowlevel

from supervisor.api import limits
from supervisor.api.call import Call, now
from supervisor.api.http import Answering, Reply, Stream, encoded, shown
from supervisor.api.shapes import NEVER, Shape, is_running, moment
from supervisor.commands import Figures, View
from supervisor.errors import ConflictError, NoSuchContainerError

_COUNTED = (  # in their order there; those with a line before them are not Docker's
    *("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "_fifo", "_frame", "_compressed", "_multicast"),
    *("tx_bytes", "tx_packets", "tx_errors", "tx_dropped"),
)
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


async def stats(call: Call) -> Answering:
    """One sample, two to tell a share of the processors by, or one after the other until the caller leaves."""
    view, query = call.container(), call.query
    if query.truth("stream", default=True):

        async def write(reply: Reply) -> None:
            last = None
            while (sample := await _sample(call, view.id)) is not None:
                await reply.send(encoded(_shape(sample, last)))
                last = sample
                with anyio.move_on_after(limits.STATS_EVERY_S):
                    await call.api.leaving.wait()
                    return

        return Stream(write)
    first = None
    if not query.truth("one-shot") and is_running(view):
        first = await _sample(call, view.id)
        await anyio.sleep(limits.STATS_EVERY_S)
    sample = await _sample(call, view.id) or Sample(view, now(), 0, Figures())
    return shown(_shape(sample, first))


async def every(call: Call) -> Answering:
    """Of all that run, at one go: a thousand requests would take longer than what they are for."""
    found = []
    for view in call.commands.views():
        if is_running(view):
            with suppress(ConflictError):  # it has ended just now
                if (sample := await _sample(call, view.id)) is not None:
                    found.append(_shape(sample, None))
            await anyio.lowlevel.checkpoint()  # others have their turns
    return shown(found)


class Sample:
    """A container's figures at a moment."""

    def __init__(self, view: View, at: float, machine_ns: int, figures: Figures) -> None:
        self.view = view
        self.at = at
        self.machine_ns = machine_ns  # of all processors, idle or not
        self.figures = figures
        self.traffic = _traffic(view)


async def _sample(call: Call, container: str) -> Sample | None:
    """None: it was removed. One that does not run uses nothing."""
    try:
        view = call.commands.find(container)
        if view.id != container:  # another's name begins alike
            return None
        figures = await call.commands.figures(container) if is_running(view) else Figures()
    except NoSuchContainerError:
        return None
    return Sample(view, now(), _machine_ns(), figures)


def _traffic(view: View) -> Shape:
    """By the interfaces of its network: proc_pid_net(5), dev. The host's own are nobody's."""
    if view.pid is None or not view.connections.ends:
        return {}
    try:
        with Path(f"/proc/{view.pid}/net/dev").open(encoding="ascii") as file:
            lines = [line.partition(":") for line in file.readlines()[2:]]
    except OSError:  # it has ended just now
        return {}
    counts = {name.strip(): [int(word) for word in rest.split()] for name, _, rest in lines}
    return {name: _counted(found) for name, found in counts.items() if name != "lo"}


def _counted(found: list[int]) -> Shape:
    return {name: count for name, count in zip(_COUNTED, found, strict=False) if name[0] != "_"}


def _machine_ns() -> int:
    """proc_stat(5), the first line: user nice system idle iowait irq softirq steal; guests are in user."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        return sum(map(int, file.readline().split()[1:9])) * _TICK_NS


def _shape(sample: Sample, last: Sample | None) -> Shape:
    figures = sample.figures
    pids = {"current": figures.pids, "limit": figures.pids_max}
    return {
        "read": moment(sample.at),
        "preread": NEVER if last is None else moment(last.at),
        "pids_stats": {name: value for name, value in pids.items() if value is not None},
        "blkio_stats": {
            "io_service_bytes_recursive": _blocks(figures.read_bytes, figures.written_bytes),
            "io_serviced_recursive": _blocks(figures.reads, figures.writes),
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _processors(sample),
        "precpu_stats": _processors(last),
        "memory_stats": _memory(figures),
        "pressure": _pressure(figures),
        "name": f"/{sample.view.id}",
        "id": sample.view.key,
        "networks": sample.traffic,
    }


def _processors(sample: Sample | None) -> Shape:
    figures = Figures() if sample is None else sample.figures
    shape: Shape = {
        "cpu_usage": {
            "total_usage": figures.cpu_ns or 0,
            "usage_in_kernelmode": figures.cpu_system_ns or 0,
            "usage_in_usermode": figures.cpu_user_ns or 0,
        },
        "throttling_data": {
            "periods": 0,
            "throttled_periods": figures.cpu_throttled_periods or 0,
            "throttled_time": figures.cpu_throttled_ns or 0,
        },
    }
    if sample is not None:
        shape |= {"system_cpu_usage": sample.machine_ns, "online_cpus": len(os.sched_getaffinity(0))}
    return shape


def _memory(figures: Figures) -> Shape:
    """Without a limit of its own, the machine's memory is one. Clients take `inactive_file` off what is used."""
    if figures.memory_bytes is None:
        return {}
    more = {
        "inactive_file": figures.memory_inactive_file_bytes,
        "swap": figures.swap_bytes,
        "oom_kill": figures.oom_kills,
    }
    return {
        "usage": figures.memory_bytes,
        "max_usage": figures.memory_peak_bytes or 0,
        "limit": figures.memory_max_bytes or machine_memory_bytes(),
        "stats": {name: value for name, value in more.items() if value is not None},
    }


def _pressure(figures: Figures) -> Shape:
    """Not of Docker's: how long its processes waited for each resource (PSI, with cgroup v2)."""
    return {name: asdict(each) for name, each in figures.pressure.items()}


def machine_memory_bytes() -> int:
    """All of it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _blocks(read: int | None, written: int | None) -> list[Shape] | None:
    if read is None and written is None:
        return None
    values = (("read", read or 0), ("write", written or 0))
    return [{"major": 0, "minor": 0, "op": name, "value": value} for name, value in values]
