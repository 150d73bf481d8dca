"""What an operator waits for: `ps`, `stats` and `exec` of a running stack; and what a day of crash loops leaves.

Commands are timed in turns with the bare interpreter, which they can't be quicker than. `exec` is a request to the
control socket, from the asking to the exit status, as any Docker client makes it, beside `crun exec` of the same
program in a container of the same image; and `pysup exec`, whose time is its interpreter's.

A stack that crashes all the time and waits for half a minute each time does so 2,880 times a day. Here it does not
wait.
"""

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.console import Console

from runtime import linux
from supervisor.client import Client
from tests.bench import peers, stack
from tests.bench.launches import SLEEP
from tests.bench.report import Figure
from tests.bench.stack import Missing
from tests.bench.subject import TRUE, Place

ROUNDS = 15
EXECS = 40
PS_MAX = {10: 3, 1000: 10}  # x the bare interpreter
EXEC_MAX = 1.0  # x crun exec
STATS_MAX_MS = 2000  # of which one second is between two looks

LOOPS = 10
DAY_RESTARTS = 2880  # of each
GROWN_MAX_KIB = 512  # in the second half of a day
MORE_MAX = 2 * LOOPS  # what the runs of the moment hold
DAY_LIMIT_S = 300


def of_operator(console: Console, work: Path, *, quick: bool) -> list[Figure]:
    """The figures."""
    place = Place(work / "images/bench", work / "state", "memory")
    made: list[Figure] = []
    for count in PS_MAX:
        console.log(f"ps, stats, exec at {count}")
        try:
            with stack.running(place, count):
                made += _asking(_client(place), count, work)
        except Missing as reason:
            made.append(Figure(f"ps at {count}", None, note=str(reason)))
    console.log("a day of crash loops")
    made += _day(place, DAY_RESTARTS // (8 if quick else 1))
    return made


def _run_directory(place: Place) -> Path:
    return place.state.parent / "stacks/run"


def _client(place: Place) -> Client:
    client = Client(str(_run_directory(place) / "bench/pysup.sock"))
    os.environ["PYSUP_RUN"] = str(_run_directory(place))
    return client


def _asking(client: Client, count: int, work: Path) -> list[Figure]:
    bare, ps = _in_turns(_command([sys.executable, "-c", "pass"]), _command(_pysup("ps", "-a")))
    made = [Figure(f"pysup ps at {count} / bare interpreter", ps / bare, limit=PS_MAX[count], note=f"{ps:.1f} ms")]
    if count == min(PS_MAX):
        return [*made, *_executing(client, work)]
    stats = _ms(_command(_pysup("stats", "--no-stream")))
    return [*made, Figure(f"pysup stats at {count}", stats, "ms", STATS_MAX_MS, note="1,000 of them between two looks")]


def _executing(client: Client, work: Path) -> list[Figure]:
    ours = median(_ms(lambda: _execute(client)) for _ in range(EXECS))
    command = median(_ms(_command(_pysup("exec", "c.1", *TRUE))) for _ in range(ROUNDS))
    made = [Figure("exec, at the control socket", ours, "ms"), Figure("pysup exec", command, "ms")]
    try:
        theirs = _crun_ms(work)
    except Missing as reason:
        return [*made, Figure("exec / crun exec", None, limit=EXEC_MAX, note=str(reason))]
    return [*made, Figure("exec / crun exec", ours / theirs, limit=EXEC_MAX, note=f"crun {theirs:.1f} ms, no cgroup")]


def _execute(client: Client) -> None:
    asked = client.post("/containers/c.1/exec", {"Cmd": list(TRUE), "AttachStdout": True, "AttachStderr": True})["Id"]
    with client.hijack(f"/exec/{asked}/start", {}) as line:
        while line.recv(4096):
            pass
    if client.get(f"/exec/{asked}/json")["ExitCode"] != 0:
        raise Missing("an exec failed")


def _crun_ms(work: Path) -> float:
    """In a mount namespace without the unified hierarchy: crun before 1.9 refuses one beside version 1."""
    if shutil.which("crun") is None:
        raise Missing("no crun here")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if (pid := os.fork()) == 0:
        try:
            answer: object = _crun_execs(work)
        except BaseException as error:  # noqa: BLE001 (told in the parent)
            answer = str(error)
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    if not isinstance(answer, float):
        raise Missing(f"crun: {answer}")
    return answer


def _crun_execs(work: Path) -> float:
    linux.unshare(linux.CLONE_NEWNS)
    if Path("/sys/fs/cgroup/unified").is_mount():
        linux.umount2("/sys/fs/cgroup/unified", linux.MNT_DETACH)
    place = Path("/run/pysup-bench")
    place.mkdir(exist_ok=True)
    linux.mount("crun", str(place), "tmpfs", 0, None)
    for name in ("upper", "work", "merged", "root"):
        (place / name).mkdir()
    options = f"lowerdir={work}/images/bench,upperdir={place}/upper,workdir={place}/work"
    linux.mount("crun", str(place / "merged"), "overlay", 0, options)
    bundle = peers.make_bundle(place / "bundle", place / "merged", _sleeping)
    crun = ["crun", "--root", str(place / "root"), "--cgroup-manager=disabled"]
    run = subprocess.Popen([*crun, "run", "--bundle", str(bundle), "bench"], stdin=subprocess.DEVNULL)
    try:
        _until(lambda: _succeeds([*crun, "exec", "bench", *TRUE]), 10)
        return median(_ms(_command([*crun, "exec", "bench", *TRUE])) for _ in range(EXECS))
    finally:
        subprocess.run([*crun, "delete", "-f", "bench"], check=False)
        run.wait()


def _sleeping(bundle: Path, merged: Path) -> dict[str, object]:
    made = peers.oci_configuration(bundle, merged)
    process = made["process"]
    assert isinstance(process, dict)
    return {**made, "process": {**process, "args": list(SLEEP)}}


def _day(place: Place, restarts: int) -> list[Figure]:
    """Memory and descriptors of the supervisor, over its second half."""
    crash = {"restart": "always", "backoff": {"initial_s": 0}, "cmd": list(TRUE)}
    spec = stack.write_spec(place, LOOPS, TRUE, **crash)
    process = subprocess.Popen(
        stack.command(place, spec), cwd=stack.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        client = _client(place)
        _until(lambda: _restarts(client) >= restarts * LOOPS // 2, DAY_LIMIT_S)
        before = _held(process.pid)
        _until(lambda: _restarts(client) >= restarts * LOOPS, DAY_LIMIT_S)
        after = _held(process.pid)
    finally:
        process.terminate()
        process.wait()
    grown, more = (late - early for early, late in zip(before, after, strict=True))
    return [
        Figure(
            "memory grown in a day of crash loops", grown, "KiB", GROWN_MAX_KIB, note=f"{restarts * LOOPS} restarts"
        ),
        Figure("descriptors more after it", more, "", MORE_MAX, note=f"{after[1]} then"),
    ]


def _restarts(client: Client) -> int:
    try:
        return sum(int(each["restarts"]) for each in client.get("/pysup/ps"))
    except Exception:  # noqa: BLE001 (it is not up yet)
        return 0


def _held(pid: int) -> tuple[int, int]:
    """KiB of its own, and descriptors but those of runs: the least of several looks."""
    looks = []
    for _ in range(20):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        memory = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss_Anon:"))
        looks.append((memory, len(os.listdir(f"/proc/{pid}/fd"))))
        time.sleep(0.02)
    memories, descriptors = zip(*looks, strict=True)
    return min(memories), min(descriptors)


# --- timing ----------------------------------------------------------------------------------------------------------


def _pysup(*words: str) -> list[str]:
    script = Path(sys.executable).parent / "pysup"
    return [*([str(script)] if script.exists() else [sys.executable, "-m", "supervisor"]), *words]


def _command(argv: list[str]) -> Callable[[], None]:
    def run() -> None:
        subprocess.run(argv, cwd=stack.ROOT, stdout=subprocess.DEVNULL, check=True)

    return run


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _ms(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def _in_turns(*works: Callable[[], None]) -> list[float]:
    rounds = [[_ms(work) for work in works] for _ in range(ROUNDS)]
    return [median(each) for each in zip(*rounds, strict=True)]


def _until(done: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > end:
            raise Missing(f"not done after {limit_s:.0f} s")
        time.sleep(0.05)
