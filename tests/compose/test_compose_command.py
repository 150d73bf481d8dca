"""`pysup import compose`, as people call it."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import ENVIRONMENT, ROOT, Ended

WHOLE = "services: {web: {image: base, entrypoint: run, network_mode: none}}\n"
LOSSY = WHOLE.replace("run,", "run, ports: ['80:80'],")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "compose.yaml"
    path.write_text(LOSSY)
    return path


def pysup(*arguments: str | Path, group: tuple[str, ...] = ("import", "compose")) -> Ended:
    command = [sys.executable, "-m", "supervisor", *group, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_spec_is_on_standard_output_and_what_is_told_on_standard_error(file: Path) -> None:
    ended = pysup(file)
    assert ended.status == 0
    assert ended.out.endswith("containers:\n  - id: web\n    image: base\n    cmd: run\n    network: none\n")
    assert [line.startswith(f"{file}:1:") for line in ended.err.splitlines()] == [True, True]


def test_strict_fails_if_anything_was_dropped(file: Path) -> None:
    ended = pysup("--strict", file)
    assert (ended.status, ended.out) == (1, pysup(file).out)
    file.write_text(WHOLE)
    assert pysup("--strict", file).status == 0


def test_a_file_is_not_replaced_without_force(file: Path, tmp_path: Path) -> None:
    output = tmp_path / "stack.yaml"
    assert pysup(file, "-o", output).status == 0
    text = output.read_text()
    output.write_text("mine")
    ended = pysup(file, "-o", output)
    assert (ended.status, ended.err) == (125, f"pysup: {output} is there already: --force replaces it\n")
    assert output.read_text() == "mine"
    assert pysup(file, "-o", output, "--force").status == 0
    assert output.read_text() == text


def test_what_can_not_be_read_or_written_is_one_line(file: Path, tmp_path: Path) -> None:
    ended = pysup(file, "-o", tmp_path / "no/stack.yaml")
    assert (ended.status, ended.err.count("\n")) == (125, 1)
    ended = pysup(tmp_path / "none.yaml")
    assert (ended.status, ended.err.count("\n")) == (125, 1)
    assert "No such file" in ended.err


@pytest.mark.parametrize("group", [("import",), ("import", "compose")])
def test_help_fits_one_screen(group: tuple[str, ...]) -> None:
    ended = pysup("--help", group=group)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: pysup {' '.join(group)} ")
    assert ended.out.count("\n") <= 24


def test_the_start_of_other_commands_does_not_load_it() -> None:
    probe = (
        "import sys; sys.argv = ['pysup', 'up', '--help']\n"
        "import os; os._exit = lambda code: print([name for name in sys.modules if 'compose' in name])\n"
        "from supervisor.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", probe], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
