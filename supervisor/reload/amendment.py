"""What an operator has changed of a container while its stack runs (`docker update`), and how long that holds.

It holds over restarts, and over reloads for as long as the file says of the same what it said when it was changed: a
file that says something else has the last word. A stack that is started again begins with its file.
"""

from dataclasses import dataclass, replace

from runtime.cgroup.limits import Limits
from supervisor.core.policy import Restarts
from supervisor.entry import Entry


def amend(entry: Entry, limits: Limits | None = None, restarts: Restarts | None = None) -> Entry:
    """An entry with other limits, and other restarts; None: as they are."""
    policy, retries = restarts or _restarts(entry)
    return replace(
        entry,
        config=replace(entry.config, limits=entry.config.limits if limits is None else limits),
        policy=replace(entry.policy, restart=policy, max_retries=retries),
    )


def _restarts(entry: Entry) -> Restarts:
    return entry.policy.restart, entry.policy.max_retries


@dataclass(frozen=True, slots=True)
class Amendment:
    """What the file has said, and what holds in its place; where they are the same, nothing was changed."""

    filed_limits: Limits
    limits: Limits
    filed_restarts: Restarts
    restarts: Restarts

    @classmethod
    def of(cls, before: Entry, after: Entry, earlier: "Amendment | None" = None) -> "Amendment":
        """Of one entry into the other. `earlier`: what was changed already, which tells what the file has said."""
        filed = earlier or cls(before.config.limits, before.config.limits, _restarts(before), _restarts(before))
        return replace(filed, limits=after.config.limits, restarts=_restarts(after))

    def applied(self, filed: Entry) -> Entry:
        """What the file says now, and of it what still holds."""
        limits = self.limits if filed.config.limits == self.filed_limits else None
        restarts = self.restarts if _restarts(filed) == self.filed_restarts else None
        return amend(filed, limits, restarts)

    def left_by(self, entry: Entry) -> "Amendment":
        """Of a container that is this from now on: what the file had the last word on is over."""
        kept = self
        if entry.config.limits != self.limits:
            kept = replace(kept, filed_limits=entry.config.limits, limits=entry.config.limits)
        if _restarts(entry) != self.restarts:
            kept = replace(kept, filed_restarts=_restarts(entry), restarts=_restarts(entry))
        return kept
