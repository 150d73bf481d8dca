"""Tables of what each runtime leaves to a container by default, for docs/security.md: `python -m tests.compare`.

Needs root, gcc, busybox, and those of the peers that are to be compared (Debian: podman, bubblewrap, runc, crun,
docker.io). Everything is done in a mount and a network namespace of its own.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.compare import look, runtimes, tables
from tests.compare.look import Report
from tests.compare.runtimes import NAME, AbsentError, Place

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

Run = Callable[[Place, str], str]


def _pysup(*options: str) -> Run:
    return lambda place, script: runtimes.pysup(place, script, *options)


RUNTIMES: dict[str, Run] = {
    "pysup": runtimes.pysup,
    "pysup, userns: auto": _pysup("--userns", "auto"),
    "docker": runtimes.docker,
    "podman": runtimes.podman,
    "bubblewrap": runtimes.bubblewrap,
    "runc spec": partial(runtimes.oci, "runc"),
    "crun spec": partial(runtimes.oci, "crun"),
}


def main() -> None:
    """Compare all, or those that are named."""
    from probing import make_probing

    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        images = Path(directory) / "images"
        images.mkdir()
        make_probing(images / NAME)
        found = dict(_reports(Path(directory), sys.argv[1:] or list(RUNTIMES)))
    bare = found.pop("root of the host")
    sys.stdout.write(tables.all_tables(found, bare))


def _reports(directory: Path, names: list[str]) -> Iterator[tuple[str, Report]]:
    wanted: dict[str, Run] = {"root of the host": runtimes.bare, **{name: RUNTIMES[name] for name in names}}
    for number, (name, run) in enumerate(wanted.items()):
        place = Place(directory / "images", directory / str(number))
        place.work.mkdir()
        try:
            yield name, runtimes.report(run(place, look.script()))
        except AbsentError as error:
            sys.stderr.write(f"{name}: left out: {error}\n")


if __name__ == "__main__":
    if "--apart" not in sys.argv:
        words = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, "-m", "tests.compare"]
        os.execvp(words[0], [*words, "--apart", *sys.argv[1:]])
    sys.argv.remove("--apart")
    main()
