"""The words of a spec with a closed set of values."""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.policy import RestartPolicy


@dataclass(frozen=True, slots=True)
class Restart:
    """A restart policy. `max_retries` belongs to on-failure alone; None: as often as it takes."""

    policy: RestartPolicy = RestartPolicy.NO
    max_retries: int | None = None

    def __str__(self) -> str:
        return self.policy.value if self.max_retries is None else f"{self.policy.value}:{self.max_retries}"


class Storage(StrEnum):
    """Where a container's writes go."""

    DISK = "disk"
    MEMORY = "memory"
