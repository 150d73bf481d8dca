"""The design's rules about who may use what: held by reading the sources, and by loading what the launcher loads."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import supervisor
from runtime import launcher, spawn

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("runtime", "supervisor") for path in (CHECKOUT / package).rglob("*.py"))
SUPERVISOR = [path for path in SOURCES if path.is_relative_to(CHECKOUT / "supervisor")]
RUNTIME = [path for path in SOURCES if path.is_relative_to(CHECKOUT / "runtime")]

# --- reading sources -------------------------------------------------------------------------------------------------


def place(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def module(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path) for path in SOURCES}


def source_of(name: str) -> Path:
    path = CHECKOUT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, but not what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from executed(child)


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that it imports, wherever in it; for `from a import b` both a and a.b, if b is no module of ours."""
    found = set[str]()
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{place(path)}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= MODULES else {node.module, *names}
    return frozenset(found)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def uses(path: Path, names: Iterable[str]) -> list[str]:
    """Which of these attributes of modules (`os.fork`) it mentions, or imports by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    mentioned = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return sorted(set(names) & (mentioned | imports(path)))


def test_the_reader_sees_what_it_should(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        "def f():\n    import a.b\n    from os import fork\n    os.wait(1)\nif TYPE_CHECKING:\n    import c\n"
    )
    assert imports(source) == {"a.b", "os", "os.fork"}
    assert uses(source, ("os.fork", "os.wait", "os.exec")) == ["os.fork", "os.wait"]


# --- imports ---------------------------------------------------------------------------------------------------------


def test_the_runtime_imports_nothing_but_itself_and_the_standard_library() -> None:
    foreign = {place(path): roots(path) - sys.stdlib_module_names - {"runtime"} for path in RUNTIME}
    assert {path: names for path, names in foreign.items() if names} == {"runtime/network/messages.py": {"pyroute2"}}


def test_only_one_module_touches_ctypes() -> None:
    assert [place(path) for path in SOURCES if "ctypes" in roots(path)] == ["runtime/linux.py"]


@pytest.mark.parametrize("loop", ["asyncio", "trio", "uvloop"])
def test_the_supervisor_calls_no_loop_but_through_anyio(loop: str) -> None:
    assert [place(path) for path in SOURCES if loop in roots(path)] == []


PURE = tuple(f"core.{path.stem}" for path in (CHECKOUT / "supervisor/core").glob("[!_]*.py"))


@pytest.mark.parametrize("name", PURE)
def test_decisions_are_made_without_clock_chance_or_kernel(name: str) -> None:
    pure = ("collections.abc", "dataclasses", "enum", "functools", "itertools", "math", "typing", "runtime.status")
    found = imports(source_of(f"supervisor.{name}"))
    assert [one for one in found if not one.startswith((*pure, "supervisor.core."))] == []


@pytest.mark.parametrize("name", ["stack.service", "stack.tree"])
def test_who_carries_decisions_out_makes_no_system_calls(name: str) -> None:
    kernel = {"os", "signal", "socket", "select", "fcntl", "runtime.linux", "runtime.spawn", "runtime.launcher"}
    assert imports(source_of(f"supervisor.{name}")) & kernel == set()


def reached(start: str) -> set[str]:
    """The modules of ours that come with a module, at whatever distance."""
    found, waiting = set[str](), [start]
    while waiting:
        below = (imports(source_of(waiting.pop())) & MODULES) - found
        found |= below
        waiting += below
    return found


LAYERS = (
    *("core.checks", "core.policy", "core.states", "core.moves", "core.transitions", "core.machine"),
    *("stack.service", "stack.tree", "kernel.runner"),
    *("reporting.metrics", "control.board", "control.desk", "up", "cli.up", "cli.main"),
)


@pytest.mark.parametrize("layer", LAYERS)
def test_dependencies_point_downwards_only(layer: str) -> None:
    above = {f"supervisor.{name}" for name in LAYERS[LAYERS.index(layer) + 1 :]}
    assert reached(f"supervisor.{layer}") & above == set()


def test_no_module_of_the_supervisor_comes_with_the_command_line() -> None:
    below = [module(path) for path in SUPERVISOR if "cli" not in path.parts and path.name != "__main__.py"]
    wrong = {name: {one for one in reached(name) if one.startswith("supervisor.cli")} for name in below}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_no_module_needs_itself() -> None:
    assert [place(path) for path in SOURCES if module(path) in reached(module(path))] == []


ROOMS = {place(path.parent).replace("/", ".") for path in SUPERVISOR} - {"supervisor"}


def room(name: str) -> str:
    return name if name in ROOMS else name.rpartition(".")[0]


@cache
def used_by(one: str) -> frozenset[str]:
    """The other rooms that modules of this one import from."""
    within = [path for path in SUPERVISOR if room(module(path)) == one]
    return frozenset({room(name) for path in within for name in imports(path) & MODULES} & ROOMS - {one})


def rooms_below(one: str) -> set[str]:
    """The same at whatever distance."""
    found, waiting = set[str](), {one}
    while waiting:
        below = used_by(waiting.pop()) - found
        found |= below
        waiting |= below
    return found


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_no_room_needs_itself(name: str) -> None:
    """What two rooms share that need each other is plain data, and stands beside them: entry.py, commands.py."""
    assert name not in rooms_below(name)


@pytest.mark.parametrize("name", sorted(ROOMS - {"supervisor.spec", "supervisor.compose", "supervisor.kernel"}))
def test_to_enter_a_room_loads_nothing_of_it(name: str) -> None:
    """So `pysup ps` and the like load what they use alone. The three others are entered for all that they have."""
    assert imports(source_of(name)) == set()


WALL_TIMES = ("time.time", "time.time_ns", "time.ctime", "time.localtime", "datetime.datetime.now", "datetime.now")


def test_the_wall_clock_which_may_be_set_is_for_times_that_people_see_or_name() -> None:
    """What is decided by time goes by a clock that is never set: the loop's, or time.monotonic."""
    assert {place(path) for path in SOURCES if uses(path, WALL_TIMES)} <= {
        "supervisor/api/call.py",  # how long ago; what was before a time that the user gives
        "supervisor/control/desk.py",  # of each line in a log
        "supervisor/processes/ps.py",  # when a process began
        "supervisor/control/chronicle.py",  # when containers were made, started and ended
        "supervisor/reporting/events.py",  # timestamps of events and lines
        "supervisor/logs/reader.py",  # until a time that the user gives
    }


# --- processes -------------------------------------------------------------------------------------------------------

STARTS = {
    *(
        f"os.{name}"
        for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen", "execv", "execve")
    ),
    *(f"os.{name}" for name in ("execvp", "execvpe", "execl", "execle", "execlp", "spawnv", "spawnve", "spawnl")),
    *(f"anyio.{name}" for name in ("open_process", "run_process", "to_process", "to_interpreter")),
    *("subprocess", "multiprocessing", "concurrent.futures", "pty"),
}
WAITS = {f"os.{name}" for name in ("wait", "wait3", "wait4", "waitid", "waitpid")}


def test_processes_are_started_in_two_places_only() -> None:
    found = {place(path): uses(path, STARTS) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {
        "runtime/spawn.py": ["os.posix_spawn"],  # the launchers
        "supervisor/cli/apart.py": ["os.fork"],  # the command line, before there is a supervisor
    }


def test_children_are_waited_for_where_they_are_owned_only() -> None:
    found = {place(path) for path in SOURCES if uses(path, WAITS)}
    assert found == {"supervisor/processes/reaper.py", "supervisor/cli/apart.py"}


# --- what the launcher loads -----------------------------------------------------------------------------------------

LAUNCHER = {"child", "launcher", "linux", "native", "program", "remove"}
TOO_BIG = {
    *("argparse", "asyncio", "ast", "collections", "contextlib", "dataclasses", "enum", "functools", "importlib.util"),
    *("inspect", "json", "logging", "pathlib", "pickle", "re", "selectors", "shutil", "signal", "site", "socket"),
    *("subprocess", "tempfile", "threading", "traceback", "typing", "warnings"),
}
RESIDENT_MAX_KIB = 12 << 10
SHOW = "print(*sys.modules); print(*open('/proc/self/status'))"


@pytest.fixture(scope="module")
def bare() -> tuple[set[str], int]:
    """The modules of an interpreter that was started as a launcher is, and its resident KiB."""
    boot = spawn._BOOT.format(root=str(CHECKOUT), state="", soft=0, hard=0).rpartition(";")[0]
    command = [sys.executable, "-I", "-S", "-B", "-c", f"{boot}; {SHOW}"]
    shown = subprocess.run(command, env={"LC_ALL": "C.UTF-8"}, stdout=subprocess.PIPE, text=True, check=True).stdout
    modules, status = shown.split("\n", 1)
    return set(modules.split()), int(status.partition("VmRSS:")[2].split()[0])


def test_the_launcher_loads_the_few_modules_that_it_needs(bare: tuple[set[str], int]) -> None:
    modules, _ = bare
    assert {name for name in modules if name.startswith(("runtime.", "supervisor"))} == {
        f"runtime.{n}" for n in LAUNCHER
    }
    assert modules & TOO_BIG == set()


def test_the_launcher_is_small(bare: tuple[set[str], int]) -> None:
    _, resident_kib = bare
    assert resident_kib < RESIDENT_MAX_KIB


def test_a_request_with_its_header_fits_the_launchers_buffer() -> None:
    assert launcher.INLINE_MAX + launcher.REQUEST.size <= len(launcher._buffer)


# --- the packages ----------------------------------------------------------------------------------------------------


def test_our_supervisor_is_imported_and_not_supervisord() -> None:
    assert Path(supervisor.__file__).parent == CHECKOUT / "supervisor"


def test_no_file_names_the_place_of_this_checkout() -> None:
    if shutil.which("git") is None or not (CHECKOUT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT), "ls-files", "-z"]
    names = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split(b"\0")
    here = re.compile(rb"(?<![\w.}/])" + re.escape(os.fsencode(CHECKOUT)) + rb"(?![\w.-])")
    files = [CHECKOUT / os.fsdecode(name) for name in names if name]
    assert [place(path) for path in files if path.is_file() and here.search(path.read_bytes())] == []


def test_no_two_modules_of_tests_have_one_name() -> None:
    """By that of a file alone pytest knows it, and stops at the second; so does the import of what tests share."""
    names = [path.name for path in (CHECKOUT / "tests").glob("*/*.py")]
    twice = {
        name for name in names if names.count(name) > 1 and name not in {"__init__.py", "__main__.py", "conftest.py"}
    }
    assert twice == set()
