"""Compose files as text, and what becomes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from supervisor.compose import Converted, convert

Import = Callable[[str], Converted]


@pytest.fixture(scope="session")
def compose_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that each test overwrites, so that hypothesis may use it too."""
    return tmp_path_factory.mktemp("demo") / "compose.yaml"


@pytest.fixture(scope="session")
def imported(compose_file: Path) -> Import:
    def imported(text: str) -> Converted:
        compose_file.write_text(text)
        return convert(str(compose_file))

    return imported


@pytest.fixture(scope="session")
def container(imported: Import) -> Callable[[str], dict[str, object]]:
    """The container of one service, given its keys but `image` and `command`."""

    def container(keys: str) -> dict[str, object]:
        lines = "".join(f"    {line}\n" for line in keys.splitlines())
        text = imported(f"services:\n  web:\n    image: base\n    command: run\n{lines}").text
        found: dict[str, object] = yaml.safe_load(text)["containers"][0]
        return {key: value for key, value in found.items() if key not in ("id", "image", "cmd")}

    return container


@pytest.fixture(scope="session")
def notes(imported: Import, compose_file: Path) -> Callable[[str], list[str]]:
    """What is told of a file, without the file's name."""

    def notes(text: str) -> list[str]:
        return [str(note).removeprefix(f"{compose_file}:") for note in imported(text).notes]

    return notes
