"""The `pysup` command. What needs no command line parser is answered before one is loaded."""

import os
import sys

from supervisor import __version__


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"pysup {__version__}\n")
        return
    _open_standard_descriptors()
    try:
        from supervisor.cli.main import run  # noqa: PLC0415 (click takes longer to load than this answer may take)
    except KeyboardInterrupt:
        sys.exit(130)  # as ever after SIGINT; nothing has been begun

    run()


def _open_standard_descriptors() -> None:
    """Where one is closed (`pysup up f >&-`), the next file opened would take its number, and our output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
    # Python itself gives up on a stream whose descriptor was closed when it started.
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


if __name__ == "__main__":
    main()
