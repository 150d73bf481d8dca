"""What a terminal shows of thousands that say the same: and that nobody else misses a word."""

from collections.abc import Mapping

import anyio
from fake import FakeRunner, Script, broken
from stage import entries, on_virtual_clock

from supervisor.reporting.crowds import CROWDS_MAX, GATHERED_S, Crowds
from supervisor.reporting.events import Events, TextEvents
from supervisor.stack.tree import Stack
from supervisor.streams.lines import Layout
from supervisor.up import _LEVELS

MANY = 2000
Happened = list[tuple[str, str | None, Mapping[str, object]]]


class Terminal:
    """Crowds, and the lines that people see."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now_s = 0.0
        events = Events(lambda data: self.lines.extend(data.decode().splitlines()), TextEvents(Layout(5, colour=False)))
        self.crowds = Crowds(events, "info", lambda: self.now_s)

    def __call__(self, event: str, *containers: str | None, **fields: object) -> None:
        for container in containers:
            self.crowds.emit(event, container=container, level=_LEVELS.get(event, "info"), **fields)

    @property
    def seen(self) -> list[str]:
        return [line.removeprefix("pysup | ") for line in self.lines]


def names(count: int, first: int = 1) -> list[str]:
    return [f"web.{number}" for number in range(first, first + count)]


def shown(**scripts: Script) -> tuple[Terminal, Happened]:
    """2,000 of web on the fake launcher: the terminal, and all that happened."""
    terminal, happened = Terminal(), Happened()

    async def play() -> None:
        async with FakeRunner(scripts) as runner, anyio.create_task_group() as tasks:
            terminal.crowds._clock = anyio.current_time

            def emit(event: str, container: str | None, fields: Mapping[str, object]) -> None:
                happened.append((event, container, fields))
                terminal(event, container, **fields)

            tasks.start_soon(terminal.crowds.run)
            await Stack(entries("web", replicas=MANY), runner, emit, starts_max=8).run()
            tasks.cancel_scope.cancel()
        terminal.crowds.flush()

    on_virtual_clock(play)
    return terminal, happened


def test_an_error_that_2000_have_in_common_is_four_lines_and_2000_times_two_events() -> None:
    terminal, happened = shown(web=broken("execute server: not found in the image"))
    why = "could not start: execute server: not found in the image"
    assert all(line.startswith("web.") and line.endswith(f": {why}") for line in terminal.seen)
    assert not any("," in line for line in terminal.seen[:3])
    (rest,) = terminal.seen[3:]
    first, _, others = rest.removesuffix(f": {why}").partition(" and ")
    assert others == "1,994 more"
    assert len(first.split(", ")) == 3
    for event in ("start_failed", "gave_up"):
        assert len({container for kind, container, _ in happened if kind == event}) == MANY


def test_slow_ones_are_told_in_between() -> None:
    terminal, _ = shown(web=Script(start_s=0.2, error=broken("no room").error))
    assert 2000 / 8 * 0.2 / (GATHERED_S + 0.2) <= len(terminal.lines) <= 2000 / 8 * 0.2 / GATHERED_S + 4


def test_starts_are_shown_one_by_one_as_long_as_they_can_be_read() -> None:
    terminal = Terminal()
    terminal("started", *names(20), pid=7)
    assert terminal.seen == [f"{name}: started (pid 7)" for name in names(20)]
    terminal("started", "web.21", pid=8)
    terminal("started", "web.22", pid=9)
    assert len(terminal.lines) == 20
    terminal("stack_up", None, count=22)
    assert terminal.seen[20:] == ["web.21, web.22: started", "all 22 containers are up"]


def test_what_differs_is_no_crowd() -> None:
    terminal = Terminal()
    for number, name in enumerate(names(30)):
        terminal("gave_up", name, reason=f"exited with status {number}")
    assert len(terminal.lines) == 30


def test_its_own_name_in_a_text_makes_no_difference() -> None:
    terminal = Terminal()
    for name in names(9):
        terminal("start_failed", name, error=f"mount /run/{name}/upper: no space")
    terminal.crowds.flush()
    assert len(terminal.lines) == 4
    assert terminal.seen[3] == "web.4, web.5, web.6 and 3 more: could not start: mount /run/web.4/upper: no space"


def test_one_that_says_the_same_again_and_again_is_no_crowd() -> None:
    terminal = Terminal()
    for _ in range(100):
        terminal("unhealthy", "web", finding="refused")
    assert len(terminal.lines) == 100


def test_after_a_while_of_silence_each_is_heard_again() -> None:
    terminal = Terminal()
    terminal("unhealthy", *names(5))
    terminal.crowds.flush()
    assert terminal.seen[3:] == ["web.4, web.5: unhealthy"]
    terminal.now_s += GATHERED_S / 2
    terminal("unhealthy", "web.6")
    assert len(terminal.lines) == 4
    terminal.crowds.flush()
    terminal.now_s += GATHERED_S * 2
    terminal("unhealthy", "web.7")
    assert terminal.seen[4:] == ["web.6: unhealthy", "web.7: unhealthy"]


def test_the_end_of_a_start_that_failed_is_not_told_twice_unless_there_is_more_to_it() -> None:
    terminal = Terminal()
    terminal("start_failed", "a", error="no room", exit_status=125)
    terminal("gave_up", "a", reason="no room")
    terminal("start_failed", "b", error="no room", exit_status=125)
    terminal("gave_up", "b", reason="no room", retries=2)
    terminal("gave_up", "c", reason="exited with status 1", last_lines=("oh",))
    assert terminal.seen == [
        "a: could not start: no room",
        "b: could not start: no room",
        "b: given up after retry 2: no room",
        "c: failed: exited with status 1",
        "c: last output: oh",
    ]


def test_there_are_never_many_crowds_and_what_they_held_is_said() -> None:
    terminal = Terminal()
    for kind in range(1000):
        terminal("gave_up", *names(5), reason=f"{kind}")
    terminal.crowds.flush()
    assert len(terminal.lines) == 4000
    assert len(terminal.crowds._crowds) <= CROWDS_MAX
