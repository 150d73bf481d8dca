"""The numbered files of a log's directory: `7.log`, `6.log.gz`."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PART = ".part"  # a compressed file that is not complete
_NAME = re.compile(r"(\d+)\.log(\.gz)?")


@dataclass(frozen=True, slots=True, order=True)
class LogFile:
    """One of them, by its name."""

    number: int
    packed: bool

    @property
    def name(self) -> str:
        return f"{self.number}.log{'.gz' if self.packed else ''}"


def listed(directory: Path) -> list[LogFile]:
    """By number. Of one that is there twice, as its compression was not quite over, the original."""
    found: dict[int, LogFile] = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in directory.iterdir():
            if match := _NAME.fullmatch(path.name):
                file = LogFile(int(match[1]), packed=bool(match[2]))
                found[file.number] = min(file, found.get(file.number, file))
    return sorted(found.values())


def remove_remains(directory: Path) -> None:
    """Of a compression that a crash cut short: its part, or its result where the original is still there."""
    kept = {file.name for file in listed(directory)}
    for path in directory.iterdir():
        if path.suffix == PART or (_NAME.fullmatch(path.name) and path.name not in kept):
            path.unlink()
