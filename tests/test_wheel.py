"""What users install: the wheel has all of both packages and nothing else, and works away from this checkout."""

import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from command import ENVIRONMENT
from hatchling.builders.wheel import WheelBuilder
from waiting import PATIENCE_S

from supervisor import __version__

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = ("runtime", "supervisor")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(CHECKOUT)).build(directory=str(directory), versions=["standard"])
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and what it depends on from the one of this test."""
    place = tmp_path_factory.mktemp("venv")
    venv.create(place, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    wheel.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files don't count there
    return place / "bin/python"


def pysup(python: Path, *arguments: str) -> str:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONPATH"}
    command = [str(python), "-P", "-m", "supervisor", *arguments]
    done = subprocess.run(
        command, cwd="/", env=environment, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True
    )
    return done.stdout


def test_the_wheel_has_all_of_both_packages(wheel: zipfile.ZipFile) -> None:
    files = {path for package in PACKAGES for path in (CHECKOUT / package).rglob("*") if path.is_file()}
    names = {str(path.relative_to(CHECKOUT)) for path in files if "__pycache__" not in path.parts}
    about = f"pysup-{__version__}.dist-info"
    extra = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(wheel.namelist()) == names | extra


def test_the_wheel_makes_the_command_and_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    about = f"pysup-{__version__}.dist-info"
    assert "pysup = supervisor.__main__:main" in wheel.read(f"{about}/entry_points.txt").decode()
    metadata = wheel.read(f"{about}/METADATA").decode()
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_what_is_installed_is_not_this_checkout(installed: Path) -> None:
    code = "import runtime, supervisor, sys; print(*sys.path, runtime.__file__, supervisor.__file__)"
    shown = subprocess.run([installed, "-P", "-c", code], cwd="/", stdout=subprocess.PIPE, text=True, check=True).stdout
    assert str(CHECKOUT) not in shown.replace(sysconfig.get_path("purelib"), "")
    assert pysup(installed, "--version") == f"pysup {__version__}\n"


@pytest.mark.kernel
def test_what_is_installed_runs_containers(installed: Path, image: Path, tmp_path: Path) -> None:
    """With launchers of its own, and all that they load."""
    options = ("--images", str(image.parent), "--state", str(tmp_path))
    assert pysup(installed, "run", *options, "-T", "one", image.name, "echo", "from a wheel") == "from a wheel\n"
