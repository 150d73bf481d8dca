"""The words of a spec with a closed set of values."""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.policy import Policy, RestartPolicy

WINDOW_S = Policy().window_s
SECCOMP_DEFAULT = "default"
SECCOMP_WORDS = (SECCOMP_DEFAULT, "unconfined")


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


@dataclass(frozen=True, slots=True)
class Publication:
    """Ports of a container, first and last, and those of the host that lead to them; None: any that are free."""

    target: tuple[int, int]
    published: tuple[int, int] | None = None
    address: str = ""  # of the host; empty: all of them
    protocol: str = "tcp"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        published = "" if self.published is None else _range(self.published)
        before = f"{host}:{published}:" if host else f"{published}:" if published else ""
        return f"{before}{_range(self.target)}" + ("" if self.protocol == "tcp" else f"/{self.protocol}")


def _range(span: tuple[int, int]) -> str:
    low, high = span
    return str(low) if low == high else f"{low}-{high}"


class Storage(StrEnum):
    """Where a container's writes go."""

    DISK = "disk"
    MEMORY = "memory"


class Oom(StrEnum):
    """What is killed when a container's memory has run out."""

    PROCESS = "kill-process"  # the one that the kernel chooses
    GROUP = "kill-group"  # all of the container


class Enforce(StrEnum):
    """What a limit that the host can't enforce is."""

    STRICT = "strict"  # an error before anything starts
    BEST_EFFORT = "best-effort"  # a warning
