"""By what a run is heard: its output, the lines that checks wait for and sd_notify(3); and where it reads from."""

import os
from dataclasses import dataclass
from functools import partial

from runtime.config import ContainerConfig
from runtime.streams import Streams
from supervisor.core.checks import Log, Notice
from supervisor.core.policy import Policy
from supervisor.kernel.means import Tell
from supervisor.kernel.notify import Listener, Mouth
from supervisor.stack.runner import Heard
from supervisor.streams.output import Capture, Output
from supervisor.streams.watch import Watch


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
        tell: Tell,
    ) -> tuple[int, ...]:
        """Make what it is to be heard by; returns the descriptors for its start."""
        if output is not None:
            self.capture = _attach(output, config.id, made, self._watches(config.id, policy, heard, tell))
            self.terminal = made.terminal is not None
            self.stdin, made.stdin, made.terminal = made.terminal if self.terminal else made.stdin, None, None
        if not config.notify:
            return made.theirs
        self.mouth = listener.open(heard)
        return (*made.theirs, self.mouth.mount)

    def _watches(self, container: str, policy: Policy, heard: Heard, tell: Tell) -> tuple[Watch, ...]:
        watches = []
        if policy.ready is not None and isinstance(policy.ready.probe, Log):
            slow = partial(tell, "pattern_slow", container, {"key": "ready.log"})
            watches.append(Watch(policy.ready.probe.pattern, partial(heard, Notice(ready=True)), slow))
        if policy.health is not None and isinstance(policy.health.probe, Log):
            slow = partial(tell, "pattern_slow", container, {"key": "health.log"})
            self.watch = Watch(policy.health.probe.pattern, told_slow=slow)
            watches.append(self.watch)
        return tuple(watches)

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
