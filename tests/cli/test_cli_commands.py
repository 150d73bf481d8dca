"""The other commands: `config`, `schema`, `image`, and what the command line says of itself."""

import json
import re
import subprocess
import sys
import textwrap
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from command import ENVIRONMENT, ROOT, Ended

from supervisor import __version__, spec
from supervisor.cli import main

DEMO = str(ROOT / "configs/stack.yaml")
COMMANDS = [*main._FAMILIES, "image ls", "image create", "import compose"]


def pysup(*arguments: str, directory: Path = ROOT) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        cwd=directory,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


# --- what it says of itself -------------------------------------------------------------------------------------------


def test_the_version_is_told_without_loading_a_command_line() -> None:
    probe = (
        "import sys; sys.argv = ['pysup', '--version']; from supervisor.__main__ import main; main();"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'click', 'anyio', 'pydantic', 'yaml'}))"
    )
    done = subprocess.run([sys.executable, "-c", probe], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == f"pysup {__version__}\n[]\n"


def test_help_loads_no_supervisor() -> None:
    probe = (
        "import atexit, sys; sys.argv = ['pysup', 'up', '--help']\n"
        "import os; os._exit = lambda code: print(sorted(set(sys.modules) & {'anyio', 'pydantic', 'yaml', 'rich'}))\n"
        "from supervisor.cli.main import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", probe], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_one_screen(command: str) -> None:
    ended = pysup(*command.split(), "--help")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: pysup {command} ")
    assert len(ended.out.splitlines()) <= 60
    assert max(map(len, ended.out.splitlines())) <= 80


def test_help_names_every_command_and_cuts_no_sentence() -> None:
    out = pysup("--help").out
    listed = out[out.index("Commands:") : out.index("Examples:")].splitlines()[1:]
    assert [line.split()[0] for line in listed if line.strip()] == sorted(main._FAMILIES)
    assert "..." not in "".join(listed)


@pytest.mark.parametrize("arguments", [(), ("image",)])
def test_a_command_without_its_word_shows_help_as_an_error(arguments: tuple[str, ...]) -> None:
    ended = pysup(*arguments)
    assert (ended.status, ended.out) == (125, "")
    assert ended.err.startswith("Usage: pysup ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("upp",), "no such command upp; did you mean up? see pysup --help"),
        (("LOGS",), "no such command LOGS; did you mean logs?"),
        (("status",), "no such command status; did you mean ps?"),
        (("qqq",), "no such command qqq; see pysup --help"),
        (("x" * 500,), f"no such command {'x' * 60}…; see"),
        (("",), "no such command ''; see pysup --help"),
        (("image", "pull"), "no such command pull; did you mean create? see pysup image --help"),
        (("import", "compse"), "no such command compse; did you mean compose?"),
        (("up",), "missing argument 'FILE'; see pysup up --help"),
        (("up", "-t", "nan", "x"), "invalid value for '-t' / '--timeout': 'nan' is no number of seconds"),
        (("stop", "-t", "1.5"), "invalid value for '-t' / '--timeout': '1.5' is no number of seconds"),
        (("down", "-t", "-1"), "invalid value for '-t' / '--timeout': '-1' is no number of seconds"),
        (("down", "--all", "-s", "web"), "--all means every stack, and web only one of them; see pysup down --help"),
        (("down", "x.yaml"), "got unexpected extra argument (x.yaml): which stack is said by -s NAME or -f FILE; see"),
        (("--bogus",), "no such option --bogus; see pysup --help"),
        (("up", "--detatch", "x"), "no such option --detatch; did you mean --detach? see pysup up --help"),
        (("exec", "--zzz", "x", "true"), "no such option --zzz; see pysup exec --help"),
        (("completion",), "missing argument '{bash|zsh|fish}'. Choose from: bash, zsh, fish; see"),
        (("config",), "missing argument 'FILE'; see pysup config --help"),
        (("config", "nonesuch.yaml"), "nonesuch.yaml: can't be read"),
        (("image", "create"), "missing argument 'NAME'; see pysup image create --help"),
        (("image", "create", "x", "sh"), "missing option '--from-host'"),
    ],
)
def test_a_wrong_call_is_one_line_and_125(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    ended = pysup(*arguments, directory=tmp_path)
    assert ended.status == 125
    assert ended.complaint.startswith(complaint)


# --- config and schema ------------------------------------------------------------------------------------------------


def test_the_schema_is_the_one_beside_the_demo() -> None:
    assert pysup("schema") == Ended(0, (ROOT / "configs/stack.schema.json").read_text())


def test_config_prints_a_spec_that_says_the_same(tmp_path: Path) -> None:
    ended = pysup("config", DEMO)
    assert (ended.status, ended.err) == (0, "")
    (tmp_path / "full.yaml").write_text(ended.out)
    assert spec.load(tmp_path / "full.yaml") == spec.load(DEMO)


def test_config_leaves_nothing_out() -> None:
    resolved = yaml.safe_load(pysup("config", DEMO).out)
    assert all(set(container) == set(spec.Container.model_fields) for container in resolved["containers"])


def test_config_tells_all_faults(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("containers:\n- id: a\n  imag: base\n  cmd: x\n  replicas: many\n")
    ended = pysup("config", "s.yaml", directory=tmp_path)
    assert (ended.status, ended.out) == (125, "")
    places = [line.split()[1] for line in ended.err.splitlines()]
    assert places == ["s.yaml:2:3:", "s.yaml:3:3:", "s.yaml:5:13:"]


def test_the_demo_has_what_the_readme_shows() -> None:
    demo = spec.load(DEMO)
    assert [container.id for container in demo.containers] == ["check", "web", "client", "worker", "crasher"]
    assert demo.source == Path(DEMO)


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_example_is_a_spec(tmp_path: Path) -> None:
    section = readme().partition("## A stack\n")[2]
    example = "".join(takewhile(lambda line: line.startswith("    "), section.lstrip("\n").splitlines(keepends=True)))
    (tmp_path / "stack.yaml").write_text(textwrap.dedent(example))
    assert [container.id for container in spec.load(tmp_path / "stack.yaml").containers] == ["web", "db", "worker"]


def test_the_readme_explains_every_key() -> None:
    section = readme().partition("## A stack\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall("`(.*?)`", " ".join(rows))) == set(spec.Container.model_fields)


# --- image ------------------------------------------------------------------------------------------------------------


def test_an_image_is_made_and_listed(tmp_path: Path) -> None:
    made = pysup("image", "create", "tiny", "--from-host", "true", directory=tmp_path)
    assert made == Ended(0, f"image tiny is in {tmp_path}/images/tiny\n")
    assert pysup("image", "ls", "-q", directory=tmp_path) == Ended(0, "tiny\n")
    (info,) = json.loads(pysup("image", "ls", "--json", directory=tmp_path).out)
    assert (info["name"], info["path"], info["problems"]) == ("tiny", f"{tmp_path}/images/tiny", [])
    header, row = pysup("image", "ls", directory=tmp_path).out.splitlines()
    assert (header.split()[0], row.split()[0]) == ("NAME", "tiny")


def test_no_images_is_a_hint_and_no_failure(tmp_path: Path) -> None:
    ended = pysup("image", "ls", directory=tmp_path)
    assert (ended.status, ended.out) == (0, "")
    assert "make one: pysup image create base" in ended.err
    assert pysup("image", "ls", "--json", directory=tmp_path).out == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("../x", "sh"), "image name '../x' is not valid"),
        (("x", "nonesuch-program"), "program 'nonesuch-program' is not on this host"),
        (("x",), "image x: there is nothing to put in"),
    ],
)
def test_an_image_that_cannot_be_made(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    ended = pysup("image", "create", "--from-host", *arguments, directory=tmp_path)
    assert (ended.status, ended.complaint.startswith(complaint)) == (125, True)
    assert not list(tmp_path.rglob("x"))
