"""The words of a spec with a closed set of values."""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.policy import Policy, RestartPolicy

WINDOW_S = Policy().window_s
SECCOMP_DEFAULT, SECCOMP_UNCONFINED = SECCOMP_WORDS = ("default", "unconfined")


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart policy. `max_retries` belongs to on-failure alone; None: as often as it takes.

    `max_restarts` within any `window_s` is a limit of all policies but no.
    """

    policy: RestartPolicy = RestartPolicy.NO
    max_retries: int | None = None
    max_restarts: int | None = None
    window_s: float = WINDOW_S

    def __str__(self) -> str:
        return self.policy.value if self.max_retries is None else f"{self.policy.value}:{self.max_retries}"

    def is_plain(self) -> bool:
        """Whether `str` says it all."""
        return self.max_restarts is None and self.window_s == WINDOW_S


class Storage(StrEnum):
    """Where a container's writes go."""

    DISK = "disk"
    MEMORY = "memory"
