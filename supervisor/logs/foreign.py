"""How a container's output is kept, in Docker's words and back: `docker run --log-driver`, `logging:` of Compose. Pure.

Docker's `json-file` and `local` are lines on disk, as our `file` is. It has no limit unless one is given; ours has.
"""

from collections.abc import Iterator, Mapping

from supervisor.logs.policy import Driver, LogPolicy, Overflow

DRIVERS: Mapping[str, Driver] = {
    "": Driver.FILE,
    "json-file": Driver.FILE,
    "local": Driver.FILE,
    "none": Driver.NONE,
}
OPTIONS: Mapping[str, str] = {"max-size": "max_size", "max-file": "max_files", "compress": "compress"}
MODES: Mapping[str, Overflow] = {"blocking": Overflow.BLOCK, "non-blocking": Overflow.DROP}
MODE = "mode"


def keys_of(driver: str, options: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The keys of our `logs`. KeyError with what has no like."""
    if driver:
        yield "driver", DRIVERS[driver].value
    for name, value in options.items():
        if name == MODE:
            yield "overflow", MODES[str(value)].value
        else:
            yield OPTIONS[name], _typed(value)


def _typed(value: object) -> object:
    """Docker's options are all text."""
    if isinstance(value, str):
        if value.isdecimal():
            return int(value)
        return {"true": True, "false": False}.get(value, value)
    return value


def docker_of(policy: LogPolicy) -> tuple[str, dict[str, str]]:
    """Docker's driver and its options."""
    if policy.driver is not Driver.FILE:
        return policy.driver.value, {}
    return "json-file", {
        "max-size": str(policy.max_size_bytes),
        "max-file": str(policy.max_files),
        "compress": str(policy.compress).lower(),
        MODE: next(mode for mode, overflow in MODES.items() if overflow is policy.overflow),
    }
