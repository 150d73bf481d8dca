"""docs/states.md, made from the machine's own table: `python -m tests.support.states_page > docs/states.md`."""

import inspect
import sys
from collections.abc import Iterable, Iterator

from supervisor.core.machine import TABLE, table
from supervisor.core.states import LIVE, Phase
from supervisor.core.transitions import Handler, ignored

MEANINGS = {
    Phase.CREATED: "Nobody has asked for anything yet.",
    Phase.WAITING: "It waits for what it depends on, before every start: the first, and each one after a run.",
    Phase.STARTING: "It waits for its turn to start, or its launch is under way. A launch can't be called back.",
    Phase.ACTIVATING: "It runs, and its ready check has not passed yet.",
    Phase.RUNNING: "It serves, as far as is known; its health is looked at from here on.",
    Phase.STOPPING: "Its stop command, if it has one, then its stop signal were sent; the grace period runs.",
    Phase.KILLING: "SIGKILL was sent, and its end has not come yet.",
    Phase.STUCK: "It was killed, and the kernel does not let go of it. Nobody waits for it any more.",
    Phase.BACKOFF: "It will be started again, after a wait that grows each time.",
    Phase.EXITED: "It has completed, or it was stopped as wanted.",
    Phase.FAILED: "It has failed for good, or what it depends on has.",
}
HEAD = """# The states of a container

Made by `python -m tests.support.states_page` from `supervisor/core/machine.py`, which says how it works; a
test compares.

A container is in one *phase*. *Events* happen to it: `Start`, `Restart`, `Stop` and `Kill` are asked for by users, by
the stack, or by what it depends on, `Pause` and `Unpause` by users; `Due` means that a time has come that the phase had
set; all others are answers to what the machine asked for, or are said by the run. For each phase and event a *handler*
says what is done, and which phase follows.

A paused container is in the phase that it was in, frozen, and its clock stands still: no check is tried, nothing is
due, and the time until it is unpaused counts neither towards its `timeout_s` nor towards any other limit. When it goes
on, what had to be heard or looked at gets a whole fresh interval. Whatever is to end it lets it go on first. So is one
that others have frozen: `Frozen` comes in place of `Due`, as long as it is.
"""
PICTURE = """## The picture

Only what leads to another phase is shown. What starts at the frame holds for every phase in it: a run may end in any.
"""


def page() -> str:
    """The whole of it."""
    phases = [f"| {phase} | {MEANINGS[phase]} |" for phase in Phase]
    handlers = [f"| {each.name} | {told(each)} | {', '.join(each.targets) or '-'} |" for each in all_handlers()]
    return "\n".join(
        [
            HEAD,
            "## Phases\n",
            "| phase | meaning |\n| --- | --- |",
            *phases,
            "",
            PICTURE,
            "```mermaid",
            *diagram(),
            "```\n",
            "## The table\n",
            "An empty cell: that can't happen there, and is a bug in whoever drives the machine.\n",
            table(),
            "## Handlers\n",
            "| handler | what it does | may lead to |\n| --- | --- | --- |",
            *handlers,
            "",
        ]
    )


def told(handler: Handler) -> str:
    """Its docstring, on one line."""
    return " ".join((inspect.getdoc(handler.handle) or "").split())


def all_handlers() -> Iterable[Handler]:
    """In the order of the source."""
    unique = {handler.name: handler for handler in TABLE.values()}
    return sorted(unique.values(), key=lambda each: each.handle.__code__.co_firstlineno)


# --- the picture ------------------------------------------------------------------------------------------------------

FRAME = "run"  # around the phases that have a run
Edges = dict[tuple[str, str], list[str]]  # from and to, with the events


def diagram() -> Iterator[str]:
    """A state diagram in mermaid's words: https://mermaid.js.org/syntax/stateDiagram.html."""
    yield "stateDiagram-v2"
    yield f'    state "there is a run" as {FRAME} {{'
    inside = {str(phase) for phase in LIVE}
    for (before, after), events in edges().items():
        if {before, after} <= inside:
            yield f"        {before} --> {after}: {', '.join(events)}"
    yield "    }"
    yield f"    [*] --> {Phase.CREATED}"
    for (before, after), events in edges().items():
        if not {before, after} <= inside:
            yield f"    {before} --> {after}: {', '.join(events)}"


def edges() -> Edges:
    """One for each two phases. What leads out of all phases with a run, leads out of their frame."""
    found: Edges = {}
    for (phase, event), handler in TABLE.items():
        for target in handler.targets if handler is not ignored else ():
            everywhere = all(target in TABLE[each, event].targets for each in LIVE if (each, event) in TABLE)
            shared = phase in LIVE and target not in LIVE and everywhere
            events = found.setdefault((FRAME if shared else str(phase), str(target)), [])
            if event.__name__ not in events:
                events.append(event.__name__)
    return found


if __name__ == "__main__":
    sys.stdout.write(page())
