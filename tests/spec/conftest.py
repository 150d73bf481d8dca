"""Stacks as text: most tests here are a few lines of YAML, and what is said of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.spec import Spec, SpecError, load

LoadText = Callable[[str | bytes], Spec]
FaultsOf = Callable[[str | bytes], list[str]]


@pytest.fixture(scope="session")
def stack_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, in a folder `demo`, that each test overwrites; so that hypothesis may use it too."""
    folder = tmp_path_factory.mktemp("stacks") / "demo"
    folder.mkdir()
    return folder / "stack.yaml"


@pytest.fixture(scope="session")
def load_text(stack_file: Path) -> LoadText:
    def load_text(text: str | bytes) -> Spec:
        stack_file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(stack_file)

    return load_text


@pytest.fixture(scope="session")
def faults_of(stack_file: Path, load_text: LoadText) -> FaultsOf:
    """The lines that a user gets, without the folder; none if the text is sound."""

    def faults_of(text: str | bytes) -> list[str]:
        try:
            load_text(text)
        except SpecError as error:
            return [line.removeprefix(f"{stack_file.parent}/") for line in str(error).splitlines()]
        return []

    return faults_of
