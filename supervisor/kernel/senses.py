"""By what a run is heard: its output, the lines that checks wait for and sd_notify(3); and where it reads from."""

import os
from dataclasses import dataclass
from functools import partial

from runtime.config import ContainerConfig
from runtime.streams import Streams
from supervisor.core.checks import Log, Notice
from supervisor.core.policy import Policy
from supervisor.kernel.notify import Listener, Mouth
from supervisor.stack.runner import Heard
from supervisor.streams.output import Capture, Output, Watch


@dataclass(slots=True)
class Senses:
    """By what a run is heard, from before its start."""

    capture: Capture | None = None
    watch: Watch | None = None  # of a health check
    mouth: Mouth | None = None
    stdin: int | None = None  # what can be written to
    terminal: bool = False

    def open(
        self,
        config: ContainerConfig,
        made: Streams,
        policy: Policy,
        heard: Heard,
        output: Output | None,
        listener: Listener,
    ) -> tuple[int, ...]:
        """Make what it is to be heard by; returns the descriptors for its start."""
        if output is not None:
            watches = []
            if policy.ready is not None and isinstance(policy.ready.probe, Log):
                watches.append(Watch(policy.ready.probe.pattern, partial(heard, Notice(ready=True))))
            if policy.health is not None and isinstance(policy.health.probe, Log):
                self.watch = Watch(policy.health.probe.pattern)
                watches.append(self.watch)
            self.capture = _attach(output, config.id, made, tuple(watches))
            self.terminal = made.terminal is not None
            self.stdin, made.stdin, made.terminal = made.terminal if self.terminal else made.stdin, None, None
        if not config.notify:
            return made.theirs
        self.mouth = listener.open(heard)
        return (*made.theirs, self.mouth.mount)

    def begin(self) -> None:
        """It has started: hear it."""
        if self.mouth is not None:
            self.mouth.begin()
        if self.capture is not None:
            self.capture.begin()

    def close(self) -> None:
        """No run came of it."""
        if self.mouth is not None:
            self.mouth.close()
        if self.capture is not None:
            self.capture.close()
        if self.stdin is not None:
            os.close(self.stdin)


def _attach(output: Output, container: str, made: Streams, watches: tuple[Watch, ...]) -> Capture:
    """What it writes is the output's from here."""
    if made.terminal is not None:
        return output.attach(container, os.dup(made.terminal), None, watches, held=True)
    assert made.stdout is not None
    pipes, made.stdout, made.stderr = (made.stdout, made.stderr), None, None
    return output.attach(container, *pipes, watches, held=True)
